//! What the prober does when no more files can be opened. A program of its own: the limit is the process's.

mod support;

use std::{fs::File, sync::Arc};

use operator::probe::{Attempt as _, Known, McpProber, Prober as _, Problem, Route, TargetId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{
    fake::{Fake, modern},
    rig::spec,
};

#[tokio::test]
async fn connections_that_nobody_uses_are_given_back_when_one_cannot_be_had() {
    let fake = Fake::start(modern).await;
    let route = Arc::new(Route::new(&spec(fake.addr.port())));
    let prober = McpProber::default();
    let ask = async |id: u64| {
        let mut attempt = prober.attempt(TargetId(id), &route, Some(fake.addr.ip()), Known::default(), false);
        let found = attempt.ask().await;
        attempt.finish().await;
        found
    };
    for id in 0..8 {
        ask(id).await.expect("a good probe");
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).expect("a lower limit");
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(matches!(ask(100).await, Err(Problem::Ours(_))), "{} files are open", taken.len());
    ask(100).await.expect("there is room again");
}

//! What a healthy fleet costs.

use tokio::time::{Instant, sleep};

use crate::{
    ip, secs, serving,
    support::{puppet::Puppet, rig::Rig},
};

#[tokio::test(start_paused = true)]
async fn a_healthy_fleet_is_probed_and_nothing_is_written() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    for n in 0..50 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    let (writes, probes) = (rig.api.writes().len(), puppet.total());
    rig.changes();
    sleep(secs(600)).await;
    assert_eq!(rig.api.writes().len(), writes, "writes while healthy");
    assert_eq!(rig.changes(), 0, "changes told while healthy");
    let made = puppet.total() - probes;
    assert!((2_950..=3_050).contains(&made), "{made} probes in ten minutes of 50 servers every 10 s");
}

#[tokio::test(start_paused = true)]
async fn probes_are_spread_over_the_interval() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..200 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    sleep(secs(10)).await;
    let start = Instant::now();
    sleep(secs(10)).await;
    let mut seconds = [0; 10];
    for n in 0..200 {
        for at in puppet.asked(ip(n)) {
            if let Some(at) = at.checked_duration_since(start)
                && at < secs(10)
            {
                seconds[usize::try_from(at.as_secs()).expect("small")] += 1;
            }
        }
    }
    assert!(seconds.iter().all(|count| (5..=40).contains(count)), "{seconds:?}");
}

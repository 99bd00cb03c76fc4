//! Several pods of one server, and what becomes of one.

use std::{net::IpAddr, time::Duration};

use operator::{
    crd::{CircuitState, reason},
    probe::{Endpoint, ServerHealth, VerdictKind as Kind},
};
use tokio::time::sleep;

use crate::{
    gate, ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod, spec},
    },
    usual,
};

#[tokio::test(start_paused = true)]
async fn one_of_three_pods_leaves_and_comes_back() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2, 3], |_| {}).await;
    rig.changes();
    puppet.set(ip(2), Does::Hang);
    rig.until("server", secs(18), |health| !gate(health, "server-2")).await.expect("out in time");
    sleep(Duration::from_millis(100)).await;
    let health = rig.health("server");
    assert_eq!(health.pods.iter().filter(|pod| pod.in_service).count(), 2);
    assert_eq!((health.circuit.state, rig.changes()), (CircuitState::Closed, 1));
    puppet.set(ip(2), Does::Answer);
    rig.until("server", secs(12), is_closed).await.expect("back");
    assert_eq!(rig.api.gates("server-2"), [true, false, true]);
    assert_eq!(rig.api.gates("server-1"), [true]);
    assert_eq!(rig.api.events(), [reason::POD_OUT_OF_SERVICE, reason::POD_IN_SERVICE]);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_does_not_outlive_its_pod() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::AnswerAfter(secs(4)));
    rig.api.change_pod("server-1", |pod| pod.incarnation = Some("1".into()));
    sleep(secs(1)).await;
    // While it is being asked the pod goes, and another one gets its address.
    rig.api.remove_pod("server-1");
    puppet.set(ip(1), Does::Refuse);
    rig.api.set_pod(&key("server"), operator::probe::PodState { uid: "another".into(), ..pod("server-1", ip(1)) });
    sleep(secs(10)).await;
    let health = rig.health("server");
    assert!(!health.pods[0].gate, "an answer of the pod before must not count: {health:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_away_is_not_asked_any_more_and_is_no_news() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    rig.changes();
    let writes = rig.api.writes().len();
    puppet.set(ip(1), Does::Refuse);
    rig.api.change_pod("server-1", |pod| pod.deleting = true);
    puppet.forget();
    sleep(secs(60)).await;
    assert!(puppet.asked(ip(1)).is_empty());
    let health = rig.health("server");
    assert_eq!((health.pods.len(), health.verdict.kind), (1, Kind::Healthy));
    assert_eq!((rig.changes(), rig.api.writes().len()), (1, writes), "that it left is told once");
    rig.api.remove_pod("server-1");
    sleep(secs(1)).await;
    assert_eq!(rig.changes(), 0);
}

/// Relabelling is how people put a pod aside.
#[tokio::test(start_paused = true)]
async fn a_pod_that_becomes_another_servers_leaves_nothing_behind() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    serving(&rig, &puppet, "other", &[3], |_| {}).await;
    rig.api.set_pod(&key("other"), pod("server-1", ip(1)));
    rig.until("server", secs(1), |health| health.pods.len() == 1).await.expect("it left");
    rig.until("other", secs(3), |health| health.pods.len() == 2).await.expect("it came");
    rig.api.remove_pod("server-1");
    puppet.forget();
    sleep(secs(60)).await;
    assert!(puppet.asked(ip(1)).is_empty(), "nobody asks a pod that is gone");
    assert_eq!((rig.health("server").pods.len(), rig.health("other").pods.len()), (1, 1));
}

/// `kubectl delete --cascade=orphan`, or a backup that is restored: nothing happens to the pods any more.
#[tokio::test(start_paused = true)]
async fn a_server_that_comes_after_its_pods_takes_them_up() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    rig.engine.remove_server(&key("server"));
    puppet.forget();
    sleep(secs(60)).await;
    assert!(puppet.asked(ip(1)).is_empty(), "whose they are nobody says");
    rig.api.remove_pod("server-2");
    let mut again = spec(8080);
    usual(&mut again);
    rig.engine.set_server(&key("server"), again, None);
    let known = |health: &ServerHealth| health.pods.len() == 1 && health.verdict.kind == Kind::Healthy && is_closed(health);
    rig.until("server", secs(11), known).await.expect("the pod that is left serves");
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(18), is_open).await.expect("what becomes of it is found out");
}

#[tokio::test(start_paused = true)]
async fn pods_that_a_server_of_the_same_name_left_behind_are_none_of_a_remote_one() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    rig.engine.remove_server(&key("server"));
    let mut remote = spec(8080);
    usual(&mut remote);
    remote.endpoint = Endpoint::Remote { url: "http://example.com/mcp".parse().expect("a URL") };
    rig.engine.set_server(&key("server"), remote, None);
    puppet.set(IpAddr::from([0, 0, 0, 0]), Does::Answer);
    puppet.forget();
    rig.api.change_pod("server-1", |pod| pod.deleting = true);
    sleep(secs(30)).await;
    let health = rig.health("server");
    assert_eq!((health.pods.len(), health.verdict.kind), (0, Kind::Healthy));
    assert!(puppet.asked(ip(1)).is_empty());
}

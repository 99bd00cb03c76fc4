//! The patches of readiness gates.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    ip, is_closed, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod, spec},
    },
    usual,
};

#[tokio::test(start_paused = true)]
async fn a_patch_that_fails_is_tried_again_until_it_holds() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    (0..3).for_each(|_| rig.api.refuse("/status", 500));
    puppet.set(ip(1), Does::Answer);
    let mut usual_spec = spec(8080);
    usual(&mut usual_spec);
    rig.engine.set_server(&key("server"), usual_spec, None);
    rig.api.set_pod(&key("server"), pod("server-1", ip(1)));
    sleep(Duration::from_millis(300)).await;
    assert!(!rig.health("server").pods[0].in_service, "what is not patched is not in service");
    rig.until("server", secs(10), is_closed).await.expect("in service");
    assert_eq!(rig.api.gates("server-1").len(), 4);
    sleep(secs(60)).await;
    assert_eq!(rig.api.gates("server-1").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_somebody_else_changed_is_put_right() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    rig.api.change_pod("server-1", |pod| pod.gate = Some(false));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.api.gates("server-1"), [true, true]);
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_lease_nothing_is_written() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    let writes = rig.api.writes().len();
    puppet.set(ip(1), Does::Hang);
    sleep(secs(11)).await;
    rig.stop().await;
    sleep(secs(60)).await;
    assert_eq!(rig.api.writes().len(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_tried_again() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    rig.api.refuse("/pods/server-1/status", 409);
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), |health| !health.pods[0].gate).await.expect("decided");
    sleep(secs(2)).await;
    assert_eq!(rig.api.gates("server-1"), [true, false, false], "the kubelet was quicker, and the pod is still there");
}

#[tokio::test(start_paused = true)]
async fn what_the_watch_shows_late_is_no_news_and_what_is_newer_is_put_right() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    let patched = rig.api.version("server-1");
    rig.api.change_pod("server-1", |pod| (pod.gate, pod.version) = (None, Some(patched - 1)));
    sleep(secs(1)).await;
    assert_eq!(rig.api.gates("server-1"), [true], "it is older than our patch");
    rig.api.change_pod("server-1", |pod| (pod.gate, pod.version) = (Some(false), Some(patched + 1)));
    sleep(secs(1)).await;
    assert_eq!(rig.api.gates("server-1"), [true, true]);
}

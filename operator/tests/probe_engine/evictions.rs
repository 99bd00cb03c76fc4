//! Pods that stay failed.

use operator::crd::reason;
use tokio::time::sleep;

use crate::{
    ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::Rig,
    },
};

#[tokio::test(start_paused = true)]
async fn pods_that_stay_failed_are_evicted_one_at_a_time() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2, 3], |spec| spec.health.restart_after_seconds = 60).await;
    for n in [1, 2] {
        puppet.set(ip(n), Does::Refuse);
    }
    sleep(secs(65)).await;
    assert!(rig.api.evictions().is_empty(), "not before its time");
    sleep(secs(30)).await;
    let first = rig.api.evictions();
    assert_eq!(first.len(), 1, "{first:?}");
    sleep(secs(300)).await;
    assert_eq!(rig.api.evictions().len(), 1, "the first one has not gone yet");
    rig.api.remove_pod(&first[0]);
    sleep(secs(30)).await;
    assert_eq!(rig.api.evictions().len(), 2);
    assert!(rig.api.events().contains(&reason::POD_EVICTED.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_open_server_is_asked_once_more_before_its_pod_is_evicted() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| {
        spec.health.restart_after_seconds = 60;
        spec.breaker.open_seconds = 300;
    })
    .await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    puppet.set(ip(1), Does::Answer);
    rig.until("server", secs(70), is_closed).await.expect("it had recovered");
    assert!(rig.api.evictions().is_empty());
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    sleep(secs(65)).await;
    assert_eq!(rig.api.evictions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_eviction_is_tried_again_later_and_told_once() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |spec| spec.health.restart_after_seconds = 30).await;
    rig.api.refuse("/eviction", 429);
    rig.api.refuse("/eviction", 429);
    puppet.set(ip(1), Does::Refuse);
    sleep(secs(180)).await;
    assert_eq!(rig.api.evictions(), ["server-1"; 3]);
    let events = rig.api.events();
    assert_eq!(events.iter().filter(|event| *event == reason::EVICTION_REFUSED).count(), 1, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_evicted_while_the_fleet_panics() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..8 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |spec| spec.health.restart_after_seconds = 30).await;
    }
    (0..8).for_each(|n| puppet.set(ip(n), Does::Refuse));
    sleep(secs(600)).await;
    assert!(rig.api.evictions().len() <= 2, "{:?}", rig.api.evictions());
}

//! Pods that stay failed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::{
    clock,
    crd::{CircuitState, CircuitStatus, reason},
};
use tokio::time::{Instant, sleep};

use crate::{
    ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, of_template, pod, spec},
    },
    usual,
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

/// What hung before a restart of the operator is not left hanging for longer because of it.
#[tokio::test(start_paused = true)]
async fn a_new_operator_goes_on_counting_since_when_a_pod_fails() {
    for (does, evicted) in [(Does::Hang, 1), (Does::Refuse, 1), (Does::Answer, 0)] {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        puppet.set(ip(1), does.clone());
        let at = |seconds: i64| Time(clock::now() + k8s_openapi::jiff::SignedDuration::from_secs(seconds));
        let persisted = CircuitStatus {
            state: CircuitState::Open,
            since: Some(at(-50)),
            reason: Some(reason::TIMEOUT.into()),
            retry_at: Some(at(250)),
            openings: 1,
            failures: 3,
        };
        let mut open = spec(8080);
        usual(&mut open);
        open.health.restart_after_seconds = 60;
        rig.engine.set_server(&key("server"), open, Some(&persisted));
        rig.api.set_pod(&key("server"), operator::probe::PodState { gate: Some(false), ..pod("server-1", ip(1)) });
        sleep(secs(8)).await;
        assert!(rig.api.evictions().is_empty(), "not before its time");
        sleep(secs(20)).await;
        assert_eq!(rig.api.evictions().len(), evicted, "{does:?}");
    }
}

/// A bridge replaces a wedged child within its pod, and the first answers of the next may be slow.
#[tokio::test(start_paused = true)]
async fn who_answered_since_is_not_evicted_for_what_was_before() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| {
        spec.health.restart_after_seconds = 60;
        spec.breaker.open_seconds = 30;
    })
    .await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    puppet.forget();
    puppet.set(ip(1), Does::Answer);
    while puppet.asked(ip(1)).is_empty() {
        sleep(secs(1) / 100).await;
    }
    // One answer closes no circuit.
    puppet.set(ip(1), Does::Refuse);
    let answered = Instant::now();
    rig.until("server", secs(30), is_open).await.expect("open again");
    while rig.api.evictions().is_empty() {
        sleep(secs(1)).await;
    }
    assert!(answered.elapsed() >= secs(59), "{:?}", answered.elapsed());
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
    sleep(secs(580)).await;
    assert!(rig.api.evictions().len() <= 2, "{:?}", rig.api.evictions());
}

#[tokio::test(start_paused = true)]
async fn every_eviction_in_a_row_waits_twice_as_long() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2, 3, 4], |spec| spec.health.restart_after_seconds = 60).await;
    (1..=3).for_each(|n| puppet.set(ip(n), Does::Refuse));
    let mut at = Vec::new();
    for number in 1..=3 {
        while rig.api.evictions().len() < number {
            sleep(secs(1)).await;
        }
        at.push(Instant::now());
        let evicted = rig.api.evictions().last().cloned().expect("one was");
        rig.api.remove_pod(&evicted);
    }
    let waits: Vec<u64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert!(waits[0].abs_diff(60) <= 15 && waits[1].abs_diff(120) <= 15, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_answered_is_not_evicted() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| {
        (spec.health.restart_after_seconds, spec.health.startup_seconds) = (30, 10);
    })
    .await;
    puppet.set(ip(2), Does::Refuse);
    rig.api.set_pod(&key("server"), pod("server-2", ip(2)));
    sleep(secs(900)).await;
    assert!(rig.health("server").pods[1].failing);
    assert!(rig.api.evictions().is_empty(), "{:?}", rig.api.evictions());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_evicted_while_a_rollout_is_under_way() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |spec| spec.health.restart_after_seconds = 30).await;
    let new = operator::probe::PodState { origin: of_template("2"), ..pod("server-3", ip(3)) };
    puppet.set(ip(3), Does::Answer);
    rig.api.set_pod(&key("server"), new);
    rig.until("server", secs(5), is_closed).await.expect("in service");
    puppet.set(ip(3), Does::Refuse);
    sleep(secs(600)).await;
    assert!(rig.api.evictions().is_empty(), "the rollout would look as if it went on");
    rig.api.remove_pod("server-1");
    rig.api.remove_pod("server-2");
    sleep(secs(400)).await;
    assert_eq!(rig.api.evictions().first().map(String::as_str), Some("server-3"), "the rollout is over");
}

/// A pod that is evicted goes beside its successor; of a server with a volume there must be one at a time.
#[tokio::test(start_paused = true)]
async fn the_only_writer_is_started_anew_and_not_evicted() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    rig.api.of_one_writer("server-mcp");
    serving(&rig, &puppet, "server", &[1], |spec| spec.health.restart_after_seconds = 30).await;
    puppet.set(ip(1), Does::Refuse);
    sleep(secs(60)).await;
    assert_eq!(rig.api.restarts(), ["server-mcp"]);
    assert!(rig.api.evictions().is_empty());
    assert!(rig.api.events().contains(&reason::POD_EVICTED.to_owned()));
    sleep(secs(300)).await;
    assert_eq!(rig.api.restarts().len(), 1, "it has not gone yet");
}

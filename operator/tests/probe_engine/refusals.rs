//! Servers that answer, and say no.

use std::time::Duration;

use operator::{
    crd::{CircuitState, reason},
    probe::VerdictKind as Kind,
};
use tokio::time::sleep;

use crate::{
    ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::Rig,
    },
};

#[tokio::test(start_paused = true)]
async fn a_refusal_is_no_failure_and_its_wish_is_granted() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::SayNo(429, Some(secs(120))));
    let health = rig.until("server", secs(11), |health| health.verdict.kind == Kind::Alive).await.expect("alive");
    assert!(health.pods[0].in_service && health.circuit.state == CircuitState::Closed);
    puppet.forget();
    sleep(secs(115)).await;
    assert_eq!(puppet.total(), 0, "it asked for two minutes");
    sleep(secs(20)).await;
    assert!(puppet.total() >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_a_row_of_failures() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.forget();
    for (number, does) in [Does::Refuse, Does::Refuse, Does::SayNo(429, None), Does::Refuse, Does::Refuse].into_iter().enumerate()
    {
        puppet.set(ip(1), does);
        while puppet.asked(ip(1)).len() <= number {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let health = rig.health("server");
    assert!(is_closed(&health) && !health.pods[0].failing && health.pods[0].gate, "two in a row are no three: {health:?}");
    rig.until("server", secs(10), is_open).await.expect("open at the third in a row");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_closes_a_half_open_circuit() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    puppet.set(ip(1), Does::SayNo(401, None));
    let health = rig.until("server", secs(40), is_closed).await.expect("closed");
    assert_eq!((health.verdict.kind, health.verdict.reason), (Kind::Alive, reason::UNAUTHORIZED));
}

/// It answers, and wants no second question before ten minutes are over: that is answer enough.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_asks_for_patience_lets_the_server_in_at_once() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    puppet.set(ip(1), Does::SayNo(429, Some(secs(600))));
    puppet.forget();
    let health = rig.until("server", secs(40), is_closed).await.expect("closed");
    assert_eq!((health.verdict.kind, health.verdict.reason), (Kind::Alive, reason::RATE_LIMITED));
    sleep(secs(500)).await;
    assert_eq!(puppet.asked(ip(1)).len(), 1, "its wish is granted");

    serving(&rig, &puppet, "pair", &[2, 3], |_| {}).await;
    puppet.set(ip(2), Does::Refuse);
    rig.until("pair", secs(30), |health| health.pods[0].failing).await.expect("failing");
    puppet.set(ip(2), Does::SayNo(429, Some(secs(600))));
    rig.until("pair", secs(60), |health| !health.pods[0].failing).await.expect("it answers");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_failed_is_back_once_it_says_no_often_enough_and_not_at_once() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |spec| spec.breaker.success_threshold = 3).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), |health| health.pods[0].failing).await.expect("failing");
    puppet.set(ip(1), Does::SayNo(401, None));
    puppet.forget();
    rig.until("server", secs(60), |health| !health.pods[0].failing).await.expect("it answers");
    assert_eq!(puppet.asked(ip(1)).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn its_wish_is_granted_whatever_happens_to_others() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 1..=5 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    puppet.set(ip(1), Does::SayNo(429, Some(secs(600))));
    rig.until("s1", secs(11), |health| health.verdict.kind == Kind::Alive).await.expect("alive");
    puppet.forget();
    for n in [2, 3] {
        puppet.set(ip(n), Does::Refuse);
        sleep(secs(25)).await;
    }
    sleep(secs(500)).await;
    assert!(puppet.asked(ip(1)).is_empty(), "asked {} times", puppet.asked(ip(1)).len());
}

//! When a circuit opens, is tried, and closes.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::{
    clock,
    crd::{CircuitState, CircuitStatus, Force, reason},
    probe::{ServerHealth, VerdictKind as Kind},
};
use rstest::rstest;
use tokio::time::{Instant, sleep};

use crate::{
    gate, ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod, spec},
    },
    usual,
};

#[tokio::test(start_paused = true)]
async fn a_server_comes_back_by_itself() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    let opened = rig.until("server", secs(30), is_open).await.expect("open");
    assert_eq!((opened.circuit.openings, opened.circuit.reason.as_deref()), (1, Some(reason::CONNECTION_REFUSED)));
    puppet.forget();
    sleep(secs(20)).await;
    assert!(puppet.asked(ip(1)).is_empty(), "probing stops while Open");
    puppet.set(ip(1), Does::Answer);
    rig.changes();
    rig.until("server", secs(20), is_closed).await.expect("closed");
    sleep(Duration::from_millis(100)).await;
    let health = rig.health("server");
    assert_eq!((health.circuit.openings, health.circuit.reason.as_deref()), (0, None));
    assert_eq!(rig.changes(), 2, "HalfOpen and Closed");
    assert_eq!(rig.api.gates("server-1"), [true, false, true]);
    assert_eq!(rig.api.events(), [reason::CIRCUIT_OPEN, reason::CIRCUIT_CLOSED]);
}

#[tokio::test(start_paused = true)]
async fn every_opening_in_a_row_lasts_longer_up_to_the_bound() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.breaker.max_open_seconds = 100).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    let mut lengths = Vec::new();
    for openings in 1..6 {
        let began = Instant::now();
        rig.until("server", secs(300), |health| health.circuit.openings > openings).await.expect("another opening");
        lengths.push(began.elapsed().as_secs());
    }
    for (length, expected) in lengths.iter().zip([30, 60, 100, 100, 100]) {
        assert!(length.abs_diff(expected) <= expected / 10 + 1, "{lengths:?}");
    }
}

/// A pod that fails does not show that none is well.
#[rstest]
#[case::refuse(Does::Refuse)]
#[case::hang(Does::Hang)]
#[tokio::test(start_paused = true)]
async fn one_pod_of_six_that_answers_again_brings_the_server_back_at_the_first_trial(#[case] others: Does) {
    for well in [1, 4, 6] {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        serving(&rig, &puppet, "server", &[1, 2, 3, 4, 5, 6], |_| {}).await;
        (1..=6).for_each(|n| puppet.set(ip(n), others.clone()));
        rig.until("server", secs(30), is_open).await.expect("open");
        puppet.set(ip(well), Does::Answer);
        let closed = |health: &ServerHealth| health.circuit.state == CircuitState::Closed;
        let back = rig.until("server", secs(60), closed).await.expect("closed");
        assert_eq!(back.circuit.openings, 0);
        let again = rig.until("server", secs(5), |health| gate(health, &format!("server-{well}"))).await.expect("in service");
        assert_eq!(again.pods.iter().filter(|pod| pod.gate).count(), 1, "{others:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_open_admits_one_probe_at_a_time() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2, 3], |spec| spec.breaker.success_threshold = 5).await;
    (1..=3).for_each(|n| puppet.set(ip(n), Does::Refuse));
    rig.until("server", secs(30), is_open).await.expect("open");
    (1..=3).for_each(|n| puppet.set(ip(n), Does::AnswerAfter(Duration::from_millis(700))));
    rig.until("server", secs(40), |health| health.circuit.state == CircuitState::HalfOpen).await.expect("half open");
    puppet.forget();
    rig.until("server", secs(40), |health| health.circuit.state == CircuitState::Closed).await.expect("closed");
    let mut all: Vec<Instant> = (1..=3).flat_map(|n| puppet.asked(ip(n))).collect();
    all.sort_unstable();
    let trial: Vec<_> = all.windows(2).take(3).map(|pair| pair[1] - pair[0]).collect();
    assert!(trial.iter().all(|gap| *gap >= Duration::from_millis(700)), "{trial:?}");
    rig.until("server", secs(5), is_closed).await.expect("all pods are asked at once and come back");
}

#[tokio::test(start_paused = true)]
async fn a_recheck_tries_an_open_server_at_once() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    puppet.set(ip(1), Does::Answer);
    let mut again = spec(8080);
    usual(&mut again);
    again.recheck = Some("1".into());
    rig.engine.set_server(&key("server"), again.clone(), None);
    rig.until("server", secs(2), is_closed).await.expect("back within 2 s");
    puppet.forget();
    again.recheck = Some("2".into());
    rig.engine.set_server(&key("server"), again.clone(), None);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(puppet.total(), 1, "a new value asks a healthy server, too");
    rig.engine.set_server(&key("server"), again, None);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(puppet.total(), 1, "the same value does not");
    let told = rig.api.events().into_iter().filter(|event| event == reason::RECHECKED).count();
    assert_eq!(told, 1, "what came of it is told by an Event; the second is counted in the first");
}

#[tokio::test(start_paused = true)]
async fn force_wins_over_every_verdict() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    let forced = |force| {
        let mut spec = spec(8080);
        usual(&mut spec);
        spec.breaker.force = force;
        rig.engine.set_server(&key("server"), spec, None);
    };
    forced(Some(Force::Open));
    sleep(secs(60)).await;
    let health = rig.health("server");
    assert!(is_open(&health) && !health.pods[0].gate, "{health:?}");
    assert_eq!((health.circuit.reason.as_deref(), health.circuit.retry_at), (Some(reason::FORCED), None));
    assert_eq!(health.verdict.kind, Kind::Healthy, "it is still probed");
    forced(Some(Force::Closed));
    puppet.set(ip(1), Does::Refuse);
    sleep(secs(60)).await;
    let health = rig.health("server");
    assert!(health.circuit.state == CircuitState::Closed && health.pods[0].gate && health.pods[0].failing, "{health:?}");
    forced(None);
    rig.until("server", secs(20), is_open).await.expect("without force its failures count");
    forced(Some(Force::Open));
    forced(None);
    assert_eq!(rig.health("server").circuit.state, CircuitState::HalfOpen, "what was held open proves itself first");
}

#[tokio::test(start_paused = true)]
async fn what_a_person_switches_works_while_the_server_is_left_alone() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    let switched = |enabled, force| {
        let mut spec = spec(8080);
        usual(&mut spec);
        (spec.paused, spec.enabled, spec.breaker.force) = (true, enabled, force);
        rig.engine.set_server(&key("server"), spec, None);
    };
    for (enabled, force, gate) in
        [(true, Some(Force::Open), false), (true, Some(Force::Closed), true), (false, None, false), (true, None, true)]
    {
        switched(enabled, force);
        sleep(secs(5)).await;
        assert_eq!(rig.health("server").pods[0].gate, gate, "enabled: {enabled}, force: {force:?}");
    }
    puppet.set(ip(1), Does::Refuse);
    sleep(secs(60)).await;
    assert!(rig.health("server").pods[0].gate, "what happens by itself changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sleeps_has_nobody_to_try() {
    let rig = Rig::with_puppet(&Puppet::default());
    let forced = |force| {
        let mut spec = spec(8080);
        spec.breaker.force = force;
        rig.engine.set_server(&key("server"), spec, None);
    };
    forced(Some(Force::Open));
    rig.engine.set_stood_in(&key("server"), true);
    assert!(is_open(&rig.health("server")), "the switch works asleep, too");
    forced(None);
    rig.engine.set_stood_in(&key("server"), true);
    sleep(secs(1)).await;
    assert_eq!(rig.health("server").circuit.state, CircuitState::Closed, "apps call it, and wake it by that");
    assert!(!rig.api.events().contains(&reason::CIRCUIT_CLOSED.to_owned()), "nobody answered");
}

#[tokio::test(start_paused = true)]
async fn a_new_operator_says_what_the_first_trial_of_an_opening_found() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::Refuse);
    let persisted = CircuitStatus {
        state: CircuitState::Open,
        since: Some(Time(clock::now())),
        reason: Some(reason::TIMEOUT.into()),
        retry_at: Some(Time(clock::now() + k8s_openapi::jiff::SignedDuration::from_secs(10))),
        openings: 1,
        failures: 3,
    };
    let mut open = spec(8080);
    usual(&mut open);
    rig.engine.set_server(&key("server"), open, Some(&persisted));
    rig.api.set_pod(&key("server"), operator::probe::PodState { gate: Some(false), ..pod("server-1", ip(1)) });
    let again = rig.until("server", secs(20), |health| health.circuit.openings == 2).await.expect("the trial failed");
    assert_eq!((again.verdict.kind, again.verdict.reason), (Kind::Failed, reason::CONNECTION_REFUSED));
}

/// Who switches a server off and on has mended it, perhaps: what it did before says nothing of what it does now.
#[tokio::test(start_paused = true)]
async fn a_remote_server_that_was_open_and_is_switched_on_again_is_asked_at_once() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    let remote = |enabled: bool| {
        let mut spec = spec(8080);
        usual(&mut spec);
        let url = format!("http://{}:8080/mcp", ip(1)).parse().expect("a URL");
        (spec.endpoint, spec.enabled) = (operator::probe::Endpoint::Remote { url }, enabled);
        rig.engine.set_server(&key("server"), spec, None);
    };
    remote(true);
    rig.until("server", secs(30), is_open).await.expect("open");
    remote(false);
    sleep(secs(5)).await;
    remote(true);
    sleep(secs(1)).await;
    assert_eq!(rig.health("server").circuit.state, CircuitState::Closed, "nothing counts against it yet");
}

#[rstest]
#[case::overdue(-500, 2)]
#[case::half_way(20, 23)]
#[case::of_a_clock_that_was_wrong(1_000_000, 302)]
#[tokio::test(start_paused = true)]
async fn an_opening_goes_on_after_a_restart_of_the_operator(#[case] left: i64, #[case] within: u64) {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::Answer);
    let now = clock::now();
    let at = |seconds: i64| Time(now + k8s_openapi::jiff::SignedDuration::from_secs(seconds));
    let persisted = CircuitStatus {
        state: CircuitState::Open,
        since: Some(at(-10)),
        reason: Some(reason::TIMEOUT.into()),
        retry_at: Some(at(left)),
        openings: 3,
        failures: 3,
    };
    let mut open = spec(8080);
    usual(&mut open);
    rig.engine.set_server(&key("server"), open, Some(&persisted));
    let old = operator::probe::PodState { gate: Some(false), started_at: Some(at(-5_000).0), ..pod("server-1", ip(1)) };
    rig.api.set_pod(&key("server"), old);
    if left > 0 {
        sleep(secs(u64::try_from(left.min(290)).expect("positive") - 5)).await;
        assert_eq!(rig.health("server").circuit, persisted, "unchanged until then");
        assert_eq!(puppet.total(), 0);
    }
    rig.until("server", secs(within), is_closed).await.expect("closed in time");
}

#[tokio::test(start_paused = true)]
async fn pods_in_service_stay_there_after_a_restart_of_the_operator() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::Refuse);
    let mut usual_spec = spec(8080);
    usual(&mut usual_spec);
    usual_spec.health.interval_seconds = 60;
    rig.api.set_pod(&key("server"), operator::probe::PodState { gate: Some(true), ..pod("server-1", ip(1)) });
    rig.engine.set_server(&key("server"), usual_spec, None);
    let health = rig.health("server");
    assert!(health.pods[0].in_service && health.circuit.state == CircuitState::Closed);
    let began = Instant::now();
    rig.until("server", secs(70), is_open).await.expect("three failures later");
    assert!(began.elapsed() >= Duration::from_millis(2_600), "not before three failures");
    assert_eq!(rig.api.gates("server-1"), [false]);
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_ends_an_opening_early() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    puppet.set(ip(2), Does::Answer);
    let later = clock::now() + k8s_openapi::jiff::SignedDuration::from_secs(60);
    rig.api.set_pod(&key("server"), operator::probe::PodState { started_at: Some(later), ..pod("server-2", ip(2)) });
    rig.until("server", secs(3), |health| health.circuit.state == CircuitState::Closed && gate(health, "server-2"))
        .await
        .expect("closed");
    assert!(!gate(&rig.health("server"), "server-1"));
}

#[tokio::test(start_paused = true)]
async fn it_closes_at_the_success_that_completes_the_threshold_and_not_one_later() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.breaker.success_threshold = 3).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    puppet.set(ip(1), Does::Answer);
    puppet.forget();
    rig.until("server", secs(60), |health| health.circuit.state == CircuitState::Closed).await.expect("closed");
    assert_eq!(puppet.total(), 3);
}

#[tokio::test(start_paused = true)]
async fn servers_that_open_together_are_not_tried_together() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..20 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |spec| {
            (spec.breaker.open_seconds, spec.breaker.max_open_seconds) = (200, 300);
        })
        .await;
    }
    (0..10).for_each(|n| puppet.set(ip(n), Does::Refuse));
    sleep(secs(20)).await;
    let length = |n| {
        let circuit = rig.health(&format!("s{n}")).circuit;
        circuit.retry_at.expect("open").0.duration_since(circuit.since.expect("open").0).as_secs()
    };
    let lengths: std::collections::BTreeSet<_> = (0..10).map(length).collect();
    assert!(lengths.len() >= 4, "openings of {lengths:?} s");
}

#[tokio::test(start_paused = true)]
async fn reasons_that_alternate_do_not_flicker() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), |health| health.pods[0].failing).await.expect("failing");
    rig.changes();
    for n in 0..40 {
        puppet.set(ip(1), if n % 2 == 0 { Does::SayNo(500, None) } else { Does::Refuse });
        let asked = puppet.asked(ip(1)).len();
        while puppet.asked(ip(1)).len() == asked {
            sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(rig.health("server").pods[0].verdict.reason, reason::CONNECTION_REFUSED);
    assert_eq!(rig.changes(), 0);
    // One that stays is as sure as the first one was.
    puppet.set(ip(1), Does::SayNo(500, None));
    let other = |health: &operator::probe::ServerHealth| health.pods[0].verdict.reason == reason::HTTP_STATUS;
    rig.until("server", secs(60), other).await.expect("told");
}

#[tokio::test(start_paused = true)]
async fn of_several_failing_pods_the_last_one_is_told() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), |health| health.pods[0].failing).await.expect("failing");
    puppet.set(ip(2), Does::SayNo(500, None));
    let health = rig.until("server", secs(30), is_open).await.expect("open");
    assert_eq!(health.circuit.reason.as_deref(), Some(reason::HTTP_STATUS), "it is what opened the circuit");
}

//! A container that restarts is a new start.

use std::time::Duration;

use operator::{
    crd::{CircuitState, reason},
    probe::{PodState, ServerHealth, VerdictKind as Kind},
};
use tokio::time::{Instant, sleep};

use crate::{
    gate, ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, of_template, pod, spec},
    },
    usual,
};

fn down(pod: &mut PodState) {
    (pod.incarnation, pod.containers_ready, pod.ready) = (None, false, false);
}

fn up(pod: &mut PodState) {
    (pod.incarnation, pod.containers_ready, pod.ready) = (Some("1".into()), true, true);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_back_after_five_seconds_opens_no_circuit_and_serves_within_a_second() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.api.change_pod("server-1", down);
    sleep(Duration::from_millis(100)).await;
    let health = rig.health("server");
    assert!(!health.pods[0].gate, "what has not answered since it started is not in service");
    assert_eq!((health.pods[0].latest.kind, health.pods[0].latest.reason), (Kind::Failed, reason::CONNECTION_REFUSED));
    rig.api.change_pod("server-1", up);
    sleep(secs(5)).await;
    assert_eq!(rig.health("server").circuit.state, CircuitState::Closed);
    puppet.set(ip(1), Does::Answer);
    let answers = Instant::now();
    rig.until("server", secs(5), is_closed).await.expect("back");
    assert!(answers.elapsed() <= secs(1), "{:?}", answers.elapsed());
    assert_eq!(rig.health("server").circuit.openings, 0);
    assert_eq!(rig.api.gates("server-1"), [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_starts_and_fails_in_other_words_by_now_is_told_in_these() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::SayNo(500, None));
    let mut spec = spec(8080);
    usual(&mut spec);
    rig.engine.set_server(&key("server"), spec, None);
    rig.api.set_pod(&key("server"), pod("server-1", ip(1)));
    let says = |code: &'static str| {
        move |health: &ServerHealth| {
            health.pods.first().is_some_and(|pod| pod.latest.message.starts_with(&format!("HTTP {code}")))
        }
    };
    rig.until("server", secs(5), says("500")).await.expect("its first words");
    puppet.set(ip(1), Does::SayNo(503, None));
    rig.until("server", secs(30), says("503")).await.expect("its words by now");
    // Who says something else every time is not followed.
    puppet.set(ip(1), Does::Ramble);
    sleep(secs(20)).await;
    let told = rig.health("server").pods[0].latest.clone();
    sleep(secs(40)).await;
    assert_eq!(rig.health("server").pods[0].latest, told);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dates_its_errors_is_told_once_and_again_when_it_says_something_else() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    puppet.set(ip(1), Does::Date("no database"));
    let says = |words: &'static str| {
        move |health: &ServerHealth| health.pods.iter().any(|pod| pod.failing && pod.verdict.message.contains(words))
    };
    rig.until("server", secs(60), says("no database")).await.expect("it fails");
    let told = rig.health("server").pods[0].clone();
    sleep(secs(90)).await;
    let now = rig.health("server").pods[0].clone();
    assert_eq!((now.verdict, now.latest), (told.verdict, told.latest));
    puppet.set(ip(1), Does::Date("the disk is full"));
    rig.until("server", secs(120), says("the disk is full")).await.expect("something else");
}

#[tokio::test(start_paused = true)]
async fn a_first_run_that_the_kubelet_tells_of_late_is_no_restart() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(2), Does::Answer);
    // It answers before the kubelet says that its container runs.
    let mut second = pod("server-2", ip(2));
    down(&mut second);
    rig.api.set_pod(&key("server"), second);
    sleep(secs(2)).await;
    rig.api.change_pod("server-2", up);
    sleep(secs(20)).await;
    assert_eq!(rig.api.gates("server-2"), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_the_circuit_is_open_is_newer_than_the_opening() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.breaker.open_seconds = 300).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    sleep(secs(20)).await;
    // The node's clock is minutes behind: what counts is when we saw it start.
    let behind = operator::clock::now() - k8s_openapi::jiff::SignedDuration::from_mins(10);
    rig.api.change_pod("server-1", |pod| {
        up(pod);
        pod.started_at = Some(behind);
    });
    sleep(secs(5)).await;
    puppet.set(ip(1), Does::Answer);
    rig.until("server", secs(3), is_closed).await.expect("back without waiting for retryAt");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_answers_again_counts_after_its_start() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.health.startup_seconds = 60).await;
    puppet.set(ip(1), Does::Refuse);
    rig.api.change_pod("server-1", up);
    sleep(secs(58)).await;
    let health = rig.health("server");
    assert_eq!(health.circuit.state, CircuitState::Closed);
    assert!(health.pods[0].counts_from.is_some());
    let health = rig.until("server", secs(10), is_open).await.expect("open");
    assert!(health.circuit.failures <= 4, "failures of the start are counted: {}", health.circuit.failures);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_served_until_its_restart_speaks_for_the_server_while_it_starts() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), |health| !gate(health, "server-1")).await.expect("one leaves");
    puppet.set(ip(2), Does::Refuse);
    rig.api.change_pod("server-2", up);
    sleep(secs(20)).await;
    assert_eq!(rig.health("server").circuit.state, CircuitState::Closed);
    puppet.set(ip(2), Does::Answer);
    rig.until("server", secs(1), |health| gate(health, "server-2")).await.expect("back");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_container_does_not_run_is_no_failure_of_the_server() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    let trouble = operator::pod_trouble::Trouble {
        reason: "ImagePullBackOff".into(),
        message: "pod server-2, container mcp: ImagePullBackOff".into(),
        ..Default::default()
    };
    let pulling =
        PodState { incarnation: None, trouble: Some(trouble.clone()), origin: of_template("2"), ..pod("server-2", ip(2)) };
    rig.api.set_pod(&key("server"), pulling);
    sleep(secs(600)).await;
    let health = rig.health("server");
    let new = &health.pods[1];
    assert!(!new.failing && new.starting && !new.gate, "{new:?}");
    assert_eq!((new.trouble.as_ref(), new.origin.template.as_deref()), (Some(&trouble), Some("2")));
    assert_ne!(new.latest.kind, Kind::Unknown, "it was asked, and that is told");
    assert!(health.pods[0].in_service && rig.api.evictions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_kubelet_finds_unready_is_asked_at_once() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    sleep(secs(1)).await;
    let asked = puppet.total();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(puppet.total(), asked, "it is not its time");
    rig.api.change_pod("server-1", |pod| pod.containers_ready = false);
    sleep(Duration::from_millis(100)).await;
    assert!(puppet.total() > asked);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_before_found_out_about_a_pod_stands_until_it_answers_or_its_failures_count() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    let mut spec = crate::support::rig::spec(8080);
    crate::usual(&mut spec);
    rig.engine.set_server(&key("server"), spec, None);
    for (n, gate) in [(1, true), (2, false), (3, false)] {
        puppet.set(ip(n), if gate { Does::Answer } else { Does::Refuse });
        rig.api.set_pod(&key("server"), PodState { gate: Some(gate), ..pod(&format!("server-{n}"), ip(n)) });
    }
    let inherited = || rig.health("server").pods.iter().map(|pod| (pod.inherited, pod.failing)).collect::<Vec<_>>();
    assert_eq!(inherited(), [(true, false); 3]);
    sleep(secs(20)).await;
    assert_eq!(inherited(), [(false, false), (true, false), (true, false)], "they may be starting");
    puppet.set(ip(2), Does::Answer);
    sleep(secs(130)).await;
    assert_eq!(inherited(), [(false, false), (false, false), (false, true)]);
}

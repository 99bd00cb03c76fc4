//! What the engine does about what it finds: pace, gates, circuits, evictions, what it writes and what it tells. Time is paused.

mod support;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::{
    clock,
    crd::{CircuitState, CircuitStatus, Force, Health, ToolsPolicy, reason},
    probe::{AcceptedTools, EngineConfig, ServerHealth, ServerSpec, Tool, ToolsContract, ToolsList, VerdictKind as Kind},
};
use rstest::rstest;
use support::{
    puppet::{Does, Puppet},
    rig::{Rig, key, pod, spec},
};
use tokio::time::{Instant, sleep};

fn ip(n: u16) -> IpAddr {
    let [a, b] = n.to_be_bytes();
    IpAddr::from([10, 50, a, b])
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A server of the product's defaults, asked every 10 s.
fn usual(spec: &mut ServerSpec) {
    spec.health =
        Health { interval_seconds: 10, timeout_seconds: 5, startup_seconds: 120, restart_after_seconds: 0, tool_call: None };
    spec.breaker.failure_threshold = 3;
}

/// A server with pods at these addresses, all in service.
async fn serving(rig: &Rig, puppet: &Puppet, name: &str, addresses: &[u16], change: impl FnOnce(&mut ServerSpec)) {
    let mut spec = spec(8080);
    usual(&mut spec);
    change(&mut spec);
    rig.engine.set_server(&key(name), spec, None);
    for n in addresses {
        puppet.set(ip(*n), Does::Answer);
        rig.api.set_pod(&key(name), pod(&format!("{name}-{n}"), ip(*n)));
    }
    let count = addresses.len();
    let all = |health: &ServerHealth| health.pods.iter().filter(|pod| pod.in_service).count() == count;
    rig.until(name, secs(5), all).await.expect("all pods in service");
    // The last patch and its echo.
    sleep(Duration::from_millis(50)).await;
}

fn gate(health: &ServerHealth, pod: &str) -> bool {
    health.pods.iter().find(|health| health.name == pod).is_some_and(|pod| pod.gate)
}

fn is_open(health: &ServerHealth) -> bool {
    health.circuit.state == CircuitState::Open
}

fn is_closed(health: &ServerHealth) -> bool {
    health.circuit.state == CircuitState::Closed && health.pods.iter().all(|pod| pod.in_service)
}

// ---- what a healthy fleet costs ------------------------------------------------------------------------------------------

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

// ---- how soon --------------------------------------------------------------------------------------------------------------

#[rstest]
#[case::wedged(Does::Hang, 10 + 5 + 3)]
#[case::refused(Does::Refuse, 10 + 3)]
#[tokio::test(start_paused = true)]
async fn a_failure_is_known_in_time(#[case] does: Does, #[case] within: u64) {
    for phase in 0..5 {
        let puppet = Puppet::default();
        let mut rig = Rig::with_puppet(&puppet);
        serving(&rig, &puppet, "server", &[phase], |_| {}).await;
        sleep(Duration::from_millis(2_300 * u64::from(phase))).await;
        rig.changes();
        let (writes, began) = (rig.api.writes().len(), Instant::now());
        puppet.set(ip(phase), does.clone());
        rig.until("server", secs(30), is_open).await.expect("open");
        let took = began.elapsed();
        assert!(took <= secs(within), "{took:?} instead of {within} s");
        sleep(Duration::from_millis(100)).await;
        let health = rig.health("server");
        assert!(!health.pods[0].gate && health.pods[0].failing && !health.pods[0].in_service);
        assert_eq!(rig.changes(), 1, "one transition is told once");
        let written: Vec<_> = rig.api.writes().split_off(writes).into_iter().map(|write| write.path).collect();
        let gates = written.iter().filter(|path| path.ends_with("/status")).count();
        assert_eq!((gates, written.len()), (1, 2), "one gate and one Event: {written:?}");
    }
}

/// The promise holds for the shortest time limits, too: there all three attempts must begin within one second.
#[rstest]
#[case(1)]
#[case(2)]
#[case(3)]
#[tokio::test(start_paused = true)]
async fn a_hang_is_known_in_time_whatever_the_time_limit(#[case] timeout: u32) {
    for slow in [0, 700] {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        serving(&rig, &puppet, "server", &[1], |spec| spec.health.timeout_seconds = timeout).await;
        // A server that is known to be slow is hedged later, and still in time.
        puppet.set(ip(1), Does::AnswerAfter(Duration::from_millis(slow)));
        sleep(secs(60)).await;
        puppet.set(ip(1), Does::Hang);
        let began = Instant::now();
        rig.until("server", secs(60), is_open).await.expect("open");
        let within = secs(10 + u64::from(timeout) + 3);
        assert!(began.elapsed() <= within, "{:?} instead of {within:?}, answers took {slow} ms", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_server_is_confirmed_within_three_seconds_of_its_first_failure() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.forget();
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    let first = puppet.asked(ip(1))[0];
    assert!(first.elapsed() <= secs(3), "{:?}", first.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_failure_changes_nothing_but_the_fleet_page() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    rig.changes();
    let writes = rig.api.writes().len();
    puppet.forget();
    puppet.set(ip(1), Does::Refuse);
    while puppet.asked(ip(1)).is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(10)).await;
    let fleet = rig.engine.fleet();
    assert_eq!(fleet.servers[0].pods[0].reason, reason::CONNECTION_REFUSED);
    assert_eq!(fleet.servers[0].reason, reason::PROBE_SUCCEEDED);
    puppet.set(ip(1), Does::Answer);
    sleep(secs(30)).await;
    assert_eq!((rig.api.writes().len(), rig.changes()), (writes, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_is_in_service_within_two_seconds_of_being_able_to_answer() {
    for starts_after in [0, 7, 90] {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        puppet.set(ip(1), Does::Refuse);
        let mut usual_spec = spec(8080);
        usual(&mut usual_spec);
        rig.engine.set_server(&key("server"), usual_spec, None);
        rig.api.set_pod(&key("server"), pod("server-1", ip(1)));
        sleep(secs(starts_after)).await;
        assert_eq!(rig.health("server").circuit.state, CircuitState::Closed, "its start does not count");
        puppet.set(ip(1), Does::Answer);
        rig.until("server", secs(2), is_closed).await.expect("in service in time");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_comes_up_opens_the_circuit_after_its_start() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::Refuse);
    let mut usual_spec = spec(8080);
    usual(&mut usual_spec);
    rig.engine.set_server(&key("server"), usual_spec, None);
    rig.api.set_pod(&key("server"), pod("server-1", ip(1)));
    sleep(secs(60)).await;
    let health = rig.health("server");
    assert_eq!((health.verdict.kind, health.verdict.reason), (Kind::Unknown, reason::STARTING));
    assert!(health.verdict.message.contains("refused"), "{}", health.verdict.message);
    assert!(health.pods[0].starting && !health.pods[0].failing && !health.pods[0].gate);
    sleep(secs(65)).await;
    let health = rig.health("server");
    assert!(is_open(&health) && health.pods[0].failing, "{health:?}");
    assert_eq!(health.verdict.reason, reason::CONNECTION_REFUSED);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_container_is_asked_at_once() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.health.interval_seconds = 300).await;
    puppet.forget();
    rig.api.change_pod("server-1", |pod| pod.incarnation = "1".into());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(puppet.asked(ip(1)).len(), 1);
}

// ---- crowds ----------------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_thousand_servers_that_hang_do_not_delay_a_healthy_one() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "healthy", &[9_999], |spec| spec.health.interval_seconds = 10).await;
    for n in 0..1_000 {
        puppet.set(ip(n), Does::Hang);
        let name = format!("hangs{n}");
        let mut spec = spec(8080);
        usual(&mut spec);
        rig.engine.set_server(&key(&name), spec, None);
        // All of them were well, and all are asked again and again.
        rig.api.set_pod(&key(&name), operator::probe::PodState { gate: Some(true), ..pod(&format!("{name}-0"), ip(n)) });
    }
    sleep(secs(20)).await;
    puppet.forget();
    let began = Instant::now();
    sleep(secs(100)).await;
    let asked = puppet.asked(ip(9_999));
    let mut before = began;
    for at in asked.iter().copied().chain([Instant::now()]) {
        assert!(at - before <= secs(11), "not asked for {:?}", at - before);
        before = at;
    }
    assert!(asked.len() >= 9, "{} probes", asked.len());
    assert!(puppet.most() <= EngineConfig::default().max_in_flight, "{} in flight", puppet.most());
}

#[tokio::test(start_paused = true)]
async fn the_cap_holds_and_nobody_is_forgotten() {
    let puppet = Puppet::default();
    let rig = Rig::with(EngineConfig { max_in_flight: 16, seed: Some(1), ..EngineConfig::default() }, puppet.clone());
    for n in 0..300 {
        let name = format!("s{n}");
        puppet.set(ip(n), if n % 2 == 0 { Does::Hang } else { Does::Answer });
        let mut spec = spec(8080);
        usual(&mut spec);
        rig.engine.set_server(&key(&name), spec, None);
        rig.api.set_pod(&key(&name), pod(&format!("{name}-0"), ip(n)));
    }
    sleep(secs(300)).await;
    assert!(puppet.most() <= 16, "{} in flight", puppet.most());
    for n in 0..300 {
        assert!(!puppet.asked(ip(n)).is_empty(), "{n} was never asked");
    }
    for n in (1..300).step_by(2) {
        assert!(is_closed(&rig.health(&format!("s{n}"))), "{n} answers and is not in service");
    }
}

// ---- the circuit -----------------------------------------------------------------------------------------------------------

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

// ---- several pods ----------------------------------------------------------------------------------------------------------

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
    rig.api.change_pod("server-1", |pod| pod.incarnation = "1".into());
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

// ---- saying no -------------------------------------------------------------------------------------------------------------

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

// ---- fleet panic, pause, disabling -----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn when_most_of_the_fleet_fails_at_once_nobody_is_taken_out() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..20 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |spec| spec.health.interval_seconds = 60).await;
    }
    (0..20).for_each(|n| puppet.set(ip(n), Does::Hang));
    sleep(secs(300)).await;
    let held = (0..20).filter(|n| rig.health(&format!("s{n}")).circuit.state == CircuitState::Closed).count();
    assert!(held >= 16, "only {held} of 20 were held");
    assert!((0..20).any(|n| rig.health(&format!("s{n}")).panic));
    let asked = puppet.total();
    sleep(secs(120)).await;
    assert!(puppet.total() > asked, "probing goes on");
    (0..20).for_each(|n| puppet.set(ip(n), Does::Answer));
    sleep(secs(400)).await;
    for n in 0..20 {
        let health = rig.health(&format!("s{n}"));
        assert!(is_closed(&health) && !health.panic, "{n}: {health:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_half_of_the_fleet_fails_it_is_taken_out() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..20 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    (0..10).for_each(|n| puppet.set(ip(n), Does::Refuse));
    sleep(secs(20)).await;
    assert_eq!((0..20).filter(|n| is_open(&rig.health(&format!("s{n}")))).count(), 10);
}

/// Of eight servers four leave the fleet in some way, and three of those that stay fail at once: that is most of it.
#[rstest]
#[case::pods_that_are_going(true)]
#[case::servers_that_are_disabled(false)]
#[tokio::test(start_paused = true)]
async fn who_left_the_fleet_does_not_speak_against_a_panic(#[case] going: bool) {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..8 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    for n in 4..8 {
        if going {
            rig.api.change_pod(&format!("s{n}-{n}"), |pod| pod.deleting = true);
        } else {
            let mut spec = spec(8080);
            usual(&mut spec);
            spec.enabled = false;
            rig.engine.set_server(&key(&format!("s{n}")), spec, None);
        }
    }
    (0..3).for_each(|n| puppet.set(ip(n), Does::Refuse));
    sleep(secs(60)).await;
    let held = (0..3).filter(|n| rig.health(&format!("s{n}")).panic).count();
    assert!(held > 0, "nothing is held: {:?}", rig.health("s0"));
}

#[tokio::test(start_paused = true)]
async fn a_paused_server_is_watched_and_left_alone() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| {
        spec.paused = true;
        spec.health.restart_after_seconds = 10;
    })
    .await;
    let writes = rig.api.writes().len();
    puppet.set(ip(1), Does::Refuse);
    sleep(secs(120)).await;
    let health = rig.health("server");
    assert!(health.circuit.state == CircuitState::Closed && health.pods[0].gate && health.pods[0].failing);
    assert_eq!(rig.api.writes().len(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_server_is_at_rest() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    let mut disabled = spec(8080);
    usual(&mut disabled);
    disabled.enabled = false;
    rig.engine.set_server(&key("server"), disabled, None);
    puppet.forget();
    sleep(secs(600)).await;
    assert_eq!(puppet.total(), 0);
    assert_eq!(rig.health("server").circuit, CircuitStatus::default());
}

// ---- evictions -------------------------------------------------------------------------------------------------------------

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

// ---- gates -----------------------------------------------------------------------------------------------------------------

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

// ---- the tools contract ----------------------------------------------------------------------------------------------------

fn accepted(names: &[&str]) -> AcceptedTools {
    let tools = names.iter().map(|name| Tool { name: (*name).into(), hash: format!("hash of {name}").into() });
    ToolsList::new(tools.collect()).accept()
}

#[tokio::test(start_paused = true)]
async fn enforce_keeps_a_pod_with_other_tools_out_while_the_others_serve() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |spec| {
        spec.tools = ToolsContract { policy: ToolsPolicy::Enforce, accepted: Some(accepted(&["a", "b"])) };
    })
    .await;
    puppet.set(ip(3), Does::Offer(vec!["a", "c"]));
    rig.api.set_pod(&key("server"), pod("server-3", ip(3)));
    sleep(secs(60)).await;
    let health = rig.health("server");
    assert!(!gate(&health, "server-3") && gate(&health, "server-1"));
    assert_eq!(health.pods.iter().map(|pod| pod.tools_accepted).collect::<Vec<_>>(), [Some(true), Some(true), Some(false)]);
    let diff = health.tools_diff.expect("a difference");
    assert_eq!((diff.added, diff.removed, diff.changed), (vec!["c".to_owned()], vec!["b".to_owned()], vec![]));
    assert_eq!(health.circuit.state, CircuitState::Closed);
    assert_eq!(rig.api.gates("server-3"), Vec::<bool>::new());
}

#[tokio::test(start_paused = true)]
async fn warn_tells_of_other_tools_and_serves_on() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.tools.accepted = Some(accepted(&["a", "b"]))).await;
    assert_eq!(rig.health("server").tools_diff, None);
    puppet.set(ip(1), Does::Offer(vec!["a"]));
    let health = rig.until("server", secs(30), |health| health.tools_diff.is_some()).await.expect("told");
    assert!(health.pods[0].in_service);
    assert_eq!(health.tools_diff.expect("a difference").removed, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changes_at_every_probe_is_told_at_most_every_ten_minutes() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::OfferAnew);
    rig.changes();
    sleep(secs(3_600)).await;
    let changes = rig.changes();
    assert!((1..=7).contains(&changes), "{changes} changes in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changes_once_is_told_at_the_next_probe_but_one() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    rig.changes();
    puppet.set(ip(1), Does::Offer(vec!["z"]));
    sleep(secs(21)).await;
    assert_eq!(rig.changes(), 1);
    let names: BTreeMap<_, _> = rig.health("server").tools.expect("tools").accept().tools;
    assert_eq!(names.into_keys().collect::<Vec<_>>(), ["z"]);
}

// ---- telling ---------------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_fleet_page_has_the_documented_shape() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    sleep(secs(30)).await;
    let fleet = serde_json::to_value(rig.engine.fleet()).expect("JSON");
    let server = &fleet["servers"][0];
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(server), ["circuit", "message", "name", "namespace", "pods", "protocol", "reason", "tools", "verdict"]);
    assert_eq!(keys(&server["circuit"]), ["failures", "openings", "retryAt", "since", "state"]);
    assert_eq!(keys(&server["protocol"]), ["era", "version"]);
    assert_eq!(keys(&server["tools"]), ["count", "digest"]);
    let pod = &server["pods"][0];
    assert_eq!(
        keys(pod),
        ["address", "era", "gate", "lastProbe", "latencyMs", "message", "name", "nextProbe", "reason", "verdict"]
    );
    assert_eq!(keys(&pod["latencyMs"]), ["p50", "p95"]);
    assert_eq!((&server["verdict"], &pod["gate"]), (&"Healthy".into(), &true.into()));
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_of_probes_circuits_and_gates() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    sleep(Duration::from_millis(100)).await;
    let text = prometheus::TextEncoder::new().encode_to_string(&rig.metrics.gather()).expect("text");
    for line in [
        "mcpfleet_circuit_state{name=\"server\",namespace=\"test\"} 2",
        "mcpfleet_circuit_transitions_total{from=\"Closed\",to=\"Open\"} 1",
        "mcpfleet_gate_patches_total{result=\"done\",value=\"false\"} 1",
        "mcpfleet_probe_verdicts_total{reason=\"ConnectionRefused\",verdict=\"Failed\"} 3",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    rig.engine.remove_server(&key("server"));
    sleep(Duration::from_millis(100)).await;
    let text = prometheus::TextEncoder::new().encode_to_string(&rig.metrics.gather()).expect("text");
    assert!(!text.contains("mcpfleet_circuit_state{name=\"server\""), "a removed server leaves no series");
}

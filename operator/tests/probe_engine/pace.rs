//! How soon what is found.

use std::time::Duration;

use operator::{
    crd::{CircuitState, reason},
    probe::VerdictKind as Kind,
};
use rstest::rstest;
use tokio::time::{Instant, sleep};

use crate::{
    ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod, spec},
    },
    usual,
};

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
async fn a_pod_that_a_call_waits_for_is_in_service_a_tenth_of_a_second_after_it_can_answer() {
    for starts_after in [0, 730, 6_250] {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        puppet.set(ip(1), Does::Refuse);
        let mut sleeper = spec(8080);
        usual(&mut sleeper);
        sleeper.may_sleep = true;
        rig.engine.set_server(&key("server"), sleeper, None);
        let mut state = pod("server-1", ip(1));
        let incarnation = state.incarnation.take();
        rig.api.set_pod(&key("server"), state.clone());
        sleep(secs(30)).await;
        puppet.forget();
        state.incarnation = incarnation;
        rig.api.set_pod(&key("server"), state);
        sleep(Duration::from_millis(starts_after)).await;
        puppet.set(ip(1), Does::Answer);
        rig.until("server", Duration::from_millis(150), is_closed).await.expect("in service in time");
        let asked = puppet.asked(ip(1)).len();
        assert!(asked <= 4 + usize::try_from(starts_after).expect("small") / 100, "asked {asked} times in {starts_after} ms");
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
    rig.api.change_pod("server-1", |pod| pod.incarnation = Some("1".into()));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(puppet.asked(ip(1)).len(), 1);
}

//! What requests are to carry is not known yet: an operator that starts anew while the Secret is missing.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use operator::{
    clock,
    crd::{CircuitState, CircuitStatus, Force, reason},
    probe::{PodState, Route, ServerSpec, VerdictKind as Kind},
};
use tokio::time::{Instant, sleep};

use crate::{
    gate, ip, is_closed, is_open, secs,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod, spec},
    },
    usual,
};

fn lacking() -> ServerSpec {
    let mut spec = spec(8080);
    usual(&mut spec);
    ServerSpec { lacks_credentials: true, ..spec }
}

fn known() -> ServerSpec {
    let credentials = vec![("x-key".parse().expect("a name"), "right".parse().expect("a value"))];
    ServerSpec { lacks_credentials: false, credentials, ..lacking() }
}

fn by_the_key(route: &Route) -> bool {
    route.headers.get("x-key").is_some_and(|value| value == "right")
}

/// A pod that runs for some time, and whose gate an operator before us left so.
fn left(gate: bool) -> PodState {
    let started_at = Some(clock::now() - SignedDuration::from_secs(100));
    PodState { gate: Some(gate), started_at, ..pod("server-1", ip(1)) }
}

#[tokio::test(start_paused = true)]
async fn without_its_credentials_a_server_is_not_asked_stays_in_service_and_is_switched_by_hand() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::AdmitTo(by_the_key));
    rig.engine.set_server(&key("server"), lacking(), Some(&CircuitStatus::default()));
    rig.api.set_pod(&key("server"), left(true));
    sleep(secs(600)).await;
    let health = rig.health("server");
    assert!(health.lacks_credentials && health.pods[0].in_service && health.serves(), "{health:?}");
    assert_eq!((health.verdict.kind, puppet.total(), rig.api.writes().len()), (Kind::Unknown, 0, 0));

    rig.engine.set_server(&key("server"), ServerSpec { recheck: Some("1".into()), ..lacking() }, None);
    sleep(secs(1)).await;
    let told = rig.api.writes().iter().filter_map(|write| write.body["note"].as_str().map(str::to_owned)).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].starts_with("not asked: what headersFrom or caSecretRef names is missing"), "{told:?}");

    let mut held = lacking();
    held.breaker.force = Some(Force::Open);
    rig.engine.set_server(&key("server"), held, None);
    rig.until("server", secs(1), |health| is_open(health) && !gate(health, "server-1")).await.expect("held open");
    sleep(secs(1)).await;
    assert_eq!((rig.api.gates("server-1"), puppet.total()), (vec![false], 0));
    // Released, it has to prove itself; and it can, once there is something to ask it with.
    rig.engine.set_server(&key("server"), lacking(), None);
    sleep(secs(60)).await;
    assert_eq!((rig.health("server").circuit.state, puppet.total()), (CircuitState::HalfOpen, 0));
    rig.engine.set_server(&key("server"), known(), None);
    let health = rig.until("server", secs(5), is_closed).await.expect("closed");
    assert!(!health.lacks_credentials && health.verdict.kind == Kind::Healthy, "{health:?}");
}

#[tokio::test(start_paused = true)]
async fn that_its_credentials_are_known_is_no_reason_to_try_an_open_circuit_early() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::AdmitTo(by_the_key));
    let at = |seconds| Time(clock::now() + SignedDuration::from_secs(seconds));
    let persisted = CircuitStatus {
        state: CircuitState::Open,
        since: Some(at(-10)),
        reason: Some(reason::TIMEOUT.into()),
        retry_at: Some(at(50)),
        openings: 2,
        failures: 3,
    };
    rig.engine.set_server(&key("server"), ServerSpec { recheck: Some("1".into()), ..lacking() }, Some(&persisted));
    rig.api.set_pod(&key("server"), left(false));
    rig.engine.set_server(&key("server"), ServerSpec { recheck: Some("1".into()), ca: Some("a CA".into()), ..known() }, None);
    let began = Instant::now();
    assert_eq!(rig.health("server").circuit, persisted);
    rig.until("server", secs(60), is_closed).await.expect("closed");
    assert!(began.elapsed() >= secs(49), "{:?}", began.elapsed());
}

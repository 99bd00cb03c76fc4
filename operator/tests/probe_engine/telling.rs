//! What is told besides status: /fleet and metrics.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    ip, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key},
    },
};

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
        "mcpfleet_server_ready{name=\"server\",namespace=\"test\"} 0",
        "mcpfleet_server_pods{name=\"server\",namespace=\"test\",state=\"failing\"} 1",
        "mcpfleet_server_pods{name=\"server\",namespace=\"test\",state=\"in_service\"} 0",
        "mcpfleet_circuit_transitions_total{from=\"Closed\",to=\"Open\"} 1",
        "mcpfleet_gate_patches_total{result=\"done\",value=\"false\"} 1",
        "mcpfleet_probe_verdicts_total{reason=\"ConnectionRefused\",verdict=\"Failed\"} 3",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    rig.engine.remove_server(&key("server"));
    sleep(Duration::from_millis(100)).await;
    let text = prometheus::TextEncoder::new().encode_to_string(&rig.metrics.gather()).expect("text");
    assert!(!text.contains("name=\"server\""), "a removed server leaves no series:\n{text}");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_every_server_has_its_series_before_anything_changes() {
    use operator::crd::{CircuitStatus, Force, reason};
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    let open = CircuitStatus {
        state: operator::crd::CircuitState::Open,
        reason: Some(reason::FORCED.into()),
        ..CircuitStatus::default()
    };
    let mut forced = crate::support::rig::spec(8080);
    forced.breaker.force = Some(Force::Open);
    rig.engine.set_server(&key("forced"), forced, Some(&open));
    rig.engine.set_server(&key("closed"), crate::support::rig::spec(8080), None);
    sleep(Duration::from_millis(100)).await;
    let text = prometheus::TextEncoder::new().encode_to_string(&rig.metrics.gather()).expect("text");
    for line in ["{name=\"forced\",namespace=\"test\"} 2", "{name=\"closed\",namespace=\"test\"} 0"] {
        assert!(text.contains(&format!("mcpfleet_circuit_state{line}")), "{line} is not in\n{text}");
    }
}

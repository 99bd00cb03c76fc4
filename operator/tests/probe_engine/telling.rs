//! What is told besides status: /fleet, metrics and the log.

use std::{cell::RefCell, io, time::Duration};

use operator::{
    crd::Force,
    probe::{Endpoint, ServerSpec},
};
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
    let text = rig.metrics.text();
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
    let text = rig.metrics.text();
    assert!(!text.contains("name=\"server\""), "a removed server leaves no series:\n{text}");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_every_server_has_its_series_before_anything_changes() {
    use operator::crd::{CircuitStatus, reason};
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
    let text = rig.metrics.text();
    for line in ["{name=\"forced\",namespace=\"test\"} 2", "{name=\"closed\",namespace=\"test\"} 0"] {
        assert!(text.contains(&format!("mcpfleet_circuit_state{line}")), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sleeps_counts_as_ready_while_the_activator_answers_for_it() {
    let rig = Rig::with_puppet(&Puppet::default());
    rig.engine.set_server(&key("server"), crate::support::rig::spec(8080), None);
    for (stood_in, told) in [(true, 1), (false, 0)] {
        rig.engine.set_stood_in(&key("server"), stood_in);
        sleep(Duration::from_millis(100)).await;
        let text = rig.metrics.text();
        let line = format!("mcpfleet_server_ready{{name=\"server\",namespace=\"test\"}} {told}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    // One that nobody knows any more is not brought back by whoever tells of it late.
    rig.engine.remove_server(&key("server"));
    rig.engine.set_stood_in(&key("server"), true);
    assert!(rig.engine.snapshot(&key("server")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_remote_server_that_is_switched_off_does_not_count_as_ready() {
    let puppet = Puppet::default();
    // A puppet is told of no address of a remote server.
    puppet.set([0, 0, 0, 0].into(), Does::Answer);
    let rig = Rig::with_puppet(&puppet);
    for (enabled, told) in [(true, 1), (false, 0), (true, 1)] {
        let mut spec = crate::support::rig::spec(8080);
        spec.endpoint = Endpoint::Remote { url: "https://example.com/mcp".parse().expect("a URL") };
        spec.enabled = enabled;
        rig.engine.set_server(&key("server"), spec, None);
        sleep(secs(60)).await;
        let text = rig.metrics.text();
        let line = format!("mcpfleet_server_ready{{name=\"server\",namespace=\"test\"}} {told}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_pods_all_fail_does_not_count_as_ready_while_its_gates_are_held() {
    let hold: [fn(&mut ServerSpec); 2] = [|spec| spec.paused = true, |spec| spec.breaker.force = Some(Force::Closed)];
    for held in hold {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        serving(&rig, &puppet, "server", &[1, 2], held).await;
        for (failing, told) in [(1, 1), (2, 0)] {
            puppet.set(ip(failing), Does::Refuse);
            sleep(secs(120)).await;
            assert!(rig.health("server").pods.iter().all(|pod| pod.in_service), "{:?}", rig.health("server"));
            let text = rig.metrics.text();
            let line = format!("mcpfleet_server_ready{{name=\"server\",namespace=\"test\"}} {told}");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}

thread_local! {
    /// What this thread logged. (A subscriber of one thread alone would miss what another thread had come by first.)
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_says_why_a_circuit_a_verdict_and_a_gate_changed() {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| Log).init();
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.health.restart_after_seconds = 20).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    sleep(secs(30)).await;
    let written = LOG.with_borrow(|log| String::from_utf8(log.clone())).expect("text");
    let told: Vec<serde_json::Value> = written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (what, who, fields) in [
        (
            "circuit changed",
            ("server", "test/server"),
            &[("from", "Closed"), ("to", "Open"), ("reason", "ConnectionRefused")][..],
        ),
        ("a target answers otherwise than before", ("pod", "server-1"), &[("reason", "ConnectionRefused")]),
        ("readiness gate patched", ("pod", "server-1"), &[("reason", "ConnectionRefused")]),
        ("evicted a pod that stays failed", ("pod", "server-1"), &[("reason", "ConnectionRefused")]),
    ] {
        let line = told.iter().find(|line| {
            line["message"] == what && line[who.0] == who.1 && fields.iter().all(|(name, value)| line[*name] == *value)
        });
        assert!(line.is_some(), "no line {what:?} of {who:?} with {fields:?} in\n{written}");
    }
    for debug in ["Some(", "None", "unknown", "\u{1b}"] {
        assert!(!written.contains(debug), "{debug:?} in\n{written}");
    }
}

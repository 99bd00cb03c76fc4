//! Whatever the prober finds, the conditions never contradict each other: over the whole product of states.
#![allow(clippy::panic, reason = "a test says what is wrong")]

use std::sync::Arc;

use operator::{
    clock,
    crd::{CircuitState, CircuitStatus, McpServer, reason},
    mcp_server::status::{Outcome, compute},
    probe::{PodHealth, ServerHealth, Verdict, VerdictKind as Kind},
};
use serde_json::json;

const KINDS: [Kind; 4] = [Kind::Unknown, Kind::Healthy, Kind::Alive, Kind::Failed];

fn verdict(kind: Kind) -> Verdict {
    let reason = match kind {
        Kind::Unknown => reason::UNKNOWN,
        Kind::Healthy => reason::PROBE_SUCCEEDED,
        Kind::Alive => reason::RATE_LIMITED,
        Kind::Failed => reason::TIMEOUT,
    };
    Verdict { kind, reason, message: Arc::from("a sentence") }
}

fn pod(name: usize, state: usize) -> PodHealth {
    // Every mix of verdict, failing, gate and containers; starting only where that can be.
    let kind = KINDS[state % 4];
    let (failing, gate, ready) = (state / 4 % 2 == 1, state / 8 % 2 == 1, state / 16 % 2 == 1);
    PodHealth {
        name: format!("pod-{name}"),
        uid: format!("uid-{name}"),
        verdict: verdict(kind),
        failing,
        starting: !failing && kind == Kind::Unknown,
        latest: verdict(kind),
        gate,
        containers_ready: ready,
        in_service: gate && ready,
        tools_accepted: None,
        ..PodHealth::default()
    }
}

fn server(remote: bool, enabled: bool) -> McpServer {
    let mut spec = if remote {
        json!({"remote": {"url": "https://example.com/mcp"}})
    } else {
        json!({"container": {"image": "x"}, "replicas": 2})
    };
    spec["enabled"] = enabled.into();
    serde_json::from_value(json!({
        "apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "metadata": {"name": "server", "namespace": "test"}, "spec": spec,
    }))
    .expect("a server")
}

fn states() -> impl Iterator<Item = ServerHealth> {
    let circuits = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];
    let pods = (0..32)
        .flat_map(|first| (0..32).map(move |second| vec![pod(0, first), pod(1, second)]))
        .chain((0..32).map(|only| vec![pod(0, only)]))
        .chain([vec![]]);
    pods.flat_map(move |pods| {
        circuits.into_iter().flat_map(move |state| {
            let pods = pods.clone();
            KINDS.into_iter().flat_map(move |kind| {
                let pods = pods.clone();
                [false, true].map(move |panic| ServerHealth {
                    circuit: CircuitStatus {
                        state,
                        since: Some(clock::time(clock::now())),
                        reason: (state != CircuitState::Closed).then(|| reason::TIMEOUT.into()),
                        retry_at: (state == CircuitState::Open).then(|| clock::time(clock::now())),
                        openings: u32::from(state != CircuitState::Closed),
                        failures: 3,
                    },
                    verdict: verdict(kind),
                    protocol: None,
                    server_info: None,
                    tools: None,
                    tools_diff: None,
                    pods: pods.clone(),
                    panic,
                    ..ServerHealth::default()
                })
            })
        })
    })
}

#[test]
fn conditions_never_contradict_each_other() {
    let now = clock::now();
    let (mut counted, servers) = (0, [(false, true), (false, false), (true, true), (true, false)]);
    for health in states() {
        for (remote, enabled) in servers {
            // A server of pods is Failed as a whole exactly while one of them fails: nothing else comes out of the prober.
            let failing = health.pods.iter().any(|pod| pod.failing);
            if remote && !health.pods.is_empty() || !remote && failing != health.verdict.is_failed() {
                continue;
            }
            counted += 1;
            let status = compute(&server(remote, enabled), &Outcome::default(), Some(&health), now);
            let of = |type_: &str| {
                let mut found = status.conditions.iter().filter(|condition| condition.type_ == type_);
                let condition = found.next().unwrap_or_else(|| panic!("no {type_}: {health:?}"));
                assert!(found.next().is_none(), "{type_} twice");
                assert!(!condition.reason.is_empty() && !condition.message.is_empty(), "{type_} without words: {condition:?}");
                condition.status.as_str()
            };
            let (ready, healthy, closed, reconciling, stalled) =
                (of("Ready"), of("Healthy"), of("CircuitClosed"), of("Reconciling"), of("Stalled"));
            let told = || format!("{health:?}\n{:#?}", status.conditions);
            // Of pods that all fail nobody gets an answer, whoever holds their gates open.
            let in_use = health.pods.iter().any(|pod| pod.in_service && !pod.failing)
                || remote && matches!(health.verdict.kind, Kind::Healthy | Kind::Alive);
            // In a panic nobody knows whether a client would be served; but that a server is switched off is known.
            assert_eq!(ready == "Unknown", health.panic && enabled, "{}", told());
            if ready == "Unknown" {
                continue;
            }
            // A remote server on trial serves whoever asks it; the pods of another are out of their Service.
            let usable = match health.circuit.state {
                CircuitState::Closed => true,
                CircuitState::HalfOpen => remote,
                CircuitState::Open => false,
            };
            assert!(ready == "False" || enabled && in_use && usable, "Ready, and nobody serves: {}", told());
            assert!(ready == "True" || !enabled || !in_use || !usable, "not Ready, although it serves: {}", told());
            assert_eq!(closed == "True", health.circuit.state == CircuitState::Closed, "{}", told());
            assert!(
                healthy != "True" || enabled && !failing && health.verdict.kind == Kind::Healthy,
                "Healthy, and something is not: {}",
                told()
            );
            assert!(!enabled || !failing || healthy == "False", "a pod fails, and that is not said: {}", told());
            assert!(!(reconciling == "True" && stalled == "True"), "{}", told());
        }
    }
    assert!(counted > 15_000, "{counted} states");
}

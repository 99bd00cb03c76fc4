//! Whether a status is worth writing yet. Pure.
//!
//! A server comes back in two steps: its circuit closes and its gates open at once, but Kubernetes counts its pods as Ready a second
//! or two later, when the kubelet has seen the gate. One write can tell of both, if it waits for the second. So does a server that
//! begins: that its pod was made, and that it answered, is told with its being Ready, if that comes soon.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::status::Outcome;
use crate::{
    conditions,
    crd::{
        CircuitState, McpServer, McpServerStatus,
        reason::{self, condition},
    },
    probe::{PodHealth, ServerHealth},
    rollout::{Latest, Rollout},
};

/// How long the kubelets are waited for after the circuit closed, in seconds. They take one, or two.
const CLOSING: i64 = 5;

/// How long a server that begins may be quiet, in seconds: images are pulled meanwhile, and of a thousand that are made at once each takes
/// its time. What is amiss is told at once.
const BEGINNING: i64 = 30;

/// How long of one that waits for something with a name: an init container, or a probe of Kubernetes, of a sidecar before the server
/// starts or of a container after it answers.
const NAMED: i64 = 8;

/// How long a server that many others begin with may go without a first status, in seconds from the making of its Deployment.
const UNTOLD: i64 = 8;

/// How long the first status of all may wait, in a wave of servers that begin; none: write it now. What it would say, being Ready says as well,
/// if that comes soon; and what has no status yet nobody takes for done, as the definition has `observedGeneration` -1 until then. A server that
/// begins alone is told of at once, and so is whatever is amiss.
pub fn first(server: &McpServer, outcome: &Outcome, health: Option<&ServerHealth>, now: Timestamp) -> Option<Duration> {
    if server.status.as_ref().is_some_and(|told| !told.conditions.is_empty()) || !outcome.problems.is_empty() || outcome.paused {
        return None;
    }
    let deployment = outcome.deployment.as_ref()?;
    let closed = health.is_none_or(|health| health.circuit.state == CircuitState::Closed);
    if is_refused(outcome) || !closed || health.is_some_and(|health| health.pods.iter().any(is_telling)) {
        return None;
    }
    left(UNTOLD, deployment.metadata.creation_timestamp.as_ref()?.0, now)
}

/// Kubernetes does not let its pods be made.
fn is_refused(outcome: &Outcome) -> bool {
    Rollout::of(outcome.deployment.as_ref(), &Latest::default()).refused.is_some()
}

/// What there is to say of this pod is not that it begins.
fn is_telling(pod: &PodHealth) -> bool {
    // What has not started cannot fail.
    let fails = pod.latest.is_failed() && pod.making.is_none();
    pod.trouble.is_some() || pod.in_service || pod.shut_out || pod.kept_out.is_some() || fails
}

/// How long the status may wait to be written; none: write it now.
///
/// A closing waits, never an opening, and only for a kubelet: without one no pod's containers are ready. And a beginning.
pub fn hold(server: &McpServer, outcome: &Outcome, health: Option<&ServerHealth>, now: Timestamp) -> Option<Duration> {
    let status = server.status.as_ref()?;
    let told = status.circuit.as_ref()?;
    let health = health?;
    let closing = told.state != CircuitState::Closed && health.circuit.state == CircuitState::Closed;
    // Whoever edited the spec, or must do so, is answered at once; and so is whose pods are refused.
    let awaited = status.observed_generation != server.metadata.generation || !outcome.problems.is_empty() || is_refused(outcome);
    if let Some(left) = beginning(status, health, now).filter(|_| !awaited && !closing) {
        return Some(left);
    }
    let returning = health.pods.iter().any(PodHealth::is_returning) && !health.pods.iter().any(|pod| pod.in_service);
    if !closing || awaited || !returning {
        return None;
    }
    left(CLOSING, health.circuit.since.as_ref()?.0, now)
}

/// How long a rollout that was just told of may be quiet, while nothing is amiss with its pods and none of them serves.
fn beginning(told: &McpServerStatus, health: &ServerHealth, now: Timestamp) -> Option<Duration> {
    let says = |type_, status: &str, reason: &str| {
        conditions::find(&told.conditions, type_).filter(|found| found.status == status && found.reason == reason)
    };
    let begun = says(condition::RECONCILING, "True", reason::ROLLING_OUT)?.last_transition_time.0;
    says(condition::READY, "False", reason::STARTING)?;
    if health.circuit.state != CircuitState::Closed || health.pods.iter().any(is_telling) {
        return None;
    }
    let can_be_named = |pod: &PodHealth| {
        let init = pod.making.as_ref().is_some_and(|making| making.init.is_some());
        init || pod.gate && !pod.containers_ready
    };
    left(if health.pods.iter().any(can_be_named) { NAMED } else { BEGINNING }, begun, now)
}

/// What is left of our patience since then. A clock that was set back must not make us wait for longer.
fn left(patience: i64, since: Timestamp, now: Timestamp) -> Option<Duration> {
    let passed = now.as_second() - since.as_second();
    let left = u64::try_from(patience - passed).ok().filter(|left| passed >= 0 && *left > 0)?;
    Some(Duration::from_secs(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock,
        conditions::{Finding, Status},
        crd::CircuitStatus,
        fixtures,
        probe::Verdict,
        problem::Problem,
        requeue::Class,
    };

    fn circuit(state: CircuitState, since: i64) -> CircuitStatus {
        CircuitStatus { state, since: Some(clock::time(fixtures::at(since))), ..CircuitStatus::default() }
    }

    /// Its status says so, and its generation is told.
    fn told(state: CircuitState) -> McpServer {
        fixtures::server(|server| {
            server.status = Some(McpServerStatus {
                observed_generation: server.metadata.generation,
                circuit: Some(circuit(state, 0)),
                ..McpServerStatus::default()
            });
        })
    }

    fn pod(containers_ready: bool, gate: bool, in_service: bool) -> PodHealth {
        PodHealth {
            name: "a".into(),
            uid: "a".into(),
            verdict: Verdict::healthy(),
            gate,
            containers_ready,
            in_service,
            ..PodHealth::default()
        }
    }

    /// The circuit came into this state in the tenth second.
    fn found(state: CircuitState, pods: Vec<PodHealth>) -> ServerHealth {
        ServerHealth {
            circuit: circuit(state, 10),
            verdict: Verdict::healthy(),
            protocol: None,
            server_info: None,
            tools: None,
            tools_diff: None,
            pods,
            ..ServerHealth::default()
        }
    }

    fn held(server: &McpServer, health: &ServerHealth, second: i64) -> Option<u64> {
        hold(server, &Outcome::default(), Some(health), fixtures::at(second)).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_closing_waits_for_the_kubelet_and_for_five_seconds_at_most() {
        for before in [CircuitState::Open, CircuitState::HalfOpen] {
            let health = found(CircuitState::Closed, vec![pod(true, true, false)]);
            let waits: Vec<_> = [10, 12, 14, 15, 16, 1_000].map(|second| held(&told(before), &health, second)).into();
            assert_eq!(waits, [Some(5), Some(3), Some(1), None, None, None], "{before:?}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_back() {
        let health = found(CircuitState::Closed, vec![pod(true, true, false)]);
        assert_eq!(held(&told(CircuitState::Open), &health, 3), None);
    }

    #[test]
    fn what_the_kubelet_has_seen_is_told_at_once() {
        let health = found(CircuitState::Closed, vec![pod(true, true, true)]);
        assert_eq!(held(&told(CircuitState::HalfOpen), &health, 10), None);
        // With one of several in service a client gets an answer.
        let health = found(CircuitState::Closed, vec![pod(true, true, true), pod(true, true, false)]);
        assert_eq!(held(&told(CircuitState::HalfOpen), &health, 10), None);
    }

    #[test]
    fn nobody_waits_where_no_kubelet_will_answer() {
        for pods in [vec![], vec![pod(false, true, false)], vec![pod(true, false, false)]] {
            let health = found(CircuitState::Closed, pods);
            assert_eq!(held(&told(CircuitState::HalfOpen), &health, 10), None, "{health:?}");
        }
    }

    #[test]
    fn an_opening_a_trial_and_a_circuit_that_was_closed_never_wait() {
        for (before, after) in [
            (CircuitState::Closed, CircuitState::Open),
            (CircuitState::HalfOpen, CircuitState::Open),
            (CircuitState::Open, CircuitState::HalfOpen),
            (CircuitState::Closed, CircuitState::Closed),
        ] {
            let health = found(after, vec![pod(true, true, false)]);
            assert_eq!(held(&told(before), &health, 10), None, "{before:?} {after:?}");
        }
    }

    #[test]
    fn who_edits_the_spec_is_answered_at_once() {
        let health = found(CircuitState::Closed, vec![pod(true, true, false)]);
        let mut server = told(CircuitState::HalfOpen);
        server.metadata.generation = Some(2);
        assert_eq!(held(&server, &health, 10), None);
        let problem = Problem { class: Class::Transient, reason: crate::crd::reason::APPLY_FAILED, message: "x".into() };
        let outcome = Outcome { problems: vec![problem], ..Outcome::default() };
        assert_eq!(hold(&told(CircuitState::HalfOpen), &outcome, Some(&health), fixtures::at(10)), None);
    }

    /// Told in the second 0 that it begins.
    fn begun(ready: &str) -> McpServer {
        fixtures::server(|server| {
            let findings = vec![
                (condition::READY, Finding::new(false, ready, "why")),
                (condition::RECONCILING, Finding::new(Status::True, reason::ROLLING_OUT, "pods are being made")),
            ];
            server.status = Some(McpServerStatus {
                observed_generation: server.metadata.generation,
                circuit: Some(circuit(CircuitState::Closed, 0)),
                conditions: conditions::merge(&[], findings, Some(1), fixtures::at(0)),
                ..McpServerStatus::default()
            });
        })
    }

    #[test]
    fn in_a_wave_a_server_is_told_of_first_when_it_is_ready_or_after_eight_seconds_or_when_something_is_amiss() {
        let deployment = |conditions: serde_json::Value| {
            let deployment = serde_json::json!({
                "metadata": {"generation": 1, "creationTimestamp": fixtures::at(0).to_string()},
                "spec": {"selector": {}, "template": {}}, "status": {"observedGeneration": 1, "conditions": conditions},
            });
            Outcome { deployment: serde_json::from_value(deployment).ok(), ..Outcome::default() }
        };
        let made = || deployment(serde_json::json!([]));
        let waits = |server: &McpServer, outcome: &Outcome, pods, second| {
            let health = found(CircuitState::Closed, pods);
            first(server, outcome, Some(&health), fixtures::at(second)).map(|wait| wait.as_secs())
        };
        let new = fixtures::server(|_| {});
        let seconds: Vec<_> = [0, 3, 7, 8, 60].map(|second| waits(&new, &made(), vec![pod(true, true, false)], second)).into();
        assert_eq!(seconds, [Some(8), Some(5), Some(1), None, None]);
        assert_eq!(waits(&new, &Outcome::default(), vec![], 0), None, "nothing was made of it");
        assert_eq!(waits(&begun(reason::STARTING), &made(), vec![], 0), None, "it was told of already");
        assert_eq!(waits(&new, &made(), vec![pod(true, true, true)], 0), None, "it is Ready");
        let troubled = PodHealth { trouble: Some(fixtures::trouble("ImagePullBackOff", "why")), ..pod(false, false, false) };
        assert_eq!(waits(&new, &made(), vec![troubled], 0), None);
        let quota =
            serde_json::json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]);
        assert_eq!(waits(&new, &deployment(quota), vec![], 0), None);
        let problem = Problem { class: Class::Transient, reason: crate::crd::reason::APPLY_FAILED, message: "x".into() };
        assert_eq!(waits(&new, &Outcome { problems: vec![problem], ..made() }, vec![], 0), None);
    }

    #[test]
    fn a_beginning_is_told_with_its_end_if_that_comes_soon() {
        let health = found(CircuitState::Closed, vec![pod(true, true, false)]);
        let waits: Vec<_> = [0, 4, 29, 30, 60].map(|second| held(&begun(reason::STARTING), &health, second)).into();
        assert_eq!(waits, [Some(30), Some(26), Some(1), None, None]);
    }

    #[test]
    fn a_beginning_that_waits_for_a_probe_of_kubernetes_or_an_init_container_is_told_within_ten_seconds() {
        let runs = |sidecar| {
            let making = crate::pod_trouble::Making { init: Some("a".into()), sidecar, prepared: true, made: None, since: None };
            PodHealth { making: Some(making), ..pod(false, false, false) }
        };
        for pod in [pod(false, true, false), runs(true), runs(false)] {
            let health = found(CircuitState::Closed, vec![pod]);
            let waits: Vec<_> = [0, 7, 8, 20].map(|second| held(&begun(reason::STARTING), &health, second)).into();
            assert_eq!(waits, [Some(8), Some(1), None, None]);
        }
    }

    #[test]
    fn pods_that_are_refused_at_the_beginning_are_told_at_once() {
        let health = found(CircuitState::Closed, vec![]);
        let held = |conditions: serde_json::Value| {
            let deployment = serde_json::json!({
                "metadata": {"generation": 1}, "spec": {"selector": {}, "template": {}},
                "status": {"observedGeneration": 1, "conditions": conditions},
            });
            let outcome = Outcome { deployment: serde_json::from_value(deployment).ok(), ..Outcome::default() };
            hold(&begun(reason::STARTING), &outcome, Some(&health), fixtures::at(1))
        };
        assert!(held(serde_json::json!([])).is_some());
        let quota = serde_json::json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]);
        assert_eq!(held(quota), None);
    }

    #[test]
    fn what_is_amiss_at_the_beginning_is_told_at_once_and_so_is_its_end() {
        let answers = pod(true, true, true);
        let fails = PodHealth {
            latest: Verdict { kind: crate::probe::VerdictKind::Failed, ..Verdict::healthy() },
            ..pod(true, false, false)
        };
        let troubled = PodHealth { trouble: Some(fixtures::trouble("ImagePullBackOff", "why")), ..pod(false, false, false) };
        for pod in [answers, fails, troubled] {
            let health = found(CircuitState::Closed, vec![pod]);
            assert_eq!(held(&begun(reason::STARTING), &health, 1), None, "{health:?}");
        }
        let health = found(CircuitState::Closed, vec![pod(true, true, false)]);
        assert_eq!(held(&begun("ImagePullBackOff"), &health, 1), None, "something else was told");
    }
}

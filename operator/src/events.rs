//! The Events of the reconciler: what changed in the conditions, with their messages (`mcp_server/status.rs`, `mcp_app/status.rs`), and what
//! was put right. The prober's are made in `probe/server.rs` and `probe/server/`, and sent by `probe/publish.rs`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};

use sha2::{Digest, Sha256};

use crate::{
    backups,
    child::Key,
    conditions,
    crd::{
        autoscaling::AutoscalingStatus,
        backup::BackupStatus,
        reason::{self, condition},
    },
    digest::hex,
    names::Component,
    ssa::Correction,
};

/// The longest note, in bytes; the API server takes 1,024.
const NOTE: usize = 1_000;

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Somebody should look at it.
    pub warning: bool,
    /// A documented reason, or Kubernetes' own.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl News {
    /// Of a pass as such.
    pub fn new(warning: bool, reason: impl Into<String>, message: String) -> Self {
        Self { warning, reason: reason.into(), message }
    }
}

/// What conditions have become: one piece of news for each change of Ready, and for what newly stalls, is contested or waits for the API
/// server. Pure.
pub fn of_conditions(before: &[Condition], after: &[Condition]) -> Vec<News> {
    let mut news: Vec<News> = Vec::new();
    for type_ in
        [condition::READY, condition::STALLED, condition::RECONCILING, condition::MODEL_REACHABLE, condition::WITHIN_BUDGET]
    {
        let (was, Some(is)) = (conditions::find(before, type_), conditions::find(after, type_)) else { continue };
        let changed = was.is_none_or(|was| was.status != is.status || was.reason != is.reason);
        let worth_it = match type_ {
            // What begins is no news.
            condition::READY => was.is_some() || !matches!(is.reason.as_str(), reason::STARTING | reason::UNKNOWN),
            condition::STALLED => is.status == "True",
            // Of a rollout the Deployment tells; of an API server that refuses, and of who changes what we write, nobody else does.
            condition::RECONCILING => match is.reason.as_str() {
                reason::APPLY_FAILED => is.status == "True",
                told => told == reason::CONTESTED,
            },
            condition::WITHIN_BUDGET => is.reason != reason::WITHIN_BUDGET,
            _ => is.status == "False",
        };
        // The prober told that, when it opened the circuit.
        let worth_it = worth_it && is.reason != reason::CIRCUIT_OPEN;
        if changed && worth_it && news.iter().all(|told| told.reason != is.reason) {
            let warning = if type_ == condition::READY { is.status != "True" } else { true };
            // Somebody asked for it, or it is on its way.
            let wanted =
                [reason::DISABLED, reason::SCALED_TO_ZERO, reason::PAUSED, reason::FORCED, reason::STARTING, reason::ROLLING_OUT];
            let warning = warning && !wanted.contains(&is.reason.as_str());
            news.push(News::new(warning, &is.reason, is.message.clone()));
        }
    }
    news
}

/// A backup that failed, told once. Pure.
pub fn of_backup(before: Option<&BackupStatus>, after: &BackupStatus) -> Option<News> {
    let failure = after.failure.as_ref()?;
    let held = |told: &BackupStatus| told.failure.as_deref().is_some_and(backups::is_held);
    let again = before.is_some_and(|before| before.last == after.last && (held(before) || !held(after)));
    let since = after
        .last_success
        .as_ref()
        .map_or_else(|| "there is none".to_owned(), |last| format!("the last good one is of {}", last.0));
    let message = format!("the backup {}, {since}: {failure}", if held(after) { "waits" } else { "failed" });
    (!again).then(|| News::new(true, reason::BACKUP_FAILED, message))
}

/// Another number of pods, told once. Pure.
pub fn of_scaling(before: &AutoscalingStatus, after: &AutoscalingStatus) -> Option<News> {
    let (from, to) = (before.desired, after.desired);
    let message = format!("scaled from {from} to {to}: {}", after.reason);
    (from != to).then(|| News::new(false, reason::SCALED, message))
}

/// What was put right: somebody had changed a field of a child.
pub fn of_correction(key: &Key, Correction { what, by }: &Correction, kind: &str, name: &str, autoscaled: bool) -> News {
    let instead = match what.as_str() {
        "spec.replicas" if autoscaled => {
            format!("to have other numbers of pods, set spec.autoscaling.minReplicas and maxReplicas of the {kind} {name}")
        }
        "spec.replicas" if kind == Component::Server.kind() => {
            format!("to have other numbers of pods, scale the {kind}: kubectl scale {} {name} --replicas=…", kind.to_lowercase())
        }
        "spec.replicas" => format!("to have other numbers of pods, set spec.replicas of the {kind} {name}"),
        _ => format!("change the {kind} {name} instead, or pause it by the annotation mcpfleet.dev/paused"),
    };
    let by = by.as_deref().unwrap_or("somebody");
    let message = format!("{by} changed {what} of the {key}: it is put back; {instead}");
    News::new(false, reason::CORRECTED, message)
}

/// An Event that says this. Those of one reason and one action that follow each other are told as one, with the first one's note: so the
/// action names the note, too.
pub fn event(warning: bool, reason: impl Into<String>, note: &str, action: &str) -> Event {
    let note = &*cut(note);
    let named = hex(&Sha256::digest(note)[..4]);
    Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.into(),
        note: Some(note.to_owned()),
        action: format!("{action}-{named}"),
        secondary: None,
    }
}

/// A note that the API server takes. Of a long one the middle is left out: the cause is at its end.
fn cut(note: &str) -> Cow<'_, str> {
    if note.len() <= NOTE {
        return note.into();
    }
    let half = NOTE / 2 - " … ".len();
    format!("{} … {}", &note[..note.floor_char_boundary(half)], &note[note.ceil_char_boundary(note.len() - half)..]).into()
}

/// Sends it. Losing an Event is no reason to fail a pass.
pub async fn send(news: Vec<News>, object: &impl Resource<DynamicType = ()>, recorder: &Recorder) {
    for News { warning, reason, message } in news {
        let event = event(warning, reason, &message, "Reconcile");
        let sent = tokio::time::timeout(crate::ssa::REQUEST_TIMEOUT, recorder.publish(&event, &object.object_ref(&()))).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) if namespace_goes(&error) => {
                tracing::debug!(reason = event.reason, "no Event in a namespace that is going");
            }
            Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "event not published"),
            Err(_) => tracing::warn!(reason = event.reason, "event not published in time"),
        }
    }
}

/// The API server's word for a namespace that is being deleted, or is gone: nothing can be made there any more.
pub fn namespace_goes(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 404 || causes.any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{
        conditions::{Finding, Status},
        fixtures,
    };

    fn told(type_: &'static str, status: Status, reason: &str) -> Vec<Condition> {
        conditions::merge(&[], vec![(type_, Finding::new(status, reason, "why"))], Some(1), fixtures::at(0))
    }

    const READY: &str = condition::READY;
    const STALLED: &str = condition::STALLED;

    #[rstest]
    #[case::becomes_ready((READY, Status::False, "Starting"), (READY, Status::True, "Available"), Some(("Available", false)))]
    #[case::falls((READY, Status::True, "Available"), (READY, Status::False, "Timeout"), Some(("Timeout", true)))]
    #[case::the_prober_told_that((READY, Status::True, "Available"), (READY, Status::False, "CircuitOpen"), None)]
    #[case::and_that((condition::CIRCUIT_CLOSED, Status::True, "CircuitClosed"), (condition::CIRCUIT_CLOSED, Status::False, "CircuitOpen"), None)]
    #[case::fails_otherwise((READY, Status::False, "Timeout"), (READY, Status::False, "ImagePullBackOff"), Some(("ImagePullBackOff", true)))]
    #[case::stays((READY, Status::True, "Available"), (READY, Status::True, "Available"), None)]
    #[case::was_asked_for((READY, Status::True, "Available"), (READY, Status::False, "Disabled"), Some(("Disabled", false)))]
    #[case::nobody_knows((READY, Status::True, "Available"), (READY, Status::Unknown, "FleetPanic"), Some(("FleetPanic", true)))]
    #[case::stalls((STALLED, Status::False, "Available"), (STALLED, Status::True, "NameConflict"), Some(("NameConflict", true)))]
    #[case::goes_on((STALLED, Status::True, "NameConflict"), (STALLED, Status::False, "Available"), None)]
    fn a_change_is_told_once(
        #[case] before: (&'static str, Status, &str),
        #[case] after: (&'static str, Status, &str),
        #[case] expected: Option<(&str, bool)>,
    ) {
        let news = of_conditions(&told(before.0, before.1, before.2), &told(after.0, after.1, after.2));
        let found: Vec<_> = news.iter().map(|news| (news.reason.as_str(), news.warning)).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_beginning_is_no_news_and_an_obstacle_from_the_beginning_is_told_once() {
        assert!(of_conditions(&[], &told(READY, Status::False, "Starting")).is_empty());
        let mut both = told(READY, Status::False, "SecretNotFound");
        both.extend(told(STALLED, Status::True, "SecretNotFound"));
        assert_eq!(of_conditions(&[], &both).len(), 1);
    }

    #[test]
    fn who_changed_the_number_of_pods_is_told_how_that_is_done() {
        let scaled = Correction { what: "spec.replicas".into(), by: Some("kubectl".into()) };
        let of = |kind, autoscaled| of_correction(&Key::new("Deployment", "team", "a"), &scaled, kind, "a", autoscaled).message;
        let told = |kind| of(kind, false);
        let autoscaled = of("McpServer", true);
        assert!(autoscaled.ends_with("set spec.autoscaling.minReplicas and maxReplicas of the McpServer a"), "{autoscaled}");
        assert!(told("McpServer").starts_with("kubectl changed spec.replicas of the Deployment a"));
        assert!(told("McpServer").contains("kubectl scale mcpserver a"));
        assert!(told("McpApp").ends_with("set spec.replicas of the McpApp a"), "an app has no scale");
    }

    #[test]
    fn of_a_long_note_the_middle_is_left_out() {
        let note = event(true, reason::CORRECTED, &format!("it begins {} and ends", "é".repeat(NOTE)), "x").note.expect("a note");
        assert!(note.starts_with("it begins é") && note.contains(" … ") && note.ends_with("é and ends"), "{note}");
        assert!(note.len() <= NOTE, "{}", note.len());
    }

    #[test]
    fn what_says_something_else_is_another_event() {
        let told = |note: &str| event(false, reason::CORRECTED, note, "Reconcile");
        assert_ne!(told("somebody opened the policy").action, told("somebody changed the strategy").action);
        assert_eq!(told("the same").action, told("the same").action);
    }

    #[test]
    fn a_namespace_that_is_going_is_told_from_a_right_that_is_missing() {
        let refused = |causes: serde_json::Value, code: u16| {
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": code,
                "message": "forbidden", "details": {"name": "x", "kind": "events", "causes": causes},
            });
            kube::Error::Api(serde_json::from_value(status).expect("a status"))
        };
        let going = serde_json::json!([{"reason": "NamespaceTerminating", "message": "namespace x is being terminated", "field": "metadata.namespace"}]);
        assert!(namespace_goes(&refused(going, 403)));
        assert!(namespace_goes(&refused(serde_json::json!([]), 404)));
        assert!(!namespace_goes(&refused(serde_json::json!([]), 403)));
    }
}

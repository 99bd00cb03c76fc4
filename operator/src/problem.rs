//! What stands in the way of a spec, of either kind: its class, its reason, its sentence; and the Event that tells of it once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};

use crate::{
    conditions,
    crd::reason::{self, condition},
    inputs,
    requeue::Class,
    ssa,
};

/// Why a pass could not reach the spec, for the status and the requeue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What has to happen.
    pub class: Class,
    /// A documented reason.
    pub reason: &'static str,
    /// What to change, for people.
    pub message: String,
}

impl Problem {
    /// All of them as one: the first one's reason, every sentence.
    pub fn all(problems: Vec<Self>) -> Option<Self> {
        let message = problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ");
        problems.into_iter().next().map(|first| Self { message, ..first })
    }

    /// What the API server did not let us read.
    pub fn unreadable(error: &inputs::Error) -> Self {
        Self { class: Class::Transient, reason: reason::APPLY_FAILED, message: error.to_string() }
    }

    /// What could not be applied.
    pub fn not_applied(error: &ssa::Error) -> Self {
        Self {
            class: if error.is_transient() { Class::Transient } else { Class::Waiting },
            reason: match error {
                ssa::Error::NameConflict { .. } => reason::NAME_CONFLICT,
                _ => reason::APPLY_FAILED,
            },
            message: error.describe(),
        }
    }
}

/// Tells of a problem by an Event when the conditions have not told of it yet. Losing an Event is no reason to fail a pass.
pub async fn tell(
    problem: Option<&Problem>,
    told: Option<&[Condition]>,
    object: &impl Resource<DynamicType = ()>,
    recorder: &Recorder,
) {
    let Some(problem) = problem else { return };
    let told = told.unwrap_or_default();
    let mut found = [condition::READY, condition::PROGRESSING].into_iter().filter_map(|type_| conditions::find(told, type_));
    if found.any(|condition| condition.reason == problem.reason) {
        return;
    }
    let event = Event {
        type_: EventType::Warning,
        reason: problem.reason.into(),
        note: Some(problem.message.chars().take(1_000).collect()),
        action: "Reconcile".into(),
        secondary: None,
    };
    match recorder.publish(&event, &object.object_ref(&())).await {
        Ok(()) => {}
        Err(error) if namespace_goes(&error) => tracing::debug!(reason = problem.reason, "no Event in a namespace that is going"),
        Err(error) => tracing::warn!(%error, reason = problem.reason, "event not published"),
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
    use super::*;

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

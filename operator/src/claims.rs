//! The claims that pods mount, and which of them a pod waits for: the scheduler says that a claim is not bound, and neither which one nor
//! what it asks for. And the claims that are children, where one of another class is there already, or one does not grow. Pure.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimCondition},
    jiff::Timestamp,
};
use kube::ResourceExt as _;
use serde_json::Value;

use crate::{
    child::Child,
    compare,
    crd::{pod::PodSettings, reason},
    names::{LABEL_MANAGED_BY, MANAGED_BY},
    pod_trouble::{Trouble, printable},
    problem::Problem,
    requeue::Class,
};

/// What the scheduler writes of a pod whose claim is not bound: of a class that binds at once, and of one that binds to where a pod goes.
const WAITS: [&str; 2] = ["unbound", "persistent volumes to bind"];

/// The claims that `spec.volumes` names.
pub fn of_pods(pod: &PodSettings) -> impl Iterator<Item = &str> {
    pod.volumes.iter().filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// Whether the scheduler waits for a claim that is not there: somebody has to make it.
pub fn is_missing(trouble: &Trouble) -> bool {
    trouble.message.contains("persistentvolumeclaim \"") && trouble.message.contains("\" not found")
}

/// The trouble, with the claims that are not bound where the scheduler waits for one.
pub fn named(trouble: Trouble, claims: &[PersistentVolumeClaim]) -> Trouble {
    let unbound = claims.iter().filter(|claim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound"));
    let told: Vec<String> = unbound.map(described).collect();
    if told.is_empty() || !WAITS.iter().any(|words| trouble.message.contains(words)) {
        return trouble;
    }
    Trouble { message: format!("{}; {}", trouble.message.trim_end_matches('.'), told.join("; ")), ..trouble }
}

fn described(claim: &PersistentVolumeClaim) -> String {
    let (name, spec) = (claim.name_any(), claim.spec.clone().unwrap_or_default());
    let size = spec.resources.and_then(|resources| resources.requests?.remove("storage")).unwrap_or_default().0;
    let class = match spec.storage_class_name.as_deref() {
        None => "the default storage class".to_owned(),
        Some(class) => called(class),
    };
    let lost = claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Lost"));
    let state = if lost { "has lost its volume" } else { "is not bound" };
    format!("the claim {name} ({size} of {class}) {state}: kubectl describe pvc {name} says why")
}

fn called(class: &str) -> String {
    if class.is_empty() { "no storage class".to_owned() } else { format!("the storage class {class}") }
}

/// What Kubernetes says of a claim that it let grow, and that does not.
const FAILED: [&str; 2] = ["ControllerResizeError", "NodeResizeError"];
/// What it says of one that is to grow as soon as a pod mounts it.
const WAITS_FOR_A_POD: &str = "FileSystemResizePending";
/// What it says of one that grows: by whoever provides it, and on the node.
const UNDER_WAY: [&str; 2] = ["Resizing", WAITS_FOR_A_POD];
/// How long that may take.
const GROWS: Duration = Duration::from_mins(5);

/// The size that a claim of ours has, and the larger one that it is to have. None: it has it.
fn growth(claim: &PersistentVolumeClaim) -> Option<(&str, &str)> {
    let is_ours = claim.labels().get(LABEL_MANAGED_BY).is_some_and(|by| by == MANAGED_BY);
    let wanted = &claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0;
    let there = &claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0;
    (is_ours && compare::at_least(there, wanted) == Some(false)).then_some((there, wanted))
}

/// Whether one of them is still to grow: that it has had its time nobody shows.
pub fn are_to_grow(claims: &[PersistentVolumeClaim]) -> bool {
    claims.iter().any(|claim| growth(claim).is_some())
}

/// Which of them do not grow, although Kubernetes took the larger size. `has_pods`: some are wanted, which mount them.
pub fn stuck(claims: &[PersistentVolumeClaim], has_pods: bool, now: Timestamp) -> Vec<Problem> {
    let said = |claim: &PersistentVolumeClaim| {
        let (from, to) = growth(claim)?;
        let conditions = claim.status.as_ref()?.conditions.as_deref().unwrap_or_default();
        let holds = |condition: &&PersistentVolumeClaimCondition| condition.status == "True";
        let failed = conditions.iter().filter(holds).find(|condition| FAILED.contains(&condition.type_.as_str()));
        let is_late = |condition: &&PersistentVolumeClaimCondition| {
            let since = condition.last_transition_time.as_ref().map(|since| now.duration_since(since.0));
            let waits_for_nobody = condition.type_ == WAITS_FOR_A_POD && !has_pods;
            let is_late = since.and_then(|since| Duration::try_from(since).ok()).is_some_and(|since| since >= GROWS);
            UNDER_WAY.contains(&condition.type_.as_str()) && is_late && !waits_for_nobody
        };
        let condition = failed.or_else(|| conditions.iter().filter(holds).find(is_late))?;
        let name = claim.name_any();
        let told = condition.message.as_deref().filter(|message| !message.is_empty());
        let why = told.map(|told| format!(": {}", printable(told))).unwrap_or_default();
        let what = if failed.is_some() { "cannot grow" } else { "does not come to grow" };
        let way_out = match condition.type_.as_str() {
            WAITS_FOR_A_POD => "its volume grows when its pod starts anew: delete the pod".to_owned(),
            _ => format!("kubectl describe pvc {name} says more"),
        };
        Some(format!("the claim {name} {what} from {from} to {to} ({}{why}); {way_out}", condition.type_))
    };
    let problem = |message| Problem { class: Class::Waiting, reason: reason::APPLY_FAILED, message };
    claims.iter().filter_map(said).map(problem).collect()
}

/// That a claim is not of the class that it is to be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherClass {
    /// Its class.
    pub is: String,
    /// The one that it is to be of.
    pub wanted: String,
    /// What to do, for people.
    pub way_out: String,
}

/// The claim that is there is of another class than the one that is wanted. Kubernetes refuses to change it, and does not say which of its
/// fields it is about. None: it is of that class, has none yet, or no claim is wanted.
pub fn other_class(child: &Child, live: &Value) -> Option<OtherClass> {
    const CLASS: &str = "/spec/storageClassName";
    let is_claim = child.key.kind == <PersistentVolumeClaim as k8s_openapi::Resource>::KIND;
    let (is, wanted) = (live.pointer(CLASS)?.as_str()?, child.body.pointer(CLASS)?.as_str()?);
    (is_claim && is != wanted).then(|| OtherClass {
        is: called(is),
        wanted: called(wanted),
        // What has an owner goes with it, and holds what can be had again.
        way_out: match child.owner() {
            None => format!(
                "To go on with its data, delete this object (the claim stays) and make it anew with storageClassName: {is:?}; to begin without, give this object another name, or delete the claim as well"
            ),
            Some(_) => "Delete the claim: it is made anew of that class, and what was installed in it is installed again".to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::fixtures;

    const IMMEDIATE: &str = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    const WHEN_USED: &str = "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind.";

    fn told(said: &str, claims: &[(&str, &str)]) -> String {
        let claim = |(name, phase): &(&str, &str)| {
            let claim = json!({
                "metadata": {"name": name}, "status": {"phase": phase},
                "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
            });
            serde_json::from_value(claim).expect("a claim")
        };
        let claims: Vec<PersistentVolumeClaim> = claims.iter().map(claim).collect();
        named(fixtures::trouble("Unschedulable", said), &claims).message
    }

    #[rstest]
    #[case(IMMEDIATE)]
    #[case(WHEN_USED)]
    fn a_claim_that_is_not_bound_is_named_where_the_scheduler_waits_for_it(#[case] said: &str) {
        let expected = "; the claim own (1Gi of the storage class fast) is not bound: kubectl describe pvc own says why";
        assert_eq!(told(said, &[("db-mcp", "Bound"), ("own", "Pending")]), format!("{}{expected}", said.trim_end_matches('.')));
        assert_eq!(told(said, &[("db-mcp", "Bound")]), said);
        let both = told(said, &[("a", "Pending"), ("b", "Lost")]);
        assert!(
            both.contains("the claim a (") && both.contains("the claim b (1Gi of the storage class fast) has lost"),
            "{both}"
        );
    }

    fn child(class: &str, is_owned: bool) -> Child {
        let server =
            json!({"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "db", "uid": "u", "controller": true});
        let references = if is_owned { json!([server]) } else { json!([]) };
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "db-mcp", "namespace": "team", "ownerReferences": references},
            "spec": {"storageClassName": class},
        }))
        .expect("a claim");
        Child::new(&claim)
    }

    #[test]
    fn a_claim_of_another_class_is_told_with_both_and_a_way_out() {
        let of = |is: &str, wanted: &str, is_owned| other_class(&child(wanted, is_owned), &child(is, is_owned).body);
        let data = of("standard", "fast", false).expect("another");
        assert_eq!((&*data.is, &*data.wanted), ("the storage class standard", "the storage class fast"));
        assert!(data.way_out.contains(r#"make it anew with storageClassName: "standard""#), "{}", data.way_out);
        let cache = of("standard", "", true).expect("another");
        assert_eq!(cache.wanted, "no storage class");
        assert!(cache.way_out.starts_with("Delete the claim"), "{}", cache.way_out);
        assert_eq!(of("fast", "fast", false), None);
        assert_eq!(other_class(&child("fast", false), &json!({"spec": {}})), None, "Kubernetes may give it one yet");
    }

    /// A claim of 1Gi that is to have 2Gi, of which this was said in second 0.
    fn growing(change: impl FnOnce(&mut Value), said: &[(&str, &str, &str)]) -> PersistentVolumeClaim {
        let condition = |(type_, status, message): &(&str, &str, &str)| json!({"type": type_, "status": status, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let mut claim = json!({
            "metadata": {"name": "db-mcp", "labels": {"app.kubernetes.io/managed-by": "mcpfleet"}},
            "spec": {"resources": {"requests": {"storage": "2Gi"}}},
            "status": {"capacity": {"storage": "1Gi"}, "conditions": said.iter().map(condition).collect::<Vec<_>>()},
        });
        change(&mut claim);
        serde_json::from_value(claim).expect("a claim")
    }

    fn told_at(second: i64, claim: &PersistentVolumeClaim, has_pods: bool) -> Option<String> {
        let mut stuck = stuck(std::slice::from_ref(claim), has_pods, fixtures::at(second));
        stuck.pop().map(|problem| problem.message)
    }

    #[test]
    fn a_growth_that_fails_is_told_with_what_kubernetes_says_of_it() {
        let full = ("ControllerResizeError", "True", "the pool\nis full");
        let of = |said: &[_]| told_at(0, &growing(|_| {}, said), true);
        let told = "the claim db-mcp cannot grow from 1Gi to 2Gi (ControllerResizeError: the pool is full); kubectl describe pvc db-mcp says more";
        assert_eq!(of(&[("Resizing", "True", ""), full]).as_deref(), Some(told));
        assert!(of(&[("NodeResizeError", "True", "")]).expect("told").contains("(NodeResizeError);"));
        assert_eq!(of(&[("ControllerResizeError", "False", "")]), None, "it was tried again");
        let grown = growing(|claim| claim["status"]["capacity"]["storage"] = json!("2048Mi"), &[full]);
        assert_eq!(told_at(0, &grown, true), None);
        assert!(!are_to_grow(&[grown]));
        let theirs = growing(|claim| claim["metadata"]["labels"] = json!({}), &[full]);
        assert_eq!(told_at(0, &theirs, true), None, "a claim of a person's own is for nobody here to grow");
    }

    #[test]
    fn a_growth_that_takes_too_long_is_told_and_one_that_waits_for_a_pod_only_where_there_are_pods() {
        let of = |type_: &str, second, has_pods| told_at(second, &growing(|_| {}, &[(type_, "True", "")]), has_pods);
        assert_eq!(of("Resizing", 299, true), None);
        assert!(of("Resizing", 300, false).expect("told").contains("does not come to grow from 1Gi to 2Gi (Resizing); kubectl"));
        assert_eq!(of("FileSystemResizePending", 300, false), None);
        assert!(of("FileSystemResizePending", 300, true).expect("told").ends_with("starts anew: delete the pod"));
        assert!(are_to_grow(&[growing(|_| {}, &[])]));
    }

    #[test]
    fn a_pod_that_waits_for_something_else_is_not_told_of_claims() {
        assert_eq!(told("Insufficient cpu", &[("own", "Pending")]), "Insufficient cpu");
    }
}

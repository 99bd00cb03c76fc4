//! The claims that pods mount, and which of them a pod waits for: the scheduler says that a claim is not bound, and neither which one nor
//! what it asks for. And the claims that are children, where one of another class is there already. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::{child::Child, crd::pod::PodSettings, pod_trouble::Trouble};

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

    #[test]
    fn a_pod_that_waits_for_something_else_is_not_told_of_claims() {
        assert_eq!(told("Insufficient cpu", &[("own", "Pending")]), "Insufficient cpu");
    }
}

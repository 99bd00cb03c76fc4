//! The claims that pods mount, and which of them a pod waits for: the scheduler says that a claim is not bound, and neither which one nor
//! what it asks for. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;

use crate::{crd::pod::PodSettings, pod_trouble::Trouble};

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
    let class =
        spec.storage_class_name.map_or_else(|| "default storage class".to_owned(), |class| format!("storage class {class}"));
    let lost = claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Lost"));
    let state = if lost { "has lost its volume" } else { "is not bound" };
    format!("the claim {name} ({size} of the {class}) {state}: kubectl describe pvc {name} says why")
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

    #[test]
    fn a_pod_that_waits_for_something_else_is_not_told_of_claims() {
        assert_eq!(told("Insufficient cpu", &[("own", "Pending")]), "Insufficient cpu");
    }
}

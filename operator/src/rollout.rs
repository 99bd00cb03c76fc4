//! What a Deployment says of itself: whether its pods are those of the spec, and why not. Pure.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};

use crate::crd::reason;

/// How far a Deployment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every pod is of the latest template, and has been in service.
    Done,
    /// Pods are being made or replaced.
    UnderWay,
    /// They did not come up within `spec.progressDeadlineSeconds`.
    Late(String),
}

/// What a Deployment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// How far it is.
    pub progress: Progress,
    /// Kubernetes refuses to make its pods: its word for it, and its sentence.
    pub refused: Option<(String, String)>,
    /// Pods that there are, of any template.
    pub replicas: u32,
    /// Pods that Kubernetes counts as ready.
    pub ready: u32,
}

impl Rollout {
    /// Reads it. Before there is a Deployment everything is still to be done.
    pub fn of(deployment: Option<&Deployment>) -> Self {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        let count = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        Self {
            progress: deployment.map_or(Progress::UnderWay, progress),
            refused: deployment.and_then(refused),
            replicas: count(status.and_then(|status| status.replicas)),
            ready: count(status.and_then(|status| status.ready_replicas)),
        }
    }

    /// It is as it was made: whatever pods it has, they are of its latest template, also before it says so. (One that was made for pods
    /// that had been left behind says otherwise.)
    pub fn is_first(deployment: &Deployment) -> bool {
        let status = deployment.status.as_ref();
        deployment.metadata.generation == Some(1)
            && status.is_none_or(|status| status.updated_replicas.unwrap_or(0) >= status.replicas.unwrap_or(0))
    }

    /// There are as many pods as are wanted, and all of them are of the latest template. They need not have come up.
    pub fn is_replaced(deployment: &Deployment) -> bool {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        deployment.status.as_ref().is_some_and(|status| {
            status.observed_generation >= deployment.metadata.generation
                && status.updated_replicas.unwrap_or(0) == wanted
                && status.replicas.unwrap_or(0) == wanted
        })
    }

    /// Every pod is of the latest template.
    pub fn is_done(&self) -> bool {
        self.progress == Progress::Done
    }
}

fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn progress(deployment: &Deployment) -> Progress {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = deployment.status.as_ref() else { return Progress::UnderWay };
    if status.observed_generation < deployment.metadata.generation {
        return Progress::UnderWay;
    }
    let told = condition(deployment, "Progressing");
    if let Some(late) = told.filter(|told| told.reason.as_deref() == Some("ProgressDeadlineExceeded")) {
        return Progress::Late(late.message.clone().unwrap_or_default());
    }
    // A pod that was in service and is not any more is no rollout: the Deployment says so once, and keeps to it.
    let was_available = told.is_some_and(|told| told.reason.as_deref() == Some("NewReplicaSetAvailable"));
    let available = was_available || status.available_replicas.unwrap_or(0) == wanted;
    if Rollout::is_replaced(deployment) && available { Progress::Done } else { Progress::UnderWay }
}

fn refused(deployment: &Deployment) -> Option<(String, String)> {
    let of_pods = condition(deployment, "ReplicaFailure").filter(|refused| refused.status == "True");
    // What makes the pods may be refused itself.
    let of_set =
        || condition(deployment, "Progressing").filter(|told| told.reason.as_deref() == Some(reason::REPLICA_SET_CREATE_ERROR));
    let refused = of_pods.or_else(of_set)?;
    let message = refused.message.as_deref().unwrap_or_default();
    // The name of a pod that was not made is another one at every try, and tells nobody anything.
    let message = message.split_once("\" is forbidden: ").map_or(message, |(_, why)| why);
    Some((refused.reason.clone().unwrap_or_else(|| "ReplicaFailure".into()), message.to_owned()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn deployment(replicas: i32, status: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"generation": 2}, "status": status,
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
        }))
        .expect("a Deployment")
    }

    fn told(reason: &str) -> Value {
        json!([{"type": "Progressing", "status": "True", "reason": reason, "message": "m"}])
    }

    #[rstest]
    #[case::nobody_has_looked(json!({}), Progress::UnderWay)]
    #[case::of_an_older_spec(
        json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}), Progress::UnderWay)]
    #[case::all_available(
        json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}), Progress::Done)]
    #[case::pods_that_have_not_come_up(
        json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "conditions": told("ReplicaSetUpdated")}), Progress::UnderWay)]
    #[case::pods_that_were_up_before(
        json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "conditions": told("NewReplicaSetAvailable")}), Progress::Done)]
    #[case::one_of_two_replaced(
        json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2, "conditions": told("ReplicaSetUpdated")}), Progress::UnderWay)]
    #[case::an_old_one_is_still_there(
        json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3, "conditions": told("ReplicaSetUpdated")}), Progress::UnderWay)]
    #[case::late(
        json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "conditions": told("ProgressDeadlineExceeded")}), Progress::Late("m".into()))]
    fn a_rollout_is_done_under_way_or_late(#[case] status: Value, #[case] expected: Progress) {
        assert_eq!(Rollout::of(Some(&deployment(2, &status))).progress, expected);
    }

    #[test]
    fn a_replica_set_that_is_refused_is_told_as_its_pods_are() {
        let condition =
            json!([{"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": "exceeded quota"}]);
        let refused = Rollout::of(Some(&deployment(1, &json!({"observedGeneration": 2, "conditions": condition})))).refused;
        assert_eq!(refused, Some(("ReplicaSetCreateError".into(), "exceeded quota".into())));
    }

    #[test]
    fn nothing_to_run_is_done() {
        let status = json!({"observedGeneration": 2});
        assert!(Rollout::of(Some(&deployment(0, &status))).is_done());
        assert!(!Rollout::of(None).is_done());
    }

    #[test]
    fn pods_that_kubernetes_refuses_are_told_in_its_words_without_the_name_that_changes() {
        let message = "pods \"db-mcp-5d8-x2x4q\" is forbidden: failed quota: q: must specify limits.cpu";
        let status =
            json!({"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]});
        let refused = Rollout::of(Some(&deployment(1, &status))).refused;
        assert_eq!(refused, Some(("FailedCreate".into(), "failed quota: q: must specify limits.cpu".into())));
        let over = json!({"conditions": [{"type": "ReplicaFailure", "status": "False", "reason": "FailedCreate"}]});
        assert_eq!(Rollout::of(Some(&deployment(1, &over))).refused, None);
    }
}

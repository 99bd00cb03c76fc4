//! What a Deployment says of itself: whether its pods are those of the spec, and why not. Pure.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentCondition},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::ResourceExt as _;

use crate::{crd::reason, names::LABEL_TEMPLATE_HASH, pod_trouble};

/// From which template a pod was made, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The Deployment's `pod-template-hash`.
    pub template: Option<String>,
    /// When the pod was made.
    pub made: Option<Timestamp>,
}

impl Origin {
    /// Where this pod comes from.
    pub fn of(pod: &Pod) -> Self {
        Self { template: pod.labels().get(LABEL_TEMPLATE_HASH).cloned(), made: pod.creation_timestamp().map(|time| time.0) }
    }
}

/// Which pods are of the latest template. What befalls those of a former one is no word on the spec as it is now: a person has edited it
/// since.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    /// Where these pods come from, and when the first of them was made that is there. None: no pod is known to be one.
    first: Option<Origin>,
}

impl Latest {
    /// Finds it out. A Deployment does not say which template is the latest, only how many pods of it there are: they are the newest ones.
    /// Nothing is known while it has not looked at its spec, or while a pod that it counts is not known here.
    pub fn of<'a>(deployment: Option<&Deployment>, pods: impl IntoIterator<Item = &'a Origin>) -> Self {
        let pods: Vec<_> = pods.into_iter().collect();
        let newest = pods.iter().map(|pod| pod.made).max().unwrap_or_default();
        let templates: BTreeSet<_> = pods.iter().filter(|pod| pod.made == newest).map(|pod| &pod.template).collect();
        let (Some(deployment), Some(template), 1) = (deployment, templates.first(), templates.len()) else {
            return Self::default();
        };
        if !Rollout::is_first(deployment) {
            let status = deployment.status.as_ref();
            let count = |number: Option<i32>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
            let (all, updated) = status.map_or((0, 0), |status| (count(status.replicas), count(status.updated_replicas)));
            if !has_looked(deployment) || updated == 0 || updated < all && pods.len() < all {
                return Self::default();
            }
        }
        let made = pods.iter().filter(|pod| pod.template == **template).filter_map(|pod| pod.made).min();
        Self { first: Some(Origin { template: (*template).clone(), made }) }
    }

    /// Whether a pod is known to be of the latest template.
    pub fn has(&self, pod: &Origin) -> bool {
        self.first.as_ref().is_some_and(|first| first.template == pod.template)
    }
}

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
    pub fn of(deployment: Option<&Deployment>, latest: &Latest) -> Self {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        let count = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        Self {
            progress: deployment.map_or(Progress::UnderWay, progress),
            refused: deployment.and_then(|deployment| refused(deployment, latest)),
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
        let wanted = wanted(deployment);
        let status = deployment.status.as_ref().filter(|_| has_looked(deployment));
        status.is_some_and(|status| status.updated_replicas.unwrap_or(0) == wanted && status.replicas.unwrap_or(0) == wanted)
    }

    /// Every pod is of the latest template.
    pub fn is_done(&self) -> bool {
        self.progress == Progress::Done
    }
}

fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// What it says is about its spec as it is now.
fn has_looked(deployment: &Deployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| status.observed_generation >= deployment.metadata.generation)
}

fn progress(deployment: &Deployment) -> Progress {
    let Some(status) = deployment.status.as_ref().filter(|_| has_looked(deployment)) else { return Progress::UnderWay };
    let told = condition(deployment, "Progressing");
    if let Some(late) = told.filter(|told| told.reason.as_deref() == Some("ProgressDeadlineExceeded")) {
        return Progress::Late(late.message.as_deref().unwrap_or_default().trim_end_matches('.').to_owned());
    }
    // A pod that was in service and is not any more is no rollout: the Deployment says so once, and keeps to it.
    let was_available = told.is_some_and(|told| told.reason.as_deref() == Some("NewReplicaSetAvailable"));
    let available = was_available || status.available_replicas.unwrap_or(0) == wanted(deployment);
    if Rollout::is_replaced(deployment) && available { Progress::Done } else { Progress::UnderWay }
}

fn refused(deployment: &Deployment, latest: &Latest) -> Option<(String, String)> {
    let of_pods = condition(deployment, "ReplicaFailure").filter(|refused| refused.status == "True");
    let of_pods = of_pods.filter(|refused| !is_former(deployment, refused, latest));
    // What makes the pods may be refused itself.
    let of_set =
        || condition(deployment, "Progressing").filter(|told| told.reason.as_deref() == Some(reason::REPLICA_SET_CREATE_ERROR));
    let refused = of_pods.or_else(of_set)?;
    let message = pod_trouble::refusal(refused.message.as_deref().unwrap_or_default());
    let message = deployment.metadata.name.as_deref().map_or_else(|| message.to_owned(), |name| without_suffixes(message, name));
    Some((refused.reason.clone().unwrap_or_else(|| "ReplicaFailure".into()), message))
}

/// What Kubernetes makes names up of: neither vowels nor what looks like one.
/// <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go>
const MADE_UP_OF: &str = "bcdfghjklmnpqrstvwxz2456789";

/// The message without what Kubernetes made up for the names of the Deployment's pods: who refused one may name it, and it is another at
/// every try.
fn without_suffixes(message: &str, deployment: &str) -> String {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let cut = |part: &str| {
        let word = part.trim_end_matches(|c| !is_of_name(c));
        let of_pod = word.strip_prefix(deployment).and_then(|rest| rest.strip_prefix('-')?.rsplit_once('-'));
        match of_pod.filter(|(_, made_up)| made_up.len() == 5 && made_up.chars().all(|c| MADE_UP_OF.contains(c))) {
            Some(_) => format!("{}…{}", &word[..word.len() - 5], &part[word.len()..]),
            None => part.to_owned(),
        }
    };
    message.split_inclusive(|c| !is_of_name(c)).map(cut).collect()
}

/// Whether pods of a former template were refused: a Deployment passes on what any of its ReplicaSets says, the latest's first.
/// <https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/deployment/util/deployment_util.go> (`getReplicaFailures`)
fn is_former(deployment: &Deployment, refused: &DeploymentCondition, latest: &Latest) -> bool {
    let Some(status) = deployment.status.as_ref() else { return false };
    if !has_looked(deployment) || status.updated_replicas == Some(wanted(deployment)) {
        return true;
    }
    // Since when there has been the latest one. That it was found is dated by its making; what was made of it later, by its pods.
    let told = condition(deployment, "Progressing");
    let since = told.and_then(|told| match told.reason.as_deref() {
        Some("NewReplicaSetCreated") => told.last_update_time.as_ref().map(|time| time.0),
        Some("ReplicaSetUpdated") => latest.first.as_ref().and_then(|first| first.made),
        _ => None,
    });
    let at = refused.last_transition_time.as_ref().map(|time| time.0);
    at.zip(since).is_some_and(|(at, since)| at < since)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::at;

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
        assert_eq!(Rollout::of(Some(&deployment(2, &status)), &Latest::default()).progress, expected);
    }

    #[test]
    fn a_replica_set_that_is_refused_is_told_as_its_pods_are() {
        let condition =
            json!([{"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": "exceeded quota"}]);
        let refused =
            Rollout::of(Some(&deployment(1, &json!({"observedGeneration": 2, "conditions": condition}))), &Latest::default())
                .refused;
        assert_eq!(refused, Some(("ReplicaSetCreateError".into(), "exceeded quota".into())));
    }

    fn pod(template: &str, second: i64) -> Origin {
        Origin { template: Some(template.into()), made: Some(at(second)) }
    }

    /// Pods of a former template "a" and of the latest "b".
    #[rstest]
    #[case::the_latest_are_the_newest(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}), &[("a", 1), ("b", 2)], true)]
    #[case::all_are_of_it(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}), &[("b", 1), ("b", 2)], true)]
    #[case::none_is_there_yet(json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 0}), &[("b", 2)], false)]
    #[case::it_has_not_looked(json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}), &[("b", 2)], false)]
    #[case::one_is_counted_that_is_not_known(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}), &[("b", 1)], false)]
    #[case::made_at_once(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}), &[("a", 2), ("b", 2)], false)]
    #[case::nobody(json!({"observedGeneration": 2}), &[], false)]
    fn pods_of_the_latest_template_are_known(#[case] status: Value, #[case] pods: &[(&str, i64)], #[case] expected: bool) {
        let pods: Vec<_> = pods.iter().map(|(template, second)| pod(template, *second)).collect();
        let latest = Latest::of(Some(&deployment(1, &status)), &pods);
        assert_eq!((latest.has(&pod("b", 9)), latest.has(&pod("a", 9))), (expected, false));
    }

    #[test]
    fn pods_of_a_deployment_as_it_was_made_are_of_its_latest_template() {
        let mut made = deployment(1, &json!({}));
        made.metadata.generation = Some(1);
        assert!(Latest::of(Some(&made), &[pod("a", 1)]).has(&pod("a", 2)));
    }

    /// Refused at second 10.
    #[rstest]
    #[case::nothing_was_edited(2, 0, "ReplicaSetUpdated", 5, None, true)]
    #[case::the_latest_is_new(2, 0, "NewReplicaSetCreated", 20, None, false)]
    #[case::the_latest_was_refused_in_its_first_second(2, 0, "NewReplicaSetCreated", 10, None, true)]
    #[case::the_latest_has_a_pod(2, 1, "ReplicaSetUpdated", 30, Some(20), false)]
    #[case::the_latest_has_one_and_gets_no_second(2, 1, "ReplicaSetUpdated", 30, Some(9), true)]
    #[case::the_latest_has_all(2, 2, "ReplicaSetUpdated", 30, Some(9), false)]
    #[case::it_was_edited_a_moment_ago(1, 0, "ReplicaSetUpdated", 5, None, false)]
    fn a_refusal_of_a_former_template_is_no_news(
        #[case] observed: i64,
        #[case] updated: i64,
        #[case] progress: &str,
        #[case] updated_at: i64,
        #[case] began: Option<i64>,
        #[case] expected: bool,
    ) {
        let status = json!({"observedGeneration": observed, "replicas": updated, "updatedReplicas": updated, "conditions": [
            {"type": "Progressing", "status": "True", "reason": progress, "lastUpdateTime": at(updated_at).to_string()},
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "m", "lastTransitionTime": at(10).to_string()},
        ]});
        let latest = Latest { first: Some(Origin { template: None, made: began.map(at) }) };
        assert_eq!(Rollout::of(Some(&deployment(2, &status)), &latest).refused.is_some(), expected);
    }

    #[test]
    fn nothing_to_run_is_done() {
        let status = json!({"observedGeneration": 2});
        assert!(Rollout::of(Some(&deployment(0, &status)), &Latest::default()).is_done());
        assert!(!Rollout::of(None, &Latest::default()).is_done());
    }

    #[test]
    fn pods_that_kubernetes_refuses_are_told_in_its_words_without_the_name_that_changes() {
        let message = "pods \"db-mcp-5d8-x2x4q\" is forbidden: failed quota: q: must specify limits.cpu";
        let status = json!({"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]});
        let refused = Rollout::of(Some(&deployment(1, &status)), &Latest::default()).refused;
        assert_eq!(refused, Some(("FailedCreate".into(), "failed quota: q: must specify limits.cpu".into())));
        let said = |message: &str| {
            let status = json!({"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]});
            let mut deployment = deployment(1, &status);
            deployment.metadata.name = Some("db-mcp".into());
            Rollout::of(Some(&deployment), &Latest::default()).refused.expect("refused").1
        };
        assert_eq!(said("Pod \"db-mcp-5d8-x2x4q\" is invalid: spec.hostname: no"), "spec.hostname: no");
        let denied = said("the webhook w denied the request: resource Pod/team/db-mcp-5d8-x2x4q, with db-mcp-cache, was blocked");
        assert_eq!(denied, "the webhook w denied the request: resource Pod/team/db-mcp-5d8-…, with db-mcp-cache, was blocked");
        for message in [r#"secret "db-mcp-oauth-token" not found"#, "the volume db-mcp-node-cache is gone"] {
            assert_eq!(said(message), message, "somebody chose these names");
        }
        let over = json!({"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "False", "reason": "FailedCreate"}]});
        assert_eq!(Rollout::of(Some(&deployment(1, &over)), &Latest::default()).refused, None);
    }
}

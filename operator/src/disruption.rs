//! What keeps the pods of one CR from going all at once: a budget for those that are taken away on purpose (a drain, an upgrade of
//! nodes), and a spread for those that go with their node or zone. The same for both kinds. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::TopologySpreadConstraint,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::names;

/// What pods are kept apart by, the largest first.
const APART: [&str; 2] = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"];

/// One pod at a time. None where there is one pod: a budget would keep its node from ever being drained.
///
/// A pod that is not Ready may always go: otherwise a budget would hold a drain up for a pod that serves nobody, and keep us from
/// evicting one that stays Failed.
pub fn budget(metadata: ObjectMeta, replicas: i32, pods: BTreeMap<String, String>) -> Option<PodDisruptionBudget> {
    (replicas > 1).then(|| PodDisruptionBudget {
        metadata,
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            min_available: None,
            selector: Some(LabelSelector { match_labels: Some(pods), match_expressions: None }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
        }),
        status: None,
    })
}

/// Over zones and over nodes, as far as there is room: a cluster of one node runs all of them. Whatever the number of pods, so that
/// scaling changes no template.
pub fn spread(pods: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    let over = |topology: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(LabelSelector { match_labels: Some(pods.clone()), match_expressions: None }),
        // In a rollout the pods of the old template do not count: they are about to go.
        match_label_keys: Some(vec![names::LABEL_TEMPLATE_HASH.into()]),
        ..TopologySpreadConstraint::default()
    };
    APART.map(over).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Component;

    #[test]
    fn one_pod_at_a_time_from_two_on() {
        let budget = |replicas| budget(ObjectMeta::default(), replicas, Component::Server.selector("db"));
        assert!(budget(0).is_none() && budget(1).is_none());
        insta::assert_yaml_snapshot!(budget(2).and_then(|budget| budget.spec), @r"
        maxUnavailable: 1
        selector:
          matchLabels:
            app.kubernetes.io/component: mcp-server
            app.kubernetes.io/instance: db
            app.kubernetes.io/managed-by: mcpfleet
        unhealthyPodEvictionPolicy: AlwaysAllow
        ");
    }
}

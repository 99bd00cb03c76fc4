//! What follows from the number of pods: a budget for disruption, and how they spread.

use k8s_openapi::api::{apps::v1::Deployment, policy::v1::PodDisruptionBudget};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::{McpApp, McpServer};
use serde_json::{Value, json};

use crate::reconcile::app;

/// The budget of a name, once it is there: it lets one pod go, and those of nobody else.
async fn budget(space: &Space, name: &str, component: operator::names::Component, of: &str) -> anyhow::Result<()> {
    let budget = space.until::<PodDisruptionBudget>(name, "the budget", |_| true).await?;
    let spec = serde_json::to_value(budget.spec)?;
    let selector = json!({"matchLabels": component.selector(of)});
    assert_eq!(spec, json!({"maxUnavailable": 1, "selector": selector, "unhealthyPodEvictionPolicy": "AlwaysAllow"}));
    Ok(())
}

#[tokio::test]
async fn two_pods_have_a_budget_and_one_has_none() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}, "replicas": 2}});
        space.create::<McpServer>(server).await?;
        budget(&space, "s-mcp", operator::names::Component::Server, "s").await?;
        space.edit::<McpServer>("s", json!({"spec": {"replicas": 1}})).await?;
        space.until_gone::<PodDisruptionBudget>("s-mcp").await?;
        space.edit::<McpServer>("s", json!({"spec": {"replicas": 3}})).await?;
        budget(&space, "s-mcp", operator::names::Component::Server, "s").await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space.until_gone::<PodDisruptionBudget>("s-mcp").await?;

        app(&space, json!([{"name": "s"}])).await?;
        space.edit::<McpApp>("chat", json!({"spec": {"replicas": 2}})).await?;
        budget(&space, "chat-app", operator::names::Component::App, "chat").await?;
        space.edit::<McpApp>("chat", json!({"spec": {"replicas": 1}})).await?;
        space.until_gone::<PodDisruptionBudget>("chat-app").await?;
        operator.stop().await
    })
    .await;
}

fn constraints(deployment: &Deployment) -> Value {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    json!(pod.and_then(|pod| pod.topology_spread_constraints.as_ref()))
}

#[tokio::test]
async fn pods_spread_over_zones_and_nodes_unless_the_spec_says_how_and_scaling_rolls_nothing() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        let one = space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        let over = |topology: &str| {
            json!({
                "maxSkew": 1, "topologyKey": topology, "whenUnsatisfiable": "ScheduleAnyway", "matchLabelKeys": ["pod-template-hash"],
                "labelSelector": {"matchLabels": operator::names::Component::Server.selector("s")},
            })
        };
        assert_eq!(constraints(&one), json!([over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]));
        space.edit::<McpServer>("s", json!({"spec": {"replicas": 3}})).await?;
        let replicas = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let three = space.until::<Deployment>("s-mcp", "three pods", |deployment| replicas(deployment) == Some(3)).await?;
        assert_eq!(one.spec.map(|spec| spec.template), three.spec.map(|spec| spec.template));

        let own = json!([{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]);
        space.edit::<McpServer>("s", json!({"spec": {"podTemplate": {"topologySpreadConstraints": own}}})).await?;
        space.until::<Deployment>("s-mcp", "the spec's own", |deployment| constraints(deployment) == own).await?;
        operator.stop().await
    })
    .await;
}

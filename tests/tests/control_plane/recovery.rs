//! A server that comes back, where a kubelet follows the gate: what is told when, and in how many writes.

use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::ResourceExt;
use mcpfleet_tests::{
    audit,
    cluster::{Space, with_space},
    mcp::{FakeServer, Mode},
    pods::{self, Kubelet},
};
use operator::{
    crd::{CircuitState, McpApp, McpServer, reason},
    names::ANNOTATION_RECHECK,
};
use serde_json::json;

use crate::{
    circuit::circuit,
    reconcile::{app, ready_is},
};

/// What the app's file says of its server.
fn entry(config_map: &ConfigMap) -> Option<serde_json::Value> {
    let file: serde_json::Value = serde_json::from_str(config_map.data.as_ref()?.get("mcp.json")?).ok()?;
    Some(file["servers"][0].clone())
}

fn offers(app: &McpApp) -> Option<&str> {
    app.status.as_ref()?.servers_offered.as_deref()
}

/// A server with one pod, and an app over it, on trial after its circuit opened.
async fn on_trial(space: &Space) -> anyhow::Result<(FakeServer, Kubelet)> {
    let fake = FakeServer::start().await?;
    space.secret("token", &[("header", "Bearer sesame-and-more")]).await?;
    let headers = json!([{"name": "Authorization", "secretKeyRef": {"name": "token", "key": "header"}}]);
    let server = json!({"metadata": {"name": "s"}, "spec": {
        "container": {"image": "a/b:1", "headersFrom": headers},
        "health": {"intervalSeconds": 1, "timeoutSeconds": 1},
        // Long enough on trial for the status to say so: what is counted begins there.
        "circuitBreaker": {"openSeconds": 300, "successThreshold": 5},
    }});
    space.create::<McpServer>(server).await?;
    app(space, json!([{"name": "s"}])).await?;
    pods::run(space, "s", "s-1", fake.address).await?;
    let kubelet = Kubelet::start(space, "s-1").await?;
    space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
    space.until::<McpApp>("chat", "1/1 servers", |app| offers(app) == Some("1/1")).await?;

    fake.set(Mode::Status(500));
    space.until::<McpServer>("s", "an open circuit", |server| circuit(server) == Some(CircuitState::Open)).await?;
    space.until::<McpApp>("chat", "0/1 servers", |app| offers(app) == Some("0/1")).await?;
    fake.set(Mode::Answer);
    space.edit::<McpServer>("s", json!({"metadata": {"annotations": {ANNOTATION_RECHECK: "1"}}})).await?;
    space.until::<McpServer>("s", "a trial", |server| circuit(server) == Some(CircuitState::HalfOpen)).await?;
    // The file tells of the trial, too.
    let on_trial = |config: &ConfigMap| entry(config).is_some_and(|entry| entry["metadata"]["circuit"] == "HalfOpen");
    space.until::<ConfigMap>("chat-app", "a server on trial", on_trial).await?;
    Ok((fake, kubelet))
}

/// Waits until all that a recovery brings is written.
async fn recovered(space: &Space) -> anyhow::Result<McpServer> {
    let closed =
        space.until::<McpServer>("s", "a closed circuit", |server| circuit(server) == Some(CircuitState::Closed)).await?;
    let enabled = |config: &ConfigMap| entry(config).is_some_and(|entry| entry["enabled"] == true);
    space.until::<ConfigMap>("chat-app", "the server offered again", enabled).await?;
    space.until::<McpApp>("chat", "1/1 servers", |app| offers(app) == Some("1/1")).await?;
    Ok(closed)
}

#[tokio::test]
async fn a_recovery_of_a_server_with_one_pod_is_three_writes_and_one_status() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let (_fake, _kubelet) = on_trial(&space).await?;
        let before = Timestamp::now();

        let closed = recovered(&space).await?;
        assert!(
            ready_is(&closed, "True", reason::AVAILABLE),
            "{} closed without being Ready: {:?}",
            closed.name_any(),
            closed.status
        );
        let transition = audit::of_transition(&audit::writes_since(&space.name, before)?);
        assert!(transition.len() <= 3, "{:?}", audit::summary(&transition));
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_starts_anew_just_after_a_circuit_closed_writes_nothing() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let (_fake, _kubelet) = on_trial(&space).await?;
        recovered(&space).await?;
        operator.kill().await;
        let killed = Timestamp::now();

        let operator = space.operator().await?;
        // It has asked the server, and told itself of what came of it.
        operator.until("/fleet", |fleet| fleet.contains("\"Healthy\"")).await?;
        operator.until_passes(1).await?;
        assert_eq!(audit::writes_since(&space.name, killed)?, []);
        operator.stop().await
    })
    .await;
}

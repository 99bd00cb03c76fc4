//! A server that fails: gate, circuit, apps, and back. With pods that tests write, and an MCP server that does as it is told.

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    jiff::Timestamp,
};
use mcpfleet_tests::{
    audit,
    cluster::{Space, is_told, with_space},
    mcp::{FakeServer, Mode},
    pods,
};
use operator::crd::{CircuitState, McpApp, McpServer, reason};
use serde_json::json;

use crate::{
    contract::tools_are,
    reconcile::{app, ready_is},
};

async fn server(space: &Space, name: &str, open_seconds: u32) -> anyhow::Result<McpServer> {
    space
        .create(json!({"metadata": {"name": name}, "spec": {
            "container": {"image": "a/b:1"},
            "health": {"intervalSeconds": 1, "timeoutSeconds": 1},
            "circuitBreaker": {"openSeconds": open_seconds},
        }}))
        .await
}

pub fn circuit(server: &McpServer) -> Option<CircuitState> {
    Some(server.status.as_ref()?.circuit.as_ref()?.state)
}

fn offered(config_map: &ConfigMap) -> Option<bool> {
    let file: serde_json::Value = serde_json::from_str(config_map.data.as_ref()?.get("mcp.json")?).ok()?;
    file["servers"][0]["enabled"].as_bool()
}

#[tokio::test]
async fn a_pod_that_answers_comes_into_service() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let fake = FakeServer::start().await?;
        server(&space, "s", 1).await?;
        space.until::<McpServer>("s", "a status", is_told).await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<Pod>("s-1", "the gate", |pod| pods::gate(pod) == Some(true)).await?;
        let told = space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        let status = told.status.unwrap();
        assert_eq!(status.pods.as_deref(), Some("1/1"));
        assert_eq!(status.protocol.unwrap().version, "2026-07-28");
        assert_eq!(status.tools.unwrap().names, ["read", "write"]);
        let fleet: serde_json::Value = serde_json::from_str(&operator.get("/fleet").await?)?;
        assert_eq!(fleet["servers"][0]["pods"][0]["gate"], true);
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_wedged_server_opens_its_circuit_is_taken_from_apps_and_comes_back() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let fake = FakeServer::start().await?;
        server(&space, "s", 1).await?;
        app(&space, json!([{"name": "s"}])).await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        space.until::<ConfigMap>("chat-app", "the server offered", |config| offered(config) == Some(true)).await?;

        fake.set(Mode::Hang);
        let told = space.until::<McpServer>("s", "an open circuit", |server| circuit(server) == Some(CircuitState::Open)).await?;
        assert!(ready_is(&told, "False", reason::CIRCUIT_OPEN));
        assert_eq!(told.status.unwrap().circuit.unwrap().reason.as_deref(), Some(reason::TIMEOUT));
        space.until::<Pod>("s-1", "the gate shut", |pod| pods::gate(pod) == Some(false)).await?;
        space.until::<ConfigMap>("chat-app", "the server withdrawn", |config| offered(config) == Some(false)).await?;
        space
            .until::<McpApp>("chat", "0/1 servers", |app| {
                app.status.as_ref().and_then(|status| status.servers_offered.as_deref()) == Some("0/1")
            })
            .await?;

        fake.set(Mode::Answer);
        space
            .until::<McpServer>("s", "Ready again", |server| {
                circuit(server) == Some(CircuitState::Closed) && ready_is(server, "True", reason::AVAILABLE)
            })
            .await?;
        space.until::<Pod>("s-1", "the gate open", |pod| pods::gate(pod) == Some(true)).await?;
        space.until::<ConfigMap>("chat-app", "the server offered again", |config| offered(config) == Some(true)).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_open_circuit_survives_the_operator() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let fake = FakeServer::start().await?;
        server(&space, "s", 300).await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        fake.set(Mode::Status(500));
        let open = space.until::<McpServer>("s", "an open circuit", |server| circuit(server) == Some(CircuitState::Open)).await?;
        space.until::<Pod>("s-1", "the gate shut", |pod| pods::gate(pod) == Some(false)).await?;
        operator.kill().await;

        fake.set(Mode::Answer);
        let before = Timestamp::now();
        let operator = space.operator().await?;
        // A pass over the server is over when the metric counts it: what it wrote, it has written.
        operator.until_passes(1).await?;
        let still = space.api::<McpServer>().get("s").await?;
        assert_eq!(still.status, open.status, "nothing moves before retryAt");
        assert_eq!(audit::writes_since(&space.name, before)?, []);
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn one_transition_of_a_server_with_one_pod_is_three_writes() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let fake = FakeServer::start().await?;
        // The first change of what was created by a plain request costs one more: it is the app's own beginning here.
        app(&space, json!([{"name": "s"}])).await?;
        space.until::<ConfigMap>("chat-app", "no server", |config| offered(config).is_none()).await?;
        server(&space, "s", 300).await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        space.until::<ConfigMap>("chat-app", "the server offered", |config| offered(config) == Some(true)).await?;
        // They are accepted from a pod in service: a pass later, where it came to be in the middle of one.
        space.until::<ConfigMap>("s-mcp-tools", "the accepted tools", |_| true).await?;
        space.until::<McpServer>("s", "the accepted tools", |server| tools_are(server, "True", reason::TOOLS_UNCHANGED)).await?;
        let before = Timestamp::now();

        fake.set(Mode::Hang);
        space.until::<ConfigMap>("chat-app", "the server withdrawn", |config| offered(config) == Some(false)).await?;
        space.until::<Pod>("s-1", "the gate shut", |pod| pods::gate(pod) == Some(false)).await?;
        // The app's own status (SERVERS 0/1) and the Events are told on top.
        space
            .until::<McpApp>("chat", "0/1 servers", |app| {
                app.status.as_ref().and_then(|status| status.servers_offered.as_deref()) == Some("0/1")
            })
            .await?;
        let transition = audit::of_transition(&audit::writes_since(&space.name, before)?);
        assert!(transition.len() <= 3, "{:?}", audit::summary(&transition));
        operator.stop().await
    })
    .await;
}

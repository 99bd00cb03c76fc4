//! The tools contract, a look on demand, and an object that is left alone.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use mcpfleet_tests::{
    audit,
    cluster::{Space, with_space},
    mcp::FakeServer,
    pods,
};
use operator::{
    conditions,
    crd::{McpServer, reason},
    names::{ANNOTATION_PAUSED, ANNOTATION_RECHECK},
};
use serde_json::json;

use crate::reconcile::{ready_is, reason_of};

/// A server that is probed once an hour, but for what a test asks for.
async fn server(space: &Space, policy: &str) -> anyhow::Result<McpServer> {
    space
        .create(json!({"metadata": {"name": "s"}, "spec": {
            "container": {"image": "a/b:1"}, "health": {"intervalSeconds": 3600}, "tools": {"policy": policy},
        }}))
        .await
}

async fn recheck(space: &Space, value: &str) -> anyhow::Result<()> {
    space.edit::<McpServer>("s", json!({"metadata": {"annotations": {ANNOTATION_RECHECK: value}}})).await?;
    Ok(())
}

pub fn tools_are(server: &McpServer, status: &str, reason: &str) -> bool {
    let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    reason_of(conditions, "ToolsAccepted") == Some((status.into(), reason.into()))
}

#[tokio::test]
async fn changed_tools_are_told_by_name_and_accepted_by_their_digest() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let fake = FakeServer::start().await?;
        server(&space, "Warn").await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space
            .until::<McpServer>("s", "the first list accepted", |server| tools_are(server, "True", reason::TOOLS_UNCHANGED))
            .await?;
        let kept = space.until::<ConfigMap>("s-mcp-tools", "the accepted list", |_| true).await?;
        assert!(kept.data.unwrap()["tools.json"].contains("\"write\""));

        fake.set_tools(&["read", "drop"]);
        recheck(&space, "1").await?;
        let changed =
            space.until::<McpServer>("s", "a difference", |server| tools_are(server, "False", reason::TOOLS_CHANGED)).await?;
        let status = changed.status.clone().unwrap();
        let told = conditions::find(&status.conditions, "ToolsAccepted").unwrap().message.clone();
        assert!(told.starts_with("added: drop; removed: write."), "{told}");
        assert!(ready_is(&changed, "True", reason::AVAILABLE), "Warn leaves the traffic alone");

        let digest = status.tools.unwrap().digest;
        assert!(told.contains(&digest), "{told}");
        space.edit::<McpServer>("s", json!({"spec": {"tools": {"digest": digest}}})).await?;
        space
            .until::<McpServer>("s", "the new list accepted", |server| tools_are(server, "True", reason::TOOLS_UNCHANGED))
            .await?;
        let whole = |config: &ConfigMap| config.data.as_ref().is_some_and(|data| data["tools.json"].contains("\"drop\""));
        space.until::<ConfigMap>("s-mcp-tools", "the new list kept", whole).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_enforced_contract_keeps_a_pod_with_other_tools_out_while_the_old_one_serves() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let (old, new) = (FakeServer::start().await?, FakeServer::start().await?);
        server(&space, "Enforce").await?;
        pods::run(&space, "s", "old", old.address).await?;
        space.until::<Pod>("old", "the gate", |pod| pods::gate(pod) == Some(true)).await?;
        space.until::<ConfigMap>("s-mcp-tools", "the accepted list", |_| true).await?;

        new.set_tools(&["read"]);
        pods::run(&space, "s", "new", new.address).await?;
        space.until::<McpServer>("s", "a difference", |server| tools_are(server, "False", reason::TOOLS_CHANGED)).await?;
        let serving = space.api::<McpServer>().get("s").await?;
        assert!(ready_is(&serving, "True", reason::AVAILABLE) || ready_is(&serving, "True", reason::DEGRADED));
        assert_ne!(pods::gate(&space.api::<Pod>().get("new").await?), Some(true));
        assert_eq!(pods::gate(&space.api::<Pod>().get("old").await?), Some(true));
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_recheck_is_answered_within_two_seconds() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let fake = FakeServer::start().await?;
        server(&space, "Ignore").await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        fake.set_tools(&["read", "write", "third"]);
        let asked = Instant::now();
        recheck(&space, "now").await?;
        let three = |server: &McpServer| {
            server.status.as_ref().and_then(|status| status.tools.as_ref()).is_some_and(|tools| tools.count == 3)
        };
        space.until::<McpServer>("s", "three tools", three).await?;
        anyhow::ensure!(asked.elapsed() < Duration::from_secs(2), "answered after {:?}", asked.elapsed());
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_paused_server_is_left_alone_until_it_is_not() {
    with_space(|space| async move {
        let paused = json!({"metadata": {"name": "s", "annotations": {ANNOTATION_PAUSED: "true"}}, "spec": {"container": {"image": "a/b:1"}}});
        let operator = space.operator().await?;
        space.create::<McpServer>(paused).await?;
        let told = space.until::<McpServer>("s", "Paused", |server| ready_is(server, "False", reason::PAUSED)).await?;
        assert_eq!(told.status.unwrap().observed_generation, Some(1));
        operator
            .until("/metrics", |text| text.contains("mcpfleet_reconcile_total{kind=\"McpServer\",outcome=\"paused\"}"))
            .await?;
        let writes = audit::writes(&space.name)?;
        let children = ["deployments", "services", "configmaps", "persistentvolumeclaims"];
        assert!(writes.iter().all(|write| !children.contains(&&*write.resource)), "only its status: {writes:?}");
        space.edit::<McpServer>("s", json!({"metadata": {"annotations": {ANNOTATION_PAUSED: "false"}}})).await?;
        space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        operator.stop().await
    })
    .await;
}

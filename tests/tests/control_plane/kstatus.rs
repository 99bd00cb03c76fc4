//! What Flux and others read: the objects through kstatus itself, a Go program (tests/cluster/go/kstatus).

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use mcpfleet_tests::{
    cluster::{Space, with_space},
    mcp::FakeServer,
    pods,
};
use operator::{conditions, crd::McpServer};
use serde_json::{Value, json};

/// kstatus' word for the object.
fn kstatus(server: &McpServer) -> anyhow::Result<String> {
    let program = Command::new("kstatus").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut program = program.context("kstatus: tests/cluster/tool.sh kstatus builds it")?;
    program.stdin.take().context("a pipe")?.write_all(&serde_json::to_vec(server)?)?;
    let output = program.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "kstatus ended with {}", output.status);
    let told = String::from_utf8(output.stdout)?;
    println!("{}: {}", server.name_any(), told.trim());
    Ok(told.split('\t').next().unwrap_or_default().to_owned())
}

/// Waits until the operator has said this of the present generation.
async fn told(space: &Space, type_: &str, status: &str) -> anyhow::Result<McpServer> {
    space
        .until::<McpServer>("s", &format!("{type_}={status}"), |server| {
            let found = server.status.as_ref().filter(|status| status.observed_generation == server.metadata.generation);
            found.and_then(|found| conditions::find(&found.conditions, type_)).is_some_and(|found| found.status == status)
        })
        .await
}

/// Writes what the Deployment controller would.
async fn deployment(space: &Space, updated: i32, progressing: Value) -> anyhow::Result<()> {
    let generation = space.api::<Deployment>().get("s-mcp").await?.metadata.generation;
    let status = json!({"status": {
        "observedGeneration": generation, "replicas": 1, "updatedReplicas": updated, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [progressing],
    }});
    space.api::<Deployment>().patch_status("s-mcp", &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

fn progressing(status: &str, reason: &str) -> Value {
    json!({"type": "Progressing", "status": status, "reason": reason, "message": "as the controller says"})
}

#[tokio::test]
async fn a_rollout_is_in_progress_then_current_and_a_stalled_one_failed() {
    with_space(|space| async move {
        let fake = FakeServer::start().await?;
        let server =
            json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}, "health": {"intervalSeconds": 1, "timeoutSeconds": 1}}});
        assert_eq!(kstatus(&space.create::<McpServer>(server).await?)?, "InProgress", "nobody has looked at it");
        let operator = space.operator().await?;
        assert_eq!(kstatus(&told(&space, "Reconciling", "True").await?)?, "InProgress", "no pod yet");

        space.until::<Deployment>("s-mcp", "made", |_| true).await?;
        deployment(&space, 1, progressing("True", "NewReplicaSetAvailable")).await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        told(&space, "Ready", "True").await?;
        assert_eq!(kstatus(&told(&space, "Reconciling", "False").await?)?, "Current", "it serves");

        // The old version serves on, and the new one is under way: whoever waits for it must wait.
        let edited = space.edit::<McpServer>("s", json!({"spec": {"container": {"image": "a/b:2"}}})).await?;
        assert_eq!(kstatus(&edited)?, "InProgress", "nobody has looked at the edit yet");
        space.until::<Deployment>("s-mcp", "edited", |found| found.metadata.generation > Some(1)).await?;
        deployment(&space, 0, progressing("True", "ReplicaSetUpdated")).await?;
        let rolling = told(&space, "Reconciling", "True").await?;
        assert_eq!(kstatus(&rolling)?, "InProgress");
        assert_eq!(kstatus(&told(&space, "Ready", "True").await?)?, "InProgress", "the old version serves");

        deployment(&space, 0, progressing("False", "ProgressDeadlineExceeded")).await?;
        assert_eq!(kstatus(&told(&space, "Stalled", "True").await?)?, "Failed");
        told(&space, "Ready", "True").await?;

        deployment(&space, 1, progressing("True", "NewReplicaSetAvailable")).await?;
        assert_eq!(kstatus(&told(&space, "Stalled", "False").await?)?, "Current");

        let env = json!([{"name": "K", "valueFrom": {"secretKeyRef": {"name": "missing", "key": "k"}}}]);
        space.edit::<McpServer>("s", json!({"spec": {"env": env}})).await?;
        assert_eq!(kstatus(&told(&space, "Stalled", "True").await?)?, "Failed", "only a person can make the Secret");
        operator.stop().await
    })
    .await;
}

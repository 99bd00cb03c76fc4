//! The examples, as people apply them.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, ListParams};
use mcpfleet_tests::cluster::with_space;
use operator::{
    conditions,
    crd::{McpApp, McpServer},
};

use crate::setup::{install, operator_log, run};

/// How long the examples may take with their images loaded.
const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_examples_are_ready_in_half_a_minute_and_leave_nothing_but_the_volume() {
    with_space(|space| async move {
        install(&space).await?;
        space.secret("anthropic", &[("api-key", "sk-ant-e2e-key")]).await?;
        let began = Instant::now();
        for example in ["sqlite.yaml", "chat.yaml"] {
            run("kubectl", &["apply", "--namespace", &space.name, "--filename", &format!("tests/manifests/{example}")])?;
        }
        let is_ready = |conditions: &[_]| conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True");
        space
            .until::<McpServer>("sqlite", "Ready", |server| is_ready(&server.status.clone().unwrap_or_default().conditions))
            .await?;
        space.until::<McpApp>("chat", "Ready", |app| is_ready(&app.status.clone().unwrap_or_default().conditions)).await?;
        let took = began.elapsed();
        println!("ready after {:.1} s", took.as_secs_f64());
        anyhow::ensure!(took < BOUND, "ready after {took:?}");

        let table = run("kubectl", &["get", "mcpservers,mcpapps", "--namespace", &space.name])?;
        println!("{table}");
        for column in ["READY", "CIRCUIT", "PODS", "TOOLS", "PROTOCOL", "URL", "AGE", "SERVERS"] {
            anyhow::ensure!(table.contains(column), "no column {column}: {table}");
        }
        anyhow::ensure!(table.contains("1/1") && table.contains("2026-07-28") && table.contains("Closed"), "{table}");

        space.api::<McpApp>().delete("chat", &DeleteParams::default()).await?;
        space.api::<McpServer>().delete("sqlite", &DeleteParams::default()).await?;
        run(
            "kubectl",
            &[
                "wait",
                "--for=delete",
                "--timeout=90s",
                "--namespace",
                &space.name,
                "deployment,service,configmap,pod",
                "--selector=app.kubernetes.io/managed-by=mcpfleet",
            ],
        )?;
        let claims = space.api::<k8s_openapi::api::core::v1::PersistentVolumeClaim>().list(&ListParams::default()).await?;
        anyhow::ensure!(claims.items.len() == 1, "the volume is kept");
        let secrets = run("kubectl", &["get", "secrets", "--namespace", &space.name, "--output", "name"])?;
        anyhow::ensure!(secrets.trim() == "secret/anthropic", "{secrets}");

        // What is refused in a namespace that is going, that of an earlier test, is no right that is missing.
        let log = operator_log(&space).await?;
        let refused: Vec<_> =
            log.lines().filter(|line| line.contains("forbidden") && !line.contains("NamespaceTerminating")).collect();
        anyhow::ensure!(refused.is_empty(), "the operator lacks a right: {refused:?}");
        Ok(())
    })
    .await;
}

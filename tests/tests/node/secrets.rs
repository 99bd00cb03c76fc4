//! No secret in any log, status, Event or ConfigMap.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{ResourceExt, api::ListParams};
use mcpfleet_tests::cluster::with_space;
use operator::{
    conditions,
    crd::{McpApp, McpServer},
};
use serde_json::json;

use crate::setup::{install, operator_log, run, sqlite};

const API_KEY: &str = "sk-ant-never-to-be-seen";
const PASSWORD: &str = "pass-never-to-be-seen";

#[tokio::test]
async fn secrets_stay_in_secrets() {
    with_space(|space| async move {
        install(&space).await?;
        space.secret("model", &[("key", API_KEY)]).await?;
        space.secret("db", &[("PASSWORD", PASSWORD)]).await?;
        let mut server = sqlite("s", 1, 2);
        server["spec"]["envFrom"] = json!([{"secretRef": {"name": "db"}}]);
        space.create::<McpServer>(server).await?;
        let app = json!({"metadata": {"name": "chat"}, "spec": {
            "servers": [{"name": "s"}], "model": {"name": "m", "apiKeySecretRef": {"name": "model", "key": "key"}}, "logLevel": "DEBUG",
        }});
        space.create::<McpApp>(app).await?;
        space
            .until::<McpApp>("chat", "Ready", |app| {
                let conditions = app.status.clone().unwrap_or_default().conditions;
                conditions::find(&conditions, "Ready").is_some_and(|ready| ready.status == "True" && ready.reason == "AllServersOffered")
            })
            .await?;
        // Its pod runs by then, and has a log to look into.
        space
            .until::<McpServer>("s", "Ready", |server| {
                let conditions = server.status.clone().unwrap_or_default().conditions;
                conditions::find(&conditions, "Ready").is_some_and(|ready| ready.status == "True")
            })
            .await?;
        let token = space.api::<Secret>().get("chat-app").await?.data.unwrap()["token"].0.clone();
        let token = String::from_utf8(token)?;

        let mut seen = operator_log(&space).await?;
        for kind in ["mcpservers,mcpapps", "events", "configmaps", "deployments,pods,services"] {
            seen += &run("kubectl", &["get", kind, "--namespace", &space.name, "--output", "yaml"])?;
        }
        for pod in space.api::<Pod>().list(&ListParams::default()).await?.items {
            seen += &space.api::<Pod>().logs(&pod.name_any(), &kube::api::LogParams::default()).await?;
        }
        for secret in [API_KEY, PASSWORD, &token] {
            anyhow::ensure!(!seen.contains(secret), "a secret leaked: …{secret}…");
        }

        // One whose last words are a value: the kubelet writes them into the pod, and we tell them.
        let mut server = sqlite("talks", 1, 2);
        server["spec"]["envFrom"] = json!([{"secretRef": {"name": "db"}}]);
        server["spec"]["container"]["args"] = json!(["serve", "--$(PASSWORD)"]);
        space.create::<McpServer>(server).await?;
        let told = space
            .until::<McpServer>("talks", "its last words", |server| {
                let conditions = server.status.clone().unwrap_or_default().conditions;
                conditions::find(&conditions, "Ready").is_some_and(|ready| ready.message.contains("exit code 2"))
            })
            .await?;
        let ready = conditions::find(&told.status.unwrap().conditions, "Ready").unwrap().message.clone();
        anyhow::ensure!(ready.contains("--***"), "{ready}");
        let mut seen = operator_log(&space).await?;
        for kind in ["mcpservers", "events"] {
            seen += &run("kubectl", &["get", kind, "--namespace", &space.name, "--output", "yaml"])?;
        }
        anyhow::ensure!(!seen.contains(PASSWORD), "a secret leaked by a container's last words");
        Ok(())
    })
    .await;
}

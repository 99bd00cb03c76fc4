//! Servers on standard input and output: what their pods are made of, and the keys of their sessions.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{PersistentVolumeClaim, Secret},
    },
    jiff::Timestamp,
};
use kube::ResourceExt;
use mcpfleet_tests::{
    audit,
    cluster::{is_told, with_space},
};
use operator::crd::McpServer;
use serde_json::json;

use crate::reconcile::reason_of;

fn keys(secret: &Secret) -> Vec<u8> {
    secret.data.as_ref().and_then(|data| data.get("keys")).map(|keys| keys.0.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_package_becomes_a_pod_that_installs_it_and_then_serves_it() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let server: McpServer = space
            .create(json!({"metadata": {"name": "time"}, "spec": {
                "stdio": {"command": "uvx", "args": ["mcp-server-time", "--local-timezone", "UTC"], "cache": {"size": "1Gi"}},
            }}))
            .await?;
        let deployment = space.until::<Deployment>("time-mcp", "the Deployment", |_| true).await?;
        let pod = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let init: Vec<_> = pod.init_containers.iter().flatten().map(|container| container.name.as_str()).collect();
        assert_eq!(init, ["mcp-bridge", "mcp-install"]);
        let mcp = &pod.containers[0];
        assert_eq!(mcp.image.as_deref(), Some("uv:test"), "the operator's image with Python");
        assert_eq!(mcp.command.as_deref(), Some(&["/mcpfleet/bin/bridge".to_owned()][..]));
        let args = mcp.args.clone().unwrap_or_default();
        assert_eq!(args[args.len() - 5..], ["--", "uvx", "mcp-server-time", "--local-timezone", "UTC"]);

        let claim = space.until::<PersistentVolumeClaim>("time-mcp-cache", "the cache", |_| true).await?;
        assert_eq!(claim.owner_references()[0].uid, server.uid().unwrap(), "it goes with the server");
        let told = space.until::<McpServer>("time", "a status", is_told).await?;
        let status = told.status.unwrap();
        assert_eq!(status.url.as_deref(), Some(format!("http://time-mcp.{}.svc:8080/mcp", space.name).as_str()));
        assert_eq!(reason_of(&status.conditions, "PackagePinned"), Some(("False".into(), "Unpinned".into())));
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn the_keys_of_sessions_are_made_once_and_a_persons_own_stay() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "own"}, "spec": {"stdio": {"image": "own:1", "command": "/app/own"}}});
        space.create::<McpServer>(server).await?;
        let made = space.until::<Secret>("own-mcp-sessions", "the keys", |_| true).await?;
        assert_eq!(keys(&made).len(), 44, "32 bytes in base64");
        space.until::<McpServer>("own", "a status", is_told).await?;
        operator.kill().await;

        let killed = Timestamp::now();
        let operator = space.operator().await?;
        operator.until_passes(1).await?;
        let later = audit::writes_since(&space.name, killed)?;
        anyhow::ensure!(later.is_empty(), "written anew: {:?}", audit::summary(&later));

        // Another key in front, as one is exchanged.
        let exchanged = [b"c2Vjb25k\n".as_slice(), &keys(&made)].concat();
        let patch = json!({"stringData": {"keys": String::from_utf8(exchanged.clone())?}});
        space.edit::<Secret>("own-mcp-sessions", patch).await?;
        space.edit::<McpServer>("own", json!({"spec": {"replicas": 3}})).await?;
        let three = |deployment: &Deployment| deployment.spec.as_ref().is_some_and(|spec| spec.replicas == Some(3));
        space.until::<Deployment>("own-mcp", "three replicas", three).await?;
        let kept = space.until::<Secret>("own-mcp-sessions", "the keys", |_| true).await?;
        assert_eq!(keys(&kept), exchanged);
        operator.stop().await
    })
    .await;
}

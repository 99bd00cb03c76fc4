//! From a CR to its children, and back to what was there.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{ResourceExt, api::DeleteParams};
use mcpfleet_tests::cluster::{Space, is_told, with_space};
use operator::{
    conditions,
    crd::{McpApp, McpServer, reason},
};
use serde_json::json;

pub fn reason_of(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    type_: &str,
) -> Option<(String, String)> {
    conditions::find(conditions, type_).map(|found| (found.status.clone(), found.reason.clone()))
}

pub fn ready_is(server: &McpServer, status: &str, reason: &str) -> bool {
    let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    reason_of(conditions, "Ready") == Some((status.into(), reason.into()))
}

pub async fn app(space: &Space, servers: serde_json::Value) -> anyhow::Result<McpApp> {
    space.secret("anthropic", &[("api-key", "sk-ant-test-key")]).await?;
    space
        .create(json!({"metadata": {"name": "chat"}, "spec": {
            "servers": servers,
            "model": {"name": "m", "apiKeySecretRef": {"name": "anthropic", "key": "api-key"}},
        }}))
        .await
}

#[tokio::test]
async fn a_server_becomes_a_deployment_a_service_and_a_volume() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "db"}, "spec": {
            "container": {"image": "a/b:1", "args": ["serve"]},
            "storage": {"size": "1Gi", "mountPath": "/data"},
            "resources": {"requests": {"cpu": "0.5"}, "limits": {"memory": "64Mi"}},
            "env": [{"name": "COLOUR", "value": "green"}],
        }});
        let server: McpServer = space.create(server).await?;

        let deployment = space.until::<Deployment>("db-mcp", "the Deployment", |_| true).await?;
        let spec = deployment.spec.as_ref().unwrap();
        let pod = spec.template.spec.as_ref().unwrap();
        assert_eq!(spec.strategy.as_ref().unwrap().type_.as_deref(), Some("Recreate"), "one writer at a time");
        assert_eq!(pod.readiness_gates.as_ref().unwrap()[0].condition_type, "mcpfleet.dev/healthy");
        assert_eq!(pod.automount_service_account_token, Some(false));
        let container = &pod.containers[0];
        assert_eq!(container.security_context.as_ref().unwrap().read_only_root_filesystem, Some(true));
        let colour = container.env.iter().flatten().find(|variable| variable.name == "COLOUR");
        assert_eq!(colour.unwrap().value.as_deref(), Some("green"));
        assert_eq!(deployment.owner_references()[0].uid, server.uid().unwrap());

        let service = space.until::<Service>("db-mcp", "the Service", |_| true).await?;
        assert_eq!(service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port, 8080);
        let claim = space.until::<PersistentVolumeClaim>("db-mcp", "the claim", |_| true).await?;
        assert!(claim.owner_references().is_empty(), "the data outlives the server");

        let told = space.until::<McpServer>("db", "a status", is_told).await?;
        let status = told.status.unwrap();
        assert_eq!(status.url.as_deref(), Some(format!("http://db-mcp.{}.svc:8080/mcp", space.name).as_str()));
        assert_eq!(status.pods.as_deref(), Some("0/1"));
        assert_eq!(status.observed_generation, Some(1));
        assert_eq!(reason_of(&status.conditions, "Ready"), Some(("False".into(), reason::STARTING.into())));
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn what_others_change_of_ours_is_put_right_and_what_they_add_stays() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        let patch = json!({
            "metadata": {"annotations": {"somebody/else": "was here"}},
            "spec": {"template": {"spec": {"automountServiceAccountToken": true}}},
        });
        space.edit::<Deployment>("s-mcp", patch).await?;
        let mended = space
            .until::<Deployment>("s-mcp", "our field as we want it", |deployment| {
                let pod = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
                pod.automount_service_account_token == Some(false)
            })
            .await?;
        assert_eq!(mended.annotations().get("somebody/else").map(String::as_str), Some("was here"));

        space.api::<Service>().delete("s-mcp", &DeleteParams::default()).await?;
        space.until::<Service>("s-mcp", "the Service anew", |_| true).await?;
        operator.stop().await
    })
    .await;
}

/// A port's number is what Kubernetes tells ports apart by: edited, it is another port, of a name that ours cannot have beside it. In a
/// Service it is kept as a former port of ours is.
#[tokio::test]
async fn a_port_that_somebody_edits_is_put_back() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        let service = space.until::<Service>("s-mcp", "the Service", |_| true).await?;
        let mut ports = json!(service.spec.unwrap().ports);
        ports[0]["port"] = json!(9090);
        space.edit::<Service>("s-mcp", json!({"spec": {"ports": ports}})).await?;
        let numbers = |service: &Service| -> Vec<i32> {
            service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.port).collect()
        };
        space.until::<Service>("s-mcp", "our port", |service| numbers(service).contains(&8080)).await?;

        let deployment = space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        let mut containers = json!(deployment.spec.unwrap().template.spec.unwrap().containers);
        containers[0]["ports"][0]["containerPort"] = json!(9090);
        space.edit::<Deployment>("s-mcp", json!({"spec": {"template": {"spec": {"containers": containers}}}})).await?;
        let numbers = |deployment: &Deployment| -> Vec<i32> {
            let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            let ports = pod.into_iter().flat_map(|pod| pod.containers[0].ports.iter().flatten());
            ports.map(|port| port.container_port).collect()
        };
        space.until::<Deployment>("s-mcp", "our port alone", |deployment| numbers(deployment) == [8080]).await?;

        // Whose the port is, is still known: an edit of it leaves none behind.
        space.edit::<McpServer>("s", json!({"spec": {"container": {"port": 7070}}})).await?;
        space.until::<Deployment>("s-mcp", "the new port alone", |deployment| numbers(deployment) == [7070]).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_edit_reaches_the_children_and_what_is_no_longer_said_goes() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let spec = |env| json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}, "env": env}});
        space.create::<McpServer>(spec(json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]))).await?;
        let names = |deployment: &Deployment| -> Vec<String> {
            let pod = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
            let names = pod.containers[0].env.iter().flatten().map(|variable| variable.name.clone());
            names.filter(|name| !["HOME", "TMPDIR"].contains(&name.as_str())).collect()
        };
        space.until::<Deployment>("s-mcp", "both variables", |deployment| names(deployment) == ["A", "B"]).await?;
        space.create::<McpServer>(spec(json!([{"name": "B", "value": "2"}]))).await?;
        space.until::<Deployment>("s-mcp", "one variable", |deployment| names(deployment) == ["B"]).await?;

        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        let replicas = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas;
        space.until::<Deployment>("s-mcp", "no pods", |deployment| replicas(deployment) == Some(0)).await?;
        space.until::<McpServer>("s", "Disabled", |server| ready_is(server, "False", reason::DISABLED)).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_object_of_the_name_that_is_not_ours_is_left_alone() {
    with_space(|space| async move {
        let theirs = json!({"metadata": {"name": "s-mcp"}, "spec": {"ports": [{"port": 1234}]}});
        space.create::<Service>(theirs).await?;
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        let told =
            space.until::<McpServer>("s", "NameConflict", |server| ready_is(server, "False", reason::NAME_CONFLICT)).await?;
        let ready = conditions::find(&told.status.as_ref().unwrap().conditions, "Ready").unwrap().clone();
        assert!(ready.message.contains("Service s-mcp"), "{}", ready.message);
        let service = space.api::<Service>().get("s-mcp").await?;
        assert_eq!(service.spec.unwrap().ports.unwrap()[0].port, 1234);
        assert!(service.metadata.owner_references.is_none());
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_kept_volume_is_taken_up_by_a_server_of_the_same_name() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let server = || {
            json!({"metadata": {"name": "db"}, "spec": {
                "container": {"image": "a/b:1"}, "storage": {"size": "1Gi", "mountPath": "/data"},
            }})
        };
        space.create::<McpServer>(server()).await?;
        let first = space.until::<PersistentVolumeClaim>("db-mcp", "the claim", |_| true).await?;
        space.until::<McpServer>("db", "a status", is_told).await?;
        space.api::<McpServer>().delete("db", &DeleteParams::default()).await?;
        space.until_gone::<McpServer>("db").await?;
        // There is no garbage collector here: what it would do.
        space.api::<Deployment>().delete("db-mcp", &DeleteParams::default()).await?;
        space.api::<Service>().delete("db-mcp", &DeleteParams::default()).await?;
        space.api::<NetworkPolicy>().delete("db-mcp", &DeleteParams::default()).await?;

        space.create::<McpServer>(server()).await?;
        space.until::<Deployment>("db-mcp", "the Deployment anew", |_| true).await?;
        let told = space.until::<McpServer>("db", "a status", is_told).await?;
        assert!(!ready_is(&told, "False", reason::NAME_CONFLICT));
        let second = space.api::<PersistentVolumeClaim>().get("db-mcp").await?;
        assert_eq!(first.uid(), second.uid());
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_app_becomes_pods_with_files_and_no_secret_leaves_its_place() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let remote = json!({"metadata": {"name": "far"}, "spec": {"remote": {"url": "http://127.0.0.1:9/mcp"}, "description": "far away"}});
        space.create::<McpServer>(remote).await?;
        app(&space, json!([{"name": "far"}, {"name": "missing"}])).await?;

        let deployment = space.until::<Deployment>("chat-app", "the Deployment", |_| true).await?;
        let text = serde_json::to_string(&deployment)?;
        assert!(!text.contains("sk-ant-test-key"));
        assert!(text.contains("/app/secrets/model/api-key"));

        let config_map = space
            .until::<ConfigMap>("chat-app", "the server in mcp.json", |config_map| {
                config_map.data.as_ref().is_some_and(|data| data["mcp.json"].contains("\"far\""))
            })
            .await?;
        let file: serde_json::Value = serde_json::from_str(&config_map.data.unwrap()["mcp.json"])?;
        assert_eq!(file["servers"][0]["url"], "http://127.0.0.1:9/mcp");
        assert_eq!(file["servers"][0]["metadata"]["description"], "far away");

        let secret = space.until::<Secret>("chat-app", "the token", |_| true).await?;
        let token = String::from_utf8(secret.data.unwrap()["token"].0.clone())?;
        assert_eq!(token.len(), 48);
        let told = space.until::<McpApp>("chat", "a status", is_told).await?;
        let status = serde_json::to_string(&told.status)?;
        assert!(status.contains("NotFound") && !status.contains(&token));

        // Another pass keeps the token; a Secret of one's own takes its place.
        space.edit::<McpApp>("chat", json!({"spec": {"replicas": 2}})).await?;
        space.until::<Deployment>("chat-app", "two pods", |found| found.spec.as_ref().unwrap().replicas == Some(2)).await?;
        assert_eq!(space.api::<Secret>().get("chat-app").await?.data.unwrap()["token"].0, token.as_bytes());
        space.secret("mine", &[("t", "my own token")]).await?;
        let access = json!({"spec": {"access": {"tokenSecretRef": {"name": "mine", "key": "t"}}}});
        space.edit::<McpApp>("chat", access).await?;
        space.until_gone::<Secret>("chat-app").await?;
        operator.stop().await
    })
    .await;
}

//! What a spec points at: missing, coming, changing.

use k8s_openapi::api::apps::v1::Deployment;
use mcpfleet_tests::cluster::with_space;
use operator::{
    conditions,
    crd::{McpServer, reason},
    names::ANNOTATION_INPUTS,
};
use serde_json::json;

use crate::reconcile::ready_is;

fn digest(deployment: &Deployment) -> Option<String> {
    deployment.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(ANNOTATION_INPUTS).cloned()
}

#[tokio::test]
async fn a_missing_secret_is_named_and_the_server_recovers_when_it_comes() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let env = json!([{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]);
        let server = json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}, "env": env}});
        space.create::<McpServer>(server).await?;
        let told =
            space.until::<McpServer>("s", "SecretNotFound", |server| ready_is(server, "False", reason::SECRET_NOT_FOUND)).await?;
        let conditions = told.status.unwrap().conditions;
        assert!(conditions::find(&conditions, "Ready").unwrap().message.contains("the Secret db does not exist"));
        assert_eq!(conditions::find(&conditions, "Stalled").unwrap().status, "True");

        space.secret("db", &[("user", "me")]).await?;
        space
            .until::<McpServer>("s", "the missing key", |server| {
                let conditions = &server.status.as_ref().unwrap().conditions;
                conditions::find(conditions, "Ready").unwrap().message.contains("has no key password")
            })
            .await?;
        space.secret("db", &[("password", "hunter2")]).await?;
        let deployment = space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        assert!(!serde_json::to_string(&deployment)?.contains("hunter2"));
        space.until::<McpServer>("s", "Starting", |server| ready_is(server, "False", reason::STARTING)).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_changed_secret_rolls_the_pods_and_an_unrelated_one_does_not() {
    with_space(|space| async move {
        space.secret("db", &[("password", "one")]).await?;
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "s"}, "spec": {
            "container": {"image": "a/b:1"}, "envFrom": [{"secretRef": {"name": "db"}}],
        }});
        space.create::<McpServer>(server).await?;
        let first = digest(&space.until::<Deployment>("s-mcp", "a digest", |deployment| digest(deployment).is_some()).await?);
        space.secret("other", &[("password", "two")]).await?;
        space.secret("db", &[("password", "two")]).await?;
        let rolled = space.until::<Deployment>("s-mcp", "another digest", |deployment| digest(deployment) != first).await?;
        assert_eq!(rolled.metadata.generation, Some(2), "one roll, by the one Secret that it refers to");
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn the_headers_of_a_remote_server_come_from_secrets_and_are_told_to_nobody() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "far"}, "spec": {"remote": {
            "url": "http://127.0.0.1:9/mcp",
            "headersFrom": [{"name": "Authorization", "secretKeyRef": {"name": "token", "key": "header"}}],
        }}});
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("far", "SecretNotFound", |server| ready_is(server, "False", reason::SECRET_NOT_FOUND)).await?;
        space.secret("token", &[("header", "Bearer very-secret")]).await?;
        let told =
            space.until::<McpServer>("far", "a verdict", |server| ready_is(server, "False", reason::CONNECTION_REFUSED)).await?;
        assert!(!serde_json::to_string(&told)?.contains("very-secret"));
        assert!(!operator.get("/fleet").await?.contains("very-secret"));
        assert!(!operator.get("/metrics").await?.contains("very-secret"));
        operator.stop().await
    })
    .await;
}

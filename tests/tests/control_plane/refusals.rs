//! What Kubernetes refuses: it is told in its own words, and a switch works all the same.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, ResourceQuota, Secret},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use mcpfleet_tests::{
    cluster::{Space, with_space},
    mcp::{FakeServer, Mode},
    pods,
};
use operator::{
    conditions,
    crd::{CircuitState, McpApp, McpServer, reason},
    names::ANNOTATION_RECHECK,
};
use serde_json::json;

use crate::{
    children::events,
    circuit::circuit,
    reconcile::{app, ready_is, reason_of},
};

/// A server with a pod that serves, and a Secret that it refers to.
async fn serving(space: &Space) -> anyhow::Result<FakeServer> {
    space.secret("settings", &[("a", "1")]).await?;
    let fake = FakeServer::start().await?;
    let server = json!({"metadata": {"name": "s"}, "spec": {
        "container": {"image": "a/b:1"}, "envFrom": [{"secretRef": {"name": "settings"}}], "health": {"intervalSeconds": 1, "timeoutSeconds": 1},
    }});
    space.create::<McpServer>(server).await?;
    pods::run(space, "s", "s-1", fake.address).await?;
    space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
    Ok(fake)
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.replicas
}

#[tokio::test]
async fn the_switches_work_without_a_secret_that_the_spec_names() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let _fake = serving(&space).await?;
        space.api::<Secret>().delete("settings", &DeleteParams::default()).await?;
        let stalled = |server: &McpServer| {
            reason_of(&server.status.as_ref().unwrap().conditions, "Stalled")
                == Some(("True".into(), reason::SECRET_NOT_FOUND.into()))
        };
        let told = space.until::<McpServer>("s", "a missing Secret", stalled).await?;
        assert!(ready_is(&told, "True", reason::AVAILABLE), "its pod serves: {:?}", told.status);
        let ready = conditions::find(&told.status.as_ref().unwrap().conditions, "Ready").unwrap();
        assert!(ready.message.contains("the Secret settings does not exist"), "{}", ready.message);

        space.edit::<McpServer>("s", json!({"spec": {"circuitBreaker": {"force": "Open"}}})).await?;
        space.until::<McpServer>("s", "Open", |server| circuit(server) == Some(CircuitState::Open)).await?;
        space.until::<Pod>("s-1", "a closed gate", |pod| pods::gate(pod) == Some(false)).await?;
        space.edit::<McpServer>("s", json!({"spec": {"circuitBreaker": {"force": null}}})).await?;
        space.until::<Pod>("s-1", "an open gate", |pod| pods::gate(pod) == Some(true)).await?;

        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space.until::<Deployment>("s-mcp", "no pods", |deployment| replicas(deployment) == Some(0)).await?;
        space.until::<McpServer>("s", "Disabled", |server| ready_is(server, "False", reason::DISABLED)).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_starts_without_a_header_of_the_probes_leaves_what_serves_and_the_switches_work() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let header = [("header", "Bearer sesame-and-more")];
        space.secret("token", &header).await?;
        let fake = FakeServer::start().await?;
        let headers = json!([{"name": "Authorization", "secretKeyRef": {"name": "token", "key": "header"}}]);
        let server = json!({"metadata": {"name": "s"}, "spec": {
            "container": {"image": "a/b:1", "headersFrom": headers}, "health": {"intervalSeconds": 1, "timeoutSeconds": 1},
        }});
        space.create::<McpServer>(server).await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        operator.stop().await?;

        space.api::<Secret>().delete("token", &DeleteParams::default()).await?;
        // Whoever asks it now is told that it fails.
        fake.set(Mode::Status(500));
        let operator = space.operator().await?;
        let of = |server: &McpServer, type_: &str| {
            conditions::find(&server.status.as_ref().unwrap().conditions, type_).cloned().unwrap()
        };
        let told = space.until::<McpServer>("s", "not asked", |server| of(server, "Healthy").status == "Unknown").await?;
        assert!(ready_is(&told, "True", reason::AVAILABLE), "its pod serves: {:?}", told.status);
        assert!(of(&told, "Ready").message.contains("the Secret token does not exist"), "{}", of(&told, "Ready").message);
        assert_eq!(told.status.as_ref().unwrap().pods.as_deref(), Some("1/1"));

        let asked = json!({"metadata": {"annotations": {ANNOTATION_RECHECK: "1"}}});
        space.edit::<McpServer>("s", asked).await?;
        let told = async {
            while events(&space, reason::RECHECKED).await?.iter().all(|note| !note.starts_with("not asked: what headersFrom")) {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), told).await??;

        space.edit::<McpServer>("s", json!({"spec": {"circuitBreaker": {"force": "Open"}}})).await?;
        space.until::<Pod>("s-1", "a closed gate", |pod| pods::gate(pod) == Some(false)).await?;
        space.until::<McpServer>("s", "Forced", |server| ready_is(server, "False", reason::FORCED)).await?;

        fake.set(Mode::Answer);
        space.edit::<McpServer>("s", json!({"spec": {"circuitBreaker": {"force": null}}})).await?;
        space.secret("token", &header).await?;
        space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        space.until::<McpServer>("s", "asked", |server| of(server, "Healthy").status == "True").await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_server_is_switched_off_although_a_child_is_refused() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let _fake = serving(&space).await?;
        space.until::<ConfigMap>("s-mcp-tools", "the accepted tools", |_| true).await?;
        let hard = json!({"count/configmaps": "0"});
        space.create::<ResourceQuota>(json!({"metadata": {"name": "none"}, "spec": {"hard": hard}})).await?;
        // What the quota controller writes.
        let full = json!({"status": {"hard": hard, "used": {"count/configmaps": "0"}}});
        space.api::<ResourceQuota>().patch_status("none", &PatchParams::default(), &Patch::Merge(&full)).await?;
        space.api::<ConfigMap>().delete("s-mcp-tools", &DeleteParams::default()).await?;
        let refused = |server: &McpServer| {
            reason_of(&server.status.as_ref().unwrap().conditions, "Stalled")
                == Some(("True".into(), reason::APPLY_FAILED.into()))
        };
        let told = space.until::<McpServer>("s", "a refused child", refused).await?;
        assert!(ready_is(&told, "True", reason::AVAILABLE), "its pod serves");
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space.until::<Deployment>("s-mcp", "no pods", |deployment| replicas(deployment) == Some(0)).await?;
        operator.stop().await
    })
    .await;
}

/// What the Deployment's controller would say.
async fn refuse(space: &Space, deployment: &str) -> anyhow::Result<()> {
    let status = json!({"status": {"observedGeneration": 1, "conditions": [{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": format!("pods \"{deployment}-5d8-x2x4q\" is forbidden: failed quota: q: must specify limits.cpu"),
    }]}});
    space.api::<Deployment>().patch_status(deployment, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

#[tokio::test]
async fn pods_that_are_refused_are_told_by_server_and_app_in_kubernetes_words() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        app(&space, json!([{"name": "s"}])).await?;
        for deployment in ["s-mcp", "chat-app"] {
            space.until::<Deployment>(deployment, "the Deployment", |_| true).await?;
            refuse(&space, deployment).await?;
        }
        let told = space.until::<McpServer>("s", "FailedCreate", |server| ready_is(server, "False", "FailedCreate")).await?;
        let of = |type_: &str| conditions::find(&told.status.as_ref().unwrap().conditions, type_).unwrap().clone();
        assert_eq!(of("Ready").message, "failed quota: q: must specify limits.cpu");
        assert_eq!((of("Stalled").status.as_str(), of("Reconciling").status.as_str()), ("True", "False"));
        let failed = |app: &McpApp| {
            reason_of(&app.status.as_ref().unwrap().conditions, "Ready") == Some(("False".into(), "FailedCreate".into()))
        };
        space.until::<McpApp>("chat", "FailedCreate", failed).await?;
        let told = async {
            loop {
                let told = events(&space, "FailedCreate").await?;
                if told.iter().filter(|note| note.contains("must specify limits.cpu")).count() >= 2 {
                    return anyhow::Ok(());
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), told).await??;
        operator.stop().await
    })
    .await;
}

/// A pod of a server or an app whose image cannot be pulled.
async fn pulling(space: &Space, component: operator::names::Component, of: &str, container: &str) -> anyhow::Result<()> {
    let name = format!("{}-1-x", component.child_name(of));
    let mut labels = component.labels(of);
    labels.insert(operator::names::LABEL_TEMPLATE_HASH.into(), "1".into());
    let replica_set = format!("{}-1", component.child_name(of));
    space
        .create::<Pod>(json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "uid": "replica-set", "controller": true},
            ]},
            "spec": {"containers": [{"name": container, "image": "no/such:1"}], "terminationGracePeriodSeconds": 0},
        }))
        .await?;
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [{
        "name": container, "image": "no/such:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"no/such:1\""}},
    }]}});
    space.api::<Pod>().patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
    Ok(())
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_by_server_and_app() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "no/such:1"}}})).await?;
        app(&space, json!([{"name": "s"}])).await?;
        space.until::<Deployment>("chat-app", "the app's Deployment", |_| true).await?;
        pulling(&space, operator::names::Component::Server, "s", "mcp").await?;
        pulling(&space, operator::names::Component::App, "chat", "chat-worker").await?;
        let told =
            space.until::<McpServer>("s", "ImagePullBackOff", |server| ready_is(server, "False", "ImagePullBackOff")).await?;
        let of = |type_: &str| conditions::find(&told.status.as_ref().unwrap().conditions, type_).unwrap().clone();
        assert!(of("Ready").message.contains("no/such:1"), "{}", of("Ready").message);
        assert_eq!((of("Reconciling").status.as_str(), of("Stalled").status.as_str()), ("True", "False"), "it may come yet");
        let pulls = |app: &McpApp| {
            reason_of(&app.status.as_ref().unwrap().conditions, "Ready") == Some(("False".into(), "ImagePullBackOff".into()))
        };
        space.until::<McpApp>("chat", "ImagePullBackOff", pulls).await?;
        operator.stop().await
    })
    .await;
}

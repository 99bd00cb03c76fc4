//! Servers that sleep: what the operator does of it. That the activator wakes them, and what a caller meets, is on the node (`asleep.rs`
//! there); here the test says in its stead for whom it was called.

use std::net::IpAddr;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams},
};
use mcpfleet_tests::{
    audit,
    cluster::{Operator, Space, with_space},
    mcp::{FakeServer, PORT},
    pods,
};
use operator::{
    config::RunConfig,
    crd::{McpServer, reason},
    names::Component,
};
use serde_json::{Value, json};

use crate::reconcile::ready_is;

const ACTIVATOR: &str = "activator";
pub const WANTED: &str = "wanted";

/// An operator with an activator, of which there is one pod at this address.
pub async fn with_activator(space: &Space, address: &str) -> anyhow::Result<Operator> {
    space.create::<EndpointSlice>(slice_of_activator(address)).await?;
    space.create::<ConfigMap>(json!({"metadata": {"name": WANTED}})).await?;
    another(space).await
}

async fn another(space: &Space) -> anyhow::Result<Operator> {
    another_by(space, space.client.clone()).await
}

/// Another operator, by this client.
pub async fn another_by(space: &Space, client: Client) -> anyhow::Result<Operator> {
    let config = RunConfig { activator_service: ACTIVATOR.into(), activator_wanted: WANTED.into(), ..space.config()? };
    let operator = space.start(client, config);
    operator.ready().await?;
    Ok(operator)
}

fn slice_of_activator(address: &str) -> Value {
    json!({
        "metadata": {"name": "activator-1", "labels": {"kubernetes.io/service-name": ACTIVATOR}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

/// A server that sleeps since before there was an operator: its status says so.
pub async fn asleep(space: &Space, name: &str) -> anyhow::Result<()> {
    space
        .create::<McpServer>(json!({"metadata": {"name": name}, "spec": {
            "container": {"image": "a/b:1"},
            "autoscaling": {"minReplicas": 0, "maxReplicas": 2},
            "health": {"intervalSeconds": 1, "timeoutSeconds": 1},
        }}))
        .await?;
    let told = json!({"status": {"autoscaling": {"desired": 0, "reason": "for 900 s nobody called"}}});
    space.api::<McpServer>().patch_status(name, &PatchParams::default(), &Patch::Merge(&told)).await?;
    Ok(())
}

/// The server `s`, which sleeps, and an operator with an activator that has said so.
pub async fn with_sleeper(space: &Space) -> anyhow::Result<Operator> {
    asleep(space, "s").await?;
    let operator = with_activator(space, "10.9.0.1").await?;
    space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::ASLEEP)).await?;
    Ok(operator)
}

/// What the activator writes when it is called for a server.
async fn call(space: &Space, name: &str) -> anyhow::Result<()> {
    let entry = format!("{}.{name}", space.name);
    space.edit::<ConfigMap>(WANTED, json!({"data": {entry: Timestamp::now().to_string()}})).await?;
    Ok(())
}

pub fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.replicas
}

/// What Kubernetes' controller of EndpointSlices does when a pod of a server is Ready: its slices have the labels of the Service.
pub async fn service_leads(space: &Space, server: &str, address: IpAddr) -> anyhow::Result<()> {
    let service = Component::Server.child_name(server);
    let mut labels = space.api::<Service>().get(&service).await?.metadata.labels.unwrap_or_default();
    labels.insert("kubernetes.io/service-name".into(), service.clone());
    labels.insert("endpointslice.kubernetes.io/managed-by".into(), "endpointslice-controller.k8s.io".into());
    space
        .create::<EndpointSlice>(json!({
            "metadata": {"name": format!("{service}-abcde"), "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "mcp", "port": PORT}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        }))
        .await?;
    Ok(())
}

fn leads_to(slice: &EndpointSlice, address: &str) -> bool {
    slice.endpoints.iter().any(|endpoint| endpoint.addresses == [address])
}

#[tokio::test]
async fn a_server_that_sleeps_is_ready_has_no_pods_and_its_service_leads_to_the_activator() {
    with_space(|space| async move {
        asleep(&space, "s").await?;
        let operator = with_activator(&space, "10.9.0.1").await?;
        let told = space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::ASLEEP)).await?;
        assert_eq!(told.status.and_then(|status| status.pods).as_deref(), Some("0/0"));
        space.until::<Deployment>("s-mcp", "no pods", |deployment| replicas(deployment) == Some(0)).await?;
        let slice =
            space.until::<EndpointSlice>("s-mcp-asleep-ipv4", "the activator", |slice| leads_to(slice, "10.9.0.1")).await?;
        let labels = slice.metadata.labels.clone().unwrap_or_default();
        assert_eq!(labels["kubernetes.io/service-name"], "s-mcp");
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "mcpfleet.dev");
        let port = &slice.ports.unwrap_or_default()[0];
        assert_eq!((port.name.as_deref(), port.port), (Some("mcp"), Some(8080)), "named as the Service's");
        assert_eq!(slice.metadata.owner_references.unwrap_or_default()[0].name, "s");

        // At rest, and under another operator, nothing is written.
        operator.until_passes(2).await?;
        operator.kill().await;
        let before = Timestamp::now();
        let operator = another(&space).await?;
        operator.until_passes(1).await?;
        assert_eq!(audit::writes_since(&space.name, before)?, []);

        // Another pod of the activator is followed.
        let slices = space.api::<EndpointSlice>();
        slices.patch("activator-1", &PatchParams::default(), &Patch::Merge(slice_of_activator("10.9.0.2"))).await?;
        space.until::<EndpointSlice>("s-mcp-asleep-ipv4", "the new pod", |slice| leads_to(slice, "10.9.0.2")).await?;
        slices.delete("activator-1", &DeleteParams::default()).await?;
        space.until::<McpServer>("s", "nobody to wake it", |server| ready_is(server, "False", reason::NO_ACTIVATOR)).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_call_wakes_it_whatever_becomes_of_the_operator_and_the_activator_stands_in_until_a_pod_serves() {
    with_space(|space| async move {
        let operator = with_sleeper(&space).await?;
        // Nobody looks when it is called.
        operator.kill().await;
        call(&space, "s").await?;
        let operator = another(&space).await?;
        space.until::<Deployment>("s-mcp", "a pod wanted", |deployment| replicas(deployment) == Some(1)).await?;
        space.until::<McpServer>("s", "Waking", |server| ready_is(server, "True", reason::WAKING)).await?;
        // In the middle of the wake, too.
        operator.kill().await;
        let operator = another(&space).await?;
        operator.until_passes(1).await?;
        space.until::<EndpointSlice>("s-mcp-asleep-ipv4", "the activator", |slice| leads_to(slice, "10.9.0.1")).await?;
        assert!(ready_is(&space.api::<McpServer>().get("s").await?, "True", reason::WAKING));

        let fake = FakeServer::start().await?;
        fake.set_calls(Some(0));
        pods::run(&space, "s", "s-1", fake.address).await?;
        // The activator hears of it at once, the Service leads there when Kubernetes says so.
        let awake = space.until::<EndpointSlice>("s-mcp-awake-ipv4-8080", "the pod", |_| true).await?;
        let conditions = awake.endpoints[0].conditions.clone().unwrap_or_default();
        assert_eq!((&awake.endpoints[0].addresses[0], conditions.ready), (&fake.address.to_string(), Some(false)));
        assert_eq!(awake.metadata.labels.unwrap_or_default()["mcpfleet.dev/leads-to"], "pods");
        // An operator that starts anew now goes on from there.
        operator.kill().await;
        let operator = another(&space).await?;
        operator.until_passes(1).await?;
        space.until::<EndpointSlice>("s-mcp-asleep-ipv4", "the activator", |slice| leads_to(slice, "10.9.0.1")).await?;
        service_leads(&space, "s", fake.address).await?;
        for slice in ["s-mcp-asleep-ipv4", "s-mcp-awake-ipv4-8080"] {
            space.until_gone::<EndpointSlice>(slice).await?;
        }
        let told = space.until::<McpServer>("s", "Ready", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        assert_eq!(told.status.and_then(|status| status.autoscaling).map(|told| told.desired), Some(1));
        assert_eq!(space.api::<Pod>().get("s-1").await.map(|pod| pods::gate(&pod))?, Some(true));
        // What it says is kept for the next time.
        let kept = space.until::<ConfigMap>("s-mcp-asleep", "what is said for it", |_| true).await?;
        let said: Value = serde_json::from_str(&kept.data.unwrap_or_default()["answers.json"])?;
        assert_eq!(said["discover"]["supportedVersions"][0], "2026-07-28");
        assert_eq!(said["tools"]["tools"][1]["name"], "write");
        // Also while it is switched off: it may be asleep when it is switched on again, and nobody could ask it.
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space.until::<McpServer>("s", "Disabled", |server| ready_is(server, "False", reason::DISABLED)).await?;
        space.until::<Deployment>("s-mcp", "no pods", |deployment| replicas(deployment) == Some(0)).await?;
        assert!(space.api::<ConfigMap>().get_opt("s-mcp-asleep").await?.is_some());
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn who_was_switched_off_or_is_left_alone_is_never_woken() {
    with_space(|space| async move {
        // The last one shows when the calls were heard.
        for name in ["off", "forced", "left", "woken"] {
            asleep(&space, name).await?;
        }
        let operator = with_activator(&space, "10.9.0.1").await?;
        for name in ["off", "forced", "left", "woken"] {
            space.until::<McpServer>(name, "Ready", |server| ready_is(server, "True", reason::ASLEEP)).await?;
        }
        space.edit::<McpServer>("off", json!({"spec": {"enabled": false}})).await?;
        space.edit::<McpServer>("forced", json!({"spec": {"circuitBreaker": {"force": "Open"}}})).await?;
        space.edit::<McpServer>("left", json!({"metadata": {"annotations": {"mcpfleet.dev/paused": "true"}}})).await?;
        for name in ["off", "forced"] {
            space.until_gone::<EndpointSlice>(&format!("{name}-mcp-asleep-ipv4")).await?;
        }
        let paused = |server: &McpServer| ["True", "False"].iter().any(|status| ready_is(server, status, reason::PAUSED));
        space.until::<McpServer>("left", "Paused", paused).await?;
        for name in ["off", "forced", "left", "woken"] {
            call(&space, name).await?;
        }
        space.until::<Deployment>("woken-mcp", "a pod wanted", |deployment| replicas(deployment) == Some(1)).await?;
        for name in ["off-mcp", "forced-mcp", "left-mcp"] {
            assert_eq!(replicas(&space.api::<Deployment>().get(name).await?), Some(0), "{name}");
        }
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_wake_that_cannot_succeed_is_told_in_kubernetes_words() {
    with_space(|space| async move {
        let operator = with_sleeper(&space).await?;
        call(&space, "s").await?;
        space.until::<Deployment>("s-mcp", "a pod wanted", |deployment| replicas(deployment) == Some(1)).await?;
        let nowhere: IpAddr = "10.50.255.254".parse()?;
        pods::run(&space, "s", "s-1", nowhere).await?;
        let waiting = json!({"status": {
            "phase": "Pending", "podIP": null, "podIPs": null,
            "conditions": [
                {"type": "ContainersReady", "status": "False", "reason": "ContainersNotReady"},
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            ],
            "containerStatuses": [{
                "name": "mcp", "image": "fake:1", "imageID": "", "ready": false, "started": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image a/b:1"}},
            }],
        }});
        space.api::<Pod>().patch_status("s-1", &PatchParams::default(), &Patch::Merge(&waiting)).await?;
        space.until::<McpServer>("s", "the reason", |server| ready_is(server, "False", "ImagePullBackOff")).await?;
        // It is not put back to sleep over it, to be woken again by the next call.
        assert_eq!(replicas(&space.api::<Deployment>().get("s-mcp").await?), Some(1));
        operator.stop().await
    })
    .await;
}

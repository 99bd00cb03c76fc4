//! The bare client: makes for each server what the operator makes, one after the other, and knows nothing of any other server: the very
//! same children, field by field, two statuses, the gate, the accepted tools and the Event that it became Ready. What an object costs
//! Kubernetes at each of the dozen writes of its own controllers is its size: smaller ones would measure something else.
//! What it takes is what Kubernetes takes; what the operator takes longer is the operator's own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use operator::{
    crd::McpServer,
    mcp_server::{build::children, observe::Observed, validate::validate},
    names::POD_GATE,
    network::Surroundings,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    NAMESPACE, WORKERS, server,
    usage::{Parts, Usage},
    world,
};

/// Makes so many, and prints how long that took.
pub async fn measure(client: &Client, servers: u32, only_children: bool) -> Result<()> {
    let (parts, before, began) = (Parts::now()?, Usage::of(std::process::id())?, Instant::now());
    let available =
        tokio::spawn(world::until(Api::<Deployment>::namespaced(client.clone(), NAMESPACE), servers, world::available));
    // The operator's fleet is watched from outside in this way, and the watch has its price: it is paid here as well.
    let ready =
        (!only_children).then(|| tokio::spawn(world::until(Api::namespaced(client.clone(), NAMESPACE), servers, world::ready)));
    let pods = Pods::watch(client);
    let http = reqwest::Client::new();
    stream::iter(0..servers)
        .map(|n| {
            let (pods, http) = (&pods, &http);
            async move {
                let name = format!("server-{n}");
                let api = Api::<McpServer>::namespaced(client.clone(), NAMESPACE);
                let made = if only_children {
                    McpServer { metadata: ObjectMeta { uid: Some(format!("uid-{n}")), ..server(n)?.metadata }, ..server(n)? }
                } else {
                    api.create(&PostParams::default(), &server(n)?).await?
                };
                make_children(client, &made, !only_children).await?;
                if only_children {
                    return Ok(());
                }
                status(client, &name, "False").await?;
                let pod = pods.of(&name).await?;
                let list = ask(http, &pod).await?;
                open_gate(client, &pod.name_any()).await?;
                create::<ConfigMap>(
                    client,
                    json!({"metadata": {"name": format!("{name}-mcp-tools")}, "data": {"tools.json": list.to_string()}}),
                )
                .await?;
                status(client, &name, "True").await?;
                event(client, &name).await
            }
        })
        .buffer_unordered(WORKERS)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let done = match ready {
        Some(ready) => ready.await?? - began,
        None => began.elapsed(),
    };
    let available = available.await?? - began;
    let what = if only_children { "bare client, children only" } else { "bare client, the same work" };
    let of_parts = Parts::now()?.since(&parts, servers);
    // Its own watches and the fleet's are in one process, so that its CPU is a little more than a bare client's.
    let usage = Usage::of(std::process::id())?.since(&before);
    println!("| {what} | {servers} | {:.1} | {:.1} | {of_parts} | {usage} | | | |", available.as_secs_f64(), done.as_secs_f64());
    Ok(())
}

async fn create<K>(client: &Client, object: Value) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object)?;
    Api::<K>::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &object).await?;
    Ok(())
}

/// The children that the operator makes, as its builders make them. `gated`: its pods wait for the prober's word, and they are a server's:
/// what names an owner that is not there is removed by Kubernetes.
async fn make_children(client: &Client, server: &McpServer, gated: bool) -> Result<()> {
    let valid = validate(server, &Observed::default()).map_err(|problems| anyhow::anyhow!("not valid: {problems:?}"))?;
    for mut child in children(&valid, &Surroundings::default()) {
        if !gated {
            child.body["metadata"]["ownerReferences"] = json!([]);
            if child.key.kind == "Deployment" {
                child.body["spec"]["template"]["spec"]["readinessGates"] = json!([]);
            }
        }
        let object: DynamicObject = serde_json::from_value(child.body)?;
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &child.resource);
        api.create(&PostParams { field_manager: Some("bare".into()), ..PostParams::default() }, &object).await?;
    }
    Ok(())
}

async fn event(client: &Client, name: &str) -> Result<()> {
    create::<Event>(
        client,
        json!({"metadata": {"generateName": "server-"}, "eventTime": k8s_openapi::jiff::Timestamp::now().to_string(),
            "reportingController": "mcpfleet.dev/bare", "reportingInstance": "bare", "action": "Probe", "type": "Normal",
            "reason": "Ready", "note": "written by the bare client",
            "regarding": {"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": name, "namespace": NAMESPACE}}),
    )
    .await
}

/// One write of the status, as large as an operator's.
async fn status(client: &Client, name: &str, ready: &str) -> Result<()> {
    let condition = |type_: &str| {
        json!({"type": type_, "status": ready, "reason": "Bare", "message": "written by the bare client",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions: Vec<Value> =
        ["Ready", "Healthy", "CircuitClosed", "ToolsAccepted", "Reconciling", "Stalled"].map(condition).into();
    let patch = json!({"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "status": {"conditions": conditions}});
    let api: Api<McpServer> = Api::namespaced(client.clone(), NAMESPACE);
    api.patch_status(name, &PatchParams::apply("bare").force(), &Patch::Apply(&patch)).await?;
    Ok(())
}

async fn open_gate(client: &Client, pod: &str) -> Result<()> {
    let patch = json!({"status": {"conditions": [{"type": POD_GATE, "status": "True"}]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    api.patch_status(pod, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    Ok(())
}

/// One probe: discover, and the list of tools.
async fn ask(http: &reqwest::Client, pod: &Pod) -> Result<Value> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("a pod without an address")?;
    let mut last = Value::Null;
    for method in ["server/discover", "tools/list"] {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        last = http.post(format!("http://{address}:8080/mcp")).json(&body).send().await?.json().await?;
    }
    Ok(last)
}

/// The pods that have an address, by server, as a watch shows them.
struct Pods {
    addressed: Arc<Mutex<HashMap<String, Pod>>>,
    changes: tokio::sync::watch::Receiver<()>,
}

impl Pods {
    fn watch(client: &Client) -> Self {
        let addressed = Arc::new(Mutex::new(HashMap::new()));
        let (sender, changes) = tokio::sync::watch::channel(());
        let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let seen = Arc::clone(&addressed);
        tokio::spawn(async move {
            let mut pods = Box::pin(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(pod) = pods.next().await {
                let Ok(pod) = pod else { continue };
                let has_address = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
                if let Some(server) = pod.labels().get("app.kubernetes.io/instance").filter(|_| has_address).cloned() {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(server, pod);
                    sender.send_replace(());
                }
            }
        });
        Self { addressed, changes }
    }

    /// The pod of a server, once it has an address.
    async fn of(&self, server: &str) -> Result<Pod> {
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            let found = self.addressed.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned();
            if let Some(pod) = found {
                return Ok(pod);
            }
            changes.changed().await?;
        }
    }
}

//! Pods without a kubelet: on the control plane alone, tests write what a kubelet would.

use std::{net::IpAddr, time::Duration};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use reqwest::header::{HeaderValue, USER_AGENT};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::Space;

/// Creates a running pod of the McpServer `server`, as its Deployment would, at an address.
pub async fn run(space: &Space, server: &str, name: &str, address: IpAddr) -> anyhow::Result<Pod> {
    // Pods without a ReplicaSet of the server's Deployment are nobody's.
    let (hash, owner) = ("1", operator::names::Component::Server.child_name(server));
    let mut labels = operator::names::Component::Server.labels(server);
    labels.insert(operator::names::LABEL_TEMPLATE_HASH.into(), hash.into());
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{owner}-{hash}"), "uid": "replica-set", "controller": true});
    space
        .create::<Pod>(json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": {
                "containers": [{"name": "mcp", "image": "fake:1"}],
                "readinessGates": [{"conditionType": operator::names::POD_GATE}],
                // Nobody schedules here, so nobody may wait for a node either.
                "terminationGracePeriodSeconds": 0,
            },
        }))
        .await?;
    status(space, name, address, 0).await
}

/// Writes the status of a pod whose container runs, after so many restarts.
pub async fn status(space: &Space, name: &str, address: IpAddr, restarts: u32) -> anyhow::Result<Pod> {
    let status = json!({"status": {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": "2026-01-01T00:00:00Z",
        // With a kubelet, Ready would follow the gate. Here it stands, so that the gate alone decides.
        "conditions": [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "mcp", "image": "fake:1", "imageID": "fake", "ready": true, "started": true, "restartCount": restarts,
            "containerID": format!("fake://{name}-{restarts}"),
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }],
    }});
    Ok(space.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Strategic(&status)).await?)
}

/// The pod's readiness gate, as it stands.
pub fn gate(pod: &Pod) -> Option<bool> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let gate = conditions.iter().find(|condition| condition.type_ == operator::names::POD_GATE)?;
    Some(gate.status == "True")
}

/// How long after the gate a kubelet turns Ready.
const ECHO: Duration = Duration::from_millis(1_500);

/// Plays the kubelet for a pod: its Ready condition follows its gate, a moment later. It ends with this.
#[derive(Debug)]
pub struct Kubelet(JoinHandle<anyhow::Result<()>>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubelet {
    /// Starts it. Its writes are counted as the control plane's own.
    pub async fn start(space: &Space, name: &str) -> anyhow::Result<Self> {
        let mut config = Config::infer().await?;
        config.headers.push((USER_AGENT, HeaderValue::from_static("kube-played-kubelet")));
        let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, &space.name);
        Ok(Self(tokio::spawn(echo(pods, name.to_owned()))))
    }
}

async fn echo(pods: Api<Pod>, name: String) -> anyhow::Result<()> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut seen = Box::pin(watcher(pods.clone(), config).default_backoff().applied_objects());
    let mut told = None;
    while let Some(pod) = seen.try_next().await? {
        let gate = gate(&pod) == Some(true);
        if told.replace(gate) == Some(gate) {
            continue;
        }
        // What a kubelet takes to see it: here time itself is what is played.
        tokio::time::sleep(ECHO).await;
        let ready = if gate {
            json!({"type": "Ready", "status": "True", "reason": null})
        } else {
            json!({"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"})
        };
        let status = json!({"status": {"conditions": [ready]}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
    }
    Ok(())
}

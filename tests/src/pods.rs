//! Pods without a kubelet: on the control plane alone, tests write what a kubelet would.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::Space;

/// Creates a running pod of the McpServer `server`, as its Deployment would, at an address.
pub async fn run(space: &Space, server: &str, name: &str, address: IpAddr) -> anyhow::Result<Pod> {
    let labels = operator::names::Component::Server.labels(server);
    space
        .create::<Pod>(json!({
            "metadata": {"name": name, "labels": labels},
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

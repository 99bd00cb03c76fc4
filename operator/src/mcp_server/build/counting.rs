//! The bridge beside a server that does not tell how many calls it has: clients come by it, and it counts them.
//!
//! Only with `spec.autoscaling`, which needs the count; who needs it is `mcp_server::autoscaling::counting`'s.

use k8s_openapi::{
    api::core::v1::{Container as PodContainer, ContainerPort, HTTPGetAction, PodSpec, ResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use crate::mcp_server::{autoscaling::Counting, validate::Container};

/// The name of the container.
const NAME: &str = "mcp-calls";
/// The Service, the prober and clients come in by a port of this name, whichever container has it.
pub const FRONT: &str = "mcp";
/// The server's own, behind the bridge.
const BEHIND: &str = "mcp-server";

/// The name of the server's own port.
pub const fn own_port(container: &Container) -> &'static str {
    if container.counting.is_some() { BEHIND } else { FRONT }
}

/// What the bridge answers when a pod that goes has no call left, or its time is nearly over. By number: it is no port of the server's container.
pub fn drained(counting: &Counting) -> HTTPGetAction {
    let port = IntOrString::Int(counting.port.into());
    HTTPGetAction { path: Some("/mcpfleet/drained".into()), port, ..HTTPGetAction::default() }
}

/// Puts the bridge beside the server: it starts before it, and ends after it.
pub fn put_beside(pod: &mut PodSpec, container: &Container, grace_seconds: i64) {
    let Some(Counting { bridge_image, port, connections }) = &container.counting else { return };
    let Some(server) = pod.containers.first().cloned() else { return };
    let mut args = vec![
        "run".into(),
        "--log-level=INFO".into(),
        format!("--listen=[::]:{port}"),
        format!("--upstream=http://localhost:{}", container.source.port),
        format!("--drain-seconds={grace_seconds}"),
    ];
    args.extend(connections.map(|connections| format!("--max-connections={connections}")));
    let bridge = PodContainer {
        name: NAME.into(),
        image: Some(bridge_image.clone()),
        args: Some(args),
        ports: Some(vec![ContainerPort {
            name: Some(FRONT.into()),
            container_port: i32::from(*port),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        // Measured: 11 MB at rest, 23 MB with 50 calls of 100 kB at once. Without a limit: it holds requests of up to a MiB whole, and its
        // end would be that of every call.
        resources: Some(ResourceRequirements {
            requests: Some([("cpu", "10m"), ("memory", "32Mi")].map(|(name, much)| (name.into(), Quantity(much.into()))).into()),
            ..ResourceRequirements::default()
        }),
        restart_policy: Some("Always".into()),
        image_pull_policy: server.image_pull_policy.clone(),
        security_context: server.security_context.clone(),
        termination_message_policy: server.termination_message_policy.clone(),
        readiness_probe: server.readiness_probe.clone().map(|mut probe| {
            if let Some(socket) = &mut probe.tcp_socket {
                socket.port = IntOrString::String(FRONT.into());
            }
            probe
        }),
        ..PodContainer::default()
    };
    // Before all others: whoever starts later may be what the server waits for.
    pod.init_containers.get_or_insert_default().insert(0, bridge);
}

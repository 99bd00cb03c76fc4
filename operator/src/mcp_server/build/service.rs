//! The Service: clients find the pods that are in service behind one name.
//!
//! After an edit of the port it leads to the pods by the former number, too: a client that keeps the URL which it has read goes on,
//! before, during and after the rollout.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::metadata;
use crate::{
    mcp_server::validate::{Container, ValidatedServer},
    names::{self, Component},
    workload,
};

pub(super) fn build(server: &ValidatedServer, container: &Container) -> Service {
    let mut metadata = metadata(server);
    if server.sleeps {
        metadata.labels.get_or_insert_default().insert(names::LABEL_SLEEPS.into(), "true".into());
    }
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(Component::Server.selector(&server.name)),
            ports: Some(ports(i32::from(container.source.port), &container.served)),
            session_affinity: container.sticky.then(|| workload::CLIENT_IP.into()),
            ..workload::service()
        }),
        status: None,
    }
}

/// The names of its ports: an EndpointSlice of ours has them, too.
pub(super) fn port_names(container: &Container) -> impl Iterator<Item = Option<String>> {
    ports(i32::from(container.source.port), &container.served).into_iter().map(|port| port.name)
}

/// The name of the container's port, and of the Service's first one.
const PORT: &str = "mcp";

/// `port` first, then the former one, out of what the Service has now. An entry keeps its name as long as its number is served:
/// kube-proxy knows entries by their names, and a name that moves has no endpoints for a moment.
fn ports(port: i32, served: &[ServicePort]) -> Vec<ServicePort> {
    let (current, others): (Vec<_>, Vec<_>) = served.iter().filter(|entry| is_ours(entry)).partition(|entry| entry.port == port);
    let former = others.first().map(|former| (former.name.clone(), former.port));
    let new = || {
        let taken = former.as_ref().is_some_and(|(name, _)| name.as_deref() == Some(PORT));
        Some(if taken { format!("{PORT}-{port}") } else { PORT.into() })
    };
    let name = current.first().map_or_else(new, |current| current.name.clone());
    let entry = |(name, port)| ServicePort {
        name,
        app_protocol: Some("http".into()),
        protocol: Some("TCP".into()),
        port,
        target_port: Some(target()),
        ..ServicePort::default()
    };
    [(name, port)].into_iter().chain(former).map(entry).collect()
}

/// What somebody else added stays theirs.
fn is_ours(entry: &ServicePort) -> bool {
    entry.target_port == Some(target()) && entry.name.as_deref().is_some_and(|name| name.starts_with(PORT))
}

fn target() -> IntOrString {
    IntOrString::String(PORT.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_port_is_served_on_and_no_name_moves_while_its_number_is_served() {
        let mut served = Vec::new();
        let mut told = |port| {
            served = ports(port, &served);
            served.iter().map(|entry| format!("{}:{}", entry.name.as_deref().unwrap_or_default(), entry.port)).collect::<Vec<_>>()
        };
        assert_eq!(told(8080), ["mcp:8080"]);
        assert_eq!(told(8080), ["mcp:8080"], "at rest nothing changes");
        assert_eq!(told(3000), ["mcp-3000:3000", "mcp:8080"]);
        assert_eq!(told(3000), ["mcp-3000:3000", "mcp:8080"]);
        assert_eq!(told(8080), ["mcp:8080", "mcp-3000:3000"], "and back again");
        assert_eq!(told(9000), ["mcp-9000:9000", "mcp:8080"], "one former port is kept");
        assert_eq!(told(9001), ["mcp:9001", "mcp-9000:9000"]);
    }

    #[test]
    fn a_port_that_somebody_added_is_not_taken_over() {
        let foreign = ServicePort { name: Some("metrics".into()), port: 9090, ..ServicePort::default() };
        assert_eq!(ports(8080, &[foreign]).len(), 1);
    }
}

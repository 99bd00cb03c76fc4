//! The Service: clients find the pods that are in service behind one name.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::metadata;
use crate::{
    mcp_server::validate::{Container, ValidatedServer},
    names::Component,
};

/// Kubernetes' word for it: who comes from one address stays with one pod.
pub const CLIENT_IP: &str = "ClientIP";

pub(super) fn build(server: &ValidatedServer, container: &Container) -> Service {
    Service {
        metadata: metadata(server),
        spec: Some(ServiceSpec {
            selector: Some(Component::Server.selector(&server.name)),
            ports: Some(vec![ServicePort {
                name: Some("mcp".into()),
                app_protocol: Some("http".into()),
                protocol: Some("TCP".into()),
                port: i32::from(container.source.port),
                target_port: Some(IntOrString::String("mcp".into())),
                ..ServicePort::default()
            }]),
            session_affinity: container.sticky.then(|| CLIENT_IP.into()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

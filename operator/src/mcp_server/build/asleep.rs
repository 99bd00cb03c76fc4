//! While a server sleeps: the EndpointSlices that lead its Service to the activator, and the ConfigMap with what is said for it.

use k8s_openapi::{
    api::{
        core::v1::ConfigMap,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::metadata;
use crate::{
    mcp_server::{
        asleep::Phase,
        validate::{Container, ValidatedServer},
    },
    names::{self, Component},
};

/// The key in the ConfigMap. The activator reads it (`bridge/src/activate/kept.rs`).
pub const FILE: &str = "answers.json";

/// One for each family of addresses that the activator has, beside those that Kubernetes keeps. None while the server's pods answer.
pub(super) fn slices(server: &ValidatedServer, container: &Container) -> Vec<EndpointSlice> {
    if server.phase == Phase::Awake {
        return Vec::new();
    }
    let activator = &server.activator;
    let ports = super::service::port_names(container).map(|name| EndpointPort {
        name,
        port: Some(activator.port),
        protocol: Some("TCP".into()),
        app_protocol: Some("http".into()),
    });
    let ports: Vec<_> = ports.collect();
    let families = activator.addresses.iter().filter(|(_, addresses)| !addresses.is_empty());
    families
        .map(|(family, addresses)| EndpointSlice {
            metadata: of_slice(server, family),
            address_type: family.clone(),
            endpoints: addresses.iter().map(|address| endpoint(address)).collect(),
            ports: Some(ports.clone()),
        })
        .collect()
}

fn of_slice(server: &ValidatedServer, family: &str) -> ObjectMeta {
    let mut metadata = metadata(server);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(names::LABEL_SERVICE_NAME.into(), server.child_name());
    labels.insert(names::LABEL_SLICE_MANAGED_BY.into(), names::GROUP.into());
    ObjectMeta { name: Some(format!("{}-{}", Component::asleep_name(&server.name), family.to_ascii_lowercase())), ..metadata }
}

fn endpoint(address: &str) -> Endpoint {
    let conditions = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
    Endpoint { addresses: vec![address.to_owned()], conditions: Some(conditions), ..Endpoint::default() }
}

/// None of a server that never sleeps, or that has not been asked yet.
pub(super) fn kept(server: &ValidatedServer) -> Option<ConfigMap> {
    Some(ConfigMap {
        metadata: ObjectMeta { name: Some(Component::asleep_name(&server.name)), ..metadata(server) },
        data: Some([(FILE.to_owned(), server.kept.clone()?)].into()),
        ..ConfigMap::default()
    })
}

//! While a server sleeps: the EndpointSlices that lead its Service to the activator, those that tell the activator of the first pods that
//! answer, and the ConfigMap with what is said for it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::{
    api::{
        core::v1::ConfigMap,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::metadata;
use crate::{
    asleep::Phase,
    mcp_server::validate::{Container, ValidatedServer},
    names::{self, Component},
    probe::Kept,
};

/// All of them, beside those that Kubernetes keeps. None while the server's pods answer.
pub(super) fn slices(server: &ValidatedServer, container: &Container) -> Vec<EndpointSlice> {
    match server.phase {
        Phase::Awake => Vec::new(),
        Phase::Asleep => to_activator(server, container),
        Phase::Waking => [to_activator(server, container), to_pods(server, container)].concat(),
    }
}

/// One for each family of addresses that the activator has.
fn to_activator(server: &ValidatedServer, container: &Container) -> Vec<EndpointSlice> {
    let activator = &server.activator;
    let conditions = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
    let families = activator.addresses.iter().filter(|(_, addresses)| !addresses.is_empty());
    families
        .map(|(family, addresses)| EndpointSlice {
            metadata: of_slice(server, format!("{}-{}", Component::asleep_name(&server.name), family.to_ascii_lowercase())),
            address_type: family.clone(),
            endpoints: addresses.iter().map(|address| endpoint(address.clone(), &conditions)).collect(),
            ports: Some(ports(container, activator.port)),
        })
        .collect()
}

/// Where the pods of a server that wakes have shown that they answer, which Kubernetes counts as Ready a second or two later. They are for
/// the activator, which holds calls for them: `ready` is false, so that the Service does not lead there before Kubernetes says so.
fn to_pods(server: &ValidatedServer, container: &Container) -> Vec<EndpointSlice> {
    let mut places: BTreeMap<(&str, u16), Vec<IpAddr>> = BTreeMap::new();
    for place in &server.answering {
        let family = if matches!(place, SocketAddr::V4(_)) { "IPv4" } else { "IPv6" };
        places.entry((family, place.port())).or_default().push(place.ip());
    }
    let conditions = EndpointConditions { ready: Some(false), serving: Some(true), ..EndpointConditions::default() };
    let slice = |((family, port), addresses): ((&str, u16), Vec<IpAddr>)| {
        let name = format!("{}-{}-{port}", Component::awake_name(&server.name), family.to_ascii_lowercase());
        let mut metadata = of_slice(server, name);
        metadata.labels.get_or_insert_default().insert(names::LABEL_LEADS_TO.into(), names::LEADS_TO_PODS.into());
        EndpointSlice {
            metadata,
            address_type: family.into(),
            endpoints: addresses.iter().map(|address| endpoint(address.to_string(), &conditions)).collect(),
            ports: Some(ports(container, port.into())),
        }
    };
    places.into_iter().map(slice).collect()
}

/// The Service's ports, at another number.
fn ports(container: &Container, number: i32) -> Vec<EndpointPort> {
    let port = |name| EndpointPort { name, port: Some(number), protocol: Some("TCP".into()), app_protocol: Some("http".into()) };
    super::service::port_names(container).map(port).collect()
}

fn of_slice(server: &ValidatedServer, name: String) -> ObjectMeta {
    let mut metadata = metadata(server);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(names::LABEL_SERVICE_NAME.into(), server.child_name());
    labels.insert(names::LABEL_SLICE_MANAGED_BY.into(), names::GROUP.into());
    ObjectMeta { name: Some(name), ..metadata }
}

fn endpoint(address: String, conditions: &EndpointConditions) -> Endpoint {
    Endpoint { addresses: vec![address], conditions: Some(conditions.clone()), ..Endpoint::default() }
}

/// None of a server that never sleeps, or that has not been asked yet.
pub(super) fn kept(server: &ValidatedServer) -> Option<ConfigMap> {
    Some(ConfigMap {
        metadata: ObjectMeta { name: Some(Component::asleep_name(&server.name)), ..metadata(server) },
        data: Some([(Kept::FILE.to_owned(), server.kept.clone()?)].into()),
        ..ConfigMap::default()
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::{
        asleep::Endpoints,
        fixtures,
        mcp_server::{
            observe::Observed,
            validate::{Source, validate},
        },
    };

    /// Names of the slices, whom they lead to, at which port, and whether a Service follows them. `leads`: the Service leads to a pod.
    fn slices_of(leads: bool, answering: &[&str]) -> Vec<(String, Vec<String>, i32, bool)> {
        let server = fixtures::server(|server| {
            server.spec.autoscaling = serde_json::from_value(serde_json::json!({"minReplicas": 0, "maxReplicas": 2})).ok();
        });
        let activator = Endpoints { addresses: [("IPv4".into(), ["10.9.0.1".into()].into())].into(), port: 8081 };
        let observed = Observed {
            stood_in: true,
            leads,
            activator: Arc::new(activator),
            answering: answering.iter().map(|place| place.parse().expect("an address")).collect::<BTreeSet<_>>(),
            ..Observed::default()
        };
        let valid = validate(&server, &observed).expect("valid");
        let Source::Container(container) = &valid.source else { unreachable!("it is one") };
        let told = slices(&valid, container).into_iter().map(|slice| {
            let conditions = slice.endpoints[0].conditions.clone().unwrap_or_default();
            let addresses = slice.endpoints.into_iter().flat_map(|endpoint| endpoint.addresses).collect();
            let port = slice.ports.and_then(|ports| ports[0].port).unwrap_or_default();
            (slice.metadata.name.unwrap_or_default(), addresses, port, conditions.ready == Some(true))
        });
        told.collect()
    }

    #[test]
    fn the_activator_hears_of_pods_that_answer_before_the_service_leads_to_them() {
        let activator = || ("db-mcp-asleep-ipv4".to_owned(), vec!["10.9.0.1".to_owned()], 8081, true);
        assert_eq!(slices_of(false, &[]), [activator()]);
        let pods = |name: &str, address: &str| (name.to_owned(), vec![address.to_owned()], 9380, false);
        assert_eq!(
            slices_of(false, &["10.0.0.7:9380", "[fd00::7]:9380"]),
            [activator(), pods("db-mcp-awake-ipv4-9380", "10.0.0.7"), pods("db-mcp-awake-ipv6-9380", "fd00::7")]
        );
        assert_eq!(slices_of(true, &["10.0.0.7:9380"]), [], "the Service leads there itself");
    }
}

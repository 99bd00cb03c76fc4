//! Where a server's pods answer: out of the EndpointSlices that Kubernetes keeps for its Service, and of those by which the operator tells
//! of pods that have shown that they answer. The latter come a second or two earlier.
//!
//! Not through the Service, which leads here for a moment longer than the first pod needs to come into service: a call that came back
//! would go round in a circle.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;

use crate::again::Again;
use crate::sleepers::Key;

/// Kubernetes' label for the Service that a slice is of, and for who keeps it.
const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Who keeps the slices that lead here, and those that lead to pods which the operator found to answer (`operator/src/names.rs`).
const OPERATOR: &str = "mcpfleet.dev";
const LEADS_TO: &str = "mcpfleet.dev/leads-to";

/// What the operator calls the ports of its Services: `mcp`, or `mcp-` and a number.
const PORT: &str = "mcp";

/// Tells the addresses of the pods that answer for as long as somebody listens.
pub async fn tell(client: Client, key: Key, told: watch::Sender<BTreeSet<SocketAddr>>) {
    let api: Api<EndpointSlice> = Api::namespaced(client, &key.namespace);
    let of_service = watcher::Config::default().labels(&format!("{SERVICE}={}", key.service()));
    let (slices, writer) = reflector::store();
    let mut events = watcher(api, of_service).backoff(Again::default()).reflect(writer).boxed();
    while let Some(event) = tokio::select! {
        event = events.next() => event,
        () = told.closed() => None,
    } {
        match event {
            // The list is not whole yet.
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                let now: BTreeSet<_> = slices.state().iter().flat_map(|slice| answering(slice)).collect();
                told.send_if_modified(|before| {
                    let differs = *before != now;
                    *before = now;
                    differs
                });
            }
            Err(error) => tracing::warn!(server = %key, %error, "the server's pods are not known"),
        }
    }
}

/// The addresses in a slice that take new calls.
fn answering(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let of_operator = slice.labels().get(MANAGED_BY).is_some_and(|by| by == OPERATOR);
    if of_operator && slice.labels().get(LEADS_TO).is_none_or(|to| to != "pods") {
        return Vec::new();
    }
    let mut ports = slice.ports.iter().flatten().filter(|port| port.name.as_deref().is_some_and(|name| name.starts_with(PORT)));
    let Some(port) = ports.find_map(|port| u16::try_from(port.port?).ok()) else { return Vec::new() };
    let takes_calls = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        // Not ready, so that the Service does not lead there yet: who answers is serving.
        conditions.and_then(|conditions| if of_operator { conditions.serving } else { conditions.ready }).unwrap_or(true)
    };
    let addresses =
        slice.endpoints.iter().filter(takes_calls).filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok());
    addresses.map(|address| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_pods_that_take_new_calls_are_called_and_at_the_servers_own_port() {
        let slice = |ports: serde_json::Value| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": {"name": "a"}, "addressType": "IPv4", "ports": ports,
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                    {"addresses": ["10.0.0.3"]},
                ],
            }))
            .unwrap()
        };
        let addresses = answering(&slice(json!([{"name": "metrics", "port": 9090}, {"name": "mcp-3000", "port": 8081}])));
        assert_eq!(addresses, ["10.0.0.1:8081".parse().unwrap(), "10.0.0.3:8081".parse().unwrap()]);
        assert_eq!(answering(&slice(json!([{"name": "metrics", "port": 9090}]))), []);
    }

    #[test]
    fn of_the_operators_slices_those_count_that_lead_to_pods_which_answer() {
        let slice = |leads_to: &str| -> EndpointSlice {
            let labels = json!({MANAGED_BY: OPERATOR, LEADS_TO: leads_to});
            serde_json::from_value(json!({
                "metadata": {"name": "a", "labels": labels}, "addressType": "IPv4", "ports": [{"name": "mcp", "port": 8080}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true}}],
            }))
            .unwrap()
        };
        assert_eq!(answering(&slice("pods")), ["10.0.0.1:8080".parse().unwrap()]);
        assert_eq!(answering(&slice("here")), []);
        let mut to_activator = slice("");
        to_activator.metadata.labels.as_mut().unwrap().remove(LEADS_TO);
        assert_eq!(answering(&to_activator), []);
    }
}

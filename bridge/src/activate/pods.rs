//! Where a server's pods answer: out of the EndpointSlices that Kubernetes keeps for its Service.
//!
//! Not through the Service, which leads here for a moment longer than the first pod needs to come into service: a call that came back
//! would go round in a circle.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;

use super::fleet::Key;

/// Kubernetes' label for the Service that a slice is of, and for who keeps it.
const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Who keeps the slices that lead here.
const US: &str = "mcpfleet.dev";

/// What the operator calls the ports of its Services: `mcp`, or `mcp-` and a number.
const PORT: &str = "mcp";

/// Tells the addresses of the pods in service for as long as somebody listens.
pub async fn tell(client: Client, key: Key, told: watch::Sender<Vec<SocketAddr>>) {
    let api: Api<EndpointSlice> = Api::namespaced(client, &key.namespace);
    let others = watcher::Config::default().labels(&format!("{SERVICE}={},{MANAGED_BY}!={US}", key.service()));
    let mut events = watcher(api, others).default_backoff().boxed();
    let mut slices: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    let mut listing = BTreeMap::new();
    while let Some(event) = tokio::select! {
        event = events.next() => event,
        () = told.closed() => None,
    } {
        match event {
            Ok(watcher::Event::Init) => listing = BTreeMap::new(),
            Ok(watcher::Event::InitApply(slice)) => {
                listing.insert(slice.name_any(), ready(&slice));
                continue;
            }
            Ok(watcher::Event::InitDone) => slices = std::mem::take(&mut listing),
            Ok(watcher::Event::Apply(slice)) => {
                slices.insert(slice.name_any(), ready(&slice));
            }
            Ok(watcher::Event::Delete(slice)) => {
                slices.remove(&slice.name_any());
            }
            Err(error) => {
                tracing::warn!(server = %key, %error, "the server's pods are not known");
                continue;
            }
        }
        let now: Vec<_> = slices.values().flatten().copied().collect();
        told.send_if_modified(|before| {
            let differs = *before != now;
            *before = now;
            differs
        });
    }
}

/// The addresses in a slice that take new calls.
fn ready(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let mut ports = slice.ports.iter().flatten().filter(|port| port.name.as_deref().is_some_and(|name| name.starts_with(PORT)));
    let Some(port) = ports.find_map(|port| u16::try_from(port.port?).ok()) else { return Vec::new() };
    let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
    let ready =
        slice.endpoints.iter().filter(|endpoint| is_ready(endpoint.conditions.as_ref().and_then(|conditions| conditions.ready)));
    let addresses = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok());
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
        let addresses = ready(&slice(json!([{"name": "metrics", "port": 9090}, {"name": "mcp-3000", "port": 8081}])));
        assert_eq!(addresses, ["10.0.0.1:8081".parse().unwrap(), "10.0.0.3:8081".parse().unwrap()]);
        assert_eq!(ready(&slice(json!([{"name": "metrics", "port": 9090}]))), []);
    }
}

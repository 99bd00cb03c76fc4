//! Where the activator's pods are: a watch of the EndpointSlices of its Service. I/O.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, reflector, watcher, watcher::Event},
};

use super::{Asleep, Endpoints};
use crate::{again::Again, names};

/// How often whoever is on its way is looked at when nothing else happens.
const TICK: Duration = Duration::from_secs(15);

/// Follows the Service `service` of the operator's namespace. Never ends.
pub async fn watch(asleep: &Asleep, client: Client, namespace: &str, service: &str) {
    let api: Api<EndpointSlice> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().labels(&format!("{}={service}", names::LABEL_SERVICE_NAME));
    let (slices, writer) = reflector::store();
    let mut events = watcher(api, config).backoff(Again::default()).reflect(writer).boxed();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let event = tokio::select! {
            _ = ticks.tick() => {
                asleep.look_at_waking();
                continue;
            }
            event = events.next() => event,
        };
        match event {
            // The list is not whole yet.
            Some(Ok(Event::Init | Event::InitApply(_))) => {}
            Some(Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_))) => asleep.move_to(together(&slices.state())),
            Some(Err(error)) => tracing::warn!(%error, "the activator's pods are not known"),
            None => return,
        }
    }
}

/// What one slice says of pods that take requests.
fn endpoints(slice: &EndpointSlice) -> Endpoints {
    let Some(port) = slice.ports.iter().flatten().find_map(|port| port.port) else { return Endpoints::default() };
    let ready = slice.endpoints.iter().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let addresses = ready.filter_map(|endpoint| endpoint.addresses.first().cloned()).collect();
    Endpoints { addresses: [(slice.address_type.clone(), addresses)].into(), port }
}

fn together(slices: &[Arc<EndpointSlice>]) -> Endpoints {
    let mut all = Endpoints::default();
    for slice in slices.iter().map(|slice| endpoints(slice)).filter(Endpoints::is_up) {
        all.port = slice.port;
        for (family, addresses) in slice.addresses {
            all.addresses.entry(family).or_default().extend(addresses);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_take_requests_are_known_by_family_and_those_that_go_are_not() {
        let slice = |family: &str, endpoints: serde_json::Value| -> EndpointSlice {
            let ports = json!([{"name": "http", "port": 8080}]);
            let slice = json!({"metadata": {"name": family}, "addressType": family, "ports": ports, "endpoints": endpoints});
            serde_json::from_value(slice).expect("a slice")
        };
        let four = slice(
            "IPv4",
            json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]),
        );
        let six = slice("IPv6", json!([{"addresses": ["fd00::1"]}]));
        let all = together(&[Arc::new(four), Arc::new(six)]);
        let addresses = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect();
        let expected = [("IPv4".into(), addresses(&["10.0.0.1"])), ("IPv6".into(), addresses(&["fd00::1"]))];
        assert_eq!(all, Endpoints { addresses: expected.into(), port: 8080 });
        assert_eq!(together(&[Arc::new(slice("IPv4", json!([])))]), Endpoints::default());
    }
}

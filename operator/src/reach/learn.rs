//! Learns the cluster's addresses from its nodes and Services. I/O.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use futures::TryStreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node as KubeNode, Service as KubeService};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::oneshot;

use super::{Node, Reach, Service};
use crate::again::Again;

/// What an API server says to one that may not see nodes, or where there are none: one that shows a part of a cluster knows no such kind.
const NO_NODES: [u16; 3] = [403, 404, 405];
/// How long an operator without the right to see nodes waits before it asks again whether it has it now.
const WITHOUT_RIGHTS: Duration = Duration::from_mins(10);
/// How long one waits to which the API server could not say.
const UNTOLD: Duration = Duration::from_secs(2);

/// Learns the nodes. Never ends. `known` hears when all are known, or cannot be.
pub async fn nodes(client: Client, reach: Arc<Reach>, known: oneshot::Sender<()>) {
    let api: Api<KubeNode> = Api::all(client);
    let mut known = Some(known);
    let mut told = false;
    let mut tries = 0_u32;
    while let Err(kube::Error::Api(status)) = api.list_metadata(&ListParams::default().limit(1)).await {
        if !NO_NODES.contains(&status.code) {
            tries = tries.saturating_add(1);
            if is_said(tries) {
                tracing::warn!(tries, error = status.message, "nodes could not be listed; trying again");
            }
            tokio::time::sleep(UNTOLD).await;
            continue;
        }
        if !told {
            tracing::info!(
                reason = status.message,
                "nodes cannot be listed, so their addresses and their pods' are unknown: name them by --remote-deny"
            );
            told = true;
        }
        tell(&mut known);
        tokio::time::sleep(WITHOUT_RIGHTS).await;
    }
    let mut before = HashSet::new();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).backoff(Again::default()));
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => before.clear(),
            Ok(Some(Event::InitApply(node) | Event::Apply(node))) => {
                reach.set_node(&node.name_any(), of_node(&node));
                before.insert(node.name_any());
            }
            Ok(Some(Event::Delete(node))) => reach.remove_node(&node.name_any()),
            Ok(Some(Event::InitDone)) => {
                reach.keep_nodes(&before);
                tell(&mut known);
            }
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "the watch of nodes broke"),
        }
    }
}

/// Learns the Services of a namespace, or of all. Never ends.
pub async fn services(client: Client, namespace: Option<String>, reach: Arc<Reach>, known: oneshot::Sender<()>) {
    let api: Api<KubeService> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut known = Some(known);
    let mut listed = HashSet::new();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).backoff(Again::default()));
    loop {
        let key = |service: &KubeService| (service.namespace().unwrap_or_default(), service.name_any());
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed.clear(),
            Ok(Some(Event::InitApply(service) | Event::Apply(service))) => {
                let (namespace, name) = key(&service);
                reach.set_service(&namespace, &name, of_service(&service));
                listed.insert((namespace, name));
            }
            Ok(Some(Event::Delete(service))) => {
                let (namespace, name) = key(&service);
                reach.remove_service(&namespace, &name);
            }
            Ok(Some(Event::InitDone)) => {
                reach.keep_services(namespace.as_deref(), &listed);
                tell(&mut known);
            }
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "the watch of Services broke"),
        }
    }
}

/// Whether it is said that so many tries were in vain: an API server may be away for long.
const fn is_said(tries: u32) -> bool {
    tries.is_power_of_two()
}

fn tell(known: &mut Option<oneshot::Sender<()>>) {
    if let Some(known) = known.take() {
        // Whoever waited may have been asked to stop.
        let _ = known.send(());
    }
}

fn of_node(node: &KubeNode) -> Node {
    let spec = node.spec.as_ref();
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let networks = spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    Node {
        addresses: addresses.filter_map(|address| address.address.parse().ok()).collect(),
        pods: networks.filter_map(|network| network.parse::<IpNet>().ok()).collect(),
    }
}

fn of_service(service: &KubeService) -> Service {
    let Some(spec) = &service.spec else { return Service::default() };
    let addresses: Vec<&String> = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).collect();
    Service {
        headless: spec.type_.as_deref() != Some("ExternalName") && addresses.iter().any(|address| *address == "None"),
        addresses: addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_cannot_say_what_nodes_there_are_is_asked_again_soon_and_one_that_refuses_later() {
        let api = crate::fixtures::api::Api::default();
        let asked_within = async |seconds, code| {
            let refusals = std::iter::repeat_n(("GET", "/nodes", code), 9);
            api.state().refusals = refusals.collect();
            let (told, mut known) = oneshot::channel();
            let learning = nodes(api.client(), Reach::new(Vec::new(), Vec::new()), told);
            let over = tokio::time::timeout(Duration::from_secs(seconds), learning).await;
            assert!(over.is_err(), "it never ends");
            (api.sent().len(), known.try_recv().is_ok())
        };
        assert_eq!(asked_within(5, 503).await, (3, false));
        for code in NO_NODES {
            assert_eq!(asked_within(500, code).await, (1, true), "{code}");
        }
    }

    #[test]
    fn what_is_tried_in_vain_is_said_at_once_and_more_and_more_seldom() {
        assert_eq!((0..40).filter(|tries| is_said(*tries)).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32]);
    }

    #[test]
    fn a_service_is_headless_only_when_it_says_so_itself() {
        let of = |spec| of_service(&serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).expect("a Service"));
        assert!(of(json!({"clusterIP": "None", "clusterIPs": ["None"]})).headless);
        assert!(!of(json!({"type": "ExternalName", "externalName": "db.theirs.svc"})).headless);
        let dual = of(json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"]}));
        assert_eq!((dual.addresses.len(), dual.headless), (2, false));
    }

    #[test]
    fn a_node_tells_its_addresses_and_its_pods() {
        let node = of_node(
            &serde_json::from_value(json!({
                "metadata": {"name": "n"},
                "spec": {"podCIDR": "10.88.0.0/24", "podCIDRs": ["10.88.0.0/24", "fd88::/64"]},
                "status": {"addresses": [{"type": "InternalIP", "address": "10.89.0.1"}, {"type": "Hostname", "address": "n"}]},
            }))
            .expect("a node"),
        );
        assert_eq!(node.addresses.len(), 1);
        assert!(node.pods.contains(&"fd88::/64".parse().expect("a network")));
    }
}

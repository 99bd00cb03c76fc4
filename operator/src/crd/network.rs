//! The part of the API that says who reaches the pods, and where they get to. Shared by both kinds; what becomes of it is in
//! `crate::network`.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use kube::{KubeSchema, core::Rule};
use serde::{Deserialize, Serialize};

/// Who reaches the pods, and where they get to: their NetworkPolicy.
///
/// A server's pods are reached by the operator, by the apps of its namespace, by each other and by `ingressFrom`. An app's are reached
/// by everybody, at its port, for its requests need a token; with `ingressFrom` by these and the operator alone. What goes out goes
/// anywhere, until `egressTo`, `egressPorts` or `dns` is set: then only there, and to the cluster's DNS (and, from an app, to the
/// servers of its namespace).
///
/// A cluster without a network that enforces NetworkPolicies ignores all of it. docs/network.md says more.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = peers("ingressFrom"),
    validation = peers("egressTo"),
    validation = Rule::new("!has(self.dns) || has(self.dns.ipBlock) != (has(self.dns.podSelector) || has(self.dns.namespaceSelector))")
        .message("network.dns must be one NetworkPolicyPeer: ipBlock alone; or podSelector, namespaceSelector or both"),
    validation = Rule::new("!has(self.egressPorts) || self.egressPorts.all(p, type(p.port) == string ? p.port.size() > 0 && !has(p.endPort) : p.port >= 1 && p.port <= 65535 && (!has(p.endPort) || p.endPort >= p.port && p.endPort <= 65535))")
        .message("each of network.egressPorts must have a port from 1 to 65535, or the name of one; endPort goes with a number, and is not below it")
)]
pub struct Network {
    /// Who else gets in, as a NetworkPolicy has it: pods of this namespace, pods of other namespaces, or addresses (default: nobody
    /// else at a server, and everybody at an app).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub ingress_from: Option<Vec<NetworkPolicyPeer>>,
    /// Where the pods get to, as a NetworkPolicy has it (default: anywhere). An empty list: nowhere but to DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub egress_to: Option<Vec<NetworkPolicyPeer>>,
    /// At which ports, there or anywhere (default: any). Ports are those of the pods, where a Service is in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub egress_ports: Option<Vec<NetworkPolicyPort>>,
    /// Where the cluster's DNS is, reached at ports 53 and 5353 (default: port 53 anywhere). It shuts the pods in like the others:
    /// alone, it lets them out to DNS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<NetworkPolicyPeer>,
}

impl Network {
    /// Whether it says anything of what goes out.
    pub fn holds_in(&self) -> bool {
        self.egress_to.is_some() || self.egress_ports.is_some() || self.dns.is_some()
    }
}

/// What the API server would say of the NetworkPolicy, said of the McpServer or McpApp.
fn peers(field: &str) -> Rule {
    Rule::new(format!(
        "!has(self.{field}) || self.{field}.all(p, has(p.ipBlock) != (has(p.podSelector) || has(p.namespaceSelector)))"
    ))
    .message(
        format!("each of network.{field} must be a NetworkPolicyPeer: ipBlock alone; or podSelector, namespaceSelector or both")
            .as_str(),
    )
}

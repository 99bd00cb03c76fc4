//! The NetworkPolicy of a CR: who reaches its pods, and where they get to. The same builder for both kinds. Pure.
//!
//! The prober always gets in: a policy that kept it out would take every server out of use.

use std::{collections::BTreeMap, str::FromStr};

use clap::ValueEnum;
use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::{
    crd::network::Network,
    names::{self, Component},
};

/// Where DNS is asked, and where OpenShift's pods of it listen.
const DNS: i32 = 53;
const DNS_OF_PODS: i32 = 5353;

/// What holds for servers and apps whose spec has no `network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Unsaid {
    /// They have a NetworkPolicy nevertheless: only the operator, apps and the server's own pods reach a server.
    #[default]
    Restricted,
    /// They have none.
    Open,
}

/// Labels, as KEY=VALUE separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let label = |part: &str| {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is no label: write KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        parts.map(label).collect::<Result<_, _>>().map(Self)
    }
}

/// Where the CRs are: who is around them in the cluster, and what holds where they say nothing.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// What holds where the spec has no `network`.
    pub unsaid: Unsaid,
    /// The operator's namespace.
    pub namespace: String,
    /// The labels of the operator's pods. None: all pods of its namespace.
    pub operator: Labels,
}

impl Surroundings {
    /// The operator's pods, and those of the activator beside it, which carries the first calls to servers that sleep.
    fn ours(&self) -> [NetworkPolicyPeer; 2] {
        let activator = [(names::LABEL_COMPONENT, names::COMPONENT_ACTIVATOR), (names::LABEL_PART_OF, names::MANAGED_BY)];
        let activator = activator.map(|(label, value)| (label.to_owned(), value.to_owned()));
        [self.operator.0.clone(), activator.into()].map(|labels| self.beside_us(labels))
    }

    fn beside_us(&self, labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
        let namespace = [(names::LABEL_NAMESPACE_NAME.to_owned(), self.namespace.clone())].into();
        NetworkPolicyPeer { namespace_selector: Some(labelled(namespace)), pod_selector: Some(labelled(labels)), ip_block: None }
    }
}

/// The policy of the pods of a CR, by these names and in these surroundings. None: nobody asked for one.
pub fn policy(
    metadata: ObjectMeta,
    (component, name): (Component, &str),
    network: Option<&Network>,
    around: &Surroundings,
) -> Option<NetworkPolicy> {
    if network.is_none() && around.unsaid == Unsaid::Open {
        return None;
    }
    let own = Component::selector(component, name);
    let nothing = Network::default();
    let network = network.unwrap_or(&nothing);
    let egress = network.holds_in().then(|| egress(component, &own, network, around));
    let types = ["Ingress"].into_iter().chain(egress.is_some().then_some("Egress"));
    Some(NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            policy_types: Some(types.map(Into::into).collect()),
            ingress: Some(vec![ingress(component, &own, network, around)]),
            egress,
            pod_selector: Some(labelled(own)),
        }),
    })
}

fn ingress(
    component: Component,
    own: &BTreeMap<String, String>,
    network: &Network,
    around: &Surroundings,
) -> NetworkPolicyIngressRule {
    let given = network.ingress_from.iter().flatten().cloned();
    let from: Vec<_> = match component {
        // The replicas of a stdio server hand sessions on to each other.
        Component::Server => around.ours().into_iter().chain([beside(apps()), beside(own.clone())]).chain(given).collect(),
        Component::App if network.ingress_from.is_some() => around.ours().into_iter().take(1).chain(given).collect(),
        Component::App => {
            return NetworkPolicyIngressRule { from: None, ports: Some(vec![tcp(IntOrString::String("http".into()))]) };
        }
    };
    NetworkPolicyIngressRule { from: Some(from), ports: None }
}

fn egress(
    component: Component,
    own: &BTreeMap<String, String>,
    network: &Network,
    around: &Surroundings,
) -> Vec<NetworkPolicyEgressRule> {
    let dns: &[i32] = if network.dns.is_some() { &[DNS, DNS_OF_PODS] } else { &[DNS] };
    let dns = dns.iter().flat_map(|port| ["UDP", "TCP"].map(|protocol| on(protocol, IntOrString::Int(*port))));
    let mut rules = vec![NetworkPolicyEgressRule { to: network.dns.clone().map(|peer| vec![peer]), ports: Some(dns.collect()) }];
    // A rule without peers, or without ports, would let all of them through.
    let some = network.egress_to.as_ref().is_none_or(|to| !to.is_empty())
        && network.egress_ports.as_ref().is_none_or(|ports| !ports.is_empty());
    if some && (network.egress_to.is_some() || network.egress_ports.is_some()) {
        let ports = network.egress_ports.as_ref().map(|ports| ports.iter().map(with_protocol).collect());
        rules.push(NetworkPolicyEgressRule { to: network.egress_to.clone(), ports });
    }
    let [_, activator] = around.ours();
    let to = match component {
        Component::Server => vec![beside(own.clone())],
        // A Service whose server sleeps leads to the activator.
        Component::App => vec![beside(servers()), activator],
    };
    rules.push(NetworkPolicyEgressRule { to: Some(to), ports: None });
    rules
}

/// Kubernetes writes it in, and what stands there that we did not say would look like somebody else's.
fn with_protocol(port: &NetworkPolicyPort) -> NetworkPolicyPort {
    let protocol = port.protocol.clone().or_else(|| Some("TCP".into()));
    NetworkPolicyPort { protocol, ..port.clone() }
}

fn tcp(port: IntOrString) -> NetworkPolicyPort {
    on("TCP", port)
}

fn on(protocol: &str, port: IntOrString) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(port), protocol: Some(protocol.into()), end_port: None }
}

fn apps() -> BTreeMap<String, String> {
    Component::App.all()
}

fn servers() -> BTreeMap<String, String> {
    Component::Server.all()
}

/// Pods of the namespace.
fn beside(labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(labelled(labels)), ..NetworkPolicyPeer::default() }
}

fn labelled(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn around(unsaid: Unsaid) -> Surroundings {
        Surroundings { unsaid, namespace: "system".into(), operator: "app=operator".parse().expect("labels") }
    }

    fn of(component: Component, network: Value) -> Value {
        let network: Option<Network> = serde_json::from_value(network).expect("a network");
        let policy = policy(ObjectMeta::default(), (component, "x"), network.as_ref(), &around(Unsaid::Restricted));
        json!(policy.expect("a policy").spec)
    }

    #[test]
    fn a_server_is_reached_by_us_the_apps_and_its_own() {
        insta::assert_yaml_snapshot!("server", of(Component::Server, Value::Null));
    }

    #[test]
    fn an_app_is_reached_by_everybody_at_its_port_or_by_whom_it_names() {
        let anybody = of(Component::App, Value::Null);
        assert_eq!(anybody["ingress"], json!([{"ports": [{"port": "http", "protocol": "TCP"}]}]));
        let named = of(Component::App, json!({"ingressFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}));
        let from = named["ingress"][0]["from"].as_array().expect("peers");
        assert_eq!(from.len(), 2);
        assert_eq!(from[0]["podSelector"]["matchLabels"], json!({"app": "operator"}), "it asks whether the model answers");
        assert_eq!(from[1], json!({"ipBlock": {"cidr": "10.0.0.0/8"}}));
    }

    #[test]
    fn what_goes_out_goes_anywhere_until_something_is_said() {
        let open = of(Component::Server, json!({"ingressFrom": []}));
        assert_eq!((&open["policyTypes"], open.get("egress")), (&json!(["Ingress"]), None));
        let shut = of(
            Component::App,
            json!({
                "egressTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "egressPorts": [{"port": 443}, {"port": 8000, "endPort": 8100}],
            }),
        );
        insta::assert_yaml_snapshot!("app_shut_in", shut);
    }

    #[test]
    fn an_empty_list_is_nowhere_and_dns_alone_is_dns_alone() {
        let own = json!([{"podSelector": {"matchLabels": Component::Server.selector("x")}}]);
        for nowhere in
            [json!({"egressTo": []}), json!({"egressPorts": []}), json!({"egressTo": [], "egressPorts": [{"port": 443}]})]
        {
            let rules = of(Component::Server, nowhere.clone())["egress"].clone();
            let dns = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
            assert_eq!(rules, json!([{"ports": dns}, {"to": own}]), "{nowhere}");
        }
        let dns = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}});
        let rules = of(Component::Server, json!({"dns": dns}))["egress"].clone();
        assert_eq!((rules[0]["to"].clone(), rules[1]["to"].clone(), rules.get(2)), (json!([dns]), own, None));
        assert_eq!(rules[0]["ports"][2], json!({"port": 5353, "protocol": "UDP"}));
    }

    #[test]
    fn where_it_is_open_only_those_that_ask_have_one() {
        let made = |network: Option<&Network>| {
            policy(ObjectMeta::default(), (Component::Server, "x"), network, &around(Unsaid::Open)).is_some()
        };
        assert!(!made(None) && made(Some(&Network::default())));
    }

    #[test]
    fn labels_are_pairs() {
        let labels: Labels = " a/b=c, d=e,".parse().expect("labels");
        assert_eq!(labels.0, BTreeMap::from([("a/b".to_owned(), "c".to_owned()), ("d".to_owned(), "e".to_owned())]));
        assert!("a".parse::<Labels>().is_err());
    }
}

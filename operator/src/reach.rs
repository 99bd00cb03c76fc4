//! Where `spec.remote.url` may lead: anywhere but into this machine, to a cloud's metadata, and into the cluster; there only to a Service
//! of the server's own namespace.
//!
//! The operator is let through by NetworkPolicies that keep tenants apart, and must not be their way around them. What is judged is the
//! address that is dialled, after the name was resolved. What the cluster's addresses are is learnt (`reach::learn`), as far as the
//! operator's rights go; what cannot be learnt is given by flag.

pub mod learn;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, PoisonError, RwLock},
};

use ipnet::IpNet;

/// Addresses that lead to whoever dials, or to what serves secrets to whoever asks from there.
const NEVER: [&str; 14] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    // Metadata of clouds that is not link-local.
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// What is refused, and what is let through.
#[derive(Debug, Default)]
pub struct Reach {
    never: Vec<IpNet>,
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
    cluster: RwLock<Cluster>,
}

/// What is known of the cluster's addresses.
#[derive(Debug, Default)]
struct Cluster {
    /// By node.
    nodes: HashMap<String, Node>,
    /// By namespace and name.
    services: HashMap<(String, String), Service>,
}

/// The addresses of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its own.
    pub addresses: HashSet<IpAddr>,
    /// Those of its pods.
    pub pods: Vec<IpNet>,
}

/// A Service, as far as addresses go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The ClusterIPs. Not its externalIPs: they are whatever its maker writes.
    pub addresses: HashSet<IpAddr>,
    /// Its name stands for the addresses of its pods.
    pub headless: bool,
}

/// Who dials, and by which name.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The McpServer's namespace.
    pub namespace: &'a str,
    /// The host of its URL.
    pub host: &'a str,
}

impl Reach {
    /// With these exceptions, which go before everything, and these further refusals.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Arc<Self> {
        let never = NEVER.iter().filter_map(|network| network.parse().ok()).collect();
        Arc::new(Self { never, deny, allow, cluster: RwLock::default() })
    }

    /// Why the address must not be dialled: a sentence for the server's status. None: it may.
    pub fn refusal(&self, caller: Caller<'_>, address: IpAddr) -> Option<String> {
        let address = canonical(address);
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        if within(&self.allow) {
            return None;
        }
        let what = self.what(caller, address, within)?;
        let Caller { namespace, .. } = caller;
        Some(format!(
            "spec.remote.url leads to {address}, {what}: a remote server is outside of the cluster or behind a Service of the namespace {namespace}; whoever runs the operator can allow the address by --remote-allow"
        ))
    }

    fn what(&self, caller: Caller<'_>, address: IpAddr, within: impl Fn(&[IpNet]) -> bool) -> Option<&'static str> {
        if within(&self.never) {
            return Some("which is an address of the operator's own machine or of its cloud's metadata");
        }
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        if cluster.is_own_service(caller, address) {
            return None;
        }
        if within(&self.deny) {
            return Some("which is refused by --remote-deny");
        }
        if cluster.services.values().any(|service| service.addresses.contains(&address)) {
            return Some("which is a Service of another namespace of this cluster");
        }
        let nodes = || cluster.nodes.values();
        if nodes().any(|node| node.addresses.contains(&address)) {
            return Some("which is a node of this cluster");
        }
        nodes().any(|node| within(&node.pods)).then_some("which is a pod of this cluster")
    }

    /// Whether the cluster's DNS gives this name a meaning. Nobody else is asked what it leads to, nor sent there: a proxy in the cluster
    /// gets to where the operator must not.
    pub fn is_inside(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let labels: Vec<_> = host.split('.').collect();
        let by_form = matches!(*labels, [_] | [.., "svc"] | [.., "cluster", "local"]);
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        let mut services = cluster.services.keys();
        by_form || services.any(|(namespace, name)| names_service(host, name, namespace))
    }

    /// A node is there, or is another now.
    pub fn set_node(&self, name: &str, node: Node) {
        self.write(|cluster| cluster.nodes.insert(name.to_owned(), node));
    }

    /// A node is gone.
    pub fn remove_node(&self, name: &str) {
        self.write(|cluster| cluster.nodes.remove(name));
    }

    /// A Service is there, or is another now.
    pub fn set_service(&self, namespace: &str, name: &str, service: Service) {
        self.write(|cluster| cluster.services.insert((namespace.to_owned(), name.to_owned()), service));
    }

    /// A Service is gone.
    pub fn remove_service(&self, namespace: &str, name: &str) {
        self.write(|cluster| cluster.services.remove(&(namespace.to_owned(), name.to_owned())));
    }

    /// Nodes that went away while nobody watched are gone.
    pub fn keep_nodes(&self, names: &HashSet<String>) {
        self.write(|cluster| cluster.nodes.retain(|name, _| names.contains(name)));
    }

    /// Services of the namespace (none: of all) that went away while nobody watched are gone.
    pub fn keep_services(&self, namespace: Option<&str>, keys: &HashSet<(String, String)>) {
        self.write(|cluster| {
            cluster.services.retain(|key, _| keys.contains(key) || namespace.is_some_and(|namespace| key.0 != namespace));
        });
    }

    fn write<T>(&self, change: impl FnOnce(&mut Cluster) -> T) {
        change(&mut self.cluster.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Cluster {
    /// By the address of the Service; or by the name of one that has none of its own and stands for its pods. A name that stands for
    /// another name (ExternalName) is neither.
    fn is_own_service(&self, Caller { namespace, host }: Caller<'_>, address: IpAddr) -> bool {
        let mut own = self.services.iter().filter(|((of, _), _)| of == namespace);
        own.any(|((_, name), service)| {
            service.addresses.contains(&address) || service.headless && names_service(host, name, namespace)
        })
    }
}

/// Whether the host is this Service's name, as the cluster's DNS knows it. The operator's own search domains are another namespace's,
/// so the short name is none.
fn names_service(host: &str, name: &str, namespace: &str) -> bool {
    let labels: Vec<_> = host.trim_end_matches('.').split('.').collect();
    // A pod of a headless Service may be named, too: pod.service.namespace.svc.
    [0, 1].into_iter().any(|skip| match labels.get(skip..) {
        Some([first, second]) if skip == 0 => *first == name && *second == namespace,
        Some([first, second, "svc", ..]) => *first == name && *second == namespace,
        _ => false,
    })
}

/// An IPv6 address that stands for one of IPv4 is judged as that one.
fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // NAT64: 64:ff9b::a.b.c.d
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        canonical => canonical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn cluster(allow: &[&str], deny: &[&str]) -> Arc<Reach> {
        let reach = Reach::new(networks(allow), networks(deny));
        reach.set_node("n1", Node { addresses: [ip("10.89.0.1")].into(), pods: networks(&["10.88.0.0/24", "fd88::/64"]) });
        let service = |address: &str, headless| Service { addresses: [ip(address)].into(), headless };
        reach.set_service("ours", "db", service("10.96.0.10", false));
        reach.set_service("theirs", "db", service("10.96.0.11", false));
        reach.set_service("ours", "pods", Service { addresses: HashSet::new(), headless: true });
        reach.set_service("ours", "elsewhere", Service::default());
        reach
    }

    fn refused(reach: &Reach, host: &str, address: &str) -> Option<String> {
        reach.refusal(Caller { namespace: "ours", host }, ip(address))
    }

    #[test]
    fn a_remote_server_is_neither_this_machine_nor_metadata_nor_in_the_cluster() {
        let reach = cluster(&[], &["172.20.0.0/16"]);
        for (address, what) in [
            ("127.0.0.1", "own machine"),
            ("0.0.0.0", "own machine"),
            ("::1", "own machine"),
            ("::ffff:127.0.0.1", "own machine"),
            ("64:ff9b::7f00:1", "own machine"),
            ("169.254.169.254", "metadata"),
            ("fd00:ec2::254", "metadata"),
            ("fe80::1", "own machine"),
            ("10.88.0.7", "a pod"),
            ("fd88::7", "a pod"),
            ("10.89.0.1", "a node"),
            ("10.96.0.11", "another namespace"),
            ("172.20.1.1", "--remote-deny"),
        ] {
            let sentence = refused(&reach, "example.com", address).unwrap_or_default();
            assert!(sentence.contains(what) && sentence.contains("--remote-allow"), "{address}: {sentence}");
        }
        for address in ["93.184.215.14", "10.1.2.3", "192.168.1.1", "2606:2800::1"] {
            assert_eq!(refused(&reach, "example.com", address), None, "{address}");
        }
    }

    #[test]
    fn a_service_of_the_own_namespace_is_reached_by_name_and_by_address() {
        let reach = cluster(&[], &["10.96.0.0/12", "10.88.0.0/16"]);
        for host in ["db.ours.svc", "10.96.0.10"] {
            assert_eq!(refused(&reach, host, "10.96.0.10"), None, "{host}");
        }
        for host in ["pods.ours", "pods.ours.svc", "pods.ours.svc.cluster.local.", "pod-0.pods.ours.svc.cluster.local"] {
            assert_eq!(refused(&reach, host, "10.88.0.7"), None, "{host}");
        }
    }

    #[test]
    fn a_name_of_the_own_namespace_that_leads_elsewhere_is_refused() {
        let reach = cluster(&[], &[]);
        for (host, address) in [
            // ExternalName: it resolves to what another Service's name resolves to.
            ("elsewhere.ours.svc", "10.96.0.11"),
            ("db.ours.svc", "10.96.0.11"),
            ("elsewhere.ours.svc", "10.88.0.7"),
            ("pods.theirs.svc", "10.88.0.7"),
            ("pods.ours.example.com", "10.88.0.7"),
            ("elsewhere.ours.svc", "169.254.169.254"),
            ("pods.ours.svc", "127.0.0.1"),
        ] {
            assert!(refused(&reach, host, address).is_some(), "{host} {address}");
        }
    }

    #[test]
    fn a_name_that_the_clusters_own_dns_knows_is_inside() {
        let reach = cluster(&[], &[]);
        for host in ["localhost", "db", "x.y.svc", "x.y.svc.", "x.y.svc.cluster.local", "db.theirs", "db.theirs.svc.corp.example"]
        {
            assert!(reach.is_inside(host), "{host}");
        }
        for host in ["example.com", "db.others", "svc.example.com", "x.y.svc.example.com", "theirs.db"] {
            assert!(!reach.is_inside(host), "{host}");
        }
    }

    #[test]
    fn an_exception_goes_before_everything() {
        let reach = cluster(&["127.0.0.0/8", "10.96.0.11/32"], &["127.0.0.0/8"]);
        assert_eq!(refused(&reach, "localhost", "127.0.0.1"), None);
        assert_eq!(refused(&reach, "db.theirs.svc", "10.96.0.11"), None);
        assert!(refused(&reach, "db.theirs.svc", "::1").is_some());
    }

    #[test]
    fn what_is_gone_is_no_longer_refused() {
        let reach = cluster(&[], &[]);
        reach.remove_node("n1");
        reach.remove_service("theirs", "db");
        assert_eq!(refused(&reach, "example.com", "10.88.0.7"), None);
        assert_eq!(refused(&reach, "example.com", "10.96.0.11"), None);
    }

    #[test]
    fn every_network_that_is_never_reached_is_one() {
        assert_eq!(Reach::new(Vec::new(), Vec::new()).never.len(), NEVER.len());
    }
}

//! The command line and the environment, read once. Nothing else in the operator reads the environment.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{ArgAction, Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::{
    admin::Authenticate,
    inherit::Keys,
    mcp_server::stdio::Sources,
    network::{Labels, Surroundings, Unsaid},
    probe::Proxy,
};

/// The chat worker of this operator's version.
const CHAT_WORKER_IMAGE: &str = concat!("ghcr.io/mcpfleet/chat-worker:", env!("CARGO_PKG_VERSION"));

/// The bridge of this operator's version.
const BRIDGE_IMAGE: &str = concat!("ghcr.io/mcpfleet/bridge:", env!("CARGO_PKG_VERSION"));
/// Node.js with npm.
const NPX_IMAGE: &str = "docker.io/library/node:24-bookworm-slim";
/// Python with uv.
const UVX_IMAGE: &str = "ghcr.io/astral-sh/uv:python3.13-bookworm-slim";

/// Runs fleets of MCP servers on Kubernetes, and tells the truth about them.
#[derive(Debug, Parser)]
#[command(name = "operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controllers and the prober.
    Run(Box<RunConfig>),
    /// Take the readiness gates off the servers' pods, so that they come into service without an operator.
    Release(ReleaseConfig),
    /// Print the CustomResourceDefinitions as YAML.
    Crd,
    /// Print McpServer manifests of the servers in other programs' files, without their credentials: .mcp.json,
    /// claude_desktop_config.json, .vscode/mcp.json and the like.
    Import(ImportConfig),
}

/// How to run.
#[derive(Args, Clone, Debug)]
pub struct RunConfig {
    /// The namespaces to look after, separated by commas. Empty: all of them, which takes a ClusterRole.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Where /healthz, /readyz, /metrics and /fleet are served.
    #[arg(long, env = "LISTEN", default_value = "[::]:8080")]
    pub listen: SocketAddr,

    /// What is read only by who may: whose token the API server knows, and who may get the nonResourceURL of that path.
    #[arg(long, env = "AUTHENTICATE", value_enum, default_value_t = Authenticate::Fleet)]
    pub authenticate: Authenticate,

    /// Networks that spec.remote.url may lead to although they are the operator's own, the cluster's or refused, as CIDRs separated
    /// by commas.
    #[arg(long, env = "REMOTE_ALLOW", default_value = "", hide_default_value = true)]
    pub remote_allow: Networks,

    /// Further networks that spec.remote.url may not lead to, as CIDRs separated by commas. The nodes', their pods' and the
    /// Services' addresses are learnt where the operator has the rights.
    #[arg(long, env = "REMOTE_DENY", default_value = "", hide_default_value = true)]
    pub remote_deny: Networks,

    /// Let health.toolCall be used for remote servers.
    #[arg(long, env = "REMOTE_TOOL_CALLS", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub remote_tool_calls: bool,

    /// Keys of labels of an McpServer or McpApp that its children get, too, separated by commas; cost.example.com/* is all of a
    /// prefix.
    #[arg(long, env = "INHERIT_LABELS", default_value = "", hide_default_value = true)]
    pub inherit_labels: Keys,

    /// The same of annotations.
    #[arg(long, env = "INHERIT_ANNOTATIONS", default_value = "", hide_default_value = true)]
    pub inherit_annotations: Keys,

    /// The chat worker's image, for apps that name none.
    #[arg(long, env = "CHAT_WORKER_IMAGE", default_value = CHAT_WORKER_IMAGE)]
    pub chat_worker_image: String,

    /// What holds for servers and apps whose spec has no `network`: Restricted (they have a NetworkPolicy nevertheless) or Open (they
    /// have none).
    #[arg(long, env = "SERVERS_NETWORK", value_enum, default_value_t = Unsaid::Restricted)]
    pub servers_network: Unsaid,

    /// The labels of the operator's pods, as KEY=VALUE separated by commas: every NetworkPolicy lets them in. None: all pods of its
    /// namespace.
    #[arg(long, env = "POD_LABELS", default_value = "", hide_default_value = true)]
    pub pod_labels: Labels,

    /// The bridge's image, which is copied into the pods of servers on standard input and output.
    #[arg(long, env = "BRIDGE_IMAGE", default_value = BRIDGE_IMAGE)]
    pub bridge_image: String,

    /// The image with Node.js and npm, for spec.stdio with npx and without an image.
    #[arg(long, env = "NPX_IMAGE", default_value = NPX_IMAGE)]
    pub npx_image: String,

    /// The image with Python and uv (or pip), for spec.stdio with uvx and without an image.
    #[arg(long, env = "UVX_IMAGE", default_value = UVX_IMAGE)]
    pub uvx_image: String,

    /// Where npm fetches the packages of servers whose variables name no registry. Default: npm's own.
    #[arg(long, env = "NPM_REGISTRY", value_name = "URL")]
    pub npm_registry: Option<String>,

    /// Where uv or pip fetches the packages of servers whose variables name no index. Default: PyPI.
    #[arg(long, env = "PYPI_INDEX", value_name = "URL")]
    pub pypi_index: Option<String>,

    /// The namespace of the Lease by which one of several replicas leads.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// The Lease's name. Operators that look after different namespaces from one namespace want different names.
    #[arg(long, env = "LEASE_NAME", default_value = "mcpfleet-operator")]
    pub lease_name: String,

    /// The Secret, in the namespace of the Lease, with the key of the digests that pod templates carry of their Secrets and
    /// ConfigMaps. It is made where it is missing.
    #[arg(long, env = "DIGEST_KEY_SECRET", default_value = "mcpfleet-operator-digest")]
    pub digest_key_secret: String,

    /// The Service of the activator, in the namespace of the Lease. Empty: there is none, and no server sleeps.
    #[arg(long, env = "ACTIVATOR_SERVICE", default_value = "")]
    pub activator_service: String,

    /// The ConfigMap, in the namespace of the Lease, in which the activator says for which servers it is called.
    #[arg(long, env = "ACTIVATOR_WANTED", default_value = "mcpfleet-wanted")]
    pub activator_wanted: String,

    /// The name by which this process holds the Lease.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,

    /// Run without a Lease. Only when nothing else runs on the cluster, for development.
    #[arg(long, env = "NO_LEADER_ELECTION")]
    pub no_leader_election: bool,

    /// Probes in flight at once, over all servers.
    #[arg(long, env = "MAX_PROBES_IN_FLIGHT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_probes_in_flight: u32,

    /// Objects reconciled at once, of each kind, and in each namespace where namespaces are listed.
    #[arg(long, env = "CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub concurrency: u16,

    /// Seconds in which spec.autoscaling needed no more pods before one goes.
    #[arg(long, env = "SCALE_DOWN_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub scale_down_seconds: u32,

    /// Metrics of every server: its pods by state, and how long its probes take. Some twenty series a server.
    #[arg(long, env = "SERVER_METRICS", default_value_t = true, action = ArgAction::Set)]
    pub server_metrics: bool,

    /// The proxy by which remote servers with TLS are reached.
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true)]
    pub https_proxy: Option<String>,

    /// Hosts that are reached without it: names, addresses and ranges, separated by commas.
    #[arg(long, env = "NO_PROXY", default_value = "")]
    pub no_proxy: String,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: log_lines::Flags,
}

/// What to import.
#[derive(Args, Clone, Debug)]
pub struct ImportConfig {
    /// The files. - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// What to release.
#[derive(Args, Clone, Debug)]
pub struct ReleaseConfig {
    /// The namespaces whose servers are released, separated by commas. Empty: all of them.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// The operator's Deployment, which is scaled to zero first: while it runs it puts the gates back.
    #[arg(long, env = "STOP")]
    pub stop: Option<String>,

    /// The namespace of that Deployment.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// Seconds that the operator has to stop.
    #[arg(long, env = "PATIENCE_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub patience_seconds: u16,
}

impl ReleaseConfig {
    /// The scopes: None is every namespace.
    pub fn scopes(&self) -> Vec<Option<String>> {
        scopes(&self.watch_namespaces)
    }
}

/// Networks, as CIDRs or addresses separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network = |part: &str| {
            let address = part.parse::<IpAddr>().map(IpNet::from);
            let network = part.parse::<IpNet>().or(address);
            network.map_err(|_| format!("{part:?} is neither a network such as 10.0.0.0/8 nor an address"))
        };
        parts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl RunConfig {
    /// Who is around the servers and apps, and what holds where they say nothing of it.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings { unsaid: self.servers_network, namespace: self.namespace.clone(), operator: self.pod_labels.clone() }
    }

    /// The time in which no more pods were needed before one goes.
    pub fn scale_down_window(&self) -> Duration {
        Duration::from_secs(self.scale_down_seconds.into())
    }

    /// Decides which hosts are reached by a proxy.
    pub fn proxy(&self) -> Option<Proxy> {
        Proxy::new(self.https_proxy.as_deref()?, &self.no_proxy)
    }

    /// Where it comes from what servers on standard input and output need.
    pub fn stdio_sources(&self) -> Sources {
        Sources {
            bridge: self.bridge_image.clone(),
            npx: self.npx_image.clone(),
            uvx: self.uvx_image.clone(),
            npm_registry: self.npm_registry.clone(),
            pypi_index: self.pypi_index.clone(),
        }
    }

    /// The scopes to watch: None is every namespace.
    pub fn scopes(&self) -> Vec<Option<String>> {
        scopes(&self.watch_namespaces)
    }
}

fn scopes(namespaces: &[String]) -> Vec<Option<String>> {
    let mut names: Vec<_> = namespaces.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return vec![None];
    }
    names.into_iter().map(|name| Some(name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn networks_are_cidrs_or_addresses_and_may_be_none() {
        let networks: Networks = " 10.0.0.0/8, fd00::1,".parse().expect("networks");
        assert_eq!(networks.0.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "fd00::1/128"]);
        assert_eq!("".parse(), Ok(Networks::default()));
        assert!("10.0.0.0/8,pods".parse::<Networks>().is_err());
    }

    #[test]
    fn namespaces_are_trimmed_and_none_means_all() {
        let scopes = |arguments: &[&str]| {
            let cli = Cli::parse_from(["operator", "run"].iter().chain(arguments));
            let Command::Run(config) = cli.command else { unreachable!("run was asked for") };
            config.scopes()
        };
        assert_eq!(scopes(&[]), [None]);
        assert_eq!(scopes(&["--watch-namespaces", "b, a,b"]), [Some("a".to_owned()), Some("b".to_owned())]);
    }
}

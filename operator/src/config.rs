//! The command line and the environment, read once. Nothing else in the operator reads the environment.

use std::net::SocketAddr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::probe::Proxy;

/// The chat worker of this operator's version.
const CHAT_WORKER_IMAGE: &str = concat!("ghcr.io/mcpfleet/chat-worker:", env!("CARGO_PKG_VERSION"));

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
    /// Print the CustomResourceDefinitions as YAML.
    Crd,
}

/// How to run.
#[derive(Args, Clone, Debug)]
pub struct RunConfig {
    /// The namespaces to look after, separated by commas. Empty: all of them, which takes a ClusterRole.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Where /healthz, /readyz, /metrics and /fleet are served.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// The chat worker's image, for apps that name none.
    #[arg(long, env = "CHAT_WORKER_IMAGE", default_value = CHAT_WORKER_IMAGE)]
    pub chat_worker_image: String,

    /// The namespace of the Lease by which one of several replicas leads.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// The name by which this process holds the Lease.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,

    /// Run without a Lease. Only when nothing else runs on the cluster, for development.
    #[arg(long, env = "NO_LEADER_ELECTION")]
    pub no_leader_election: bool,

    /// Probes in flight at once, over all servers.
    #[arg(long, env = "MAX_PROBES_IN_FLIGHT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_probes_in_flight: u32,

    /// Objects reconciled at once, of each kind.
    #[arg(long, env = "CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub concurrency: u16,

    /// Metrics of every server: its pods by state, and how long its probes take. Some twenty series a server.
    #[arg(long, env = "SERVER_METRICS", default_value_t = true, action = ArgAction::Set)]
    pub server_metrics: bool,

    /// The proxy by which remote servers with TLS are reached.
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true)]
    pub https_proxy: Option<String>,

    /// Hosts that are reached without it: names, addresses and ranges, separated by commas.
    #[arg(long, env = "NO_PROXY", default_value = "")]
    pub no_proxy: String,

    /// What is logged: a level, or a filter such as info,operator=debug.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// How it is logged.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl RunConfig {
    /// Decides which hosts are reached by a proxy.
    pub fn proxy(&self) -> Option<Proxy> {
        Proxy::new(self.https_proxy.as_deref()?, &self.no_proxy)
    }

    /// The scopes to watch: None is every namespace.
    pub fn scopes(&self) -> Vec<Option<String>> {
        let mut names: Vec<_> = self.watch_namespaces.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return vec![None];
        }
        names.into_iter().map(|name| Some(name.to_owned())).collect()
    }
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

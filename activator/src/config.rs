//! Flags and environment, read once.

use std::net::SocketAddr;

use clap::Parser;

/// Carries the first calls to servers that sleep, beside the operator, with /healthz, /readyz and /metrics.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Args {
    /// What is logged, and how. It goes to standard error.
    #[command(flatten)]
    pub log: log_lines::Flags,
    /// Address and port to listen on.
    #[arg(long, env = "ACTIVATOR_LISTEN", value_name = "ADDRESS", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// Connections at once.
    #[arg(long, env = "ACTIVATOR_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_connections: u16,
    /// Bytes of one request.
    #[arg(long, env = "ACTIVATOR_MAX_REQUEST_BYTES", value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(1024..=268_435_456))]
    pub max_request_bytes: u32,
    /// Bytes of all requests that wait for servers to wake.
    #[arg(long, env = "ACTIVATOR_MAX_HELD_BYTES", value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u32).range(1024..=536_870_911))]
    pub max_held_bytes: u32,
    /// Seconds that a call waits for a server to wake.
    #[arg(long, env = "ACTIVATOR_HOLD_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub hold_seconds: u32,
    /// Namespaces whose servers are called through here. Default: all.
    #[arg(long = "watch-namespace", env = "WATCH_NAMESPACES", value_name = "NAMESPACE", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// The operator's namespace.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,
    /// The ConfigMap there in which the operator reads which servers are wanted.
    #[arg(long, env = "ACTIVATOR_WANTED", value_name = "NAME", default_value = "mcpfleet-wanted")]
    pub wanted: String,
    /// Seconds that calls may take to finish after SIGTERM.
    #[arg(long, env = "ACTIVATOR_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 60)]
    pub drain_seconds: u32,
    /// Seconds between SIGTERM, from when /readyz says no, and the end of new connections.
    #[arg(long, env = "ACTIVATOR_LAME_DUCK_SECONDS", value_name = "SECONDS", default_value_t = 3)]
    pub lame_duck_seconds: u32,
}

const EXIT_CODES: &str = "Exit codes: 0 stopped; 1 failed; 2 wrong usage; 4 the address could not be bound.";

//! Flags and environment, read once.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use http_server::host::{AllowedOrigin, HostPattern};
use mcp_stdio::package::{Registry, Wanted};

use crate::calls::Limits;
use crate::respawn::Policy;

/// Serves an MCP server of standard input and output over streamable HTTP.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Least severe message to log: ERROR, WARNING, INFO or DEBUG, or a filter. Logs are JSON lines on standard error.
    #[arg(long, global = true, env = "LOG_LEVEL", default_value = "INFO")]
    pub log_level: log_lines::Level,
}

const EXIT_CODES: &str = "Exit codes: 0 stopped; 1 failed; 2 wrong usage; 4 the address could not be bound; 5 a key file could not be read. When the server cannot be kept alive, the exit code is the server's own: 127 where it could not be started, 128 and the signal's number where it was killed.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server and serve it at /mcp, with /healthz, /readyz and /metrics beside it.
    Run(Box<RunArgs>),
    /// Copy this program into a folder, as `bridge`, for a container that does not have it.
    CopySelf {
        /// The folder; it is made where it is missing. A path that ends in /bridge names the file.
        to: PathBuf,
    },
    /// Install a server's package, so that it starts without the network.
    Install(InstallArgs),
    /// End what a bridge started that was killed.
    #[command(hide = true)]
    Guard {
        /// Its process.
        process: u32,
    },
    /// Carry the first calls to servers that sleep: starts the program `activator` beside this one, with these arguments.
    #[command(disable_help_flag = true)]
    Activate {
        /// The arguments: see `bridge activate --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Whose a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sessions {
    /// One child for all clients; it can ask nothing of any of them.
    #[value(alias = "Shared")]
    Shared,
    /// A child for each session of a client.
    #[value(alias = "PerSession")]
    PerSession,
}

/// Everything that `run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Address and port to listen on.
    #[arg(long, env = "BRIDGE_LISTEN", value_name = "ADDRESS", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// Connections at once.
    #[arg(long, env = "BRIDGE_MAX_CONNECTIONS", value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_connections: u16,
    /// Seconds for which a connection without a request is kept. Balancers and pools keep theirs for 60: it is for them to close it first.
    #[arg(long, env = "BRIDGE_IDLE_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub idle_timeout_seconds: u32,
    /// Bytes of one request.
    #[arg(long, env = "BRIDGE_MAX_REQUEST_BYTES", value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(1024..=268_435_456))]
    pub max_request_bytes: u32,
    /// A name in Host beside those of a cluster and of this machine: mcp.example.com, mcp.example.com:8443, *.example.com, or * for all.
    #[arg(long = "allowed-host", env = "BRIDGE_ALLOWED_HOSTS", value_name = "NAME", value_delimiter = ',')]
    pub allowed_hosts: Vec<HostPattern>,
    /// A page beside those of this machine that may ask: https://app.example.com.
    #[arg(long = "allowed-origin", env = "BRIDGE_ALLOWED_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Vec<AllowedOrigin>,
    /// Whose a child is.
    #[arg(long, env = "BRIDGE_SESSIONS", value_enum, default_value = "shared")]
    pub sessions: Sessions,
    /// Children of sessions at once, with --sessions per-session.
    #[arg(long, env = "BRIDGE_MAX_SESSIONS", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_sessions: u16,
    /// Seconds after which a session that nobody uses is over.
    #[arg(long, env = "BRIDGE_SESSION_IDLE_SECONDS", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub session_idle_seconds: u32,
    /// Keys that seal session ids: 32 bytes in base64, one a line. The first seals, all open. Replicas share them. Default: one of this process's own.
    #[arg(long, env = "BRIDGE_SESSION_KEY_FILE", value_name = "FILE")]
    pub session_key_file: Option<PathBuf>,
    /// The address by which other replicas reach this one; they use this one's port. Default: they do not.
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pub pod_ip: Option<std::net::IpAddr>,
    /// Calls in flight to one child; further ones are answered 503.
    #[arg(long, env = "BRIDGE_MAX_IN_FLIGHT", value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_in_flight: u16,
    /// Seconds for a call; each progress of it begins them anew.
    #[arg(long, env = "BRIDGE_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout_seconds: u32,
    /// Seconds for a call however much progress it makes.
    #[arg(long, env = "BRIDGE_MAX_CALL_SECONDS", value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub max_call_seconds: u32,
    /// Seconds within which the server must say what it is.
    #[arg(long, env = "BRIDGE_STARTUP_SECONDS", value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub startup_seconds: u32,
    /// Seconds for which a client that comes before the server has ever said what it is is kept waiting; then it is told what the server
    /// said instead. Default: as many as a call gets.
    #[arg(long, env = "BRIDGE_HOLD_SECONDS", value_name = "SECONDS")]
    pub hold_seconds: Option<u32>,
    /// A server that is asked and says nothing at all for so many seconds is killed and started again. 0: never.
    #[arg(long, env = "BRIDGE_RESTART_AFTER_SECONDS", value_name = "SECONDS", default_value_t = 120)]
    pub restart_after_seconds: u32,
    /// Deaths of the server within a minute that end this process with its exit code. 0: it is started again for ever.
    #[arg(long, env = "BRIDGE_MAX_DEATHS", value_name = "N", default_value_t = 5)]
    pub max_deaths: u16,
    /// The longest wait before a server that died is started again, in seconds: at once, then 1, 2, 4 and so on.
    #[arg(long, env = "BRIDGE_MAX_BACKOFF_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    pub max_backoff_seconds: u32,
    /// Seconds that calls in flight may take to finish after SIGTERM.
    #[arg(long, env = "BRIDGE_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    pub drain_seconds: u32,
    /// Seconds between SIGTERM, from when /readyz says no, and the end of new connections.
    #[arg(long, env = "BRIDGE_LAME_DUCK_SECONDS", value_name = "SECONDS", default_value_t = 3)]
    pub lame_duck_seconds: u32,
    /// Where the last words of a server that cannot be kept alive are written, if the file is there.
    #[arg(long, env = "BRIDGE_TERMINATION_LOG", value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// Where `install` put packages: a command `npx` or `uvx` starts the one that it names from there.
    #[arg(long, env = "BRIDGE_PACKAGES", value_name = "FOLDER")]
    pub packages: Option<PathBuf>,
    /// Beside a server that speaks HTTP itself: hand every request on to it, and count its calls at /mcpfleet/metrics. For example
    /// http://localhost:8080. Of the other flags only those of connections, draining and idle sessions count.
    #[arg(long, env = "BRIDGE_UPSTREAM", value_name = "URL", value_parser = origin)]
    pub upstream: Option<http::Uri>,
    /// The server: a program and its arguments, after `--`.
    #[arg(last = true, required_unless_present = "upstream", conflicts_with = "upstream", value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl RunArgs {
    /// For the calls of a child.
    pub fn limits(&self) -> Limits {
        Limits {
            in_flight: usize::from(self.max_in_flight),
            queue: 8 << 20,
            timeout: seconds(self.timeout_seconds),
            longest: seconds(self.max_call_seconds.max(self.timeout_seconds)),
            silence: seconds(self.restart_after_seconds),
        }
    }

    /// For its deaths.
    pub fn policy(&self) -> Policy {
        Policy { max_deaths: usize::from(self.max_deaths), max_delay: seconds(self.max_backoff_seconds) }
    }
}

/// Where a server is, without a path: that is each request's own.
fn origin(text: &str) -> Result<http::Uri, String> {
    let uri: http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let plain = uri.scheme_str() == Some("http") && uri.host().is_some() && bare;
    plain.then_some(uri).ok_or_else(|| "is http://, a host and a port, for example http://localhost:8080".to_owned())
}

/// As a duration.
pub fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

/// A registry of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// By npm.
    Npm,
    /// By uv, or by pip where there is no uv.
    Pypi,
}

/// Everything that `install` takes.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Where the package comes from.
    #[arg(value_enum)]
    pub registry: Source,
    /// The package, as npx or uvx would name it: `@scope/name@1.2.3`, `name==1.2.3`, `name@1.2.3`.
    pub package: String,
    /// Where it is installed.
    #[arg(long, env = "BRIDGE_PACKAGES", value_name = "FOLDER", default_value = "/mcpfleet/packages")]
    pub into: PathBuf,
    /// The program of the package that is meant, where it has several.
    #[arg(long, value_name = "NAME")]
    pub program: Option<String>,
    /// A further package beside it, as `npx --package` and `uvx --with` take it.
    #[arg(long, value_name = "PACKAGE")]
    pub with: Vec<String>,
    /// The interpreter for a package of Python, as `uvx --python` takes it.
    #[arg(long, value_name = "VERSION")]
    pub python: Option<String>,
    /// The registry where the environment names none, neither by a variable nor by a file of the installer's. Default: the installer's own.
    #[arg(long, value_name = "URL")]
    pub default_registry: Option<String>,
    /// Where the words of a failure are written, if the file is there.
    #[arg(long, env = "BRIDGE_TERMINATION_LOG", value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

impl InstallArgs {
    /// What is to be installed.
    pub fn wanted(&self) -> Wanted {
        let Self { registry, package, into: _, program, with, python, default_registry: _, termination_log: _ } = self;
        let registry = match registry {
            Source::Npm => Registry::Npm,
            Source::Pypi => Registry::Pypi,
        };
        let (package, with, python, program) = (package.clone(), with.clone(), python.clone(), program.clone());
        Wanted { registry, package, with, python, program, args: Vec::new() }.as_installers_name_it()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_sound_and_modes_are_written_as_in_manifests() {
        Cli::command().debug_assert();
        for mode in ["per-session", "PerSession"] {
            let cli = Cli::try_parse_from(["bridge", "run", "--sessions", mode, "--", "npx", "-y", "--sessions"]).unwrap();
            let Command::Run(args) = cli.command else { unreachable!() };
            assert_eq!(
                (args.sessions, args.command),
                (Sessions::PerSession, vec!["npx".into(), "-y".into(), "--sessions".into()])
            );
        }
        assert!(Cli::try_parse_from(["bridge", "run"]).is_err());
    }

    #[test]
    fn what_is_installed_is_what_its_runner_would_start() {
        for (registry, runner, package) in [
            ("pypi", Registry::Pypi, "a.b@latest"),
            ("pypi", Registry::Pypi, "a[x]@1.2.3"),
            ("pypi", Registry::Pypi, "a==1.2.3"),
            ("npm", Registry::Npm, "@a/b@latest"),
        ] {
            let cli = Cli::try_parse_from(["bridge", "install", registry, package]).unwrap();
            let Command::Install(args) = cli.command else { unreachable!() };
            assert_eq!(args.wanted(), mcp_stdio::package::wanted(runner, &[package.to_owned()]).unwrap());
        }
    }

    #[test]
    fn a_server_is_started_or_is_there() {
        let parse = |args: &[&str]| Cli::try_parse_from(["bridge", "run"].iter().chain(args));
        assert!(parse(&["--upstream", "http://localhost:8080"]).is_ok());
        for wrong in [
            &["--upstream", "http://localhost:8080", "--", "npx"][..],
            &["--upstream", "https://a:1"],
            &["--upstream", "http://a/mcp"],
            &["--upstream", "a"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

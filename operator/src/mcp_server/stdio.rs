//! A server on standard input and output, from its spec to what its pods are made of. Pure.
//!
//! What `npx` and `uvx` mean is `mcp_stdio::package`'s: the bridge, which starts what is installed here, reads it there, too.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mcp_stdio::package::{self, Registry, Unclear, Wanted};

use super::autoscaling;
use crate::crd::{
    McpServerSpec,
    mcp_server::{BRIDGE_DIR, ContainerSource, PACKAGES_DIR, SESSIONS_DIR},
    quantity,
    stdio::{MAX_SESSIONS, SESSION_IDLE_SECONDS, Sessions, StdioSource},
};

/// Where the bridge serves.
pub const PORT: u16 = 8080;
/// The path of its endpoint.
pub const PATH: &str = "/mcp";
/// The key of the Secret that holds the keys of session ids, and the file that it is in.
pub const KEYS: &str = "keys";

/// Seconds from SIGTERM to SIGKILL, where the spec says nothing.
const GRACE_SECONDS: u32 = 45;
/// Seconds of those that are not for calls in flight: until nobody sends any more, and for the child to end.
const NOT_FOR_CALLS: u32 = 15;
/// Calls to one child at once above which the bridge says no where nobody tells it otherwise.
const IN_FLIGHT: u32 = 64;
/// Seconds that a child may take to say what it is, at least. While it has not, failures count as `health.startupSeconds` says.
const STARTUP_SECONDS: u32 = 120;

/// Where it comes from what servers on standard input and output need, when they do not say so themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The bridge.
    pub bridge: String,
    /// Node.js with npm, for `npx` without an image.
    pub npx: String,
    /// Python with uv, for `uvx` without an image.
    pub uvx: String,
    /// The registry of npm's packages; None: npm's own.
    pub npm_registry: Option<String>,
    /// The index of Python's packages; None: PyPI.
    pub pypi_index: Option<String>,
}

impl Sources {
    fn of_packages(&self, registry: Registry) -> Option<&String> {
        match registry {
            Registry::Npm => self.npm_registry.as_ref(),
            Registry::Pypi => self.pypi_index.as_ref(),
        }
    }
}

/// What its pods have beside those of other servers.
#[derive(Clone)]
pub struct Stdio {
    /// The bridge's image.
    pub bridge_image: String,
    /// Whose a child is.
    pub sessions: Sessions,
    /// What is installed before it starts.
    pub package: Option<Wanted>,
    /// Where it comes from, where the variables of the spec name no place.
    pub registry: Option<String>,
    /// The volume that keeps what is installed.
    pub cache: Option<Cache>,
    /// The keys that seal session ids, one a line.
    pub keys: String,
    /// Seconds from SIGTERM to SIGKILL.
    pub grace_seconds: u32,
}

impl std::fmt::Debug for Stdio {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stdio").field("package", &self.package).field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// The volume that keeps what is installed.
#[derive(Clone, Debug)]
pub struct Cache {
    /// How much.
    pub size: Quantity,
    /// The StorageClass.
    pub class: Option<String>,
}

/// The package that `npx` or `uvx` would install. None: another command, or none at all.
pub fn package(spec: &McpServerSpec) -> Option<Result<Wanted, Unclear>> {
    let stdio = spec.stdio.as_ref()?;
    Some(package::wanted(package::runner(&stdio.command)?, &stdio.args))
}

/// What its container runs, and what its pods have beside. The error is a sentence for people.
pub fn validate(
    spec: &McpServerSpec,
    stdio: &StdioSource,
    sources: &Sources,
    keys: String,
) -> Result<(ContainerSource, Stdio), String> {
    let package = match package(spec) {
        // Its image may know what we do not: then the runner itself is started, and needs the network each time.
        Some(Err(_)) if stdio.image.is_some() && stdio.cache.is_none() => None,
        Some(Err(unclear)) => {
            return Err(format!(
                "spec.stdio.args: {unclear}; mcpfleet installs the package itself, and understands {}. Set spec.stdio.image to have {} itself started in an image of your own",
                "-y, --package of npx and --from, --with, --python of uvx before the package", stdio.command,
            ));
        }
        Some(Ok(wanted)) => Some(wanted),
        None => None,
    };
    let image = match (&stdio.image, &package) {
        (Some(image), _) => image.clone(),
        (None, Some(Wanted { registry: Registry::Npm, .. })) => sources.npx.clone(),
        (None, Some(Wanted { registry: Registry::Pypi, .. })) => sources.uvx.clone(),
        (None, None) => return Err("spec.stdio.image: only npx and uvx run without one".into()),
    };
    let grace_seconds = spec.pod.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS);
    let source = ContainerSource {
        image,
        command: vec![format!("{BRIDGE_DIR}/bridge")],
        args: arguments(spec, stdio, package.is_some(), grace_seconds),
        port: PORT,
        path: PATH.into(),
        headers_from: Vec::new(),
    };
    let stdio = Stdio {
        bridge_image: sources.bridge.clone(),
        sessions: stdio.sessions,
        registry: package.as_ref().and_then(|package| sources.of_packages(package.registry)).cloned(),
        package,
        cache: stdio
            .cache
            .as_ref()
            .map(|cache| Cache { size: quantity::of_size(&cache.size), class: cache.storage_class_name.clone() }),
        keys,
        grace_seconds,
    };
    Ok((source, stdio))
}

/// `bridge run … -- COMMAND ARGS`. Flags, and no variables: those of the spec are the server's, which may mean something else by
/// `LOG_LEVEL`.
fn arguments(spec: &McpServerSpec, stdio: &StdioSource, installed: bool, grace_seconds: u32) -> Vec<String> {
    let health = &spec.health;
    let mut args = vec!["run".to_owned()];
    let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    flag("log-level", "INFO".into());
    flag("listen", format!("[::]:{PORT}"));
    flag("session-key-file", format!("{SESSIONS_DIR}/{KEYS}"));
    flag("pod-ip", "$(POD_IP)".into());
    flag("sessions", stdio.sessions.as_str().into());
    if stdio.sessions == Sessions::PerSession {
        flag("max-sessions", stdio.max_sessions.unwrap_or(MAX_SESSIONS).to_string());
        flag("session-idle-seconds", stdio.session_idle_seconds.unwrap_or(SESSION_IDLE_SECONDS).to_string());
    }
    flag("timeout-seconds", spec.timeout_seconds.to_string());
    flag("startup-seconds", health.startup_seconds.max(STARTUP_SECONDS).to_string());
    // Before it is up only probes come, which come again: they are to hear why it is not.
    flag("hold-seconds", "0".into());
    // Before the pod is evicted for it: a new child is cheaper than a new pod.
    flag("restart-after-seconds", (health.restart_after_seconds - health.restart_after_seconds / 4).to_string());
    flag("drain-seconds", grace_seconds.saturating_sub(NOT_FOR_CALLS).to_string());
    if let Some(calls) = autoscaling::let_in(spec).filter(|calls| *calls > IN_FLIGHT) {
        flag("max-in-flight", calls.to_string());
    }
    if let Some(connections) = autoscaling::connections(spec) {
        flag("max-connections", connections.to_string());
    }
    if installed {
        flag("packages", PACKAGES_DIR.into());
    }
    args.extend(["--".to_owned(), stdio.command.clone()]);
    args.extend(stdio.args.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(stdio: &Value) -> Result<(ContainerSource, Stdio), String> {
        let spec: McpServerSpec = serde_json::from_value(json!({"stdio": stdio})).expect("a spec");
        let sources = Sources {
            bridge: "bridge:1".into(),
            npx: "node:1".into(),
            uvx: "uv:1".into(),
            npm_registry: Some("https://npm.example.com".into()),
            pypi_index: None,
        };
        validate(&spec, &spec.stdio.clone().expect("stdio"), &sources, "k".into())
    }

    #[test]
    fn npx_and_uvx_have_an_image_without_naming_one() {
        for (stdio, image, package) in [
            (json!({"command": "npx", "args": ["-y", "a@1.0.0"]}), "node:1", Some("a@1.0.0")),
            (json!({"command": "uvx", "args": ["a@1.0.0"]}), "uv:1", Some("a==1.0.0")),
            (json!({"command": "npx", "args": ["a"], "image": "own:1"}), "own:1", Some("a")),
            (json!({"command": "npx", "args": ["-c", "a"], "image": "own:1"}), "own:1", None),
            (json!({"command": "/app/server", "image": "own:1"}), "own:1", None),
        ] {
            let (source, stdio) = read(&stdio).expect("valid");
            let found = stdio.package.map(|package| package.package);
            assert_eq!((source.image.as_str(), found.as_deref()), (image, package));
            assert_eq!(source.args.contains(&PACKAGES_DIR.to_owned()), package.is_some());
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_where_it_would_have_to_be_installed() {
        let sentence = read(&json!({"command": "npx", "args": ["-c", "a"]})).expect_err("refused");
        assert!(sentence.contains("the option -c is not understood") && sentence.contains("spec.stdio.image"), "{sentence}");
        let cached = json!({"command": "npx", "args": ["-c", "a"], "image": "own:1", "cache": {"size": "1Gi"}});
        assert!(read(&cached).is_err());
    }

    #[test]
    fn the_bridge_lets_in_more_calls_than_one_pod_is_to_have() {
        let flags = |autoscaling: Value| {
            let stdio = json!({"command": "npx", "args": ["a@1.0.0"]});
            let spec: McpServerSpec =
                serde_json::from_value(json!({"stdio": stdio, "autoscaling": autoscaling})).expect("a spec");
            let args = arguments(&spec, spec.stdio.as_ref().expect("stdio"), false, GRACE_SECONDS);
            let value = |flag: &str| args.iter().skip_while(|arg| *arg != flag).nth(1).cloned();
            ["--max-in-flight", "--max-connections"].map(|flag| value(flag).unwrap_or_default())
        };
        assert_eq!(flags(Value::Null), ["", ""]);
        assert_eq!(flags(json!({"maxReplicas": 3, "callsInFlight": 32})), ["", ""], "as many as it takes by itself");
        assert_eq!(flags(json!({"maxReplicas": 3, "callsInFlight": 64})), ["128", ""]);
        assert_eq!(flags(json!({"maxReplicas": 3, "callsInFlight": 10_000})), ["20000", "20000"]);
    }

    #[test]
    fn the_keys_are_not_told() {
        let (_, stdio) = read(&json!({"command": "uvx", "args": ["a"]})).expect("valid");
        assert!(!format!("{:?}", Stdio { keys: "s3cret".into(), ..stdio }).contains("s3cret"));
    }
}

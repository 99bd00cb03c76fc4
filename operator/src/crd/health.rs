//! The parts of the API that concern health: how a server is probed, its circuit breaker, and what was found.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How the operator probes the server. Every pod is asked over MCP what a client would ask: who are you, which tools are there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.timeoutSeconds <= self.intervalSeconds")
        .message("health.timeoutSeconds (5 when not set) must not be longer than health.intervalSeconds: lower timeoutSeconds or raise intervalSeconds")
)]
pub struct Health {
    /// Seconds between two probes of a healthy pod (default: 60). After a failure the pod is asked again at once, whatever this
    /// says.
    #[serde(default = "defaults::interval_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub interval_seconds: u32,
    /// Seconds that one probe may take in all, from the connection to the last byte (default: 5).
    #[serde(default = "defaults::timeout_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: u32,
    /// Seconds after a pod's start in which failures keep it out of service but do not count against the circuit (default: 120).
    /// For servers that install themselves when they start (npx, uvx).
    #[serde(default = "defaults::startup_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub startup_seconds: u32,
    /// Seconds after which a pod that stays Failed is evicted, one at a time and respecting PodDisruptionBudgets
    /// (default: 120). 0: never.
    #[serde(default = "defaults::restart_after_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub restart_after_seconds: u32,
    /// A call that every probe makes and that must succeed (default: none). Choose a tool that only reads and is quick. For a
    /// remote server the operator must have been started with `--remote-tool-calls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<ToolCall>,
    /// True: a server that answers 401 or 403 although no credentials are given in `headersFrom` is Ready, because its clients
    /// bring their own (default: false, and Ready is Unknown).
    #[serde(default)]
    pub accept_unauthorized: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval_seconds: defaults::interval_seconds(),
            timeout_seconds: defaults::timeout_seconds(),
            startup_seconds: defaults::startup_seconds(),
            restart_after_seconds: defaults::restart_after_seconds(),
            tool_call: None,
            accept_unauthorized: false,
        }
    }
}

/// A tool call, as MCP's `tools/call` takes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ToolCall {
    /// The tool's name, as `tools/list` gives it.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The arguments, an object (default: none). Do not put secrets here.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

/// An object of whatever shape. Without `additionalProperties`: they would give each value a schema of its own, below which Kubernetes keeps
/// nothing.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// When the server is taken out of use, and how it comes back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.openSeconds <= self.maxOpenSeconds")
        .message("circuitBreaker.openSeconds (30 when not set) must not be longer than circuitBreaker.maxOpenSeconds (300 when not set): lower openSeconds or raise maxOpenSeconds")
)]
pub struct CircuitBreaker {
    /// Failures in a row after which a pod leaves the Service; and the circuit opens when no pod is left (default: 3).
    #[serde(default = "defaults::failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// Seconds that the circuit stays Open before the server is tried again (default: 30). Doubles at every opening in a row,
    /// with jitter.
    #[serde(default = "defaults::open_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub open_seconds: u32,
    /// Bound of the doubling, in seconds (default: 300).
    #[serde(default = "defaults::max_open_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_open_seconds: u32,
    /// Successes in a row, while HalfOpen, that close the circuit (default: 2).
    #[serde(default = "defaults::success_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
    /// Holds the circuit by hand: `Open` takes the server out of use, `Closed` keeps it in whatever the probes say (default: the
    /// probes decide).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<Force>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: defaults::failure_threshold(),
            open_seconds: defaults::open_seconds(),
            max_open_seconds: defaults::max_open_seconds(),
            success_threshold: defaults::success_threshold(),
            force: None,
        }
    }
}

/// A circuit that is held by hand.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Out of use.
    Open,
    /// In use.
    Closed,
}

/// The state of a circuit.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// In use.
    #[default]
    Closed,
    /// Out of use until `retryAt`.
    Open,
    /// On trial: out of use, and probed one at a time.
    HalfOpen,
}

impl CircuitState {
    /// The state's name, as `kubectl get mcpservers` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::Open => "Open",
            Self::HalfOpen => "HalfOpen",
        }
    }
}

/// The circuit, as it is kept in status. An operator that starts anew goes on from here.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CircuitStatus {
    /// Closed, Open or HalfOpen.
    pub state: CircuitState,
    /// When the circuit came into this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why, as a machine reason; absent while Closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// While Open: when the server is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// Openings in a row without a close between them: the exponent of the backoff.
    #[serde(default)]
    pub openings: u32,
    /// Failures in a row when the circuit last changed its state.
    #[serde(default)]
    pub failures: u32,
}

/// Which revision of MCP the server speaks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolStatus {
    /// The revision, for example 2026-07-28.
    pub version: String,
    /// `modern` (stateless, server/discover) or `legacy` (initialize and sessions).
    pub era: Era,
}

/// The two families of MCP revisions.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// 2026-07-28 and later: stateless, `server/discover`.
    Modern,
    /// Before it: `initialize` and sessions.
    Legacy,
}

/// What the server calls itself.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// The implementation's name.
    pub name: String,
    /// The implementation's version.
    pub version: String,
}

/// The tools that the server offers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ToolsStatus {
    /// How many.
    pub count: u32,
    /// SHA-256 over the normalised list, in hexadecimal.
    pub digest: String,
    /// The names, sorted, the first 64.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What happens when the tools that a server offers are no longer the accepted ones.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolsPolicy {
    /// `ToolsAccepted` turns False and names what differs. Traffic goes on.
    #[default]
    Warn,
    /// As `Warn`, and a pod with other tools stays out of the Service: a bad rollout stalls at its first pod.
    Enforce,
    /// Nothing.
    Ignore,
}

/// Defaults, as functions because serde wants them so.
mod defaults {
    pub(super) const fn interval_seconds() -> u32 {
        60
    }
    pub(super) const fn timeout_seconds() -> u32 {
        5
    }
    pub(super) const fn startup_seconds() -> u32 {
        120
    }
    pub(super) const fn restart_after_seconds() -> u32 {
        120
    }
    pub(super) const fn failure_threshold() -> u32 {
        3
    }
    pub(super) const fn open_seconds() -> u32 {
        30
    }
    pub(super) const fn max_open_seconds() -> u32 {
        300
    }
    pub(super) const fn success_threshold() -> u32 {
        2
    }
}

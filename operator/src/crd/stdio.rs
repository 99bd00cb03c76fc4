//! The part of the API about servers on standard input and output. The field docs are the user manual.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    forms,
    quantity::{self, Quantity},
};

/// Children of sessions at once, where `maxSessions` says nothing.
pub const MAX_SESSIONS: u32 = 16;
/// Seconds that a session may rest, where `sessionIdleSeconds` says nothing.
pub const SESSION_IDLE_SECONDS: u32 = 300;

/// Whether the command is a runner of packages, as the rules say it.
const IS_RUNNER: &str = "self.command.matches('^(.*/)?(npx|uvx)$')";

/// A server that speaks MCP over standard input and output. The bridge is copied into its container, starts it, and serves it over
/// HTTP at :8080/mcp.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.image) || self.command in ['npx', 'uvx']")
        .message("set stdio.image to the image that has the command: only npx and uvx, whose packages mcpfleet installs itself, run without one"),
    validation = Rule::new(format!("!{IS_RUNNER} || (has(self.args) && self.args.size() > 0)"))
        .message("stdio.args must name the package, for example [\"-y\", \"@modelcontextprotocol/server-everything@2026.8.31\"]"),
    validation = Rule::new(format!("!has(self.cache) || {IS_RUNNER}"))
        .message("stdio.cache holds what npx or uvx install, and another command installs nothing: remove it; data of the server's own belongs into spec.storage"),
    validation = Rule::new("(!has(self.maxSessions) && !has(self.sessionIdleSeconds)) || self.sessions == 'PerSession'")
        .message("stdio.maxSessions and stdio.sessionIdleSeconds are about the children of sessions, and with sessions: Shared one child serves all: remove them, or set stdio.sessions to PerSession")
)]
pub struct StdioSource {
    /// The image that has the command (default: for `npx` and `uvx` the operator's images with Node.js and Python; any other command
    /// needs one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("image must name a container image, for example registry.example.com/team/own-mcp:1.4.2"))]
    #[schemars(length(max = 1_024))]
    pub image: Option<String>,
    /// The program, for example `/app/own-mcp`. The packages of `npx` and `uvx` are installed once, by an init container: a restart
    /// needs no network.
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("command is one program without arguments, for example npx: put the rest into args"))]
    #[schemars(length(max = 1_024))]
    pub command: String,
    /// Its arguments (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_024))]
    pub args: Vec<String>,
    /// `Shared`: one child serves all clients, and can ask nothing of them. `PerSession`: each session of a client has a child of its
    /// own, which may ask its client: elicitation, sampling, roots (default: Shared).
    #[serde(default)]
    pub sessions: Sessions,
    /// Children of sessions at once in one pod, with `sessions: PerSession` (default: 16). Further sessions are refused for the time
    /// being.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_024))]
    pub max_sessions: Option<u32>,
    /// Seconds after which a session that nobody uses ends, and its child with it, with `sessions: PerSession` (default: 300).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub session_idle_seconds: Option<u32>,
    /// A volume that keeps what `npx` or `uvx` installed, so that a new pod starts without the network, too (default: none, and each
    /// pod installs it). It goes with the McpServer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// Whose a child is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sessions {
    /// One for all clients.
    #[default]
    Shared,
    /// One for each session of a client.
    PerSession,
}

impl Sessions {
    /// As the bridge is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerSession => "per-session",
        }
    }
}

/// A volume for what is installed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("stdio.cache.storageClassName cannot be changed, for Kubernetes cannot move a volume to another class: set it back, or delete the server and create it anew")
)]
pub struct Cache {
    /// How much, for example 2Gi. It grows later where the StorageClass lets it, and never shrinks.
    #[schemars(schema_with = "quantity::size")]
    #[x_kube(validation = quantity::is_a_size("stdio.cache.size", "2Gi"))]
    #[x_kube(validation = quantity::only_grows("stdio.cache.size"))]
    pub size: Quantity,
    /// The StorageClass; an empty one, `""`, binds a volume that somebody made and that has none (default: the cluster's). It cannot be
    /// changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("pattern" = forms::STORAGE_CLASS))]
    pub storage_class_name: Option<String>,
}

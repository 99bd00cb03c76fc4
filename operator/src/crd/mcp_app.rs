//! The McpApp kind: a chat application over a set of McpServers. The field docs are the user manual.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::{PodSettings, SecretKeyRef};

/// A chat application: the chat worker in replicas, over a set of McpServers of its namespace.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "mcpfleet.dev",
    version = "v1alpha1",
    kind = "McpApp",
    plural = "mcpapps",
    singular = "mcpapp",
    category = "mcpfleet",
    namespaced,
    status = "McpAppStatus",
    derive = "PartialEq",
    doc = "A chat application: the chat worker in replicas, over a set of McpServers of its namespace.",
    validation = Rule::new("self.metadata.name.size() <= 59 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be at most 59 characters of a-z, 0-9 and '-', and begin with a letter: the children are called <name>-app, and a Service's name must be a DNS label"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether a person who opens the app now gets an answer"),
    printcolumn(name = "Servers", type_ = "string", json_path = ".status.serversOffered", description = "Servers that the app can use now / that it names"),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.pods", description = "Pods ready / wanted"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", description = "Where people and programs find the app"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why Ready is what it is", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct McpAppSpec {
    /// The servers whose tools the app uses, by name or by label. One that two entries name counts once.
    #[schemars(length(min = 1, max = 256))]
    pub servers: Vec<ServerRef>,
    /// The model that answers.
    pub model: Model,
    /// What the model is told before every conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub system_prompt: Option<String>,
    /// How many pods.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 1_000))]
    pub replicas: u32,
    /// How many requests one caller may make.
    #[serde(default)]
    pub rate_limit: RateLimit,
    /// What the app logs: DEBUG, INFO, WARNING or ERROR.
    #[serde(default)]
    pub log_level: LogLevel,
    /// The chat worker's image (default: the one of the operator's version).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("image must name a container image, for example ghcr.io/mcpfleet/chat-worker:0.1.0"))]
    #[schemars(length(max = 1_024))]
    pub image: Option<String>,
    /// Who gets in (default: whoever has the token in the Secret `<name>-app`, which the operator makes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// What shapes the pods.
    #[serde(flatten)]
    pub pod: PodSettings,
}

/// Servers, by name or by label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.selector)")
        .message("set exactly one of name (one McpServer) and selector (every McpServer with these labels)")
)]
pub struct ServerRef {
    /// The name of an McpServer in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Selects McpServers of this namespace by label. Those that come later are taken up too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// The model that answers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The model's name, for example claude-haiku-5-5.
    #[x_kube(validation = Rule::new("self.size() > 0").message("model.name must name a model, for example claude-haiku-5-5"))]
    #[schemars(length(max = 256))]
    pub name: String,
    /// Where the API key is. A changed key is taken up without a restart.
    pub api_key_secret_ref: SecretKeyRef,
    /// Where the Messages API is (default: Anthropic's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^\\\\s/@?#]+(/[^\\\\s?#]*)?$')").message("baseUrl must be an http:// or https:// URL with a host and without user, password, query or fragment"))]
    #[schemars(length(max = 2_048))]
    pub base_url: Option<String>,
    /// Tokens that one answer of the model may have at most.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tokens: u32,
}

/// How many requests one caller may make. More are answered by 429 with Retry-After.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Requests in a window.
    #[serde(default = "rate_limit_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// The window, in seconds.
    #[serde(default = "rate_limit_window_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub window_seconds: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { requests: rate_limit_requests(), window_seconds: rate_limit_window_seconds() }
    }
}

/// What the app logs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Requests and changes.
    #[default]
    Info,
    /// What somebody should look at.
    Warning,
    /// What failed.
    Error,
}

impl LogLevel {
    /// As `LOG_LEVEL` takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        }
    }
}

/// Who gets in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The Secret with the token that the page and the API ask for.
    pub token_secret_ref: SecretKeyRef,
}

/// What was found out about the app.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct McpAppStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing, Stalled. Reasons are documented in docs/conditions.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The servers that the app names, and how each is offered to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub servers: Vec<AppServer>,
    /// Servers offered / named, for `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers_offered: Option<String>,
    /// Pods wanted.
    #[serde(default)]
    pub replicas: u32,
    /// Pods ready.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Pods ready / wanted, for `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// Where people and programs find the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// How a server is offered to the app.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AppServer {
    /// The McpServer's name.
    pub name: String,
    /// Offered, CircuitOpen, Disabled, Starting or NotFound.
    pub state: AppServerState,
}

/// How a server is offered to an app.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppServerState {
    /// The app can use its tools.
    Offered,
    /// Its circuit is Open or HalfOpen: the app has dropped its tools.
    CircuitOpen,
    /// Its `spec.enabled` is false.
    Disabled,
    /// It has never answered yet.
    Starting,
    /// There is no McpServer of this name.
    NotFound,
}

const fn replicas() -> u32 {
    1
}
const fn max_tokens() -> u32 {
    4_096
}
const fn rate_limit_requests() -> u32 {
    100
}
const fn rate_limit_window_seconds() -> u32 {
    60
}

//! The McpApp kind: a chat application over a set of McpServers. The field docs are the user manual.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    forms,
    network::Network,
    pod::{self, PodSettings, SecretKeyRef},
};

/// The volumes that `build` gives the pods.
pub const OWN_VOLUMES: &[&str] = &["tmp", "config", "model", "access", "servers"];
/// Where it mounts them.
pub const OWN_MOUNTS: &[&str] = &["/tmp", "/app/config", "/app/secrets/model", "/app/secrets/access", "/app/secrets/servers"];

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
    validation = Rule::new("!has(self.spec.budget) || self.spec.budget.tokensPerDay >= self.spec.replicas")
        .message("budget.tokensPerDay is divided among the replicas: it must be at least replicas"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether a person who opens the app now gets an answer"),
    printcolumn(name = "Servers", type_ = "string", json_path = ".status.serversOffered", description = "Servers that the app can use now / that it names"),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.pods", description = "Pods ready / wanted"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", description = "Where people and programs find the app"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.name", description = "The model that answers; none of a gateway", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why Ready is what it is", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.model) || (!has(self.systemPrompt) && !has(self.budget) && !has(self.cacheSeconds))")
        .message("spec.systemPrompt, budget and cacheSeconds are for a model, and this app has none: remove them, or set spec.model"),
    validation = Rule::new("self.servers.all(s, !has(s.name) || self.servers.exists_one(other, has(other.name) && other.name == s.name))")
        .message("spec.servers must name each McpServer once: remove one of the two"),
    validation = pod::mounts_name_volumes(),
    validation = pod::no_volume_is_called(OWN_VOLUMES),
    validation = pod::nothing_is_mounted_at(OWN_MOUNTS),
    validation = pod::no_host_path()
)]
pub struct McpAppSpec {
    /// The servers whose tools the app uses, by name or by label. One that two entries name counts once: an entry by name goes
    /// before one by label, and the first of these before the others.
    #[schemars(length(min = 1, max = 256))]
    pub servers: Vec<ServerRef>,
    /// The model that answers (default: none, and the app is a gateway: /mcp and the API about servers, without a chat).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// What the model is told before every conversation (default: nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub system_prompt: Option<String>,
    /// How many pods (default: 1).
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 1_000))]
    pub replicas: u32,
    /// How many requests one caller may make.
    #[serde(default)]
    pub rate_limit: RateLimit,
    /// How many tokens the app may use in a day (default: as many as it likes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What happens when the model wants to call a tool that may destroy, or that says nothing of itself: Ask (a person decides),
    /// Always (it is called) or Never (it is refused, and is not offered at /mcp) (default: Ask).
    #[serde(default)]
    pub approvals: Approvals,
    /// Seconds for which an answer is kept for identical requests that ask for it with `"cache": true`. Only complete answers are,
    /// whose tools say that they read only (default: none is kept).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub cache_seconds: Option<u32>,
    /// What the app logs: DEBUG, INFO, WARNING or ERROR (default: INFO).
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
    /// Who reaches the pods, and where they get to (default: everybody reaches the app's port, and what goes out goes anywhere).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
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
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("name must be that of an McpServer of this namespace, for example search: lower-case letters, digits and '-'"))]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Selects McpServers of this namespace by label. Those that come later are taken up too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Which of their tools the app has (default: all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolRules>,
}

/// Which tools of a server an app has. What is not allowed is neither listed nor called, for the model, the API and /mcp alike.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ToolRules {
    /// Names of tools, as the server gives them; `*` stands for any characters (default: all tools).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub allow: Vec<String>,
    /// Names of tools that the app has not, whatever `allow` says (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub deny: Vec<String>,
    /// As the app's `approvals`, for these servers (default: the app's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Approvals>,
}

/// The model that answers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.apiKeySecretRef) || has(self.baseUrl)")
        .message("set model.apiKeySecretRef to the Secret with the API key, or model.baseUrl to a server of your own that wants none"),
    validation = Rule::new("!has(self.fallback) || self.fallback != self.name")
        .message("model.fallback must be another model than model.name: it answers when that one stays overloaded"),
    validation = Rule::new("!has(self.contextTokens) || self.contextTokens > self.maxTokens")
        .message("model.contextTokens must be more than model.maxTokens: an answer needs its room in the window, too")
)]
pub struct Model {
    /// How the model is asked: Anthropic (the Messages API) or OpenAI (Chat Completions, as OpenAI and servers of one's own such
    /// as vLLM, llama.cpp and Ollama speak it) (default: Anthropic).
    #[serde(default)]
    pub api: ModelApi,
    /// The model's name, for example claude-haiku-5-5.
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("model.name must name a model, for example claude-haiku-5-5"))]
    #[schemars(length(max = 256))]
    pub name: String,
    /// Where the API key is (default: no key is sent, which only a server of one's own at `baseUrl` takes). A changed key is taken
    /// up without a restart, within a minute or so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    /// The model that answers when the first stays overloaded, for example claude-sonnet-5-5 (default: none, and the app says that
    /// it is overloaded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("model.fallback must name a model, for example claude-sonnet-5-5"))]
    #[schemars(length(max = 256))]
    pub fallback: Option<String>,
    /// Where the API is (default: Anthropic's or OpenAI's). Of OpenAI's kind up to and with its version, for example
    /// http://vllm:8000/v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = super::url_rule(r"(/[^\s?#]*)?").message("baseUrl must be an http:// or https:// URL with a host, a port from 1 to 65535 if any, and without user, password, query or fragment"))]
    #[schemars(length(max = 2_048))]
    pub base_url: Option<String>,
    /// Tokens that one answer of the model may have at most (default: 4096).
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tokens: u32,
    /// The model's context window, in tokens: a conversation that does not fit is summarised before it is sent (default: 200000
    /// with Anthropic; with OpenAI a conversation is summarised when the API refuses it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 100_000_000))]
    pub context_tokens: Option<u32>,
}

/// How the model is asked.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelApi {
    /// Anthropic's Messages API.
    #[default]
    Anthropic,
    /// Chat Completions.
    OpenAI,
}

/// How many tokens the app may use in a day, which begins at midnight UTC.
///
/// Every pod has an equal share (tokensPerDay / replicas, rounded down) and counts for itself, so that all pods together stay
/// below tokensPerDay, but one that is asked more than the others stops before them. The answer that passes the limit is still
/// given. The count outlives a restart of the container; a pod that replaces another begins anew.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Tokens of all pods together, cached and not, in and out. When they are used up, questions are answered by 429 until
    /// midnight UTC. At least one for each replica.
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub tokens_per_day: i64,
    /// The percentage of its share at which a pod warns, in its log and in the conversation (default: 80).
    #[serde(default = "alert_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub alert_percent: u32,
}

/// What happens to a call of a tool that may destroy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approvals {
    /// A person is asked.
    #[default]
    Ask,
    /// It is made.
    Always,
    /// It is refused.
    Never,
}

/// How many requests one caller may make. More are answered by 429 with Retry-After.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Requests in a window, of each pod (default: 100).
    #[serde(default = "rate_limit_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// The window, in seconds (default: 60).
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
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The Secret with the token that the page and the API ask for, 16 characters at least (default: the Secret `<name>-app`, which the
    /// operator makes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// Host names by which people and programs reach the app, beside that of its Service, for example chat.example.com behind an
    /// Ingress (default: any, for every request needs the token).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253), regex(pattern = forms::HOST)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_hosts: Vec<String>,
    /// Addresses or networks of proxies whose X-Forwarded-For is believed, for example 10.0.0.0/8 (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64), regex(pattern = forms::ADDRESS)), extend("x-kubernetes-list-type" = "set"))]
    pub trusted_proxies: Vec<String>,
}

/// What was found out about the app.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct McpAppStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, ModelReachable (while it is known), Reconciling, Stalled. Reasons are documented in docs/conditions.md.
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
    /// Pods that there are, of any template.
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
    /// It is not Ready: it has not answered yet, or there is no pod of it that does. Its condition Ready says why.
    Starting,
    /// There is no McpServer of this name.
    NotFound,
}

impl AppServerState {
    /// As status has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "Offered",
            Self::CircuitOpen => "CircuitOpen",
            Self::Disabled => "Disabled",
            Self::Starting => "Starting",
            Self::NotFound => "NotFound",
        }
    }
}

const fn replicas() -> u32 {
    1
}
const fn max_tokens() -> u32 {
    4_096
}
const fn alert_percent() -> u32 {
    80
}
const fn rate_limit_requests() -> u32 {
    100
}
const fn rate_limit_window_seconds() -> u32 {
    60
}

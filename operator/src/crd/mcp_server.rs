//! The McpServer kind: one MCP server, run as a container or watched at a remote URL. The field docs are the user manual.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Condition, util::intstr::IntOrString};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    health::{CircuitBreaker, CircuitStatus, Health, ProtocolStatus, ServerInfo, ToolsPolicy, ToolsStatus},
    pod::{self, PodSettings, SecretKeyRef},
};

/// The volumes that `build` gives the pods.
pub const OWN_VOLUMES: &[&str] = &["tmp", "data"];
/// Where it mounts them, beside `spec.storage.mountPath`.
pub const OWN_MOUNTS: &[&str] = &["/tmp"];

/// An MCP server: how to run it (or where it is), how to tell that it works, and when to take it out of use.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "mcpfleet.dev",
    version = "v1alpha1",
    kind = "McpServer",
    plural = "mcpservers",
    singular = "mcpserver",
    category = "mcpfleet",
    namespaced,
    status = "McpServerStatus",
    derive = "PartialEq",
    doc = "An MCP server: how to run it (or where it is), how to tell that it works, and when to take it out of use.",
    validation = Rule::new("self.metadata.name.size() <= 59 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be at most 59 characters of a-z, 0-9 and '-', and begin with a letter: the children are called <name>-mcp, and a Service's name must be a DNS label"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether a client that connects now gets an answer"),
    printcolumn(name = "Circuit", type_ = "string", json_path = ".status.circuit.state", description = "Closed: in use. Open: out of use. HalfOpen: on trial"),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.pods", description = "Pods in service / wanted"),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.tools.count", description = "How many tools the server offers"),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".status.protocol.version", description = "The revision of MCP that the server speaks"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", description = "Where clients find the server"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why Ready is what it is", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.container) != has(self.remote)")
        .message("set exactly one of spec.container (a server that mcpfleet runs) and spec.remote (a server that runs elsewhere)"),
    validation = Rule::new("has(self.container) == has(oldSelf.container)")
        .message("a server cannot change between container and remote: delete it and create it anew, or give the other one another name"),
    validation = Rule::new("!has(self.storage) || self.replicas <= 1")
        .message("spec.storage is one volume with one writer: set spec.replicas to 1, or remove spec.storage"),
    validation = Rule::new("!has(self.remote) || (self.replicas == 1 && !has(self.storage) && !has(self.resources) && !has(self.env) && !has(self.envFrom) && !has(self.volumes) && !has(self.volumeMounts) && !has(self.serviceAccountName) && !has(self.imagePullSecrets) && !has(self.podTemplate))")
        .message("spec.replicas, resources, env, envFrom, volumes, volumeMounts, storage, serviceAccountName, imagePullSecrets and podTemplate shape pods, and a remote server has none here: remove them"),
    validation = pod::mounts_name_volumes(),
    validation = pod::no_volume_is_called(OWN_VOLUMES),
    validation = pod::nothing_is_mounted_at(OWN_MOUNTS),
    validation = Rule::new("!has(self.volumeMounts) || !has(self.storage) || self.volumeMounts.all(m, m.mountPath != self.storage.mountPath && m.mountPath + '/' != self.storage.mountPath && m.mountPath != self.storage.mountPath + '/')")
        .message("spec.storage.mountPath holds the volume that outlives the pods: give the one of spec.volumeMounts another mountPath"),
    validation = pod::no_host_path()
)]
pub struct McpServerSpec {
    /// What the server is for. Shown to people, and passed on to apps and their model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The version that people know the server by. Passed on to apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A container that serves MCP over streamable HTTP. Exactly one of `container` and `remote`, and the choice stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSource>,
    /// A server that runs elsewhere: probed from here, and offered to apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteSource>,
    /// False: scaled to zero, not probed, and apps drop its tools. The data stays.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Seconds that an app waits for one call of a tool.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: u32,
    /// How often an app tries a call again that failed in transport, where the tool says that this is safe.
    #[serde(default = "max_retries")]
    #[schemars(range(min = 0, max = 10))]
    pub max_retries: u32,
    /// How the server is probed.
    #[serde(default)]
    pub health: Health,
    /// When the server is taken out of use, and how it comes back.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
    /// The tools that the server must offer.
    #[serde(default)]
    pub tools: Tools,
    /// How many pods.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 1_000))]
    pub replicas: u32,
    /// A volume that outlives the pods, and the McpServer: deleting it keeps the PersistentVolumeClaim `<name>-mcp`,
    /// and a server of the same name takes it up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// What shapes the pods.
    #[serde(flatten)]
    pub pod: PodSettings,
}

/// A container that serves MCP over streamable HTTP.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSource {
    /// The image, for example `ghcr.io/mcpfleet/sandbox-server:0.1.0`.
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("image must name a container image, for example ghcr.io/mcpfleet/sandbox-server:0.1.0"))]
    #[schemars(length(max = 1_024))]
    pub image: String,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The port on which the server listens.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// The path of the MCP endpoint.
    #[serde(default = "path")]
    #[x_kube(validation = Rule::new("self.matches('^/[^\\\\s?#]*$')").message("path must begin with '/' and hold no space, '?' or '#', for example /mcp"))]
    #[schemars(length(max = 1_024))]
    pub path: String,
}

/// A server that runs elsewhere.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RemoteSource {
    /// The MCP endpoint, http or https. Put credentials into `headersFrom`, not here.
    #[x_kube(validation = Rule::new("self.matches('^https?://[^\\\\s/@?#]+(/[^\\\\s#]*)?$')").message("url must be an http:// or https:// URL with a host and without user, password or fragment, for example https://example.com/mcp"))]
    #[schemars(length(max = 2_048))]
    pub url: String,
    /// Headers that every request carries, out of Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub headers_from: Vec<HeaderFrom>,
    /// PEM certificates of a private CA that signs the server's certificate, used instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

/// A header whose value is in a Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeaderFrom {
    /// The header's name, for example Authorization.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$')").message("name must be the name of an HTTP header, for example Authorization"))]
    #[schemars(length(max = 128))]
    pub name: String,
    /// Where the whole value is, for example `Bearer …`.
    pub secret_key_ref: SecretKeyRef,
}

/// A volume that outlives the pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// How much, for example 1Gi. Kubernetes lets it grow later where the StorageClass does, and never shrink.
    #[schemars(extend("pattern" = "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E)?$"))]
    pub size: IntOrString,
    /// The StorageClass (default: the cluster's). It cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Where the container finds it.
    #[x_kube(validation = Rule::new("self.startsWith('/') && !(self in ['/', '/tmp', '/tmp/'])").message("mountPath must be an absolute path other than '/' and '/tmp', for example /data"))]
    #[schemars(length(max = 1_024))]
    pub mount_path: String,
}

/// The tools contract: what the server offers must stay what was accepted.
///
/// The first list that the server offers is accepted, and kept in the ConfigMap `<name>-mcp-tools`. To accept another one, set `digest`
/// to the digest that `status.tools.digest` shows; or delete the ConfigMap, and the next list is accepted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tools {
    /// What a difference does: `Warn` tells it in the condition ToolsAccepted, `Enforce` also keeps a pod with other tools out of
    /// the Service (so that a rollout stalls at its first pod), `Ignore` does nothing.
    #[serde(default)]
    pub policy: ToolsPolicy,
    /// The digest of the accepted list, as `status.tools.digest` shows it. Absent: the first list that the server offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}

/// What was found out about the server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct McpServerStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Healthy, CircuitClosed, ToolsAccepted, Reconciling, Stalled. Reasons are documented in docs/conditions.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The circuit breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitStatus>,
    /// The revision of MCP that the server speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolStatus>,
    /// What the server calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_info: Option<ServerInfo>,
    /// The tools that the server offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolsStatus>,
    /// Pods that there are, of any template.
    #[serde(default)]
    pub replicas: u32,
    /// Pods in service.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Selects the pods, for whoever scales the server by them; absent for a remote server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Pods in service / wanted, for `kubectl get`; absent for a remote server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// Where clients find the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

const fn enabled() -> bool {
    true
}
const fn timeout_seconds() -> u32 {
    30
}
const fn max_retries() -> u32 {
    3
}
const fn replicas() -> u32 {
    1
}
const fn port() -> u16 {
    8080
}
fn path() -> String {
    "/mcp".into()
}

//! The McpServer kind: one MCP server, run as a container, run on standard input and output behind the bridge, or
//! watched at a remote URL. The field docs are the user manual.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, core::Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use mcp_wire::headers::OF_EVERY_REQUEST;

use super::{
    autoscaling::{Autoscaling, AutoscalingStatus},
    backup::{Backup, BackupStatus},
    forms,
    health::{CircuitBreaker, CircuitStatus, Health, ProtocolStatus, ServerInfo, ToolsPolicy, ToolsStatus},
    network::Network,
    pod::{self, PodSettings, SecretKeyRef},
    quantity::{self, Quantity},
    stdio::StdioSource,
};

/// The volumes that `build` gives the pods.
pub const OWN_VOLUMES: &[&str] = &["tmp", "home", "data", "mcp-bridge", "mcp-packages", "mcp-sessions", "mcpfleet-backup"];
/// Where it mounts them, beside `spec.storage.mountPath`.
pub const OWN_MOUNTS: &[&str] = &["/tmp", HOME, BRIDGE_DIR, PACKAGES_DIR, SESSIONS_DIR];
/// The home of a container whose root cannot be written.
pub const HOME: &str = "/home/mcp";
/// Where the bridge is copied to.
pub const BRIDGE_DIR: &str = "/mcpfleet/bin";
/// Where the packages of `npx` and `uvx` are installed.
pub const PACKAGES_DIR: &str = "/mcpfleet/packages";
/// Where the keys are that seal session ids.
pub const SESSIONS_DIR: &str = "/mcpfleet/sessions";

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
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    doc = "An MCP server: how to run it (or where it is), how to tell that it works, and when to take it out of use.",
    validation = Rule::new("!has(self.spec.storage) || !has(self.spec.storage.backup) || !has(self.spec.storage.backup.to.claim) || self.spec.storage.backup.to.claim != self.metadata.name + '-mcp'")
        .message("spec.storage.backup.to.claim must not be the server's own claim, with which the backups would be lost: name another PersistentVolumeClaim"),
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
    validation = Rule::new("[has(self.container), has(self.stdio), has(self.remote)].filter(given, given).size() == 1")
        .message("set exactly one of spec.container (a server that serves HTTP), spec.stdio (a server on standard input and output) and spec.remote (a server that runs elsewhere)"),
    validation = Rule::new("has(self.container) == has(oldSelf.container) && has(self.stdio) == has(oldSelf.stdio)")
        .message("a server cannot change between container, stdio and remote: delete it and create it anew, or give the other one another name"),
    validation = Rule::new("!has(self.stdio) || !has(self.stdio.cache) || self.replicas <= 1")
        .message("spec.stdio.cache is one volume with one writer: set spec.replicas to 1, or remove spec.stdio.cache"),
    validation = Rule::new("!has(oldSelf.stdio) || !has(oldSelf.stdio.cache) || (has(self.stdio) && has(self.stdio.cache))")
        .message("spec.stdio.cache cannot be removed: put it back, or delete the server and create it anew without one"),
    validation = Rule::new("!has(self.storage) || self.replicas <= 1")
        .message("spec.storage is one volume with one writer: set spec.replicas to 1, or remove spec.storage"),
    validation = Rule::new("!has(self.autoscaling) || self.autoscaling.maxReplicas <= 1 || !(has(self.storage) || has(self.stdio) && has(self.stdio.cache))")
        .message("spec.storage and spec.stdio.cache are one volume with one writer: set spec.autoscaling.maxReplicas to 1, or remove spec.autoscaling"),
    validation = remote_has_no_pods(),
    validation = Rule::new("!has(self.remote) || (self.health.startupSeconds == 120 && self.health.restartAfterSeconds == 120 && self.tools.policy != 'Enforce')")
        .message("health.startupSeconds, health.restartAfterSeconds and tools.policy: Enforce act on pods, and a remote server has none here: remove them (policy Warn tells of changed tools)"),
    validation = Rule::new("!has(oldSelf.storage) || has(self.storage)")
        .message("spec.storage cannot be removed, for the server would lose sight of its data: put it back; to start without data, delete the server and its PersistentVolumeClaim, and create it anew"),
    validation = pod::mounts_name_volumes(),
    validation = pod::no_volume_is_called(OWN_VOLUMES),
    validation = pod::nothing_is_mounted_at(OWN_MOUNTS),
    validation = Rule::new(format!("!has(self.volumeMounts) || !has(self.storage) || self.volumeMounts.all(m, {} != {})", pod::folder("m.mountPath"), pod::folder("self.storage.mountPath")))
        .message("spec.storage.mountPath holds the volume that outlives the pods: give the one of spec.volumeMounts another mountPath"),
    validation = pod::no_host_path()
)]
pub struct McpServerSpec {
    /// What the server is for (default: nothing is told). Shown to people, and passed on to apps and their model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2_048))]
    pub description: Option<String>,
    /// The version that people know the server by (default: none). Passed on to apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// A container that serves MCP over streamable HTTP. Exactly one of `container`, `stdio` and `remote`, and the choice stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSource>,
    /// A server that speaks MCP over standard input and output, as desktop clients start it: the bridge serves it over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<StdioSource>,
    /// A server that runs elsewhere: probed from here, and offered to apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteSource>,
    /// False: scaled to zero, not probed, and apps drop its tools (default: true). The data stays.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Seconds that an app waits for one call of a tool (default: 30).
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: u32,
    /// How often an app tries a call again that failed in transport, where the tool says that this is safe (default: 3).
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
    /// How many pods (default: 1). `kubectl scale mcpserver` and a HorizontalPodAutoscaler of this McpServer set it. 0: none, and
    /// the server is not Ready. With `autoscaling` it is not looked at.
    #[serde(default = "replicas")]
    #[schemars(range(min = 0, max = 1_000))]
    pub replicas: u32,
    /// As many pods as the calls under way ask for, decided by the operator (default: `replicas` says how many).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Whether a client stays with one pod. `Auto`: by its address, while the server is seen to give sessions (Mcp-Session-Id), which
    /// one pod alone knows, and there are several; never with `stdio`, where any pod knows every session. `ClientIP`: always.
    /// `None`: never (default: Auto).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    /// A volume that outlives the pods, and the McpServer: deleting it keeps the PersistentVolumeClaim `<name>-mcp`,
    /// and a server of the same name takes it up again (default: none). It grows, keeps its class, and cannot be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Who reaches the pods, and where they get to (default: as the operator is set, which is that the operator, the apps of the
    /// namespace and the server's own pods get in, and what goes out goes anywhere).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What shapes the pods.
    #[serde(flatten)]
    pub pod: PodSettings,
}

impl McpServerSpec {
    /// The headers that probes and apps send.
    pub fn headers_from(&self) -> &[HeaderFrom] {
        let of_container = self.container.iter().map(|container| &*container.headers_from);
        of_container.chain(self.remote.iter().map(|remote| &*remote.headers_from)).next().unwrap_or_default()
    }
}

/// What only pods have, beside `replicas`.
const POD_FIELDS: [&str; 17] = [
    "autoscaling",
    "sessionAffinity",
    "storage",
    "network",
    "resources",
    "env",
    "envFrom",
    "volumes",
    "volumeMounts",
    "serviceAccountName",
    "automountServiceAccountToken",
    "imagePullSecrets",
    "imagePullPolicy",
    "securityContext",
    "terminationGracePeriodSeconds",
    "progressDeadlineSeconds",
    "podTemplate",
];

/// No field exists that does nothing.
fn remote_has_no_pods() -> Rule {
    let none: Vec<_> = POD_FIELDS.iter().map(|field| format!("!has(self.{field})")).collect();
    Rule::new(format!("!has(self.remote) || (self.replicas == 1 && {})", none.join(" && "))).message(
        format!("spec.replicas, {} shape pods, and a remote server has none here: remove them", POD_FIELDS.join(", ")).as_str(),
    )
}

/// Whether a client stays with one pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAffinity {
    /// While that is needed.
    #[default]
    Auto,
    /// Never.
    None,
    /// By its address.
    ClientIP,
}

/// A container that serves MCP over streamable HTTP.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSource {
    /// The image, for example `ghcr.io/mcpfleet/sandbox-server:0.1.0`.
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("image must name a container image, for example ghcr.io/mcpfleet/sandbox-server:0.1.0"))]
    #[schemars(length(max = 1_024))]
    pub image: String,
    /// Replaces the image's entrypoint (default: the image's).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub command: Vec<String>,
    /// Replaces the image's arguments (default: the image's).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_024))]
    pub args: Vec<String>,
    /// The port on which the server listens, and its Service (default: 8080). After an edit the Service listens on the former port, too,
    /// so that clients with the URL of before go on.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// The path of the MCP endpoint (default: /mcp).
    #[serde(default = "path")]
    #[x_kube(validation = Rule::new(r"self.matches(r'^/([^\s\p{Cc}?#%]|%[0-9A-Fa-f]{2})*$')").message("path must begin with '/' and hold no space, control character, '?' or '#', nor a '%' without two hexadecimal digits, for example /mcp"))]
    #[schemars(length(max = 1_024))]
    pub path: String,
    /// Headers out of Secrets that probes and apps send, for a server that wants to know who asks (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "headers")]
    pub headers_from: Vec<HeaderFrom>,
}

/// Headers: at most 32, each named once, whatever its case.
fn headers(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": HeaderFrom::json_schema(generator),
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "x-kubernetes-validations": [{
            "rule": "self.all(h, self.exists_one(other, other.name.lowerAscii() == h.name.lowerAscii()))",
            "message": "headersFrom must name each header once, and X-Key is x-key: remove one of the two",
        }],
    })
}

/// A server that runs elsewhere.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RemoteSource {
    /// The MCP endpoint, http or https. Put credentials into `headersFrom`, not here. It must not lead into the cluster, but to a
    /// Service of this namespace; docs/security.md says which addresses are refused.
    #[x_kube(validation = super::url_rule(r"(/[^\s#]*)?").message("url must be an http:// or https:// URL with a host, a port from 1 to 65535 if any, and without user, password or fragment, for example https://example.com/mcp"))]
    #[schemars(length(max = 2_048))]
    pub url: String,
    /// Headers that every request carries, out of Secrets (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "headers")]
    pub headers_from: Vec<HeaderFrom>,
    /// PEM certificates of a private CA that signs the server's certificate, used instead of the system's (default: the system's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

/// A header whose value is in a Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeaderFrom {
    /// The header's name, for example Authorization.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$')").message("name must be the name of an HTTP header, for example Authorization"))]
    #[x_kube(validation = Rule::new(format!("!(self.lowerAscii() in {OF_EVERY_REQUEST:?})")).message("name must not be a header of HTTP or MCP itself (Host, Content-Type, Mcp-Session-Id and the like), which every request has: name one that carries credentials, for example Authorization"))]
    #[schemars(length(max = 128))]
    pub name: String,
    /// Where the whole value is, for example `Bearer …`.
    pub secret_key_ref: SecretKeyRef,
}

/// A volume that outlives the pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("storage.storageClassName cannot be changed, for Kubernetes cannot move a volume to another class: set it back; to move the data, make a server of another name"),
    validation = Rule::new("!has(self.restoreFrom) || has(self.backup)")
        .message("storage.restoreFrom takes a backup from where storage.backup puts them: set storage.backup, too"),
    validation = Rule::new("!has(self.restoreFrom) || !has(self.backup) || !has(self.backup.command)")
        .message("storage.restoreFrom is for sandbox-server, and storage.backup.command is for others: remove one of the two; others restore by an init container of podTemplate"),
    validation = Rule::new("!has(self.restoreFrom) || !has(self.backup) || !has(self.backup.to.claim) || !self.restoreFrom.matches('/.*/')")
        .message("storage.restoreFrom names another namespace's server in a bucket alone, for a claim is of one namespace: name SERVER/latest or SERVER/NAME, or set storage.backup.to.s3")
)]
pub struct Storage {
    /// How much, for example 1Gi. It grows later where the StorageClass lets it, and never shrinks.
    #[schemars(schema_with = "quantity::size")]
    #[x_kube(validation = quantity::is_a_size("storage.size", "1Gi"))]
    #[x_kube(validation = quantity::only_grows("storage.size"))]
    pub size: Quantity,
    /// The StorageClass; an empty one, `""`, binds a volume that somebody made and that has none (default: the cluster's). It cannot be
    /// changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("pattern" = forms::STORAGE_CLASS))]
    pub storage_class_name: Option<String>,
    /// Where the container finds it.
    #[x_kube(validation = Rule::new(format!("self.startsWith('/') && self.matches(r'{}') && !({} in ['/tmp/', '/home/mcp/']) && !(self + '/').startsWith('/mcpfleet/')", forms::MOUNT_PATH, pod::folder("self"))).message("mountPath must be an absolute path without ':', '//', '.' and '..', other than '/', '/tmp' and '/home/mcp' and not below /mcpfleet, for example /data"))]
    #[schemars(length(max = 1_024))]
    pub mount_path: String,
    /// A backup at times (default: none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// What fills a volume that has no database, before the server starts: `latest`, or the name of a backup of this server in
    /// `backup.to`; SERVER/latest or SERVER/NAME of another server's there, and in a bucket NAMESPACE/SERVER/… of one in another namespace
    /// (default: nothing). A database that is there is never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 570), extend("pattern" = forms::BACKUP))]
    pub restore_from: Option<String>,
}

/// The tools contract: what the server offers must stay what was accepted.
///
/// The first list that the server offers is accepted, and kept in the ConfigMap `<name>-mcp-tools`. To accept another one, set `digest`
/// to the digest that `status.tools.digest` shows; or delete the ConfigMap, and the next list is accepted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tools {
    /// What a difference does: `Warn` tells it in the condition ToolsAccepted, `Enforce` also keeps a pod with other tools out of
    /// the Service (so that a rollout stalls at its first pod), `Ignore` does nothing (default: Warn).
    #[serde(default)]
    pub policy: ToolsPolicy,
    /// The digest of the accepted list, as `status.tools.digest` shows it (default: the first list that the
    /// server offered).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("pattern" = forms::DIGEST))]
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
    /// What came of `storage.backup`; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// What was decided about the number of pods; absent without `spec.autoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Pods that there are, of any template: what `kubectl scale` and autoscalers read.
    #[serde(default)]
    pub replicas: u32,
    /// Selects the pods, for autoscalers; absent for a remote server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Pods in service.
    #[serde(default)]
    pub ready_replicas: u32,
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

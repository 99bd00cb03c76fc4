//! The parts of the API that shape pods, shared by both kinds. Kubernetes' own names and shapes.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, EnvVar, HostAlias, LocalObjectReference, PodDNSConfig, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use kube::{KubeSchema, core::Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::forms;
pub use super::{
    quantity::{Quantity, Resources},
    security_context::SecurityContext,
};

/// A key of a Secret in the namespace of the object.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), extend("pattern" = forms::SUBDOMAIN))]
    pub name: String,
    /// The key in the Secret's data.
    #[schemars(length(min = 1, max = 253), extend("pattern" = forms::KEY))]
    pub key: String,
}

/// Labels and annotations that pods get beside ours.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels (default: none). Ours win where they meet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_values")]
    pub labels: BTreeMap<String, String>,
    /// Annotations (default: none). Ours win where they meet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where pods run, and what they carry.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.initContainers) || !has(self.sidecars) || self.initContainers.all(c, !self.sidecars.exists(s, s.name == c.name))")
        .message("podTemplate.initContainers and podTemplate.sidecars must have different names: rename one of the two"),
    validation = Rule::new("(!has(self.initContainers) || self.initContainers.all(c, !(c.name in ['mcp', 'mcp-bridge', 'mcp-install', 'mcp-calls', 'mcpfleet-restore', 'chat-worker']))) && (!has(self.sidecars) || self.sidecars.all(c, !(c.name in ['mcp', 'mcp-bridge', 'mcp-install', 'mcp-calls', 'mcpfleet-restore', 'chat-worker'])))")
        .message("podTemplate.initContainers and podTemplate.sidecars must not be called mcp, mcp-bridge, mcp-install, mcp-calls, mcpfleet-restore or chat-worker, which are the names of the containers that mcpfleet makes: rename them")
)]
pub struct PodTemplate {
    /// Labels and annotations of the pods (default: none but ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,
    /// Labels that a node must have (default: none).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_values")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Which nodes and which neighbours the pods want (default: any).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods spread over zones and nodes (default: over both, as far as there is room).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The PriorityClass of the pods (default: the cluster's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("pattern" = forms::SUBDOMAIN))]
    pub priority_class_name: Option<String>,
    /// The RuntimeClass of the pods, for example of gVisor or Kata (default: the node's own runtime).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("pattern" = forms::SUBDOMAIN))]
    pub runtime_class_name: Option<String>,
    /// Name servers, search domains and options of the pods' resolver, beside the cluster's (default: the cluster's alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<PodDNSConfig>,
    /// Lines for the pods' /etc/hosts (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,
    /// Containers that run to their end before the server's starts, after the sidecars have started (default: none). One that
    /// has no securityContext gets the server's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// Containers that run beside the server's, and start before it: init containers with restartPolicy Always, as Kubernetes
    /// has them (default: none). One that has no securityContext gets the server's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Container>,
}

/// When the kubelet pulls an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// When the node has it not.
    #[default]
    IfNotPresent,
    /// Never: the node has it, or the pod does not start.
    Never,
}

impl ImagePullPolicy {
    /// As a container has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The fields of a spec that shape its pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// CPU and memory of the container (default: what the namespace's LimitRange says, or no bounds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Environment variables of the container (default: none but ours).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Environment variables out of whole ConfigMaps and Secrets (default: none). When one of them changes, the pods roll.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env_from: Vec<EnvFromSource>,
    /// Volumes that the pods can mount, beside those that mcpfleet gives them (default: none). When a ConfigMap or Secret in one
    /// of them changes, the pods roll. A persistentVolumeClaim of your own that is not ReadWriteMany has one writer, as
    /// `storage` has: the pods are replaced one after the other, and there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Where the container mounts the volumes (default: nowhere).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// The ServiceAccount of the pods (default: the namespace's `default`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("pattern" = forms::SUBDOMAIN))]
    pub service_account_name: Option<String>,
    /// True: the token of the ServiceAccount is mounted at its usual place, for servers that talk to Kubernetes (default: false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// Secrets for pulling the images (default: none but those of the ServiceAccount).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// When the kubelet pulls the image: Always, IfNotPresent or Never (default: IfNotPresent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Who the pods run as, and what they may write (default: user 1000, not root, on a root that cannot be written).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// Seconds that a pod has to end, before it is ended by force; those in which a server hands over are part of them (default: 30
    /// for a server, 60 for an app).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub termination_grace_period_seconds: Option<u32>,
    /// Seconds without a step after which a rollout counts as stalled (default: 600). The old pods serve on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub progress_deadline_seconds: Option<u32>,
    /// Where the pods run, and what they carry (default: anywhere, and nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

impl PodSettings {
    /// `progressDeadlineSeconds`, or what Kubernetes takes without it.
    pub fn progress_deadline(&self) -> Duration {
        self.progress_deadline_seconds.map_or(Duration::from_mins(10), |seconds| Duration::from_secs(seconds.into()))
    }
}

/// The path of a mount as CEL, with a '/' at both ends whether it was given one or not.
pub fn folder(path: &str) -> String {
    format!("('/' + {path} + '/').replace('//', '/')")
}

/// Labels, whose values Kubernetes bounds.
fn label_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": forms::LABEL_VALUE},
    })
}

/// A mount names a volume of the spec: those that mcpfleet gives the pods are its own affair.
pub fn mounts_name_volumes() -> Rule {
    let rule =
        "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))";
    Rule::new(rule).message("each of spec.volumeMounts must name one of spec.volumes: correct its name, or add the volume")
}

/// No volume of the spec is called like one that mcpfleet gives the pods.
pub fn no_volume_is_called(ours: &[&str]) -> Rule {
    Rule::new(format!("!has(self.volumes) || self.volumes.all(v, !(v.name in {ours:?}))")).message(
        format!("spec.volumes must not be called {}: mcpfleet gives the pods volumes of these names", ours.join(", ")).as_str(),
    )
}

/// No volume of the spec is mounted where mcpfleet mounts one.
pub fn nothing_is_mounted_at(ours: &[&str]) -> Rule {
    let folders: Vec<_> = ours.iter().map(|path| format!("{path}/")).collect();
    Rule::new(format!("!has(self.volumeMounts) || self.volumeMounts.all(m, !({} in {folders:?}))", folder("m.mountPath")))
        .message(format!("spec.volumeMounts must not be at {}: mcpfleet mounts volumes there", ours.join(", ")).as_str())
}

/// Pods keep to the Pod Security Standard `restricted`, which lets nobody at a node's files.
pub fn no_host_path() -> Rule {
    Rule::new("!has(self.volumes) || self.volumes.all(v, !has(v.hostPath))")
        .message("spec.volumes must not hold a hostPath: the pods keep to the Pod Security Standard restricted; use a persistentVolumeClaim")
}

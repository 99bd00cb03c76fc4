//! The parts of the API that shape pods, shared by both kinds. Kubernetes' own names and shapes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
        Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::{KubeSchema, core::Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// CPU, memory and other resources of a container.
/// See <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside for the container, for example `{cpu: 100m, memory: 64Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, IntOrString>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
}

impl Resources {
    /// In the shape of the core API.
    pub fn to_requirements(&self) -> ResourceRequirements {
        let quantities = |map: &BTreeMap<String, IntOrString>| {
            (!map.is_empty()).then(|| map.iter().map(|(name, value)| (name.clone(), quantity(value))).collect())
        };
        ResourceRequirements { requests: quantities(&self.requests), limits: quantities(&self.limits), claims: None }
    }
}

/// A quantity as the core API has it: a string also where a person wrote a number.
pub fn quantity(value: &IntOrString) -> Quantity {
    Quantity(match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    })
}

/// A key of a Secret in the namespace of the object.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in the Secret's data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Labels and annotations that pods get beside ours.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels. Ours win where they meet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations. Ours win where they meet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where pods run, and what they carry.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Which nodes and which neighbours the pods want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods spread over zones and nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The fields of a spec that shape its pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// CPU and memory of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Environment variables of the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Environment variables out of whole ConfigMaps and Secrets. When one of them changes, the pods roll.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
    /// Volumes that the pods can mount, beside those that mcpfleet gives them. When a ConfigMap or Secret in one of them changes,
    /// the pods roll.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
    /// Where the container mounts the volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub volume_mounts: Vec<VolumeMount>,
    /// The ServiceAccount of the pods (default: the namespace's `default`). Its token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Secrets for pulling the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Where the pods run, and what they carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
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
    let spelled: Vec<_> = ours.iter().flat_map(|path| [(*path).to_owned(), format!("{path}/")]).collect();
    Rule::new(format!("!has(self.volumeMounts) || self.volumeMounts.all(m, !(m.mountPath in {spelled:?}))"))
        .message(format!("spec.volumeMounts must not be at {}: mcpfleet mounts volumes there", ours.join(", ")).as_str())
}

/// Pods keep to the Pod Security Standard `restricted`, which lets nobody at a node's files.
pub fn no_host_path() -> Rule {
    Rule::new("!has(self.volumes) || self.volumes.all(v, !has(v.hostPath))")
        .message("spec.volumes must not hold a hostPath: the pods keep to the Pod Security Standard restricted; use a persistentVolumeClaim")
}

//! What the pods of both kinds have in common: who they run as, and how they are shut in.
//!
//! The Pod Security Standard `restricted` (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>), a read-only root
//! with a writable /tmp, and no ServiceAccount token. And how they take what a spec says of its pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EmptyDirVolumeSource, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Volume,
        VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::{
    crd::pod::{PodMetadata, PodSettings, PodTemplate},
    names,
};

/// The user, group and volume group of every pod.
const USER: i64 = 1_000;

/// Old ReplicaSets that a Deployment keeps: the CR is what one goes back to, and ten of each would be most objects of a large fleet.
pub const REVISIONS: i32 = 2;

/// The metadata of a pod template: what the spec adds, and over it what is ours.
pub fn pod_metadata(settings: &PodSettings, ours: BTreeMap<String, String>, inputs: Option<&String>) -> ObjectMeta {
    let given = settings.pod_template.as_ref().and_then(|template| template.metadata.clone());
    let PodMetadata { mut labels, mut annotations } = given.unwrap_or_default();
    labels.extend(ours);
    annotations.extend(inputs.map(|digest| (names::ANNOTATION_INPUTS.to_owned(), digest.clone())));
    ObjectMeta { labels: Some(labels), annotations: some(annotations), ..ObjectMeta::default() }
}

/// A pod of one container, where and with what the spec wants it.
///
/// Of the container is given what is its own: the variables of the spec are there already where they meet others. Of the volumes
/// are given those that are ours; the spec's come after them.
pub fn pod(settings: &PodSettings, container: Container, volumes: Vec<Volume>) -> PodSpec {
    let template = settings.pod_template.clone().unwrap_or_default();
    let PodTemplate { metadata: _, node_selector, tolerations, affinity, topology_spread_constraints, priority_class_name } =
        template;
    let mounts = container.volume_mounts.iter().flatten().chain(&settings.volume_mounts).cloned();
    PodSpec {
        containers: vec![Container {
            env_from: some(settings.env_from.clone()),
            resources: some(settings.resources.clone().unwrap_or_default().to_requirements()),
            volume_mounts: Some(mounts.collect()),
            security_context: Some(container_security()),
            ..container
        }],
        volumes: Some(volumes.into_iter().chain(settings.volumes.iter().cloned()).collect()),
        security_context: Some(pod_security()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name: settings.service_account_name.clone(),
        image_pull_secrets: some(settings.image_pull_secrets.clone()),
        node_selector: some(node_selector),
        tolerations: some(tolerations),
        affinity,
        topology_spread_constraints: some(topology_spread_constraints),
        priority_class_name,
        ..PodSpec::default()
    }
}

/// The security context of every pod.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// The security context of every container.
fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

/// The one writable place of a read-only root, in the node's storage and bounded.
pub fn tmp() -> (Volume, VolumeMount) {
    let volume = Volume {
        name: "tmp".into(),
        empty_dir: Some(EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity("1Gi".into())) }),
        ..Volume::default()
    };
    let mount = VolumeMount { name: "tmp".into(), mount_path: "/tmp".into(), ..VolumeMount::default() };
    (volume, mount)
}

/// Some of what says anything: an empty list is left out, as Kubernetes leaves it out.
pub fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// The names of a pod's volumes and the paths of its mounts: the rules of the kinds reserve those that are ours.
#[cfg(test)]
pub fn volumes_of(pod: &PodSpec) -> (Vec<&str>, Vec<&str>) {
    let volumes = pod.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    let mounts = pod.containers[0].volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str()).collect();
    (volumes, mounts)
}

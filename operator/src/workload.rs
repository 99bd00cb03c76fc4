//! What the pods of both kinds have in common: who they run as, how they are shut in, the annotation that rolls them when what they mount
//! changes; and their Services.
//!
//! The Pod Security Standard `restricted` (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>), a read-only root
//! with writable places, and no ServiceAccount token, unless the spec says otherwise. And how they take what it says of its pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EmptyDirVolumeSource, EnvVar, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
        ServiceSpec, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::{
    crd::{
        self,
        pod::{PodMetadata, PodSettings, PodTemplate},
    },
    disruption, names,
};

/// Kubernetes' word for `sessionAffinity`: who comes from one address stays with one pod.
pub const CLIENT_IP: &str = "ClientIP";

/// The user, group and volume group of every pod that is given none.
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

/// What every Service says, so that whoever adds something else finds it put back: it is inside of the cluster, and leads to none but pods
/// that are ready.
pub fn service() -> ServiceSpec {
    ServiceSpec {
        type_: Some("ClusterIP".into()),
        publish_not_ready_addresses: Some(false),
        external_ips: Some(Vec::new()),
        ..ServiceSpec::default()
    }
}

/// A pod around one container, where and with what the spec wants it.
///
/// Of the container is given what is its own: the variables of the spec are there already where they meet others. Of the volumes
/// are given those that are ours; the spec's come after them. The labels are those by which the pods are selected: they spread, unless
/// the spec says how.
pub fn pod(settings: &PodSettings, pods: &BTreeMap<String, String>, container: Container, volumes: Vec<Volume>) -> PodSpec {
    let template = settings.pod_template.clone().unwrap_or_default();
    // Without `..`, so that a field that reaches no pod does not compile.
    let PodTemplate {
        metadata: _,
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
        priority_class_name,
        runtime_class_name,
        dns_config,
        host_aliases,
        init_containers,
        sidecars,
    } = template;
    let security = settings.security_context.clone().map(crd::pod::SecurityContext::resolved).unwrap_or_default();
    let container_security = container_security(&security);
    let mounts = container.volume_mounts.iter().flatten().chain(&settings.volume_mounts).cloned();
    let others = sidecars.into_iter().map(sidecar).chain(init_containers);
    PodSpec {
        init_containers: some(others.map(|other| with_security(other, &container_security)).collect()),
        containers: vec![Container {
            image_pull_policy: Some(settings.image_pull_policy.unwrap_or_default().as_str().into()),
            env_from: some(settings.env_from.clone()),
            resources: some(settings.resources.clone().unwrap_or_default().to_requirements()),
            volume_mounts: Some(mounts.collect()),
            security_context: Some(container_security),
            // A program that says why it ends says it on stderr.
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            ..container
        }],
        volumes: Some(volumes.into_iter().chain(settings.volumes.iter().cloned()).collect()),
        security_context: Some(pod_security(security)),
        automount_service_account_token: Some(settings.automount_service_account_token.unwrap_or(false)),
        termination_grace_period_seconds: settings.termination_grace_period_seconds.map(i64::from),
        enable_service_links: Some(false),
        // Said, so that whoever adds it finds it put back.
        host_network: Some(false),
        host_pid: Some(false),
        host_ipc: Some(false),
        // Always said: of one that is said no longer, Kubernetes keeps a copy under the field's former name, and takes it back from there.
        service_account_name: Some(settings.service_account_name.clone().unwrap_or_else(|| "default".into())),
        image_pull_secrets: some(settings.image_pull_secrets.clone()),
        node_selector: some(node_selector),
        tolerations: some(tolerations),
        affinity,
        topology_spread_constraints: some(topology_spread_constraints).or_else(|| Some(disruption::spread(pods))),
        priority_class_name,
        runtime_class_name,
        dns_config,
        host_aliases: some(host_aliases),
        ..PodSpec::default()
    }
}

/// A container that runs beside ours, from before ours starts until after it has ended.
fn sidecar(container: Container) -> Container {
    Container { restart_policy: Some("Always".into()), ..container }
}

/// A container of the spec is shut in like ours, unless it says how.
fn with_security(container: Container, ours: &SecurityContext) -> Container {
    let security_context = container.security_context.clone().or_else(|| Some(ours.clone()));
    let termination_message_policy =
        container.termination_message_policy.clone().or_else(|| Some("FallbackToLogsOnError".into()));
    Container { security_context, termination_message_policy, ..container }
}

/// The security context of every pod.
fn pod_security(given: crd::pod::SecurityContext) -> PodSecurityContext {
    let fs_group = given.fs_group.or(USER);
    PodSecurityContext {
        run_as_non_root: given.run_as_non_root.or(true),
        run_as_user: given.run_as_user.or(USER),
        run_as_group: given.run_as_group.or(USER),
        fs_group,
        // It says how the group is applied, and is refused by nobody, but means nothing without one.
        fs_group_change_policy: fs_group.map(|_| "OnRootMismatch".into()),
        supplemental_groups: some(given.supplemental_groups),
        se_linux_options: given.se_linux_options,
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// The security context of every container.
fn container_security(given: &crd::pod::SecurityContext) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: given.read_only_root_filesystem.or(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Whether the image's own files can be written.
pub fn root_is_writable(settings: &PodSettings) -> bool {
    settings.security_context.as_ref().is_some_and(|given| given.read_only_root_filesystem.or(true) != Some(true))
}

/// The variables of the spec behind ours: a variable that the spec names is the spec's.
pub fn environment(ours: impl IntoIterator<Item = (&'static str, String)>, settings: &PodSettings) -> Vec<EnvVar> {
    let ours = ours.into_iter().map(|(name, value)| EnvVar { name: name.into(), value: Some(value), value_from: None });
    ours.filter(|variable| settings.env.iter().all(|given| given.name != variable.name))
        .chain(settings.env.iter().cloned())
        .collect()
}

/// A writable place of a read-only root, in the node's storage and bounded.
pub fn scratch(name: &str, path: &str) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity("1Gi".into())) }),
        ..Volume::default()
    };
    let mount = VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() };
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

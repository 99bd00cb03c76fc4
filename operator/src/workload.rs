//! What the pods of both kinds have in common: who they run as, and how they are shut in.
//!
//! The Pod Security Standard `restricted` (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>), a read-only root
//! with a writable /tmp, and no ServiceAccount token.

use k8s_openapi::{
    api::core::v1::{
        Capabilities, EmptyDirVolumeSource, PodSecurityContext, SeccompProfile, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};

/// The user, group and volume group of every pod.
const USER: i64 = 1_000;

/// The security context of every pod.
pub fn pod_security() -> PodSecurityContext {
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
pub fn container_security() -> SecurityContext {
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

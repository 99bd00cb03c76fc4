//! What pods have whose server speaks over standard input and output: the bridge in the server's own container, what `npx` or `uvx`
//! installs before it starts, and the keys by which replicas share sessions.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{
        Container as PodContainer, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector,
        PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PodSpec, Probe, Secret,
        SecretVolumeSource, Volume, VolumeMount, VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use mcp_stdio::package::Wanted;

use super::metadata;
use crate::{
    crd::{
        mcp_server::{BRIDGE_DIR, HOME, PACKAGES_DIR, SESSIONS_DIR},
        stdio::Sessions,
    },
    mcp_server::{
        stdio::{KEYS, Stdio},
        validate::ValidatedServer,
    },
    names::Component,
    workload,
};

const BRIDGE: &str = "mcp-bridge";
const PACKAGES: &str = "mcp-packages";
const KEY_VOLUME: &str = "mcp-sessions";

/// What a pod may install without a cache of its own.
const PACKAGES_LIMIT: &str = "4Gi";

/// The Secret with the keys that seal session ids. A person may put others in: they stay.
pub(super) fn secret(server: &ValidatedServer, stdio: &Stdio) -> Secret {
    Secret {
        metadata: ObjectMeta { name: Some(Component::sessions_name(&server.name)), ..metadata(server) },
        data: Some(BTreeMap::from([(KEYS.into(), ByteString(stdio.keys.clone().into_bytes()))])),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

/// The claim that keeps what is installed. It is owned: nothing in it cannot be installed again.
pub(super) fn cache(server: &ValidatedServer, stdio: &Stdio) -> Option<PersistentVolumeClaim> {
    let cache = stdio.cache.as_ref()?;
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(Component::cache_name(&server.name)), ..metadata(server) },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: cache.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), cache.size.clone())])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}

/// The volumes of the pods, and where the server's container has them.
pub(super) fn volumes(server: &ValidatedServer, stdio: &Stdio) -> (Vec<Volume>, Vec<VolumeMount>) {
    let (bridge, bridge_mount) = workload::scratch(BRIDGE, BRIDGE_DIR);
    let keys = Volume {
        name: KEY_VOLUME.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(Component::sessions_name(&server.name)),
            items: Some(vec![KeyToPath { key: KEYS.into(), path: KEYS.into(), mode: None }]),
            default_mode: Some(0o440),
            optional: None,
        }),
        ..Volume::default()
    };
    let keys_mount = VolumeMount { mount_path: SESSIONS_DIR.into(), ..read_only(KEY_VOLUME) };
    // The server cannot put another program in the bridge's place.
    let bridge_mount = VolumeMount { mount_path: bridge_mount.mount_path, ..read_only(BRIDGE) };
    let (mut volumes, mut mounts) = (vec![bridge, keys], vec![bridge_mount, keys_mount]);
    if stdio.package.is_some() {
        let mut packages = Volume { name: PACKAGES.into(), ..Volume::default() };
        if stdio.cache.is_some() {
            let claim_name = Component::cache_name(&server.name);
            packages.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None });
        } else {
            let limit = Some(Quantity(PACKAGES_LIMIT.into()));
            packages.empty_dir = Some(EmptyDirVolumeSource { medium: None, size_limit: limit });
        }
        volumes.push(packages);
        // Not read-only: there are servers that keep their data beside their program.
        mounts.push(VolumeMount { name: PACKAGES.into(), mount_path: PACKAGES_DIR.into(), ..VolumeMount::default() });
    }
    (volumes, mounts)
}

fn read_only(name: &str) -> VolumeMount {
    VolumeMount { name: name.into(), read_only: Some(true), ..VolumeMount::default() }
}

/// Where programs of other makers put what they fetch and keep, in a container whose root cannot be written.
pub(super) fn caches() -> [(&'static str, String); 3] {
    [
        ("XDG_CACHE_HOME", format!("{HOME}/.cache")),
        ("npm_config_cache", format!("{HOME}/.npm")),
        ("UV_CACHE_DIR", format!("{HOME}/.cache/uv")),
    ]
}

/// The address by which the other replicas reach this one.
pub(super) fn own_address() -> EnvVar {
    let field = ObjectFieldSelector { field_path: "status.podIP".into(), api_version: None };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: "POD_IP".into(), value: None, value_from: Some(source) }
}

/// A dead child is seen by the kubelet at once. Where each session has one, the next one's may be on its way while others serve: there
/// it is enough that the bridge listens.
pub(super) fn readiness(stdio: &Stdio, listens: Probe) -> Probe {
    if stdio.sessions == Sessions::PerSession {
        return listens;
    }
    let get = HTTPGetAction { path: Some("/readyz".into()), port: IntOrString::String("mcp".into()), ..HTTPGetAction::default() };
    Probe { tcp_socket: None, http_get: Some(get), ..listens }
}

/// Puts before the server's container who brings the bridge, and who installs the package: after what the spec has run before it,
/// which may be what leads to the network.
pub(super) fn prepare(pod: &mut PodSpec, stdio: &Stdio) {
    let Some(server) = pod.containers.first().cloned() else { return };
    let init = pod.init_containers.get_or_insert_default();
    let mount = |name: &str, path: &str| VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() };
    init.push(PodContainer {
        name: BRIDGE.into(),
        image: Some(stdio.bridge_image.clone()),
        args: Some(vec!["copy-self".into(), BRIDGE_DIR.into()]),
        volume_mounts: Some(vec![mount(BRIDGE, BRIDGE_DIR)]),
        ..beside(&server)
    });
    let Some(package) = &stdio.package else { return };
    // Where packages go decides where their installers keep theirs: with them, in the cache.
    let kept = |variable: &EnvVar| !["npm_config_cache", "UV_CACHE_DIR"].contains(&variable.name.as_str()) || !is_ours(variable);
    init.push(PodContainer {
        name: "mcp-install".into(),
        image: server.image.clone(),
        command: server.command.clone(),
        args: Some(install(package, stdio.registry.as_deref())),
        env: server.env.clone().map(|env| env.into_iter().filter(kept).collect()),
        env_from: server.env_from.clone(),
        // What a package runs while it is installed has no business with the keys.
        volume_mounts: server.volume_mounts.clone().map(|mounts| mounts.into_iter().filter(|it| it.name != KEY_VOLUME).collect()),
        ..beside(&server)
    });
}

fn is_ours(variable: &EnvVar) -> bool {
    caches().iter().any(|(name, value)| *name == variable.name && variable.value.as_ref() == Some(value))
}

/// A container that is shut in like the server's, and asks a node for no more.
fn beside(server: &PodContainer) -> PodContainer {
    PodContainer {
        image_pull_policy: server.image_pull_policy.clone(),
        resources: server.resources.clone(),
        security_context: server.security_context.clone(),
        termination_message_policy: server.termination_message_policy.clone(),
        ..PodContainer::default()
    }
}

fn install(wanted: &Wanted, from: Option<&str>) -> Vec<String> {
    // The arguments are the server's.
    let Wanted { registry, package, with, python, program, args: _ } = wanted;
    // As in `run`: the variables of the spec are not meant for the bridge.
    let mut args = vec!["--log-level=INFO".to_owned(), "install".to_owned(), format!("--into={PACKAGES_DIR}")];
    args.extend(with.iter().map(|with| format!("--with={with}")));
    args.extend(python.iter().map(|python| format!("--python={python}")));
    args.extend(program.iter().map(|program| format!("--program={program}")));
    args.extend(from.map(|registry| format!("--default-registry={registry}")));
    args.extend([registry.as_str().to_owned(), "--".to_owned(), package.clone()]);
    args
}

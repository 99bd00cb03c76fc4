//! The Deployment: pods that come into service only when the prober says so.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Container as PodContainer, ContainerPort, Lifecycle, LifecycleHandler, PersistentVolumeClaimVolumeSource,
            PodReadinessGate, PodSpec, PodTemplateSpec, Probe, SleepAction, TCPSocketAction, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{backup, counting, metadata, stdio};
use crate::{
    crd::mcp_server::HOME,
    mcp_server::validate::{Container, ValidatedServer, Volume as DataVolume},
    names::{self, Component},
    workload::{self, some},
};

pub(super) const DATA_VOLUME: &str = "data";

pub(super) fn build(server: &ValidatedServer, container: &Container) -> Deployment {
    Deployment {
        metadata: metadata(server),
        spec: Some(DeploymentSpec {
            replicas: Some(container.replicas),
            paused: Some(false),
            revision_history_limit: Some(workload::REVISIONS),
            selector: LabelSelector { match_labels: Some(Component::Server.selector(&server.name)), match_expressions: None },
            strategy: Some(strategy(container)),
            template: template(server, container),
            progress_deadline_seconds: container.pod.progress_deadline_seconds.and_then(|seconds| i32::try_from(seconds).ok()),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// With a volume there is one writer at a time, so the old pod goes first. Without, a new pod must be in service, which takes proof,
/// before an old one goes: a version that never proves itself stalls, and the old one serves on.
fn strategy(container: &Container) -> DeploymentStrategy {
    if container.one_writer {
        return DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_unavailable: Some(IntOrString::Int(0)),
            max_surge: Some(IntOrString::Int(1)),
        }),
    }
}

/// Seconds that a pod serves on that is to go: kube-proxy and others send it new calls until they have learnt of it.
const HANDOVER_SECONDS: i64 = 5;
/// How long Kubernetes lets a pod end, where nobody says.
const GRACE_SECONDS: i64 = 30;

/// A program that ends at once when it is told to would lose those calls. Where there is one writer, there is nobody to hand over to,
/// and waiting would only lengthen the gap. It is part of the pod's time to end. Where the calls are counted, who counts them waits for the
/// last of them, too.
fn hand_over(container: &Container) -> Option<Lifecycle> {
    // The bridge does it by itself.
    let alone = container.one_writer || container.stdio.is_some();
    let grace = container.pod.termination_grace_period_seconds.map_or(GRACE_SECONDS, i64::from);
    let seconds = HANDOVER_SECONDS.min(grace - 1);
    let handler = match &container.counting {
        Some(counting) => LifecycleHandler { http_get: Some(counting::drained(counting)), ..LifecycleHandler::default() },
        None => LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() },
    };
    (!alone && seconds > 0).then(|| Lifecycle { pre_stop: Some(handler), ..Lifecycle::default() })
}

/// Beside the gate, which takes a round trip of the prober: what the kubelet can see, it sees at once. Nobody listens for the first
/// seconds after a container's restart, and the gate was left open by the one before.
fn listens(port: &str) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::String(port.into()), host: None }),
        period_seconds: Some(1),
        timeout_seconds: Some(1),
        failure_threshold: Some(2),
        ..Probe::default()
    }
}

fn template(server: &ValidatedServer, container: &Container) -> PodTemplateSpec {
    let (tmp, tmp_mount) = workload::scratch("tmp", "/tmp");
    let mut volumes = vec![tmp];
    let mut mounts = vec![tmp_mount];
    let mut variables = Vec::new();
    if !workload::root_is_writable(&container.pod) {
        // Most programs of other makers write there: caches, settings, lock files.
        let (home, home_mount) = workload::scratch("home", HOME);
        volumes.push(home);
        mounts.push(home_mount);
        variables = vec![("HOME", HOME.to_owned()), ("TMPDIR", "/tmp".to_owned())];
        variables.extend(container.stdio.iter().flat_map(|_| stdio::caches()));
    }
    let mut environment = workload::environment(variables, &container.pod);
    let mut readiness = listens(counting::own_port(container));
    if let Some(stdio) = &container.stdio {
        let (of_bridge, bridge_mounts) = stdio::volumes(server, stdio);
        volumes.extend(of_bridge);
        mounts.extend(bridge_mounts);
        // Before those of the spec, which may refer to it; and the only one of its name.
        environment.retain(|variable| variable.name != "POD_IP");
        environment.insert(0, stdio::own_address());
        readiness = stdio::readiness(stdio, readiness);
    }
    let mut settings = container.pod.clone();
    if let Some(volume) = &container.volume {
        let (data, mount) = data(server, volume);
        volumes.push(data);
        mounts.push(mount);
        if let Some((restore, from)) = backup::restore(server, container, volume) {
            volumes.extend(from);
            // Before those of the spec: they may look at the data.
            settings.pod_template.get_or_insert_default().init_containers.insert(0, restore);
        }
    }
    let mcp = PodContainer {
        name: "mcp".into(),
        image: Some(container.source.image.clone()),
        command: some(container.source.command.clone()),
        args: some(container.source.args.clone()),
        ports: Some(vec![ContainerPort {
            name: Some(counting::own_port(container).into()),
            container_port: i32::from(container.source.port),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        env: some(environment),
        lifecycle: hand_over(container),
        readiness_probe: Some(readiness),
        volume_mounts: Some(mounts),
        ..PodContainer::default()
    };
    let mut metadata = workload::pod_metadata(&container.pod, server.labels(), container.inputs.as_ref());
    metadata.annotations.get_or_insert_default().extend(container.asked.clone());
    let mut pod = PodSpec {
        readiness_gates: Some(vec![PodReadinessGate { condition_type: names::POD_GATE.into() }]),
        ..workload::pod(&settings, &Component::Server.selector(&server.name), mcp, volumes)
    };
    if let Some(stdio) = &container.stdio {
        stdio::prepare(&mut pod, stdio);
        pod.termination_grace_period_seconds = Some(stdio.grace_seconds.into());
    }
    let grace = container.pod.termination_grace_period_seconds.map_or(GRACE_SECONDS, i64::from);
    counting::put_beside(&mut pod, container, grace);
    PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) }
}

/// The volume that outlives the pods, and where the container finds it.
pub(super) fn data(server: &ValidatedServer, volume: &DataVolume) -> (Volume, VolumeMount) {
    let claim = PersistentVolumeClaimVolumeSource { claim_name: server.child_name(), read_only: None };
    let data = Volume { name: DATA_VOLUME.into(), persistent_volume_claim: Some(claim), ..Volume::default() };
    (data, data_mount(volume))
}

pub(super) fn data_mount(volume: &DataVolume) -> VolumeMount {
    VolumeMount { name: DATA_VOLUME.into(), mount_path: volume.mount_path.clone(), ..VolumeMount::default() }
}

//! The Deployment: chat workers without state, so that any of them can answer.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, KeyToPath, PodTemplateSpec, Probe,
            SecretVolumeSource, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{
    credentials, environment, metadata,
    paths::{CONFIG_DIR, KEY_DIR, KEY_FILE, TOKEN_DIR, TOKEN_FILE},
};
use crate::{
    mcp_app::{
        observe::TOKEN_KEY,
        validate::{Token, ValidatedApp},
    },
    names::Component,
    workload,
};

/// Answers that are being given end by themselves in this time, mostly.
const GRACE_SECONDS: i64 = 60;

pub(super) fn build(app: &ValidatedApp) -> Deployment {
    Deployment {
        metadata: metadata(app),
        spec: Some(DeploymentSpec {
            replicas: Some(app.replicas),
            paused: Some(false),
            revision_history_limit: Some(workload::REVISIONS),
            selector: LabelSelector { match_labels: Some(Component::App.selector(&app.name)), match_expressions: None },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            template: template(app),
            progress_deadline_seconds: app.pod.progress_deadline_seconds.and_then(|seconds| i32::try_from(seconds).ok()),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn template(app: &ValidatedApp) -> PodTemplateSpec {
    let (volumes, mounts) = volumes(app);
    PodTemplateSpec {
        metadata: Some(workload::pod_metadata(&app.pod, app.labels(), app.inputs.as_ref())),
        spec: Some({
            let mut pod = workload::pod(&app.pod, &Component::App.selector(&app.name), container(app, mounts), volumes);
            pod.termination_grace_period_seconds.get_or_insert(GRACE_SECONDS);
            pod
        }),
    }
}

fn container(app: &ValidatedApp, mounts: Vec<VolumeMount>) -> Container {
    Container {
        name: "chat-worker".into(),
        image: Some(app.image.clone()),
        args: Some(["serve", "--listen", "[::]:8080"].map(Into::into).into()),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: 8080,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        env: Some(environment::build(app)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        liveness_probe: Some(probe("/healthz", 20, 3)),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn volumes(app: &ValidatedApp) -> (Vec<Volume>, Vec<VolumeMount>) {
    let child = app.child_name();
    let (token_secret, token_key) = match &app.token {
        Token::Ours(_) => (child.as_str(), TOKEN_KEY),
        Token::Given(reference) => (reference.name.as_str(), reference.key.as_str()),
    };
    let (tmp, tmp_mount) = workload::scratch("tmp", "/tmp");
    let config = Volume {
        name: "config".into(),
        config_map: Some(ConfigMapVolumeSource { name: child.clone(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    let key = app.model.as_ref().and_then(|model| model.api_key_secret_ref.as_ref());
    let model = key.map(|key| secret_volume("model", &key.name, &key.key, KEY_FILE));
    let access = secret_volume("access", token_secret, token_key, TOKEN_FILE);
    let servers = credentials::volume(app);
    let paths = [
        Some(("config", CONFIG_DIR)),
        model.as_ref().map(|_| ("model", KEY_DIR)),
        Some(("access", TOKEN_DIR)),
        servers.as_ref().map(|_| ("servers", credentials::DIR)),
    ];
    let read_only = paths.into_iter().flatten();
    let mounts = read_only.map(|(name, path)| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    (
        [Some(tmp), Some(config), model, Some(access), servers].into_iter().flatten().collect(),
        [tmp_mount].into_iter().chain(mounts).collect(),
    )
}

/// One key of a Secret as one file. Readable by the group: the pod's user is not root.
fn secret_volume(name: &str, secret: &str, key: &str, file: &str) -> Volume {
    Volume {
        name: name.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            items: Some(vec![KeyToPath { key: key.into(), path: file.into(), mode: None }]),
            default_mode: Some(0o440),
            optional: None,
        }),
        ..Volume::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(3),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

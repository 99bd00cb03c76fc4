//! The CronJob that backs up the volume of a server, and the init container that fills an empty one from what it made.

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec},
        core::v1::{
            Affinity, Container as PodContainer, EnvVar, EnvVarSource, PersistentVolumeClaimVolumeSource, PodAffinity,
            PodAffinityTerm, PodSpec, PodTemplateSpec, SecretKeySelector, Volume as PodVolume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use sha2::{Digest, Sha256};

use super::{deployment, metadata};
use crate::{
    crd::{
        backup::{Backup, Place, S3},
        pod::PodSettings,
    },
    digest::hex,
    mcp_server::validate::{Container, ValidatedServer, Volume},
    names::{self, Component},
    workload::{self, some},
};

/// The volume of the claim that backups go to, and where it is mounted.
pub(super) const VOLUME: &str = "mcpfleet-backup";
const FOLDER: &str = "/var/backups/mcpfleet";

/// A CronJob's name must leave room for its jobs' suffixes.
const LONGEST_NAME: usize = 52;
const SUFFIX: &str = names::BACKUP_SUFFIX;

/// After so long a job is ended: one that cannot run would keep the next from being made.
const LONGEST_SECONDS: i64 = 6 * 3_600;
/// How often a backup that failed is tried again, before the next one of the schedule.
const TRIES_MORE: i32 = 2;
/// How long a job stays that is done, for its log: over a weekend. Its pods hold the server's claim as long, and the last ones of a
/// server that is switched off would hold it for ever. What came of it is in the status by then.
const KEPT_SECONDS: i32 = 3 * 24 * 3_600;

/// The CronJob's name.
pub fn name(server: &str) -> String {
    let room = LONGEST_NAME - SUFFIX.len();
    if server.len() <= room {
        return format!("{server}{SUFFIX}");
    }
    // Two long names that begin alike stay two.
    let hash = &hex(&Sha256::digest(server))[..8];
    format!("{}-{hash}{SUFFIX}", server[..room - 9].trim_end_matches('-'))
}

/// None: nothing is backed up, or nobody knows how.
pub(super) fn build(server: &ValidatedServer, container: &Container) -> Option<CronJob> {
    let volume = container.volume.as_ref()?;
    let backup = volume.backup.as_ref()?;
    let job = job(server, container, volume, backup)?;
    Some(CronJob {
        metadata: ObjectMeta { name: Some(name(&server.name)), ..metadata(server) },
        spec: Some(CronJobSpec {
            schedule: backup.schedule.clone(),
            time_zone: Some("Etc/UTC".into()),
            concurrency_policy: Some("Forbid".into()),
            // Nothing changes while nobody serves.
            suspend: Some(container.replicas == 0),
            job_template: JobTemplateSpec { metadata: Some(labelled(server)), spec: Some(job) },
            ..CronJobSpec::default()
        }),
        status: None,
    })
}

/// The labels of what is made for a backup. They are not those of the server's pods: its Service, its budget and its policy are not
/// about these.
fn labelled(server: &ValidatedServer) -> ObjectMeta {
    let labels = [
        (names::LABEL_COMPONENT, names::COMPONENT_BACKUP),
        (names::LABEL_NAME, names::COMPONENT_BACKUP),
        (names::LABEL_INSTANCE, &*server.name),
        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
    ];
    let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
    ObjectMeta { labels: Some(labels.into()), ..ObjectMeta::default() }
}

fn job(server: &ValidatedServer, container: &Container, volume: &Volume, backup: &Backup) -> Option<JobSpec> {
    let (command, args) = match (&*backup.command, &volume.database) {
        ([], Some(database)) => (program(container, backup), vec!["backup".into(), "--db".into(), database.clone()]),
        ([], None) => return None,
        (command, _) => (command.to_vec(), Vec::new()),
    };
    let keep = backup.keep.to_string();
    let to = destination(&backup.to, None);
    // For sandbox-server by its own names. The last is how its size gets into the status: by the container's last words.
    let ours = [
        ("SANDBOX_BACKUP_TO", to.clone()),
        ("SANDBOX_BACKUP_KEEP", keep.clone()),
        ("SANDBOX_BACKUP_METRICS_FILE", LAST_WORDS.into()),
    ];
    let others = [("BACKUP_TO", to), ("BACKUP_KEEP", keep)];
    let said = if backup.command.is_empty() { ours.to_vec() } else { others.to_vec() };
    let (place, place_mount) = place(&backup.to);
    let (data, data_mount) = deployment::data(server, volume);
    let (tmp, tmp_mount) = workload::scratch("tmp", "/tmp");
    let worker = PodContainer {
        name: "backup".into(),
        image: Some(backup.image.clone().unwrap_or_else(|| container.source.image.clone())),
        command: some(command),
        args: some(args),
        env: Some(environment(said, &backup.to, &container.pod)),
        volume_mounts: Some([Some(tmp_mount), Some(data_mount), place_mount].into_iter().flatten().collect()),
        ..PodContainer::default()
    };
    let volumes = [Some(tmp), Some(data), place].into_iter().flatten().collect();
    let pod = workload::pod(&container.pod, &Component::Server.selector(&server.name), worker, volumes);
    Some(JobSpec {
        active_deadline_seconds: Some(LONGEST_SECONDS),
        backoff_limit: Some(TRIES_MORE),
        ttl_seconds_after_finished: Some(KEPT_SECONDS),
        template: PodTemplateSpec {
            metadata: Some(labelled(server)),
            spec: Some(PodSpec {
                restart_policy: Some("Never".into()),
                // What runs beside the server has no business here, and would keep the job from ending.
                init_containers: None,
                topology_spread_constraints: None,
                affinity: (container.replicas > 0).then(|| beside(server)),
                ..pod
            }),
        },
        ..JobSpec::default()
    })
}

/// Where Kubernetes looks for what a container says last.
const LAST_WORDS: &str = "/dev/termination-log";

/// Of the server's own command what is run; of another image its entrypoint.
fn program(container: &Container, backup: &Backup) -> Vec<String> {
    container.source.command.first().filter(|_| backup.image.is_none()).cloned().into_iter().collect()
}

/// A volume that one node mounts is on the node of the server's pod.
fn beside(server: &ValidatedServer) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(Component::Server.selector(&server.name)),
            match_expressions: None,
        }),
        topology_key: "kubernetes.io/hostname".into(),
        ..PodAffinityTerm::default()
    };
    Affinity {
        pod_affinity: Some(PodAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    }
}

/// The init container that fills an empty volume, and the volume that it takes it from. It touches no database that is there.
pub(super) fn restore(container: &Container, volume: &Volume) -> Option<(PodContainer, Option<PodVolume>)> {
    let (from, backup, database) = (volume.restore_from.as_ref()?, volume.backup.as_ref()?, volume.database.as_ref()?);
    let name = (from != "latest").then_some(from.as_str());
    let args = ["restore", "--db", database, "--from", &destination(&backup.to, name), "--if-missing"];
    let (place, place_mount) = place(&backup.to);
    let data_mount = deployment::data_mount(volume);
    let (_, tmp_mount) = workload::scratch("tmp", "/tmp");
    let restore = PodContainer {
        name: "mcpfleet-restore".into(),
        image: Some(backup.image.clone().unwrap_or_else(|| container.source.image.clone())),
        image_pull_policy: Some(container.pod.image_pull_policy.unwrap_or_default().as_str().into()),
        command: some(program(container, backup)),
        args: Some(args.map(Into::into).into()),
        env: some(environment(Vec::new(), &backup.to, &container.pod)),
        env_from: some(container.pod.env_from.clone()),
        resources: some(container.pod.resources.clone().unwrap_or_default().to_requirements()),
        volume_mounts: Some([Some(tmp_mount), Some(data_mount), place_mount].into_iter().flatten().collect()),
        ..PodContainer::default()
    };
    Some((restore, place))
}

/// The place as sandbox-server takes it, or one backup in it.
fn destination(place: &Place, name: Option<&str>) -> String {
    let folder = match &place.s3 {
        Some(S3 { bucket, prefix: Some(prefix), .. }) => format!("s3://{bucket}/{prefix}"),
        Some(S3 { bucket, prefix: None, .. }) => format!("s3://{bucket}"),
        None => FOLDER.to_owned(),
    };
    match name {
        Some(name) => format!("{folder}/{name}"),
        None => folder,
    }
}

fn place(place: &Place) -> (Option<PodVolume>, Option<VolumeMount>) {
    let claim = place.claim.as_ref().map(|claim| PodVolume {
        name: VOLUME.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: None }),
        ..PodVolume::default()
    });
    let mount = claim.as_ref().map(|_| VolumeMount { name: VOLUME.into(), mount_path: FOLDER.into(), ..VolumeMount::default() });
    (claim, mount)
}

/// What the program is told, over what the spec says: where a bucket is, and the keys to it.
fn environment(said: Vec<(&'static str, String)>, place: &Place, settings: &PodSettings) -> Vec<EnvVar> {
    let mut ours: Vec<EnvVar> = said.into_iter().map(|(name, value)| plain(name, value)).collect();
    if let Some(s3) = &place.s3 {
        ours.extend(s3.endpoint.clone().map(|endpoint| plain("AWS_ENDPOINT_URL", endpoint)));
        ours.push(plain("AWS_REGION", s3.region.clone().unwrap_or_else(|| "us-east-1".into())));
        let secret = s3.credentials_secret_ref.as_ref();
        let keys = [("AWS_ACCESS_KEY_ID", None), ("AWS_SECRET_ACCESS_KEY", None), ("AWS_SESSION_TOKEN", Some(true))];
        ours.extend(secret.into_iter().flat_map(|secret| keys.map(|(key, optional)| out_of(&secret.name, key, optional))));
    }
    let theirs = settings.env.iter().filter(|given| ours.iter().all(|variable| variable.name != given.name)).cloned();
    theirs.collect::<Vec<_>>().into_iter().chain(ours).collect()
}

fn plain(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value), ..EnvVar::default() }
}

fn out_of(secret: &str, key: &str, optional: Option<bool>) -> EnvVar {
    let selector = SecretKeySelector { name: secret.into(), key: key.into(), optional };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: key.into(), value_from: Some(source), ..EnvVar::default() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        child::read,
        crd::McpServer,
        fixtures,
        mcp_server::{build, observe::Observed, validate::validate},
        network::Surroundings,
    };

    fn server(args: &Value, storage: &Value) -> McpServer {
        let mut whole = json!({"size": "1Gi", "mountPath": "/data"});
        whole.as_object_mut().expect("an object").extend(storage.as_object().expect("an object").clone());
        fixtures::server(|server| {
            server.spec.container.as_mut().expect("a container").args = serde_json::from_value(args.clone()).expect("arguments");
            server.spec.storage = Some(serde_json::from_value(whole).expect("storage"));
        })
    }

    fn children(server: &McpServer) -> Vec<crate::child::Child> {
        build::children(&validate(server, &Observed::default()).expect("valid"), &Surroundings::default())
    }

    fn notes(server: &McpServer) -> Vec<String> {
        validate(server, &Observed::default()).expect("valid").notes.into_iter().map(|note| note.message).collect()
    }

    const SCHEDULE: &str = "30 3 * * *";

    #[test]
    fn a_backup_to_a_claim_and_back() {
        let args = json!(["serve", "--db", "/data/x.db"]);
        let storage = json!({"backup": {"schedule": SCHEDULE, "to": {"claim": "kept"}}, "restoreFrom": "latest"});
        let children = children(&server(&args, &storage));
        insta::assert_yaml_snapshot!("backup_to_a_claim", read::<CronJob>(&children));
        let pod = read::<Deployment>(&children).and_then(|deployment| deployment.spec?.template.spec).expect("a pod");
        insta::assert_yaml_snapshot!("restore_from_a_claim", pod.init_containers);
        assert_eq!(workload::volumes_of(&pod).0, ["tmp", "home", "data", VOLUME]);
        assert!(crate::crd::mcp_server::OWN_VOLUMES.contains(&VOLUME));
    }

    #[test]
    fn a_bucket_has_an_address_and_keys_out_of_a_secret() {
        let s3 = json!({"bucket": "backups", "prefix": "team/db", "endpoint": "http://s3:9000", "credentialsSecretRef": {"name": "keys"}});
        let storage =
            json!({"backup": {"schedule": SCHEDULE, "keep": 3, "to": {"s3": s3}}, "restoreFrom": "x-20260101T000000000Z.db"});
        let children = children(&server(&json!(["serve", "--db=/data/x.db"]), &storage));
        let job = read::<CronJob>(&children).and_then(|cron| cron.spec?.job_template.spec?.template.spec).expect("a pod");
        insta::assert_yaml_snapshot!("backup_to_a_bucket", job.containers[0].env);
        assert!(job.volumes.iter().flatten().all(|volume| volume.name != VOLUME));
        let pod = read::<Deployment>(&children).and_then(|deployment| deployment.spec?.template.spec).expect("a pod");
        let args = pod.init_containers.expect("a restore")[0].args.clone().expect("arguments");
        assert_eq!(args[4], "s3://backups/team/db/x-20260101T000000000Z.db");
    }

    #[test]
    fn a_command_of_ones_own_is_told_where_to_and_how_many() {
        let backup = json!({"schedule": "@daily", "to": {"claim": "kept"}, "image": "tools:1", "command": ["dump"]});
        let children = children(&server(&json!([]), &json!({"backup": backup})));
        let job = read::<CronJob>(&children).and_then(|cron| cron.spec?.job_template.spec?.template.spec).expect("a pod");
        let container = json!(job.containers[0]);
        assert_eq!(
            (&container["image"], &container["command"], container.get("args")),
            (&json!("tools:1"), &json!(["dump"]), None)
        );
        assert_eq!(container["env"], json!([{"name": "BACKUP_TO", "value": FOLDER}, {"name": "BACKUP_KEEP", "value": "7"}]));
    }

    #[test]
    fn a_database_that_nobody_knows_of_is_told_and_not_backed_up() {
        let backup = json!({"backup": {"schedule": SCHEDULE, "to": {"claim": "kept"}}});
        for args in [json!([]), json!(["--db", "/tmp/x.db"])] {
            let server = server(&args, &backup);
            assert!(read::<CronJob>(&children(&server)).is_none());
            assert!(notes(&server)[0].contains("set storage.backup.command"), "{:?}", notes(&server));
        }
        let mut by_variable = server(&json!([]), &backup);
        by_variable.spec.pod.env =
            serde_json::from_value(json!([{"name": "SANDBOX_DB", "value": "/data/x.db"}])).expect("variables");
        assert!(read::<CronJob>(&children(&by_variable)).is_some() && notes(&by_variable).is_empty());
    }

    #[test]
    fn a_server_that_is_switched_off_is_not_backed_up_meanwhile() {
        let backup = json!({"backup": {"schedule": SCHEDULE, "to": {"claim": "kept"}}});
        let mut server = server(&json!(["--db", "/data/x.db"]), &backup);
        server.spec.enabled = false;
        let cron = read::<CronJob>(&children(&server)).and_then(|cron| cron.spec).expect("it is still there");
        assert_eq!(cron.suspend, Some(true));
        let pod = cron.job_template.spec.and_then(|job| job.template.spec).expect("a pod");
        assert_eq!(pod.affinity, None, "there is no pod to be beside");
    }

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(name("db"), "db-mcp-backup");
        let (one, other) = (name(&"a".repeat(59)), name(&format!("{}b", "a".repeat(58))));
        assert_eq!((one.len(), other.len()), (LONGEST_NAME, LONGEST_NAME));
        assert_ne!(one, other);
    }
}

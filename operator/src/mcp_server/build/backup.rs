//! The CronJob that backs up the volume of a server, and the init container that fills an empty one from what it made.

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec},
        core::v1::{
            Affinity, Container as PodContainer, EnvVar, EnvVarSource, PersistentVolumeClaimVolumeSource, PodAffinity,
            PodAffinityTerm, PodSpec, PodTemplateSpec, SecretKeySelector, Volume as PodVolume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
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
            // Nothing changes while nobody may serve. Who sleeps has served, and what was written then is newer than the last backup.
            suspend: Some(volume.at_rest),
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
    let to = own(server, &backup.to).shown(None);
    // For sandbox-server by its own names. The last is how its size gets into the status: by the container's last words.
    let ours = [
        ("SANDBOX_BACKUP_TO", to.clone()),
        ("SANDBOX_BACKUP_KEEP", keep.clone()),
        ("SANDBOX_BACKUP_METRICS_FILE", LAST_WORDS.into()),
    ];
    let others = [("BACKUP_TO", to), ("BACKUP_KEEP", keep)];
    let said = if backup.command.is_empty() { ours.to_vec() } else { others.to_vec() };
    // Of a claim it sees nothing but its own folder, which Kubernetes makes where there is none.
    let (place, place_mount) = place(&backup.to, Some(&server.name));
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
                affinity: Some(beside(server)),
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

/// A volume that one node mounts is on the node of the server's pod. While there is no such pod, any node will do: a backup is one of
/// those that it is to be with, and Kubernetes takes the first of such pods anywhere. So the template is the same whether the server
/// sleeps or not.
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>
fn beside(server: &ValidatedServer) -> Affinity {
    let one_of = |key: &str, values: &[&str]| LabelSelectorRequirement {
        key: key.into(),
        operator: "In".into(),
        values: Some(values.iter().map(|value| (*value).into()).collect()),
    };
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![
                one_of(names::LABEL_INSTANCE, &[&server.name]),
                one_of(names::LABEL_COMPONENT, &[Component::Server.as_str(), names::COMPONENT_BACKUP]),
                one_of(names::LABEL_MANAGED_BY, &[names::MANAGED_BY]),
            ]),
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
pub(super) fn restore(
    server: &ValidatedServer,
    container: &Container,
    volume: &Volume,
) -> Option<(PodContainer, Option<PodVolume>)> {
    let (from, backup, database) = (volume.restore_from.as_ref()?, volume.backup.as_ref()?, volume.database.as_ref()?);
    let (from, or_from) = sources(server, &backup.to, from);
    let args = ["restore", "--db", database, "--from", &from, "--if-missing"];
    // A variable, and no argument, so that a sandbox-server which does not know it restores from the folder all the same.
    let said = or_from.map(|or_from| ("SANDBOX_RESTORE_OR_FROM", or_from)).into_iter().collect();
    let (place, place_mount) = place(&backup.to, None);
    let data_mount = deployment::data_mount(volume);
    let (_, tmp_mount) = workload::scratch("tmp", "/tmp");
    let restore = PodContainer {
        name: "mcpfleet-restore".into(),
        image: Some(backup.image.clone().unwrap_or_else(|| container.source.image.clone())),
        image_pull_policy: Some(container.pod.image_pull_policy.unwrap_or_default().as_str().into()),
        command: some(program(container, backup)),
        args: Some(args.map(Into::into).into()),
        env: some(environment(said, &backup.to, &container.pod)),
        env_from: some(container.pod.env_from.clone()),
        resources: some(container.pod.resources.clone().unwrap_or_default().to_requirements()),
        volume_mounts: Some([Some(tmp_mount), Some(data_mount), place_mount].into_iter().flatten().collect()),
        ..PodContainer::default()
    };
    Some((restore, place))
}

/// A folder of backups, as sandbox-server takes it.
struct Folder(String);

impl Folder {
    /// The folder, or one backup in it.
    fn shown(&self, name: Option<&str>) -> String {
        name.map_or_else(|| self.0.clone(), |name| format!("{}/{name}", self.0))
    }
}

/// Where the backups of a job are: in a folder of the server's own, so that nobody's `keep` is about another one's.
fn own(server: &ValidatedServer, place: &Place) -> Folder {
    // Of a claim that folder is all that is mounted.
    if place.s3.is_some() { below(place, &of_server(server, place, &server.name)) } else { whole(place) }
}

/// The place as it is, where backups lay before each server had its own folder in it.
fn whole(place: &Place) -> Folder {
    Folder(match &place.s3 {
        Some(S3 { bucket, prefix: Some(prefix), .. }) => format!("s3://{bucket}/{prefix}"),
        Some(S3 { bucket, prefix: None, .. }) => format!("s3://{bucket}"),
        None => FOLDER.to_owned(),
    })
}

fn below(place: &Place, folder: &str) -> Folder {
    Folder(whole(place).shown(Some(folder)))
}

/// The folder of a server, `NAME` or `NAMESPACE/NAME`, in the place. A bucket may be of many namespaces, and a claim is of one.
fn of_server(server: &ValidatedServer, place: &Place, name: &str) -> String {
    let namespace = format!("{}/", server.namespace);
    match (&place.s3, name.contains('/')) {
        (Some(_), false) => format!("{namespace}{name}"),
        (Some(_), true) => name.to_owned(),
        (None, _) => name.strip_prefix(&namespace).unwrap_or(name).to_owned(),
    }
}

/// What `restoreFrom` names, and where it may be instead when it is the server's own and older than the folders.
fn sources(server: &ValidatedServer, place: &Place, from: &str) -> (String, Option<String>) {
    let (whose, name) = from.rsplit_once('/').map_or((None, from), |(whose, name)| (Some(whose), name));
    let name = (name != "latest").then_some(name);
    let folder = of_server(server, place, whose.unwrap_or(&server.name));
    let or_from = whose.is_none().then(|| whole(place).shown(name));
    (below(place, &folder).shown(name), or_from)
}

/// The claim, and its mount: as a whole, or a folder of it.
fn place(place: &Place, folder: Option<&str>) -> (Option<PodVolume>, Option<VolumeMount>) {
    let claim = place.claim.as_ref().map(|claim| PodVolume {
        name: VOLUME.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: None }),
        ..PodVolume::default()
    });
    let mount = claim.as_ref().map(|_| VolumeMount {
        name: VOLUME.into(),
        mount_path: FOLDER.into(),
        sub_path: folder.map(Into::into),
        ..VolumeMount::default()
    });
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
        autoscale::Decision,
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
        assert_eq!(args[4], "s3://backups/team/db/team/db/x-20260101T000000000Z.db");
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
    fn who_sleeps_is_backed_up_and_who_is_switched_off_or_scaled_to_none_is_not() {
        let suspended = |spec: &Value, observed: Observed| {
            let backup = json!({"backup": {"schedule": SCHEDULE, "to": {"claim": "kept"}}});
            let mut server = server(&json!(["--db", "/data/x.db"]), &backup);
            let mut whole = json!(server.spec);
            whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
            server.spec = serde_json::from_value(whole).expect("a spec");
            let children = build::children(&validate(&server, &observed).expect("valid"), &Surroundings::default());
            read::<CronJob>(&children).and_then(|cron| cron.spec?.suspend).expect("it is there")
        };
        let asleep = || Observed { decision: Some(Decision { desired: 0, reason: String::new() }), ..Observed::default() };
        assert!(
            !suspended(&json!({"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}), asleep()),
            "rows may be newer than the last"
        );
        let rolls = Observed { empties: true, ..Observed::default() };
        assert!(!suspended(&json!({}), rolls), "its last pod is on its way out, and the next one comes");
        assert!(suspended(&json!({"enabled": false}), Observed::default()));
        assert!(suspended(&json!({"replicas": 0}), Observed::default()));
        let ignored = json!({"replicas": 0, "autoscaling": {"maxReplicas": 1}});
        assert!(!suspended(&ignored, Observed::default()), "autoscaling decides, and not spec.replicas");
    }

    /// Kubernetes schedules the first of pods that are to be together wherever it likes, if it is itself one of those that it is to be with.
    #[test]
    fn a_backup_runs_beside_the_server_and_anywhere_while_there_is_no_pod() {
        for enabled in [true, false] {
            let backup = json!({"backup": {"schedule": SCHEDULE, "to": {"claim": "kept"}}});
            let mut server = server(&json!(["--db", "/data/x.db"]), &backup);
            server.spec.enabled = enabled;
            let template = read::<CronJob>(&children(&server)).and_then(|cron| Some(cron.spec?.job_template.spec?.template));
            let template = template.expect("a template");
            let own = template.metadata.and_then(|metadata| metadata.labels).expect("labels");
            let affinity = json!(template.spec.and_then(|pod| pod.affinity));
            let term = &affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
            let fits = |labels: &std::collections::BTreeMap<String, String>| {
                let expressions = term["labelSelector"]["matchExpressions"].as_array().into_iter().flatten();
                let mut all = expressions.map(|of| {
                    let value = labels.get(of["key"].as_str().expect("a key"));
                    of["values"].as_array().expect("values").iter().any(|one| one.as_str() == value.map(String::as_str))
                });
                let exact = term["labelSelector"]["matchLabels"].as_object().into_iter().flatten();
                let exact = exact.map(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
                all.all(|fits| fits) && exact.into_iter().all(|fits| fits) && !term["labelSelector"].is_null()
            };
            assert!(fits(&Component::Server.labels("db")), "{term}");
            assert!(fits(&own), "{term}");
            assert!(!fits(&Component::Server.labels("other")), "{term}");
        }
    }

    #[test]
    fn each_server_has_a_folder_of_its_own_where_it_backs_up_and_others_are_restored_by_name() {
        let s3 = json!({"s3": {"bucket": "backups", "prefix": "p"}});
        let claim = json!({"claim": "kept"});
        let of = |to: &Value, from: &str| {
            let storage = json!({"backup": {"schedule": SCHEDULE, "to": to}, "restoreFrom": from});
            let children = children(&server(&json!(["--db", "/data/x.db"]), &storage));
            let cron = read::<CronJob>(&children).and_then(|cron| cron.spec?.job_template.spec?.template.spec).expect("a pod");
            let pod = read::<Deployment>(&children).and_then(|deployment| deployment.spec?.template.spec).expect("a pod");
            let (job, restore) = (json!(cron.containers[0]), json!(pod.init_containers.expect("a restore")[0]));
            let variable = |of: &Value, name: &str| {
                let found = of["env"].as_array().into_iter().flatten().find(|variable| variable["name"] == name);
                found.map(|variable| variable["value"].as_str().unwrap_or_default().to_owned())
            };
            let below = |of: &Value| {
                let mount = of["volumeMounts"].as_array().into_iter().flatten().find(|mount| mount["name"] == VOLUME);
                mount.map(|mount| mount["subPath"].as_str().unwrap_or_default().to_owned())
            };
            let to = variable(&job, "SANDBOX_BACKUP_TO").expect("a place");
            let from = restore["args"][4].as_str().expect("a source").to_owned();
            (to, below(&job), from, below(&restore), variable(&restore, "SANDBOX_RESTORE_OR_FROM"))
        };
        let told = |to: &str, below: Option<&str>, from: &str, or_from: Option<&str>| {
            (to.to_owned(), below.map(str::to_owned), from.to_owned(), below.map(|_| String::new()), or_from.map(str::to_owned))
        };
        let own = "s3://backups/p/team/db";
        assert_eq!(of(&s3, "latest"), told(own, None, own, Some("s3://backups/p")), "as it was before there were folders");
        assert_eq!(of(&s3, "x-1.db"), told(own, None, "s3://backups/p/team/db/x-1.db", Some("s3://backups/p/x-1.db")));
        assert_eq!(of(&s3, "other/latest"), told(own, None, "s3://backups/p/team/other", None));
        assert_eq!(of(&s3, "elsewhere/other/x-1.db"), told(own, None, "s3://backups/p/elsewhere/other/x-1.db", None));
        let (whole, own) = (FOLDER, format!("{FOLDER}/db"));
        assert_eq!(of(&claim, "latest"), told(whole, Some("db"), &own, Some(FOLDER)));
        assert_eq!(of(&claim, "other/x-1.db"), told(whole, Some("db"), &format!("{FOLDER}/other/x-1.db"), None));
        assert_eq!(of(&claim, "team/other/latest"), told(whole, Some("db"), &format!("{FOLDER}/other"), None));
    }

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(name("db"), "db-mcp-backup");
        let (one, other) = (name(&"a".repeat(59)), name(&format!("{}b", "a".repeat(58))));
        assert_eq!((one.len(), other.len()), (LONGEST_NAME, LONGEST_NAME));
        assert_ne!(one, other);
    }
}

//! What came of the backups, as the pods of their jobs show it: when each ended, how large it is, why it failed, and why one does not run.
//!
//! A job that somebody makes by hand counts like one of the schedule. What was told stays in the CR's status when the pods are gone.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{ResourceExt as _, runtime::watcher::Event};
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use crate::{
    crd::backup::BackupStatus,
    metrics::registered,
    names::{self, Component},
    pod_trouble::{self, Stuck},
    pod_warnings::PodWarnings,
    who::Who,
};

/// How a backup ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// When.
    pub ended: Timestamp,
    /// Its size in bytes, or why there is none.
    pub made: Result<Option<i64>, String>,
}

/// The last runs of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// The last.
    pub last: Option<Run>,
    /// The last good one: when it ended, and its size.
    pub good: Option<(Timestamp, Option<i64>)>,
    /// The pod of one that does not run: its name, and why not.
    pub held: Option<(String, Stuck)>,
}

/// How what is told of a backup begins that does not run.
const HELD: &str = "it does not run: ";

/// Whether this is told of a backup that does not run, and may yet.
pub fn is_held(failure: &str) -> bool {
    failure.starts_with(HELD)
}

impl Runs {
    /// Takes up a run. Gives whether it is news.
    fn add(&mut self, run: Run) -> bool {
        if let Ok(size) = run.made
            && self.good.is_none_or(|(ended, _)| ended < run.ended)
        {
            self.good = Some((run.ended, size));
        }
        let newer = self.last.as_ref().is_none_or(|last| last.ended < run.ended);
        if newer {
            self.last = Some(run);
        }
        newer
    }

    /// What is told from now on, after what was told before, with what Events say.
    pub fn told(&self, before: Option<&BackupStatus>, warnings: &PodWarnings) -> Option<BackupStatus> {
        let mut told = before.cloned().unwrap_or_default();
        let after = |told: &Option<Time>, ended: Timestamp| told.as_ref().is_none_or(|told| told.0 < ended);
        if let Some((ended, size)) = self.good.filter(|(ended, _)| after(&told.last_success, *ended)) {
            told.last_success = Some(Time(ended));
            told.size = size;
        }
        if let Some(last) = self.last.as_ref().filter(|last| after(&told.last, last.ended)) {
            told.last = Some(Time(last.ended));
            told.failure = last.made.clone().err();
        }
        let held = self.held.as_ref().and_then(|(pod, stuck)| warnings.trouble(pod, stuck));
        if let Some(held) = held {
            told.failure = Some(format!("{HELD}{}", held.message));
        } else if told.failure.as_deref().is_some_and(is_held) {
            told.failure = self.last.as_ref().and_then(|last| last.made.clone().err());
        }
        (told != BackupStatus::default()).then_some(told)
    }
}

/// The runs of all servers. Cheap to share.
#[derive(Debug)]
pub struct Backups {
    runs: Mutex<HashMap<Who, Runs>>,
    last_good: GaugeVec,
    failures: IntCounterVec,
}

impl Backups {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let last_good = GaugeVec::new(
            Opts::new("mcpfleet_backup_last_success_timestamp_seconds", "When the last good backup of a server ended"),
            &["namespace", "name"],
        );
        let failures = IntCounterVec::new(
            Opts::new("mcpfleet_backup_failures_total", "Backups of a server that failed"),
            &["namespace", "name"],
        );
        let (last_good, failures) = (registered(registry, last_good)?, registered(registry, failures)?);
        Ok(Self { runs: Mutex::default(), last_good, failures })
    }

    /// The last runs of a server.
    pub fn of(&self, namespace: &str, name: &str) -> Runs {
        self.runs().get(&server(namespace, name)).cloned().unwrap_or_default()
    }

    /// Takes up an event of the watch. Gives the server of which something else is to be told now.
    pub fn take(&self, event: Event<Pod>, warnings: &PodWarnings) -> Option<Who> {
        let (pod, gone) = match event {
            Event::Init | Event::InitDone => return None,
            Event::InitApply(pod) | Event::Apply(pod) => (pod, false),
            Event::Delete(pod) => (pod, true),
        };
        let who = whose(&pod)?;
        let mut all = self.runs();
        let runs = all.entry(who.clone()).or_default();
        let earlier = runs.held.as_ref().filter(|(held, _)| *held == pod.name_any()).map(|(_, stuck)| stuck);
        let run = run(&pod, gone, earlier, warnings);
        let waits = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Pending"));
        let held = Stuck::of(&pod).filter(|_| waits && !gone).map(|stuck| (pod.name_any(), stuck));
        // One that runs says nothing of another one that does not.
        let of_this = held.is_some() || runs.held.as_ref().is_some_and(|(held, _)| *held == pod.name_any());
        let turned = of_this && runs.held != held;
        if turned {
            runs.held = held;
        }
        let Some(run) = run else { return turned.then_some(who) };
        let failed = run.made.is_err();
        if !runs.add(run) {
            return turned.then_some(who);
        }
        let labels = [&*who.namespace, &*who.name];
        if failed {
            self.failures.with_label_values(&labels).inc();
        }
        if let Some((ended, _)) = runs.good {
            self.last_good.with_label_values(&labels).set(ended.as_duration().as_secs_f64());
        }
        Some(who)
    }

    /// The server is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.runs().remove(&server(namespace, name));
        // That there was none to remove is no fault.
        let _ = self.last_good.remove_label_values(&[namespace, name]);
        let _ = self.failures.remove_label_values(&[namespace, name]);
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<Who, Runs>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn server(namespace: &str, name: &str) -> Who {
    Who { component: Component::Server, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The server whose data the pod keeps.
fn whose(pod: &Pod) -> Option<Who> {
    let labels = pod.metadata.labels.as_ref()?;
    let of_backup = labels.get(names::LABEL_COMPONENT).is_some_and(|component| component == names::COMPONENT_BACKUP);
    of_backup.then_some(())?;
    Some(server(pod.metadata.namespace.as_deref()?, labels.get(names::LABEL_INSTANCE)?))
}

/// The kubelet's word for a container of which it does not know how it ended, as it never began, for one.
const LOST: &str = "ContainerStatusUnknown";

/// How the backup of this pod ended. None: it has not.
///
/// `earlier`: what held it up when it was seen last. A pod that is deleted before it ran ends as one of which that is not known any more.
fn run(pod: &Pod, gone: bool, earlier: Option<&Stuck>, warnings: &PodWarnings) -> Option<Run> {
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let not_done = || {
        let stuck = earlier.cloned().or_else(|| Stuck::of(pod));
        let held_up = stuck.and_then(|stuck| warnings.trouble(&pod.name_any(), &stuck));
        let held_up = held_up.map(|trouble| format!("; {}", trouble.message)).unwrap_or_default();
        format!("its pod was deleted before it was done{held_up}")
    };
    let status = pod.status.as_ref();
    let ended = status.and_then(|status| {
        status.container_statuses.iter().flatten().find_map(|container| container.state.as_ref()?.terminated.as_ref())
    });
    let at = |ended: &ContainerStateTerminated| ended.finished_at.as_ref().map(|time| time.0);
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => {
            let ended = ended?;
            Some(Run { ended: at(ended)?, made: Ok(ended.message.as_deref().and_then(size)) })
        }
        Some("Failed") => {
            let why = match pod_trouble::of(pod) {
                Some(trouble) if deleted.is_some() && trouble.reason == LOST => not_done(),
                Some(trouble) => trouble.message,
                None => "the pod failed".to_owned(),
            };
            Some(Run { ended: ended.and_then(at).or(deleted)?, made: Err(why) })
        }
        _ if gone => Some(Run { ended: deleted?, made: Err(not_done()) }),
        _ => None,
    }
}

/// The size that sandbox-server tells in the metrics which it leaves behind as its container's last words.
fn size(message: &str) -> Option<i64> {
    let line = message.lines().find(|line| line.starts_with("sandbox_backup_last_success_bytes"))?;
    let bytes: f64 = line.rsplit_once(' ')?.1.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "a size in bytes is whole and far below 2^53")]
    Some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(phase: &str, ended: &str, code: i32, message: &str) -> Pod {
        let state = json!({"terminated": {"exitCode": code, "finishedAt": ended, "message": message, "reason": if code == 0 { "Completed" } else { "Error" }}});
        with(&json!({"phase": phase, "containerStatuses": [
            {"name": "backup", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state},
        ]}))
    }

    fn with(status: &Value) -> Pod {
        let labels = json!({"app.kubernetes.io/component": "mcp-backup", "app.kubernetes.io/instance": "db"});
        let pod = json!({"metadata": {"name": "db-mcp-backup-1", "namespace": "team", "labels": labels,
            "deletionTimestamp": "2026-01-01T09:00:00Z"}, "status": status});
        serde_json::from_value(pod).expect("a pod")
    }

    fn backups() -> Backups {
        Backups::new(&Registry::new()).expect("metrics")
    }

    /// What Events say of no pod.
    fn take(backups: &Backups, event: Event<Pod>) -> Option<Who> {
        backups.take(event, &PodWarnings::default())
    }

    fn told(runs: &Runs, before: Option<&BackupStatus>) -> Option<BackupStatus> {
        runs.told(before, &PodWarnings::default())
    }

    const METRICS: &str =
        "# TYPE sandbox_backup_last_success_bytes gauge\nsandbox_backup_last_success_bytes{database=\"x\"} 4096\n";

    #[test]
    fn a_failure_after_a_success_keeps_what_there_is() {
        let backups = backups();
        assert!(take(&backups, Event::Apply(pod("Running", "2026-01-01T00:00:00Z", 0, ""))).is_none());
        assert!(take(&backups, Event::Apply(pod("Succeeded", "2026-01-01T01:00:00Z", 0, METRICS))).is_some());
        assert!(take(&backups, Event::Apply(pod("Succeeded", "2026-01-01T01:00:00Z", 0, METRICS))).is_none(), "told already");
        assert!(take(&backups, Event::Apply(pod("Failed", "2026-01-01T02:00:00Z", 1, "no such bucket"))).is_some());
        let told = told(&backups.of("team", "db"), None).expect("something");
        let at = |time: Option<Time>| time.map(|time| time.0.to_string());
        assert_eq!((told.size, at(told.last_success).as_deref()), (Some(4096), Some("2026-01-01T01:00:00Z")));
        assert_eq!(at(told.last).as_deref(), Some("2026-01-01T02:00:00Z"));
        assert!(told.failure.is_some_and(|failure| failure.contains("exit code 1: no such bucket")));
        assert_eq!(backups.failures.with_label_values(&["team", "db"]).get(), 1);
        backups.forget("team", "db");
        assert_eq!(backups.of("team", "db"), Runs::default());
    }

    #[test]
    fn what_was_told_stays_until_there_is_something_newer() {
        let backups = backups();
        take(&backups, Event::Apply(pod("Failed", "2026-01-01T02:00:00Z", 1, "")));
        let first = told(&backups.of("team", "db"), None);
        assert_eq!(told(&Runs::default(), first.as_ref()), first, "an operator that starts anew knows nothing yet");
        take(&backups, Event::Apply(pod("Succeeded", "2026-01-01T03:00:00Z", 0, METRICS)));
        assert_eq!(told(&backups.of("team", "db"), first.as_ref()).and_then(|told| told.failure), None);

        // One that ended while there was no operator is in the list that the next one begins with.
        let next = self::backups();
        assert!(take(&next, Event::InitApply(pod("Succeeded", "2026-01-01T04:00:00Z", 0, METRICS))).is_some());
        let after = told(&next.of("team", "db"), first.as_ref()).expect("something");
        assert_eq!((after.last.as_ref(), after.failure), (after.last_success.as_ref(), None));
        assert_eq!(told(&Runs::default(), None), None);
    }

    #[test]
    fn one_that_does_not_run_is_told_in_the_words_of_events_until_it_runs() {
        let (backups, warnings) = (backups(), PodWarnings::default());
        let pod = |phase: &str| {
            let mut pod = with(&json!({"phase": phase}));
            pod.metadata.name = Some("db-mcp-backup-1-x".into());
            pod.metadata.uid = Some("1".into());
            pod.spec = serde_json::from_value(json!({"nodeName": "n", "containers": []})).ok();
            pod
        };
        let told = |before: Option<&BackupStatus>| backups.of("team", "db").told(before, &warnings);
        assert!(backups.take(Event::Apply(pod("Pending")), &warnings).is_some());
        assert_eq!(told(None), None, "it is on its way");
        let of = json!({"kind": "Pod", "namespace": "team", "name": "db-mcp-backup-1-x", "uid": "1"});
        let said = json!({"metadata": {"name": "e"}, "involvedObject": of, "reason": "FailedMount", "message": "no such server"});
        assert!(warnings.take(Event::Apply(serde_json::from_value(said).expect("an Event"))).is_some());
        let held = told(None).expect("something");
        let failure = "it does not run: pod db-mcp-backup-1-x: FailedMount: no such server";
        assert_eq!((held.failure.as_deref(), &held.last), (Some(failure), &None));
        assert!(backups.take(Event::Apply(pod("Running")), &warnings).is_some());
        assert_eq!(told(Some(&held)), None);

        assert!(backups.take(Event::Apply(pod("Pending")), &warnings).is_some());
        let mut ended = pod("Failed");
        let lost = json!({"terminated": {"exitCode": 137, "reason": LOST, "message": "could not be located"}});
        let status = json!([{"name": "backup", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": lost}]);
        ended.status.as_mut().expect("it has one").container_statuses = serde_json::from_value(status).ok();
        assert!(backups.take(Event::Apply(ended.clone()), &warnings).is_some());
        assert!(backups.take(Event::Delete(ended), &warnings).is_none(), "told already");
        let failure = told(Some(&held)).and_then(|told| told.failure).expect("a failure");
        assert!(failure.contains("before it was done; pod db-mcp-backup-1-x: FailedMount"), "{failure}");
    }

    #[test]
    fn a_pod_that_goes_before_it_is_done_is_a_failure_and_says_what_held_it_up() {
        let waiting = with(&json!({"phase": "Pending", "containerStatuses": [{
            "name": "backup", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        }]}));
        let backups = backups();
        assert!(take(&backups, Event::Apply(waiting.clone())).is_some(), "it does not run");
        assert!(take(&backups, Event::Delete(waiting)).is_some());
        let failure = told(&backups.of("team", "db"), None).and_then(|told| told.failure).expect("a failure");
        assert!(failure.contains("before it was done") && failure.contains("ImagePullBackOff"), "{failure}");
    }
}

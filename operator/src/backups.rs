//! What came of the backups, as the pods of their jobs show it: when each ended, how large it is, why it failed.
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
use kube::runtime::watcher::Event;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use crate::{
    crd::backup::BackupStatus,
    metrics::registered,
    names::{self, Component},
    pod_trouble,
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

    /// What is told from now on, after what was told before.
    pub fn told(&self, before: Option<&BackupStatus>) -> Option<BackupStatus> {
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
    pub fn take(&self, event: Event<Pod>) -> Option<Who> {
        let (pod, gone) = match event {
            Event::Init | Event::InitDone => return None,
            Event::InitApply(pod) | Event::Apply(pod) => (pod, false),
            Event::Delete(pod) => (pod, true),
        };
        let who = whose(&pod)?;
        let run = run(&pod, gone)?;
        let failed = run.made.is_err();
        let mut all = self.runs();
        let runs = all.entry(who.clone()).or_default();
        if !runs.add(run) {
            return None;
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

/// How the backup of this pod ended. None: it has not.
fn run(pod: &Pod, gone: bool) -> Option<Run> {
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
            let failed = ended.and_then(at).or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))?;
            let why = pod_trouble::of(pod).map_or_else(|| "the pod failed".to_owned(), |trouble| trouble.message);
            Some(Run { ended: failed, made: Err(why) })
        }
        _ if gone => {
            let held_up = pod_trouble::of(pod).map(|trouble| format!("; {}", trouble.message)).unwrap_or_default();
            let deleted = pod.metadata.deletion_timestamp.as_ref()?.0;
            Some(Run { ended: deleted, made: Err(format!("its pod was deleted before it was done{held_up}")) })
        }
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

    const METRICS: &str =
        "# TYPE sandbox_backup_last_success_bytes gauge\nsandbox_backup_last_success_bytes{database=\"x\"} 4096\n";

    #[test]
    fn a_failure_after_a_success_keeps_what_there_is() {
        let backups = backups();
        assert!(backups.take(Event::Apply(pod("Running", "2026-01-01T00:00:00Z", 0, ""))).is_none());
        assert!(backups.take(Event::Apply(pod("Succeeded", "2026-01-01T01:00:00Z", 0, METRICS))).is_some());
        assert!(backups.take(Event::Apply(pod("Succeeded", "2026-01-01T01:00:00Z", 0, METRICS))).is_none(), "told already");
        assert!(backups.take(Event::Apply(pod("Failed", "2026-01-01T02:00:00Z", 1, "no such bucket"))).is_some());
        let told = backups.of("team", "db").told(None).expect("something");
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
        backups.take(Event::Apply(pod("Failed", "2026-01-01T02:00:00Z", 1, "")));
        let first = backups.of("team", "db").told(None);
        assert_eq!(Runs::default().told(first.as_ref()), first, "an operator that starts anew knows nothing yet");
        backups.take(Event::Apply(pod("Succeeded", "2026-01-01T03:00:00Z", 0, METRICS)));
        assert_eq!(backups.of("team", "db").told(first.as_ref()).and_then(|told| told.failure), None);

        // One that ended while there was no operator is in the list that the next one begins with.
        let next = self::backups();
        assert!(next.take(Event::InitApply(pod("Succeeded", "2026-01-01T04:00:00Z", 0, METRICS))).is_some());
        let told = next.of("team", "db").told(first.as_ref()).expect("something");
        assert_eq!((told.last.as_ref(), told.failure), (told.last_success.as_ref(), None));
        assert_eq!(Runs::default().told(None), None);
    }

    #[test]
    fn a_pod_that_goes_before_it_is_done_is_a_failure_and_says_what_held_it_up() {
        let waiting = with(&json!({"phase": "Pending", "containerStatuses": [{
            "name": "backup", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        }]}));
        let backups = backups();
        assert!(backups.take(Event::Apply(waiting.clone())).is_none());
        assert!(backups.take(Event::Delete(waiting)).is_some());
        let failure = backups.of("team", "db").told(None).and_then(|told| told.failure).expect("a failure");
        assert!(failure.contains("before it was done") && failure.contains("ImagePullBackOff"), "{failure}");
    }
}

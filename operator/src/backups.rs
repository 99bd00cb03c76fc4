//! What came of the backups, as their jobs show it, each told once and when it is done: when it ended, how large it is, why it failed.
//! And why one does not run: what holds its pod up, or why it gets none.
//!
//! A job that somebody makes by hand counts like one of the schedule. What was told stays in the CR's status when the jobs are gone, and
//! the metrics follow from it, so that they outlive operators.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{self, ContainerStateTerminated, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{ResourceExt as _, runtime::watcher::Event};
use metrics_text::{GaugeVec, IntCounterVec, IntGaugeVec, MetricSet};

use crate::{
    clock,
    crd::{McpServer, backup::BackupStatus},
    names::{self, Component},
    pod_trouble::{self, Stuck},
    pod_warnings::PodWarnings,
    who::Who,
};

/// Which Events are watched: those of jobs whose pods are refused, by a quota or a policy. Nothing else says so before the job's deadline.
pub const REFUSALS: &str = "type=Warning,involvedObject.kind=Job,reason=FailedCreate";

/// How a backup ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// When.
    ended: Timestamp,
    /// Its size in bytes, or why there is none.
    made: Result<Option<i64>, String>,
}

/// The last runs of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// The last.
    last: Option<Run>,
    /// The last good one: when it ended, and its size.
    good: Option<(Timestamp, Option<i64>)>,
    /// Those that failed and were not counted yet, by when they ended.
    uncounted: Vec<Timestamp>,
    /// Jobs that are there, by uid: one that is done is still asked how large its backup is.
    jobs: BTreeMap<String, Attempt>,
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Attempt {
    /// How it ended, and what Kubernetes says of that. None: it has not.
    done: Option<(Timestamp, Result<(), String>)>,
    /// The job itself was seen, and not its pods alone.
    known: bool,
    /// Its pods, by name.
    pods: BTreeMap<String, Seen>,
    /// Why it gets no pod.
    refused: Option<String>,
}

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// It runs, or is on its way.
    Alive(Option<Stuck>),
    /// It is being deleted before it was done.
    Going(Option<Stuck>),
    /// It made a backup of this size.
    Made(Option<i64>),
    /// It failed, when that is known.
    Failed(Option<Timestamp>, String),
}

/// How what is told of a backup begins that does not run.
const HELD: &str = "it does not run: ";

/// Whether this is told of a backup that does not run, and may yet.
pub fn is_held(failure: &str) -> bool {
    failure.starts_with(HELD)
}

impl Seen {
    /// What held it up.
    const fn stuck(&self) -> Option<&Stuck> {
        match self {
            Self::Alive(stuck) | Self::Going(stuck) => stuck.as_ref(),
            Self::Made(_) | Self::Failed(..) => None,
        }
    }
}

impl Attempt {
    fn run(&self) -> Option<Run> {
        let (ended, how) = self.done.as_ref()?;
        let made = match how {
            Ok(()) => Ok(self.pods.values().find_map(|pod| if let Seen::Made(size) = pod { *size } else { None })),
            Err(said) => Err(self.why().map_or_else(|| said.clone(), |why| join(said, &why))),
        };
        Some(Run { ended: *ended, made })
    }

    /// What its pods met, the last one's word.
    fn why(&self) -> Option<String> {
        let failed = self.pods.values().filter_map(|pod| if let Seen::Failed(at, why) = pod { Some((at, why)) } else { None });
        failed.max_by_key(|(at, _)| **at).map(|(_, why)| why.clone()).or_else(|| self.refused.clone())
    }

    /// Why it does not run.
    fn held(&self, warnings: &PodWarnings) -> Option<String> {
        if self.done.is_some() {
            return None;
        }
        let mut alive =
            self.pods.iter().filter_map(|(name, pod)| if let Seen::Alive(stuck) = pod { Some((name, stuck)) } else { None });
        match alive.next() {
            Some((name, stuck)) => Some(warnings.trouble(name, stuck.as_ref()?)?.message),
            None => self.refused.clone(),
        }
    }
}

/// Kubernetes' word for how a job ended, and what its pods met. That there were as many tries as there may be is not worth a word.
fn join(said: &str, why: &str) -> String {
    if said.starts_with("BackoffLimitExceeded") { why.to_owned() } else { format!("{said}; {why}") }
}

impl Runs {
    /// Takes up how a job ended.
    fn add(&mut self, run: Run, news: bool) {
        if let Ok(size) = run.made
            && self.good.is_none_or(|(ended, before)| ended < run.ended || ended == run.ended && before.is_none())
        {
            self.good = Some((run.ended, size));
        }
        if news && run.made.is_err() {
            self.uncounted.push(run.ended);
        }
        if self.last.as_ref().is_none_or(|last| last.ended < run.ended) {
            self.last = Some(run);
        }
    }

    /// What is told from now on, after what was told before, with what Events say.
    fn told(&self, before: Option<&BackupStatus>, warnings: &PodWarnings) -> Option<BackupStatus> {
        let mut told = before.cloned().unwrap_or_default();
        let after = |told: &Option<Time>, ended: Timestamp| told.as_ref().is_none_or(|told| told.0 < ended);
        if let Some((ended, size)) = self.good {
            if after(&told.last_success, ended) {
                told.last_success = Some(Time(ended));
                told.size = size;
            } else if told.last_success.as_ref().is_some_and(|told| told.0 == ended) {
                // The job was heard of before its pod.
                told.size = told.size.or(size);
            }
        }
        if let Some(last) = self.last.as_ref().filter(|last| after(&told.last, last.ended)) {
            told.last = Some(Time(last.ended));
            told.failure = last.made.clone().err();
        }
        if let Some(held) = self.jobs.values().find_map(|job| job.held(warnings)) {
            told.failure = Some(format!("{HELD}{held}"));
        } else if told.failure.as_deref().is_some_and(is_held) {
            told.failure = self.last.as_ref().and_then(|last| last.made.clone().err());
        }
        (told != BackupStatus::default()).then_some(told)
    }
}

/// What is known of all servers.
#[derive(Debug, Default)]
struct State {
    servers: HashMap<Who, Runs>,
    /// The uids of a list that is coming in: of jobs, and the names of pods.
    jobs: Option<HashSet<String>>,
    pods: Option<HashSet<(Who, String)>>,
}

/// The runs of all servers. Cheap to share.
#[derive(Debug)]
pub struct Backups {
    state: Mutex<State>,
    last_good: GaugeVec,
    failing: IntGaugeVec,
    failures: IntCounterVec,
}

impl Backups {
    /// Registers the metrics.
    pub fn new(all: &MetricSet) -> Self {
        let labels = ["namespace", "name"];
        let last_good = "When the last good backup of a server ended, 0 before the first";
        let failing = "1 while the last backup of a server failed, or one does not run";
        Self {
            state: Mutex::default(),
            last_good: all.gauges("mcpfleet_backup_last_success_timestamp_seconds", last_good, &labels),
            failing: all.gauges("mcpfleet_backup_failing", failing, &labels),
            failures: all.counters("mcpfleet_backup_failures_total", "Backups of a server that failed", &labels),
        }
    }

    /// What is told of a server's backups from now on, in its status and in metrics.
    pub fn tell(&self, server: &McpServer, before: Option<&BackupStatus>, warnings: &PodWarnings) -> Option<BackupStatus> {
        let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
        if server.spec.storage.as_ref().is_none_or(|storage| storage.backup.is_none()) {
            self.untold(&namespace, &name);
            return before.cloned();
        }
        let mut state = self.state();
        let runs = state.servers.entry(self::server(&namespace, &name)).or_default();
        // What its predecessor of the same name left behind is no news of this one.
        let made = server.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let of_this = |ended: Timestamp| made.is_none_or(|made| made <= ended);
        runs.last.take_if(|last| !of_this(last.ended));
        runs.good.take_if(|(ended, _)| !of_this(*ended));
        let news = before.and_then(|before| before.last.as_ref()).map(|last| last.0);
        let uncounted = std::mem::take(&mut runs.uncounted).into_iter();
        let failed = uncounted.filter(|ended| of_this(*ended) && news.is_none_or(|told| told < *ended)).count();
        let told = runs.told(before, warnings);
        drop(state);
        let labels = [&*namespace, &*name];
        self.failures.with_label_values(&labels).inc_by(u64::try_from(failed).unwrap_or_default());
        let last_good = told.as_ref().and_then(|told| told.last_success.as_ref());
        self.last_good.with_label_values(&labels).set(last_good.map_or(0.0, |last| last.0.as_duration().as_secs_f64()));
        let failing = told.as_ref().is_some_and(|told| told.failure.is_some());
        self.failing.with_label_values(&labels).set(failing.into());
        told
    }

    /// Takes up an event of the watch of jobs. Gives the server of which something else is to be told now.
    pub fn take_job(&self, event: Event<Job>, warnings: &PodWarnings) -> Option<Who> {
        let mut state = self.state();
        match event {
            Event::Init => state.jobs = Some(HashSet::new()),
            Event::InitDone => {
                // Those that went unseen: nobody knows how they ended.
                let there = state.jobs.take().unwrap_or_default();
                for runs in state.servers.values_mut() {
                    runs.jobs.retain(|uid, job| !job.known || there.contains(uid));
                }
            }
            Event::InitApply(job) => {
                state.jobs.get_or_insert_default().insert(job.uid()?);
                return state.job(&job);
            }
            Event::Apply(job) => return state.job(&job),
            Event::Delete(job) => {
                let (who, uid) = (whose(&job.metadata)?, job.uid()?);
                let runs = state.servers.get_mut(&who)?;
                let attempt = runs.jobs.remove(&uid)?;
                // One that was done is told.
                if attempt.done.is_some() || ended(&job).is_some() {
                    return None;
                }
                let at = job.metadata.deletion_timestamp.as_ref().map_or_else(clock::now, |time| time.0);
                let held_up = |(name, pod): (&String, &Seen)| warnings.trouble(name, pod.stuck()?);
                let stuck = attempt.pods.iter().find_map(held_up).map(|trouble| trouble.message);
                let why = stuck.or_else(|| attempt.why()).map(|why| format!("; {why}")).unwrap_or_default();
                runs.add(Run { ended: at, made: Err(format!("its job was deleted before it was done{why}")) }, true);
                return Some(who);
            }
        }
        None
    }

    /// The same of the watch of the jobs' pods.
    pub fn take_pod(&self, event: Event<Pod>, warnings: &PodWarnings) -> Option<Who> {
        let mut state = self.state();
        let (pod, gone) = match event {
            Event::Init => {
                state.pods = Some(HashSet::new());
                return None;
            }
            Event::InitDone => {
                let there = state.pods.take().unwrap_or_default();
                for (who, runs) in &mut state.servers {
                    let gone = |name: &String| !there.contains(&(who.clone(), name.clone()));
                    let alive = |pod: &Seen| matches!(pod, Seen::Alive(_));
                    runs.jobs.values_mut().for_each(|job| job.pods.retain(|name, pod| !(alive(pod) && gone(name))));
                }
                return None;
            }
            Event::InitApply(pod) => {
                let who = whose(&pod.metadata)?;
                state.pods.get_or_insert_default().insert((who, pod.name_any()));
                (pod, false)
            }
            Event::Apply(pod) => (pod, false),
            Event::Delete(pod) => (pod, true),
        };
        state.pod(&pod, gone, warnings)
    }

    /// The same of the watch of the Events of jobs that get no pod.
    pub fn take_refusal(&self, event: Event<v1::Event>) -> Option<Who> {
        let (Event::Apply(said) | Event::InitApply(said)) = event else { return None };
        let uid = said.involved_object.uid?;
        let message = pod_trouble::told(said.reason.as_deref()?, said.message.as_deref().map(pod_trouble::refusal));
        let mut state = self.state();
        let (who, runs) = state.servers.iter_mut().find(|(_, runs)| runs.jobs.contains_key(&uid))?;
        let job = runs.jobs.get_mut(&uid)?;
        let turned = job.refused.as_ref() != Some(&message) && job.done.is_none();
        job.refused = Some(message);
        turned.then(|| who.clone())
    }

    /// The server is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.state().servers.remove(&server(namespace, name));
        self.untold(namespace, name);
    }

    fn untold(&self, namespace: &str, name: &str) {
        // That there was none to remove is no fault.
        let _ = self.last_good.remove_label_values(&[namespace, name]);
        let _ = self.failing.remove_label_values(&[namespace, name]);
        let _ = self.failures.remove_label_values(&[namespace, name]);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn job(&mut self, job: &Job) -> Option<Who> {
        let (who, uid) = (whose(&job.metadata)?, job.uid()?);
        let done = ended(job);
        self.changed(who, &uid, |attempt| {
            attempt.known = true;
            attempt.done = done;
        })
    }

    fn pod(&mut self, pod: &Pod, gone: bool, warnings: &PodWarnings) -> Option<Who> {
        let who = whose(&pod.metadata)?;
        let uid = pod.owner_references().iter().find(|owner| owner.kind == "Job")?.uid.clone();
        let jobs = self.servers.get(&who).map(|runs| &runs.jobs);
        let job = jobs.and_then(|jobs| jobs.get(&uid));
        if gone && job.is_none_or(|job| !job.known) {
            // Its job is gone, too, and what came of that is told.
            self.servers.get_mut(&who)?.jobs.remove(&uid);
            return Some(who);
        }
        let seen = seen(pod, gone, job.and_then(|job| job.pods.get(&pod.name_any())), warnings);
        self.changed(who, &uid, |job| {
            job.refused.take_if(|_| matches!(seen, Seen::Alive(_)));
            job.pods.insert(pod.name_any(), seen);
        })
    }

    /// Changes what is known of a job. Gives whose it is if something else is to be told now.
    fn changed(&mut self, who: Who, uid: &str, change: impl FnOnce(&mut Attempt)) -> Option<Who> {
        let runs = self.servers.entry(who.clone()).or_default();
        let job = runs.jobs.entry(uid.to_owned()).or_default();
        let mut before = job.clone();
        change(job);
        // That there is one is no news.
        before.known = job.known;
        if *job == before {
            return None;
        }
        if let Some(run) = job.run() {
            let news = before.done.is_none();
            runs.add(run, news);
        }
        Some(who)
    }
}

fn server(namespace: &str, name: &str) -> Who {
    Who { component: Component::Server, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The server whose data the job, or the pod, keeps.
fn whose(metadata: &ObjectMeta) -> Option<Who> {
    let labels = metadata.labels.as_ref()?;
    let of_backup = labels.get(names::LABEL_COMPONENT).is_some_and(|component| component == names::COMPONENT_BACKUP);
    of_backup.then_some(())?;
    Some(server(metadata.namespace.as_deref()?, labels.get(names::LABEL_INSTANCE)?))
}

/// How a job ended, and when: it is done when Kubernetes says so, whatever became of its first tries.
/// <https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions>
fn ended(job: &Job) -> Option<(Timestamp, Result<(), String>)> {
    let status = job.status.as_ref()?;
    let found = status
        .conditions
        .iter()
        .flatten()
        .find(|found| found.status == "True" && matches!(found.type_.as_str(), "Complete" | "Failed"))?;
    let at = found.last_transition_time.as_ref().map_or_else(clock::now, |time| time.0);
    if found.type_ == "Complete" {
        return Some((status.completion_time.as_ref().map_or(at, |time| time.0), Ok(())));
    }
    Some((at, Err(pod_trouble::told(found.reason.as_deref().unwrap_or("Failed"), found.message.as_deref()))))
}

/// The kubelet's word for a container of which it does not know how it ended, as it never began, for one.
const LOST: &str = "ContainerStatusUnknown";

/// What is known of a pod.
///
/// `earlier`: what was known of it before. A pod that is deleted before it ran ends as one of which nobody knows what held it up.
fn seen(pod: &Pod, gone: bool, earlier: Option<&Seen>, warnings: &PodWarnings) -> Seen {
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let stuck = || earlier.and_then(Seen::stuck).cloned().or_else(|| Stuck::of(pod));
    let not_done = || {
        let held_up = stuck().and_then(|stuck| warnings.trouble(&pod.name_any(), &stuck));
        let held_up = held_up.map(|trouble| format!("; {}", trouble.message)).unwrap_or_default();
        format!("its pod was deleted before it was done{held_up}")
    };
    let status = pod.status.as_ref();
    let ended = status.and_then(|status| {
        status.container_statuses.iter().flatten().find_map(|container| container.state.as_ref()?.terminated.as_ref())
    });
    let at = |ended: &ContainerStateTerminated| ended.finished_at.as_ref().map(|time| time.0);
    match (earlier, status.and_then(|status| status.phase.as_deref())) {
        // What is told of it when it is deleted later is no better.
        (Some(done @ (Seen::Made(_) | Seen::Failed(..))), _) => done.clone(),
        (_, Some("Succeeded")) => Seen::Made(ended.and_then(|ended| size(ended.message.as_deref()?))),
        (_, Some("Failed")) => {
            let why = match pod_trouble::of(pod) {
                Some(trouble) if deleted.is_some() && trouble.reason == LOST => not_done(),
                Some(trouble) => trouble.message,
                None => "the pod failed".to_owned(),
            };
            Seen::Failed(ended.and_then(at).or(deleted), why)
        }
        _ if gone => Seen::Failed(deleted, not_done()),
        _ if deleted.is_some() => Seen::Going(stuck()),
        // Its container may have ended before the kubelet says that the pod has begun: that it was tried says its job.
        (_, phase) => Seen::Alive(Stuck::of(pod).filter(|_| phase == Some("Pending") && ended.is_none())),
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
mod tests;

//! What Kubernetes says of pods only in Events: that a volume cannot be mounted, a sandbox not be made, a pull Secret not be found. The
//! status of such a pod says `ContainerCreating`, and nothing else, for as long as it lasts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Event;
use kube::runtime::watcher;

use crate::{
    names::Component,
    pod_trouble::{Making, Stuck, Trouble},
    who::Who,
    wording,
};

/// Which Events are watched: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>. Not those that a fleet is
/// full of when something is wrong: a pod's status, and the prober, say that too.
pub const SELECTOR: &str = "type=Warning,involvedObject.kind=Pod,reason!=Unhealthy,reason!=BackOff,reason!=Failed,reason!=InspectFailed,reason!=FailedScheduling,reason!=Preempted,reason!=NodeNotReady";

/// The kubelet does not find a Secret of `imagePullSecrets`, and tries to pull the image without: some images may be pulled by anybody.
const NO_PULL_SECRET: &str = "FailedToRetrieveImagePullSecret";

/// What the kubelet says once more, after a while, of volumes that are not there. Why not, it or another part of Kubernetes said before, and
/// says again in between.
const IN_SUMMARY: &str = "Unable to attach or mount volumes";
/// What Kubernetes writes before the name of a volume, whatever it did with it in vain; the name ends with the next quote.
const BEFORE_THE_VOLUME: &str = "volume \"";
/// So many sentences are told of a pod at most.
const MOST: usize = 8;
/// What was not said again while something else was said so often is over.
const OVER: usize = 3;
/// One that was not said for so long leaves its place to another one, where there are as many as there may be.
const LONG: u64 = 16;

/// The last Warnings about each pod of ours, by its uid. Kubernetes forgets Events after an hour, and so do we.
#[derive(Debug, Default)]
pub struct PodWarnings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pods: HashMap<String, Warnings>,
    /// The list that is coming in.
    listing: Option<HashMap<String, Warnings>>,
}

#[derive(Clone, Debug, Default)]
struct Warnings {
    /// What holds the pod up.
    held: Option<Held>,
    pull_secret: Option<String>,
}

/// What holds a pod up: Kubernetes' word for it, and its sentences, by the volume that they are about. Several volumes are told of in turn;
/// of everything else the last sentence counts.
#[derive(Clone, Debug)]
struct Held {
    reason: String,
    said: BTreeMap<String, Said>,
    /// How many sentences were heard.
    heard: u64,
}

/// A sentence, and when it was heard, by how many had been until then: the last time first.
#[derive(Clone, Debug)]
struct Said {
    sentence: String,
    heard: [u64; OVER],
}

impl Warnings {
    fn add(&mut self, reason: String, message: String) {
        if reason == NO_PULL_SECRET {
            self.pull_secret = Some(message);
            return;
        }
        if self.held.is_some() && message.starts_with(IN_SUMMARY) {
            return;
        }
        let held = self.held.take().filter(|held| held.reason == reason);
        let mut held = held.unwrap_or_else(|| Held { reason, said: BTreeMap::new(), heard: 0 });
        held.hear(message);
        self.held = Some(held);
    }

    /// What people are told of it.
    fn told(&self) -> (Option<(&str, Vec<&str>)>, Option<&str>) {
        let held = self.held.as_ref().map(|held| (held.reason.as_str(), held.sentences()));
        (held, self.pull_secret.as_deref())
    }
}

impl Held {
    fn hear(&mut self, message: String) {
        self.heard += 1;
        let now = self.heard;
        self.said.retain(|_, said| !said.sentence.starts_with(IN_SUMMARY));
        let volume = message.split_once(BEFORE_THE_VOLUME).and_then(|(_, named)| named.split_once('"'));
        let about = volume.map_or("", |(volume, _)| volume).to_owned();
        if let Some(said) = self.said.get_mut(&about) {
            said.heard.rotate_right(1);
            said.heard[0] = now;
            if !wording::is_same(&said.sentence, &message) {
                said.sentence = message;
            }
            let since = said.heard[OVER - 1];
            self.said.retain(|_, said| said.heard[0] >= since);
            return;
        }
        if self.said.len() >= MOST {
            self.said.retain(|_, said| now - said.heard[0] <= LONG);
        }
        if self.said.len() < MOST {
            let mut heard = [0; OVER];
            heard[0] = now;
            self.said.insert(about, Said { sentence: message, heard });
        }
    }

    fn sentences(&self) -> Vec<&str> {
        self.said.values().map(|said| said.sentence.as_str()).collect()
    }
}

impl PodWarnings {
    /// What keeps a pod from running, with what Events say of it. `making`: it is on its way in the usual manner, by its status.
    pub fn explain(&self, name: &str, uid: &str, trouble: Option<Trouble>, making: Option<&Making>) -> Option<Trouble> {
        let state = self.state();
        let Some(warnings) = state.pods.get(uid) else { return trouble };
        match (trouble, making, &warnings.pull_secret) {
            (Some(trouble), _, Some(said)) if matches!(trouble.reason.as_str(), "ErrImagePull" | "ImagePullBackOff") => {
                Some(Trouble { message: format!("{}; {said}", trouble.message), ..trouble })
            }
            (None, Some(making), _) if !making.prepared => {
                let held = warnings.held.as_ref();
                let of_pod = |held: &Held| Trouble::of_pod(name, &held.reason, Some(&held.sentences().join("; ")));
                held.map(|held| Trouble { made: making.made, ..of_pod(held) })
            }
            (trouble, ..) => trouble,
        }
    }

    /// What keeps a pod from running, with what Events say of it.
    pub fn trouble(&self, name: &str, Stuck { uid, trouble, making }: &Stuck) -> Option<Trouble> {
        self.explain(name, uid, trouble.clone(), making.as_ref())
    }

    /// Takes up an event of the watch. Gives whose pod it is about, if that is to be told anew.
    pub fn take(&self, event: watcher::Event<Event>) -> Option<Who> {
        let mut state = self.state();
        match event {
            watcher::Event::Init => state.listing = Some(HashMap::new()),
            watcher::Event::InitApply(event) => {
                let (_, uid, reason, message) = read(event)?;
                state.listing.get_or_insert_default().entry(uid).or_default().add(reason, message);
            }
            watcher::Event::InitDone => state.pods = state.listing.take().unwrap_or_default(),
            watcher::Event::Apply(event) => {
                let (who, uid, reason, message) = read(event)?;
                let known = state.pods.entry(uid).or_default();
                let before = known.clone();
                known.add(reason, message);
                return (known.told() != before.told()).then_some(who);
            }
            watcher::Event::Delete(event) => {
                state.pods.remove(&event.involved_object.uid?);
            }
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose pod an Event is about, which one, and what it says. None: nobody's of ours.
fn read(event: Event) -> Option<(Who, String, String, String)> {
    let pod = event.involved_object;
    let (component, name) = Component::of_pod(pod.name.as_deref()?)?;
    let who = Who { component, namespace: pod.namespace?, name: name.to_owned() };
    Some((who, pod.uid?, event.reason?, event.message.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event as Seen;
    use serde_json::json;

    use super::*;
    use crate::fixtures;

    const NOT_PREPARED: Making = Making { init: None, sidecar: false, prepared: false, made: None, since: None };

    fn event(uid: &str, reason: &str, message: &str) -> Event {
        of_pod("db-mcp-6f9c7d-x2x4z", uid, reason, message)
    }

    fn of_pod(name: &str, uid: &str, reason: &str, message: &str) -> Event {
        let pod = json!({"kind": "Pod", "namespace": "team", "name": name, "uid": uid});
        let event = json!({"metadata": {"name": "e"}, "involvedObject": pod, "reason": reason, "message": message});
        serde_json::from_value(event).expect("an Event")
    }

    fn told(warnings: &PodWarnings, trouble: Option<Trouble>, making: Option<&Making>) -> Option<(String, String)> {
        warnings.explain("p", "1", trouble, making).map(|trouble| (trouble.reason, trouble.message))
    }

    #[test]
    fn a_volume_that_cannot_be_mounted_is_told_while_its_pod_is_made_and_wakes_whose_it_is_once() {
        let warnings = PodWarnings::default();
        let failed = || Seen::Apply(event("1", "FailedMount", "no such\nserver"));
        let who = Who { component: Component::Server, namespace: "team".into(), name: "db".into() };
        assert_eq!(warnings.take(failed()), Some(who));
        assert_eq!(warnings.take(failed()), None, "the same again");
        let expected = ("FailedMount".to_owned(), "pod p: FailedMount: no such server".to_owned());
        assert_eq!(told(&warnings, None, Some(&NOT_PREPARED)), Some(expected));
        assert_eq!(told(&warnings, None, Some(&Making { prepared: true, ..NOT_PREPARED })), None, "that is over");
        assert_eq!(told(&warnings, None, None), None, "it runs");
        let other = fixtures::trouble("CrashLoopBackOff", "why");
        assert_eq!(told(&warnings, Some(other.clone()), None), Some((other.reason, other.message)));
    }

    #[test]
    fn a_summary_of_what_is_not_mounted_does_not_take_the_place_of_the_cause() {
        let warnings = PodWarnings::default();
        let summary = || Seen::Apply(event("1", "FailedMount", "Unable to attach or mount volumes: unmounted volumes=[data]"));
        let reason = || told(&warnings, None, Some(&NOT_PREPARED)).expect("it is told").0;
        assert!(warnings.take(summary()).is_some());
        assert_eq!(reason(), "FailedMount");
        assert!(warnings.take(Seen::Apply(event("1", "FailedAttachVolume", "Multi-Attach error"))).is_some());
        assert_eq!(warnings.take(summary()), None);
        assert_eq!(reason(), "FailedAttachVolume");
        assert!(warnings.take(Seen::Apply(event("1", "FailedMount", "MountVolume.SetUp failed"))).is_some(), "it got further");
        assert_eq!(reason(), "FailedMount");
    }

    /// The kubelet tells of one after the other, again and again.
    #[test]
    fn volumes_that_are_not_mounted_are_told_together_and_each_once() {
        let warnings = PodWarnings::default();
        let failed = |volume: &str, why: &str| {
            let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}");
            warnings.take(Seen::Apply(event("1", "FailedMount", &message))).is_some()
        };
        let told = || told(&warnings, None, Some(&NOT_PREPARED)).expect("it is told").1;
        assert!(failed("b", "secret \"b\" not found") && failed("a", "rpc error (request-id: 7f3a)"));
        let both = told();
        assert!(
            both.contains("volume \"a\" : rpc error (request-id: 7f3a); Mount") && both.ends_with("secret \"b\" not found"),
            "{both}"
        );
        for id in ["91bc", "02ff"] {
            assert!(!failed("b", "secret \"b\" not found") && !failed("a", &format!("rpc error (request-id: {id})")));
        }
        assert_eq!(told(), both);
        assert!(failed("b", "references non-existent secret key: k"), "somebody made the Secret");
        assert!(!told().contains("not found"), "{}", told());
    }

    #[test]
    fn of_a_volume_and_of_everything_else_the_last_sentence_is_told() {
        let warnings = PodWarnings::default();
        let failed = |message: &str| warnings.take(Seen::Apply(event("1", "FailedMount", message))).is_some();
        let told = || told(&warnings, None, Some(&NOT_PREPARED)).expect("it is told").1;
        assert!(failed("MountVolume.MountDevice failed for volume \"a\" : no such disk"));
        assert!(failed("MountVolume.SetUp failed for volume \"a\" : no such directory"));
        assert!(failed("the driver x : is not there") && failed("the driver y : is not there"));
        let expected = "the driver y : is not there; MountVolume.SetUp failed for volume \"a\" : no such directory";
        assert_eq!(told(), format!("pod p: FailedMount: {expected}"));
    }

    #[test]
    fn a_volume_of_which_nothing_is_said_any_more_is_forgotten_and_few_are_told_at_once() {
        let warnings = PodWarnings::default();
        let failed = |volume: &str| {
            // So short that all of them are told whole.
            let message = format!("no volume \"{volume}\"");
            warnings.take(Seen::Apply(event("1", "FailedMount", &message))).is_some()
        };
        let told = || told(&warnings, None, Some(&NOT_PREPARED)).expect("it is told").1;
        assert!(failed("a") && failed("b"));
        assert!(!failed("b") && told().contains("\"a\""), "twice");
        assert!(failed("b") && !told().contains("\"a\""), "{}", told());
        let volumes = ["b", "c", "d", "e", "f", "g", "h", "i", "j"];
        for _ in 0..2 {
            _ = volumes.map(failed);
        }
        assert!(!volumes.map(failed).contains(&true), "many in turn are no news");
        assert_eq!(told().matches("volume \"").count(), MOST);
        (0..20).for_each(|_| _ = failed("z"));
        assert!(told().contains("\"z\"") && !told().contains("\"b\""), "{}", told());
    }

    #[test]
    fn what_warns_of_the_pod_of_a_backup_wakes_its_server() {
        for pod in ["db-mcp-backup-29400000-x2x4z", "db-mcp-backup-by-hand-x2x4z"] {
            let warnings = PodWarnings::default();
            let woken = warnings.take(Seen::Apply(of_pod(pod, "1", "FailedMount", "no such server")));
            assert_eq!(woken, Some(Who { component: Component::Server, namespace: "team".into(), name: "db".into() }));
            assert_eq!(told(&warnings, None, Some(&NOT_PREPARED)).expect("it is told").0, "FailedMount");
        }
        let warnings = PodWarnings::default();
        assert_eq!(warnings.take(Seen::Apply(of_pod("somebody-backup-1-x2x4z", "1", "FailedMount", "m"))), None);
    }

    #[test]
    fn a_pull_secret_that_is_missing_is_named_where_the_image_cannot_be_pulled() {
        let warnings = PodWarnings::default();
        warnings.take(Seen::Apply(event("1", NO_PULL_SECRET, "Unable to retrieve some image pull secrets (nope)")));
        assert_eq!(told(&warnings, None, Some(&NOT_PREPARED)), None, "the image may be anybody's");
        let message = told(&warnings, Some(fixtures::trouble("ErrImagePull", "denied")), None).expect("trouble").1;
        assert_eq!(message, "denied; Unable to retrieve some image pull secrets (nope)");
    }

    #[test]
    fn what_a_new_list_lacks_and_what_is_deleted_is_forgotten() {
        let warnings = PodWarnings::default();
        let is_told = || told(&warnings, None, Some(&NOT_PREPARED)).is_some();
        warnings.take(Seen::Apply(event("1", "FailedMount", "m")));
        warnings.take(Seen::Init);
        warnings.take(Seen::InitApply(event("2", "FailedMount", "m")));
        assert!(is_told(), "the list is not in yet");
        warnings.take(Seen::InitDone);
        assert!(!is_told());
        warnings.take(Seen::Apply(event("1", "FailedCreatePodSandBox", "m")));
        assert!(is_told());
        warnings.take(Seen::Delete(event("1", "FailedCreatePodSandBox", "m")));
        assert!(!is_told());
    }
}

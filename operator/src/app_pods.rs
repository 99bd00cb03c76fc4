//! What keeps the pods of McpApps from running, as Kubernetes tells it. The pods of servers are the prober's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::sync::Notify;

use crate::{
    pod_trouble::{Stuck, Trouble},
    pod_warnings::PodWarnings,
    rollout::{Latest, Origin},
    who::{Who, whose_label},
};

/// The pods that do not run, by app. Cheap: those that run leave nothing here.
#[derive(Debug, Default)]
pub struct AppPods {
    state: Mutex<State>,
    others: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Those that run, by app and pod.
    running: HashMap<Who, BTreeMap<String, Running>>,
    stuck: HashMap<Who, BTreeMap<String, (Stuck, Origin)>>,
    /// The pods of the list that is coming in.
    listing: Option<BTreeSet<(Who, String)>>,
}

#[derive(Debug)]
struct Running {
    address: IpAddr,
    origin: Origin,
}

/// Why an app has no pod that runs.
#[derive(Debug, Default)]
pub struct HeldUp {
    /// What keeps a pod from running: one of the latest template, where there are such; of several, one that never ran first.
    pub trouble: Option<Trouble>,
    /// That pod is of a former template, or may be: the spec as it is now has made no other one yet.
    pub former: bool,
    /// Which pods are of the latest template.
    pub latest: Latest,
    /// How far one is that is on its way.
    pub making: Option<String>,
}

impl AppPods {
    /// What is known of the pods of the app that do not run.
    pub fn held_up(
        &self,
        namespace: &str,
        name: &str,
        deployment: Option<&Deployment>,
        warnings: &PodWarnings,
        now: Timestamp,
    ) -> HeldUp {
        let (state, app) = (self.state(), Who::app(namespace, name));
        let running = state.running.get(&app).into_iter().flat_map(BTreeMap::values).map(|pod| &pod.origin);
        let stuck = || state.stuck.get(&app).into_iter().flatten();
        let origins: Vec<_> = running.chain(stuck().map(|(_, (_, origin))| origin)).collect();
        let latest = Latest::of(deployment, origins.iter().copied());
        let former = !origins.into_iter().any(|origin| latest.has(origin));
        let told = stuck().filter(|(_, (_, origin))| former || latest.has(origin));
        HeldUp {
            trouble: told
                .filter_map(|(name, (pod, _))| warnings.trouble(name, pod))
                .min_by_key(|trouble| trouble.ran)
                .map(|trouble| trouble.quoted(!former)),
            making: stuck().find_map(|(name, (pod, _))| pod.making.as_ref()?.told(name, now)),
            former,
            latest,
        }
    }

    /// When one of the app's pods will have been made for so long without a word that it is told: nothing shows that.
    pub fn due(&self, namespace: &str, name: &str, now: Timestamp) -> Option<Duration> {
        let state = self.state();
        let stuck = state.stuck.get(&Who::app(namespace, name)).into_iter().flatten();
        stuck.filter_map(|(_, (pod, _))| pod.making.as_ref()?.due(now)).min()
    }

    /// The names of the app's pods that run.
    pub fn names(&self, namespace: &str, name: &str) -> Vec<String> {
        let state = self.state();
        state.running.get(&Who::app(namespace, name)).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// The addresses of the pods that run.
    pub fn running(&self) -> Vec<(Who, IpAddr)> {
        let state = self.state();
        let of_app = |(app, pods): (&Who, &BTreeMap<String, Running>)| {
            pods.values().map(|pod| (app.clone(), pod.address)).collect::<Vec<_>>()
        };
        state.running.iter().flat_map(of_app).collect()
    }

    /// Waits until there is another pod to ask.
    pub async fn others_run(&self) {
        self.others.notified().await;
    }

    /// Takes up an event of the watch. Gives the apps of which something else is to be told now.
    pub fn take(&self, event: Event<Pod>) -> Vec<Who> {
        match event {
            Event::Init => {
                self.state().listing = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(pod) => {
                let (app, name) = (whose_label(&pod.metadata), pod.name_any());
                if let (Some(app), Some(listing)) = (app, &mut self.state().listing) {
                    listing.insert((app, name));
                }
                self.set(&pod, false)
            }
            Event::InitDone => self.list_ends(),
            Event::Apply(pod) => self.set(&pod, false),
            Event::Delete(pod) => self.set(&pod, true),
        }
    }

    fn set(&self, pod: &Pod, gone: bool) -> Vec<Who> {
        let Some(app) = whose_label(&pod.metadata) else { return Vec::new() };
        let going = gone || pod.metadata.deletion_timestamp.is_some();
        let stuck = if going { None } else { Stuck::of(pod) };
        let mut state = self.state();
        let running = address(pod).filter(|_| !going).map(|address| Running { address, origin: Origin::of(pod) });
        let address = running.as_ref().map(|pod| pod.address);
        let before = put(&mut state.running, &app, pod.name_any(), running);
        if address.is_some() && before.map(|pod| pod.address) != address {
            self.others.notify_one();
        }
        let before = put(&mut state.stuck, &app, pod.name_any(), stuck.clone().map(|stuck| (stuck, Origin::of(pod))));
        if before.map(|(stuck, _)| stuck) == stuck { Vec::new() } else { vec![app] }
    }

    fn list_ends(&self) -> Vec<Who> {
        let mut state = self.state();
        let listed = state.listing.take().unwrap_or_default();
        state.running.retain(|app, pods| {
            pods.retain(|pod, _| listed.contains(&(app.clone(), pod.clone())));
            !pods.is_empty()
        });
        let mut changed = Vec::new();
        state.stuck.retain(|app, pods| {
            let before = pods.len();
            pods.retain(|pod, _| listed.contains(&(app.clone(), pod.clone())));
            if pods.len() != before {
                changed.push(app.clone());
            }
            !pods.is_empty()
        });
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts what is known of a pod in the place of what was; None: nothing is. Gives what was known.
fn put<T>(pods: &mut HashMap<Who, BTreeMap<String, T>>, app: &Who, pod: String, known: Option<T>) -> Option<T> {
    let of_app = pods.entry(app.clone()).or_default();
    let before = match known {
        Some(known) => of_app.insert(pod, known),
        None => of_app.remove(&pod),
    };
    if of_app.is_empty() {
        pods.remove(app);
    }
    before
}

/// Where a pod is that can be asked. None: it does not run.
fn address(pod: &Pod) -> Option<IpAddr> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
    status.pod_ip.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        fixtures,
        names::{Component, LABEL_TEMPLATE_HASH},
    };

    fn pod(name: &str, waiting: Option<&str>) -> Pod {
        let state =
            waiting.map_or_else(|| json!({"running": {}}), |reason| json!({"waiting": {"reason": reason, "message": "m"}}));
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "team", "labels": Component::App.labels("chat")},
            "status": {"containerStatuses": [
                {"name": "chat-worker", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ]},
        }))
        .expect("a pod")
    }

    fn reason(pods: &AppPods) -> Option<String> {
        pods.held_up("team", "chat", None, &PodWarnings::default(), fixtures::at(0)).trouble.map(|trouble| trouble.reason)
    }

    #[test]
    fn an_app_is_woken_when_something_else_keeps_its_pods_from_running() {
        let (pods, app) = (AppPods::default(), Who::app("team", "chat"));
        assert!(pods.take(Event::Apply(pod("a", None))).is_empty());
        assert_eq!(pods.take(Event::Apply(pod("a", Some("ImagePullBackOff")))), std::slice::from_ref(&app));
        assert!(pods.take(Event::Apply(pod("a", Some("ImagePullBackOff")))).is_empty(), "the same again");
        assert_eq!(reason(&pods).as_deref(), Some("ImagePullBackOff"));
        assert_eq!(pods.take(Event::Delete(pod("a", Some("ImagePullBackOff")))), [app]);
        assert_eq!(reason(&pods), None);
    }

    #[test]
    fn an_app_is_woken_when_the_node_of_its_pod_is_lost() {
        let (pods, app) = (AppPods::default(), Who::app("team", "chat"));
        let mut lost = pod("a", None);
        lost.spec = serde_json::from_value(json!({"nodeName": "node-a", "containers": []})).ok();
        let status = lost.status.as_mut().expect("it has one");
        let conditions = json!([
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:01:00Z"},
        ]);
        status.conditions = serde_json::from_value(conditions).expect("conditions");
        assert_eq!(pods.take(Event::Apply(lost)), [app]);
        assert_eq!(reason(&pods).as_deref(), Some("NodeNotReady"));
    }

    #[test]
    fn an_app_is_woken_when_an_init_container_of_its_pod_runs() {
        let (pods, app) = (AppPods::default(), Who::app("team", "chat"));
        let mut made = pod("a", Some("PodInitializing"));
        made.spec = serde_json::from_value(json!({"nodeName": "node-a", "containers": []})).ok();
        let status = made.status.as_mut().expect("it has one");
        status.phase = Some("Pending".into());
        status.init_container_statuses = serde_json::from_value(json!([
            {"name": "fetch", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}},
        ]))
        .ok();
        assert_eq!(pods.take(Event::Apply(made)), [app]);
        let told = pods.held_up("team", "chat", None, &PodWarnings::default(), fixtures::at(0));
        assert!(told.trouble.is_none());
        assert_eq!(told.making.as_deref(), Some("not up yet: pod a: its init container fetch is running"));
    }

    #[test]
    fn the_pod_that_is_to_be_told_of_next_says_when_an_app_is_to_be_looked_at() {
        let pods = AppPods::default();
        let due = |second| pods.due("team", "chat", fixtures::at(second)).map(|wait| wait.as_secs());
        assert_eq!(due(0), None);
        for (name, scheduled) in [("a", 0), ("b", 20)] {
            let mut made = pod(name, Some("ContainerCreating"));
            made.spec = serde_json::from_value(json!({"nodeName": "node-a", "containers": []})).ok();
            let status = made.status.as_mut().expect("it has one");
            status.phase = Some("Pending".into());
            let at = format!("2026-01-01T00:00:{scheduled:02}Z");
            let condition = json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": at}]);
            status.conditions = serde_json::from_value(condition).expect("conditions");
            pods.take(Event::Apply(made));
        }
        // After the first one, the second.
        assert_eq!([0, 29, 30, 49, 50].map(due), [Some(30), Some(1), Some(20), Some(1), None]);
    }

    #[test]
    fn what_befell_a_pod_of_a_former_template_is_told_until_there_is_one_of_the_latest_and_quotes_nobody() {
        let made = |name: &str, template: &str, second: i64, waiting: Option<&str>| {
            let mut made = pod(name, waiting);
            made.labels_mut().insert(LABEL_TEMPLATE_HASH.into(), template.into());
            made.metadata.creation_timestamp = Some(Time(fixtures::at(second)));
            let status = made.status.as_mut().expect("it has one");
            let ended = json!({"terminated": {"exitCode": 1, "message": "a password"}});
            status.container_statuses.as_mut().expect("it has one")[0].last_state =
                waiting.and_then(|_| serde_json::from_value(ended).ok());
            (status.phase, status.pod_ip) = (Some("Running".into()), Some("10.0.0.1".into()));
            Event::Apply(made)
        };
        let deployment = |updated: i32, all: i32| -> Deployment {
            let status = json!({"observedGeneration": 2, "replicas": all, "updatedReplicas": updated});
            let spec = json!({"replicas": 1, "selector": {}, "template": {}});
            serde_json::from_value(json!({"metadata": {"generation": 2}, "spec": spec, "status": status})).expect("a Deployment")
        };
        let pods = AppPods::default();
        let held_up = |deployment| pods.held_up("team", "chat", Some(&deployment), &PodWarnings::default(), fixtures::at(0));
        let told = |held_up: HeldUp| held_up.trouble.map(|trouble| trouble.message);
        pods.take(made("old", "1", 1, Some("CrashLoopBackOff")));
        let ends = "pod old, container chat-worker: CrashLoopBackOff; it ended last with exit code 1";
        assert_eq!(told(held_up(deployment(1, 1))), Some(format!("{ends}: a password")));
        let before = held_up(deployment(0, 1));
        assert!(before.former, "no pod of the latest is there");
        assert_eq!(told(before).as_deref(), Some(ends));
        pods.take(made("new", "2", 2, None));
        let after = held_up(deployment(1, 2));
        assert!(!after.former);
        assert_eq!(told(after), None, "the new one comes up");
    }

    #[test]
    fn a_pod_that_went_away_unseen_keeps_nobody() {
        let pods = AppPods::default();
        pods.take(Event::Apply(pod("a", Some("ImagePullBackOff"))));
        pods.take(Event::Init);
        pods.take(Event::InitApply(pod("b", None)));
        assert_eq!(pods.take(Event::InitDone).len(), 1);
        assert_eq!(reason(&pods), None);
        assert!(pods.state().stuck.is_empty());
    }
}

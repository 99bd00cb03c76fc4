//! What keeps the pods of McpApps from running, as Kubernetes tells it. The pods of servers are the prober's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::sync::Notify;

use crate::{
    pod_trouble::{Stuck, Trouble},
    pod_warnings::PodWarnings,
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
    /// The addresses of those that run, by app and pod.
    running: HashMap<(Who, String), IpAddr>,
    stuck: HashMap<Who, BTreeMap<String, Stuck>>,
    /// The pods of the list that is coming in.
    listing: Option<BTreeSet<(Who, String)>>,
}

/// Why an app has no pod that runs.
#[derive(Debug, Default)]
pub struct HeldUp {
    /// What keeps a pod from running; of several, one that never ran first.
    pub trouble: Option<Trouble>,
    /// How far one is that is on its way.
    pub making: Option<String>,
}

impl AppPods {
    /// What is known of the pods of the app that do not run.
    pub fn held_up(&self, namespace: &str, name: &str, warnings: &PodWarnings) -> HeldUp {
        let state = self.state();
        let pods = || state.stuck.get(&Who::app(namespace, name)).into_iter().flatten();
        HeldUp {
            trouble: pods().filter_map(|(name, pod)| warnings.trouble(name, pod)).min_by_key(|trouble| trouble.ran),
            making: pods().find_map(|(name, pod)| pod.making.as_ref()?.told(name)),
        }
    }

    /// The addresses of the pods that run.
    pub fn running(&self) -> Vec<(Who, IpAddr)> {
        self.state().running.iter().map(|((app, _), address)| (app.clone(), *address)).collect()
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
        let key = (app.clone(), pod.name_any());
        match address(pod).filter(|_| !going) {
            Some(address) => {
                if state.running.insert(key, address) != Some(address) {
                    self.others.notify_one();
                }
            }
            None => {
                state.running.remove(&key);
            }
        }
        let of_app = state.stuck.entry(app.clone()).or_default();
        let before = match stuck.clone() {
            Some(stuck) => of_app.insert(pod.name_any(), stuck),
            None => of_app.remove(&pod.name_any()),
        };
        if of_app.is_empty() {
            state.stuck.remove(&app);
        }
        if before == stuck { Vec::new() } else { vec![app] }
    }

    fn list_ends(&self) -> Vec<Who> {
        let mut state = self.state();
        let listed = state.listing.take().unwrap_or_default();
        state.running.retain(|pod, _| listed.contains(pod));
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

/// Where a pod is that can be asked. None: it does not run.
fn address(pod: &Pod) -> Option<IpAddr> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
    status.pod_ip.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::Component;

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
        pods.held_up("team", "chat", &PodWarnings::default()).trouble.map(|trouble| trouble.reason)
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
        let told = pods.held_up("team", "chat", &PodWarnings::default());
        assert!(told.trouble.is_none());
        assert_eq!(told.making.as_deref(), Some("not up yet: pod a: its init container fetch is running"));
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

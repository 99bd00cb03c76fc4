//! What happens between a call of a server that sleeps and its answer, and when: as watches show it.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use mcpfleet_tests::{cluster::Space, pods};
use operator::names::{Component, LABEL_INSTANCE, LABEL_SERVICE_NAME, LABEL_SLICE_MANAGED_BY};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use crate::setup::OPERATOR_NAMESPACE;

/// A step, and how long after the call it was seen.
type Seen = (&'static str, Duration);

/// What is seen from now on.
pub struct Steps {
    began: Arc<Mutex<Instant>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    listed: mpsc::Sender<()>,
    // They end with this.
    watches: JoinSet<()>,
}

impl Steps {
    /// Watches a server that sleeps. All watches have begun.
    pub async fn watch(space: &Space, server: &str) -> Self {
        let (listed, mut lists) = mpsc::channel(8);
        let (began, seen) = (Arc::new(Mutex::new(Instant::now())), Arc::default());
        let mut steps = Self { began, seen, listed, watches: JoinSet::new() };
        let service = Component::Server.child_name(server);
        let line = format!("{}.{server}", space.name);
        let beside_operator = Api::<ConfigMap>::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
        steps.follow(beside_operator, watcher::Config::default(), move |wanted| {
            let told = wanted.data.as_ref().is_some_and(|data| data.contains_key(&line));
            vec![(told, "the operator is told")]
        });
        let named = watcher::Config::default().fields(&format!("metadata.name={service}"));
        steps.follow(space.api::<Deployment>(), named, |deployment| {
            vec![(deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(1), "a pod is wanted")]
        });
        let of_server = watcher::Config::default().labels(&format!("{LABEL_INSTANCE}={server}"));
        steps.follow(space.api::<Pod>(), of_server, of_pod);
        let of_service = watcher::Config::default().labels(&format!("{LABEL_SERVICE_NAME}={service}"));
        let awake = Component::awake_name(server);
        steps.follow(space.api::<EndpointSlice>(), of_service, move |slice| of_slice(slice, &awake));
        for _ in 0..steps.watches.len() {
            lists.recv().await;
        }
        steps
    }

    fn follow<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        steps: impl Fn(&K) -> Vec<(bool, &'static str)> + Send + 'static,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (began, seen) = (Arc::clone(&self.began), Arc::clone(&self.seen));
        let listed = self.listed.clone();
        self.watches.spawn(async move {
            let mut events = Box::pin(watcher(api, config).default_backoff());
            while let Ok(Some(event)) = events.try_next().await {
                match event {
                    Event::InitDone => {
                        // Nobody waits for a second list.
                        let _first = listed.try_send(());
                    }
                    Event::Apply(object) => {
                        let at = began.lock().unwrap().elapsed();
                        steps(&object).into_iter().filter(|(done, _)| *done).for_each(|(_, step)| note(&seen, step, at));
                    }
                    Event::Init | Event::InitApply(_) | Event::Delete(_) => {}
                }
            }
        });
    }

    /// It is called now.
    pub fn begin(&self) {
        self.seen.lock().unwrap().clear();
        *self.began.lock().unwrap() = Instant::now();
    }

    /// Something that no watch shows.
    pub fn note(&self, step: &'static str) {
        note(&self.seen, step, self.began.lock().unwrap().elapsed());
    }

    /// When a step was seen; once it is.
    pub async fn until(&self, step: &str) -> anyhow::Result<Duration> {
        let seen = || self.seen.lock().unwrap().iter().find(|(seen, _)| *seen == step).map(|(_, at)| *at);
        let mut look = tokio::time::interval(Duration::from_millis(20));
        let awaited = async {
            loop {
                look.tick().await;
                if let Some(at) = seen() {
                    return at;
                }
            }
        };
        Ok(tokio::time::timeout(Duration::from_secs(30), awaited).await?)
    }

    /// All that was seen, in its order.
    pub fn table(&self) -> String {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort_unstable_by_key(|(_, at)| *at);
        let lines: Vec<_> = seen.iter().map(|(step, at)| format!("{:>6} ms  {step}", at.as_millis())).collect();
        lines.join("\n")
    }
}

fn note(seen: &Mutex<Vec<Seen>>, step: &'static str, at: Duration) {
    let mut seen = seen.lock().unwrap();
    if seen.iter().all(|(known, _)| *known != step) {
        seen.push((step, at));
    }
}

fn of_pod(pod: &Pod) -> Vec<(bool, &'static str)> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let status = pod.status.clone().unwrap_or_default();
    let is =
        |type_: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True");
    let runs = status
        .container_statuses
        .iter()
        .flatten()
        .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
    vec![
        (true, "the pod is made"),
        (is("PodScheduled"), "it is scheduled"),
        (status.start_time.is_some(), "the kubelet has seen it"),
        (runs && status.pod_ip.is_some(), "its container runs, and its address is told"),
        (pods::gate(pod) == Some(true), "it answers MCP: its gate is open"),
        (is("Ready"), "Kubernetes counts it as Ready"),
    ]
}

fn of_slice(slice: &EndpointSlice, awake: &str) -> Vec<(bool, &'static str)> {
    let of_kubernetes = slice.labels().get(LABEL_SLICE_MANAGED_BY).is_some_and(|by| by == "endpointslice-controller.k8s.io");
    let ready = slice.endpoints.iter().any(|endpoint| endpoint.conditions.as_ref().and_then(|found| found.ready) == Some(true));
    vec![
        (slice.name_any().starts_with(awake), "the activator is told where it answers"),
        (of_kubernetes && ready, "its Service leads there"),
    ]
}

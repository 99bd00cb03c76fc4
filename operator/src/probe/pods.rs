//! Watches the pods of servers and tells the engine about them. I/O, and the reading of what Kubernetes says about a pod.

use std::{collections::HashSet, fmt::Write as _};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    engine::HealthEngine,
    types::{PodState, ServerKey},
};
use crate::names::{Component, LABEL_COMPONENT, LABEL_INSTANCE, MANAGED_SELECTOR, POD_GATE};

/// Tells `engine` about the pods of servers in `namespace` (none: in all) until `shutdown`. Nothing of a pod is kept but what the
/// engine asks for. Says by `all_told` when it has told of every pod that there is.
pub async fn watch_pods(
    client: Client,
    namespace: Option<String>,
    engine: HealthEngine,
    all_told: oneshot::Sender<()>,
    shutdown: CancellationToken,
) {
    let mut all_told = Some(all_told);
    let pods: Api<Pod> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let selector = format!("{MANAGED_SELECTOR},{LABEL_COMPONENT}={}", Component::Server.as_str());
    let stream = watcher(pods, watcher::Config::default().labels(&selector)).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed: Option<HashSet<String>> = None;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.try_next() => event,
        };
        match event {
            Ok(Some(event)) => {
                let whole = matches!(event, Event::InitDone);
                take(&engine, event, namespace.as_deref(), &mut listed);
                if let Some(all_told) = all_told.take_if(|_| whole) {
                    // Whoever waited for it may have been asked to stop.
                    let _nobody_waits = all_told.send(());
                }
            }
            Ok(None) => return,
            // The stream goes on by itself, with backoff. Until it does, everything stays as it was last.
            Err(error) => tracing::warn!(%error, "the watch of pods broke"),
        }
    }
}

fn take(engine: &HealthEngine, event: Event<Pod>, namespace: Option<&str>, listed: &mut Option<HashSet<String>>) {
    match event {
        Event::Init => *listed = Some(HashSet::new()),
        Event::InitApply(pod) => {
            if let Some(listed) = listed {
                listed.extend(pod.metadata.uid.clone());
            }
            set(engine, &pod);
        }
        // What the new list lacks went away while nobody watched.
        Event::InitDone => {
            let listed = listed.take().unwrap_or_default();
            for (key, uid) in engine.pods() {
                if !listed.contains(&uid) && namespace.is_none_or(|namespace| namespace == key.namespace) {
                    engine.remove_pod(&key, &uid);
                }
            }
        }
        Event::Apply(pod) => set(engine, &pod),
        Event::Delete(pod) => {
            if let (Some(key), Some(uid)) = (key_of(&pod), &pod.metadata.uid) {
                engine.remove_pod(&key, uid);
            }
        }
    }
}

fn set(engine: &HealthEngine, pod: &Pod) {
    if let (Some(key), Some(state)) = (key_of(pod), state_of(pod)) {
        engine.set_pod(&key, state);
    }
}

fn key_of(pod: &Pod) -> Option<ServerKey> {
    Some(ServerKey::new(pod.namespace()?, pod.labels().get(LABEL_INSTANCE)?))
}

/// What the engine must know of a pod; none for one without a uid, which Kubernetes does not make.
pub fn state_of(pod: &Pod) -> Option<PodState> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let over = status.and_then(|status| status.phase.as_deref()).is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    Some(PodState {
        name: pod.name_any(),
        uid: pod.metadata.uid.clone()?,
        address: status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
        incarnation: incarnation(containers),
        containers_ready: condition(conditions, "ContainersReady") == Some(true),
        ready: condition(conditions, "Ready") == Some(true),
        gate: condition(conditions, POD_GATE),
        started_at: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
        // A pod that has run to its end (evicted by the kubelet, for one) comes back as little as one that is being deleted.
        deleting: pod.metadata.deletion_timestamp.is_some() || over,
    })
}

fn condition(conditions: &[PodCondition], type_: &str) -> Option<bool> {
    conditions.iter().find(|condition| condition.type_ == type_).map(|condition| condition.status == "True")
}

fn incarnation(containers: &[ContainerStatus]) -> String {
    containers.iter().fold(String::new(), |mut text, container| {
        let _infallible = write!(text, "{}:{};", container.name, container.restart_count);
        text
    })
}

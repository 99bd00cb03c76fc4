//! Watches the pods of servers and tells the engine about them. I/O, and the reading of what Kubernetes says about a pod.

use std::{collections::HashSet, sync::Arc};

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
    template,
    types::{PodState, ServerKey},
};
use crate::{
    again::Again,
    names::{Component, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_TEMPLATE_HASH, MANAGED_SELECTOR, POD_GATE},
    pod_trouble,
    rollout::Origin,
};

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
    let stream = watcher(pods, watcher::Config::default().labels(&selector)).backoff(Again::default());
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
                    engine.remove_pod(&uid);
                }
            }
        }
        Event::Apply(pod) => set(engine, &pod),
        Event::Delete(pod) => {
            if let Some(uid) = &pod.metadata.uid {
                engine.remove_pod(uid);
            }
        }
    }
}

fn set(engine: &HealthEngine, pod: &Pod) {
    match (key_of(pod), state_of(pod)) {
        (Some(key), Some(state)) => engine.set_pod(&key, state),
        // It was ours, perhaps: somebody took its labels or its ReplicaSet away from it.
        _ => pod.metadata.uid.iter().for_each(|uid| engine.remove_pod(uid)),
    }
}

/// Which server's pod this is. None when it is nobody's: labels alone can be put on any pod, and would lead the prober to wherever that
/// pod wants. So a ReplicaSet of the server's Deployment must control it, and its address must be its own and not the node's.
pub fn key_of(pod: &Pod) -> Option<ServerKey> {
    let labels = pod.labels();
    let (instance, hash) = (labels.get(LABEL_INSTANCE)?, labels.get(LABEL_TEMPLATE_HASH)?);
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let ours = format!("{}-{hash}", Component::Server.child_name(instance));
    let of_ours = owner.kind == "ReplicaSet" && owner.api_version == "apps/v1" && owner.name == ours;
    let on_its_own = pod.spec.as_ref().is_none_or(|spec| spec.host_network != Some(true));
    (of_ours && on_its_own).then_some(())?;
    Some(ServerKey::new(pod.namespace()?, instance))
}

/// What the engine must know of a pod; none for one without a uid, which Kubernetes does not make.
pub fn state_of(pod: &Pod) -> Option<PodState> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let own = containers.iter().find(|container| container.name == pod_trouble::CONTAINER);
    let runs = own.and_then(|own| own.state.as_ref()?.running.as_ref());
    let over = status.and_then(|status| status.phase.as_deref()).is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    Some(PodState {
        name: pod.name_any(),
        uid: pod.metadata.uid.clone()?,
        version: pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()),
        address: status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
        incarnation: own.filter(|_| runs.is_some()).map(incarnation),
        containers_ready: condition(conditions, "ContainersReady") == Some(true),
        ready: condition(conditions, "Ready") == Some(true),
        gate: condition(conditions, POD_GATE),
        started_at: runs.and_then(|running| running.started_at.as_ref()).map(|time| time.0),
        // A pod that has run to its end (evicted by the kubelet, for one) comes back as little as one that is being deleted.
        deleting: pod.metadata.deletion_timestamp.is_some() || over,
        over,
        asked: template::read(pod.annotations()).map(Arc::new),
        origin: Origin::of(pod),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        unready: pod_trouble::unready(pod),
        trouble: pod_trouble::of(pod),
        making: pod_trouble::making(pod),
    })
}

fn condition(conditions: &[PodCondition], type_: &str) -> Option<bool> {
    conditions.iter().find(|condition| condition.type_ == type_).map(|condition| condition.status == "True")
}

/// Names one run of a container. The kubelet may forget how often it restarted one, but not which one runs.
fn incarnation(container: &ContainerStatus) -> String {
    format!("{}:{}", container.restart_count, container.container_id.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "db-mcp-6f9c", "uid": "rs", "controller": true});
        let mut pod = json!({
            "metadata": {
                "name": "db-mcp-6f9c-x", "namespace": "team", "uid": "u", "resourceVersion": "7",
                "labels": {LABEL_INSTANCE: "db", LABEL_TEMPLATE_HASH: "6f9c"}, "ownerReferences": [owner],
            },
            "spec": {"containers": []},
            "status": {"containerStatuses": [running("mcp", 2), running("mesh", 5)]},
        });
        change(&mut pod);
        serde_json::from_value(pod).expect("a pod")
    }

    fn running(name: &str, restarts: u32) -> Value {
        json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": restarts, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    }

    #[test]
    fn a_pod_is_a_servers_when_a_replica_set_of_its_deployment_controls_it() {
        assert_eq!(key_of(&pod(|_| {})), Some(ServerKey::new("team", "db")));
        let foreign: [fn(&mut Value); 6] = [
            |pod| pod["metadata"]["ownerReferences"] = json!([]),
            |pod| pod["metadata"]["ownerReferences"][0]["kind"] = json!("Job"),
            |pod| pod["metadata"]["ownerReferences"][0]["name"] = json!("other-mcp-6f9c"),
            |pod| pod["metadata"]["ownerReferences"][0]["controller"] = json!(false),
            |pod| pod["metadata"]["labels"][LABEL_INSTANCE] = json!("another"),
            |pod| pod["spec"]["hostNetwork"] = json!(true),
        ];
        for (number, change) in foreign.into_iter().enumerate() {
            assert_eq!(key_of(&pod(change)), None, "{number}");
        }
    }

    #[test]
    fn only_the_container_that_speaks_mcp_makes_another_run() {
        let run = |change: fn(&mut Value)| state_of(&pod(change)).expect("a state").incarnation;
        let before = run(|_| {});
        assert!(before.is_some());
        assert_eq!(run(|pod| pod["status"]["containerStatuses"][1]["restartCount"] = json!(6)), before);
        assert_ne!(run(|pod| pod["status"]["containerStatuses"][0]["restartCount"] = json!(3)), before);
        assert_ne!(run(|pod| pod["status"]["containerStatuses"][0]["containerID"] = json!("another")), before);
        assert_eq!(run(|pod| pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {}})), None);
    }
}

//! Carries out what the registry decided: patches gates, evicts, writes Events, tells the reconciler. I/O.
//!
//! Besides Events these are the engine's only writes, and they go to pods, or to the Deployment of one that is to be started anew. The
//! CR's status is the reconciler's.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, Preconditions},
    runtime::events::{Recorder, Reporter},
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    effect::{Effect, Evicted, Eviction, GatePatch, Notice, Patched},
    engine::Shared,
    types::ServerKey,
    verdict::Verdict,
    worker::Prober,
};
use crate::{
    clock,
    crd::reason,
    events,
    names::{CONTROLLER, Component, FIELD_MANAGER, POD_GATE},
};

/// Gates and evictions on their way to the API server at a time: a fleet that turns all at once must not be one burst.
const AT_A_TIME: usize = 32;
/// Events on their way at a time. They have places of their own: where the API server throttles them, no gate waits behind a courtesy.
const EVENTS_AT_A_TIME: usize = 8;
/// How long one call may take: kube's client has no limit of its own.
const CALL: Duration = Duration::from_secs(10);
/// What `kubectl rollout restart` writes into a pod template.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Who carries things out.
#[derive(Clone)]
pub(super) struct Publisher {
    shared: Arc<Shared>,
    client: Client,
    changed: mpsc::UnboundedSender<ServerKey>,
    recorder: Recorder,
    places: Arc<Semaphore>,
    event_places: Arc<Semaphore>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, client: Client, changed: mpsc::UnboundedSender<ServerKey>) -> Self {
        let recorder = Recorder::new(client.clone(), Reporter { controller: CONTROLLER.into(), instance: None });
        let (places, event_places) = (Semaphore::new(AT_A_TIME), Semaphore::new(EVENTS_AT_A_TIME));
        Self { shared, client, changed, recorder, places: Arc::new(places), event_places: Arc::new(event_places) }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Carries out what comes in until `shutdown`, and what is under way to its end.
pub(super) async fn run<P: Prober>(
    publisher: Publisher,
    prober: Arc<P>,
    mut inbox: mpsc::UnboundedReceiver<Effect>,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    while let Some(effect) = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        effect = inbox.recv() => effect,
    } {
        publish(&publisher, &*prober, effect, &tasks, &shutdown);
    }
    tasks.close();
    tasks.wait().await;
}

fn publish<P: Prober>(publisher: &Publisher, prober: &P, effect: Effect, tasks: &TaskTracker, shutdown: &CancellationToken) {
    let metrics = &publisher.shared.metrics;
    match effect {
        Effect::Changed(key) => {
            if let Some(health) = publisher.shared.snapshot(&key) {
                metrics.told(&key, &health);
            }
            // The reconciler ends before us only when the process does.
            let _ended = publisher.changed.send(ServerKey::clone(&key));
        }
        Effect::Forget(id, epoch) => {
            prober.forget(id);
            publisher.shared.ground(id, epoch);
        }
        Effect::Transition(key, transition, why) => {
            metrics.transition(transition);
            let (reason, message) = why.unwrap_or_default();
            tracing::info!(server = %key, from = transition.from.as_str(), to = transition.to.as_str(), reason, why = %message, "circuit changed");
        }
        Effect::Turned(key, pod, verdict) => {
            let Verdict { kind, reason, message } = verdict;
            tracing::info!(server = %key, pod, verdict = kind.as_str(), reason, why = %message, "a target answers otherwise than before");
        }
        Effect::Gone(key) => metrics.gone(&key),
        Effect::Panic(active) => {
            metrics.panic(active);
            tracing::warn!(active, "fleet panic: more than half of the servers fail at once");
            if let Some(object) = publisher.shared.config.operator.clone() {
                let notice = fleet_notice(object, active);
                let act = move |publisher: Publisher| async move { announce(&publisher, notice).await };
                spawn(publisher, &publisher.event_places, tasks, shutdown, act);
            }
        }
        Effect::Gate(patch) => {
            spawn(publisher, &publisher.places, tasks, shutdown, move |publisher| async move { gate(&publisher, patch).await });
        }
        Effect::Event(notice) => {
            let act = move |publisher: Publisher| async move { announce(&publisher, notice).await };
            spawn(publisher, &publisher.event_places, tasks, shutdown, act);
        }
        Effect::Evict(eviction) => {
            let act = move |publisher: Publisher| async move { evict(&publisher, eviction).await };
            spawn(publisher, &publisher.places, tasks, shutdown, act);
        }
    }
}

fn spawn<F: Future<Output = ()> + Send>(
    publisher: &Publisher,
    places: &Arc<Semaphore>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    act: impl FnOnce(Publisher) -> F + Send + 'static,
) {
    let (publisher, places, shutdown) = (publisher.clone(), Arc::clone(places), shutdown.clone());
    tasks.spawn(async move {
        // What has not begun when the lease is lost is our successor's.
        let place = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            place = places.acquire() => place,
        };
        if place.is_ok() {
            // In a box of its own: those that wait for a place, a whole fleet perhaps, are small.
            Box::pin(act(publisher)).await;
        }
    });
}

fn fleet_notice(object: k8s_openapi::api::core::v1::ObjectReference, active: bool) -> Notice {
    if active {
        let note = "more than half of the servers fail at once: nothing is taken out of service while that lasts, for 10 minutes at most".into();
        Notice { object, warning: true, reason: reason::FLEET_PANIC, action: "HoldFleet", note }
    } else {
        let note =
            "no more than half of the servers fail, or it lasted for 10 minutes: what fails is taken out of service again".into();
        Notice { object, warning: false, reason: reason::FLEET_PANIC_OVER, action: "ReleaseFleet", note }
    }
}

async fn gate(publisher: &Publisher, patch: GatePatch) {
    let body = json!({
        // Another pod of this name is not patched: the API server compares the uid.
        "metadata": {"uid": patch.uid},
        "status": {"conditions": [{
            "type": POD_GATE,
            "status": if patch.value { "True" } else { "False" },
            "reason": patch.reason,
            "message": &*patch.message,
            "lastTransitionTime": clock::time(clock::now()),
        }]},
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let pods = publisher.pods(&patch.namespace);
    // Strategic: it merges conditions by type, and leaves the kubelet's alone.
    let body = Patch::Strategic(&body);
    let outcome = match tokio::time::timeout(CALL, pods.patch_status(&patch.pod, &params, &body)).await {
        Ok(Ok(pod)) => {
            let (namespace, value, reason, message) = (&patch.namespace, patch.value, patch.reason, &patch.message);
            tracing::info!(pod = %patch.pod, namespace, value, reason, why = %message, "readiness gate patched");
            Patched::Done(pod.metadata.resource_version.and_then(|version| version.parse().ok()))
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Patched::Gone,
        // A conflict (409) is another uid, and then the watch will say so; or the kubelet was quicker, five times in a row.
        Ok(Err(error)) => {
            tracing::warn!(pod = %patch.pod, namespace = %patch.namespace, %error, "could not patch the readiness gate");
            Patched::Failed
        }
        Err(_) => {
            tracing::warn!(pod = %patch.pod, namespace = %patch.namespace, "the patch of the readiness gate took too long");
            Patched::Failed
        }
    };
    publisher.shared.metrics.gate(
        patch.value,
        match outcome {
            Patched::Done(_) => "done",
            Patched::Gone => "gone",
            Patched::Failed => "failed",
        },
    );
    publisher.shared.act(|registry, now| registry.patched(patch.id, patch.value, outcome, now));
}

async fn evict(publisher: &Publisher, eviction: Eviction) {
    let outcome = match tokio::time::timeout(CALL, take_down(publisher, &eviction)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Evicted::Gone,
        Ok(Err(kube::Error::Api(status))) => Evicted::Refused(status.message.clone()),
        Ok(Err(error)) => Evicted::Refused(error.to_string()),
        Err(_) => Evicted::Refused("the API server did not answer in time".into()),
    };
    publisher.shared.metrics.eviction(match &outcome {
        Evicted::Done | Evicted::Restarted => "done",
        Evicted::Gone => "gone",
        Evicted::Refused(_) => "refused",
    });
    let Eviction { namespace, pod, why, .. } = &eviction;
    match &outcome {
        Evicted::Refused(refusal) => {
            tracing::warn!(pod, namespace, reason = why.reason, why = %why.message, refusal, "could not evict a pod that stays failed");
        }
        Evicted::Done | Evicted::Restarted | Evicted::Gone => {
            tracing::info!(pod, namespace, reason = why.reason, why = %why.message, "evicted a pod that stays failed");
        }
    }
    publisher.shared.act(|registry, now| registry.evicted(&eviction, &outcome, now));
}

/// An eviction asks the pod's budget; but the next pod would be there at once, beside the one that goes. Where only one may write,
/// the Deployment is restarted as `kubectl rollout restart` does it: by Recreate, Kubernetes itself waits until the pod is gone.
async fn take_down(publisher: &Publisher, eviction: &Eviction) -> kube::Result<Evicted> {
    let deployments: Api<Deployment> = Api::namespaced(publisher.client.clone(), &eviction.namespace);
    let pods = publisher.pods(&eviction.namespace);
    let deployment = deployments.get_opt(&Component::Server.child_name(&eviction.server)).await?;
    if let Some(deployment) = deployment.filter(recreates) {
        // Pods are listed, for that is a right that we have.
        let named = pods.list(&ListParams::default().fields(&format!("metadata.name={}", eviction.pod))).await?;
        if !named.iter().any(|pod| pod.uid().as_ref() == Some(&eviction.uid)) {
            return Ok(Evicted::Gone);
        }
        let restart = json!({
            "metadata": {"resourceVersion": deployment.resource_version()},
            "spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: clock::time(clock::now())}}}},
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        deployments.patch(&deployment.name_any(), &params, &Patch::Merge(&restart)).await?;
        return Ok(Evicted::Restarted);
    }
    let preconditions = Preconditions { uid: Some(eviction.uid.clone()), resource_version: None };
    let delete_options = Some(DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() });
    pods.evict(&eviction.pod, &EvictParams { delete_options, ..EvictParams::default() }).await?;
    Ok(Evicted::Done)
}

fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

async fn announce(publisher: &Publisher, notice: Notice) {
    let event = events::event(notice.warning, notice.reason, &notice.note, notice.action);
    match tokio::time::timeout(CALL, publisher.recorder.publish(&event, &notice.object)).await {
        Ok(Ok(())) => {}
        // In a namespace that is going nothing can be made any more, and nobody is left to read it.
        Ok(Err(error)) if events::namespace_goes(&error) => {
            tracing::debug!(reason = notice.reason, "no Event in a namespace that is going");
        }
        // An Event is a courtesy: what it tells is in status and metrics, too.
        Ok(Err(error)) => tracing::warn!(reason = notice.reason, %error, "could not write an Event"),
        Err(_) => tracing::warn!(reason = notice.reason, "writing an Event took too long"),
    }
}

//! The scopes side by side: each namespace (or all) is looked after by a task of its own, and one that cannot be looked after holds
//! up nobody else.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
};
use metrics_text::{IntGaugeVec, MetricSet};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Standing,
    child,
    crd::{McpApp, McpServer},
    probe::watch_pods,
    reach::{Reach, learn},
    scope::{self, Scope, Shared},
};

/// A scope of which not everything is known after this time is told, and no longer waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the search for the reason may take.
const SEARCH: Duration = Duration::from_secs(10);

/// A namespace, or all of them.
pub type Namespace = Option<String>;

/// What every scope's task is given.
#[derive(Clone)]
pub struct Looks {
    /// What the controllers share.
    pub shared: Shared,
    /// Told of the Services that remote servers may lead to.
    pub reach: Arc<Reach>,
    /// Told of each scope whose controllers run.
    pub known: mpsc::UnboundedSender<(Namespace, Scope)>,
    /// What the process says of itself.
    pub standing: watch::Sender<Standing>,
    /// Which scopes are known.
    pub metric: ScopeMetric,
    /// Ends it.
    pub stop: CancellationToken,
}

/// `mcpfleet_scope_known`.
#[derive(Clone, Debug)]
pub struct ScopeMetric(IntGaugeVec);

impl ScopeMetric {
    /// Registers it.
    pub fn new(all: &MetricSet) -> Self {
        let help = "1 when all objects of the namespace are known and it is looked after, 0 when not; \"*\" is all namespaces";
        Self(all.gauges("mcpfleet_scope_known", help, &["namespace"]))
    }

    fn set(&self, namespace: &Namespace, known: bool) {
        self.0.with_label_values(&[name(namespace)]).set(known.into());
    }
}

/// How a scope is called.
pub fn name(namespace: &Namespace) -> &str {
    namespace.as_deref().unwrap_or("*")
}

/// Looks after one scope until asked to stop. What it returns is the part that ended by itself.
pub async fn look_after(looks: Looks, namespace: Namespace) -> Option<&'static str> {
    let Looks { shared, reach, known, standing, metric, stop } = looks;
    let mut parts = JoinSet::new();
    metric.set(&namespace, false);
    let ended = tokio::select! {
        () = stop.cancelled() => None,
        ended = async {
            let started = start(&shared, &reach, &namespace, &standing, &stop, &mut parts).await;
            match started {
                Ok(scope) => {
                    metric.set(&namespace, true);
                    standing.send_modify(|standing| standing.knows(name(&namespace)));
                    tracing::info!(scope.namespace = name(&namespace), "reconciling");
                    // Nobody listens only when the process ends.
                    let _ = known.send((namespace.clone(), scope));
                    match parts.join_next().await {
                        Some(Ok(part)) => Some(part),
                        _ => Some("a part of a scope"),
                    }
                }
                Err(part) => Some(part),
            }
        } => ended,
    };
    parts.shutdown().await;
    ended
}

/// Starts the watches and, when their first lists are in, the controllers.
async fn start(
    shared: &Shared,
    reach: &Arc<Reach>,
    namespace: &Namespace,
    standing: &watch::Sender<Standing>,
    stop: &CancellationToken,
    parts: &mut JoinSet<&'static str>,
) -> Result<Scope, &'static str> {
    let (all_told, pods_known) = oneshot::channel();
    let (client, engine) = (shared.client.clone(), shared.engine.clone());
    let watch = watch_pods(client, namespace.clone(), engine, all_told, stop.clone());
    parts.spawn(async move {
        watch.await;
        "the watch of pods"
    });
    let (services_told, services_known) = oneshot::channel();
    let services = learn::services(shared.client.clone(), namespace.clone(), Arc::clone(reach), services_told);
    parts.spawn(async move {
        services.await;
        "the watch of Services"
    });
    let started = async {
        services_known.await.map_err(|_| "the watch of Services")?;
        // All pods are known before any server is looked at: else one that serves would be told as NotReady for a moment.
        pods_known.await.map_err(|_| "the watch of pods")?;
        scope::start(shared, namespace.as_deref(), parts).await.map_err(|_| "a watch")
    };
    tokio::pin!(started);
    loop {
        if let Ok(started) = timeout(PATIENCE, &mut started).await {
            return started;
        }
        let why = why_not(&shared.client, namespace.as_deref()).await;
        let (scope, reason) = (name(namespace), why.as_deref().unwrap_or("the API server has not answered all lists"));
        tracing::error!(scope.namespace = scope, reason, "a namespace cannot be looked after yet; the others are");
        standing.send_modify(|standing| standing.gives_up(scope, reason));
    }
}

/// What the API server says to a list that the scope needs and does not get.
async fn why_not(client: &Client, namespace: Option<&str>) -> Option<String> {
    let refusal = async {
        for kind in kinds() {
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
                None => Api::all_with(client.clone(), &kind),
            };
            if let Err(kube::Error::Api(status)) = api.list_metadata(&ListParams::default().limit(1)).await {
                return Some(status.message);
            }
        }
        None
    };
    timeout(SEARCH, refusal).await.ok().flatten()
}

/// Every kind that a scope watches.
fn kinds() -> impl Iterator<Item = ApiResource> {
    let watched = [ApiResource::erase::<Pod>(&()), ApiResource::erase::<McpServer>(&()), ApiResource::erase::<McpApp>(&())];
    watched.into_iter().chain(child::KINDS.iter().map(|kind| (kind.resource)()))
}

/// The names of all scopes.
pub fn names(scopes: &[Namespace]) -> BTreeSet<String> {
    scopes.iter().map(|namespace| name(namespace).to_owned()).collect()
}

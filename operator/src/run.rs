//! Wiring: what the process consists of. The first part that ends by itself ends the process, and says which it was.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use prometheus::Registry;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admin::{self, Admin},
    config::RunConfig,
    leader::{self, Lead},
    metrics::{ReconcileMetrics, leader_gauge},
    names,
    probe::{EngineConfig, HealthEngine, watch_pods},
    scope::{self, Scopes, Shared},
};

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the read-only HTTP is taken, or not ours.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Two metrics of one name: a mistake in this program.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// No lead.
    #[error(transparent)]
    Leader(#[from] leader::Error),
    /// The lead went to another process. It is no fault, but this one must not write any more.
    #[error("the lead is lost: another process leads, or the API server cannot be reached")]
    LeadLost,
    /// A part that should run for ever ended.
    #[error("{0} ended")]
    PartEnded(&'static str),
    /// A part panicked.
    #[error("a part of the process panicked")]
    PartPanicked(#[from] tokio::task::JoinError),
}

/// Runs until asked to stop, or until something that must not end does.
pub async fn run(config: RunConfig, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let registry = Registry::new();
    let leads = leader_gauge(&registry)?;
    let metrics = ReconcileMetrics::new(&registry)?;
    let engine = HealthEngine::new(
        EngineConfig {
            max_in_flight: config.max_probes_in_flight as usize,
            server_metrics: config.server_metrics,
            proxy: config.proxy(),
            operator: config.identity.as_ref().map(|pod| own_pod(&config.namespace, pod)),
            ..EngineConfig::default()
        },
        &registry,
    );
    let listener = TcpListener::bind(config.listen).await.map_err(|source| Error::Listen { address: config.listen, source })?;
    let ready = Arc::new(AtomicBool::new(true));
    let admin = Admin { registry, engine: engine.clone(), ready: Arc::clone(&ready) };
    let mut parts = JoinSet::new();
    let stop_admin = CancellationToken::new();
    parts.spawn({
        let stop = stop_admin.clone();
        async move {
            if let Err(error) = admin::serve(listener, admin, stop).await {
                tracing::error!(%error, "the read-only HTTP failed");
            }
            "the read-only HTTP"
        }
    });

    let mut lead = None;
    if !config.no_leader_election {
        lead = Lead::acquire(client.clone(), &config.namespace, config.identity.clone(), &shutdown).await?;
        if lead.is_none() {
            return Ok(());
        }
    }
    leads.set(1);
    ready.store(false, Ordering::Relaxed);

    let shared = Shared {
        recorder: Recorder::new(
            client.clone(),
            Reporter { controller: names::CONTROLLER.into(), instance: config.identity.clone() },
        ),
        client: client.clone(),
        engine: engine.clone(),
        metrics,
        chat_worker_image: config.chat_worker_image.clone(),
        concurrency: config.concurrency,
    };
    let mut scopes = Scopes::default();
    for namespace in config.scopes() {
        let (all_told, pods_known) = oneshot::channel();
        parts.spawn({
            let (client, namespace, engine, stop) = (client.clone(), namespace.clone(), engine.clone(), shutdown.clone());
            async move {
                watch_pods(client, namespace, engine, all_told, stop).await;
                "the watch of pods"
            }
        });
        // All pods are known before any server is looked at: else one that serves would be told as NotReady for a moment.
        tokio::select! {
            known = pods_known => known.map_err(|_| Error::PartEnded("the watch of pods"))?,
            () = shutdown.cancelled() => break,
        }
        let started = tokio::select! {
            started = scope::start(&shared, namespace.as_deref(), &mut parts) => started,
            () = shutdown.cancelled() => break,
        };
        let scope = started.map_err(|_| Error::PartEnded("a watch"))?;
        scopes.insert(namespace, scope);
    }
    ready.store(true, Ordering::Relaxed);
    let namespaces = if config.watch_namespaces.is_empty() { "all".to_owned() } else { config.watch_namespaces.join(",") };
    tracing::info!(namespaces, "reconciling");

    let (changed, mut to_wake) = mpsc::unbounded_channel();
    let stop_probing = CancellationToken::new();
    let probing = AbortOnDropHandle::new(tokio::spawn(engine.run(client, changed, stop_probing.clone())));
    let ended = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            () = lost(&mut lead) => break Err(Error::LeadLost),
            Some(key) = to_wake.recv() => scopes.wake(&key),
            Some(part) = parts.join_next() => {
                // Parts end when they are asked to, too: then it is no fault.
                if shutdown.is_cancelled() {
                    break Ok(());
                }
                break part.map_or_else(|error| Err(error.into()), |name| Err(Error::PartEnded(name)));
            }
        }
    };

    // Writers first, then the sessions of probes, then the Lease: whoever leads next finds nobody else writing.
    parts.shutdown().await;
    stop_probing.cancel();
    if probing.await.is_err() {
        tracing::error!("the prober panicked");
    }
    stop_admin.cancel();
    leads.set(0);
    if let Some(lead) = lead {
        lead.release().await;
    }
    ended
}

async fn lost(lead: &mut Option<Lead>) {
    match lead {
        Some(lead) => lead.lost().await,
        None => std::future::pending().await,
    }
}

/// The pod that this process runs in, for Events about the fleet as a whole.
fn own_pod(namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        ..ObjectReference::default()
    }
}

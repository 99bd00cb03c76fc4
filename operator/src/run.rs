//! Wiring: what the process consists of. The first part that ends by itself ends the process, and says which it was.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use metrics_text::MetricSet;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admin::{self, Access, Admin, FleetDocument, Standing},
    asleep::{self, Asleep},
    attempts::Attempts,
    autoscale::{self, Autoscaler},
    backups::Backups,
    config::RunConfig,
    digest_key,
    inherit::Inherit,
    leader::{Election, Lead},
    metrics::{ReconcileMetrics, leader_gauge},
    names,
    probe::{EngineConfig, HealthEngine, RemotePolicy, ServerKey},
    reach::{self, Reach},
    scope::{Scopes, Shared},
    scopes::{self, Looks, Namespace, ScopeMetric},
};

/// How long the first list of nodes is waited for.
const NODES_PATIENCE: Duration = Duration::from_secs(5);

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the read-only HTTP is taken, or not ours.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The lead went to another process. It is no fault, but this one must not write any more.
    #[error("the lead is lost: another process leads, or the API server cannot be reached")]
    LeadLost,
    /// A part that should run for ever ended.
    #[error("{0} ended")]
    PartEnded(&'static str),
    /// A part panicked.
    #[error("a part of the process panicked")]
    PartPanicked(#[from] JoinError),
}

/// Runs until asked to stop, or until something that must not end does.
pub async fn run(config: RunConfig, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let measured = MetricSet::default();
    let leads = leader_gauge(&measured);
    let metrics = ReconcileMetrics::new(&measured);
    let scope_metric = ScopeMetric::new(&measured);
    let backups = Backups::new(&measured);
    let autoscaler = Arc::new(Autoscaler::new(&measured, config.scale_down_window()));
    let reach = Reach::new(config.remote_allow.0.clone(), config.remote_deny.0.clone());
    let engine = HealthEngine::new(
        EngineConfig {
            remote: RemotePolicy { reach: Some(Arc::clone(&reach)), tool_calls: config.remote_tool_calls },
            max_in_flight: config.max_probes_in_flight as usize,
            server_metrics: config.server_metrics,
            proxy: config.proxy(),
            operator: config.identity.as_ref().map(|pod| own_pod(&config.namespace, pod)),
            ..EngineConfig::default()
        },
        &measured,
    );
    let listener = listen(config.listen).await.map_err(|source| Error::Listen { address: config.listen, source })?;
    let (standing, stands) = watch::channel(Standing::Standby { leader: None });
    let admin = Admin {
        metrics: measured,
        engine: engine.clone(),
        standing: stands,
        access: Access::new(client.clone(), config.authenticate),
        fleet: FleetDocument::default(),
    };
    let mut parts = JoinSet::new();
    let stop_admin = CancellationToken::new();
    parts.spawn({
        let stop = stop_admin.clone();
        async move {
            if let Err(error) = admin::serve(listener, admin, stop).await {
                tracing::error!(%error, "the read-only HTTP failed");
            }
            Some("the read-only HTTP")
        }
    });

    let mut lead = None;
    if !config.no_leader_election {
        let standby = |leader: Option<&str>| {
            standing.send_replace(Standing::Standby { leader: leader.map(Into::into) });
        };
        lead = Lead::acquire(&election(&config, &client), &shutdown, standby).await;
        if lead.is_none() {
            return Ok(());
        }
    }
    leads.set(1);
    let namespaces = config.scopes();
    standing.send_replace(Standing::Leading { waits_for: scopes::names(&namespaces), without: BTreeMap::new() });

    // Who is alive, and who leads, is known whatever becomes of the scopes.
    let (changed, mut to_wake) = mpsc::unbounded_channel();
    let stop_probing = CancellationToken::new();
    parts.spawn(ask_for_calls(Arc::clone(&autoscaler), engine.clone(), client.clone(), changed.clone()));
    let asleep = Arc::new(Asleep::new(changed.clone()));
    parts.spawn(follow_activator(config.clone(), client.clone(), Arc::clone(&asleep)));
    let probing = AbortOnDropHandle::new(tokio::spawn(engine.clone().run(client.clone(), changed, stop_probing.clone())));
    let (known, mut now_known) = mpsc::unbounded_channel();
    let shared = shared(&config, client, engine, metrics, (backups, autoscaler, asleep));
    let (nodes_told, nodes_known) = oneshot::channel();
    parts.spawn({
        let nodes = reach::learn::nodes(shared.client.clone(), Arc::clone(&reach), nodes_told);
        async move {
            nodes.await;
            Some("the watch of nodes")
        }
    });
    // No remote server is asked before it is known what it must not be; but an API server that is slow to say holds up nobody.
    let nodes_known = tokio::time::timeout(NODES_PATIENCE, nodes_known).map(|_not_told_in_time| ()).shared();
    let looks = Looks { shared, reach, known, standing, metric: scope_metric, stop: CancellationToken::new() };
    let mut looking = JoinSet::new();
    for namespace in namespaces {
        looking.spawn(after(nodes_known.clone(), looks.clone(), namespace));
    }
    let mut scopes = Scopes::default();
    let ended = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            () = lost(&mut lead) => break Err(Error::LeadLost),
            Some((namespace, scope)) = now_known.recv() => scopes.insert(namespace, scope),
            Some(key) = to_wake.recv() => scopes.wake(&key),
            Some(part) = parts.join_next() => break ended(part, &shutdown),
            Some(part) = looking.join_next() => break ended(part, &shutdown),
        }
    };

    // Writers first, then the sessions of probes, then the Lease: whoever leads next finds nobody else writing.
    looks.stop.cancel();
    while looking.join_next().await.is_some() {}
    stop_probing.cancel();
    if probing.await.is_err() {
        tracing::error!("the prober panicked");
    }
    stop_admin.cancel();
    parts.shutdown().await;
    leads.set(0);
    if let Some(lead) = lead {
        lead.release().await;
    }
    ended
}

/// Looks after a scope from when the nodes are known.
async fn after(nodes_known: impl Future<Output = ()>, looks: Looks, namespace: Namespace) -> Option<&'static str> {
    tokio::select! {
        () = looks.stop.cancelled() => return None,
        () = nodes_known => {}
    }
    scopes::look_after(looks, namespace).await
}

async fn follow_activator(config: RunConfig, client: Client, asleep: Arc<Asleep>) -> Option<&'static str> {
    if config.activator_service.is_empty() {
        return std::future::pending().await;
    }
    let RunConfig { namespace, activator_service, activator_wanted, .. } = &config;
    tokio::select! {
        () = asleep::activator::watch(&asleep, client.clone(), namespace, activator_service) => Some("the watch of the activator"),
        () = asleep::wanted::watch(&asleep, client, namespace, activator_wanted) => Some("the watch of who is wanted"),
    }
}

async fn ask_for_calls(
    autoscaler: Arc<Autoscaler>,
    engine: HealthEngine,
    client: Client,
    changed: mpsc::UnboundedSender<ServerKey>,
) -> Option<&'static str> {
    autoscale::watch(autoscaler, engine, client, changed).await;
    Some("the asking for calls in flight")
}

/// What it means that a part has ended. Parts end when they are asked to, too: then it is no fault.
fn ended(part: Result<Option<&'static str>, JoinError>, shutdown: &CancellationToken) -> Result<(), Error> {
    if shutdown.is_cancelled() {
        return Ok(());
    }
    Err(Error::PartEnded(part?.unwrap_or("a scope")))
}

/// Listens on both families where [::] is asked for, and on IPv4 alone where the node's kernel knows no other.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() != ErrorKind::AddrInUse && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn election(config: &RunConfig, client: &Client) -> Election {
    let somebody = || format!("{}-{:016x}", config.lease_name, rand::random::<u64>());
    Election {
        client: client.clone(),
        namespace: config.namespace.clone(),
        lease: config.lease_name.clone(),
        identity: config.identity.clone().unwrap_or_else(somebody),
    }
}

fn shared(
    config: &RunConfig,
    client: Client,
    engine: HealthEngine,
    metrics: ReconcileMetrics,
    (backups, autoscaler, asleep): (Backups, Arc<Autoscaler>, Arc<Asleep>),
) -> Shared {
    let reporter = Reporter { controller: names::CONTROLLER.into(), instance: config.identity.clone() };
    Shared {
        recorder: Recorder::new(client.clone(), reporter),
        inherit: Arc::new(Inherit { labels: config.inherit_labels.clone(), annotations: config.inherit_annotations.clone() }),
        backups: Arc::new(backups),
        autoscaler,
        asleep,
        around: Arc::new(config.surroundings()),
        digest_key: digest_key::Source::new(client.clone(), &config.namespace, &config.digest_key_secret),
        client,
        engine,
        attempts: Arc::new(Attempts::new(metrics.failing())),
        metrics,
        chat_worker_image: config.chat_worker_image.clone(),
        stdio_sources: config.stdio_sources(),
        concurrency: config.concurrency,
    }
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

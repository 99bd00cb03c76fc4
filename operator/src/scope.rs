//! A scope (a namespace, or all) that is being looked after: its watches, and the controllers of both kinds over them.

use std::{collections::BTreeMap, convert::Infallible, fmt::Debug, sync::Arc};

use futures::StreamExt;
use kube::{
    Client, Resource,
    runtime::{
        applier,
        controller::{Action, Config},
        events::Recorder,
        reflector::{ObjectRef, store::WriterDropped},
    },
};
use tokio::task::JoinSet;

use crate::{
    app_reports::{self, AppReports},
    asleep::Asleep,
    attempts::Attempts,
    autoscale::Autoscaler,
    backups::Backups,
    contests::Contests,
    crd::{McpApp, McpServer},
    digest_key,
    inherit::Inherit,
    inputs::Reader,
    mcp_app, mcp_server,
    metrics::ReconcileMetrics,
    network::Surroundings,
    pass::{self, Context, Subject},
    pod_warnings::PodWarnings,
    probe::{HealthEngine, ServerKey},
    ssa::Writer,
    watch::{Keepers, Requests, Waker, Wakers, Watches},
};

/// What every scope shares.
#[derive(Clone)]
pub struct Shared {
    /// The API server.
    pub client: Client,
    /// Who is alive.
    pub engine: HealthEngine,
    /// What came of the backups.
    pub backups: Arc<Backups>,
    /// How many pods there are to be.
    pub autoscaler: Arc<Autoscaler>,
    /// Who sleeps.
    pub asleep: Arc<Asleep>,
    /// Events.
    pub recorder: Recorder,
    /// Counts and times passes.
    pub metrics: ReconcileMetrics,
    /// Whose passes fail.
    pub attempts: Arc<Attempts>,
    /// Keys the digests of Secrets and ConfigMaps.
    pub digest_key: digest_key::Source,
    /// What of a CR its children get, too.
    pub inherit: Arc<Inherit>,
    /// Who is around the CRs.
    pub around: Arc<Surroundings>,
    /// The chat worker of this operator's version.
    pub chat_worker_image: String,
    /// Where it comes from what servers on standard input and output need.
    pub stdio_sources: mcp_server::stdio::Sources,
    /// Objects reconciled at once, of each kind and scope.
    pub concurrency: u16,
}

/// A scope that is being looked after.
#[derive(Debug)]
pub struct Scope {
    /// Wakes a server, for the prober.
    pub servers: Waker<McpServer>,
}

/// Starts the watches and, when their first lists are in, the controllers. Every task is put into `tasks`: none of them ends.
pub async fn start(shared: &Shared, namespace: Option<&str>, tasks: &mut JoinSet<&'static str>) -> Result<Scope, WriterDropped> {
    let (wakers, server_requests, app_requests) = Wakers::new();
    let known = Watches { client: &shared.client, namespace, wakers: &wakers, tasks }.open(Keepers {
        engine: shared.engine.clone(),
        backups: Arc::clone(&shared.backups),
        autoscaler: Arc::clone(&shared.autoscaler),
        asleep: Arc::clone(&shared.asleep),
        attempts: Arc::clone(&shared.attempts),
    });
    known.ready().await?;

    let (secrets, config_maps) = (Arc::clone(&known.secrets), Arc::clone(&known.config_maps));
    let reader = Arc::new(Reader::new(shared.client.clone(), secrets, config_maps, shared.digest_key.get().await));
    let writer =
        Writer { client: shared.client.clone(), children: Arc::clone(&known.children), contests: Arc::new(Contests::default()) };
    let parts = Parts { shared, reader: &reader, writer: &writer, warnings: &known.warnings };
    let (sources, backups) = (shared.stdio_sources.clone(), Arc::clone(&shared.backups));
    let (autoscaler, asleep) = (Arc::clone(&shared.autoscaler), Arc::clone(&shared.asleep));
    let leading = Arc::clone(&known.leading);
    let world = mcp_server::World { engine: shared.engine.clone(), sources, backups, autoscaler, asleep, leading };
    let server_context = parts.context(&known.servers, world);
    let reports = Arc::new(AppReports::default());
    let asking = app_reports::watch(Arc::clone(&reports), Arc::clone(&known.app_pods), {
        let apps = wakers.app.clone();
        move |app| apps.wake(&app.namespace, &app.name)
    });
    tasks.spawn(async move {
        asking.await;
        "the asking of apps"
    });
    let world_of_apps = mcp_app::World {
        servers: Arc::clone(&known.servers),
        pods: Arc::clone(&known.app_pods),
        reports,
        default_image: shared.chat_worker_image.clone(),
    };
    let app_context = parts.context(&known.apps, world_of_apps);
    run::<McpServer>(server_context, server_requests, shared.concurrency, "the controller of McpServers", tasks);
    run::<McpApp>(app_context, app_requests, shared.concurrency, "the controller of McpApps", tasks);
    Ok(Scope { servers: wakers.server })
}

/// What the contexts of both kinds are made of.
struct Parts<'a> {
    shared: &'a Shared,
    reader: &'a Arc<Reader>,
    writer: &'a Writer,
    warnings: &'a Arc<PodWarnings>,
}

impl Parts<'_> {
    fn context<S: Subject>(&self, subjects: &Arc<crate::cache::Cache<S>>, world: S::World) -> Context<S> {
        Context {
            subjects: Arc::clone(subjects),
            writer: self.writer.clone(),
            reader: Arc::clone(self.reader),
            recorder: self.shared.recorder.clone(),
            attempts: Arc::clone(&self.shared.attempts),
            jitter: rand::random,
            metrics: self.shared.metrics.clone(),
            inherit: Arc::clone(&self.shared.inherit),
            warnings: Arc::clone(self.warnings),
            around: Arc::clone(&self.shared.around),
            world,
        }
    }
}

fn run<S: Subject>(
    context: Context<S>,
    requests: Requests<S>,
    concurrency: u16,
    what: &'static str,
    tasks: &mut JoinSet<&'static str>,
) {
    let store = context.subjects.store();
    let running = applier(
        |subject, context| Box::pin(pass::reconcile::<S>(subject, context)),
        |_, never: &Infallible, _| match *never {},
        Arc::new(context),
        store,
        requests.map(Ok::<_, Infallible>),
        Config::default().concurrency(concurrency),
    );
    tasks.spawn(async move {
        running.for_each(|ended| async { log_lost(ended) }).await;
        what
    });
}

/// A pass whose object went away before it began is no news; anything else is.
fn log_lost<K: Resource<DynamicType = ()> + Debug>(
    ended: Result<(ObjectRef<K>, Action), kube::runtime::controller::Error<Infallible, Infallible>>,
) {
    match ended {
        Ok(_) | Err(kube::runtime::controller::Error::ObjectNotFound(_)) => {}
        Err(error) => tracing::error!(%error, "a pass was lost"),
    }
}

/// Which scope looks after a namespace.
#[derive(Debug, Default)]
pub struct Scopes(BTreeMap<Option<String>, Scope>);

impl Scopes {
    /// Adds one.
    pub fn insert(&mut self, namespace: Option<String>, scope: Scope) {
        self.0.insert(namespace, scope);
    }

    /// Wakes a server, in whatever scope it is.
    pub fn wake(&self, key: &ServerKey) {
        let scope = self.0.get(&None).or_else(|| self.0.get(&Some(key.namespace.clone())));
        if let Some(scope) = scope {
            scope.servers.wake(&key.namespace, &key.name);
        }
    }
}

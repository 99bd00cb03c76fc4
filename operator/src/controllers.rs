//! Watches and controllers of one scope (a namespace, or all): which change wakes which object.

use std::{collections::BTreeMap, convert::Infallible, fmt::Debug, sync::Arc};

use futures::{StreamExt, channel::mpsc};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt, applier,
        controller::{Action, Config},
        events::Recorder,
        reflector::{ObjectRef, store::WriterDropped},
        watcher,
    },
};
use tokio::task::JoinSet;

use crate::{
    backoff::Attempts,
    cache::{Cache, Change, follow, prune},
    crd::{McpApp, McpServer},
    digest_key,
    inputs::{Kind, Reader, Reference},
    mcp_app, mcp_server,
    metrics::ReconcileMetrics,
    names,
    probe::{HealthEngine, ServerKey},
    ssa::Object,
};

/// Wakes the objects of a kind.
#[derive(Debug)]
pub struct Waker<K: Resource<DynamicType = ()> + 'static>(mpsc::UnboundedSender<ObjectRef<K>>);

impl<K: Resource<DynamicType = ()> + 'static> Clone for Waker<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Waker<K> {
    /// Has the object looked at soon. Many calls at once are one look.
    pub fn wake(&self, namespace: &str, name: &str) {
        // The other end is gone only when the controllers are: nobody is left to be woken.
        let _ = self.0.unbounded_send(ObjectRef::new(name).within(namespace));
    }

    fn wake_object(&self, object: &impl ResourceExt) {
        self.wake(&object.namespace().unwrap_or_default(), &object.name_any());
    }

    /// Wakes the controller of a child, if it is of this kind.
    fn wake_owner(&self, child: &impl ResourceExt) {
        let owners = child.owner_references().iter();
        for owner in owners.filter(|owner| owner.kind == K::kind(&()) && owner.controller == Some(true)) {
            self.wake(&child.namespace().unwrap_or_default(), &owner.name);
        }
    }
}

/// What every scope shares.
#[derive(Clone)]
pub struct Shared {
    /// The API server.
    pub client: Client,
    /// Who is alive.
    pub engine: HealthEngine,
    /// Events.
    pub recorder: Recorder,
    /// Counts and times passes.
    pub metrics: ReconcileMetrics,
    /// Keys the digests of Secrets and ConfigMaps.
    pub digest_key: digest_key::Source,
    /// The chat worker of this operator's version.
    pub chat_worker_image: String,
    /// Objects reconciled at once, of each kind.
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
    let (server_queue, server_requests) = mpsc::unbounded();
    let (app_queue, app_requests) = mpsc::unbounded();
    let wake = Wakers { server: Waker(server_queue), app: Waker(app_queue) };
    let watch = Watch { client: &shared.client, namespace };

    let known = Known::open(&watch, &shared.engine, &wake, tasks);
    // Nothing is decided from half a list.
    known.ready().await?;

    let (secrets, config_maps) = (Arc::clone(&known.secret_metadata), Arc::clone(&known.config_map_metadata));
    let reader = Arc::new(Reader::new(shared.client.clone(), secrets, config_maps, shared.digest_key.get().await));
    let config = Config::default().concurrency(shared.concurrency);
    let running = applier(
        |server, context| Box::pin(mcp_server::reconcile(server, context)),
        |_, never: &Infallible, _| match *never {},
        Arc::new(known.server_context(shared, &reader)),
        known.servers.store(),
        server_requests.map(Ok::<_, Infallible>),
        config.clone(),
    );
    tasks.spawn(async move {
        running.for_each(|ended| async { log_lost(ended) }).await;
        "the controller of McpServers"
    });
    let running = applier(
        |app, context| Box::pin(mcp_app::reconcile(app, context)),
        |_, never: &Infallible, _| match *never {},
        Arc::new(known.app_context(shared, &reader)),
        known.apps.store(),
        app_requests.map(Ok::<_, Infallible>),
        config,
    );
    tasks.spawn(async move {
        running.for_each(|ended| async { log_lost(ended) }).await;
        "the controller of McpApps"
    });
    Ok(Scope { servers: wake.server })
}

/// Wakes objects of both kinds.
#[derive(Clone, Debug)]
struct Wakers {
    server: Waker<McpServer>,
    app: Waker<McpApp>,
}

/// All that is known of a scope's objects.
struct Known {
    apps: Arc<Cache<McpApp>>,
    servers: Arc<Cache<McpServer>>,
    deployments: Arc<Cache<Deployment>>,
    services: Arc<Cache<Service>>,
    config_maps: Arc<Cache<ConfigMap>>,
    secrets: Arc<Cache<Secret>>,
    volume_claims: Arc<Cache<PersistentVolumeClaim>>,
    secret_metadata: Arc<Cache<PartialObjectMeta<Secret>>>,
    config_map_metadata: Arc<Cache<PartialObjectMeta<ConfigMap>>>,
}

impl Known {
    /// Opens every watch, and says what each of them wakes.
    fn open(watch: &Watch<'_>, engine: &HealthEngine, wake: &Wakers, tasks: &mut JoinSet<&'static str>) -> Self {
        let apps = {
            let wake = wake.app.clone();
            watch.whole::<McpApp>("McpApps", None, tasks, move |change| wake.wake_object(change.object()))
        };
        let servers = {
            let (wake, apps, engine) = (wake.clone(), Arc::clone(&apps), engine.clone());
            watch.whole::<McpServer>("McpServers", None, tasks, move |change| {
                let server = change.object();
                match &change {
                    Change::Applied(_) => wake.server.wake_object(server),
                    Change::Deleted(_) => engine.remove_server(&key(server)),
                }
                for app in apps.all().iter().filter(|app| uses(app, server)) {
                    wake.app.wake_object(&**app);
                }
            })
        };
        let pointed_at = PointedAt { servers: Arc::clone(&servers), apps: Arc::clone(&apps), wake: wake.clone() };
        Self {
            deployments: watch.children("Deployments", tasks, wake),
            services: watch.children("Services", tasks, wake),
            config_maps: watch.children("ConfigMaps", tasks, wake),
            secrets: watch.children("Secrets", tasks, wake),
            volume_claims: watch.claims(tasks, wake),
            secret_metadata: watch.metadata("metadata of Secrets", tasks, pointed_at.clone(), Kind::Secret),
            config_map_metadata: watch.metadata("metadata of ConfigMaps", tasks, pointed_at, Kind::ConfigMap),
            apps,
            servers,
        }
    }

    /// Waits until every first list is in.
    async fn ready(&self) -> Result<(), WriterDropped> {
        // Without `..`, so that a watch that nobody waits for does not compile.
        let Self {
            apps,
            servers,
            deployments,
            services,
            config_maps,
            secrets,
            volume_claims,
            secret_metadata,
            config_map_metadata,
        } = self;
        apps.ready().await?;
        servers.ready().await?;
        deployments.ready().await?;
        services.ready().await?;
        config_maps.ready().await?;
        secrets.ready().await?;
        volume_claims.ready().await?;
        secret_metadata.ready().await?;
        config_map_metadata.ready().await
    }

    fn server_context(&self, shared: &Shared, reader: &Arc<Reader>) -> mcp_server::Context {
        mcp_server::Context {
            client: shared.client.clone(),
            servers: Arc::clone(&self.servers),
            caches: mcp_server::apply::Caches {
                volume_claims: Arc::clone(&self.volume_claims),
                config_maps: Arc::clone(&self.config_maps),
                services: Arc::clone(&self.services),
                deployments: Arc::clone(&self.deployments),
            },
            reader: Arc::clone(reader),
            engine: shared.engine.clone(),
            recorder: shared.recorder.clone(),
            attempts: Attempts::default(),
            metrics: shared.metrics.clone(),
        }
    }

    fn app_context(&self, shared: &Shared, reader: &Arc<Reader>) -> mcp_app::Context {
        mcp_app::Context {
            client: shared.client.clone(),
            apps: Arc::clone(&self.apps),
            servers: Arc::clone(&self.servers),
            caches: mcp_app::apply::Caches {
                secrets: Arc::clone(&self.secrets),
                config_maps: Arc::clone(&self.config_maps),
                services: Arc::clone(&self.services),
                deployments: Arc::clone(&self.deployments),
            },
            reader: Arc::clone(reader),
            recorder: shared.recorder.clone(),
            attempts: Attempts::default(),
            metrics: shared.metrics.clone(),
            default_image: shared.chat_worker_image.clone(),
        }
    }
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

fn key(server: &McpServer) -> ServerKey {
    ServerKey { namespace: server.namespace().unwrap_or_default(), name: server.name_any() }
}

/// Whether the app names the server, or did until its label was taken away: its status still lists it then.
fn uses(app: &McpApp, server: &McpServer) -> bool {
    let listed = app.status.iter().flat_map(|status| &status.servers).any(|entry| entry.name == server.name_any());
    app.namespace() == server.namespace() && (listed || mcp_app::validate::names_server(&app.spec, server))
}

/// Wakes whoever points at an object.
#[derive(Clone, Debug)]
struct PointedAt {
    servers: Arc<Cache<McpServer>>,
    apps: Arc<Cache<McpApp>>,
    wake: Wakers,
}

impl PointedAt {
    fn wake(&self, kind: Kind, object: &impl ResourceExt) {
        let hit = |reference: &Reference| reference.kind == kind && reference.name == object.name_any();
        for server in self.servers.all() {
            if server.namespace() == object.namespace() && mcp_server::observe::references(&server.spec).iter().any(hit) {
                self.wake.server.wake_object(&*server);
            }
        }
        for app in self.apps.all() {
            if app.namespace() == object.namespace() && mcp_app::observe::references(&app.spec).iter().any(hit) {
                self.wake.app.wake_object(&*app);
            }
        }
    }
}

/// Opens watches of one scope.
struct Watch<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
}

impl Watch<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.namespace.map_or_else(|| Api::all(self.client.clone()), |namespace| Api::namespaced(self.client.clone(), namespace))
    }

    /// Whole objects.
    fn whole<K>(
        &self,
        what: &'static str,
        labels: Option<&str>,
        tasks: &mut JoinSet<&'static str>,
        on: impl Fn(Change<'_, K>) + Send + 'static,
    ) -> Arc<Cache<K>>
    where
        K: Object,
    {
        let config = labels.map_or_else(watcher::Config::default, |labels| watcher::Config::default().labels(labels));
        let (cache, future) = follow(what, watcher::watcher(self.api::<K>(), config).modify(prune).boxed(), on);
        tasks.spawn(async move {
            future.await;
            what
        });
        cache
    }

    /// Our children of a kind: a change wakes the owner.
    fn children<K>(&self, what: &'static str, tasks: &mut JoinSet<&'static str>, wake: &Wakers) -> Arc<Cache<K>>
    where
        K: Object,
    {
        let wake = wake.clone();
        self.whole(what, Some(names::MANAGED_SELECTOR), tasks, move |change| {
            wake.server.wake_owner(change.object());
            wake.app.wake_owner(change.object());
        })
    }

    /// The volumes of servers. They have no owner: the label says whose they are.
    fn claims(&self, tasks: &mut JoinSet<&'static str>, wake: &Wakers) -> Arc<Cache<PersistentVolumeClaim>> {
        let wake = wake.server.clone();
        self.whole(
            "PersistentVolumeClaims",
            Some(names::MANAGED_SELECTOR),
            tasks,
            move |change: Change<'_, PersistentVolumeClaim>| {
                if let Some(server) = change.object().labels().get(names::LABEL_INSTANCE) {
                    wake.wake(&change.object().namespace().unwrap_or_default(), server);
                }
            },
        )
    }

    /// Only metadata, and of it only what tells one version from another.
    fn metadata<K>(
        &self,
        what: &'static str,
        tasks: &mut JoinSet<&'static str>,
        pointed_at: PointedAt,
        kind: Kind,
    ) -> Arc<Cache<PartialObjectMeta<K>>>
    where
        K: Object,
    {
        // kube asks for metadata alone when it is to decode metadata alone.
        let events = watcher::watcher(self.api::<PartialObjectMeta<K>>(), watcher::Config::default()).modify(|object| {
            prune(object);
            object.metadata.labels = None;
            object.metadata.annotations = None;
            object.metadata.owner_references = None;
        });
        let (cache, future) = follow(what, events.boxed(), move |change| pointed_at.wake(kind, change.object()));
        tasks.spawn(async move {
            future.await;
            what
        });
        cache
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

//! The watches of one scope (a namespace, or all): they keep what we know, and wake whoever a change concerns. Whom it concerns is
//! decided in `wake`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt, TryStreamExt, channel::mpsc};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Event as Warning, Pod, Secret},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, store::WriterDropped},
        watcher::{self, Event},
    },
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    again::Again,
    app_pods::AppPods,
    asleep::{
        Asleep,
        leading::{self, Leading},
    },
    attempts::Attempts,
    autoscale::Autoscaler,
    backups::{self, Backups},
    cache::{Cache, Change, follow, prune},
    child::{ChildKind, KINDS},
    children::{Children, Live},
    crd::{McpApp, McpServer},
    document::Document,
    inputs::Kind,
    names::{self, Component},
    pass,
    pod_warnings::{self, PodWarnings},
    probe::{HealthEngine, ServerKey},
    ssa::Object,
    wake::Index,
    who::Who,
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
}

/// Requests to look at the objects of a kind.
pub type Requests<K> = mpsc::UnboundedReceiver<ObjectRef<K>>;

/// Wakes objects of both kinds.
#[derive(Clone, Debug)]
pub struct Wakers {
    /// Servers.
    pub server: Waker<McpServer>,
    /// Apps.
    pub app: Waker<McpApp>,
}

impl Wakers {
    /// Wakers, and the other ends.
    pub fn new() -> (Self, Requests<McpServer>, Requests<McpApp>) {
        let (server, server_requests) = mpsc::unbounded();
        let (app, app_requests) = mpsc::unbounded();
        (Self { server: Waker(server), app: Waker(app) }, server_requests, app_requests)
    }

    fn wake(&self, who: &Who) {
        match who.component {
            Component::Server => self.server.wake(&who.namespace, &who.name),
            Component::App => self.app.wake(&who.namespace, &who.name),
        }
    }

    fn wake_all(&self, all: &BTreeSet<Who>) {
        for who in all {
            self.wake(who);
        }
    }
}

/// Who uses what, shared by the watches.
#[derive(Clone, Debug, Default)]
struct SharedIndex(Arc<Mutex<Index>>);

impl SharedIndex {
    fn with<T>(&self, look: impl FnOnce(&mut Index) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All that is known of a scope's objects.
pub struct Known {
    /// The apps.
    pub apps: Arc<Cache<McpApp>>,
    /// The servers.
    pub servers: Arc<Cache<McpServer>>,
    /// The children of both.
    pub children: Arc<Children>,
    /// What keeps pods of apps from running.
    pub app_pods: Arc<AppPods>,
    /// What Events say of pods.
    pub warnings: Arc<PodWarnings>,
    /// Whose Services lead to pods of their own.
    pub leading: Arc<Leading>,
    /// Versions of Secrets.
    pub secrets: Arc<Cache<PartialObjectMeta<Secret>>>,
    /// Versions of ConfigMaps.
    pub config_maps: Arc<Cache<PartialObjectMeta<ConfigMap>>>,
    /// Whose first list is in: one for each kind of child, for the apps' pods, for those of backups, and for where Services lead.
    listed: Vec<watch::Receiver<bool>>,
}

impl Known {
    /// Waits until every first list is in: nothing is decided from half a list.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        self.apps.ready().await?;
        self.servers.ready().await?;
        self.secrets.ready().await?;
        self.config_maps.ready().await?;
        for listed in &self.listed {
            // A watch that ends ends the process.
            let mut listed = listed.clone();
            let _ended = listed.wait_for(|listed| *listed).await.is_err();
        }
        Ok(())
    }
}

/// Who keeps something about servers, and must hear when one is gone.
#[derive(Debug)]
pub struct Keepers {
    /// Who is alive.
    pub engine: HealthEngine,
    /// What came of the backups.
    pub backups: Arc<Backups>,
    /// How many pods there are to be.
    pub autoscaler: Arc<Autoscaler>,
    /// Who sleeps.
    pub asleep: Arc<Asleep>,
    /// Whose passes fail: servers, and apps.
    pub attempts: Arc<Attempts>,
}

impl Keepers {
    fn forget(&self, server: &McpServer) {
        let key = ServerKey::new(server.namespace().unwrap_or_default(), server.name_any());
        self.engine.remove_server(&key);
        self.backups.forget(&key.namespace, &key.name);
        self.autoscaler.forget(&key);
        self.asleep.forget(&key);
        self.attempts.forget(&pass::key_of(server));
    }
}

/// Selects what is made for backups.
fn of_backups() -> watcher::Config {
    let selector = format!("{},{}={}", names::MANAGED_SELECTOR, names::LABEL_COMPONENT, names::COMPONENT_BACKUP);
    watcher::Config::default().labels(&selector)
}

/// Opens watches of one scope.
pub struct Watches<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The namespace; none: all.
    pub namespace: Option<&'a str>,
    /// Whom changes wake.
    pub wakers: &'a Wakers,
    /// Where the watches run. None of them ends.
    pub tasks: &'a mut JoinSet<&'static str>,
}

impl Watches<'_> {
    /// Opens every watch.
    pub fn open(mut self, keepers: Keepers) -> Known {
        let (index, attempts) = (SharedIndex::default(), Arc::clone(&keepers.attempts));
        let children = Arc::new(Children::default());
        let app_pods = Arc::new(AppPods::default());
        let mut listed: Vec<_> = KINDS.iter().map(|kind| self.children(*kind, &children)).collect();
        listed.push(self.app_pods(&app_pods));
        let warnings = Arc::new(PodWarnings::default());
        listed.push(self.backup_pods(&keepers.backups, &warnings));
        let leading = Arc::new(Leading::default());
        listed.push(self.leading(&leading));
        // Nobody waits for these: where they may not be read, what only they say is not told.
        self.backup_jobs(&keepers.backups, &warnings);
        self.backup_refusals(&keepers.backups);
        self.warnings(&warnings);
        Known {
            apps: self.apps(&index, &attempts),
            servers: self.servers(&index, keepers),
            secrets: self.metadata("metadata of Secrets", Kind::Secret, &index),
            config_maps: self.metadata("metadata of ConfigMaps", Kind::ConfigMap, &index),
            children,
            app_pods,
            warnings,
            leading,
            listed,
        }
    }

    fn apps(&mut self, index: &SharedIndex, attempts: &Arc<Attempts>) -> Arc<Cache<McpApp>> {
        let (wakers, index, attempts) = (self.wakers.clone(), index.clone(), Arc::clone(attempts));
        self.whole("McpApps", move |change| match change {
            Change::Applied(app) => wakers.wake_all(&index.with(|index| index.app(app))),
            Change::Deleted(app) => {
                attempts.forget(&pass::key_of(app));
                index.with(|index| index.app_gone(app));
            }
        })
    }

    fn servers(&mut self, index: &SharedIndex, keepers: Keepers) -> Arc<Cache<McpServer>> {
        let (wakers, index) = (self.wakers.clone(), index.clone());
        self.whole("McpServers", move |change| match change {
            Change::Applied(server) => wakers.wake_all(&index.with(|index| index.server(server))),
            Change::Deleted(server) => {
                keepers.forget(server);
                wakers.wake_all(&index.with(|index| index.server_gone(server)));
            }
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.namespace.map_or_else(|| Api::all(self.client.clone()), |namespace| Api::namespaced(self.client.clone(), namespace))
    }

    /// Whole objects.
    fn whole<K: Object>(&mut self, what: &'static str, on: impl Fn(Change<'_, K>) + Send + 'static) -> Arc<Cache<K>> {
        let events = watcher::watcher(self.api::<K>(), watcher::Config::default()).modify(prune).boxed();
        let (cache, future) = follow(what, events, on);
        self.spawn(what, future);
        cache
    }

    /// Only metadata, and of it only what tells one version from another.
    fn metadata<K: Object>(&mut self, what: &'static str, kind: Kind, index: &SharedIndex) -> Arc<Cache<PartialObjectMeta<K>>> {
        // kube asks for metadata alone when it is to decode metadata alone.
        let events = watcher::watcher(self.api::<PartialObjectMeta<K>>(), watcher::Config::default()).modify(|object| {
            prune(object);
            object.metadata.labels = None;
            object.metadata.annotations = None;
            object.metadata.owner_references = None;
        });
        let (wakers, index) = (self.wakers.clone(), index.clone());
        let (cache, future) = follow(what, events.boxed(), move |change| {
            let object = change.object();
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            wakers.wake_all(&index.with(|index| index.pointed_at(kind, &namespace, &name)));
        });
        self.spawn(what, future);
        cache
    }

    /// Our children of a kind: a change wakes whose they are.
    fn children(&mut self, kind: ChildKind, children: &Arc<Children>) -> watch::Receiver<bool> {
        let resource = (kind.resource)();
        let api: Api<Document> = match self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let config = watcher::Config::default().labels(&kind.selector());
        let (wakers, children) = (self.wakers.clone(), Arc::clone(children));
        self.each(kind.kind, watcher::watcher(api, config).boxed(), move |event| {
            let wake = |live: &Live| live.who.iter().for_each(|who| wakers.wake(who));
            match event {
                Event::Init => children.list_begins(kind.kind),
                Event::InitApply(object) => children.listed(Live::new(kind.kind, object)),
                Event::InitDone => {
                    let (gone, there) = children.list_ends(kind.kind);
                    gone.iter().chain(&there).for_each(|live| wake(live));
                }
                Event::Apply(object) => {
                    let live = Live::new(kind.kind, object);
                    let before = children.get(&live.key);
                    if children.shown(live.clone()) {
                        // Who lost it must know as well as who has it now.
                        if let Some(before) = &before {
                            wake(before);
                        }
                        wake(&live);
                    }
                }
                Event::Delete(object) => {
                    let live = Live::new(kind.kind, object);
                    children.gone(&live);
                    wake(&live);
                }
            }
        })
    }

    /// The pods of apps: of them only what keeps them from running.
    fn app_pods(&mut self, pods: &Arc<AppPods>) -> watch::Receiver<bool> {
        let selector = format!("{},{}={}", names::MANAGED_SELECTOR, names::LABEL_COMPONENT, Component::App.as_str());
        let events = watcher::watcher(self.api::<Pod>(), watcher::Config::default().labels(&selector)).boxed();
        let (waker, pods) = (self.wakers.app.clone(), Arc::clone(pods));
        self.each("pods of McpApps", events, move |event| {
            for app in pods.take(event) {
                waker.wake(&app.namespace, &app.name);
            }
        })
    }

    /// The Events that warn of pods.
    fn warnings(&mut self, warnings: &Arc<PodWarnings>) -> watch::Receiver<bool> {
        let events = watcher::watcher(self.api::<Warning>(), watcher::Config::default().fields(pod_warnings::SELECTOR)).boxed();
        let (wakers, warnings) = (self.wakers.clone(), Arc::clone(warnings));
        self.each("Events of pods", events, move |event| {
            if let Some(who) = warnings.take(event) {
                wakers.wake(&who);
            }
        })
    }

    /// The jobs that back servers up: of them only how they ended.
    fn backup_jobs(&mut self, backups: &Arc<Backups>, warnings: &Arc<PodWarnings>) -> watch::Receiver<bool> {
        let events = watcher::watcher(self.api::<Job>(), of_backups()).boxed();
        let (waker, backups, warnings) = (self.wakers.server.clone(), Arc::clone(backups), Arc::clone(warnings));
        self.each("jobs of backups", events, move |event| {
            if let Some(server) = backups.take_job(event, &warnings) {
                waker.wake(&server.namespace, &server.name);
            }
        })
    }

    /// Their pods: of them only what they said last, and why one does not run.
    fn backup_pods(&mut self, backups: &Arc<Backups>, warnings: &Arc<PodWarnings>) -> watch::Receiver<bool> {
        let events = watcher::watcher(self.api::<Pod>(), of_backups()).boxed();
        let (waker, backups, warnings) = (self.wakers.server.clone(), Arc::clone(backups), Arc::clone(warnings));
        self.each("pods of backups", events, move |event| {
            if let Some(server) = backups.take_pod(event, &warnings) {
                waker.wake(&server.namespace, &server.name);
            }
        })
    }

    /// The Events of jobs that get no pod.
    fn backup_refusals(&mut self, backups: &Arc<Backups>) -> watch::Receiver<bool> {
        let config = watcher::Config::default().fields(backups::REFUSALS);
        let events = watcher::watcher(self.api::<Warning>(), config).boxed();
        let (waker, backups) = (self.wakers.server.clone(), Arc::clone(backups));
        self.each("Events of jobs", events, move |event| {
            if let Some(server) = backups.take_refusal(event) {
                waker.wake(&server.namespace, &server.name);
            }
        })
    }

    /// The EndpointSlices that Kubernetes keeps for servers that may sleep: of them only whether they lead to a pod.
    fn leading(&mut self, leading: &Arc<Leading>) -> watch::Receiver<bool> {
        let config = watcher::Config::default().labels(&leading::selector());
        let events = watcher::watcher(self.api::<EndpointSlice>(), config).boxed();
        let (waker, leading) = (self.wakers.server.clone(), Arc::clone(leading));
        self.each("EndpointSlices of servers that may sleep", events, move |event| {
            for server in leading.take(event) {
                waker.wake(&server.namespace, &server.name);
            }
        })
    }

    /// Has every event of a watch taken up. Says when the first list is in.
    fn each<K>(
        &mut self,
        what: &'static str,
        events: futures::stream::BoxStream<'static, Result<Event<K>, watcher::Error>>,
        take: impl Fn(Event<K>) + Send + 'static,
    ) -> watch::Receiver<bool>
    where
        K: Send + 'static,
    {
        let (listed, is_listed) = watch::channel(false);
        self.spawn(what, async move {
            let mut events = events
                .backoff(Again::default())
                .inspect_err(|error| tracing::warn!(watch = what, %error, "the watch of {what} broke; it starts again"))
                .boxed();
            while let Some(event) = events.next().await {
                let Ok(event) = event else { continue };
                let whole = matches!(event, Event::InitDone);
                take(event);
                if whole {
                    listed.send_replace(true);
                }
            }
            tracing::error!(watch = what, "the watch of {what} ended");
        });
        is_listed
    }

    fn spawn(&mut self, what: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            future.await;
            what
        });
    }
}

//! What we know about the objects of a kind: the watch's store and, in front of it, the API server's answers to our own last writes.
//!
//! A watch lags behind the writes. A pass that decided from the store alone would repeat a write that it has just made, or take back
//! what it has just said. So every write is kept here until the watch has come as far, told by resource versions, which of one kind are
//! ordered (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>). An answer that arrives when the watch has
//! already passed it is not kept: what the watch showed is newer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use kube::{
    Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event},
    },
};

use crate::again::Again;

/// What happened to an object, as the watch tells it.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// It is new, or differs, or was listed anew.
    Applied(&'a K),
    /// It is gone.
    Deleted(&'a K),
}

impl<K> Change<'_, K> {
    /// The object, as it is or as it was last.
    pub const fn object(&self) -> &K {
        match self {
            Self::Applied(object) | Self::Deleted(object) => object,
        }
    }
}

/// A kind's objects. Cheap to share.
#[derive(Debug)]
pub struct Cache<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    ahead: Mutex<Ahead<K>>,
    /// The names of a namespace's objects.
    names: Mutex<HashMap<String, BTreeSet<String>>>,
}

/// What we wrote, and the watch has not shown yet.
#[derive(Debug)]
struct Ahead<K: Resource<DynamicType = ()> + 'static> {
    /// How far the watch has come.
    seen: u64,
    /// The version, and the object.
    written: HashMap<ObjectRef<K>, (u64, Arc<K>)>,
    /// The newest version of the list that is coming in.
    listed: u64,
    /// What had been written when it began: the list has it.
    before_list: Vec<(ObjectRef<K>, u64)>,
}

impl<K: Resource<DynamicType = ()> + 'static> Ahead<K> {
    fn put(&mut self, key: ObjectRef<K>, version: Option<u64>, object: Arc<K>) {
        if let Some(version) = version.filter(|version| *version > self.seen) {
            self.written.insert(key, (version, object));
        }
    }

    fn advance(&mut self, object: &K) {
        self.seen = self.seen.max(version(object).unwrap_or(0));
        let key = ObjectRef::from_obj(object);
        if self.written.get(&key).is_some_and(|(version, _)| *version <= self.seen) {
            self.written.remove(&key);
        }
    }

    fn list_begins(&mut self) {
        self.listed = 0;
        self.before_list = self.written.iter().map(|(key, (version, _))| (key.clone(), *version)).collect();
    }

    fn listed(&mut self, object: &K) {
        self.listed = self.listed.max(version(object).unwrap_or(0));
    }

    fn list_ends(&mut self) {
        self.seen = self.seen.max(self.listed);
        for (key, version) in std::mem::take(&mut self.before_list) {
            if self.written.get(&key).is_some_and(|(written, _)| *written == version) {
                self.written.remove(&key);
            }
        }
        let seen = self.seen;
        self.written.retain(|_, (version, _)| *version > seen);
    }
}

fn version(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    fn new(store: Store<K>) -> Self {
        let ahead = Ahead { seen: 0, written: HashMap::new(), listed: 0, before_list: Vec::new() };
        Self { store, ahead: Mutex::new(ahead), names: Mutex::default() }
    }

    /// The object of this name, as it is to the best of our knowledge.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = ObjectRef::new(name).within(namespace);
        let ahead = self.ahead();
        match ahead.written.get(&key) {
            Some((version, object)) if *version > ahead.seen => Some(Arc::clone(object)),
            _ => self.store.get(&key),
        }
    }

    /// All objects of a namespace, by name, as they are to the best of our knowledge.
    pub fn of(&self, namespace: &str) -> Vec<Arc<K>> {
        let names = self.names().get(namespace).cloned().unwrap_or_default();
        names.iter().filter_map(|name| self.get(namespace, name)).collect()
    }

    /// The store behind, for a controller's queue.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Keeps what the API server answered to a write of ours.
    pub fn wrote(&self, object: K) {
        let (key, version) = (ObjectRef::from_obj(&object), version(&object));
        self.ahead().put(key, version, Arc::new(object));
    }

    /// Waits until the first list is in.
    pub async fn ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.store.wait_until_ready().await
    }

    fn named(&self, object: &K) {
        self.names().entry(object.namespace().unwrap_or_default()).or_default().insert(object.name_any());
    }

    fn unnamed(&self, object: &K) {
        let (mut names, namespace) = (self.names(), object.namespace().unwrap_or_default());
        if let Some(of_namespace) = names.get_mut(&namespace) {
            of_namespace.remove(&object.name_any());
            if of_namespace.is_empty() {
                names.remove(&namespace);
            }
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<String>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead<K>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills a cache from a watch, and tells `on` of every change after the cache has it.
///
/// The future ends only when the watch does, which is never: errors are logged and tried again with backoff.
pub fn follow<K>(
    what: &'static str,
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    on: impl Fn(Change<'_, K>) + Send + 'static,
) -> (Arc<Cache<K>>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let (store, mut writer) = reflector::store();
    let cache = Arc::new(Cache::new(store));
    let followed = Arc::clone(&cache);
    let future = async move {
        let mut events = events
            .backoff(Again::default())
            .inspect_err(|error| tracing::warn!(watch = what, %error, "the watch of {what} broke; it starts again"))
            .boxed();
        while let Some(event) = events.next().await {
            let Ok(event) = event else { continue };
            // A list replaces the store as a whole: what it lacks has been deleted while we were not looking.
            let before = matches!(event, Event::InitDone).then(|| followed.store.state());
            writer.apply_watcher_event(&event);
            match event {
                Event::Apply(object) => {
                    followed.ahead().advance(&object);
                    followed.named(&object);
                    on(Change::Applied(&object));
                }
                Event::Delete(object) => {
                    followed.ahead().advance(&object);
                    followed.unnamed(&object);
                    on(Change::Deleted(&object));
                }
                // The store shows what was before until the list is in, so what we wrote stays in front of it so long.
                Event::Init => followed.ahead().list_begins(),
                Event::InitApply(object) => followed.ahead().listed(&object),
                Event::InitDone => {
                    followed.ahead().list_ends();
                    followed.names().clear();
                    for object in followed.store.state() {
                        followed.named(&object);
                    }
                    for object in before.unwrap_or_default() {
                        let now = followed.store.get(&ObjectRef::from_obj(&*object));
                        // Another one of the same name is not this one.
                        if now.is_none_or(|now| now.uid() != object.uid()) {
                            on(Change::Deleted(&object));
                        }
                    }
                    for object in followed.store.state() {
                        on(Change::Applied(&object));
                    }
                }
            }
        }
        tracing::error!(watch = what, "the watch of {what} ended");
    };
    (cache, future)
}

/// Takes out of an object what nobody here reads: managed fields are more than half of a reflector's memory.
pub fn prune<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::ConfigMap,
        apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
    };

    use super::*;

    fn object(version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some("c".into()),
                namespace: Some("n".into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn shown(cache: &Cache<ConfigMap>) -> Option<String> {
        cache.get("n", "c").and_then(|object| object.resource_version())
    }

    #[test]
    fn a_write_stands_in_front_until_the_watch_has_come_as_far() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::new(store);
        let mut watch = |version| {
            writer.apply_watcher_event(&Event::Apply(object(version)));
            cache.ahead().advance(&object(version));
        };
        watch("1");
        cache.wrote(object("3"));
        assert_eq!(shown(&cache).as_deref(), Some("3"));
        watch("2");
        assert_eq!(shown(&cache).as_deref(), Some("3"), "older than our write");
        watch("4");
        assert_eq!(shown(&cache).as_deref(), Some("4"));
    }

    #[test]
    fn an_answer_that_the_watch_has_passed_is_not_kept() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::new(store);
        writer.apply_watcher_event(&Event::Apply(object("6")));
        cache.ahead().advance(&object("6"));
        cache.wrote(object("5"));
        assert_eq!(shown(&cache).as_deref(), Some("6"));
    }

    #[test]
    fn our_own_last_write_stands_while_a_list_comes_in_and_goes_when_it_is_in() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::new(store);
        writer.apply_watcher_event(&Event::Apply(object("1")));
        cache.ahead().advance(&object("1"));
        cache.wrote(object("3"));

        writer.apply_watcher_event(&Event::Init);
        cache.ahead().list_begins();
        writer.apply_watcher_event(&Event::InitApply(object("5")));
        cache.ahead().listed(&object("5"));
        assert_eq!(shown(&cache).as_deref(), Some("3"), "the store shows what was before the list");
        writer.apply_watcher_event(&Event::InitDone);
        cache.ahead().list_ends();
        assert_eq!(shown(&cache).as_deref(), Some("5"));
    }

    #[test]
    fn what_a_list_lacks_does_not_stand_in_front_of_it() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::new(store);
        cache.wrote(object("3"));
        writer.apply_watcher_event(&Event::Init);
        cache.ahead().list_begins();
        writer.apply_watcher_event(&Event::InitDone);
        cache.ahead().list_ends();
        assert_eq!(shown(&cache), None);
    }

    /// What the watch tells of: deleted ones by their uid.
    #[tokio::test]
    async fn a_list_tells_of_what_went_away_and_of_who_came_in_its_place() {
        let named = |name: &str, uid: &str| ConfigMap {
            metadata: ObjectMeta { name: Some(name.into()), uid: Some(uid.into()), ..object("1").metadata },
            ..ConfigMap::default()
        };
        let list = |objects: Vec<ConfigMap>| {
            [Event::Init].into_iter().chain(objects.into_iter().map(Event::InitApply)).chain([Event::InitDone]).map(Ok)
        };
        let first = list(vec![named("stays", "1"), named("goes", "2"), named("anew", "3")]);
        let second = list(vec![named("stays", "1"), named("anew", "4")]);
        let (told, mut heard) = futures::channel::mpsc::unbounded();
        let events = futures::stream::iter(first.chain(second)).boxed();
        let (cache, future) = follow("ConfigMaps", events, move |change| {
            if let Change::Deleted(object) = change {
                told.unbounded_send(object.uid().unwrap_or_default()).expect("somebody listens");
            }
        });
        future.await;
        let mut deleted = Vec::new();
        while let Some(uid) = heard.next().await {
            deleted.push(uid);
        }
        deleted.sort();
        assert_eq!(deleted, ["2", "3"]);
        let there: Vec<_> = cache.of("n").iter().map(|object| object.name_any()).collect();
        assert_eq!(there, ["anew", "stays"]);
        assert!(cache.of("other").is_empty());
    }

    #[tokio::test]
    async fn what_comes_and_goes_is_told_in_order_and_found_by_its_namespace() {
        let named = |name: &str, version: &str| ConfigMap {
            metadata: ObjectMeta { name: Some(name.into()), ..object(version).metadata },
            ..ConfigMap::default()
        };
        let events = [
            Event::Init,
            Event::InitDone,
            Event::Apply(named("a", "1")),
            Event::Apply(named("b", "2")),
            Event::Delete(named("a", "3")),
        ];
        let (told, heard) = futures::channel::mpsc::unbounded();
        let (cache, future) = follow("ConfigMaps", futures::stream::iter(events.map(Ok)).boxed(), move |change| {
            let sign = if matches!(change, Change::Applied(_)) { '+' } else { '-' };
            told.unbounded_send(format!("{sign}{}", change.object().name_any())).expect("somebody listens");
        });
        future.await;
        assert_eq!(heard.collect::<Vec<_>>().await, ["+a", "+b", "-a"]);
        let there = |cache: &Cache<ConfigMap>| cache.of("n").iter().map(|object| object.name_any()).collect::<Vec<_>>();
        assert_eq!(there(&cache), ["b"]);
        cache.unnamed(&named("b", "2"));
        assert!(cache.names().is_empty(), "a namespace without objects takes no place");
    }

    #[test]
    fn what_was_written_stands_until_a_watch_or_a_list_of_its_version_and_no_older_one() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::new(store);
        // Another object moves the watch as far as our write, and the store does not have that yet.
        cache.wrote(object("3"));
        cache.ahead().advance(&ConfigMap {
            metadata: ObjectMeta { name: Some("other".into()), ..object("2").metadata },
            ..ConfigMap::default()
        });
        assert_eq!(shown(&cache).as_deref(), Some("3"));
        cache.ahead().advance(&object("3"));
        assert_eq!(shown(&cache), None, "the watch has it, and the store is what it shows");
        cache.wrote(object("3"));
        assert_eq!(shown(&cache), None, "an answer that comes after what the watch showed");
        // A list that began before a write does not take it away.
        writer.apply_watcher_event(&Event::Init);
        cache.ahead().list_begins();
        writer.apply_watcher_event(&Event::InitApply(object("4")));
        cache.ahead().listed(&object("4"));
        cache.wrote(object("5"));
        writer.apply_watcher_event(&Event::InitDone);
        cache.ahead().list_ends();
        assert_eq!(shown(&cache).as_deref(), Some("5"));
    }

    #[test]
    fn what_nobody_reads_takes_no_memory() {
        let mut pruned = object("1");
        pruned.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        let last = "kubectl.kubernetes.io/last-applied-configuration";
        pruned.metadata.annotations = Some([(last, "x"), ("own", "y")].map(|(key, value)| (key.into(), value.into())).into());
        prune(&mut pruned);
        assert!(pruned.managed_fields().is_empty());
        assert_eq!(pruned.annotations().keys().collect::<Vec<_>>(), ["own"]);
    }
}

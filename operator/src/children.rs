//! One store of all children by kind, namespace and name: what the watches showed, and in front of it the API server's answers to our
//! own last writes.
//!
//! A watch lags behind the writes. A pass that decided from the watch alone would repeat a write that it has just made. So of each
//! object the newest version that anybody told counts, by resource versions, which of one kind are ordered
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>). Objects are kept as compact JSON: a tenth of
//! what they take in memory when they are taken apart.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    child::Key,
    compare::{self, Difference},
    document::Document,
    names,
    who::{Who, whose},
};

/// A child as the API server has it.
#[derive(Clone)]
pub struct Live {
    /// Which object.
    pub key: Key,
    /// Which one of that name.
    pub uid: String,
    /// Its version.
    pub version: u64,
    /// The uid of the CR that controls it.
    pub owner: Option<String>,
    /// Whose child it is.
    pub who: Option<Who>,
    /// It was created by a plain request, so that fields which we no longer say would stay: see `ssa`.
    pub created: bool,
    /// We have written it before.
    pub written: bool,
    /// Who else owns fields of it, and which, as JSON; who came last stands last. Few: of what only others own little is ours to mend.
    others: Vec<(Box<str>, Box<str>)>,
    /// The hash of what this version was found to hold. Most passes want the same of the same versions: these are not taken apart again.
    held: OnceLock<Box<str>>,
    json: Box<str>,
}

impl fmt::Debug for Live {
    /// Without its content: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.key, self.version)
    }
}

impl Live {
    /// From what the API server sent, without what nobody here reads: managed fields are more than half of an object.
    pub fn new(kind: &'static str, mut object: Document) -> Self {
        let managers = std::mem::take(&mut object.managers);
        // Who writes the status has no part in what we want. The scale is a part of the spec.
        let specs = managers.into_iter().filter(|entry| entry.subresource.as_deref() != Some("status"));
        let (ours, others): (Vec<_>, Vec<_>) = specs.partition(|entry| entry.manager.as_deref() == Some(names::FIELD_MANAGER));
        let created = ours.iter().any(|entry| entry.operation.as_deref() == Some("Update") && entry.subresource.is_none());
        let others =
            others.into_iter().filter_map(|entry| Some((entry.manager?.into_boxed_str(), entry.fields?.into()))).collect();
        if let Some(annotations) = &mut object.metadata.annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        let metadata = &object.metadata;
        let key = Key::new(kind, metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let (uid, version) = (metadata.uid.clone().unwrap_or_default(), metadata.resource_version.as_deref());
        let version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
        let mut owners = metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone());
        let json = serde_json::to_string(&object).expect("a Kubernetes object is JSON").into_boxed_str();
        let who = whose(&object.metadata);
        Self { key, uid, version, owner, who, created, written: !ours.is_empty(), others, held: OnceLock::new(), json }
    }

    /// Whether it is known to hold all that has this hash.
    pub fn holds(&self, hash: &str) -> bool {
        self.held.get().is_some_and(|held| **held == *hash)
    }

    /// It was compared with what has this hash, and holds it all.
    pub fn found_to_hold(&self, hash: &str) {
        let _kept = self.held.set(hash.into());
    }

    /// The field manager who came last of those who own this field and are not us.
    pub fn owner_of(&self, field: &Difference) -> Option<&str> {
        let mut last_first = self.others.iter().rev();
        let found =
            last_first.find(|(_, fields)| serde_json::from_str(fields).is_ok_and(|fields| compare::names(&fields, &field.keys)));
        found.map(|(manager, _)| &**manager)
    }

    /// The whole object.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).expect("it was written from JSON")
    }

    /// The object as its type. None when it is of another type.
    pub fn read<K: DeserializeOwned>(&self) -> Option<K> {
        serde_json::from_str(&self.json).ok()
    }
}

/// The children of a scope. Cheap to share.
#[derive(Debug, Default)]
pub struct Children(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    objects: HashMap<Key, Entry>,
    /// The keys of what a CR of this uid controls.
    owned: HashMap<String, BTreeSet<Key>>,
    /// How far the watch of a kind has come.
    seen: HashMap<&'static str, u64>,
    /// The list of a kind that is coming in.
    listing: HashMap<&'static str, Listing>,
}

#[derive(Debug, Default)]
struct Listing {
    listed: HashSet<Key>,
    /// What we wrote meanwhile: the list may be older.
    written: HashSet<Key>,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    /// None: we deleted it, and the watch has not shown it yet.
    live: Option<Arc<Live>>,
}

impl State {
    fn put(&mut self, key: &Key, version: u64, live: Option<Arc<Live>>) {
        self.take(key);
        if let Some(owner) = live.as_ref().and_then(|live| live.owner.clone()) {
            self.owned.entry(owner).or_default().insert(key.clone());
        }
        self.objects.insert(key.clone(), Entry { version, live });
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Live>> {
        let before = self.objects.remove(key)?.live?;
        if let Some(owner) = &before.owner
            && let Some(keys) = self.owned.get_mut(owner)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.owned.remove(owner);
            }
        }
        Some(before)
    }

    fn newest(&self, key: &Key) -> u64 {
        self.objects.get(key).map_or(0, |entry| entry.version)
    }

    fn advance(&mut self, kind: &'static str, version: u64) {
        let seen = self.seen.entry(kind).or_default();
        *seen = version.max(*seen);
    }
}

impl Children {
    /// The object, as it is to the best of our knowledge.
    pub fn get(&self, key: &Key) -> Option<Arc<Live>> {
        self.state().objects.get(key)?.live.clone()
    }

    /// The object as its type, as it is to the best of our knowledge.
    pub fn read<K>(&self, namespace: &str, name: &str) -> Option<K>
    where
        K: k8s_openapi::Resource + DeserializeOwned,
    {
        self.get(&Key::new(K::KIND, namespace, name))?.read()
    }

    /// Everything that the CR of this uid controls.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Live>> {
        let state = self.state();
        let keys = state.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(key)?.live.clone()).collect()
    }

    /// Keeps what the API server answered to a write of ours. An answer that the watch has passed already is not kept: what the
    /// watch showed is newer.
    pub fn wrote(&self, live: Live) -> Arc<Live> {
        let live = Arc::new(live);
        let mut state = self.state();
        if live.version > state.newest(&live.key).max(state.seen.get(live.key.kind).copied().unwrap_or(0)) {
            if let Some(listing) = state.listing.get_mut(live.key.kind) {
                listing.written.insert(live.key.clone());
            }
            state.put(&live.key, live.version, Some(Arc::clone(&live)));
        }
        live
    }

    /// Keeps that we deleted the object.
    pub fn deleted(&self, live: &Live) {
        let mut state = self.state();
        // Just after its last version: what the watch showed before is older, and whatever it shows next is newer.
        if state.newest(&live.key) == live.version {
            state.put(&live.key, live.version + 1, None);
        }
    }

    /// The watch shows an object. Gives whether it is at least as new as what was known.
    pub fn shown(&self, live: Live) -> bool {
        let mut state = self.state();
        state.advance(live.key.kind, live.version);
        if live.version < state.newest(&live.key) {
            return false;
        }
        let key = live.key.clone();
        state.put(&key, live.version, Some(Arc::new(live)));
        true
    }

    /// The watch shows that an object is gone: the version is that of its end.
    pub fn gone(&self, live: &Live) {
        let mut state = self.state();
        state.advance(live.key.kind, live.version);
        if state.newest(&live.key) <= live.version {
            state.take(&live.key);
            state.objects.remove(&live.key);
        }
    }

    /// A list of a kind begins.
    pub fn list_begins(&self, kind: &'static str) {
        self.state().listing.insert(kind, Listing::default());
    }

    /// The list has this object.
    pub fn listed(&self, live: Live) {
        let mut state = self.state();
        if let Some(listing) = state.listing.get_mut(live.key.kind) {
            listing.listed.insert(live.key.clone());
        }
        let key = live.key.clone();
        if live.version >= state.newest(&key) {
            state.put(&key, live.version, Some(Arc::new(live)));
        }
    }

    /// The list is in. What it lacks has been deleted while nobody looked: gives that, and all that there is.
    pub fn list_ends(&self, kind: &'static str) -> (Vec<Arc<Live>>, Vec<Arc<Live>>) {
        let mut state = self.state();
        let Listing { listed, written } = state.listing.remove(kind).unwrap_or_default();
        let known: Vec<Key> = state.objects.keys().filter(|key| key.kind == kind).cloned().collect();
        let (there, gone): (Vec<_>, Vec<_>) = known.into_iter().partition(|key| listed.contains(key) || written.contains(key));
        let gone = gone.iter().filter_map(|key| state.take(key)).collect();
        let there: Vec<_> = there.iter().filter_map(|key| state.objects.get(key)?.live.clone()).collect();
        let seen = there.iter().filter(|live| listed.contains(&live.key)).map(|live| live.version).max();
        state.advance(kind, seen.unwrap_or(0));
        (gone, there)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: &str) -> Live {
        let owners = json!([{"apiVersion": "v1", "kind": "K", "name": "k", "uid": "owner", "controller": true}]);
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": name, "namespace": "n", "resourceVersion": version, "uid": "u", "ownerReferences": owners,
        }});
        Live::new("ConfigMap", serde_json::from_value(value).expect("an object"))
    }

    fn version(children: &Children, name: &str) -> Option<u64> {
        children.get(&Key::new("ConfigMap", "n", name)).map(|live| live.version)
    }

    #[test]
    fn a_write_stands_until_the_watch_has_come_as_far() {
        let children = Children::default();
        children.shown(object("c", "1"));
        children.wrote(object("c", "3"));
        assert!(!children.shown(object("c", "2")), "older than our write");
        assert_eq!(version(&children, "c"), Some(3));
        assert!(children.shown(object("c", "4")));
        assert_eq!(version(&children, "c"), Some(4));
    }

    #[test]
    fn an_answer_that_the_watch_has_passed_is_not_kept() {
        let children = Children::default();
        children.shown(object("c", "4"));
        children.gone(&object("c", "6"));
        children.wrote(object("c", "5"));
        assert_eq!(version(&children, "c"), None);
    }

    #[test]
    fn a_deleted_object_is_gone_until_there_is_a_new_one() {
        let children = Children::default();
        children.shown(object("c", "1"));
        children.deleted(&object("c", "1"));
        assert!(!children.shown(object("c", "1")), "what the watch showed before");
        assert_eq!(version(&children, "c"), None);
        assert!(children.owned_by("owner").is_empty());
        children.shown(object("c", "3"));
        assert_eq!(version(&children, "c"), Some(3));
    }

    #[test]
    fn a_list_tells_what_went_away_unseen_and_keeps_what_we_wrote_meanwhile() {
        let children = Children::default();
        for name in ["stays", "goes"] {
            children.shown(object(name, "1"));
        }
        children.list_begins("ConfigMap");
        children.listed(object("stays", "1"));
        children.wrote(object("new", "7"));
        assert_eq!(version(&children, "goes"), Some(1), "nothing is decided from half a list");
        let (gone, there) = children.list_ends("ConfigMap");
        assert_eq!(gone.iter().map(|live| live.key.name.as_str()).collect::<Vec<_>>(), ["goes"]);
        assert_eq!(there.len(), 2);
        assert_eq!((version(&children, "goes"), version(&children, "new")), (None, Some(7)));
        let mut owned: Vec<_> = children.owned_by("owner").iter().map(|live| live.key.name.clone()).collect();
        owned.sort();
        assert_eq!(owned, ["new", "stays"]);
    }

    #[test]
    fn a_list_does_not_bring_back_what_was_before_our_own_last_write() {
        let children = Children::default();
        children.shown(object("c", "1"));
        children.list_begins("ConfigMap");
        children.wrote(object("c", "9"));
        children.listed(object("c", "1"));
        children.list_ends("ConfigMap");
        assert_eq!(version(&children, "c"), Some(9));
    }

    #[test]
    fn an_object_that_was_created_by_a_plain_request_says_so() {
        let with = |operation: &str| {
            let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
                "name": "c", "namespace": "n", "managedFields": [{"manager": "mcpfleet", "operation": operation}],
            }});
            Live::new("ConfigMap", serde_json::from_value(value).expect("an object"))
        };
        assert!(with("Update").created);
        assert!(!with("Apply").created);
        assert!(with("Apply").value()["metadata"].get("managedFields").is_none());
    }
}

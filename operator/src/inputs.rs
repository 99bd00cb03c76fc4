//! The Secrets and ConfigMaps that a spec points at: which ones, whether they are there, and a digest of what they hold.
//!
//! Only their metadata is watched. The data is read when an object that somebody points at is new or has changed, and of it only
//! digests, lengths and what masks it in messages (`mask`) are kept; values that a probe needs go straight to the prober. The digest of what pods read is an annotation of their template
//! (`workload::pod_metadata`), so that a change makes them anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::{ConfigMap, EnvFromSource, EnvVar, KeyToPath, PersistentVolumeClaim, Secret, Volume};
use kube::{Api, Client, ResourceExt, core::PartialObjectMeta};
use sha2::{Digest, Sha256};

use mcp_wire::mask::{self, Mask, Print};

use crate::{
    cache::Cache,
    crd::{
        pod::{PodSettings, SecretKeyRef},
        reason,
    },
    digest::hex,
    digest_key::DigestKey,
    ssa::{self, REQUEST_TIMEOUT},
};

/// What kind of object is pointed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// A pointer out of a spec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// To what kind.
    pub kind: Kind,
    /// The object's name, in the namespace of the spec.
    pub name: String,
    /// The key that must be there. None: any.
    pub key: Option<String>,
    /// Whether it may be missing.
    pub optional: bool,
}

impl Reference {
    /// A pointer to a key of a Secret that must be there.
    pub fn secret(reference: &SecretKeyRef) -> Self {
        Self { kind: Kind::Secret, name: reference.name.clone(), key: Some(reference.key.clone()), optional: false }
    }
}

/// All pointers in what shapes pods: what a pod reads when it starts.
pub fn of_pods(settings: &PodSettings) -> BTreeSet<Reference> {
    let mut references = of_environment(&settings.env, &settings.env_from);
    references.extend(settings.volumes.iter().flat_map(of_volume));
    let template = settings.pod_template.iter();
    for container in template.flat_map(|template| template.init_containers.iter().chain(&template.sidecars)) {
        let (env, env_from) = (container.env.as_deref(), container.env_from.as_deref());
        references.extend(of_environment(env.unwrap_or_default(), env_from.unwrap_or_default()));
    }
    references
}

/// All pointers in a volume. A server may read its files once only, so a change of them counts like one of a variable.
fn of_volume(volume: &Volume) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut add = |kind, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>| {
        let reference = |key| Reference { kind, name: name.into(), key, optional: optional.unwrap_or(false) };
        match items {
            Some(items) if !items.is_empty() => found.extend(items.iter().map(|item| reference(Some(item.key.clone())))),
            _ => found.push(reference(None)),
        }
    };
    if let Some(source) = &volume.secret {
        add(Kind::Secret, source.secret_name.as_deref().unwrap_or_default(), source.items.as_deref(), source.optional);
    }
    if let Some(source) = &volume.config_map {
        add(Kind::ConfigMap, &source.name, source.items.as_deref(), source.optional);
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(source) = &source.secret {
            add(Kind::Secret, &source.name, source.items.as_deref(), source.optional);
        }
        if let Some(source) = &source.config_map {
            add(Kind::ConfigMap, &source.name, source.items.as_deref(), source.optional);
        }
    }
    found
}

/// All pointers in the environment of a container.
fn of_environment(env: &[EnvVar], env_from: &[EnvFromSource]) -> BTreeSet<Reference> {
    let values = env.iter().filter_map(|variable| variable.value_from.as_ref()).flat_map(|source| {
        let secret = source.secret_key_ref.as_ref().map(|selector| Reference {
            kind: Kind::Secret,
            name: selector.name.clone(),
            key: Some(selector.key.clone()),
            optional: selector.optional.unwrap_or(false),
        });
        let config_map = source.config_map_key_ref.as_ref().map(|selector| Reference {
            kind: Kind::ConfigMap,
            name: selector.name.clone(),
            key: Some(selector.key.clone()),
            optional: selector.optional.unwrap_or(false),
        });
        secret.into_iter().chain(config_map)
    });
    let whole = env_from.iter().flat_map(|source| {
        let secret = source.secret_ref.as_ref().map(|selector| (Kind::Secret, &selector.name, selector.optional));
        let config_map = source.config_map_ref.as_ref().map(|selector| (Kind::ConfigMap, &selector.name, selector.optional));
        secret.into_iter().chain(config_map).map(|(kind, name, optional)| Reference {
            kind,
            name: name.clone(),
            key: None,
            optional: optional.unwrap_or(false),
        })
    });
    values.chain(whole).collect()
}

/// What was found behind the pointers: for each object a digest of each of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found(BTreeMap<(Kind, String), Option<Arc<Digests>>>);

/// What is known of each value, by key.
pub type Digests = BTreeMap<String, Digested>;

/// What is known of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    /// A keyed digest.
    digest: String,
    /// The length of its shortest line, without white space around it. None: it holds nothing else.
    shortest: Option<usize>,
    /// By what its lines are known again.
    prints: Vec<Print>,
}

impl Digested {
    fn of(key: &DigestKey, value: &[u8]) -> Self {
        let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let shortest = lines.map(<[u8]>::len).min();
        // Pods are made anew where this becomes another text.
        let blank = if shortest.is_none() { "blank:" } else { "" };
        Self { digest: format!("{blank}{}", hex(&key.digest(value))), shortest, prints: mask::prints(value) }
    }
}

impl Found {
    /// Every pointer that leads nowhere, as (reason, sentence).
    pub fn problems(&self, references: &BTreeSet<Reference>) -> Vec<(&'static str, String)> {
        references
            .iter()
            .filter(|reference| !reference.optional)
            .filter_map(|reference| {
                let kind = reference.kind.as_str();
                let name = &reference.name;
                let digests = self.0.get(&(reference.kind, name.clone())).and_then(Option::as_ref);
                let sentence = match (digests, &reference.key) {
                    (None, _) => format!("the {kind} {name} does not exist: create it, or correct the reference"),
                    (Some(digests), Some(key)) if !digests.contains_key(key) => {
                        format!("the {kind} {name} has no key {key}: add it, or correct the reference")
                    }
                    _ => return None,
                };
                let reason = match reference.kind {
                    Kind::Secret => reason::SECRET_NOT_FOUND,
                    Kind::ConfigMap => reason::CONFIG_MAP_NOT_FOUND,
                };
                Some((reason, sentence))
            })
            .collect()
    }

    /// Every pointer that leads to nothing but white space, as (reason, sentence).
    pub fn blank(&self, references: &BTreeSet<Reference>) -> Vec<(&'static str, String)> {
        self.where_value(references, |shortest| shortest.is_none())
            .map(|which| (reason::SECRET_EMPTY, format!("{which} is empty: put the value there")))
            .collect()
    }

    /// Every pointer to tokens, one a line, of which one is shorter than the program takes them, as (reason, sentence).
    pub fn short(&self, references: &BTreeSet<Reference>, least: usize) -> Vec<(&'static str, String)> {
        self.where_value(references, |shortest| shortest.is_some_and(|shortest| shortest < least))
            .map(|which| {
                let told = "which is too easy to guess and not taken: put a longer one there, one a line";
                (reason::TOKEN_TOO_SHORT, format!("{which} holds a token of fewer than {least} characters, {told}"))
            })
            .collect()
    }

    /// Which keys lead to a value of which the length of its shortest line is so.
    fn where_value(
        &self,
        references: &BTreeSet<Reference>,
        is_so: impl Fn(Option<usize>) -> bool,
    ) -> impl Iterator<Item = String> {
        references.iter().filter_map(move |Reference { kind, name, key, .. }| {
            let (digests, key) = (self.0.get(&(*kind, name.clone()))?.as_ref()?, key.as_ref()?);
            let found = is_so(digests.get(key)?.shortest);
            found.then(|| format!("the key {key} of the {} {name}", kind.as_str()))
        })
    }

    /// One digest of all that the pointers lead to. None when they lead to nothing.
    pub fn digest(&self, references: &BTreeSet<Reference>) -> Option<String> {
        let mut hash = Sha256::new();
        let mut any = false;
        for reference in references {
            let Some(Some(digests)) = self.0.get(&(reference.kind, reference.name.clone())) else {
                continue;
            };
            for (key, value) in digests.iter().filter(|(key, _)| reference.key.as_ref().is_none_or(|wanted| wanted == *key)) {
                any = true;
                let digest = &value.digest;
                hash.update(format!("{}/{}/{key}={digest}\n", reference.kind.as_str(), reference.name));
            }
        }
        any.then(|| hex(&hash.finalize())[..16].to_owned())
    }

    #[cfg(test)]
    pub fn with(mut self, kind: Kind, name: &str, data: &[(&str, &str)]) -> Self {
        let digests = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Digested::of(&DigestKey::for_tests(), value.as_bytes())))
            .collect();
        self.0.insert((kind, name.into()), Some(Arc::new(digests)));
        self
    }
}

/// The API server did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the {kind} {name}")]
pub struct Error {
    kind: &'static str,
    name: String,
    /// None: there was no answer in time.
    #[source]
    source: Option<kube::Error>,
}

impl Error {
    /// Whether the API server itself did not answer.
    pub fn is_away(&self) -> bool {
        self.source.as_ref().is_none_or(ssa::is_away)
    }
}

async fn in_time<T>(kind: &'static str, name: &str, reading: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    let failed = |source| Error { kind, name: name.to_owned(), source };
    match tokio::time::timeout(REQUEST_TIMEOUT, reading).await {
        Ok(read) => read.map_err(|source| failed(Some(source))),
        Err(_) => Err(failed(None)),
    }
}

/// Kind, namespace and name.
type Address = (Kind, String, String);

/// Version of an object when its digests were taken: (uid, resource version).
type Seen = (Option<String>, Option<String>);

/// Reads what specs point at. Cheap when nothing changed.
pub struct Reader {
    client: Client,
    secrets: Arc<Cache<PartialObjectMeta<Secret>>>,
    config_maps: Arc<Cache<PartialObjectMeta<ConfigMap>>>,
    known: Mutex<Known>,
    key: DigestKey,
}

/// So few need no sweeping.
const FEW: usize = 512;

/// The digests of what was looked at, and of what version of it.
#[derive(Debug)]
struct Known {
    digests: HashMap<Address, (Seen, Arc<Digests>)>,
    /// With more than so many it is looked which of the objects are still there: nobody comes back to say that he points at one no more.
    most: usize,
}

impl Default for Known {
    fn default() -> Self {
        Self { digests: HashMap::new(), most: FEW }
    }
}

impl Known {
    fn get(&self, address: &Address) -> Option<&(Seen, Arc<Digests>)> {
        self.digests.get(address)
    }

    fn put(&mut self, address: Address, digests: (Seen, Arc<Digests>), is_there: impl Fn(&Address) -> bool) {
        self.digests.insert(address, digests);
        if self.digests.len() > self.most {
            self.digests.retain(|address, _| is_there(address));
            self.most = FEW.max(2 * self.digests.len());
        }
    }
}

impl Reader {
    /// A reader over the two metadata watches.
    pub fn new(
        client: Client,
        secrets: Arc<Cache<PartialObjectMeta<Secret>>>,
        config_maps: Arc<Cache<PartialObjectMeta<ConfigMap>>>,
        key: DigestKey,
    ) -> Self {
        Self { client, secrets, config_maps, known: Mutex::default(), key }
    }

    /// Looks behind all pointers.
    pub async fn look(&self, namespace: &str, references: &BTreeSet<Reference>) -> Result<Found, Error> {
        let mut found = BTreeMap::new();
        for reference in references {
            // Several pointers may lead to one object.
            if let Entry::Vacant(vacant) = found.entry((reference.kind, reference.name.clone())) {
                vacant.insert(self.digests(reference.kind, namespace, &reference.name).await?);
            }
        }
        Ok(Found(found))
    }

    /// The value behind a pointer, for the prober. It is not kept here.
    pub async fn value(&self, namespace: &str, reference: &SecretKeyRef) -> Result<Option<Vec<u8>>, Error> {
        let data = self.secret(namespace, &reference.name).await?;
        Ok(data.and_then(|mut data| data.remove(&reference.key)))
    }

    /// What of the Secrets behind these pointers is not to be told, as far as they have been looked at.
    pub fn mask(&self, namespace: &str, references: &BTreeSet<Reference>) -> Mask {
        let known = self.known();
        let secrets = references.iter().filter(|reference| reference.kind == Kind::Secret).filter_map(|reference| {
            let (_, found) = known.get(&(Kind::Secret, namespace.to_owned(), reference.name.clone()))?;
            Some((reference, found))
        });
        let values = secrets.flat_map(|(reference, found)| {
            found.iter().filter(|(key, _)| reference.key.as_ref().is_none_or(|wanted| wanted == *key))
        });
        values.flat_map(|(_, value)| value.prints.iter().copied()).collect()
    }

    /// A claim, as it is now. None: there is none of this name.
    pub async fn claim(&self, namespace: &str, name: &str) -> Result<Option<PersistentVolumeClaim>, Error> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        in_time("PersistentVolumeClaim", name, api.get_opt(name)).await
    }

    async fn digests(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Arc<Digests>>, Error> {
        let address = (kind, namespace.to_owned(), name.to_owned());
        let Some(seen) = self.seen(&address) else {
            self.known().digests.remove(&address);
            return Ok(None);
        };
        if let Some((at, digests)) = self.known().get(&address)
            && *at == seen
        {
            return Ok(Some(Arc::clone(digests)));
        }
        let data = match kind {
            Kind::Secret => self.secret(namespace, name).await?,
            Kind::ConfigMap => self.config_map(namespace, name).await?,
        };
        let Some(data) = data else { return Ok(None) };
        let digests: Arc<Digests> =
            Arc::new(data.into_iter().map(|(key, value)| (key, Digested::of(&self.key, &value))).collect());
        self.known().put(address, (seen, Arc::clone(&digests)), |address| self.seen(address).is_some());
        Ok(Some(digests))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the object that is there now.
    fn seen(&self, (kind, namespace, name): &Address) -> Option<Seen> {
        match kind {
            Kind::Secret => self.secrets.get(namespace, name).map(|object| version(&*object)),
            Kind::ConfigMap => self.config_maps.get(namespace, name).map(|object| version(&*object)),
        }
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = in_time("Secret", name, api.get_opt(name)).await?;
        Ok(secret.map(|secret| {
            let data = secret.data.unwrap_or_default();
            data.into_iter().map(|(key, value)| (key, value.0)).collect()
        }))
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let config_map = in_time("ConfigMap", name, api.get_opt(name)).await?;
        Ok(config_map.map(|config_map| {
            let text = config_map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
            let binary = config_map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
            text.chain(binary).collect()
        }))
    }
}

fn version(object: &impl ResourceExt) -> Seen {
    (object.uid(), object.resource_version())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(kind: Kind, name: &str, key: Option<&str>) -> Reference {
        Reference { kind, name: name.into(), key: key.map(Into::into), optional: false }
    }

    #[test]
    fn a_missing_object_and_a_missing_key_are_each_named() {
        let found = Found::default().with(Kind::Secret, "there", &[("a", "1")]);
        let references = BTreeSet::from([
            reference(Kind::Secret, "there", Some("a")),
            reference(Kind::Secret, "there", Some("b")),
            reference(Kind::ConfigMap, "gone", None),
        ]);
        let problems = found.problems(&references);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().any(|(reason, text)| *reason == reason::SECRET_NOT_FOUND && text.contains("no key b")));
        assert!(problems.iter().any(|(reason, text)| *reason == reason::CONFIG_MAP_NOT_FOUND && text.contains("gone")));
    }

    #[test]
    fn the_digest_moves_with_the_keys_that_are_used_and_with_no_other() {
        let references = BTreeSet::from([reference(Kind::Secret, "s", Some("a"))]);
        let digest = |data: &[(&str, &str)]| Found::default().with(Kind::Secret, "s", data).digest(&references);
        assert_eq!(digest(&[("a", "1")]), digest(&[("a", "1"), ("b", "2")]));
        assert_ne!(digest(&[("a", "1")]), digest(&[("a", "2")]));
    }

    #[test]
    fn volumes_point_at_their_config_maps_and_secrets() {
        let settings: PodSettings = serde_json::from_value(serde_json::json!({"volumes": [
            {"name": "a", "configMap": {"name": "c"}},
            {"name": "b", "secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}], "optional": true}},
            {"name": "d", "projected": {"sources": [{"secret": {"name": "p"}}, {"serviceAccountToken": {"path": "t"}}]}},
            {"name": "e", "emptyDir": {}},
        ]}))
        .expect("settings");
        let optional = Reference { optional: true, ..reference(Kind::Secret, "s", Some("k")) };
        let expected = [reference(Kind::ConfigMap, "c", None), optional, reference(Kind::Secret, "p", None)];
        assert_eq!(of_pods(&settings), BTreeSet::from(expected));
    }

    /// CRs come and go, and their Secrets with them: nobody looks at those again.
    #[test]
    fn what_is_gone_and_nobody_looks_for_is_forgotten() {
        let (mut known, digests) = (Known::default(), Arc::new(Digests::new()));
        let address = |number: usize| (Kind::Secret, format!("ns-{number}"), "s".to_owned());
        for number in 0..20 * FEW {
            let is_there = |(_, namespace, _): &Address| namespace == "ns-7" || *namespace == format!("ns-{number}");
            known.put(address(number), ((None, None), Arc::clone(&digests)), is_there);
        }
        assert!(known.digests.len() <= FEW + 1, "{}", known.digests.len());
        assert!(known.get(&address(7)).is_some(), "it is there");
        assert!(known.get(&address(20 * FEW - 1)).is_some(), "it was looked at just now");
    }

    #[test]
    fn an_optional_pointer_may_lead_nowhere() {
        let mut optional = reference(Kind::Secret, "gone", Some("a"));
        optional.optional = true;
        assert!(Found::default().problems(&BTreeSet::from([optional])).is_empty());
    }
}

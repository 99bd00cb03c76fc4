//! Writing to the API server: one field manager, and no request at all when nothing would change.
//!
//! A child is created by a plain request, which costs the API server less than half of what an apply of a new object does, and no
//! look before it; whoever has the name already is found by the refusal. After that children are changed by server-side apply alone.

use std::{fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope, Resource as _, api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{ApiResource, DynamicObject, GroupVersionKind, Status},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cache::Cache,
    child::{Child, Key, Relation},
    children::{Children, Live},
    claims::{self, OtherClass},
    compare::{self, Difference},
    contests::{Contested, Contests},
    document::Document,
    names,
    pod_trouble::printable,
};

/// How long one request may take. kube's client has no such bound of its own.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is tried to take an object up that others write meanwhile.
const TAKING_UP: u32 = 5;

/// What is contested where an object comes and goes as a whole.
const WHOLE: &str = "";
/// What the API server says of an object that does not fit the type as it knows it.
const NOT_TYPED: [&str; 2] = ["duplicate entries for key", TOO_NEW];
const TOO_NEW: &str = "field not declared in schema";
/// What the API server says of a Deployment's pods begins so.
const TEMPLATE: &str = "spec.template";
/// Stands for the hash of what is not to be there.
const GONE: &str = "gone";

/// Why an object could not be brought to the desired state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object of this name is there, and is not ours.
    #[error("the {0} exists and was not made by this object: rename one of the two, or delete the other one if nobody needs it")]
    NameConflict(Key),
    /// A claim of this name is there, and does not carry our labels.
    #[error(
        "the {0} exists without the labels of this object, so it may hold somebody else's data, and is left as it is: give this object another name, or, if the data is its own, label the claim {1}"
    )]
    ForeignData(Key, String),
    /// Somebody deleted it, and pods that mount it are all that keeps it.
    #[error(
        "the {0} is being deleted, and its data goes with the pod that mounts it: copy what is worth keeping; nothing that would replace the pod is done meanwhile"
    )]
    DataGoing(Key),
    /// A claim of another class than the spec's is there, as one is that outlived an object of the same name.
    #[error("the {0} is of {is}, and the spec asks for {wanted}: a claim keeps its class. {way_out}", is = .1.is, wanted = .1.wanted, way_out = .1.way_out)]
    OtherClass(Key, Box<OtherClass>),
    /// The child of an object of the same name that is gone: Kubernetes is about to delete it.
    #[error("the {0} belongs to an object of this name that was deleted, and is going: waiting for it")]
    OfPredecessor(Key),
    /// A child without an owner, and a CR that is gone, or going: who deleted that with `--cascade=orphan` wants the child kept.
    #[error("the {0} has no owner, and the {1} is gone, or going: it is left as it is")]
    OwnerGoing(Key, String),
    /// What we ask for does not stay.
    #[error("{}the {key} does not stay as it is asked for: {by} writes it, too. It is left alone for a minute", of(what))]
    Contested {
        /// The object.
        key: Key,
        /// The first field that differs; empty where the whole object comes and goes.
        what: String,
        /// Who writes it, as far as we can tell.
        by: &'static str,
        /// Again and again, so that somebody must decide; else the API server changed it as it was written.
        undone: bool,
    },
    /// The API server's answer to our own write lacks it.
    #[error(
        "Kubernetes drops {fields} of the {0} as it is written: its API server is older than the field, has its feature gate off, or has a webhook that takes it away. Upgrade it, switch the gate on, or remove the field from the spec; it is tried again once an hour", fields = .1.join(", ")
    )]
    Dropped(Key, Vec<String>),
    /// The API server refused, or could not be asked.
    #[error("failed to {verb} the {kind} {name}")]
    Request {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// What came back.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("no answer in {}s when trying to {verb} the {kind} {name}", REQUEST_TIMEOUT.as_secs())]
    Timeout {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
    },
}

impl Error {
    /// Whether trying again can help: false when the API server said that the object itself is wrong.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NameConflict(_)
            | Self::ForeignData(..)
            | Self::DataGoing(_)
            | Self::OtherClass(..)
            | Self::Contested { .. }
            | Self::Dropped(..) => false,
            Self::Request { source, .. } => match &**source {
                // Server-side apply refuses a list with a key twice, and a field that is too new for it, as an internal error.
                kube::Error::Api(status) if NOT_TYPED.iter().any(|said| status.message.contains(said)) => false,
                kube::Error::Api(status) => !matches!(status.code, 400 | 403 | 413 | 422),
                _ => true,
            },
            Self::OfPredecessor(_) | Self::OwnerGoing(..) | Self::Timeout { .. } => true,
        }
    }

    /// Whether the API server itself did not answer.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Request { source, .. } => is_away(source),
            _ => false,
        }
    }

    /// The message with its cause, for people. The API server's words hold names and fields, never values of Secrets.
    pub fn describe(&self) -> String {
        match self {
            Self::Request { source, .. } => match &**source {
                kube::Error::Api(status) => format!("{self}: {}{}", in_one_line(&status.message), way_out(&status.message)),
                other => format!("{self}: {other}"),
            },
            _ => self.to_string(),
        }
    }

    /// What is contested of an object.
    pub fn contested(key: &Key, Contested { what, undone }: Contested) -> Self {
        let by = if undone {
            "another writer, or another operator,"
        } else {
            "an admission webhook, a default, or a Kubernetes that does not know it,"
        };
        Self::Contested { key: key.clone(), what, by, undone }
    }

    fn dropped(key: &Key, fields: Vec<String>) -> Option<Self> {
        (!fields.is_empty()).then(|| Self::Dropped(key.clone(), fields))
    }

    /// The status of the API server's refusal.
    pub fn code(&self) -> Option<u16> {
        self.refusal().map(|status| status.code)
    }

    /// Whether the API server's words hold these.
    fn says(&self, words: &str) -> bool {
        self.refusal().is_some_and(|status| status.message.contains(words))
    }

    fn refusal(&self) -> Option<&Status> {
        match self {
            Self::Request { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether the API server did not answer: nobody is there, it is not ready, or it cannot ask its store. A webhook that does not answer
/// is told by one that is there.
pub fn is_away(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            matches!(status.code, 503 | 504) || status.code == 500 && status.message.contains("etcdserver")
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// Without the comparison of two objects that Kubernetes adds to some refusals.
fn in_one_line(said: &str) -> String {
    printable(said.split_once("\n@@").map_or(said, |(said, _)| said))
}

/// What to do where an edit cannot be taken back: the size of a volume never shrinks, not even one that was never given.
fn way_out(said: &str) -> &'static str {
    if said.contains("can be resized") {
        "; to keep the size that there is, delete this object and make it anew with that: the claim and its data stay"
    } else if said.contains(TOO_NEW) {
        "; this Kubernetes is older than the field: upgrade it, or remove the field from the spec"
    } else {
        ""
    }
}

fn of(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!("{what} of ") }
}

/// A namespaced object that can be watched, applied and kept.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// The owner reference that makes `owner` the controller of a child, so that deleting it deletes the child, and a deletion in the foreground
/// (`kubectl delete --cascade=foreground`, as Argo CD deletes) ends when the child is gone.
/// See <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#foreground-deletion>.
pub fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let controller = owner.controller_owner_ref(&()).expect("an object that came from the API server has a name and a uid");
    OwnerReference { block_owner_deletion: Some(true), ..controller }
}

/// What became of a child.
#[derive(Debug)]
pub struct Applied {
    /// The child as it is now.
    pub live: Arc<Live>,
    /// It was not so before.
    pub written: bool,
    /// What somebody else had changed of ours, if that was put right.
    pub corrected: Option<Correction>,
    /// What of it Kubernetes drops: [`Error::Dropped`].
    pub dropped: Option<Error>,
}

/// What somebody else had changed of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The first field.
    pub what: String,
    /// The field manager; none where nobody owns the field, because it was taken away.
    pub by: Option<String>,
}

impl Correction {
    /// None: what differs is what we did not want before.
    fn of(found: &Live, differences: &[&Difference]) -> Option<Self> {
        let hash = differences.iter().copied().find(|found| is_hash(found));
        let theirs = hash.is_none() || taken_back(found, differences);
        let first = first(differences).filter(|_| theirs)?;
        let by = found.owner_of(first).or_else(|| found.owner_of(hash?));
        Some(Self { what: first.path.clone(), by: by.map(ToOwned::to_owned) })
    }
}

/// Whether somebody else put another one in its place as a whole. Only we write the hash: who undoes a rollout, or replaces the whole, has it in
/// hand as it was before, or not at all.
fn taken_back(found: &Live, differences: &[&Difference]) -> bool {
    let hash = differences.iter().copied().find(|found| is_hash(found));
    hash.is_some_and(|hash| hash.missing && found.written || found.owner_of(hash).is_some())
}

/// The hash of what we wanted last, or all annotations where there is none. Where it is what we want, all that differs was changed by
/// others.
fn is_hash(found: &Difference) -> bool {
    found.path.ends_with(names::ANNOTATION_APPLIED) || found.path == "metadata.annotations"
}

/// The first field that differs; the hash, which says nothing to anybody, only where nothing else does.
fn first<'a>(differences: &[&'a Difference]) -> Option<&'a Difference> {
    differences.iter().find(|found| !is_hash(found)).or_else(|| differences.first()).copied()
}

/// Writes children.
#[derive(Clone)]
pub struct Writer {
    /// The API server.
    pub client: Client,
    /// What is there, to the best of our knowledge.
    pub children: Arc<Children>,
    /// Whose writes do not stay.
    pub contests: Arc<Contests>,
}

impl Writer {
    /// Brings a child to the desired state, and says what it is then. Writes nothing when it is there already.
    pub async fn apply(&self, child: &Child) -> Result<Applied, Error> {
        let (api, hash) = (self.api(child), child.hash());
        let known = self.children.get(&child.key);
        if let Some(live) = known.clone().filter(|live| live.holds(&hash)) {
            return Ok(Applied { live, written: false, corrected: None, dropped: None });
        }
        let mut body = child.body.clone();
        body["metadata"]["annotations"][names::ANNOTATION_APPLIED] = json!(hash);
        let found = if let Some(found) = known {
            found
        } else {
            self.may_write(&child.key, &hash)?;
            match self.create(&api, child, &body).await? {
                Created::New(live) => {
                    self.wrote(&child.key, &hash, None, WHOLE)?;
                    let (_, missing) = self.unheld(&live, &body, &hash);
                    return Ok(Applied { live, written: true, corrected: None, dropped: Error::dropped(&child.key, missing) });
                }
                Created::Taken(found) => found,
            }
        };
        let value = found.value();
        match child.relation(&value) {
            Relation::Ours => {}
            Relation::Orphaned => self.may_adopt(child).await?,
            Relation::OfPredecessor => return Err(Error::OfPredecessor(child.key.clone())),
            Relation::Foreign if child.owner().is_none() => return Err(Error::ForeignData(child.key.clone(), labels(child))),
            Relation::Foreign => return Err(Error::NameConflict(child.key.clone())),
        }
        if child.owner().is_none() && value["metadata"]["deletionTimestamp"].is_string() {
            return Err(Error::DataGoing(child.key.clone()));
        }
        if let Some(other) = claims::other_class(child, &value) {
            return Err(Error::OtherClass(child.key.clone(), Box::new(other)));
        }
        keep_what_grew(child, &value, &mut body);
        let known = self.contests.dropped(&child.key, &hash, Instant::now());
        let differences = compare::differences(&value, &body);
        let news: Vec<_> = differences.iter().filter(|found| !known.contains(&found.path)).collect();
        let Some(first) = first(&news) else {
            let known = if differences.is_empty() { Vec::new() } else { known };
            if known.is_empty() {
                found.found_to_hold(&hash);
            }
            return Ok(Applied { live: found, written: false, corrected: None, dropped: Error::dropped(&child.key, known) });
        };
        self.may_write(&child.key, &hash)?;
        if found.created {
            self.own_by_apply(&child.resource, &found).await?;
        }
        // The uid is a precondition: what has been deleted meanwhile is not made anew here, and a successor not taken over.
        body["metadata"]["uid"] = json!(found.uid);
        if taken_back(&found, &news) {
            self.replace_template(&api, child, &body).await?;
        }
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let applied = match request("apply", &child.key, api.patch(&child.key.name, &params, &Patch::Apply(&body))).await {
            Err(error) if error.code() == Some(422) => {
                let replaced = self.replace_ports(&api, child, &body, &news).await;
                let of_template = error.says(TEMPLATE);
                if replaced.is_none() && !(of_template && self.replace_template(&api, child, &body).await.unwrap_or_default()) {
                    return Err(error);
                }
                request("apply", &child.key, api.patch(&child.key.name, &params, &Patch::Apply(&body))).await?
            }
            applied => applied?,
        };
        let live = self.children.wrote(Live::new(child.key.kind, applied));
        tracing::info!(kind = child.key.kind, namespace = child.key.namespace, name = child.key.name, "applied");
        let (changed, missing) = self.unheld(&live, &body, &hash);
        self.wrote(&child.key, &hash, changed, &first.path)?;
        // What Kubernetes drops at each write nobody has changed.
        let kept: Vec<_> = news.into_iter().filter(|found| !missing.contains(&found.path)).collect();
        let corrected = Correction::of(&found, &kept);
        Ok(Applied { live, written: true, corrected, dropped: Error::dropped(&child.key, missing) })
    }

    /// Asks whether the CR is still there, as Kubernetes' own controllers do before they adopt: what the watches show lags behind, and a
    /// child that was just let go would be given back to the CR that goes, and be deleted with it.
    async fn may_adopt(&self, child: &Child) -> Result<(), Error> {
        let Some(owner) = child.owner() else { return Ok(()) };
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &owner.kind));
        let api: Api<Document> = Api::namespaced_with(self.client.clone(), &child.key.namespace, &resource);
        let found = timed("read", &owner.kind, &owner.name, api.get_metadata_opt(&owner.name)).await?;
        let stays =
            found.is_some_and(|found| found.metadata.uid == Some(owner.uid) && found.metadata.deletion_timestamp.is_none());
        if stays { Ok(()) } else { Err(Error::OwnerGoing(child.key.clone(), format!("{} {}", owner.kind, owner.name))) }
    }

    /// Replaces a list of ports in which ours is not, whole. A port is told from others by its number: somebody who edits that makes ours
    /// another port, and as two of one name cannot be, an apply of ours is refused for ever. None: it is refused for something else.
    async fn replace_ports(&self, api: &Api<Document>, child: &Child, body: &Value, news: &[&Difference]) -> Option<()> {
        let ports = |found: &&Difference| found.missing && found.keys.iter().rev().nth(1).is_some_and(|list| list == "f:ports");
        let mut patch = compare::replacing(body, &news.iter().copied().find(ports)?.keys)?;
        patch["metadata"] = json!({"uid": body["metadata"]["uid"]});
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        request("replace ports of", &child.key, api.patch(&child.key.name, &params, &Patch::Strategic(&patch)))
            .await
            .ok()
            .map(drop)
    }

    /// Replaces the pods of a Deployment as they are to be, whole. What somebody else set beside our fields stays by an apply, also what was
    /// ours before an edit, and what makes ours invalid. False: it is no Deployment.
    async fn replace_template(&self, api: &Api<Document>, child: &Child, body: &Value) -> Result<bool, Error> {
        if child.key.kind != Deployment::KIND {
            return Ok(false);
        }
        let mut template = body["spec"]["template"].clone();
        template["$patch"] = json!("replace");
        let patch = json!({"metadata": {"uid": body["metadata"]["uid"]}, "spec": {"template": template}});
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        request("replace the pods of", &child.key, api.patch(&child.key.name, &params, &Patch::Strategic(&patch))).await?;
        Ok(true)
    }

    /// What the answer to our own write does not hold: the first field that is another, and those that are not there.
    fn unheld(&self, live: &Live, body: &Value, hash: &str) -> (Option<String>, Vec<String>) {
        let (missing, changed): (Vec<_>, Vec<_>) =
            compare::differences(&live.value(), body).into_iter().partition(|found| found.missing);
        let missing: Vec<_> = missing.into_iter().map(|found| found.path).collect();
        self.contests.lacked(&live.key, hash, missing.clone(), Instant::now());
        (changed.into_iter().next().map(|found| found.path), missing)
    }

    /// Changes the number of pods of a Deployment, and nothing else of it.
    pub async fn scale(&self, live: &Live, replicas: i32) -> Result<(), Error> {
        let said = format!("replicas={replicas}");
        self.may_write(&live.key, &said)?;
        let api: Api<Document> =
            Api::namespaced_with(self.client.clone(), &live.key.namespace, &ApiResource::erase::<Deployment>(&()));
        let body = json!({"metadata": {"uid": live.uid}, "spec": {"replicas": replicas}});
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        let scaled = request("scale", &live.key, api.patch(&live.key.name, &params, &Patch::Merge(&body))).await?;
        tracing::info!(kind = live.key.kind, namespace = live.key.namespace, name = live.key.name, replicas, "scaled");
        self.children.wrote(Live::new(live.key.kind, scaled));
        self.wrote(&live.key, &said, None, "spec.replicas")
    }

    /// Deletes a child that is no longer wanted.
    pub async fn delete(&self, live: &Live, resource: &kube::core::ApiResource) -> Result<(), Error> {
        self.may_write(&live.key, GONE)?;
        let api: Api<Document> = Api::namespaced_with(self.client.clone(), &live.key.namespace, resource);
        let uid = Some(live.uid.clone());
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        match request("delete", &live.key, api.delete(&live.key.name, &params)).await {
            Err(error) if error.code() != Some(404) => return Err(error),
            _ => {}
        }
        tracing::info!(kind = live.key.kind, namespace = live.key.namespace, name = live.key.name, "deleted, no longer wanted");
        self.children.deleted(live);
        self.wrote(&live.key, GONE, None, WHOLE)
    }

    fn may_write(&self, key: &Key, hash: &str) -> Result<(), Error> {
        self.contests.may_write(key, hash, Instant::now()).map_err(|told| Error::contested(key, told))
    }

    fn wrote(&self, key: &Key, hash: &str, unheld: Option<String>, what: &str) -> Result<(), Error> {
        self.contests.wrote(key, hash, unheld, what, Instant::now()).map_err(|told| Error::contested(key, told))
    }

    fn api(&self, child: &Child) -> Api<Document> {
        Api::namespaced_with(self.client.clone(), &child.key.namespace, &child.resource)
    }

    async fn create(&self, api: &Api<Document>, child: &Child, body: &Value) -> Result<Created, Error> {
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
        match request("create", &child.key, api.create(&params, &Document::of(body))).await {
            Ok(created) => {
                tracing::info!(kind = child.key.kind, namespace = child.key.namespace, name = child.key.name, "created");
                Ok(Created::New(self.children.wrote(Live::new(child.key.kind, created))))
            }
            // Somebody has the name: the watch shows only what carries our label, and lags behind.
            Err(error) if error.code() == Some(409) => {
                let found = request("read", &child.key, api.get(&child.key.name)).await?;
                Ok(Created::Taken(Arc::new(Live::new(child.key.kind, found))))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the fields that we own since the object's creation those of our applies, so that a field which we no longer say goes.
    /// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#upgrading-from-client-side-apply-to-server-side-apply>
    async fn own_by_apply(&self, resource: &ApiResource, found: &Live) -> Result<(), Error> {
        // Whole: what its managers are is written back.
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &found.key.namespace, resource);
        let mut tries = 1;
        loop {
            match self.take_up(&api, found).await {
                // The status of one whose pods come and go is written several times a second, between our two requests, too.
                Err(error) if error.code() == Some(409) && tries < TAKING_UP => tries += 1,
                done => return done,
            }
        }
    }

    async fn take_up(&self, api: &Api<DynamicObject>, found: &Live) -> Result<(), Error> {
        let live = request("read", &found.key, api.get(&found.key.name)).await?;
        let mut managers = json!(live.metadata.managed_fields);
        merge_managers(&mut managers);
        let body = json!({"metadata": {
            "managedFields": managers, "uid": found.uid, "resourceVersion": live.metadata.resource_version,
        }});
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        request("take up", &found.key, api.patch(&found.key.name, &params, &Patch::Merge(&body))).await?;
        Ok(())
    }
}

enum Created {
    New(Arc<Live>),
    Taken(Arc<Live>),
}

fn labels(child: &Child) -> String {
    let labels = child.body["metadata"]["labels"].as_object().into_iter().flatten();
    let ours = labels.filter(|(label, _)| names::IDENTITY.contains(&label.as_str()));
    ours.map(|(label, value)| format!("{label}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" ")
}

/// What somebody made larger than we want it stays so.
fn keep_what_grew(child: &Child, live: &Value, body: &mut Value) {
    let Some(pointer) = child.grows else { return };
    let (Some(live), Some(wanted)) = (live.pointer(pointer), body.pointer_mut(pointer)) else { return };
    if let (Some(there), Some(want)) = (live.as_str(), wanted.as_str())
        && compare::at_least(there, want) == Some(true)
    {
        *wanted = live.clone();
    }
}

/// One entry for all that we own: the one of our applies has what the one of the creation had, too.
fn merge_managers(managers: &mut Value) {
    let Some(entries) = managers.as_array_mut() else { return };
    let ours = |entry: &Value, operation: &str| {
        entry["manager"] == names::FIELD_MANAGER
            && entry["operation"] == operation
            && entry.get("subresource").is_none_or(Value::is_null)
    };
    let Some(created) = entries.iter().position(|entry| ours(entry, "Update")) else { return };
    let mut created = entries.remove(created);
    if let Some(applied) = entries.iter_mut().find(|entry| ours(entry, "Apply")) {
        merge(&mut applied["fieldsV1"], &created["fieldsV1"]);
    } else {
        created["operation"] = json!("Apply");
        entries.push(created);
    }
}

fn merge(into: &mut Value, from: &Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else { return };
    for (key, from) in from {
        merge(into.entry(key.clone()).or_insert_with(|| json!({})), from);
    }
}

/// Writes the status of a CR: one patch by our field manager.
pub async fn apply_status<K, S>(client: &Client, cache: &Cache<K>, object: &K, status: &S) -> Result<(), Error>
where
    K: Object,
    S: Serialize + Sync,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    // The uid is a precondition: the status of a deleted object is not for its successor of the same name.
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": object.uid() },
        "status": status,
    });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    let written = timed("write the status of", &K::kind(&()), &name, api.patch_status(&name, &params, &patch)).await?;
    cache.wrote(written);
    Ok(())
}

async fn request<T>(verb: &'static str, key: &Key, future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    timed(verb, key.kind, &key.name, future).await
}

async fn timed<T>(
    verb: &'static str,
    kind: &str,
    name: &str,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let (kind, name) = (kind.to_owned(), name.to_owned());
    match tokio::time::timeout(REQUEST_TIMEOUT, future).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(Error::Request { verb, kind, name, source: Box::new(source) }),
        Err(_) => Err(Error::Timeout { verb, kind, name }),
    }
}

#[cfg(test)]
mod writes;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn refused(code: u16, message: &str) -> Error {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
        let source = Box::new(kube::Error::Api(serde_json::from_value(status).expect("a status")));
        Error::Request { verb: "apply", kind: "Service".into(), name: "x".into(), source }
    }

    #[rstest]
    #[case(400, "bad", false)]
    #[case(403, "exceeded quota", false)]
    #[case(413, "too large", false)]
    #[case(422, "invalid", false)]
    #[case(500, "failed to create typed patch object: duplicate entries for key [name=\"A\"]", false)]
    #[case(500, "failed to create typed patch object: .spec.a: field not declared in schema", false)]
    #[case(404, "no such namespace", true)]
    #[case(409, "conflict", true)]
    #[case(429, "slow down", true)]
    #[case(500, "etcd is down", true)]
    #[case(504, "timeout", true)]
    fn what_is_wrong_with_the_object_itself_is_not_transient(#[case] code: u16, #[case] message: &str, #[case] transient: bool) {
        assert_eq!(refused(code, message).is_transient(), transient);
    }

    #[test]
    fn what_trying_again_can_mend_is_transient() {
        let key = || Key::new("Service", "team", "x");
        let contested = |undone| Error::contested(&key(), Contested { what: "spec.ports".into(), undone });
        let timeout = || Error::Timeout { verb: "apply", kind: "Service".into(), name: "x".into() };
        for error in [Error::OfPredecessor(key()), timeout()] {
            assert!(error.is_transient(), "{error}");
        }
        for error in [Error::NameConflict(key()), Error::ForeignData(key(), String::new()), contested(true), contested(false)] {
            assert!(!error.is_transient(), "{error}");
        }
    }

    #[test]
    fn what_is_contested_is_named_with_who_writes_it() {
        let told = |what: &str, undone| {
            Error::contested(&Key::new("Service", "team", "x"), Contested { what: what.into(), undone }).describe()
        };
        let stays = "does not stay as it is asked for";
        assert!(told("spec.ports", true).starts_with(&format!("spec.ports of the Service x {stays}: another writer")));
        assert!(told("", false).starts_with(&format!("the Service x {stays}: an admission webhook")));
    }

    fn claim(size: &str) -> Child {
        let claim: k8s_openapi::api::core::v1::PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "db-mcp", "namespace": "team"}, "spec": {"resources": {"requests": {"storage": size}}},
        }))
        .expect("a claim");
        Child::new(&claim).growing(crate::mcp_server::build::CLAIM_SIZE)
    }

    #[rstest]
    #[case::somebody_grew_it("8Gi", "3Gi", "8Gi")]
    #[case::the_spec_grows_it("1Gi", "3Gi", "3Gi")]
    #[case::the_same("3Gi", "3072Mi", "3Gi")]
    fn a_claim_only_grows(#[case] there: &str, #[case] wanted: &str, #[case] asked: &str) {
        let child = claim(wanted);
        let mut body = child.body.clone();
        keep_what_grew(&child, &claim(there).body, &mut body);
        assert_eq!(body.pointer(crate::mcp_server::build::CLAIM_SIZE), Some(&json!(asked)));
    }

    #[test]
    fn fields_of_the_creation_become_those_of_the_applies() {
        let mut managers = json!([
            {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:x": {}}},
            {"manager": "mcpfleet", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
            {"manager": "mcpfleet", "operation": "Update", "fieldsV1": {"f:spec": {"f:a": {}}}},
        ]);
        merge_managers(&mut managers);
        assert_eq!(managers[2], json!({"manager": "mcpfleet", "operation": "Apply", "fieldsV1": {"f:spec": {"f:a": {}}}}));
        assert_eq!(managers[1]["operation"], "Update");

        let mut both = json!([
            {"manager": "mcpfleet", "operation": "Update", "fieldsV1": {"f:spec": {"f:a": {}}}},
            {"manager": "mcpfleet", "operation": "Apply", "fieldsV1": {"f:spec": {"f:b": {}}}},
        ]);
        merge_managers(&mut both);
        assert_eq!(both, json!([{"manager": "mcpfleet", "operation": "Apply", "fieldsV1": {"f:spec": {"f:a": {}, "f:b": {}}}}]));
    }
}

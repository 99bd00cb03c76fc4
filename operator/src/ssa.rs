//! Server-side apply: one field manager, and no request at all when nothing would change.

use std::{fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{cache::Cache, names};

/// How long one request may take. kube's client has no such bound of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an object could not be brought to the desired state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object of this name is there, and is not ours.
    #[error("the {kind} {name} exists and was not made by this object: delete it, or rename one of the two")]
    NameConflict {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
    },
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
            Self::NameConflict { .. } => false,
            Self::Request { source, .. } => match &**source {
                kube::Error::Api(status) => !matches!(status.code, 400 | 403 | 422),
                _ => true,
            },
            Self::Timeout { .. } => true,
        }
    }

    /// The message with its cause, for people. The API server's words hold names and fields, never values of Secrets.
    pub fn describe(&self) -> String {
        match self {
            Self::Request { source, .. } => match &**source {
                kube::Error::Api(status) => format!("{self}: {}", status.message),
                other => format!("{self}: {other}"),
            },
            _ => self.to_string(),
        }
    }
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

/// How an object of the desired name that we find is known to be ours.
#[derive(Clone, Copy, Debug)]
pub enum Ours<'a> {
    /// It is controlled by the CR of this uid.
    ControlledBy(&'a str),
    /// It carries all the labels that it is to have: for what outlives the CR.
    Labelled,
}

impl Ours<'_> {
    fn owns<K: Resource>(self, desired: &K, found: &K) -> bool {
        match self {
            Self::ControlledBy(uid) => {
                found.meta().owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == uid)
            }
            Self::Labelled => desired.labels().iter().all(|(key, value)| found.labels().get(key) == Some(value)),
        }
    }
}

/// The owner reference that makes `owner` the controller of a child, so that deleting it deletes the child.
pub fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    owner.controller_owner_ref(&()).expect("an object that came from the API server has a name and a uid")
}

/// Brings an object to the desired state, and says what it is then. Writes nothing when it is there already.
pub async fn apply<K>(client: &Client, cache: &Cache<K>, ours: Ours<'_>, mut desired: K) -> Result<Arc<K>, Error>
where
    K: Object,
{
    let (namespace, name) = (desired.namespace().unwrap_or_default(), desired.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let mut body = json(&desired);
    let hash = digest(&body);
    desired.annotations_mut().insert(names::ANNOTATION_APPLIED.into(), hash.clone());
    body = json(&desired);

    // The cache holds only what carries our label. Before the first write, look whether somebody else has the name.
    let found = match cache.get(&namespace, &name) {
        Some(found) => Some(found),
        None => request("read", &desired, api.get_opt(&name)).await?.map(Arc::new),
    };
    if let Some(found) = found {
        if !ours.owns(&desired, &found) {
            return Err(Error::NameConflict { kind: K::kind(&()).into_owned(), name });
        }
        if found.annotations().get(names::ANNOTATION_APPLIED) == Some(&hash) && holds(&json(&*found), &body) {
            return Ok(found);
        }
    }

    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let applied = request("apply", &desired, api.patch(&name, &params, &Patch::Apply(&body))).await?;
    tracing::info!(kind = %K::kind(&()), namespace, name, "applied");
    cache.wrote(applied.clone());
    Ok(Arc::new(applied))
}

/// Deletes a child that is no longer wanted, if it is there and ours.
pub async fn delete<K>(client: &Client, cache: &Cache<K>, ours: Ours<'_>, namespace: &str, name: &str) -> Result<(), Error>
where
    K: Object,
{
    let Some(found) = cache.get(namespace, name) else { return Ok(()) };
    if !ours.owns(&*found, &found) {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams::background().preconditions(Preconditions { uid: found.uid(), resource_version: None });
    match request("delete", &*found, api.delete(name, &params)).await {
        Ok(_) => {}
        Err(Error::Request { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 404) => {}
        Err(error) => return Err(error),
    }
    tracing::info!(kind = %K::kind(&()), namespace, name, "deleted, no longer wanted");
    cache.deleted(&found);
    Ok(())
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
    let body = serde_json::json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": object.uid() },
        "status": status,
    });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let written = request("write the status of", object, api.patch_status(&name, &params, &Patch::Apply(&body))).await?;
    cache.wrote(written);
    Ok(())
}

async fn request<K, T>(verb: &'static str, object: &K, future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error>
where
    K: Resource<DynamicType = ()>,
{
    let kind = || K::kind(&()).into_owned();
    let name = || object.name_any();
    match tokio::time::timeout(REQUEST_TIMEOUT, future).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(Error::Request { verb, kind: kind(), name: name(), source: Box::new(source) }),
        Err(_) => Err(Error::Timeout { verb, kind: kind(), name: name() }),
    }
}

fn json<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("a Kubernetes object is JSON")
}

fn digest(value: &Value) -> String {
    // Objects of serde_json are sorted by key, so equal objects have equal bytes.
    hex(&Sha256::digest(value.to_string()))[..16].to_owned()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether everything that `desired` says holds in `live`, which may say more: defaults, and what others own.
///
/// Together with the hash of the whole desired object (which notices what we no longer say) this is what server-side apply would
/// find out, without the request. Kubernetes leaves out empty values, so a missing field equals an empty one; and it rewrites
/// quantities, so those are compared by value.
pub fn holds(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(key, desired)| match live.get(key) {
            Some(live) => holds(live, desired),
            None => is_empty(desired),
        }),
        // Lists of objects are merged by key on the server: each wanted element must be found, others may stand beside it.
        (Value::Array(live), Value::Array(desired)) if desired.iter().all(Value::is_object) => {
            desired.iter().all(|desired| live.iter().any(|live| holds(live, desired)))
        }
        (Value::String(live), Value::String(desired)) => live == desired || same_quantity(live, desired),
        _ => live == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(true) => false,
    }
}

fn same_quantity(left: &str, right: &str) -> bool {
    matches!((milli(left), milli(right)), (Some(left), Some(right)) if left == right)
}

/// A quantity in thousandths, rounded up as Kubernetes does. None when it is no quantity.
fn milli(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let scale: i128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let base = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some((digits * scale + base - 1) / base)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::equal(json!({"a": 1}), json!({"a": 1}), true)]
    #[case::defaults_stand_beside(json!({"a": 1, "b": 2}), json!({"a": 1}), true)]
    #[case::differs(json!({"a": 2}), json!({"a": 1}), false)]
    #[case::missing(json!({}), json!({"a": 1}), false)]
    #[case::missing_equals_empty(json!({}), json!({"a": "", "b": [], "c": {"d": 0}, "e": false}), true)]
    #[case::quantities_by_value(json!({"cpu": "500m", "memory": "1Gi"}), json!({"cpu": "0.5", "memory": "1024Mi"}), true)]
    #[case::quantities_differ(json!({"cpu": "500m"}), json!({"cpu": "0.6"}), false)]
    #[case::an_element_of_a_list_beside_others(json!([{"name": "sidecar"}, {"name": "a", "x": 1, "y": 2}]), json!([{"name": "a", "x": 1}]), true)]
    #[case::an_element_changed(json!([{"name": "a", "x": 2}]), json!([{"name": "a", "x": 1}]), false)]
    #[case::scalars_in_order(json!(["a", "b"]), json!(["b", "a"]), false)]
    #[case::scalars_all(json!(["a", "b"]), json!(["a"]), false)]
    fn a_desired_state_holds(#[case] live: Value, #[case] desired: Value, #[case] expected: bool) {
        assert_eq!(holds(&live, &desired), expected);
    }

    #[rstest]
    #[case("1", Some(1_000))]
    #[case("100m", Some(100))]
    #[case("0.1", Some(100))]
    #[case("1.5Gi", Some(1_610_612_736_000))]
    #[case("banana", None)]
    #[case("", None)]
    #[case(".", None)]
    fn quantities_have_values(#[case] text: &str, #[case] expected: Option<i128>) {
        assert_eq!(milli(text), expected);
    }
}

//! The API server's audit log: who wrote what, counted by it and not by us.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// One request, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    stage: String,
    verb: String,
    request_received_timestamp: Timestamp,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    user: User,
    object_ref: Option<ObjectRef>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

/// A write: verb, resource with subresource, and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Write {
    /// create, update, patch or delete.
    pub verb: String,
    /// For example `mcpservers/status`.
    pub resource: String,
    /// The object's name.
    pub name: String,
}

/// Every finished write to a namespace so far, but for those by the control plane itself, and for the CRs that tests write.
pub fn writes(namespace: &str) -> anyhow::Result<Vec<Write>> {
    matching(|entry, object| of_others(entry, object, namespace))
}

fn of_others(entry: &Entry, object: &ObjectRef, namespace: &str) -> bool {
    let by_control_plane = entry.user_agent.starts_with("kube-");
    let by_test = matches!(object.resource.as_str(), "mcpservers" | "mcpapps") && object.subresource.is_empty();
    // The operator of a test has its own Secret where its servers are; elsewhere it has a namespace of its own.
    let for_itself = object.resource == "secrets" && object.name == "mcpfleet-operator-digest";
    object.namespace == namespace && !by_control_plane && !by_test && !for_itself
}

/// Those that were asked for since then. A write is in the log some time after its effect is seen: what `writes` tells later, and did not
/// tell before, may be older than what was seen.
pub fn writes_since(namespace: &str, since: Timestamp) -> anyhow::Result<Vec<Write>> {
    matching(|entry, object| entry.request_received_timestamp >= since && of_others(entry, object, namespace))
}

/// Those of a transition of a server: the app's own status and the Events are told on top.
pub fn of_transition(writes: &[Write]) -> Vec<Write> {
    writes.iter().filter(|write| write.resource != "events" && write.resource != "mcpapps/status").cloned().collect()
}

/// Every finished write since then by users whose names begin so, in whatever namespace.
pub fn writes_of(user: &str, since: Timestamp) -> anyhow::Result<Vec<Write>> {
    matching(|entry, _| entry.request_received_timestamp >= since && entry.user.username.starts_with(user))
}

/// Those that were asked for since then by programs whose User-Agent begins so, in whatever namespace.
pub fn writes_by(agent: &str, since: Timestamp) -> anyhow::Result<Vec<Write>> {
    matching(|entry, _| entry.request_received_timestamp >= since && entry.user_agent.starts_with(agent))
}

fn matching(wanted: impl Fn(&Entry, &ObjectRef) -> bool) -> anyhow::Result<Vec<Write>> {
    let path: PathBuf = std::env::var_os("MCPFLEET_AUDIT_LOG").context("MCPFLEET_AUDIT_LOG is not set")?.into();
    let text = std::fs::read_to_string(&path).with_context(|| format!("the audit log {} cannot be read", path.display()))?;
    let mut writes = Vec::new();
    for line in text.lines() {
        let Ok(entry) = serde_json::from_str::<Entry>(line) else { continue };
        let Some(object) = entry.object_ref.as_ref() else { continue };
        let write = matches!(entry.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        if entry.stage != "ResponseComplete" || !write || !wanted(&entry, object) {
            continue;
        }
        let resource = match object.subresource.as_str() {
            "" => object.resource.clone(),
            subresource => format!("{}/{subresource}", object.resource),
        };
        let name = object.name.clone();
        writes.push(Write { verb: entry.verb, resource, name });
    }
    Ok(writes)
}

/// The writes counted by resource, for a message that a person can read.
pub fn summary(writes: &[Write]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in writes {
        *counts.entry(format!("{} {}", write.verb, write.resource)).or_default() += 1;
    }
    counts
}

//! A child of a CR: what we want of it, and whose an object of its name is. Pure.
//!
//! A child is one builder (`mcp_server/build`, `mcp_app/build`), one line in the kind's list, and its kind in [`KINDS`]. Everything
//! else (watching, applying, pruning, telling) is the same for all of them.

use std::fmt;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::CronJob,
        core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{digest::hex, names};

/// A kind of child.
#[derive(Clone, Copy)]
pub struct ChildKind {
    /// Kubernetes' name of it, for example `Deployment`.
    pub kind: &'static str,
    /// How the API server is asked for it.
    pub resource: fn() -> ApiResource,
    /// What tells ours from those that Kubernetes makes with the labels of ours: a label and its value.
    pub told_by: Option<(&'static str, &'static str)>,
}

impl fmt::Debug for ChildKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

impl ChildKind {
    /// The kind of this type.
    pub const fn of<K>() -> Self
    where
        K: k8s_openapi::Resource + kube::Resource<DynamicType = ()>,
    {
        Self { kind: K::KIND, resource: || ApiResource::erase::<K>(&()), told_by: None }
    }

    /// Those with this label alone.
    const fn told_by(self, label: &'static str, value: &'static str) -> Self {
        Self { told_by: Some((label, value)), ..self }
    }

    /// Selects those that are ours.
    pub fn selector(&self) -> String {
        let label = self.told_by.map(|(label, value)| format!(",{label}={value}"));
        format!("{}{}", names::MANAGED_SELECTOR, label.unwrap_or_default())
    }
}

/// Every kind of child that any CR has: what is watched, and what is pruned. A right in the chart belongs to each
/// (`mcpfleet.rules` in charts/mcpfleet/templates/_helpers.tpl`).
pub const KINDS: [ChildKind; 9] = [
    ChildKind::of::<PersistentVolumeClaim>(),
    ChildKind::of::<Secret>(),
    ChildKind::of::<ConfigMap>(),
    ChildKind::of::<NetworkPolicy>(),
    ChildKind::of::<Service>(),
    ChildKind::of::<Deployment>(),
    ChildKind::of::<PodDisruptionBudget>(),
    ChildKind::of::<CronJob>(),
    // Kubernetes copies a Service's labels to the slices that it keeps for it.
    ChildKind::of::<EndpointSlice>().told_by(names::LABEL_SLICE_MANAGED_BY, names::GROUP),
];

/// Which object: its kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kubernetes' name of the kind.
    pub kind: &'static str,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn new(kind: &'static str, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    /// As people are told: `Deployment db-mcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What we want of a child.
#[derive(Clone)]
pub struct Child {
    /// Which object.
    pub key: Key,
    /// How the API server is asked for it.
    pub resource: ApiResource,
    /// The whole object as it is to be.
    pub body: Value,
    /// Kinds of the same CR's children that have to be there, and be its own, before it is applied: what it mounts, and what shields it. Of a
    /// kind, every one: who must not wait for another of that kind needs a kind of its own, or no line here.
    pub needs: &'static [&'static str],
    /// Something that is no child is missing, and told of by the CR: it is wanted, but not applied before that is there.
    pub waits: bool,
    /// The JSON pointer of a quantity that may be more than we want, and is never lowered.
    pub grows: Option<&'static str>,
}

impl fmt::Debug for Child {
    /// Without the body: it may be a Secret's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("key", &self.key)
            .field("needs", &self.needs)
            .field("waits", &self.waits)
            .finish_non_exhaustive()
    }
}

impl Child {
    /// A child as its builder made it.
    pub fn new<K>(object: &K) -> Self
    where
        K: k8s_openapi::Resource + kube::Resource<DynamicType = ()> + Serialize,
    {
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        let meta = object.meta();
        Self {
            key: Key::new(K::KIND, name(&meta.namespace), name(&meta.name)),
            resource: ApiResource::erase::<K>(&()),
            body: serde_json::to_value(object).expect("a Kubernetes object is JSON"),
            needs: &[],
            waits: false,
            grows: None,
        }
    }

    /// It is not applied before the same CR's children of these kinds are there.
    #[must_use]
    pub fn needs(self, kinds: &'static [&'static str]) -> Self {
        Self { needs: kinds, ..self }
    }

    /// It is not applied while something that is no child is missing.
    #[must_use]
    pub fn waits_if(self, waits: bool) -> Self {
        Self { waits, ..self }
    }

    /// The quantity at this JSON pointer only grows.
    #[must_use]
    pub fn growing(self, pointer: &'static str) -> Self {
        Self { grows: Some(pointer), ..self }
    }

    /// The CR that controls it. None: it outlives its CR, and is known by its labels.
    pub fn owner(&self) -> Option<OwnerReference> {
        controller(&self.body)
    }

    /// A hash of all that we want: differs when we want something else than what we applied last.
    pub fn hash(&self) -> String {
        // Objects of serde_json are sorted by key, so equal objects have equal bytes.
        hex(&Sha256::digest(self.body.to_string()))[..16].to_owned()
    }

    /// Whose an object of its name is.
    pub fn relation(&self, found: &Value) -> Relation {
        let labelled = self.body["metadata"]["labels"].as_object().is_some_and(|labels| {
            let mut ours = labels.iter().filter(|(label, _)| names::IDENTITY.contains(&label.as_str()));
            ours.all(|(label, value)| found["metadata"]["labels"].get(label) == Some(value))
        });
        match (self.owner(), controller(found)) {
            (Some(owner), Some(found)) if owner.uid == found.uid => Relation::Ours,
            (Some(owner), Some(found)) if same_name(&owner, &found) => Relation::OfPredecessor,
            (None, _) if labelled => Relation::Ours,
            (Some(_), None) if labelled => Relation::Orphaned,
            _ => Relation::Foreign,
        }
    }
}

/// Whose an object is that has the name of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Ours: controlled by the CR, or, where it outlives CRs, with all our labels.
    Ours,
    /// With all our labels and without any controller: it is adopted, as a Deployment adopts ReplicaSets.
    Orphaned,
    /// Of a CR of the same kind and name that is gone: Kubernetes is about to delete it.
    OfPredecessor,
    /// Somebody else's.
    Foreign,
}

fn same_name(left: &OwnerReference, right: &OwnerReference) -> bool {
    let group = |version: &str| version.split('/').next().map(ToOwned::to_owned);
    left.kind == right.kind && left.name == right.name && group(&left.api_version) == group(&right.api_version)
}

/// The owner reference that makes somebody the controller of this object.
fn controller(object: &Value) -> Option<OwnerReference> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let controller = owners.iter().find(|owner| owner["controller"] == true)?;
    serde_json::from_value(controller.clone()).ok()
}

/// The child of this kind, as its type.
#[cfg(test)]
pub fn read<K: k8s_openapi::Resource + serde::de::DeserializeOwned>(children: &[Child]) -> Option<K> {
    let child = children.iter().find(|child| child.key.kind == K::KIND)?;
    Some(serde_json::from_value(child.body.clone()).expect("it was made from this type"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::names::Component;

    fn labels() -> Value {
        json!(Component::Server.labels("db"))
    }

    fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        json!([{"apiVersion": "mcpfleet.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": controller}])
    }

    fn wanted(owners: &Value) -> Child {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "db-mcp", "namespace": "team", "labels": labels(), "ownerReferences": owners},
        }))
        .expect("a Service");
        Child::new(&service)
    }

    #[rstest]
    #[case::ours(owner("McpServer", "db", "1", true), labels(), Relation::Ours)]
    #[case::ours_without_labels(owner("McpServer", "db", "1", true), json!({}), Relation::Ours)]
    #[case::of_a_predecessor(owner("McpServer", "db", "0", true), labels(), Relation::OfPredecessor)]
    #[case::of_another_server(owner("McpServer", "other", "0", true), labels(), Relation::Foreign)]
    #[case::of_an_app_of_the_same_name(owner("McpApp", "db", "0", true), labels(), Relation::Foreign)]
    #[case::orphaned(json!([]), labels(), Relation::Orphaned)]
    #[case::owned_but_not_controlled(owner("McpServer", "db", "0", false), labels(), Relation::Orphaned)]
    #[case::of_nobody_and_not_labelled(json!([]), json!({"app.kubernetes.io/managed-by": "mcpfleet"}), Relation::Foreign)]
    #[case::of_nobody_and_labelled_for_another(json!([]), json!(Component::Server.labels("other")), Relation::Foreign)]
    fn an_object_of_the_name_belongs_to_somebody(#[case] owners: Value, #[case] labels: Value, #[case] expected: Relation) {
        let found = json!({"metadata": {"labels": labels, "ownerReferences": owners}});
        assert_eq!(wanted(&owner("McpServer", "db", "1", true)).relation(&found), expected);
    }

    #[test]
    fn what_outlives_its_server_is_known_by_its_labels() {
        let claim = wanted(&json!([]));
        assert_eq!(claim.relation(&json!({"metadata": {"labels": labels()}})), Relation::Ours);
        assert_eq!(claim.relation(&json!({"metadata": {"labels": {"app": "somebody"}}})), Relation::Foreign);
    }

    #[test]
    fn a_controller_of_another_group_is_no_predecessor() {
        let mut theirs = owner("McpServer", "db", "0", true);
        theirs[0]["apiVersion"] = json!("example.com/v1");
        let found = json!({"metadata": {"labels": labels(), "ownerReferences": theirs}});
        assert_eq!(wanted(&owner("McpServer", "db", "1", true)).relation(&found), Relation::Foreign);
    }
}

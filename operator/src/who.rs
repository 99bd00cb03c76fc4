//! Which CR: its kind, namespace and name; and whose an object is. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::names::{self, Component};

/// A CR: its kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// Which kind.
    pub component: Component,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Who {
    /// An app.
    pub fn app(namespace: &str, name: &str) -> Self {
        Self { component: Component::App, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// This CR.
    pub fn new(component: Component, object: &impl ResourceExt) -> Self {
        Self { component, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

/// Whose child an object is, by its controller, or by its labels where it has none.
pub fn whose(child: &ObjectMeta) -> Option<Who> {
    let mut owners = child.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else { return whose_label(child) };
    let namespace = child.namespace.clone().unwrap_or_default();
    Some(Who { component: Component::of_kind(&owner.kind)?, namespace, name: owner.name.clone() })
}

/// Whose an object is by its labels alone: a pod's controller is a ReplicaSet.
pub fn whose_label(object: &ObjectMeta) -> Option<Who> {
    let labels = object.labels.as_ref()?;
    let component = Component::of_label(labels.get(names::LABEL_COMPONENT)?)?;
    let (namespace, name) = (object.namespace.clone().unwrap_or_default(), labels.get(names::LABEL_INSTANCE)?.clone());
    Some(Who { component, namespace, name })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn who(component: Component, name: &str) -> Who {
        Who { component, namespace: "team".into(), name: name.into() }
    }

    #[test]
    fn a_child_is_its_controllers_or_else_whose_its_labels_say() {
        let meta = |value| serde_json::from_value::<ObjectMeta>(value).expect("metadata");
        let owner = |kind: &str| json!([{"apiVersion": "mcpfleet.dev/v1alpha1", "kind": kind, "name": "db", "uid": "1", "controller": true}]);
        let labels = json!(Component::Server.labels("kept"));
        let child = |owners| meta(json!({"namespace": "team", "labels": labels, "ownerReferences": owners}));
        assert_eq!(whose(&child(owner("McpServer"))), Some(who(Component::Server, "db")));
        assert_eq!(whose(&child(owner("McpApp"))), Some(who(Component::App, "db")));
        assert_eq!(whose(&child(owner("Deployment"))), None, "a child of a child is not ours to look after");
        assert_eq!(whose(&child(json!([]))), Some(who(Component::Server, "kept")));
        assert_eq!(whose(&meta(json!({"namespace": "team"}))), None);
    }
}

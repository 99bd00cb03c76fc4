//! A Kubernetes object of any kind as it came: its metadata taken apart, the rest as text.
//!
//! Most of what the watches of children bring is read once, for its metadata, and kept as text. A tree of it would cost ten times its
//! size in memory, and most of the time that the operator spends.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Value, value::RawValue};

/// An object.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Without its managed fields: those are in `managers`.
    pub metadata: ObjectMeta,
    /// Who owns which of its fields.
    pub managers: Vec<Manager>,
    /// Everything else, field by field.
    rest: Vec<(String, Box<RawValue>)>,
}

/// An entry of the managed fields. <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manager {
    /// Its name.
    pub manager: Option<String>,
    /// `Apply` or `Update`.
    pub operation: Option<String>,
    /// By which subresource it wrote.
    pub subresource: Option<String>,
    /// The fields, as JSON.
    #[serde(rename = "fieldsV1")]
    pub fields: Option<Box<RawValue>>,
}

impl Document {
    /// An object that is to be written.
    pub fn of(object: &Value) -> Self {
        serde_json::from_str(&object.to_string()).expect("a child is a Kubernetes object")
    }
}

/// The metadata as they come. Field by field: to take them apart in two steps would make a tree of them first.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Timestamp>,
    deletion_grace_period_seconds: Option<i64>,
    deletion_timestamp: Option<Timestamp>,
    finalizers: Option<Vec<String>>,
    generate_name: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    managed_fields: Option<Vec<Manager>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    self_link: Option<String>,
    uid: Option<String>,
}

impl Metadata {
    fn taken_apart(self) -> (ObjectMeta, Vec<Manager>) {
        let metadata = ObjectMeta {
            annotations: self.annotations,
            creation_timestamp: self.creation_timestamp.map(Time),
            deletion_grace_period_seconds: self.deletion_grace_period_seconds,
            deletion_timestamp: self.deletion_timestamp.map(Time),
            finalizers: self.finalizers,
            generate_name: self.generate_name,
            generation: self.generation,
            labels: self.labels,
            managed_fields: None,
            name: self.name,
            namespace: self.namespace,
            owner_references: self.owner_references,
            resource_version: self.resource_version,
            self_link: self.self_link,
            uid: self.uid,
        };
        (metadata, self.managed_fields.unwrap_or_default())
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(name) = fields.next_key::<String>()? {
            if name == "metadata" {
                (document.metadata, document.managers) = fields.next_value::<Metadata>()?.taken_apart();
            } else {
                document.rest.push((name, fields.next_value()?));
            }
        }
        Ok(document)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for Document {
    /// Without its managed fields.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("metadata", &self.metadata)?;
        for (name, value) in &self.rest {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Resource for Document {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {
                "annotations": {"a": "b"}, "creationTimestamp": "2026-01-02T03:04:05Z", "deletionGracePeriodSeconds": 3,
                "deletionTimestamp": "2026-01-02T03:04:06Z", "finalizers": ["f"], "generateName": "g", "generation": 7,
                "labels": {"c": "d"}, "name": "db-mcp", "namespace": "team", "resourceVersion": "9", "selfLink": "/x", "uid": "u",
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "k", "uid": "o", "controller": true}],
            },
            "spec": {"ports": [{"port": 1}], "big": 12_345_678_901_234_567_890_u64},
            "status": {"loadBalancer": {}},
        })
    }

    #[test]
    fn nothing_of_an_object_is_lost_and_its_managers_stand_apart() {
        let mut sent = object();
        sent["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply", "apiVersion": "v1", "time": null, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]);
        let document: Document = serde_json::from_str(&sent.to_string()).expect("an object");
        assert_eq!(json!(document), object());
        let manager = &document.managers[0];
        assert_eq!(
            (manager.manager.as_deref(), manager.fields.as_ref().map(|fields| fields.get())),
            (Some("m"), Some(r#"{"f:spec":{}}"#))
        );
        assert_eq!(json!(Document::of(&object())), object());
        for nothing in ["[]", "3", r#"{"metadata": {"name": 1}}"#] {
            assert!(serde_json::from_str::<Document>(nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn it_is_read_where_kube_reads_it() {
        // In this order, as the API server writes it: of what comes before its type serde would make a tree, and that has no text.
        let event = format!(r#"{{"type":"ADDED","object":{}}}"#, object());
        let added = match serde_json::from_str(&event) {
            Ok(WatchEvent::<Document>::Added(added)) => Some(json!(added)),
            _ => None,
        };
        assert_eq!(added, Some(object()));
        let list = json!({"apiVersion": "v1", "kind": "ServiceList", "metadata": {}, "items": [object()]}).to_string();
        let list: ObjectList<Document> = serde_json::from_str(&list).expect("a list");
        assert_eq!(json!(list.items[0]), object());
    }
}

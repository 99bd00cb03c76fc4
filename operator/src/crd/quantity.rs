//! Quantities of resources, as Kubernetes takes them: `100m`, `512Mi`, and numbers.
//!
//! A quantity is a string or a number, and a schema with two types is none that Kubernetes knows. So the schema of one names no type,
//! and refuses what a quantity cannot be.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ResourceRequirements,
    apimachinery::pkg::{api::resource, util::intstr::IntOrString},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// A quantity: a string also where a person wrote a number.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    /// Never fails: what the schema let through is for the API server to judge, and must not hide a whole object from us.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            // As Kubernetes reads it.
            Value::Null => "0".to_owned(),
            other => other.to_string(),
        }))
    }
}

/// CPU, memory and other resources of a container.
/// See <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside for the container, for example `{cpu: 100m, memory: 64Mi}` (default: nothing).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "resource_list")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most (default: all that its node has).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "resource_list")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// In the shape of the core API.
    pub fn to_requirements(&self) -> ResourceRequirements {
        let quantities = |map: &BTreeMap<String, Quantity>| {
            let entries = map.iter().map(|(name, value)| (name.clone(), resource::Quantity(value.0.clone())));
            (!map.is_empty()).then(|| entries.collect())
        };
        ResourceRequirements { requests: quantities(&self.requests), limits: quantities(&self.limits), claims: None }
    }
}

/// The size of a volume in the shape of the core API: a string also where a person wrote a number.
pub fn of_size(value: &IntOrString) -> resource::Quantity {
    resource::Quantity(match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    })
}

/// What a node has of its own is checked here; devices and huge pages are named by others, and checked with the pods.
fn resource_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "cpu": quantity("CPU in cores, for example 0.5, 500m or 2.", "(m|k|M|G|T|P|E|[KMGTPE]i)?"),
            "memory": quantity("Memory in bytes, for example 512Mi or 1Gi.", "(k|M|G|T|P|E|[KMGTPE]i)?"),
            "ephemeral-storage": quantity("The node's own disk in bytes, for example 1Gi.", "(k|M|G|T|P|E|[KMGTPE]i)?"),
        },
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn quantity(description: &str, suffix: &str) -> Value {
    json!({
        "description": description,
        "x-kubernetes-preserve-unknown-fields": true,
        "pattern": format!(r"^\+?[0-9]+(\.[0-9]+)?({suffix}|[eE][0-9]+)$"),
        "minimum": 0,
        // Neither an object, nor a list, nor a truth.
        "maxProperties": 0,
        "minProperties": 1,
        "maxItems": 0,
        "minItems": 1,
        "not": {"enum": [true, false]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_quantity_that_kubernetes_reads_from_it() {
        let resources =
            json!({"limits": {"cpu": 0.5, "memory": 1_073_741_824, "nvidia.com/gpu": 1}, "requests": {"cpu": "100m"}});
        let resources: Resources = serde_json::from_value(resources).expect("resources");
        let limits = resources.to_requirements().limits.expect("limits");
        let limits: Vec<_> = limits.iter().map(|(name, quantity)| (name.as_str(), quantity.0.as_str())).collect();
        assert_eq!(limits, [("cpu", "0.5"), ("memory", "1073741824"), ("nvidia.com/gpu", "1")]);
    }

    #[test]
    fn what_is_no_quantity_hides_no_object() {
        let resources: Resources = serde_json::from_value(json!({"limits": {"cpu": true}})).expect("resources");
        assert_eq!(resources.limits["cpu"], Quantity("true".into()));
    }
}

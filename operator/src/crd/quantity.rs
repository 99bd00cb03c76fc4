//! Quantities of resources, as Kubernetes takes them: `100m`, `512Mi`, and numbers.
//!
//! A quantity is a string or a number, and a schema with two types is none that Kubernetes knows. So the schema of one names no type,
//! and refuses what a quantity cannot be.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource};
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::compare;

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

    /// What is asked for and is more than may be had, for people. No rule of the definitions can say it: to them a quantity that may
    /// be 0.5 has no type.
    pub fn beyond_limits(&self) -> Option<String> {
        let beyond = |(name, request): (&String, &Quantity)| {
            let limit = &self.limits.get(name)?.0;
            let fits = compare::at_least(limit, &request.0).unwrap_or(true);
            (!fits).then(|| {
                format!(
                    "spec.resources.requests.{name} ({}) must not be more than spec.resources.limits.{name} ({limit}): raise the limit, or lower the request",
                    request.0
                )
            })
        };
        self.requests.iter().find_map(beyond)
    }
}

/// The size of a volume in the shape of the core API.
pub fn of_size(size: &Quantity) -> resource::Quantity {
    resource::Quantity(size.0.clone())
}

/// What bytes are counted in.
const BYTES: &str = "(k|M|G|T|P|E|[KMGTPE]i)?";

/// The size of a volume: whole numbers, which no volume needs parts of, and texts.
pub fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

/// Kubernetes takes what is beyond its numbers for the last one of them, without a word. Said by a rule, and not by a pattern: an API server
/// repeats a pattern to whoever does not fit it.
pub fn is_a_size(field: &str, example: &str) -> Rule {
    let (size, pattern) = ("quantity(string(self))", pattern(BYTES));
    let bounds = format!("{size}.isGreaterThan(quantity('0')) && {size}.isLessThan(quantity('8Ei'))");
    Rule::new(format!("string(self).matches(r'{pattern}') && {bounds}")).message(
        format!(
            "{field} must be a size in bytes, for example {example}: a number with nothing, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei \
             behind it, more than 0, and less than 8Ei, which is as far as Kubernetes counts"
        )
        .as_str(),
    )
}

/// A volume cannot be made smaller.
pub fn only_grows(field: &str) -> Rule {
    // What is no quantity is told by another rule.
    Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0").message(
        format!(
            "{field} grows and never shrinks, for Kubernetes cannot make a volume smaller: keep the old size, or set a larger one"
        )
        .as_str(),
    )
}

/// What a node has of its own is checked here; devices and huge pages are named by others, and checked with the pods.
fn resource_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "cpu": quantity("CPU in cores, for example 0.5, 500m or 2.", "(n|u|m|k|M|G|T|P|E|[KMGTPE]i)?"),
            "memory": quantity("Memory in bytes, for example 512Mi or 1Gi.", BYTES),
            "ephemeral-storage": quantity("The node's own disk in bytes, for example 1Gi.", BYTES),
        },
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn quantity(description: &str, suffix: &str) -> Value {
    json!({
        "description": description,
        "x-kubernetes-preserve-unknown-fields": true,
        "pattern": pattern(suffix),
        "minimum": 0,
        // Neither an object, nor a list, nor a truth.
        "maxProperties": 0,
        "minProperties": 1,
        "maxItems": 0,
        "minItems": 1,
        "not": {"enum": [true, false]},
    })
}

fn pattern(suffix: &str) -> String {
    format!(r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)({suffix}|[eE][-+]?[0-9]+)$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_above_its_limit_is_told_with_both() {
        let told = |resources: Value| serde_json::from_value::<Resources>(resources).expect("resources").beyond_limits();
        let above = told(json!({"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"cpu": "1500m", "memory": "1Gi"}}));
        let above = above.expect("a sentence");
        assert!(
            above.starts_with("spec.resources.requests.cpu (2) must not be more than spec.resources.limits.cpu (1500m)"),
            "{above}"
        );
        assert_eq!(told(json!({"requests": {"cpu": 0.5}, "limits": {"cpu": "500m", "memory": "1Gi"}})), None);
        assert_eq!(told(json!({"requests": {"cpu": "2"}})), None, "nothing bounds it");
    }

    #[test]
    fn a_size_is_a_number_of_any_length() {
        let storage = json!({"size": 10_737_418_240_u64, "mountPath": "/data"});
        let storage: crate::crd::mcp_server::Storage = serde_json::from_value(storage).expect("storage");
        assert_eq!(of_size(&storage.size).0, "10737418240");
    }

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

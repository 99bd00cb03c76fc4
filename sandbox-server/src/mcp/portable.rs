//! Makes the schemas of the tools ones that clients and models of all makers take: what is generated from the types is right, but uses
//! forms of JSON Schema that some of them refuse or warn about. What the types are is mcp/types.rs.

use std::sync::Arc;

use rmcp::model::JsonObject;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Rewrites a schema in place.
pub fn rewrite(schema: &mut Arc<JsonObject>) {
    object(Arc::make_mut(schema));
}

/// Values for placeholders.
pub fn params(_: &mut SchemaGenerator) -> Schema {
    let value =
        json!({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"}, {"type": "object"}]});
    json_schema!({"anyOf": [{"type": "array", "items": value}, {"type": "object"}]})
}

/// An integer that may be too large for a number.
pub fn integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "integer"}, {"type": "string"}]})
}

/// Rows of values.
pub fn rows(_: &mut SchemaGenerator) -> Schema {
    let value = json!({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}, {"type": "object"}]});
    json_schema!({"type": "array", "items": {"type": "array", "items": value}})
}

fn object(schema: &mut JsonObject) {
    // The widths of Rust's integers are no formats of JSON Schema; clients warn about each.
    if schema.get("format").is_some_and(Value::is_string) {
        schema.remove("format");
    }
    if let Some(types) = schema.get("type").and_then(Value::as_array).cloned() {
        schema.remove("type");
        schema.insert("anyOf".into(), types.into_iter().map(|name| json!({"type": name})).collect());
    }
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (_, property) in properties.iter_mut().filter(|(name, _)| !required.iter().any(|wanted| wanted == name.as_str())) {
            if let Value::Object(property) = property {
                never_null(property);
            }
        }
    }
    for value in schema.values_mut() {
        inside(value);
    }
}

fn inside(value: &mut Value) {
    match value {
        Value::Object(schema) => object(schema),
        Value::Array(values) => values.iter_mut().for_each(inside),
        _ => {}
    }
}

/// What may be left out need not also be null; null is still taken for it.
fn never_null(property: &mut JsonObject) {
    if property.get("default").is_some_and(Value::is_null) {
        property.remove("default");
    }
    if let Some(Value::Array(types)) = property.get("type")
        && let [one] = types.iter().filter(|name| *name != "null").collect::<Vec<_>>()[..]
    {
        let one = one.clone();
        property.insert("type".into(), one);
    }
    if let Some(Value::Array(choices)) = property.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({"type": "null"}));
        if let [Value::Object(one)] = &mut choices[..] {
            let one = std::mem::take(one);
            property.remove("anyOf");
            property.extend(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(schema: &Value) -> Value {
        let mut schema = Arc::new(schema.as_object().unwrap().clone());
        rewrite(&mut schema);
        Value::Object((*schema).clone())
    }

    #[test]
    fn what_may_be_left_out_is_of_one_type() {
        let schema = json!({"properties": {"a": {"type": ["string", "null"], "default": null}, "b": {"anyOf": [{"$ref": "#/x"}, {"type": "null"}]}}});
        assert_eq!(rewritten(&schema), json!({"properties": {"a": {"type": "string"}, "b": {"$ref": "#/x"}}}));
    }

    #[test]
    fn what_must_be_there_but_may_be_null_has_a_branch_for_it() {
        let schema = json!({"properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]});
        let branches = json!({"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "required": ["a"]});
        assert_eq!(rewritten(&schema), branches);
    }

    #[test]
    fn a_column_that_is_called_format_stays() {
        let schema = json!({"properties": {"format": {"type": "integer", "format": "int64"}}, "required": ["format"]});
        assert_eq!(rewritten(&schema), json!({"properties": {"format": {"type": "integer"}}, "required": ["format"]}));
    }
}

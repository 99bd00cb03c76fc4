//! What the two APIs publish of the tools that they take: names, schemas, how many. A request that breaks a rule is refused as a
//! whole, as it is there, and the sentence names the tool. Pure.

use std::sync::LazyLock;

use fancy_regex::Regex;
use serde_json::Value;

/// Tools of one request, by OpenAI's reference.
const MOST_FUNCTIONS: usize = 128;
const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

static PROPERTY: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[a-zA-Z0-9_.-]{1,64}$").ok());

/// Letters, digits, `_` and `-`, so many at most.
pub fn is_name(name: &str, longest: usize) -> bool {
    (1..=longest).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// What the Messages API wants of the tools of a request.
///
/// # Errors
/// The sentence with which the API refuses.
pub fn tools(body: &Value) -> Result<(), String> {
    let mut names: Vec<&str> = Vec::new();
    for (index, tool) in list(&body["tools"]).iter().enumerate() {
        let name = tool["name"].as_str().ok_or_else(|| format!("tools.{index}.custom.name: Field required"))?;
        if !is_name(name, 128) {
            return Err(format!("tools.{index}.custom.name: {name:?} should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"));
        }
        if names.contains(&name) {
            return Err(format!("tools: Tool names must be unique, {name} is not."));
        }
        input_schema(&tool["input_schema"]).map_err(|why| format!("tools.{index}.custom.input_schema{why}"))?;
        names.push(name);
    }
    Ok(())
}

/// What the Messages API wants of a schema.
fn input_schema(schema: &Value) -> Result<(), String> {
    if !schema.is_object() {
        return Err(": Input should be a valid dictionary".into());
    }
    if schema["type"] != "object" {
        return Err(".type: Input should be 'object'".into());
    }
    if ["oneOf", "allOf", "anyOf"].iter().any(|word| schema.get(*word).is_some()) {
        return Err(": input_schema does not support oneOf, allOf, or anyOf at the top level".into());
    }
    if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
        return Err(format!(": JSON schema is invalid. It must match JSON Schema draft 2020-12 ({error})"));
    }
    places(schema, 0, &mut |place| {
        let properties = place["properties"].as_object();
        let odd = properties
            .into_iter()
            .flat_map(|map| map.keys())
            .find(|name| !PROPERTY.as_ref().is_some_and(|property| property.is_match(name).unwrap_or(false)));
        match odd {
            Some(name) => {
                Err(format!(".properties: Property keys should match pattern '^[a-zA-Z0-9_.-]{{1,64}}$', {name:?} does not"))
            }
            None => resolves(schema, place),
        }
    })
}

/// What Chat Completions want of the tools of a request.
///
/// # Errors
/// The sentence with which the API refuses.
pub fn functions(body: &Value) -> Result<(), String> {
    let tools = list(&body["tools"]);
    if body.get("tools").is_some() && tools.is_empty() {
        return Err(
            "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.".into()
        );
    }
    if tools.len() > MOST_FUNCTIONS {
        return Err(format!(
            "Invalid 'tools': array too long. Expected an array with maximum length {MOST_FUNCTIONS}, but got an array with length {} instead.",
            tools.len()
        ));
    }
    for (index, tool) in tools.iter().enumerate() {
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        if !is_name(name, 64) {
            return Err(format!("Invalid 'tools[{index}].function.name': string does not match pattern '^[a-zA-Z0-9_-]+$'."));
        }
        parameters(&tool["function"]["parameters"]).map_err(|why| format!("Invalid schema for function '{name}': {why}"))?;
    }
    Ok(())
}

fn parameters(schema: &Value) -> Result<(), String> {
    if schema["type"] != "object" {
        return Err(format!("schema must be a JSON Schema of 'type: \"object\"', got 'type: {}'.", schema["type"]));
    }
    if ["oneOf", "anyOf", "allOf", "enum", "not"].iter().any(|word| schema.get(*word).is_some()) {
        return Err("schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level.".into());
    }
    if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
        return Err(format!("{error}"));
    }
    places(schema, 0, &mut |place| {
        let kinds: Vec<&str> = match &place["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if let Some(odd) = kinds.iter().find(|kind| !TYPES.contains(kind)) {
            return Err(format!("'{odd}' is not valid under any of the given schemas."));
        }
        if kinds.contains(&"array") && !place["items"].is_object() {
            return Err("array schema missing items.".into());
        }
        if kinds.contains(&"object") && !place["properties"].is_object() {
            return Err("object schema missing properties.".into());
        }
        resolves(schema, place)
    })
}

/// A reference leads somewhere.
fn resolves(root: &Value, place: &Value) -> Result<(), String> {
    let Some(reference) = place["$ref"].as_str() else { return Ok(()) };
    let found = reference.strip_prefix('#').is_some_and(|pointer| root.pointer(pointer).is_some());
    if found { Ok(()) } else { Err(format!(": reference {reference} can not be resolved.")) }
}

/// Looks at every schema inside of a schema.
fn places(schema: &Value, depth: usize, look: &mut dyn FnMut(&Value) -> Result<(), String>) -> Result<(), String> {
    if depth > 100 {
        return Err(": too deeply nested".into());
    }
    let Some(map) = schema.as_object() else { return Ok(()) };
    look(schema)?;
    for (name, value) in map {
        match name.as_str() {
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                for (_, inner) in value.as_object().into_iter().flatten() {
                    places(inner, depth + 1, look)?;
                }
            }
            "items" | "additionalProperties" | "not" | "if" | "then" | "else" | "contains" | "propertyNames" => {
                places(value, depth + 1, look)?;
            }
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                for inner in list(value) {
                    places(inner, depth + 1, look)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

//! The keywords of JSON Schema that hold no schemas: what each may be, and what earlier drafts and people write instead. Pure.

use serde_json::{Map, Number, Value, json};

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// The value of a keyword where it can be used; `None` leaves it out. `beside` are the keywords that stand with it.
pub fn plain(name: &str, value: &Value, beside: &Map<String, Value>) -> Option<Value> {
    match name {
        "type" => types(value),
        "title" | "description" | "format" | "contentEncoding" | "contentMediaType" => value.is_string().then(|| value.clone()),
        "pattern" => value.as_str().filter(|pattern| is_common_pattern(pattern)).map(Value::from),
        "enum" => choices(value),
        "const" | "default" => Some(value.clone()),
        "examples" => Some(if value.is_array() { value.clone() } else { json!([value]) }),
        "required" => value.is_array().then(|| names(value)),
        "dependentRequired" => Some(value.as_object()?.iter().map(|(name, needs)| (name.clone(), names(needs))).collect()),
        "minimum" | "maximum" => {
            let exclusive = if name == "minimum" { "exclusiveMinimum" } else { "exclusiveMaximum" };
            // In draft 4 a flag beside the limit made it exclusive.
            (beside.get(exclusive) != Some(&Value::Bool(true))).then(|| number(value)).flatten()
        }
        "exclusiveMinimum" | "exclusiveMaximum" => {
            let limit = if name == "exclusiveMinimum" { "minimum" } else { "maximum" };
            if *value == Value::Bool(true) { number(beside.get(limit)?) } else { number(value) }
        }
        "multipleOf" | "divisibleBy" => number(value).filter(|number| number.as_f64().is_some_and(|number| number > 0.0)),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minContains"
        | "maxContains" => count(value),
        "uniqueItems" | "deprecated" | "readOnly" | "writeOnly" => value.is_boolean().then(|| value.clone()),
        // Identifiers, definitions (which have been used), comments, and what others have invented.
        _ => None,
    }
}

/// The name of a keyword today.
pub fn name_of(name: &str) -> &str {
    if name == "divisibleBy" { "multipleOf" } else { name }
}

/// One type or a list of them, without what is none; `None` allows every type.
pub fn types(value: &Value) -> Option<Value> {
    let mut known: Vec<&str> = Vec::new();
    let given = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    for name in given {
        // A list that allows anything allows anything.
        let name = a_type(name.as_str().unwrap_or_default())?;
        if !known.contains(&name) {
            known.push(name);
        }
    }
    match known.as_slice() {
        [] => None,
        [one] => Some(json!(one)),
        several => Some(json!(several)),
    }
}

/// Programming languages, and other descriptions of APIs, have words of their own for the seven.
fn a_type(name: &str) -> Option<&'static str> {
    let name = name.trim().to_ascii_lowercase();
    let translated = match name.as_str() {
        "int" | "int32" | "int64" | "long" | "uint" => "integer",
        "float" | "double" | "decimal" => "number",
        "bool" => "boolean",
        "str" | "text" | "date" | "datetime" | "date-time" | "file" | "uuid" => "string",
        "dict" | "map" | "struct" => "object",
        "list" | "tuple" | "set" => "array",
        "none" | "nil" => "null",
        other => other,
    };
    TYPES.into_iter().find(|known| *known == translated)
}

fn choices(value: &Value) -> Option<Value> {
    let mut choices: Vec<&Value> = Vec::new();
    for choice in value.as_array()? {
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    (!choices.is_empty()).then(|| json!(choices))
}

/// The names in a list, each once. A single name was a list of one in draft 3.
pub fn names(value: &Value) -> Value {
    let given = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    let mut names: Vec<&Value> = Vec::new();
    for name in given.iter().filter(|name| name.is_string()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    json!(names)
}

/// Adds a name to those that are required.
pub fn require(map: &mut Map<String, Value>, name: &str) {
    if let Value::Array(names) = map.entry("required").or_insert_with(|| json!([])) {
        let name = json!(name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

/// `nullable`, as descriptions of APIs say it.
pub fn or_null(map: &mut Map<String, Value>) {
    match map.get_mut("type") {
        Some(Value::Array(types)) if !types.contains(&json!("null")) => types.push(json!("null")),
        Some(one @ Value::String(_)) if one != "null" => *one = json!([one.take(), "null"]),
        _ => {}
    }
    if let Some(Value::Array(choices)) = map.get_mut("enum")
        && !choices.contains(&Value::Null)
    {
        choices.push(Value::Null);
    }
}

fn number(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => {
            let parsed: Number = text.trim().parse().ok()?;
            Some(Value::Number(parsed))
        }
        _ => None,
    }
}

fn count(value: &Value) -> Option<Value> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 0 to 2^53")]
    let whole = |number: f64| (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64);
    let value = number(value)?;
    value.as_u64().or_else(|| whole(value.as_f64()?)).map(Value::from)
}

/// Whether every dialect of regular expressions that a validator may use reads it. Those that only some read are left out: a pattern
/// that does not compile makes the whole schema invalid.
pub fn is_common_pattern(pattern: &str) -> bool {
    let exotic = [
        "\\p", "\\P", "\\u{", "\\z", "\\Z", "\\A", "\\K", "\\h", "\\R", "\\X", "(?<", "(?P", "(?>", "(?i", "(?m", "(?s", "(?x",
        "(?#", "[[:", "*+", "++", "?+",
    ];
    !exotic.iter().any(|word| pattern.contains(word)) && fancy_regex::Regex::new(pattern).is_ok()
}

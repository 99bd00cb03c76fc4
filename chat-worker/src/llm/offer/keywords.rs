//! The keywords of JSON Schema that hold no schemas: what each may be, and what earlier drafts and people write instead. Pure.

use serde_json::{Map, Number, Value, json};

use crate::tools::sanitize::clean;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// The value of a keyword where it can be used; `None` leaves it out. `beside` are the keywords that stand with it.
pub fn plain(name: &str, value: &Value, beside: &Map<String, Value>) -> Option<Value> {
    match name {
        "type" => types(value),
        // Words for the model, as those of the tool itself are.
        "title" | "description" => value.as_str().map(|words| clean(words).into()),
        "format" | "contentEncoding" | "contentMediaType" => value.is_string().then(|| value.clone()),
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
    let exotic = ["(?<", "(?P", "(?>", "(?i", "(?m", "(?s", "(?x", "(?#", "[[", "&&", "*+", "++", "?+", "}+"];
    let is_common = !exotic.iter().any(|word| pattern.contains(word)) && has_common_escapes(pattern);
    is_common && fancy_regex::Regex::new(pattern).is_ok()
}

/// Whether each letter behind a backslash is one that all of them know.
fn has_common_escapes(pattern: &str) -> bool {
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            continue;
        }
        let digits = match letters.next() {
            Some('x') => 2,
            Some('u') => 4,
            Some(letter) if !letter.is_ascii_alphabetic() || "dDwWsSbBfnrtv".contains(letter) => 0,
            _ => return false,
        };
        if !(0..digits).all(|_| letters.next().is_some_and(|digit| digit.is_ascii_hexdigit())) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hide_nothing_from_whoever_reads_them_and_values_stay_as_they_are() {
        let hidden = json!("the\u{E0069}\u{202E} id");
        let kept = |name: &str| plain(name, &hidden, &Map::new());
        assert_eq!(
            (kept("description"), kept("title"), kept("const")),
            (Some(json!("the id")), Some(json!("the id")), Some(hidden.clone()))
        );
    }

    #[test]
    fn a_pattern_is_one_in_every_dialect_or_none() {
        for pattern in [r"^[a-z]{2,}-\d+$", r"\x41\u00e9\.\\", r"^(a|b)(?=c)\1?$", r"[\w.]+@", "größe"] {
            assert!(is_common_pattern(pattern), "{pattern}");
        }
        for pattern in [
            r"\x{1F600}",
            r"\x4",
            r"\e",
            r"\a",
            r"\Gx",
            r"\Qa\E",
            r"\cA",
            r"\k<n>",
            r"\p{L}",
            r"\u{41}",
            r"a{1,2}+",
            r"[a-z&&[^b]]",
            r"[[a]b]",
            r"\Aa\z",
            r"(?i)a",
            "(",
            "a\\",
        ] {
            assert!(!is_common_pattern(pattern), "{pattern}");
        }
    }
}

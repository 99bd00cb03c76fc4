//! The root of a tool's schema: both APIs want a plain object there, without alternatives. What the alternatives offer is offered
//! by one object, and what their choice means is said in words. Pure.

use serde_json::{Map, Value, json};

/// One object that allows what the root allows (and more, where JSON Schema has no plain way to say it), and what to tell the model
/// about the choice.
pub fn plain_object(mut root: Map<String, Value>) -> (Map<String, Value>, Option<String>) {
    let mut told = Vec::new();
    absorb(&mut root, &mut told);
    root.insert("type".to_owned(), json!("object"));
    let properties = root.entry("properties").or_insert_with(|| json!({}));
    if !properties.is_object() {
        *properties = json!({});
    }
    if root.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        root.remove("required");
    }
    let words = (!told.is_empty()).then(|| told.join(" "));
    (root, words)
}

/// Takes what stands in alternatives into the object itself.
fn absorb(map: &mut Map<String, Value>, told: &mut Vec<String>) {
    for keyword in ["not", "enum", "const", "items", "prefixItems", "if"] {
        map.remove(keyword);
    }
    for mut part in take_list(map, "allOf") {
        absorb(&mut part, told);
        if is_object(&part) {
            let required = names(&part);
            merge(map, part, false);
            require(map, &required);
        }
    }
    // Which of the two holds cannot be told by one object; what either needs is not needed always.
    let conditional: Vec<_> = ["then", "else"].into_iter().filter_map(|keyword| object(map.remove(keyword)?)).collect();
    let dependent = map.remove("dependentSchemas").and_then(object).unwrap_or_default();
    for mut part in conditional.into_iter().chain(dependent.into_iter().filter_map(|(_, part)| object(part))) {
        absorb(&mut part, &mut Vec::new());
        merge(map, part, true);
    }
    for keyword in ["anyOf", "oneOf"] {
        let branches: Vec<Map<String, Value>> = take_list(map, keyword)
            .into_iter()
            .map(|mut branch| {
                absorb(&mut branch, told);
                branch
            })
            .filter(is_object)
            .collect();
        choose(map, branches, keyword == "oneOf", told);
    }
}

fn choose(map: &mut Map<String, Value>, branches: Vec<Map<String, Value>>, one_only: bool, told: &mut Vec<String>) {
    let needs: Vec<Vec<String>> = branches.iter().map(names).collect();
    let Some(first) = needs.first() else { return };
    let always: Vec<String> = first.iter().filter(|name| needs.iter().all(|need| need.contains(name))).cloned().collect();
    if needs.iter().any(|need| need != first) {
        let sets: Vec<String> =
            needs.iter().map(|need| if need.is_empty() { "none".to_owned() } else { need.join(", ") }).collect();
        let how_many = if one_only { "exactly one" } else { "at least one" };
        told.push(format!("Give {how_many} of these sets of arguments: {}.", sets.join(" | ")));
    }
    let closed = branches.iter().all(|branch| branch.get("additionalProperties") == Some(&Value::Bool(false)));
    for branch in branches {
        merge(map, branch, true);
    }
    require(map, &always);
    if closed {
        map.entry("additionalProperties").or_insert(Value::Bool(false));
    }
}

/// Takes the properties of a part, and what it says besides where the whole does not say it. `either`: the part is one of several,
/// so that its properties are alternatives to those of the same name.
fn merge(map: &mut Map<String, Value>, mut part: Map<String, Value>, either: bool) {
    part.remove("required");
    let properties = part.remove("properties").and_then(object).unwrap_or_default();
    let known = map.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(known) = known {
        for (name, schema) in properties {
            let joined = match known.remove(&name) {
                None => schema,
                Some(before) if before == schema => schema,
                Some(before) if either => one_of_two(before, schema),
                Some(before) => both(before, schema),
            };
            known.insert(name, joined);
        }
    }
    if !either {
        for (keyword, value) in part {
            map.entry(keyword).or_insert(value);
        }
    }
}

/// A place that may be as one or as the other. Constants become a choice.
fn one_of_two(one: Value, other: Value) -> Value {
    if let (Some(mut values), Some(more)) = (constants(&one), constants(&other)) {
        for value in more {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        let mut joined = object(one).unwrap_or_default();
        joined.remove("const");
        joined.insert("enum".to_owned(), Value::Array(values));
        if joined.get("type") != other.get("type") {
            joined.remove("type");
        }
        return Value::Object(joined);
    }
    // Some say nothing of the place, which allows all that the others do.
    if one.as_object().is_some_and(Map::is_empty) {
        return other;
    }
    if other.as_object().is_some_and(Map::is_empty) {
        return one;
    }
    match one {
        Value::Object(mut alternatives) if alternatives.len() == 1 && alternatives.get("anyOf").is_some_and(Value::is_array) => {
            if let Some(Value::Array(list)) = alternatives.get_mut("anyOf")
                && !list.contains(&other)
            {
                list.push(other);
            }
            Value::Object(alternatives)
        }
        one => json!({"anyOf": [one, other]}),
    }
}

fn constants(schema: &Value) -> Option<Vec<Value>> {
    schema.get("const").map(|value| vec![value.clone()]).or_else(|| schema.get("enum")?.as_array().cloned())
}

/// A place of which two parts speak: what the first does not say, the second may.
fn both(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Object(mut first), Value::Object(second)) => {
            for (keyword, value) in second {
                first.entry(keyword).or_insert(value);
            }
            Value::Object(first)
        }
        (first, _) => first,
    }
}

fn require(map: &mut Map<String, Value>, names: &[String]) {
    for name in names {
        super::keywords::require(map, name);
    }
}

fn names(map: &Map<String, Value>) -> Vec<String> {
    map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn take_list(map: &mut Map<String, Value>, keyword: &str) -> Vec<Map<String, Value>> {
    match map.remove(keyword) {
        Some(Value::Array(list)) => list.into_iter().filter_map(object).collect(),
        _ => Vec::new(),
    }
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// Arguments are an object: what asks for something else can never hold.
fn is_object(map: &Map<String, Value>) -> bool {
    match map.get("type") {
        None => true,
        Some(Value::String(one)) => one == "object",
        Some(Value::Array(several)) => several.iter().any(|one| one == "object"),
        Some(_) => false,
    }
}

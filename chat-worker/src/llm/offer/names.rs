//! The names of arguments: Anthropic's API refuses a whole request because of one that is not in its alphabet, so such a name is
//! mapped on the way to the model, and mapped back in what the model calls. Pure.

use serde_json::{Map, Value, json};

use crate::{digest::digest, tools::spec::Renamed};

const MAX_NAME: usize = 64;
/// Of the hash that keeps mapped names apart, in letters.
const MARK: usize = 6;

/// The name as the API takes it. A name that had to be changed ends in a hash of what it was: the mapping depends on the name alone,
/// so that one name is the same wherever it stands, and no two become one.
pub fn mapped(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(fits) {
        return name.to_owned();
    }
    let readable: String = name.chars().map(|c| if fits(c) { c } else { '_' }).take(MAX_NAME - MARK - 1).collect();
    format!("{}_{}", readable.trim_matches('_'), &digest(&[name])[..MARK])
}

/// Maps the names of a schema's properties wherever they stand, and remembers those that changed.
pub fn map_schema(schema: &mut Map<String, Value>, renamed: &mut Renamed) {
    for (keyword, value) in schema.iter_mut() {
        match keyword.as_str() {
            "properties" | "dependentSchemas" => *value = map_keys(value.take(), renamed, keyword == "properties"),
            "required" => map_list(value),
            "dependentRequired" => {
                *value = map_keys(value.take(), renamed, false);
                value.as_object_mut().into_iter().flatten().for_each(|(_, names)| map_list(names));
            }
            "patternProperties" => each(value, renamed),
            "items"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "unevaluatedItems"
            | "not"
            | "if"
            | "then"
            | "else"
            | "contains"
            | "contentSchema" => map_value(value, renamed),
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                value.as_array_mut().into_iter().flatten().for_each(|one| map_value(one, renamed));
            }
            _ => {}
        }
    }
}

fn map_value(value: &mut Value, renamed: &mut Renamed) {
    if let Value::Object(map) = value {
        map_schema(map, renamed);
    }
}

fn each(value: &mut Value, renamed: &mut Renamed) {
    value.as_object_mut().into_iter().flatten().for_each(|(_, schema)| map_value(schema, renamed));
}

/// `titled`: a property whose name changed says what it was, where it says nothing else of the kind.
fn map_keys(value: Value, renamed: &mut Renamed, titled: bool) -> Value {
    let Value::Object(map) = value else { return value };
    let keys = map.into_iter().map(|(name, mut schema)| {
        map_value(&mut schema, renamed);
        let new = mapped(&name);
        if new != name {
            if let Value::Object(schema) = &mut schema
                && titled
            {
                schema.entry("title").or_insert_with(|| json!(name));
            }
            renamed.insert(new.clone(), name);
        }
        (new, schema)
    });
    Value::Object(keys.collect())
}

fn map_list(value: &mut Value) {
    for name in value.as_array_mut().into_iter().flatten() {
        if let Some(new) = name.as_str().map(mapped) {
            *name = json!(new);
        }
    }
}

/// Arguments as the server knows them, from those that the model wrote.
pub fn restore(arguments: Value, renamed: &Renamed) -> Value {
    rename(arguments, &|name| renamed.get(name).cloned())
}

/// Arguments as the model wrote them, from those that the server knows.
pub fn as_written(arguments: Value, renamed: &Renamed) -> Value {
    rename(arguments, &|name| Some(mapped(name)).filter(|new| renamed.contains_key(new)))
}

fn rename(value: Value, new: &dyn Fn(&str) -> Option<String>) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|one| rename(one, new)).collect(),
        Value::Object(map) => map.into_iter().map(|(name, value)| (new(&name).unwrap_or(name), rename(value, new))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stay_readable_and_no_two_become_one() {
        assert_eq!(mapped("city"), "city");
        assert!(mapped("filter[name]").starts_with("filter_name_"), "{}", mapped("filter[name]"));
        let odd = ["filter[name]", "filter(name)", "$top", "top", "größe", "a b", "", "DateCreated>", "東京"];
        let new: std::collections::BTreeSet<String> = odd.iter().map(|name| mapped(name)).collect();
        assert_eq!(new.len(), odd.len());
    }

    #[test]
    fn what_is_mapped_comes_back_also_from_deep_inside() {
        let mut schema = json!({"properties": {"$top": {"type": "integer"}, "filter[name]": {"properties": {"a b": {}}},
            "list": {"items": {"properties": {"größe": {}}}}}, "required": ["$top", "gone!"], "anyOf": [{"required": ["$top"]}]});
        let mut renamed = Renamed::new();
        map_schema(schema.as_object_mut().expect("an object"), &mut renamed);
        let top = mapped("$top");
        assert_eq!(schema["properties"][&top], json!({"type": "integer", "title": "$top"}));
        assert_eq!((&schema["required"][0], &schema["anyOf"][0]["required"][0]), (&json!(top), &json!(top)));
        let sent = json!({"$top": 1, "filter[name]": {"a b": [1]}, "list": [{"größe": 2}], "free": {"$x": 1}});
        let written = as_written(sent.clone(), &renamed);
        assert!(written["list"][0].get(mapped("größe")).is_some() && written["free"] == json!({"$x": 1}));
        assert_eq!(restore(written, &renamed), sent);
    }

    proptest! {
        #[test]
        fn every_name_fits_the_api(name in "\\PC{0,90}") {
            let new = mapped(&name);
            prop_assert!((1..=MAX_NAME).contains(&new.len()));
            prop_assert!(new.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)));
        }
    }
}

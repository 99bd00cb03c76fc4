//! Makes a schema, whatever its draft and its faults, one that JSON Schema 2020-12 allows and that stands alone: references are
//! replaced by what they refer to, keywords of earlier drafts are translated, and what means nothing is left out. Pure. What an
//! API wants of the root is `root`'s business, of the names of properties `names`'.

use serde_json::{Map, Value, json};

use super::{keywords, refs};

/// Schemas nested deeper than this are cut off: no call is written so deep.
const MAX_DEPTH: usize = 24;
/// Places of one schema, once its references are replaced. Beyond it, a place allows everything.
const MAX_PLACES: usize = 5_000;

/// Keywords whose values are looked up by the names of properties.
const BY_NAME: [&str; 4] = ["properties", "patternProperties", "dependentRequired", "dependentSchemas"];

/// Everything is allowed here.
fn anything() -> Value {
    json!({})
}

/// The schema without references, by the rules of 2020-12.
pub fn stand_alone(root: &Map<String, Value>) -> Map<String, Value> {
    let whole = Value::Object(root.clone());
    let mut mender = Mender { root: &whole, open: Vec::new(), places: 0 };
    match mender.schema(&whole, 0) {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

struct Mender<'a> {
    root: &'a Value,
    /// The references that are being replaced, outermost first.
    open: Vec<String>,
    places: usize,
}

impl Mender<'_> {
    /// Whatever stands where a schema should, as an object.
    fn schema(&mut self, value: &Value, depth: usize) -> Value {
        self.places += 1;
        match value {
            Value::Bool(false) => json!({"not": {}}),
            Value::Object(map) if depth <= MAX_DEPTH && self.places <= MAX_PLACES => self.object(map, depth),
            // draft 3 and people write a type's name where its schema should be
            Value::String(_) => keywords::types(value).map_or_else(anything, |types| json!({"type": types})),
            _ => anything(),
        }
    }

    fn object(&mut self, map: &Map<String, Value>, depth: usize) -> Value {
        let reference = ["$ref", "$dynamicRef", "$recursiveRef"].iter().find_map(|name| map.get(*name)?.as_str());
        let mut out = self.keywords(map, depth);
        if let Some(reference) = reference {
            join(&mut out, self.referred(reference, depth));
        }
        complete(&mut out);
        Value::Object(out)
    }

    /// What a reference stands for. Inside of itself only its kind is told: a tree has no end.
    fn referred(&mut self, reference: &str, depth: usize) -> Map<String, Value> {
        let root = self.root;
        let Some(target) = refs::resolve(root, reference) else { return Map::new() };
        if self.open.iter().any(|open| open == reference) {
            let kind = |name: &&str| Some(((*name).to_owned(), target.get(*name)?.clone()));
            let outline: Map<String, Value> = ["type", "title", "description"].iter().filter_map(kind).collect();
            return self.keywords(&outline, depth);
        }
        self.open.push(reference.to_owned());
        let found = self.schema(target, depth + 1);
        self.open.pop();
        match found {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn keywords(&mut self, map: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        let mut out = Map::new();
        for (name, value) in map {
            let kept = match name.as_str() {
                "items" => Some(self.items(value, map, &mut out, depth)),
                "additionalProperties" | "unevaluatedProperties" | "unevaluatedItems" if value.is_boolean() => {
                    Some(value.clone())
                }
                "additionalProperties"
                | "unevaluatedProperties"
                | "unevaluatedItems"
                | "not"
                | "if"
                | "then"
                | "else"
                | "contains"
                | "propertyNames"
                | "contentSchema" => (value.is_object() || value.is_boolean()).then(|| self.schema(value, depth + 1)),
                "properties" => Some(self.properties(value, &mut out, depth)),
                "patternProperties" | "dependentSchemas" => self.named(value, name == "patternProperties", depth),
                "dependencies" => {
                    self.dependencies(value, &mut out, depth);
                    None
                }
                "anyOf" | "oneOf" | "allOf" | "prefixItems" => self.several(value, depth),
                "extends" if !map.contains_key("allOf") => {
                    out.extend(self.several(value, depth).map(|list| ("allOf".to_owned(), list)));
                    None
                }
                // draft 3: one of the types may be a schema
                "type" if value.as_array().is_some_and(|types| types.iter().any(Value::is_object)) => {
                    out.extend(self.several(value, depth).map(|list| ("anyOf".to_owned(), list)));
                    None
                }
                _ => keywords::plain(name, value, map),
            };
            if let Some(kept) = kept {
                match (name.as_str(), out.get_mut(name)) {
                    // Properties that are required by a word of their own have been noted already.
                    ("required", Some(Value::Array(noted))) => {
                        let more: Vec<Value> =
                            kept.as_array().into_iter().flatten().filter(|n| !noted.contains(n)).cloned().collect();
                        noted.extend(more);
                    }
                    _ => {
                        out.insert(keywords::name_of(name).to_owned(), kept);
                    }
                }
            }
        }
        if map.get("nullable") == Some(&Value::Bool(true)) {
            keywords::or_null(&mut out);
        }
        out
    }

    /// A list of schemas was a tuple before 2020-12.
    fn items(&mut self, value: &Value, map: &Map<String, Value>, out: &mut Map<String, Value>, depth: usize) -> Value {
        let Value::Array(tuple) = value else {
            return if value.is_object() { self.schema(value, depth + 1) } else { anything() };
        };
        let places: Vec<Value> = tuple.iter().map(|place| self.schema(place, depth + 1)).collect();
        if places.is_empty() {
            return anything();
        }
        if map.get("additionalItems") == Some(&Value::Bool(false)) && !map.contains_key("maxItems") {
            out.insert("maxItems".to_owned(), json!(places.len()));
        }
        out.insert("prefixItems".to_owned(), Value::Array(places));
        match map.get("additionalItems") {
            Some(more @ Value::Object(_)) => self.schema(more, depth + 1),
            _ => anything(),
        }
    }

    fn properties(&mut self, value: &Value, out: &mut Map<String, Value>, depth: usize) -> Value {
        let mut properties = Map::new();
        for (name, value) in value.as_object().into_iter().flatten() {
            // What must not be given is not offered.
            if *value == Value::Bool(false) {
                continue;
            }
            if value.get("required") == Some(&Value::Bool(true)) {
                keywords::require(out, name);
            }
            properties.insert(name.clone(), self.schema(value, depth + 1));
        }
        Value::Object(properties)
    }

    fn named(&mut self, value: &Value, by_pattern: bool, depth: usize) -> Option<Value> {
        let fits = |name: &str| !by_pattern || keywords::is_common_pattern(name);
        let named = value.as_object()?.iter().filter(|(name, _)| fits(name));
        Some(named.map(|(name, value)| (name.clone(), self.schema(value, depth + 1))).collect())
    }

    /// Before 2019-09, one keyword was what is two now.
    fn dependencies(&mut self, value: &Value, out: &mut Map<String, Value>, depth: usize) {
        for (name, needs) in value.as_object().into_iter().flatten() {
            let (keyword, needs) = match needs {
                Value::Array(_) | Value::String(_) => ("dependentRequired", keywords::names(needs)),
                _ => ("dependentSchemas", self.schema(needs, depth + 1)),
            };
            if let Value::Object(all) = out.entry(keyword).or_insert_with(|| json!({})) {
                all.insert(name.clone(), needs);
            }
        }
    }

    fn several(&mut self, value: &Value, depth: usize) -> Option<Value> {
        let list = match value {
            Value::Array(list) => list.as_slice(),
            Value::Object(_) => std::slice::from_ref(value),
            _ => return None,
        };
        let list: Vec<Value> = list.iter().map(|one| self.schema(one, depth + 1)).collect();
        (!list.is_empty()).then_some(Value::Array(list))
    }
}

/// What stands beside a reference holds together with what that refers to; where both say something of one thing, the nearer does.
fn join(own: &mut Map<String, Value>, referred: Map<String, Value>) {
    for (keyword, value) in referred {
        let Some(known) = own.get_mut(&keyword) else {
            own.insert(keyword, value);
            continue;
        };
        match (known, value) {
            (Value::Object(known), Value::Object(more)) if BY_NAME.contains(&keyword.as_str()) => {
                for (name, value) in more {
                    known.entry(name).or_insert(value);
                }
            }
            (Value::Array(known), Value::Array(more)) if keyword == "required" => {
                let more: Vec<Value> = more.into_iter().filter(|name| !known.contains(name)).collect();
                known.extend(more);
            }
            _ => {}
        }
    }
}

/// Some APIs refuse an array that does not say of what, and an object that does not say with what.
fn complete(map: &mut Map<String, Value>) {
    let is = |map: &Map<String, Value>, kind: &str| match map.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    };
    if is(map, "array") {
        map.entry("items").or_insert_with(anything);
    }
    if is(map, "object") {
        map.entry("properties").or_insert_with(anything);
    }
}

//! Finds what a reference refers to, inside of the same schema. Nothing is ever fetched. Pure.

use serde_json::Value;

/// The place that a reference names; `None` when it is not in this schema.
pub fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    let start =
        if document.is_empty() || is_named(root, document) { root } else { definition(root, |it| is_named(it, document))? };
    if fragment.is_empty() {
        return Some(start);
    }
    let fragment = percent_encoding::percent_decode_str(fragment).decode_utf8().ok()?;
    if fragment.starts_with('/') {
        return start.pointer(&fragment);
    }
    definition(root, |it| {
        let anchor = |name: &str| it.get(name).and_then(Value::as_str);
        anchor("$anchor") == Some(&fragment)
            || anchor("$dynamicAnchor") == Some(&fragment)
            || anchor("$id").or_else(|| anchor("id")).and_then(|id| id.strip_prefix('#')) == Some(&fragment)
    })
}

fn is_named(schema: &Value, document: &str) -> bool {
    let id = schema.get("$id").or_else(|| schema.get("id")).and_then(Value::as_str);
    id.is_some_and(|id| id.trim_end_matches('#') == document)
}

fn definition(root: &Value, wanted: impl Fn(&Value) -> bool) -> Option<&Value> {
    let places = ["$defs", "definitions"].into_iter().filter_map(|name| root.get(name)?.as_object());
    places.flat_map(serde_json::Map::values).find(|it| wanted(it))
}

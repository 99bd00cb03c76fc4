//! Whether a tool that a server lists can be used by anybody.

use serde_json::Value;

/// What makes a tool unusable: it has no name to call it by, or no schema of what it takes. None for one that can be used.
pub fn fault(tool: &Value) -> Option<String> {
    let Some(fields) = tool.as_object() else { return Some(format!("it is {}, not an object", kind(tool))) };
    match fields.get("name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        Some(Value::String(_)) => return Some("its name is empty".into()),
        Some(other) => return Some(format!("its name is {}, not a string", kind(other))),
        None => return Some("it has no name".into()),
    }
    match fields.get("inputSchema") {
        Some(Value::Object(_)) => None,
        Some(other) => Some(format!("its inputSchema is {}, not an object", kind(other))),
        None => Some("it has no inputSchema".into()),
    }
}

/// How a tool is called in a message: by its name, else by its place in the list.
pub fn known_as(tool: &Value, place: usize) -> String {
    match tool.get("name").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => name.chars().take(128).collect(),
        _ => format!("tools[{place}]"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tool_needs_a_name_and_a_schema() {
        let fault = |tool: Value| fault(&tool).unwrap_or_default();
        assert_eq!(fault(json!({"name": "a", "inputSchema": {}, "description": null, "execution": 5})), "");
        for (schema, told) in
            [(json!(null), "null"), (json!("x"), "a string"), (json!([]), "an array"), (json!(true), "a truth value")]
        {
            assert_eq!(fault(json!({"name": "a", "inputSchema": schema})), format!("its inputSchema is {told}, not an object"));
        }
        assert_eq!(fault(json!({"name": "a"})), "it has no inputSchema");
        assert_eq!(fault(json!({"inputSchema": {}})), "it has no name");
        assert_eq!(fault(json!({"name": "", "inputSchema": {}})), "its name is empty");
        assert_eq!(fault(json!({"name": 5, "inputSchema": {}})), "its name is a number, not a string");
        assert_eq!(fault(json!("bare")), "it is a string, not an object");
        assert_eq!((known_as(&json!({"name": 5}), 3), known_as(&json!({"name": "a"}), 3)), ("tools[3]".into(), "a".into()));
    }
}

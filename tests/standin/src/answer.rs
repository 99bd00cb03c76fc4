//! From a step of the script to the message that the model answers. Pure.

use serde_json::{Value, json};

use crate::{
    request::{Conversation, SIGNATURE, ToolOutcome},
    script::{Step, ToolUse},
};

/// The name by which the stand-in says, in every answer, that it is no model.
pub const MODEL: &str = "stand-in";

/// Builds the message that a step answers with.
pub fn message(step: &Step, conversation: &Conversation, id: &str) -> Value {
    let failed = conversation.results.iter().find(|result| result.is_error);
    let mut content = Vec::new();
    let mut reason = step.stop.as_deref();
    if let (Some(failed), Some(sentence)) = (failed, &step.on_error) {
        content.push(text(&fill(sentence, std::slice::from_ref(failed))));
    } else {
        if let Some(thinking) = &step.thinking {
            content.push(json!({"type": "thinking", "thinking": thinking, "signature": SIGNATURE}));
        }
        if !step.text.is_empty() {
            content.push(text(&fill(&step.text, &conversation.results)));
        }
        let (calls, missing) = calls(&step.tools, conversation, id);
        if calls.is_empty() && !missing.is_empty() {
            content.push(text(&format!(
                "I have no tool {} at the moment: its server is down, disabled or not configured.",
                missing.join(", ")
            )));
        } else if !calls.is_empty() {
            reason = reason.or(Some("tool_use"));
        }
        content.extend(calls);
    }
    let output_tokens = content.iter().map(|block| block.to_string().len()).sum::<usize>() / 4 + 1;
    json!({
        "id": id, "type": "message", "role": "assistant", "model": MODEL, "content": content,
        "stop_reason": reason.unwrap_or("end_turn"), "stop_sequence": null,
        "usage": {"input_tokens": conversation.input_tokens, "output_tokens": output_tokens,
                  "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    })
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// The calls of tools that are on offer, and the names of those that are not.
fn calls(wanted: &[ToolUse], conversation: &Conversation, id: &str) -> (Vec<Value>, Vec<String>) {
    let (mut calls, mut missing) = (Vec::new(), Vec::new());
    for (index, wanted) in wanted.iter().enumerate() {
        match offered(&wanted.tool, conversation) {
            Some(name) => calls.push(json!({
                "type": "tool_use", "id": format!("toolu_{id}_{index}"), "name": name, "input": wanted.input
            })),
            None if !missing.contains(&wanted.tool) => missing.push(wanted.tool.clone()),
            None => {}
        }
    }
    (calls, missing)
}

/// Clients put the server's name before the tool's: `sqlite__read_query` offers `read_query`.
fn offered<'a>(tool: &str, conversation: &'a Conversation) -> Option<&'a str> {
    if conversation.no_tools {
        return None;
    }
    let suffix = format!("__{tool}");
    conversation.tools.iter().map(String::as_str).find(|name| *name == tool || name.ends_with(&suffix))
}

/// Replaces every `{{name}}` by what the results hold.
fn fill(sentence: &str, results: &[ToolOutcome]) -> String {
    let mut out = String::new();
    let mut rest = sentence;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        out.push_str(before);
        out.push_str(&value_of(name.trim(), results));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn value_of(name: &str, results: &[ToolOutcome]) -> String {
    if name == "last" {
        return results.last().map(|result| result.text.clone()).unwrap_or_default();
    }
    let found = results.iter().find_map(|result| match serde_json::from_str(&result.text) {
        Ok(value) => find(&value, name),
        Err(_) => find_in_table(&result.text, name),
    });
    found.unwrap_or_else(|| {
        let texts: Vec<&str> = results.iter().map(|result| result.text.as_str()).collect();
        format!("(no {name} in the tools' results: {})", texts.join(" "))
    })
}

/// The first scalar under this key, wherever it stands; also in a table of `columns` and `rows`.
fn find(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(map) => {
            if let Some(scalar) = map.get(name).and_then(scalar) {
                return Some(scalar);
            }
            if let (Some(Value::Array(columns)), Some(Value::Array(rows))) = (map.get("columns"), map.get("rows")) {
                let column = columns.iter().position(|column| column == name || column["name"] == name);
                let cell = column.zip(rows.first()).and_then(|(column, row)| scalar(row.get(column)?));
                if cell.is_some() {
                    return cell;
                }
            }
            map.values().find_map(|inner| find(inner, name))
        }
        Value::Array(items) => items.iter().find_map(|inner| find(inner, name)),
        _ => None,
    }
}

/// A table as text: a line of names, then the rows, with bars between the columns. Lines before it say how much there is of it.
fn find_in_table(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let column = lines.find_map(|line| line.split('|').position(|header| header.trim() == name))?;
    let row = lines.find(|line| line.chars().any(char::is_alphanumeric))?;
    row.split('|').nth(column).map(|cell| cell.trim().to_owned())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(texts: &[&str]) -> Vec<ToolOutcome> {
        texts.iter().map(|text| ToolOutcome { text: (*text).to_owned(), is_error: false }).collect()
    }

    #[test]
    fn values_are_found_in_rows_in_objects_and_in_tables() {
        let sentence = "{{n}} people in {{city}}";
        for text in [
            r#"[{"n": 4, "city": "Oslo"}]"#,
            r#"{"rows": [{"n": 4, "city": "Oslo"}], "row_count": 1}"#,
            r#"{"columns": ["n", "city"], "rows": [[4, "Oslo"]]}"#,
            "n | city\n--- | ---\n4 | Oslo\n(1 row)",
            "1 row\nn | city\n4 | Oslo",
        ] {
            assert_eq!(fill(sentence, &results(&[text])), "4 people in Oslo", "{text}");
        }
        assert_eq!(fill(sentence, &results(&[r#"{"n": 4}"#, r#"{"city": "Oslo"}"#])), "4 people in Oslo");
    }

    #[test]
    fn a_value_that_is_not_there_is_said_to_be_missing() {
        assert_eq!(fill("{{n}}", &results(&["no rows"])), "(no n in the tools' results: no rows)");
    }
}

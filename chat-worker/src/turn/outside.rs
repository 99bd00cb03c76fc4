//! Messages that a caller sends: what a model's API would refuse is put right where there is one right form, and else refused here,
//! with a sentence. Pure. Ids and names that an API does not take are no concern of a caller's: `llm::history` maps them.

use serde_json::{Value, json};

use crate::{
    llm::wire::{Message, Role, text_block},
    tools::answer::picture,
};

/// Why a list of messages from outside is no conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    #[error("message {0}: a conversation begins with the user, and the roles alternate")]
    Roles(usize),
    #[error("message {0}: content must not be empty")]
    Empty(usize),
    #[error("message {0}: every tool_use needs exactly one tool_result in the next message")]
    Results(usize),
    #[error("message {index}: a {role} message cannot hold a block of type {kind}, or not in this form")]
    Block { index: usize, role: &'static str, kind: String },
    #[error("message {index}: {what}")]
    Call { index: usize, what: &'static str },
}

/// Puts the blocks of a message right.
pub fn mend(index: usize, message: &mut Message) -> Result<(), TranscriptError> {
    for block in &mut message.content {
        if let Some(map) = block.as_object_mut() {
            // The marks of a cache are ours to set: there may be four.
            map.remove("cache_control");
        }
    }
    match message.role {
        Role::User => user(index, message),
        Role::Assistant => assistant(index, message),
    }
}

fn user(index: usize, message: &mut Message) -> Result<(), TranscriptError> {
    for block in &mut message.content {
        let fits = match block["type"].as_str() {
            Some("text") => is_said(block),
            Some("image") => mend_image(block),
            Some("tool_result") => block["tool_use_id"].as_str().is_some_and(|id| !id.is_empty()) && mend_result(block),
            _ => false,
        };
        if !fits {
            return Err(unfit(index, "user", block));
        }
    }
    // Results come first, whoever put a word before them.
    message.content.sort_by_key(|block| block["type"] != "tool_result");
    Ok(())
}

fn assistant(index: usize, message: &mut Message) -> Result<(), TranscriptError> {
    let before = message.content.len();
    message.content.retain(|block| block["type"] != "text" || !block["text"].is_string() || is_said(block));
    if before > 0 && message.content.is_empty() {
        return Err(TranscriptError::Call {
            index,
            what: "the assistant's message says nothing; leave it out, with the question before it",
        });
    }
    for block in &mut message.content {
        let texts = |names: &[&str]| names.iter().all(|name| block[*name].is_string());
        let fits = match block["type"].as_str() {
            Some("tool_use") => {
                mend_call(index, block)?;
                true
            }
            Some("text") => texts(&["text"]),
            Some("thinking") => texts(&["thinking", "signature"]),
            Some("redacted_thinking") => texts(&["data"]),
            Some("tool_result" | "image" | "document") | None => false,
            // What the model said is taken back as it was; the API judges what we do not know.
            Some(_) => true,
        };
        if !fits {
            return Err(unfit(index, "assistant", block));
        }
    }
    Ok(())
}

fn mend_call(index: usize, block: &mut Value) -> Result<(), TranscriptError> {
    let named = |field: &str| block[field].as_str().is_some_and(|text| !text.trim().is_empty());
    if !named("id") || !named("name") {
        return Err(TranscriptError::Call { index, what: "a tool_use needs an id and a name, both texts" });
    }
    if block["input"].is_null() {
        block["input"] = json!({});
    }
    if !block["input"].is_object() {
        return Err(TranscriptError::Call { index, what: "the input of a tool_use must be an object" });
    }
    Ok(())
}

/// A result's content is a text, or a list of texts and pictures; false where it is something else.
fn mend_result(block: &mut Value) -> bool {
    if block.get("is_error").is_some_and(|flag| !flag.is_boolean()) {
        return false;
    }
    let parts = match &mut block["content"] {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text_block(text)],
        Value::Array(parts) => std::mem::take(parts),
        _ => return false,
    };
    let mut mended = Vec::new();
    for mut part in parts {
        if let Some(map) = part.as_object_mut() {
            map.remove("cache_control");
        }
        match part["type"].as_str() {
            Some("text") if part["text"].is_string() => {
                if is_said(&part) {
                    mended.push(part);
                }
            }
            Some("image") => {
                if !mend_image(&mut part) {
                    return false;
                }
                mended.push(part);
            }
            _ => return false,
        }
    }
    if mended.is_empty() {
        mended.push(text_block("(no output)"));
    }
    block["content"] = Value::Array(mended);
    true
}

fn is_said(block: &Value) -> bool {
    block["text"].as_str().is_some_and(|text| !text.trim().is_empty())
}

/// A picture is what it is by its own bytes; false where it is none that can be shown.
fn mend_image(block: &mut Value) -> bool {
    let source = &mut block["source"];
    let shown = if source["type"] == "base64" { source["data"].as_str().and_then(picture) } else { None };
    let Some((kind, data)) = shown else { return false };
    (source["media_type"], source["data"]) = (json!(kind), json!(data));
    true
}

fn unfit(index: usize, role: &'static str, block: &Value) -> TranscriptError {
    let kind = block["type"].as_str().unwrap_or("unknown").chars().take(40).collect();
    TranscriptError::Block { index, role, kind }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn mended(message: Value) -> Result<Value, TranscriptError> {
        let mut message: Message = serde_json::from_value(message).expect("a message");
        mend(0, &mut message).map(|()| json!(message.content))
    }

    fn result(content: &Value) -> Value {
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": content}]})
    }

    #[rstest]
    #[case::empty_text(json!({"role": "assistant", "content": ""}))]
    #[case::blank_text(json!({"role": "assistant", "content": [{"type": "text", "text": " \n"}]}))]
    #[case::text_of_another_kind(json!({"role": "assistant", "content": [{"type": "text", "text": 5}]}))]
    #[case::input_is_text(json!({"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "a", "input": "x"}]}))]
    #[case::input_is_a_list(json!({"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "a", "input": [1]}]}))]
    #[case::no_id(json!({"role": "assistant", "content": [{"type": "tool_use", "name": "a", "input": {}}]}))]
    #[case::empty_name(json!({"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "", "input": {}}]}))]
    #[case::unsigned_thinking(json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}]}))]
    #[case::no_type(json!({"role": "assistant", "content": [{"text": "hi"}]}))]
    #[case::the_users_empty_text(json!({"role": "user", "content": [{"type": "text", "text": ""}]}))]
    #[case::an_image_of_no_kind(json!({"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "x"}}]}))]
    #[case::an_image_that_is_none(json!({"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}]}))]
    #[case::an_image_elsewhere(json!({"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://a/b.png"}}]}))]
    #[case::an_image_without_a_source(json!({"role": "user", "content": [{"type": "image"}]}))]
    #[case::a_result_of_numbers(result(&json!(5)))]
    #[case::a_result_of_something_else(result(&json!([{"type": "video"}])))]
    fn what_has_no_right_form_is_refused(#[case] message: Value) {
        assert!(mended(message.clone()).is_err(), "{message}");
    }

    #[test]
    fn what_has_one_right_form_gets_it() {
        let said = json!({"type": "text", "text": "so"});
        let call =
            json!({"type": "tool_use", "id": "a b", "name": "odd.good x", "input": null, "cache_control": {"type": "ephemeral"}});
        let content =
            mended(json!({"role": "assistant", "content": [{"type": "text", "text": ""}, said, call]})).expect("mended");
        assert_eq!(content, json!([said, {"type": "tool_use", "id": "a b", "name": "odd.good x", "input": {}}]));
        let answer = json!({"type": "tool_result", "tool_use_id": "1", "content": "x"});
        let content = mended(json!({"role": "user", "content": [said, answer]})).expect("mended");
        assert_eq!((&content[0]["tool_use_id"], &content[1]), (&json!("1"), &said));
        let source = |kind: &str| json!({"type": "base64", "media_type": kind, "data": "iVBORw0KGgo="});
        let picture = json!({"type": "image", "source": source("image/jpg")});
        let content = mended(json!({"role": "user", "content": [picture]})).expect("mended");
        assert_eq!(content[0]["source"], source("image/png"));
        for empty in [json!(""), json!([]), json!(null), json!([{"type": "text", "text": ""}])] {
            assert_eq!(mended(result(&empty)).expect("mended")[0]["content"], json!([{"type": "text", "text": "(no output)"}]));
        }
    }
}

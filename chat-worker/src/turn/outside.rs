//! Messages that a caller sends: what a model's API would refuse is put right where there is one right form, and else refused here,
//! with a sentence. Pure. Ids and names that an API does not take are no concern of a caller's: `llm::history` maps them.

use serde_json::{Value, json};

use crate::{
    message::{Message, Role, is_unsigned_thinking, text_block},
    tools::answer::{image, picture},
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
    #[error("message {index}: {what}")]
    Block { index: usize, what: String },
}

/// Kinds of blocks that only a model's API makes: they go back to it as they came.
const OF_THE_API: [&str; 12] = [
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "mcp_tool_use",
    "mcp_tool_result",
    "container_upload",
    "compaction",
    "fallback",
];

/// Puts the blocks of a message right.
pub fn mend(index: usize, message: &mut Message) -> Result<(), TranscriptError> {
    let mended = match message.role {
        Role::User => user(&mut message.content),
        Role::Assistant => assistant(&mut message.content),
    };
    mended.map_err(|what| TranscriptError::Block { index, what })
}

fn user(content: &mut Vec<Value>) -> Result<(), String> {
    leave_out_empty_texts(content, "its text is empty: say something, or leave the block out")?;
    for block in content.iter_mut() {
        match kind(block)? {
            "text" => mend_text(block)?,
            "image" => mend_image(block)?,
            "tool_result" => mend_result(block)?,
            "tool_use" | "thinking" | "redacted_thinking" => {
                return Err(format!("a block of the type {} belongs into the assistant's message", block["type"]));
            }
            other => return Err(unknown(other, "text, image and tool_result are")),
        }
    }
    // Results come first, whoever put a word before them.
    content.sort_by_key(|block| block["type"] != "tool_result");
    Ok(())
}

fn assistant(content: &mut Vec<Value>) -> Result<(), String> {
    let (before, is_void) = (content.len(), |block: &Value| is_unsigned_thinking(block) && block["thinking"].is_string());
    content.retain(|block| !is_void(block));
    if before > 0 && content.is_empty() {
        return Err(
            "the assistant's message is only thinking without a signature; leave it out, with the question before it".to_owned()
        );
    }
    leave_out_empty_texts(content, "the assistant's message says nothing; leave it out, with the question before it")?;
    for block in content {
        let texts = |block: &Value, names: &[&str]| names.iter().all(|name| block[*name].is_string());
        match kind(block)? {
            "tool_use" => mend_call(block)?,
            "text" => mend_text(block)?,
            "thinking" if texts(block, &["thinking", "signature"]) => only(block, &["type", "thinking", "signature"]),
            "thinking" => {
                return Err("a thinking block needs thinking and signature, both texts; leave it out otherwise".to_owned());
            }
            "redacted_thinking" if texts(block, &["data"]) => only(block, &["type", "data"]),
            "redacted_thinking" => return Err("a redacted_thinking block needs data, a text; leave it out otherwise".to_owned()),
            "tool_result" | "image" => {
                return Err(format!("a block of the type {} belongs into the user's message", block["type"]));
            }
            known if OF_THE_API.contains(&known) => {
                // The marks of a cache are ours to set: there may be four.
                block.as_object_mut().map(|fields| fields.remove("cache_control"));
            }
            other => return Err(unknown(other, "text, tool_use, thinking and redacted_thinking are")),
        }
    }
    Ok(())
}

fn kind(block: &Value) -> Result<&str, String> {
    let kind = block["type"].as_str();
    kind.ok_or_else(|| "each block must be an object with a type, such as {\"type\": \"text\", \"text\": \"Hello\"}".to_owned())
}

fn unknown(kind: &str, known: &str) -> String {
    let kind: String = kind.chars().take(40).collect();
    let hint = match kind.as_str() {
        "image_url" | "input_image" => {
            "; write a picture as {\"type\": \"image\", \"source\": {\"type\": \"base64\", \"media_type\": …, \"data\": …}}"
        }
        "input_text" | "output_text" => "; write it as {\"type\": \"text\", \"text\": …}",
        _ => "",
    };
    format!("a block of the type {kind:?} is not known here, {known}; take it out, or write it as one of them{hint}")
}

/// What an API does not know of a block it refuses, with all the rest.
fn only(block: &mut Value, known: &[&str]) {
    if let Some(fields) = block.as_object_mut() {
        fields.retain(|name, _| known.contains(&name.as_str()));
    }
}

/// Nothing is said by them; `nothing` tells that nothing else is there either.
fn leave_out_empty_texts(content: &mut Vec<Value>, nothing: &str) -> Result<(), String> {
    let before = content.len();
    content.retain(|block| block["type"] != "text" || !block["text"].is_string() || is_said(block));
    if before > 0 && content.is_empty() { Err(nothing.to_owned()) } else { Ok(()) }
}

fn mend_text(block: &mut Value) -> Result<(), String> {
    only(block, &["type", "text"]);
    if block["text"].is_string() { Ok(()) } else { Err("the text of a text block must be a string".to_owned()) }
}

fn mend_call(block: &mut Value) -> Result<(), String> {
    only(block, &["type", "id", "name", "input"]);
    let named = |field: &str| block[field].as_str().is_some_and(|text| !text.trim().is_empty());
    if !named("id") || !named("name") {
        return Err("a tool_use needs an id and a name, both texts".to_owned());
    }
    if block["input"].is_null() {
        block["input"] = json!({});
    }
    if block["input"].is_object() { Ok(()) } else { Err("the input of a tool_use must be an object".to_owned()) }
}

/// A result's content is a text, or a list of texts and pictures.
fn mend_result(block: &mut Value) -> Result<(), String> {
    only(block, &["type", "tool_use_id", "content", "is_error"]);
    if block["tool_use_id"].as_str().is_none_or(str::is_empty) {
        return Err("a tool_result needs tool_use_id, the id of the tool_use that it answers".to_owned());
    }
    match block.get("is_error") {
        Some(Value::Null) => {
            block.as_object_mut().map(|fields| fields.remove("is_error"));
        }
        Some(flag) if !flag.is_boolean() => {
            return Err("is_error of a tool_result must be true or false, or be left out".to_owned());
        }
        _ => {}
    }
    let parts = match &mut block["content"] {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text_block(text)],
        Value::Array(parts) => std::mem::take(parts),
        _ => return Err("the content of a tool_result must be a text, or a list of text and image blocks".to_owned()),
    };
    let mut mended = Vec::new();
    for mut part in parts {
        match kind(&part)? {
            "text" => {
                mend_text(&mut part)?;
                if !is_said(&part) {
                    continue;
                }
            }
            "image" => mend_image(&mut part)?,
            other => return Err(unknown(other, "text and image are, within a tool_result")),
        }
        mended.push(part);
    }
    if mended.is_empty() {
        mended.push(text_block("(no output)"));
    }
    block["content"] = Value::Array(mended);
    Ok(())
}

fn is_said(block: &Value) -> bool {
    block["text"].as_str().is_some_and(|text| !text.trim().is_empty())
}

/// A picture is what it is by its own bytes.
fn mend_image(block: &mut Value) -> Result<(), String> {
    only(block, &["type", "source"]);
    let source = &block["source"];
    if source["type"] != "base64" || !source["data"].is_string() {
        return Err(
            "a picture is taken as base64 only, and not by its URL or a file's id: its source must be {\"type\": \"base64\", \
            \"media_type\": \"image/png\", \"data\": …}"
                .to_owned(),
        );
    }
    let Some((kind, data)) = source["data"].as_str().and_then(picture) else {
        return Err("the data of an image must be a PNG, JPEG, GIF or WebP of at most 5 MiB, in base64".to_owned());
    };
    *block = image(kind, &data);
    Ok(())
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
        let told = mended(message.clone()).expect_err("refused").to_string();
        assert!(told.starts_with("message 0: ") && told.len() > 40, "{told}");
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        for (content, told) in [
            (json!([{"type": "text", "text": ""}]), "empty"),
            (json!([{"type": "image", "source": {"type": "url", "url": "http://a"}}]), "base64"),
            (json!([{"type": "image_url", "image_url": {"url": "data:"}}]), "\"source\""),
            (json!([{"type": "tool_result", "tool_use_id": "1", "is_error": "no"}]), "true or false"),
            (json!([{"type": "tool_use", "id": "1", "name": "a"}]), "assistant's message"),
            (json!(["hello"]), "object"),
        ] {
            let error = mended(json!({"role": "user", "content": content})).expect_err("refused").to_string();
            assert!(error.contains(told), "{error}");
        }
        let error = mended(json!({"role": "assistant", "content": [{"type": "foo"}, {"type": "text", "text": "b"}]}));
        assert!(error.expect_err("refused").to_string().contains("\"foo\""));
    }

    #[test]
    fn what_has_one_right_form_gets_it() {
        let said = json!({"type": "text", "text": "so"});
        let call =
            json!({"type": "tool_use", "id": "a b", "name": "odd.good x", "input": null, "cache_control": {"type": "ephemeral"}});
        let content =
            mended(json!({"role": "assistant", "content": [{"type": "text", "text": ""}, said, call]})).expect("mended");
        assert_eq!(content, json!([said, {"type": "tool_use", "id": "a b", "name": "odd.good x", "input": {}}]));
        let [unsigned, empty, signed] = [json!(null), json!(""), json!("s")]
            .map(|signature| json!({"type": "thinking", "thinking": "hm", "signature": signature}));
        let content = mended(json!({"role": "assistant", "content": [unsigned, empty, signed, said]})).expect("mended");
        assert_eq!(content, json!([signed, said]));
        let answer = json!({"type": "tool_result", "tool_use_id": "1", "content": "x"});
        let content = mended(json!({"role": "user", "content": [said, answer]})).expect("mended");
        assert_eq!((&content[0]["tool_use_id"], &content[1]), (&json!("1"), &said));
        let source = |kind: &str| json!({"type": "base64", "media_type": kind, "data": "iVBORw0KGgo="});
        let picture = json!({"type": "image", "source": source("image/jpg")});
        let content = mended(json!({"role": "user", "content": [picture]})).expect("mended");
        assert_eq!(content[0]["source"], source("image/png"));
        let own = json!({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "x", "annotations": {}}], "is_error": null, "ms": 5});
        let content = mended(
            json!({"role": "user", "content": [own, {"type": "text", "text": ""}, {"type": "text", "text": "a", "id": "m"}]}),
        );
        let expected = json!([{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "x"}]}, {"type": "text", "text": "a"}]);
        assert_eq!(content.expect("mended"), expected, "what is the caller's own is left out");
        for empty in [json!(""), json!([]), json!(null), json!([{"type": "text", "text": ""}])] {
            assert_eq!(mended(result(&empty)).expect("mended")[0]["content"], json!([{"type": "text", "text": "(no output)"}]));
        }
    }
}

//! The bodies of requests.

use serde_json::{Value, json};

use crate::llm::Prompt;

/// The body of a request. Three of the four cache breakpoints are used: after the tools, after the system prompt, and
/// after the last message, so that each round reads the rounds before it from the cache.
pub fn request(prompt: &Prompt, model: &str, max_tokens: u32) -> Value {
    let mut tools = prompt.tools.clone();
    if let Some(last) = tools.last_mut() {
        last["cache_control"] = json!({"type": "ephemeral"});
    }
    let mut messages = json!(prompt.messages);
    let last_block = messages
        .as_array_mut()
        .and_then(|messages| messages.last_mut())
        .and_then(|message| message["content"].as_array_mut())
        .and_then(|content| content.last_mut());
    if let Some(block) = last_block {
        block["cache_control"] = json!({"type": "ephemeral"});
    }
    let mut body = json!({"model": model, "max_tokens": max_tokens, "messages": messages, "stream": true});
    if !prompt.system.is_empty() {
        body["system"] = json!([{"type": "text", "text": prompt.system, "cache_control": {"type": "ephemeral"}}]);
    }
    if !tools.is_empty() {
        body["tools"] = Value::Array(tools);
        if !prompt.allow_tools {
            body["tool_choice"] = json!({"type": "none"});
        }
    }
    body
}

/// The body of a request that only counts: the same prompt, without what concerns the answer.
pub fn count(prompt: &Prompt, model: &str) -> Value {
    let mut body = request(prompt, model, 1);
    if let Some(body) = body.as_object_mut() {
        body.remove("max_tokens");
        body.remove("stream");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::wire::Message;

    #[test]
    fn at_most_four_blocks_are_marked_for_the_cache() {
        let prompt = Prompt {
            system: "be brief".into(),
            tools: vec![json!({"name": "a"}), json!({"name": "b"})],
            messages: vec![Message::user("hi"), Message::user("there")],
            allow_tools: true,
            model: None,
        };
        let body = request(&prompt, "m", 10);
        assert_eq!(body.to_string().matches("cache_control").count(), 3);
        assert!(body["messages"][1]["content"][0]["cache_control"].is_object());
        assert!(body["tools"][1]["cache_control"].is_object());
    }
}

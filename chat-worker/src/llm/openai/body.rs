//! The body of a request: the conversation translated into Chat Completions' messages.

use serde_json::{Value, json};

use crate::{
    llm::{
        Prompt, history,
        offer::{Dialect, Projected},
    },
    message::{Message, Role, block_call, block_result_id, block_text},
    numbers,
};

/// What a server has said that it does not know, of what is sent with each request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unknown {
    /// The name by which the limit of an answer goes to this API at first: there are two.
    pub limit: bool,
    /// That the usage is asked for. It is estimated then.
    pub stream_options: bool,
}

/// The body of a request. Tools come first in the name's order, so that servers that cache prefixes can.
pub fn request(prompt: &Prompt<'_>, model: &str, max_tokens: u32, completion_limit: bool, unknown: Unknown) -> Value {
    let mut messages = Vec::new();
    if !prompt.system.is_empty() {
        messages.push(json!({"role": "system", "content": prompt.system}));
    }
    let fitted = history::fitted(&prompt.messages, &prompt.offer, Dialect::Completions);
    for message in fitted.iter() {
        match message.role {
            Role::User => user(message, &mut messages),
            Role::Assistant => messages.extend(assistant(message)),
        }
    }
    let mut body = json!({"model": model, "messages": messages, "stream": true});
    if !unknown.stream_options {
        body["stream_options"] = json!({"include_usage": true});
    }
    body[if completion_limit == unknown.limit { "max_tokens" } else { "max_completion_tokens" }] = json!(max_tokens);
    let offered = &prompt.offer.tools;
    let remembered = if offered.is_empty() { history::remembered(&prompt.messages) } else { Vec::new() };
    let tools: Vec<Value> = offered.iter().map(|tool| &**tool).chain(&remembered).map(tool).collect();
    if !tools.is_empty() {
        body["tools"] = Value::Array(tools);
        if !prompt.allow_tools || offered.is_empty() {
            body["tool_choice"] = json!("none");
        }
    }
    body
}

/// Results become messages of their own, which must come right after the calls; what the user says follows.
fn user(message: &Message, messages: &mut Vec<Value>) {
    for block in &message.content {
        if let Some(id) = block_result_id(block) {
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": result_text(block)}));
        }
    }
    let said: Vec<&str> = message.content.iter().filter_map(block_text).collect();
    let results = message.content.iter().filter(|block| block["type"] == "tool_result");
    let shown: Vec<Value> = results.filter_map(|block| block["content"].as_array()).flatten().filter_map(image).collect();
    if shown.is_empty() && !message.content.iter().any(|block| block["type"] == "image") {
        if !said.is_empty() {
            messages.push(json!({"role": "user", "content": said.join("\n\n")}));
        }
        return;
    }
    // A tool's message holds text only, so that its pictures come from the user.
    let of_results = (!shown.is_empty()).then(|| text("The pictures of the results above."));
    // What the user says and shows keeps its order: a text may be about the picture before it.
    let own = message.content.iter().filter_map(|block| block_text(block).map(text).or_else(|| image(block)));
    let parts: Vec<Value> = of_results.into_iter().chain(shown).chain(own).collect();
    messages.push(json!({"role": "user", "content": parts}));
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn image(block: &Value) -> Option<Value> {
    let source = (block["type"] == "image").then(|| &block["source"])?;
    let url = format!("data:{};base64,{}", source["media_type"].as_str()?, source["data"].as_str()?);
    Some(json!({"type": "image_url", "image_url": {"url": url}}))
}

/// This API has no flag for a failed call, so that it is said in words.
fn result_text(block: &Value) -> String {
    let text = match &block["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(block_text).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    };
    if block["is_error"] == true { format!("Error: {text}") } else { text }
}

/// What the model said. Thinking is not sent back: it belongs to the API that signed it. `None` when nothing else is there.
fn assistant(message: &Message) -> Option<Value> {
    let text = message.text();
    let calls: Vec<Value> = message
        .content
        .iter()
        .filter_map(block_call)
        .map(|call| {
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": numbers::release(&call.input.to_string())}})
        })
        .collect();
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    let mut said = json!({"role": "assistant", "content": if text.is_empty() { Value::Null } else { json!(text) }});
    if !calls.is_empty() {
        said["tool_calls"] = Value::Array(calls);
    }
    Some(said)
}

fn tool(tool: &Projected) -> Value {
    json!({"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::offer::tests as offer;

    #[test]
    fn pictures_keep_their_place_among_what_the_user_says() {
        let picture =
            |data: &str| json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}});
        let shown = |data: &str| json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}});
        let result = json!({"type": "tool_result", "tool_use_id": "1", "content": [text("done"), picture("r")]});
        let content = [result, text("first"), picture("a"), text("then"), picture("b")];
        let mut messages = Vec::new();
        user(&Message { role: Role::User, content: content.into() }, &mut messages);
        let parts = [text("The pictures of the results above."), shown("r"), text("first"), shown("a"), text("then"), shown("b")];
        assert_eq!(
            messages,
            [json!({"role": "tool", "tool_call_id": "1", "content": "done"}), json!({"role": "user", "content": parts})]
        );
    }

    #[test]
    fn a_conversation_is_translated_with_every_call_and_result() {
        let messages = json!([
            {"role": "user", "content": "how many?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "1", "name": "s__q", "input": {"a": 1}},
                {"type": "tool_use", "id": "2", "name": "s__q", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "is_error": false, "content": [{"type": "text", "text": "8"}]},
                {"type": "tool_result", "tool_use_id": "2", "is_error": true, "content": [{"type": "text", "text": "no"}]},
                {"type": "text", "text": "never mind"}]},
        ]);
        let tool = json!({"name": "q", "description": "asks", "inputSchema": {}});
        let messages: Vec<Message> = serde_json::from_value(messages).expect("messages");
        let prompt = Prompt {
            system: "be brief",
            offer: offer::of_tools(&[tool], Dialect::Completions).into(),
            messages: messages.into(),
            allow_tools: false,
            model: None,
        };
        let body = request(&prompt, "m", 9, false, Unknown::default());
        assert_eq!(
            body["messages"],
            json!([
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "how many?"},
                {"role": "assistant", "content": "Let me look.", "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "s__q", "arguments": "{\"a\":1}"}},
                    {"id": "2", "type": "function", "function": {"name": "s__q", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "8"},
                {"role": "tool", "tool_call_id": "2", "content": "Error: no"},
                {"role": "user", "content": "never mind"},
            ])
        );
        assert_eq!((&body["max_tokens"], &body["tool_choice"]), (&json!(9), &json!("none")));
        let function = &body["tools"][0]["function"];
        assert_eq!((&function["name"], &function["parameters"]["type"]), (&json!("s__q"), &json!("object")));
        assert_eq!(request(&prompt, "m", 9, true, Unknown::default())["max_completion_tokens"], 9);
        let body = request(&prompt, "m", 9, true, Unknown { limit: true, stream_options: true });
        assert_eq!((&body["max_tokens"], body.get("stream_options")), (&json!(9), None));
    }
}

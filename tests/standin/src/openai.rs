//! Chat Completions: a request translated into the Messages API's words, checked as strictly as the real API does, and a
//! message translated back into a completion or its chunks. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    rules,
    script::{Fault, Step, StreamFault},
    stream::{Chunk, End},
};

/// The same request as the Messages API would have it.
///
/// # Errors
/// A sentence for an `invalid_request_error`.
pub fn translated(body: &Value) -> Result<Value, String> {
    rules::functions(body)?;
    if !body["tool_choice"].is_null() && body["tools"].is_null() {
        return Err("Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.".into());
    }
    let messages = body["messages"].as_array().ok_or("messages: field required")?;
    let mut out: Vec<Value> = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let content = text(&message["content"]);
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && !open.is_empty() {
            return Err(format!("messages.{index}: tool_call_ids without a response: {}", open.join(", ")));
        }
        match role {
            "system" | "developer" => {}
            "user" => push(&mut out, "user", vec![json!({"type": "text", "text": content})]),
            "assistant" => {
                let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
                let blocks = said(index, &content, calls)?;
                open = calls.iter().filter_map(|call| call["id"].as_str()).map(str::to_owned).collect();
                push(&mut out, "assistant", blocks);
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let position = open.iter().position(|open| open == id);
                let position = position.ok_or_else(|| format!("messages.{index}: no tool call {id:?} waits for a response"))?;
                open.remove(position);
                let (is_error, content) = match content.strip_prefix("Error: ") {
                    Some(rest) => (true, rest),
                    None => (false, content.as_str()),
                };
                let result = json!({"type": "tool_result", "tool_use_id": id, "is_error": is_error, "content": content});
                push(&mut out, "user", vec![result]);
            }
            other => return Err(format!("messages.{index}: there is no role {other:?}")),
        }
    }
    let tools: Vec<Value> = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default().iter().map(tool).collect();
    let limit = body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64());
    let choice = if body["tool_choice"] == "none" { json!({"type": "none"}) } else { Value::Null };
    Ok(json!({"model": body["model"], "max_tokens": limit.unwrap_or(4_096), "messages": out, "tools": tools,
              "stream": body["stream"], "tool_choice": choice}))
}

fn said(index: usize, content: &str, calls: &[Value]) -> Result<Vec<Value>, String> {
    let mut blocks = Vec::new();
    if !content.is_empty() {
        blocks.push(json!({"type": "text", "text": content}));
    }
    for call in calls {
        let arguments = call["function"]["arguments"].as_str();
        let input: Option<Value> = arguments.and_then(|arguments| serde_json::from_str(arguments).ok());
        let input = input.ok_or_else(|| format!("messages.{index}: the arguments of a tool call are no JSON in a string"))?;
        if call["id"].as_str().is_none_or(|id| id.is_empty() || id.len() > 40) {
            return Err(format!(
                "Invalid 'messages[{index}].tool_calls.id': string too long. Expected a string with maximum length 40."
            ));
        }
        if !rules::is_name(call["function"]["name"].as_str().unwrap_or_default(), 64) {
            return Err(format!("Invalid 'messages[{index}].tool_calls.function.name': string does not match pattern."));
        }
        blocks.push(json!({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": input}));
    }
    if blocks.is_empty() {
        return Err(format!("messages.{index}: content or tool_calls is required"));
    }
    Ok(blocks)
}

fn tool(tool: &Value) -> Value {
    json!({"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]})
}

fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

fn push(out: &mut Vec<Value>, role: &str, blocks: Vec<Value>) {
    match out.last_mut().filter(|last| last["role"] == role).and_then(|last| last["content"].as_array_mut()) {
        Some(content) => content.extend(blocks),
        None => out.push(json!({"role": role, "content": blocks})),
    }
}

/// A message as a whole completion.
pub fn completion(message: &Value) -> Value {
    let mut said = json!({"role": "assistant", "content": spoken(message)});
    let calls: Vec<Value> = calls(message).map(|(_, call)| call).collect();
    if !calls.is_empty() {
        said["tool_calls"] = Value::Array(calls);
    }
    json!({"id": message["id"], "object": "chat.completion", "model": message["model"], "usage": usage(message),
           "choices": [{"index": 0, "message": said, "finish_reason": finish(message)}]})
}

/// A message as the chunks of a stream, spoiled by the fault if there is one.
pub fn chunks(message: &Value, step: &Step, fault: Option<&Fault>, with_usage: bool) -> (Vec<Chunk>, End) {
    let pause = Duration::from_millis(step.chunk_delay_ms);
    let chunk = |delta: &Value, finish: Value| {
        json!({"id": message["id"], "object": "chat.completion.chunk", "model": message["model"],
               "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let mut out = vec![event(&chunk(&json!({"role": "assistant", "content": ""}), Value::Null), Duration::ZERO)];
    for word in spoken(message).unwrap_or_default().split_inclusive(' ') {
        out.push(event(&chunk(&json!({"content": word}), Value::Null), pause));
    }
    for (index, call) in calls(message) {
        let mut opening = call.clone();
        opening["index"] = json!(index);
        opening["function"]["arguments"] = json!("");
        out.push(event(&chunk(&json!({"tool_calls": [opening]}), Value::Null), Duration::ZERO));
        let arguments: Vec<char> = call["function"]["arguments"].as_str().unwrap_or_default().chars().collect();
        for part in arguments.chunks(24) {
            let piece = json!({"index": index, "function": {"arguments": part.iter().collect::<String>()}});
            out.push(event(&chunk(&json!({"tool_calls": [piece]}), Value::Null), Duration::ZERO));
        }
    }
    out.push(event(&chunk(&json!({}), json!(finish(message))), Duration::ZERO));
    if with_usage {
        let last = json!({"id": message["id"], "object": "chat.completion.chunk", "model": message["model"], "choices": [],
                          "usage": usage(message)});
        out.push(event(&last, Duration::ZERO));
    }
    out.push(Chunk { after: Duration::ZERO, bytes: "data: [DONE]\n\n".to_owned() });
    spoil(out, fault)
}

fn spoil(mut chunks: Vec<Chunk>, fault: Option<&Fault>) -> (Vec<Chunk>, End) {
    let half = chunks.len() / 2;
    let mut end = End::Close;
    match fault.and_then(|fault| fault.stream) {
        Some(StreamFault::Truncated) => chunks.truncate(half),
        Some(StreamFault::NoStop) => chunks.truncate(chunks.len() - 1),
        Some(StreamFault::Hang) => {
            chunks.truncate(half);
            end = End::Hang;
        }
        Some(StreamFault::Malformed) => {
            chunks.insert(half, Chunk { after: Duration::ZERO, bytes: "data: {\"choices\": [{\"del\n\n".to_owned() });
        }
        Some(StreamFault::Error) => {
            chunks.truncate(half);
            let kind = fault.and_then(|fault| fault.kind.as_deref()).unwrap_or("server_error");
            chunks.push(event(&json!({"error": {"type": kind, "message": "on demand", "code": null}}), Duration::ZERO));
        }
        Some(StreamFault::Html) | None => {}
    }
    (chunks, end)
}

/// The body of an error.
pub fn error(kind: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
}

fn event(body: &Value, after: Duration) -> Chunk {
    Chunk { after, bytes: format!("data: {body}\n\n") }
}

/// What was said; null when only tools are called. Thinking has no place in this API.
fn spoken(message: &Value) -> Option<String> {
    let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> = blocks.iter().filter(|block| block["type"] == "text").filter_map(|b| b["text"].as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn calls(message: &Value) -> impl Iterator<Item = (usize, Value)> {
    let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    blocks.iter().filter(|block| block["type"] == "tool_use").enumerate().map(|(index, block)| {
        let function = json!({"name": block["name"], "arguments": block["input"].to_string()});
        (index, json!({"id": block["id"], "type": "function", "function": function}))
    })
}

fn finish(message: &Value) -> &str {
    match message["stop_reason"].as_str().unwrap_or_default() {
        "tool_use" => "tool_calls",
        "max_tokens" => "length",
        "refusal" => "content_filter",
        "end_turn" | "stop_sequence" => "stop",
        other => other,
    }
}

fn usage(message: &Value) -> Value {
    let figure = |name: &str| message["usage"][name].as_u64().unwrap_or(0);
    let (input, output) = (figure("input_tokens"), figure("output_tokens"));
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_response_is_refused() {
        let call = json!({"id": "1", "type": "function", "function": {"name": "q", "arguments": "{}"}});
        let body = json!({"model": "m", "messages": [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "user", "content": "and?"}]});
        assert!(translated(&body).expect_err("1 is open").contains('1'));
    }

    #[test]
    fn what_is_said_comes_back_as_chunks_that_end_in_done() {
        let message = json!({"id": "x", "model": "stand-in", "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 2},
            "content": [{"type": "text", "text": "Let me look."}, {"type": "tool_use", "id": "1", "name": "q", "input": {"a": 1}}]});
        let (chunks, _) = chunks(&message, &Step::default(), None, true);
        assert_eq!(chunks.last().map(|chunk| chunk.bytes.as_str()), Some("data: [DONE]\n\n"));
        assert!(chunks[chunks.len() - 2].bytes.contains("\"total_tokens\":3"));
        assert_eq!(completion(&message)["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
    }
}

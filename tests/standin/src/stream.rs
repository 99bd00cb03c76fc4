//! From a message to the events of a stream, and how a stream goes wrong on demand. Pure: a list of chunks with the
//! time that each takes; sending them is the server's, which keeps to the sum of these times, so that gaps stay what the
//! script says however long a stream is.

use std::time::Duration;

use serde_json::{Value, json};

use crate::script::{Fault, Step, StreamFault};

/// A piece of the response's body, and how long it takes to come.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub after: Duration,
    pub bytes: String,
}

/// What follows the last chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Close,
    /// The connection stays open and silent.
    Hang,
}

/// The events of a message, spoiled by the fault if there is one.
pub fn chunks(message: &Value, step: &Step, fault: Option<&Fault>) -> (Vec<Chunk>, End) {
    let pause = Duration::from_millis(step.chunk_delay_ms);
    let mut chunks = events(message, pause);
    let mut end = End::Close;
    let half = chunks.len() / 2;
    match fault.and_then(|fault| fault.stream) {
        Some(StreamFault::Truncated) => chunks.truncate(half),
        Some(StreamFault::NoStop) => chunks.truncate(chunks.len() - 1),
        Some(StreamFault::Hang) => {
            chunks.truncate(half);
            end = End::Hang;
        }
        Some(StreamFault::Malformed) => {
            chunks.insert(half, now("event: content_block_delta\ndata: {\"type\": \"content_block_de\n\n".into()));
        }
        Some(StreamFault::Error) => {
            chunks.truncate(half);
            let kind = fault.and_then(|fault| fault.kind.as_deref()).unwrap_or("overloaded_error");
            let body = json!({"type": "error", "error": {"type": kind, "message": "on demand"}});
            chunks.push(now(event("error", &body)));
        }
        Some(StreamFault::Html) | None => {}
    }
    (chunks, end)
}

fn events(message: &Value, pause: Duration) -> Vec<Chunk> {
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let mut out = vec![now(event("message_start", &json!({"type": "message_start", "message": start})))];
    out.push(now(event("ping", &json!({"type": "ping"}))));
    for (index, block) in message["content"].as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate() {
        let (opening, deltas) = taken_apart(block);
        let body = json!({"type": "content_block_start", "index": index, "content_block": opening});
        out.push(now(event("content_block_start", &body)));
        for delta in deltas {
            let body = json!({"type": "content_block_delta", "index": index, "delta": delta});
            out.push(Chunk { after: pause, bytes: event("content_block_delta", &body) });
        }
        out.push(now(event("content_block_stop", &json!({"type": "content_block_stop", "index": index}))));
    }
    let body = json!({
        "type": "message_delta",
        "delta": {"stop_reason": message["stop_reason"], "stop_sequence": null},
        "usage": {"output_tokens": message["usage"]["output_tokens"]}
    });
    out.push(now(event("message_delta", &body)));
    out.push(now(event("message_stop", &json!({"type": "message_stop"}))));
    out
}

/// A block as it opens, and the deltas that complete it.
fn taken_apart(block: &Value) -> (Value, Vec<Value>) {
    match block["type"].as_str() {
        Some("text") => {
            let text = block["text"].as_str().unwrap_or_default();
            let deltas = text.split_inclusive(' ').map(|word| json!({"type": "text_delta", "text": word})).collect();
            (json!({"type": "text", "text": ""}), deltas)
        }
        Some("thinking") => {
            let deltas = vec![
                json!({"type": "thinking_delta", "thinking": block["thinking"]}),
                json!({"type": "signature_delta", "signature": block["signature"]}),
            ];
            (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas)
        }
        Some("tool_use") => {
            let input: Vec<char> = block["input"].to_string().chars().collect();
            let deltas = input
                .chunks(24)
                .map(|part| json!({"type": "input_json_delta", "partial_json": part.iter().collect::<String>()}))
                .collect();
            let opening = json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}});
            (opening, deltas)
        }
        _ => (block.clone(), Vec::new()),
    }
}

fn event(name: &str, body: &Value) -> String {
    format!("event: {name}\ndata: {body}\n\n")
}

fn now(bytes: String) -> Chunk {
    Chunk { after: Duration::ZERO, bytes }
}

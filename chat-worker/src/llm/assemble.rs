//! What the readers of both APIs have in common: how a stream is read, and what every answer must be. Pure. Strict where a
//! lenient reader would show half an answer as a whole one.

use std::collections::HashSet;

use mcp_wire::json as wire;
use serde_json::{Value, json};

use super::{Answer, ModelError, Progress, is_plain, sentence};
use crate::{
    message::{StopReason, Usage, block_call},
    numbers,
};

/// What an answer writes at most, in bytes: some millions of tokens. What it takes on the wire is many times as much.
const MAX_WRITTEN: usize = 8 * 1024 * 1024;
/// The calls and blocks of one answer.
const MAX_PARTS: usize = 1_000;

/// Collects the events of one attempt.
pub trait Assemble: Send {
    /// Takes one event's data.
    fn push(&mut self, data: &str) -> Result<Seen, ModelError>;

    /// What the stream has told so far.
    fn told(&self) -> Told<'_>;

    /// Whether a stream that ends here is complete, although it does not say so.
    fn may_end(&self) -> bool {
        false
    }

    /// The answer, once `push` said `Stop`, or the stream has ended where it may.
    fn finish(self: Box<Self>) -> Result<Answer, ModelError>;
}

/// What a stream, or a part of one, has told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told<'a> {
    pub model: &'a str,
    /// Its tokens, as far as it says.
    pub usage: Usage,
    /// What it has written, in bytes.
    pub written: usize,
}

/// Counts what an answer consists of. What never ends would fill the memory.
#[derive(Debug, Default)]
pub struct Size {
    /// In bytes.
    pub written: usize,
    parts: usize,
}

impl Size {
    pub fn writes(&mut self, more: usize) -> Result<(), ModelError> {
        self.written = self.written.saturating_add(more);
        if self.written > MAX_WRITTEN {
            return Err(ModelError::TooLarge(format!("it is longer than {} MiB", MAX_WRITTEN / 1024 / 1024)));
        }
        Ok(())
    }

    /// Another call or block begins.
    pub fn begins(&mut self) -> Result<(), ModelError> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(ModelError::TooLarge(format!("it consists of more than {MAX_PARTS} parts")));
        }
        Ok(())
    }
}

/// What an event meant.
#[derive(Debug)]
pub enum Seen {
    /// Nothing that anybody needs to know.
    Quiet,
    Progress(Progress),
    /// The stream is complete: ask for the answer.
    Stop,
}

/// What an API sent, as JSON: an event's data, or a whole message. What every JavaScript and Python program reads is read.
pub fn parse(data: &str) -> Result<Value, ModelError> {
    read(data).map_err(|error| ModelError::Stream(format!("it sent what is no JSON ({error})")))
}

fn read(text: &str) -> serde_json::Result<Value> {
    // Nearly all of it is what a strict parser reads. Its size is bounded where it comes in.
    serde_json::from_str(&numbers::guard(text)).or_else(|error| {
        let tidied = wire::tidy(text.as_bytes(), usize::MAX).map_err(|_| error)?;
        wire::parse(&numbers::guard(&tidied))
    })
}

/// The arguments of a call: an object, once all its pieces are there. None at all mean that there are none.
pub fn arguments(json: &str) -> Result<Value, ModelError> {
    if json.trim().is_empty() {
        return Ok(json!({}));
    }
    match read(json) {
        // So some servers write that there are none.
        Ok(Value::Null) => Ok(json!({})),
        read => read.map_err(|_| ModelError::Stream("a tool call's arguments are no JSON".into())),
    }
}

/// A call without these could not be answered.
pub fn check_call(block: &Value) -> Result<(), ModelError> {
    let named = |field: &str| block[field].as_str().is_some_and(|text| !text.is_empty());
    if block["type"] == "tool_use" && !(named("id") && named("name") && block["input"].is_object()) {
        return Err(ModelError::Stream("a tool call lacks its id, name or arguments".into()));
    }
    Ok(())
}

/// Gives each call an id of its own. There are servers that give all calls of an answer the same one; two of one id could not both be
/// answered, and the conversation would be refused from then on.
pub fn tell_apart(content: &mut [Value]) {
    let mut taken: HashSet<String> = HashSet::new();
    for block in content.iter_mut().filter(|block| block["type"] == "tool_use") {
        let Some(given) = block["id"].as_str() else { continue };
        let mut id = given.to_owned();
        let mut number = 1;
        while !taken.insert(id.clone()) {
            number += 1;
            id = format!("{given}_{number}");
        }
        block["id"] = json!(id);
    }
}

/// An answer that stopped for a call holds one, or a piece of it is missing.
pub fn check_stop(stop: &StopReason, content: &[Value]) -> Result<(), ModelError> {
    if *stop == StopReason::ToolUse && !content.iter().any(|block| block_call(block).is_some()) {
        return Err(ModelError::Stream("it stopped for a tool call that is not there".into()));
    }
    Ok(())
}

/// Whether what came in the place of an answer says that it is an error. Most servers put it under `error`; older ones of vLLM are it
/// themselves.
pub fn is_error(body: &Value) -> bool {
    body.get("error").is_some_and(|error| !error.is_null()) || body["object"] == "error"
}

/// What an error's body says: its kind and its sentence. Both APIs, and most proxies, put them under `error`; some have a list of such
/// bodies, and frameworks of Python have `detail`. What is none of these is told as it is.
pub fn error_of(body: &Value) -> (Option<String>, Option<String>) {
    let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(sentence);
    let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    let error = &body["error"];
    // OpenAI's `code` is the more exact one of its two names, where it is a name.
    let kind = text(&error["code"]).or_else(|| text(&error["type"]));
    let kind = kind.or_else(|| if body["object"] == "error" { text(&body["type"]) } else { None });
    let message = text(&error["message"]).or_else(|| text(error)).or_else(|| text(&body["message"]));
    let message = message.or_else(|| text(&body["detail"])).or_else(|| invalid(&body["detail"]));
    let says_something = body.as_object().is_some_and(|fields| !fields.is_empty());
    (kind, message.or_else(|| says_something.then(|| sentence(&body.to_string()))))
}

/// What FastAPI says of a request that does not fit: what is wrong, and where.
fn invalid(detail: &Value) -> Option<String> {
    let told = detail.as_array()?.iter().filter_map(|fault| {
        let place: Vec<_> = fault["loc"].as_array().into_iter().flatten().map(|part| part.to_string().replace('"', "")).collect();
        Some(format!("{} at {}", fault["msg"].as_str()?, place.join(".")))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| sentence(&told.join("; ")))
}

/// The error that an `error` object in the place of an answer is.
pub fn reported(body: &Value) -> ModelError {
    let (kind, message) = error_of(body);
    // Servers that have no name for it say the status that it would have had.
    let status = body["error"]["code"].as_u64().or_else(|| body["code"].as_u64());
    let by_status = || match status {
        Some(429) => "rate_limit_error",
        Some(400..500) => "invalid_request_error",
        _ => "api_error",
    };
    ModelError::Event {
        kind: kind.filter(|kind| status.is_none() || is_plain(kind)).unwrap_or_else(|| by_status().to_owned()),
        message: message.unwrap_or_else(|| "without saying why".to_owned()),
    }
}

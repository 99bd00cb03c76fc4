//! What the readers of both APIs have in common: how a stream is read, and what every answer must be. Pure. Strict where a
//! lenient reader would show half an answer as a whole one.

use std::collections::HashSet;

use mcp_wire::json;
use serde_json::Value;

use super::{Answer, ModelError, Progress, sentence};
use crate::{
    message::{StopReason, Usage, block_call},
    numbers,
};

/// Collects the events of one attempt.
pub trait Assemble: Send {
    /// Takes one event's data.
    fn push(&mut self, data: &str) -> Result<Seen, ModelError>;

    /// The model and its tokens, as far as the stream has told them.
    fn told(&self) -> (&str, Usage);

    /// Whether a stream that ends here is complete, although it does not say so.
    fn may_end(&self) -> bool {
        false
    }

    /// The answer, once `push` said `Stop`, or the stream has ended where it may.
    fn finish(self: Box<Self>) -> Result<Answer, ModelError>;
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
        let tidied = json::tidy(text.as_bytes(), usize::MAX).map_err(|_| error)?;
        json::parse(&numbers::guard(&tidied))
    })
}

/// The arguments of a call: an object, once all its pieces are there. None at all mean that there are none.
pub fn arguments(json: &str) -> Result<Value, ModelError> {
    if json.trim().is_empty() {
        return Ok(serde_json::json!({}));
    }
    match read(json) {
        // So some servers write that there are none.
        Ok(Value::Null) => Ok(serde_json::json!({})),
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

/// Two calls of one id could not both be answered, and the conversation would be refused from then on.
pub fn check_ids(content: &[Value]) -> Result<(), ModelError> {
    let mut seen = HashSet::new();
    if content.iter().filter_map(block_call).all(|call| seen.insert(call.id)) {
        return Ok(());
    }
    Err(ModelError::Stream("two tool calls have the same id".into()))
}

/// An answer that stopped for a call holds one, or a piece of it is missing.
pub fn check_stop(stop: &StopReason, content: &[Value]) -> Result<(), ModelError> {
    if *stop == StopReason::ToolUse && !content.iter().any(|block| block_call(block).is_some()) {
        return Err(ModelError::Stream("it stopped for a tool call that is not there".into()));
    }
    Ok(())
}

/// What an error's body says: its kind and its sentence. Both APIs, and most proxies, put them under `error`.
pub fn error_of(body: &Value) -> (Option<String>, Option<String>) {
    let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(sentence);
    let error = &body["error"];
    // OpenAI's `code` is the more exact one of its two names, where it is a name.
    let kind = text(&error["code"]).or_else(|| text(&error["type"]));
    let message = text(&error["message"]).or_else(|| text(error)).or_else(|| text(&body["message"]));
    (kind, message)
}

/// The error that an `error` object in the place of an answer is.
pub fn reported(body: &Value) -> ModelError {
    let (kind, message) = error_of(body);
    ModelError::Event {
        kind: kind.unwrap_or_else(|| "api_error".to_owned()),
        message: message.unwrap_or_else(|| "without saying why".to_owned()),
    }
}

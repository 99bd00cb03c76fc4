//! The words of a conversation, as the Messages API has them: messages, calls, stop reasons, usage. Pure; no HTTP.
//! Content blocks stay raw JSON, so that what we do not know (and thinking blocks) is replayed as it came.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

/// One message: content blocks in order. A plain string is read as one text block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    #[serde(deserialize_with = "blocks_or_text")]
    pub content: Vec<Value>,
}

impl Message {
    pub fn user(text: &str) -> Self {
        Self { role: Role::User, content: vec![text_block(text)] }
    }

    /// The text blocks, joined.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.content.iter().filter_map(block_text).collect();
        texts.join("")
    }
}

/// A call that the model asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub input: Value,
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    EndTurn,
    MaxTokens,
    StopSequence,
    ToolUse,
    PauseTurn,
    Refusal,
    ContextWindowExceeded,
    /// A reason that did not exist when this was written; treated by the content.
    Other(String),
}

impl StopReason {
    pub fn parse(reason: &str) -> Self {
        match reason {
            "end_turn" => Self::EndTurn,
            "max_tokens" => Self::MaxTokens,
            "stop_sequence" => Self::StopSequence,
            "tool_use" => Self::ToolUse,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal,
            "model_context_window_exceeded" => Self::ContextWindowExceeded,
            other => Self::Other(other.to_owned()),
        }
    }

    /// As the API writes it.
    pub fn name(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
            Self::ToolUse => "tool_use",
            Self::PauseTurn => "pause_turn",
            Self::Refusal => "refusal",
            Self::ContextWindowExceeded => "model_context_window_exceeded",
            Self::Other(other) => other,
        }
    }
}

/// Tokens of one answer. `input` excludes what was read from or written to the cache, as the API counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_input_tokens: u64,
    pub cache_creation_input_tokens: u64,
}

impl Usage {
    /// Takes over the fields that are present: in a stream, later figures are cumulative and replace earlier ones.
    pub fn update(&mut self, usage: &Value) {
        let fields = [
            ("input_tokens", &mut self.input_tokens),
            ("output_tokens", &mut self.output_tokens),
            ("cache_read_input_tokens", &mut self.cache_read_input_tokens),
            ("cache_creation_input_tokens", &mut self.cache_creation_input_tokens),
        ];
        for (name, field) in fields {
            if let Some(value) = usage[name].as_u64() {
                *field = value;
            }
        }
    }

    /// Every token that passed, cached or not.
    pub fn total(&self) -> u64 {
        [self.output_tokens, self.cache_read_input_tokens, self.cache_creation_input_tokens]
            .into_iter()
            .fold(self.input_tokens, u64::saturating_add)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        // The figures are a server's word: nonsense must neither panic nor wrap around to less.
        let sum = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        sum(&mut self.input_tokens, other.input_tokens);
        sum(&mut self.output_tokens, other.output_tokens);
        sum(&mut self.cache_read_input_tokens, other.cache_read_input_tokens);
        sum(&mut self.cache_creation_input_tokens, other.cache_creation_input_tokens);
    }
}

pub fn text_block(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// The text of a text block.
pub fn block_text(block: &Value) -> Option<&str> {
    (block["type"] == "text").then(|| block["text"].as_str()).flatten()
}

/// Whether it is thinking that nobody has signed, as servers send it that only speak like the Messages API. That refuses it, with all the
/// rest of a conversation.
pub fn is_unsigned_thinking(block: &Value) -> bool {
    block["type"] == "thinking" && (block["signature"].is_null() || block["signature"] == "")
}

/// The call of a tool_use block.
pub fn block_call(block: &Value) -> Option<ToolCall> {
    (block["type"] == "tool_use").then_some(())?;
    Some(ToolCall {
        id: block["id"].as_str()?.to_owned(),
        name: block["name"].as_str()?.to_owned(),
        input: block["input"].clone(),
    })
}

/// The id that a tool_result block answers.
pub fn block_result_id(block: &Value) -> Option<&str> {
    (block["type"] == "tool_result").then(|| block["tool_use_id"].as_str()).flatten()
}

fn blocks_or_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(vec![text_block(&text)]),
        Value::Array(blocks) => Ok(blocks),
        _ => Err(serde::de::Error::custom("content must be a string or a list of blocks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_usage_replaces_and_does_not_add() {
        let mut usage = Usage::default();
        usage.update(&json!({"input_tokens": 10, "output_tokens": 1}));
        usage.update(&json!({"output_tokens": 25}));
        assert_eq!((usage.input_tokens, usage.output_tokens), (10, 25));
    }
}

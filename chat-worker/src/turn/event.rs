//! The events of one turn, in order. Terminal, page and API show the same stream; its JSON is the API's.

use serde::Serialize;
use serde_json::Value;

use super::machine::Outcome;
use crate::message::{Message, Usage};

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first of every turn.
    Start { request_id: String, model: String },
    /// A piece of the answer.
    Text { text: String },
    /// A piece of what the model thinks before it answers.
    Thinking { text: String },
    /// The answer of this round broke off and begins again: the text since the last tool result or the start is void.
    Restart { reason: String, attempt: u32, after_ms: u64, model: String },
    /// The model wants to call a tool.
    ToolCall {
        id: String,
        name: String,
        server: String,
        tool: String,
        input: Value,
        /// The input letter by letter as it is sent: readers of JSON may round its numbers, and put its fields into another order.
        arguments: String,
        hash: String,
        needs_approval: bool,
    },
    /// The named calls wait for a decision.
    ApprovalRequired { ids: Vec<String> },
    /// The tool runs.
    ToolStart { id: String },
    /// How far it is, in its server's words: a short line. Some are left out where they come too fast.
    ToolProgress { id: String, text: String },
    /// What the call came to.
    ToolResult { id: String, is_error: bool, text: String, duration_ms: u64 },
    /// Something worth knowing, for instance that a server is down.
    Notice { text: String },
    /// The last of every turn that ended as it should.
    Done {
        request_id: String,
        outcome: Outcome,
        model: String,
        usage: Usage,
        /// Dollars; null when the price is unknown.
        cost: Option<f64>,
        /// An earlier answer to the same request was used again.
        cached: bool,
        duration_ms: u64,
        tools_used: Vec<String>,
        /// The whole conversation, to be sent back with the next question.
        messages: Vec<Message>,
    },
    /// The last of every turn that failed. The conversation is as it was before the failed call, and can be resumed.
    Error {
        request_id: String,
        kind: String,
        message: String,
        /// Seconds after which it is worth trying again, where the API said so.
        retry_after: Option<u64>,
        usage: Usage,
        messages: Vec<Message>,
    },
}

impl Event {
    /// The name by which a stream of server-sent events announces it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Text { .. } => "text",
            Self::Thinking { .. } => "thinking",
            Self::Restart { .. } => "restart",
            Self::ToolCall { .. } => "tool_call",
            Self::ApprovalRequired { .. } => "approval_required",
            Self::ToolStart { .. } => "tool_start",
            Self::ToolProgress { .. } => "tool_progress",
            Self::ToolResult { .. } => "tool_result",
            Self::Notice { .. } => "notice",
            Self::Done { .. } => "done",
            Self::Error { .. } => "error",
        }
    }
}

//! The model: what a turn asks of it (`Prompt`), what it gets (`Answer`), and the trait that providers implement.
//! `anthropic` and `openai` are pure, and `api` chooses between the two; `offer` says which tools they are told of and
//! how, `history` makes a conversation fit, `refusal` reads what an API did not take; `retry` decides; `client` talks, and `begun` knows
//! what an attempt costs.

mod anthropic;
pub mod api;
mod assemble;
mod begun;
pub mod client;
mod halves;
mod history;
pub mod key;
pub mod none;
pub mod offer;
mod openai;
mod refusal;
pub mod retry;
mod transport;

use std::{borrow::Cow, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde_json::Value;

use self::offer::Offer;
use crate::{
    message::{Message, StopReason, Usage},
    redact::redact,
    tools::{
        sanitize::{cap, clean_line},
        spec::ToolSpec,
    },
};

/// What is kept of a sentence of the API.
const MAX_SENTENCE: usize = 2_000;

/// What APIs say of a conversation that does not fit. There is no kind for it that they agree on.
const TOO_LONG: [&str; 9] = [
    "prompt is too long",
    "input is too long",
    "context limit",
    "context length",
    "context size",
    "context window",
    "context the overflows",
    "input token count",
    "reduce the length of the messages",
];

/// Everything that one call of the model depends on. Borrowed: a conversation is not copied for each of its rounds.
#[derive(Debug)]
pub struct Prompt<'p> {
    pub system: &'p str,
    /// The tools, as the model is told of them.
    pub offer: Arc<Offer>,
    pub messages: Cow<'p, [Message]>,
    /// Another model than the one of the settings.
    pub model: Option<&'p str>,
    /// False at the round cap: the model must answer with what it has.
    pub allow_tools: bool,
}

/// A complete answer: it ended as the protocol says, or it would not be one.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Content blocks as they came; thinking blocks are replayed unchanged.
    pub content: Vec<Value>,
    pub stop: StopReason,
    pub usage: Usage,
    /// The model that answered, as it names itself.
    pub model: String,
    /// From the first attempt's start to the first token of the attempt that counted.
    pub first_token: Option<Duration>,
    /// The server did not say how many tokens it used: the figures are a guess, and what they cost is not known.
    pub estimated: bool,
}

/// What a picture costs, by Anthropic's page, at the size to which it is brought.
const IMAGE_TOKENS: u64 = 1_600;

/// About how many tokens a prompt has: four bytes to a token.
pub fn estimate(prompt: &Prompt<'_>) -> u64 {
    let tools: usize = prompt.offer.tools.iter().map(|tool| tool.size()).sum();
    let said = serde_json::to_string(&prompt.messages).map_or(0, |text| text.len());
    let blocks = || prompt.messages.iter().flat_map(|message| &message.content);
    let inside = blocks().filter_map(|block| block["content"].as_array()).flatten();
    let images: Vec<usize> = blocks().chain(inside).filter_map(|block| Some(block["source"]["data"].as_str()?.len())).collect();
    let text = said.saturating_sub(images.iter().sum());
    (prompt.system.len() + tools + text) as u64 / 4 + images.len() as u64 * IMAGE_TOKENS
}

/// What happens before the answer is complete.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    Text(String),
    Thinking(String),
    /// The model began to write a tool call; its arguments are still coming.
    ToolUse {
        id: String,
        name: String,
    },
    /// The attempt failed and another follows: whatever was streamed of this answer is void.
    Restart {
        reason: String,
        attempt: u32,
        after: Duration,
        model: String,
    },
}

/// Who is told of progress. The answer waits until it has been taken: a slow reader slows the model down, and fills no memory.
pub trait Listener: Sync {
    fn tell(&self, progress: Progress) -> BoxFuture<'_, ()>;

    /// An attempt ended without an answer, because it broke off or because nobody waits for it any more. It is paid for all the same.
    fn lost(&self, _lost: Lost) {}
}

/// What an attempt cost that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub model: String,
    /// As the API told it.
    pub told: Usage,
    /// What it had not told by then, by what was sent and received. What it cost in dollars is not known.
    pub guessed: Usage,
}

/// Nobody: `()` takes everything and does nothing.
impl Listener for () {
    fn tell(&self, _: Progress) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ModelError {
    #[error("{0}")]
    Key(String),
    #[error("the model API could not be reached: {0}")]
    Connect(String),
    #[error("the model API answered {status}{}: {message}", .kind.as_deref().map(|kind| format!(" ({kind})")).unwrap_or_default())]
    Status { status: u16, kind: Option<String>, message: String, retry_after: Option<Duration> },
    #[error("the answer broke off: {0}")]
    Stream(String),
    /// It would come no shorter the next time.
    #[error("the answer was given up: {0}")]
    TooLarge(String),
    #[error("the model API reported {kind} in mid-answer: {message}")]
    Event { kind: String, message: String },
    /// Whose URL it is, is told to the log only.
    #[error("what {setting} names is not the model API: it {what}")]
    NotTheApi { what: String, setting: &'static str },
    #[error("the model did not answer within {0} s")]
    Deadline(u64),
    /// Nobody was asked.
    #[error(
        "this app's own budget of {limit} tokens a day is used up: ask again in {} s, when it begins anew at midnight UTC, or have \
         CHAT_BUDGET_TOKENS_PER_DAY raised",
        .left.as_secs()
    )]
    Budget { limit: u64, left: Duration },
}

impl ModelError {
    /// A stable name for metrics and for clients.
    pub fn kind(&self) -> &str {
        match self {
            Self::Key(_) => "key",
            Self::Connect(_) => "connect",
            Self::Status { status: 429, .. } | Self::Budget { .. } => "rate_limit",
            Self::Status { kind: Some(kind), .. } | Self::Event { kind, .. } if is_plain(kind) => kind,
            Self::Event { .. } => "event",
            Self::Status { .. } => "status",
            Self::Stream(_) => "stream",
            Self::TooLarge(_) => "too_large",
            Self::NotTheApi { .. } => "not_the_api",
            Self::Deadline(_) => "deadline",
        }
    }

    /// After which time it is worth trying again, in seconds, where that is known.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Status { retry_after, .. } => retry_after.map(|wait| wait.as_secs().max(1)),
            Self::Budget { left, .. } => Some(left.as_secs().max(1)),
            _ => None,
        }
    }

    /// The conversation is too long for the model: shorten it rather than try again.
    pub fn is_too_long(&self) -> bool {
        match self {
            Self::Status { status: 413, .. } => true,
            Self::Status { status: 400, kind, message, .. } => {
                kind.as_deref() == Some("context_length_exceeded") || says_too_long(message)
            }
            Self::Event { kind, message } => {
                matches!(kind.as_str(), "request_too_large" | "context_length_exceeded")
                    || (kind == "invalid_request_error" && says_too_long(message))
            }
            _ => false,
        }
    }

    /// The provider has no capacity: another model may have.
    pub fn is_overload(&self) -> bool {
        match self {
            Self::Status { status, kind, .. } => matches!(status, 529 | 503) || kind.as_deref() == Some("overloaded_error"),
            Self::Event { kind, .. } => kind == "overloaded_error",
            _ => false,
        }
    }
}

fn says_too_long(message: &str) -> bool {
    let message = message.to_lowercase();
    TOO_LONG.iter().any(|words| message.contains(words))
}

/// The names of errors become labels of metrics: what is no name does not.
fn is_plain(kind: &str) -> bool {
    (1..=64).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// What an API says of itself, fit for a log and a terminal: without secrets and control characters, and not endless.
fn sentence(text: &str) -> String {
    cap(redact(&clean_line(text)).into_owned(), MAX_SENTENCE).0
}

/// A provider of answers.
pub trait Model: Send + Sync + std::fmt::Debug {
    /// Asks for one answer. Progress is best effort; only the result counts.
    fn answer<'a>(&'a self, prompt: &'a Prompt<'a>, listener: &'a dyn Listener) -> BoxFuture<'a, Result<Answer, ModelError>>;

    /// What the model can be told of these tools.
    fn offer(&self, tools: Vec<Arc<ToolSpec>>) -> Arc<Offer>;

    /// How many tokens the prompt has, where the API counts; `None` where it does not, or not now.
    fn count<'a>(&'a self, prompt: &'a Prompt<'a>) -> BoxFuture<'a, Option<u64>>;

    /// The model's name, for people.
    fn name(&self) -> &str;

    /// Whose prices hold, in the words of the price list; `None` when nobody's do.
    fn price_list(&self) -> Option<&str>;
}

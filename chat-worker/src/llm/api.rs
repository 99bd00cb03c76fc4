//! The two APIs that models are asked by, and where they differ: paths, headers, bodies, how an answer is read and how an
//! error names itself. Pure. What they have in common (attempts, deadlines, limits) is `client`'s.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    Answer, ModelError, Prompt, anthropic,
    assemble::Assemble,
    openai::{self, body::Unknown},
};
use crate::{message::Usage, numbers};

/// Which API is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// Anthropic's Messages API.
    Anthropic {
        /// The `anthropic-version` header.
        version: String,
    },
    /// Chat Completions, as OpenAI and many servers of one's own speak it.
    OpenAi {
        /// OpenAI's own models know the limit of an answer by a newer name, which other servers do not know.
        completion_limit: bool,
    },
}

impl Api {
    /// Where answers are asked for, below the base URL.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Anthropic { .. } => "v1/messages",
            Self::OpenAi { .. } => "chat/completions",
        }
    }

    /// Where the tokens of a prompt are counted, where that is offered.
    pub fn count_path(&self) -> Option<&'static str> {
        match self {
            Self::Anthropic { .. } => Some("v1/messages/count_tokens"),
            Self::OpenAi { .. } => None,
        }
    }

    /// The setting that says where the API is, for errors that should name it.
    pub fn base_url_setting(&self) -> &'static str {
        match self {
            Self::Anthropic { .. } => "ANTHROPIC_BASE_URL",
            Self::OpenAi { .. } => "OPENAI_BASE_URL",
        }
    }

    /// What the price list calls whoever is behind this base URL. A server of one's own has no price.
    pub fn price_list(&self, base_url: &url::Url) -> Option<&'static str> {
        match self {
            Self::Anthropic { .. } => Some("anthropic"),
            Self::OpenAi { .. } => (base_url.host_str() == Some("api.openai.com")).then_some("openai"),
        }
    }

    /// The headers of every request. A key that no header can hold is sent as a word that says so, for the API to refuse.
    pub fn headers(&self, key: Option<&SecretString>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let (name, prefix) = match self {
            Self::Anthropic { version } => {
                if let Ok(version) = HeaderValue::from_str(version) {
                    headers.insert("anthropic-version", version);
                }
                (HeaderName::from_static("x-api-key"), "")
            }
            Self::OpenAi { .. } => (reqwest::header::AUTHORIZATION, "Bearer "),
        };
        if let Some(key) = key {
            let value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret()));
            let mut value = value.unwrap_or(HeaderValue::from_static("the-key-holds-characters-that-no-header-can"));
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers
    }

    /// The body of a request for an answer, as JSON, without what the server does not know.
    pub fn body(&self, prompt: &Prompt<'_>, model: &str, max_tokens: u32, unknown: Unknown) -> Vec<u8> {
        numbers::release_bytes(match self {
            Self::Anthropic { .. } => anthropic::body::request(prompt, model, max_tokens),
            Self::OpenAi { completion_limit } => {
                openai::body::request(prompt, model, max_tokens, *completion_limit, unknown).to_string().into_bytes()
            }
        })
    }

    /// Reads a stream's events.
    pub fn assembler(&self) -> Box<dyn Assemble> {
        match self {
            Self::Anthropic { .. } => Box::<anthropic::assemble::Assembler>::default(),
            Self::OpenAi { .. } => Box::<openai::assemble::Assembler>::default(),
        }
    }

    /// The tokens that an answer tells which came whole.
    pub fn usage(&self, message: &Value) -> Usage {
        let figures = &message["usage"];
        match self {
            Self::Anthropic { .. } => {
                let mut usage = Usage::default();
                usage.update(figures);
                usage
            }
            Self::OpenAi { .. } => openai::assemble::usage(figures).unwrap_or_default(),
        }
    }

    /// Reads an answer that came whole, from servers that do not stream.
    pub fn whole(&self, message: &Value) -> Result<Answer, ModelError> {
        match self {
            Self::Anthropic { .. } => anthropic::assemble::whole(message),
            Self::OpenAi { .. } => openai::assemble::whole(message),
        }
    }
}

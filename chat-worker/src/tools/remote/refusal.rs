//! What a server says where it refuses a request by its HTTP status.

use std::time::{Duration, SystemTime};

use http::{StatusCode, header};
use mcp_wire::{
    json,
    message::{self, RpcError},
    retry_after,
};
use reqwest::Response;
use tokio::time::timeout;

use crate::tools::{
    asked::Asked,
    sanitize::{cap, clean_line},
};

/// What is read of the body of a refusal.
const MOST: usize = 64 * 1024;
/// And how long it is waited for: it only explains.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is told of it.
const MAX_SAID: usize = 200;

/// A refusal by HTTP status, with what was said.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    said: String,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// What a reply says that is no success; and its error of the protocol, where that is one of a request.
    pub async fn of(reply: Response, asked: Option<&Asked>) -> (Self, Option<RpcError>) {
        let status = reply.status();
        let wait = reply.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wait.and_then(|value| retry_after::read(value, SystemTime::now()));
        let body = timeout(PATIENCE, beginning(reply)).await.unwrap_or_default();
        let text = json::tidy(&body, 16 * MOST).unwrap_or_default();
        let error = asked.and_then(|asked| message::refusal(&text, asked.number()));
        let said = error.as_ref().map_or_else(|| words(&text), |error| error.message.clone());
        (Self { status, said: cap(clean_line(&said), MAX_SAID).0, retry_after }, error)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if self.said.is_empty() { Ok(()) } else { write!(f, ": {}", self.said) }
    }
}

/// What a plain text says; a page says nothing.
fn words(text: &str) -> String {
    let text = text.trim();
    if text.starts_with(['<', '{', '[']) { String::new() } else { text.chars().take(4 * MAX_SAID).collect() }
}

/// As much as is worth reading of a body that only explains; what breaks takes nothing away.
async fn beginning(mut reply: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = reply.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > MOST {
            return Vec::new();
        }
    }
    body
}

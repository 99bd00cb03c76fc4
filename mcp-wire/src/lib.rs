//! What an MCP server sent, judged by one rule wherever it is read. Pure: bytes in, judgements out.
//!
//! `json` makes of bytes what a strict parser reads, and refuses what would become too large in memory; `body` says which bodies are
//! read at all, and `sse` reads events; `message` finds the answer to a request; `hello` says which revision a server speaks and what it offers; `item`
//! whether what it lists can be used; `content` makes results fit for strict types, by `shape`; `question` says what a client is asked in a call,
//! and may think about; `headers` what a request says of itself beside its body; `redirect` which redirects lead nowhere else; `mask` takes out of what it says the values that it was given; `retry_after` how long a server asks to be left alone; `jsonc` how the files are written that list servers.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod body;
pub mod content;
pub mod headers;
pub mod hello;
pub mod item;
pub mod json;
pub mod jsonc;
pub mod mask;
pub mod message;
pub mod question;
pub mod redirect;
pub mod retry_after;
mod shape;
pub mod sse;

//! What an MCP server sent, judged by one rule wherever it is read. Pure: bytes in, judgements out.
//!
//! `json` makes of bytes what a strict parser reads, and refuses what would become too large in memory; `body` says which bodies are
//! read at all, and `sse` reads events; `message` finds the answer to a request; `hello` says which revision a server speaks and what it offers; `item`
//! whether what it lists can be used; `content` makes results fit for strict types, by `shape`; `redirect` says which redirects lead nowhere
//! else; `jsonc` how the files are written that list servers.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod body;
pub mod content;
pub mod hello;
pub mod item;
pub mod json;
pub mod jsonc;
pub mod message;
pub mod redirect;
mod shape;
pub mod sse;

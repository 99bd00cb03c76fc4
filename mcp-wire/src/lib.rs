//! What an MCP server sent, judged by one rule wherever it is read. Pure: bytes in, judgements out.
//!
//! `json` makes of bytes what a strict parser reads, and refuses what would become too large in memory; `message` finds the answer to a
//! request in it; `tool` says whether a listed tool can be used at all; `redirect` which redirects lead nowhere else; `jsonc` how the files
//! are written that list servers.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod json;
pub mod jsonc;
pub mod message;
pub mod redirect;
pub mod tool;

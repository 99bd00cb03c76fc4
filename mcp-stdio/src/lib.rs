//! Children that speak MCP over standard input and output: they are started in a process group of their own, read line by line and no
//! further than is bearable, and ended with everything that they started. What the lines mean is not known here. And what a command of
//! `npx` or `uvx` would start, and which values of an environment are secrets.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod exit;
pub mod framing;
pub mod group;
pub mod guard;
pub mod orphans;
pub mod package;
pub mod secrets;
pub mod stderr;

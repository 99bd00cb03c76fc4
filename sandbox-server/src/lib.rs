//! SQLite over MCP, safe in front of a model. config reads flags and environment; http is the door, stdio the other one; mcp the protocol,
//! direct the short way past the SDK; db the database; metrics counts; telemetry traces.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking"))]

pub mod audit;
pub mod config;
pub mod db;
pub mod direct;
pub mod http;
pub mod mcp;
pub mod metrics;
pub mod stdio;
pub mod telemetry;

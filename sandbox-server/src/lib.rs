//! SQLite over MCP, safe in front of a model. config reads flags and environment; server serves connections, each in one of its places; http is the door; mcp the
//! protocol; db the database; metrics counts; telemetry traces.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking"))]

pub mod audit;
pub mod config;
pub mod db;
pub mod http;
pub mod mcp;
pub mod metrics;
pub mod places;
pub mod server;
pub mod telemetry;

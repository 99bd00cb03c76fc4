//! The mcpfleet operator.
//!
//! Where does X happen? The API is in `crd`, what we are known by in `names`. A reconcile of an McpServer goes through the files of
//! `mcp_server` in order (observe, validate, build, apply, status), that of an McpApp through those of `mcp_app`. Who is alive is
//! decided in `probe`, and nowhere else. `controllers` says which change wakes which object, `run` what the process consists of.

pub mod admin;
pub mod backoff;
pub mod cache;
pub mod clock;
pub mod conditions;
pub mod config;
pub mod controllers;
pub mod crd;
pub mod digest_key;
#[cfg(test)]
mod fixtures;
pub mod inputs;
pub mod leader;
pub mod mcp_app;
pub mod mcp_server;
pub mod metrics;
pub mod names;
pub mod probe;
pub mod problem;
pub mod reach;
pub mod release;
pub mod requeue;
pub mod run;
pub mod scopes;
pub mod ssa;
pub mod workload;

//! What tests on a real cluster share: a namespace for each test, an operator of its own in it, pods without a kubelet, and an MCP
//! server that can be told to misbehave.

#![allow(clippy::panic, reason = "a test fails by panicking")]

pub mod audit;
pub mod cluster;
pub mod faults;
pub mod mcp;
pub mod pods;

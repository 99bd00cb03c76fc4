//! The chat application over a set of MCP servers: terminal, web page and HTTP API.
//!
//! Where things happen, from the bottom to the top. A module knows those before it, and none after it:
//! - `words`, `numbers`, `written`, `digest`, `redact`: texts and JSON, how they are counted, kept as they were written, and freed of secrets;
//!   `limits` what may be sent, `heavy` where large texts are read, `connection_error` what is told of a host that cannot be reached.
//! - `message`: what a conversation consists of. `current_request`: for whom something is done.
//! - `config`: mcp.json. `audit`, `telemetry`, `logging`: the line of each call, the spans, the log.
//! - `tools`: the servers and what they offer. `policy`: whether a call of a tool may run. `llm`: the model.
//! - `usage`, `reachable`, `metrics`: what it costs, whether the model answers, what is counted.
//! - `turn`: one question to its answer, a pure machine and the driver that does what it says.
//! - `settings`: the command line. `app`: the parts, put together by it.
//! - `ui`: one stream of events, shown in the terminal, the page and the API; and the servers as one, at /mcp.

pub mod app;
pub mod audit;
pub mod config;
mod connection_error;
mod current_request;
mod digest;
mod heavy;
pub mod limits;
pub mod llm;
pub mod logging;
pub mod message;
pub mod metrics;
pub mod numbers;
pub mod policy;
pub mod reachable;
pub mod redact;
pub mod settings;
pub mod telemetry;
pub mod tools;
pub mod turn;
pub mod ui;
pub mod usage;
mod words;
pub mod written;

//! The chat application over a set of MCP servers: terminal, web page and HTTP API.
//!
//! Where things happen: `config` (what is wanted) → `tools` (the servers and what they offer) and `llm` (the model) →
//! `turn` (one question to its answer: a pure machine, and the driver that does what it says) → `ui` (one stream of events,
//! shown in the terminal, the page and the API). `policy` decides whether a call of a tool may run, `heavy` where large texts are read, `written` keeps JSON as it was written, `words` counts. `usage`, `limits`, `metrics`,
//! `reachable`, `met`, `logging`, `telemetry` and `redact` serve all of them.

pub mod app;
pub mod audit;
pub mod config;
mod current_request;
mod digest;
mod heavy;
pub mod limits;
pub mod llm;
pub mod logging;
pub mod message;
mod met;
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

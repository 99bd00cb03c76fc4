//! The bridge: one program in an MCP server's own container that starts it as a child and serves what it says on standard input and output
//! over streamable HTTP. `wire`, `post`, `translate`, `era`, `handshake`, `table` and `respawn` decide and do no input or output; `lane` runs
//! a child, `keeper` and `pool` see that there is one, `door` speaks HTTP, `run` puts them together.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod bridge;
pub mod config;
pub mod copy_self;
pub mod death;
pub mod door;
pub mod era;
pub mod forward;
pub mod handshake;
pub mod install;
pub mod keeper;
pub mod lane;
pub mod metrics;
pub mod outbox;
pub mod pool;
pub mod post;
pub mod respawn;
pub mod run;
pub mod seal;
pub mod sessions;
pub mod stream;
pub mod table;
pub mod trail;
pub mod translate;
pub mod upstream;
pub mod wire;

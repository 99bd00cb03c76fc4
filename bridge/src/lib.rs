//! The bridge: one program in an MCP server's own container that starts it as a child and serves what it says on standard input and output
//! over streamable HTTP; or, with `--upstream`, stands beside a server that serves HTTP itself and counts its calls (`upstream`).
//!
//! `wire`, `post`, `translate`, `era`, `handshake`, `calls`, `death` and `respawn` decide and do no input or output. `lane` is a child and the
//! calls to it, `keeper` (one for all) and `pool` (one a session) see that there is one. `door` speaks HTTP, `outbox` and `stream` are what goes
//! back to a client, `sessions` whose session is which, `seal` their ids, `forward` the way to another replica. `bridge` is what all of them share,
//! `run` puts them together. `install` puts npm's and PyPI's packages in place before, `copy_self` this program. `metrics` and `trail` (spans) tell.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod bridge;
pub mod calls;
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
pub mod trail;
pub mod translate;
pub mod upstream;
pub mod wire;

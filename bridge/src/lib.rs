//! The bridge: one program in an MCP server's own container that starts it as a child and serves what it says on standard input and output
//! over streamable HTTP; or, with `--upstream`, stands beside a server that serves HTTP itself and counts its calls (`upstream`).
//!
//! Where things happen, from the bottom to the top. A module knows those before it, and none after it:
//! - `wire`, `era`, `post`, `translate`: messages, and one era as the other; `handshake` which of them a child speaks. `last_words`, `death`,
//!   `respawn`: why it ended, and what follows.
//! - `metrics`, `trail`: what is counted, and what is told of a call. `outbox`: what goes back to a client.
//! - `seal`, `session`: a client with a session. `told`, `listeners`: what a child tells by itself, and who hears it.
//! - `calls`: which call is whose, and what follows from what a child says; up to here, nothing waits. `lane`: a child, and the calls to it.
//! - `sessions`: whose session is which, and its child. `keeper` (one for all) and `pool` (one a session) see that there is one. `config`: the
//!   command line.
//! - `stream`: the answer to a client. `forward`: the way to another replica. `bridge`: what all requests share. `door`: HTTP.
//! - `install` puts npm's and PyPI's packages in place before, `copy_self` this program. `run` puts the parts together, `upstream` is the
//!   bridge beside a server.

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
mod last_words;
pub mod listeners;
pub mod metrics;
pub mod outbox;
pub mod pool;
pub mod post;
pub mod respawn;
pub mod run;
pub mod seal;
pub mod session;
pub mod sessions;
pub mod stream;
pub mod told;
pub mod trail;
pub mod translate;
pub mod unread;
pub mod upstream;
pub mod wire;

//! The program as it is started in a pod: over HTTP on one side, with a real child on the other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "what is sent is written where it is sent")]

mod accept;
mod cancel;
mod deaths;
mod eras;
mod excess;
mod installs;
mod kills;
mod replicas;
mod run;
mod sessions;
mod streams;
mod support;
mod traces;
mod upstream;

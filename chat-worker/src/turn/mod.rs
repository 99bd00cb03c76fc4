//! One turn of a conversation: `machine` decides (pure), `transcript` keeps the messages valid (pure; `outside` those that callers send, `opening` what a
//! turn begins with),
//! `driver` does what the machine asks for and tells everybody about it, by the one stream of `event`s; `run` is what it has come to so far,
//! `asking` and `running` are the model and the tools, `compact` makes it shorter, and `cache` keeps its answer.

mod asking;
pub mod cache;
mod compact;
pub mod driver;
pub mod event;
pub mod machine;
pub mod opening;
mod outside;
pub mod run;
mod running;
pub mod transcript;

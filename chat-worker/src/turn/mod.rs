//! One turn of a conversation: `machine` decides (pure), `transcript` keeps the messages valid (pure; `outside` those that callers send), `driver` does
//! what the machine asks for and tells everybody about it.

mod asking;
pub mod cache;
mod compact;
pub mod driver;
pub mod machine;
mod outside;
mod running;
pub mod transcript;

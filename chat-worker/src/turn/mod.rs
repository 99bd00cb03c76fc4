//! One turn of a conversation: `machine` decides (pure), `transcript` keeps the messages valid (pure), `driver` does
//! what the machine asks for and tells everybody about it.

mod asking;
pub mod cache;
mod compact;
pub mod driver;
pub mod machine;
mod running;
pub mod transcript;

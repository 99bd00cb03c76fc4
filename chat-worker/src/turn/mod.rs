//! One turn of a conversation: `machine` decides (pure), `transcript` keeps the messages valid (pure), `driver` does
//! what the machine asks for and tells everybody about it.

pub mod driver;
pub mod machine;
pub mod transcript;

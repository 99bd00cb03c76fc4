//! The terminal: `ask` answers one question, `chat` talks with a person, `input` reads what they type, `commands` are
//! those that begin with a slash, `store` keeps the last conversation, and `render` turns events into lines.

pub mod ask;
pub mod chat;
pub mod commands;
pub mod input;
pub mod render;
pub mod store;

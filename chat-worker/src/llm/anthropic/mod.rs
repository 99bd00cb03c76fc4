//! Anthropic's Messages API: what is sent (`body`), and how its answers are read (`assemble`, `block`). Pure.

pub mod assemble;
mod block;
pub mod body;

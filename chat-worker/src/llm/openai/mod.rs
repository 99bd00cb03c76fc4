//! Chat Completions: what is sent (`body`), and how its answers are read (`assemble`, `calls`). Pure. The conversation is kept
//! in the Messages API's form throughout, and translated here.
//!
//! Why no crate stands behind this: those that speak many APIs (genai 0.7.2 was read) take an error inside a stream for a chunk
//! without choices, set no limit to what they collect, and bring a second TLS provider. What remains is these three files.

pub mod assemble;
pub mod body;
mod calls;

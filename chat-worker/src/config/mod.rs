//! mcp.json, the configuration of the servers: `file` is all of it (pure), each `entry` of it by its `fields` and with its `variables`, what is
//! `unknown` and what `rules` it gives for tools, which makes a `server`; `watch` reloads it, `check` says what is wrong with it.

pub mod check;
mod entry;
mod fields;
pub mod file;
pub mod rules;
pub mod server;
mod unknown;
mod variables;
pub mod watch;

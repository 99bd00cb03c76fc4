//! Configuration: `settings` is the command line and the environment, read once; `file` is mcp.json (pure); `watch`
//! reloads it.

pub mod file;
pub mod rules;
pub mod settings;
pub mod watch;

//! The tools of every configured MCP server: `catalogue` names and describes them (pure), `sanitize` cleans what servers
//! say (pure), `breaker` decides when a server is left alone (pure), `pace` how fast it may talk, `connection` speaks to one
//! server, `child` starts those that are programs and `stdio` is the pipe to them, `server` keeps one connected, and `hub` is
//! all of them.

pub mod breaker;
pub mod catalogue;
pub mod child;
pub mod connection;
mod http;
pub mod hub;
mod pace;
pub mod sanitize;
pub mod server;
mod stdio;

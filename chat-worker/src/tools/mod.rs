//! The tools of every configured MCP server: `catalogue` names and describes them (pure), `sanitize` cleans what servers
//! say (pure), `breaker` decides when a server is left alone (pure), `connection` speaks to one server, `child`
//! starts those that are programs, `server` keeps one connected, and `hub` is all of them.

pub mod breaker;
pub mod catalogue;
pub mod child;
pub mod connection;
mod http;
pub mod hub;
pub mod sanitize;
pub mod server;

//! The tools of every configured MCP server: `catalogue` names and describes them (pure), `sanitize` cleans what servers
//! say (pure), `breaker` decides when a server is left alone (pure), `pace` how fast it may talk, `asked` what its answers are
//! (pure), `connection` speaks to one server, `remote` is the way to it by HTTP with its `credentials`, `child` starts those that are programs and `stdio` is the pipe to them, `server` keeps one connected, and `hub` is
//! all of them.

mod asked;
pub mod breaker;
pub mod catalogue;
pub mod child;
pub mod connection;
mod credentials;
mod http;
pub mod hub;
mod pace;
mod remote;
pub mod sanitize;
pub mod server;
mod stdio;

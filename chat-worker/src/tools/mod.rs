//! The tools of every configured MCP server: `catalogue` names and describes them (pure), `sanitize` cleans what servers
//! say (pure), `answer` is what a call came to (pure), `beyond` what servers offer beside tools, `first_seen` what tools were at first,
//! `breaker` decides when a server is left alone (pure), `pace` how fast it may talk, `asked` what its answers are (pure), `relay` whom it
//! may speak to while it works, `connection`
//! speaks to one server, `remote` is the way to it by HTTP with its `credentials`, `child` starts those that are programs and `stdio` is the
//! pipe to them, `server` keeps one connected, and `hub` is all of them.

pub mod answer;
mod asked;
pub mod beyond;
pub mod breaker;
pub mod catalogue;
pub mod child;
pub mod connection;
mod credentials;
pub mod first_seen;
mod http;
pub mod hub;
mod pace;
pub mod relay;
mod remote;
pub mod sanitize;
pub mod server;
mod stdio;

pub use asked::MODERN;

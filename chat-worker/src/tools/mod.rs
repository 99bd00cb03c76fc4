//! The tools of every configured MCP server: `spec` is one tool and `catalogue` all that are offered (pure), `sanitize` cleans what servers
//! say (pure), `answer` is what a call came to (pure), `live` and `resources_prompts` are what servers offer beside tools, `quoted` what of that a question is made of (pure), `first_seen` what tools were
//! at first, `breaker` decides when a server is left alone (pure), `pace` how fast it may talk, `asked` what its answers are (pure), `relay`
//! whom it may speak to while it works, `question` what it may ask (pure), `pages` who is told later that a page is done, `watches` which single resources clients watch, and `subscribed` asks a server to tell of them, `level` which messages of it are wanted, `connection` opens the way to one server, `opening` says in which era (pure), `request` goes it for one request, `sending` is that request as it is sent, `error` and `failure`
//! are what goes wrong there, `remote` is the way by HTTP with its `credentials`, `child` starts servers that are programs, `absent` says what of them is not on this machine, `stdio` is the
//! pipe to them, `server` keeps one connected, and `hub` is all of them.

pub mod absent;
pub mod answer;
pub mod asked;
pub mod breaker;
pub mod catalogue;
pub mod child;
pub mod connection;
mod credentials;
pub mod error;
mod failure;
pub mod first_seen;
mod http;
pub mod hub;
pub mod level;
pub mod live;
mod opening;
pub mod pace;
pub mod pages;
pub mod question;
pub mod quoted;
pub mod relay;
mod remote;
pub mod request;
pub mod resources_prompts;
pub mod sanitize;
mod sending;
pub mod server;
pub mod spec;
mod stdio;
mod subscribed;
pub mod watches;

pub use mcp_wire::hello::MODERN;

/// A message of a server larger than this is a fault.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;

//! The bearer tokens: those of the door that all our programs share.

pub use http_server::token::{TokenError, Tokens};

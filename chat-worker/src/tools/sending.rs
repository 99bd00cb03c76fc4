//! A request on its way: what `request` makes of it, and `remote` and `stdio` send.

use super::asked::Asked;

/// A request as it is sent.
#[derive(Debug)]
pub struct Sending {
    pub asked: Asked,
    pub body: Vec<u8>,
    /// What it says of itself beside its body, in the modern era.
    pub headers: http::HeaderMap,
    /// The id of the request of ours that it belongs to: the server's own log may name it, too.
    pub called_for: Option<String>,
}

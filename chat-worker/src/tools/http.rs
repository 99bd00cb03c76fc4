//! The HTTP clients of the hub: one that all servers share, and one of its own for a server that wants a private CA.

use std::time::Duration;

use mcp_wire::headers;
use reqwest::{Certificate, Client, ClientBuilder};

use super::error::ServerError;
use crate::config::server::ServerEntry;

/// The client that servers without a CA of their own share.
pub fn shared() -> reqwest::Result<Client> {
    builder().build()
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("mcpfleet-chat-worker/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http1_max_headers(headers::MOST)
        // A user agent reads a header on two lines as one (RFC 9112, 5.2).
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        // A server that ends closes what nobody uses: a call that is just being sent on it is lost, and nobody knows whether it was made. Ours
        // serve on for 3 s after they were told to end, and each answer of that time is the last of its connection: one that was used within
        // less than that is not closed under a call.
        .pool_idle_timeout(Duration::from_secs(2))
        // Which redirects are followed is decided by `remote`.
        .redirect(reqwest::redirect::Policy::none())
}

/// The client for a server. Its CA is read at every connection.
pub fn of(entry: &ServerEntry, shared: &Client) -> Result<Client, ServerError> {
    let Some(file) = &entry.ca_file else { return Ok(shared.clone()) };
    let unusable =
        |error: &dyn std::error::Error| ServerError::Credentials(format!("{} cannot be used: {error}", file.display()));
    let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error))?;
    builder().tls_certs_only(certificates).build().map_err(|error| unusable(&error))
}

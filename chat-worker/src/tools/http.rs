//! The HTTP clients of the hub: one that all servers share, and one of its own for a server that wants credentials or a private CA.

use std::{path::Path, time::Duration};

use reqwest::{
    Certificate, Client, ClientBuilder,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::connection::ServerError;
use crate::config::file::ServerEntry;

/// The client that servers without credentials share.
pub fn shared() -> reqwest::Result<Client> {
    builder().build()
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("mcpfleet-chat-worker/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .pool_idle_timeout(Duration::from_mins(1))
        // Arguments must not go to a host that nobody configured.
        .redirect(reqwest::redirect::Policy::none())
}

/// The client for a server. Its files are read at every connection, so that a renewed credential is taken up by the next one.
pub fn of(entry: &ServerEntry, shared: &Client) -> Result<Client, ServerError> {
    if entry.headers_from.is_empty() && entry.ca_file.is_none() {
        return Ok(shared.clone());
    }
    let mut headers = HeaderMap::new();
    for (name, file) in &entry.headers_from {
        let bytes = read(file)?;
        let header = HeaderName::from_bytes(name.as_bytes());
        let (Ok(header), Ok(mut value)) = (header, HeaderValue::from_bytes(bytes.trim_ascii_end())) else {
            return Err(ServerError::Credentials(format!("the content of {} cannot be the header {name}", file.display())));
        };
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    let mut builder = builder().default_headers(headers);
    if let Some(file) = &entry.ca_file {
        let certificates = Certificate::from_pem_bundle(&read(file)?).map_err(|error| unusable(file, &error))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| ServerError::Credentials(error.to_string()))
}

fn read(file: &Path) -> Result<Vec<u8>, ServerError> {
    std::fs::read(file).map_err(|error| unusable(file, &error))
}

fn unusable(file: &Path, error: &dyn std::error::Error) -> ServerError {
    ServerError::Credentials(format!("{} cannot be used: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::parse;

    fn entry(file: &str) -> ServerEntry {
        let text = format!(
            r#"{{"servers": [{{"name": "a", "url": "https://a/mcp", "headers_from": [{{"name": "Authorization", "file": {file:?}}}]}}]}}"#
        );
        parse(&text).expect("valid").servers.remove(0)
    }

    #[tokio::test]
    async fn a_missing_and_an_impossible_credential_are_told_without_their_value() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = shared().expect("a client");
        let missing = of(&entry("/nowhere/token"), &shared).expect_err("no such file").to_string();
        assert!(missing.contains("/nowhere/token"), "{missing}");

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "Bearer top\nsecret").expect("written");
        let impossible = of(&entry(&file.display().to_string()), &shared).expect_err("no header").to_string();
        assert!(impossible.contains("Authorization") && !impossible.contains("top"), "{impossible}");
        std::fs::write(&file, "Bearer fine\n").expect("written");
        of(&entry(&file.display().to_string()), &shared).expect("a client");
    }
}

//! The way to the bridge that has a session's child: any replica takes a request and hands it on to the one that owns it.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Says that a request was handed on once, and must not be again.
pub const FORWARDED: HeaderName = HeaderName::from_static("mcpfleet-forwarded");

/// A pod that is gone does not refuse a connection, it says nothing.
const CONNECT: Duration = Duration::from_secs(1);

/// Connections that are kept for the next request.
const IDLE: Duration = Duration::from_secs(20);

/// Why a request did not come back answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// It never arrived.
    Unreachable,
    /// It may have arrived.
    Lost,
}

/// See the file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Forward(Client<HttpConnector, Full<Bytes>>);

impl Default for Forward {
    fn default() -> Self {
        Self(client())
    }
}

/// A client that keeps connections for a while.
pub fn client() -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
}

impl Forward {
    /// The owner's answer, as it comes.
    pub async fn send(&self, pod: &str, parts: &Parts, body: Bytes) -> Result<Response, Failed> {
        let path = parts.uri.path_and_query().map_or("/mcp", http::uri::PathAndQuery::as_str);
        let uri: Uri = format!("http://{pod}{path}").parse().map_err(|_| Failed::Unreachable)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = end_to_end(&parts.headers);
        request.headers_mut().insert(FORWARDED, HeaderValue::from_static("1"));
        match self.0.request(request).await {
            Ok(response) => {
                let mut response = response.map(Body::new);
                *response.headers_mut() = end_to_end(response.headers());
                Ok(response)
            }
            Err(error) if error.is_connect() => Err(Failed::Unreachable),
            Err(error) => {
                tracing::debug!(%error, pod, "a request to another replica was lost");
                Err(Failed::Lost)
            }
        }
    }
}

/// Without what belongs to one connection.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const HOP: [HeaderName; 6] = [
        CONNECTION,
        HOST,
        TRANSFER_ENCODING,
        http::header::CONTENT_LENGTH,
        http::header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ];
    headers.iter().filter(|(name, _)| !HOP.contains(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

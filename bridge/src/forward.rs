//! The way to another pod: any replica takes a request and hands it on to the one that owns its session, and the activator hands calls on
//! to servers that woke.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use http_server::request_id;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Says that a request was handed on once, and must not be again. In an answer it says that nothing was done: whoever handed the request on
/// is to answer it, because the one that it was for is about to end.
pub const FORWARDED: HeaderName = HeaderName::from_static("mcpfleet-forwarded");

/// A pod that is gone does not refuse a connection, it says nothing.
const CONNECT: Duration = Duration::from_secs(1);

/// Connections that are kept for the next request: for less time than a pod serves on that was told to end, and that says in each answer of
/// that time that it is the last of its connection. So none is used while the other end closes it.
const IDLE: Duration = Duration::from_secs(1);

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
pub fn client<B>() -> Client<HttpConnector, B>
where
    B: HttpBody<Data: Send> + Send,
{
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
}

impl Forward {
    /// The owner's answer, as it comes.
    pub async fn send(&self, pod: &str, parts: &Parts, body: Bytes) -> Result<Response, Failed> {
        let mut headers = end_to_end(&parts.headers);
        headers.insert(FORWARDED, HeaderValue::from_static("1"));
        // Its span there is a part of ours.
        let members = traces::members(&opentelemetry::Context::current()).into_iter();
        headers.extend(members.filter_map(|(name, value)| Some((HeaderName::from_static(name), value.try_into().ok()?))));
        self.pass(pod, parts, headers, body).await
    }

    /// The answer to a request with these headers and no others, as it comes. Where they name no `Host`, the pod is it.
    pub async fn pass(&self, pod: &str, parts: &Parts, headers: HeaderMap, body: Bytes) -> Result<Response, Failed> {
        let path = parts.uri.path_and_query().map_or("/mcp", http::uri::PathAndQuery::as_str);
        let uri: Uri = format!("http://{pod}{path}").parse().map_err(|_| Failed::Unreachable)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        match self.0.request(request).await {
            Ok(response) => {
                let mut response = response.map(Body::new);
                *response.headers_mut() = end_to_end(response.headers());
                Ok(response)
            }
            Err(error) if error.is_connect() => Err(Failed::Unreachable),
            Err(error) => {
                tracing::debug!(%error, pod, request_id = request_id::of(&parts.headers), "a request to a pod was lost");
                Err(Failed::Lost)
            }
        }
    }
}

/// The answer of one that is about to end to what it was handed.
pub fn back() -> Response {
    let mut response = StatusCode::MISDIRECTED_REQUEST.into_response();
    response.headers_mut().insert(FORWARDED, HeaderValue::from_static("back"));
    response
}

/// Whether it is such an answer.
pub fn is_back(response: &Response) -> bool {
    response.status() == StatusCode::MISDIRECTED_REQUEST && response.headers().contains_key(FORWARDED)
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

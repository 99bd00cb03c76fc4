//! HTTP: paths, methods, and the checks that a request passes before its message is read.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_server::body::{self, BodyError};
use http_server::host::only;
use http_server::{json_rpc, request_id};
use tower::{Service, service_fn};

use crate::bridge::{Bridge, own_error};
use crate::era::{Era, MODERN};
use crate::post::{Envelope, Malformed, Post};
use crate::stream::Form;
use crate::trail::Served;

mod legacy;
mod modern;

/// Where MCP is.
const MCP: &str = "/mcp";

/// A body that trickles in slower than this is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing more is taken for a child.
const DEAF: &str = "the server does not read what it is sent";

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Everything that is served. An answer in the making is as large as the largest thing that it may wait for, and is moved from hand to hand
/// before it begins: so it is boxed here, and below whatever is not a call.
pub fn service(bridge: Arc<Bridge>) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
    service_fn(move |request: Request| {
        let bridge = Arc::clone(&bridge);
        Box::pin(async move { Ok(request_id::with(request, |request| answer(&bridge, request)).await) })
    })
}

async fn answer(bridge: &Arc<Bridge>, request: Request) -> Response {
    if let Some(refusal) = refuses_names(bridge, &request) {
        return refusal;
    }
    match request.uri().path() {
        MCP | "/mcp/" => mcp(bridge, request).await,
        "/healthz" => "ok\n".into_response(),
        "/readyz" if bridge.is_ready() => "ok\n".into_response(),
        "/readyz" => {
            let words = if bridge.is_draining() { "shutting down\n" } else { "the server has not said what it is yet\n" };
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
        "/metrics" => bridge.measured().into_response(),
        _ => (StatusCode::NOT_FOUND, "Not Found: MCP is at /mcp\n").into_response(),
    }
}

/// The refusal, when a request must not ask for whom it asks, or not from the page that it comes from.
fn refuses_names(bridge: &Bridge, request: &Request) -> Option<Response> {
    let foreign = bridge.names.judge(request.uri(), request.headers()).err()?;
    let (status, reason, words) = foreign.refusal("the bridge");
    bridge.metrics.refuse(reason);
    Some((status, words).into_response())
}

async fn mcp(bridge: &Arc<Bridge>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match parts.method {
        Method::POST => match read(bridge, &parts.headers, body).await {
            Ok(body) => match json_rpc::batch(&parts.headers, &body) {
                Some(messages) => {
                    let one = |_, parts, body| async move { post(bridge, &parts, body).await };
                    Box::pin(json_rpc::several(parts, messages, one)).await
                }
                None => post(bridge, &parts, body).await,
            },
            Err(refusal) => *refusal,
        },
        Method::GET | Method::DELETE if only(&parts.headers, &VERSION) == Some(MODERN) => not_allowed("POST"),
        Method::GET => Box::pin(legacy::get(bridge, &parts)).await,
        Method::DELETE => Box::pin(legacy::delete(bridge, &parts)).await,
        _ => not_allowed("GET, POST, DELETE"),
    }
}

async fn read(bridge: &Bridge, headers: &HeaderMap, body: Body) -> Result<Bytes, Box<Response>> {
    let refuse = |status: StatusCode, reason: &str, words: &'static str| {
        bridge.metrics.refuse(reason);
        Err(Box::new((status, words).into_response()))
    };
    if Form::of(headers).is_none() {
        return refuse(StatusCode::NOT_ACCEPTABLE, "accept", "Not Acceptable: take application/json, and text/event-stream\n");
    }
    let kind = only(headers, &CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", "Unsupported Media Type: send application/json\n");
    }
    match body::whole(body, bridge.max_request_bytes, BODY_TIMEOUT).await {
        Ok(bytes) => Ok(bytes),
        Err(BodyError::TooLarge) => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, "size", "Payload Too Large: send less, or raise --max-request-bytes\n")
        }
        Err(BodyError::Slow) => refuse(StatusCode::REQUEST_TIMEOUT, "slow", "Request Timeout: the body did not arrive in time\n"),
        Err(BodyError::Broken) => refuse(StatusCode::BAD_REQUEST, "body", "Bad Request: the body is broken or ended early\n"),
    }
}

async fn post(bridge: &Arc<Bridge>, parts: &Parts, body: Bytes) -> Response {
    let post = match Post::read(&body) {
        Ok(post) => post,
        Err(malformed) => {
            bridge.metrics.refuse("malformed");
            let (code, words) = match malformed {
                Malformed::Parse(error) => (-32700, format!("Parse error: {error}")),
                Malformed::Invalid => (-32600, "Invalid Request: the body must be one JSON-RPC 2.0 message".to_owned()),
            };
            return own_error(StatusCode::BAD_REQUEST, "null", code, &words);
        }
    };
    match (&bridge.traces, &post) {
        (Some(traces), Post::Request(envelope)) => {
            let served = Served::begin(traces, &parts.headers, envelope);
            Box::pin(served.answer(spoken(bridge, parts, post))).await
        }
        _ => spoken(bridge, parts, post).await,
    }
}

/// A message, in the era that it is of.
async fn spoken(bridge: &Arc<Bridge>, parts: &Parts, post: Post) -> Response {
    let says_modern = only(&parts.headers, &VERSION) == Some(MODERN);
    match post {
        Post::Request(envelope) if is_modern(&envelope, says_modern) => modern::request(bridge, parts, envelope).await,
        // Whoever speaks without sessions cancels by hanging up, and answers nothing.
        Post::Notification { .. } | Post::Answer { .. } if says_modern => StatusCode::ACCEPTED.into_response(),
        post => legacy::post(bridge, parts, post).await,
    }
}

/// The refusal of a request of 2026-07-28 whose headers belie its body.
pub fn belied(headers: &HeaderMap, envelope: &Envelope) -> Option<Response> {
    let says_modern = only(headers, &VERSION) == Some(MODERN);
    is_modern(envelope, says_modern).then(|| modern::refused(headers, envelope)).flatten()
}

/// Whoever begins a session may name the latest revision that it knows; only one that speaks that revision says so in `_meta`, too.
fn is_modern(envelope: &Envelope, says_modern: bool) -> bool {
    let means_modern = envelope.era == Era::Modern;
    if &*envelope.method == "initialize" { says_modern && means_modern } else { says_modern || means_modern }
}

fn not_allowed(methods: &'static str) -> Response {
    let mut response = (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

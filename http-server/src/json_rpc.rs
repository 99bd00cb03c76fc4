//! What an MCP endpoint says to a body that is no message.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::de::IgnoredAny;
use serde_json::json;

/// Makes a request that takes JSON say so in the words that the SDK asks for: it wants both media types by name, and refuses `*/*`,
/// `application/*`, `application/json` alone and no `Accept` at all, which by HTTP are as good.
pub fn accept(headers: &mut HeaderMap) {
    if takes_json(headers) {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    }
}

/// Whether a request takes JSON, by the rules of HTTP.
pub fn takes_json(headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(ACCEPT).iter().peekable();
    given.peek().is_none() || given.filter_map(|value| value.to_str().ok()).any(names_json)
}

fn names_json(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)));
        matches!(kind.as_str(), "" | "*/*" | "application/*" | "application/json") && !refused
    })
}

/// Hands a request with its whole body on to the MCP SDK. The SDK takes JSON that is no message of a client for another media type (415);
/// here it is told so in JSON-RPC's own words.
pub async fn run(mut parts: Parts, body: Bytes, sdk: impl AsyncFnOnce(Request) -> Response) -> Response {
    if parts.method == Method::POST {
        accept(&mut parts.headers);
    }
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
    let response = sdk(Request::from_parts(parts, Body::from(body.clone()))).await;
    if is_json && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE { no_message(&body) } else { response }
}

/// 400, with the code of what is wrong. <https://www.jsonrpc.org/specification#error_object>
fn no_message(sent: &[u8]) -> Response {
    let (code, message) = match serde_json::from_slice::<IgnoredAny>(sent) {
        Err(error) => (-32700, format!("Parse error: {error}")),
        Ok(_) => (-32600, "Invalid Request: the body must be one JSON-RPC 2.0 message of a client".to_owned()),
    };
    let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_json_gets_it() {
        let told = |accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            super::accept(&mut headers);
            headers.get(ACCEPT).is_some_and(|accept| accept == "application/json, text/event-stream")
        };
        for accept in [
            None,
            Some("*/*"),
            Some("application/json"),
            Some("application/*"),
            Some("text/html, */*;q=0.8"),
            Some("Application/JSON"),
            Some("text/event-stream, application/json"),
            Some(""),
        ] {
            assert!(told(accept), "{accept:?}");
        }
        for accept in [Some("text/event-stream"), Some("text/html"), Some("application/json;q=0"), Some("application/xml")] {
            assert!(!told(accept), "{accept:?}");
        }
    }
}

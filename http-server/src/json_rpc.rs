//! What an MCP endpoint says to a body that is no message.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::IgnoredAny;
use serde_json::json;

/// Hands a request with its whole body on to the MCP SDK. The SDK takes JSON that is no message of a client for another media type (415);
/// here it is told so in JSON-RPC's own words.
pub async fn run(parts: Parts, body: Bytes, sdk: impl AsyncFnOnce(Request) -> Response) -> Response {
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

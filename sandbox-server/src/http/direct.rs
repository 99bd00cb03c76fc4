//! The short way for the commonest request: a complete, well-formed `tools/call` of 2026-07-28. The SDK's way through a transport, a
//! peer and several tasks costs more than most statements do. Whatever is not beyond doubt goes the SDK's way, so that every refusal,
//! every earlier era and every stream of progress is the SDK's own; tests/it/direct.rs holds the two ways to the same bytes.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rmcp::model::{JsonObject, ProtocolVersion, RequestId, RequestMetaObject, ServerJsonRpcMessage, ServerResult};
use serde::Deserialize;

use super::only;
use crate::mcp::SqliteMcp;
use crate::mcp::tools;

const METHOD: &str = "tools/call";
const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// A call that needs nothing of the SDK.
#[derive(Debug)]
pub struct DirectCall {
    id: RequestId,
    tool: &'static str,
    arguments: Option<JsonObject>,
    meta: RequestMetaObject,
}

/// The only shape that is taken: an unknown, missing or doubled field is for the SDK to judge.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    jsonrpc: &'a str,
    id: RequestId,
    method: &'a str,
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params<'a> {
    name: &'a str,
    #[serde(default)]
    arguments: Option<JsonObject>,
    #[serde(rename = "_meta")]
    meta: RequestMetaObject,
}

impl DirectCall {
    /// Reads a request; None: the SDK's.
    pub fn read(method: &Method, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let version = ProtocolVersion::V_2026_07_28;
        let plain = method == Method::POST
            && only(headers, &METHOD_HEADER) == Some(METHOD)
            && only(headers, &VERSION_HEADER) == Some(version.as_str())
            && only(headers, &CONTENT_TYPE) == Some("application/json")
            && matches!(
                only(headers, &ACCEPT),
                Some("application/json, text/event-stream" | "application/json,text/event-stream")
            );
        if !plain {
            return None;
        }
        let Envelope { jsonrpc, id, method, params: Params { name, arguments, meta } } = serde_json::from_slice(body).ok()?;
        let complete = meta.protocol_version() == Some(version) && meta.client_capabilities().is_some();
        // Progress is sent while a call runs, and then the answer is a stream.
        let streams = meta.contains_key("progressToken");
        if jsonrpc != "2.0" || method != METHOD || only(headers, &NAME_HEADER) != Some(name) || !complete || streams {
            return None;
        }
        Some(Self { id, tool: tools::known(name)?, arguments, meta })
    }

    /// Runs the call. None: the answer could not be written as JSON, or the call's task failed.
    pub async fn answer(self, handler: &SqliteMcp, headers: HeaderMap) -> Option<Response> {
        let Self { id, tool, arguments, meta } = self;
        let result = handler.call_apart(tool, arguments, meta, headers).await?;
        let message = ServerJsonRpcMessage::response(ServerResult::CallToolResult(result), id);
        let mut response = Response::new(Body::from(serde_json::to_vec(&message).ok()?));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Some(response)
    }
}

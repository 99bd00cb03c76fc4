//! The short way for the commonest request: a complete, well-formed `tools/call`, of 2026-07-28 or of an earlier revision without a
//! session. The SDK's way through a transport, a peer and several tasks costs more than most statements do. Whatever is not beyond doubt
//! goes the SDK's way, so that every refusal and every stream of progress is the SDK's own; tests/it/direct.rs holds the two ways to the
//! same bytes.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_server::host::only;
use rmcp::model::{CallToolResult, ErrorData, RequestId, RequestMetaObject, ServerJsonRpcMessage, ServerResult};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::meta::Meta;
use crate::db::turns::Caller;
use crate::mcp::SqliteMcp;
use crate::mcp::tools::{self, ToolCall};

const METHOD: &str = "tools/call";
const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// Which rules a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    /// 2026-07-28: everything about a call is in its headers and its `_meta`.
    Modern,
    /// 2025-03-26 to 2025-11-25.
    Legacy,
}

impl Era {
    /// By the header alone; None: not one for the short way.
    fn of(headers: &HeaderMap, legacy: bool) -> Option<Self> {
        if !headers.contains_key(&VERSION_HEADER) {
            return legacy.then_some(Self::Legacy);
        }
        match only(headers, &VERSION_HEADER)? {
            "2026-07-28" => (only(headers, &METHOD_HEADER)? == METHOD).then_some(Self::Modern),
            "2025-11-25" | "2025-06-18" | "2025-03-26" => legacy.then_some(Self::Legacy),
            _ => None,
        }
    }

    /// Whether the rest of a request fits it.
    fn fits(self, headers: &HeaderMap, name: &str, meta: &Meta) -> bool {
        !meta.asks_for_progress
            && match self {
                Self::Modern => only(headers, &NAME_HEADER) == Some(name) && meta.is_modern && meta.has_capabilities,
                Self::Legacy => !meta.speaks_of_the_protocol,
            }
    }
}

/// Nothing but the `_meta` of a message.
#[derive(Deserialize)]
struct OnlyMeta {
    params: HasMeta,
}

#[derive(Deserialize)]
struct HasMeta {
    #[serde(default, rename = "_meta")]
    meta: RequestMetaObject,
}

/// A call as it is handed to who answers it.
#[derive(Debug)]
pub struct Called<'a> {
    /// The tool.
    pub tool: &'static str,
    /// The JSON of its arguments, as it was sent; None: there are none.
    pub arguments: Option<&'a str>,
    /// Empty unless `passes_meta_on`.
    pub meta: RequestMetaObject,
    /// The request's headers.
    pub headers: HeaderMap,
    /// Whose share of the server it uses.
    pub who: Caller,
}

/// What answers calls on the short way.
pub trait Answers: Clone + Send + Sync + 'static {
    /// Whether the SDK hands over arguments as they were sent, wrapped (mcp/arguments.rs), and not as the tree that it makes of them.
    const WRAPPED: bool;

    /// The tool of this name; None: its calls are the SDK's.
    fn tool(name: &str) -> Option<&'static str>;

    /// Whether it looks at the `_meta` of calls.
    fn passes_meta_on(&self) -> bool;

    /// Runs a call to its end, also when nobody waits any more.
    fn answer(&self, called: Called<'_>) -> impl Future<Output = Result<CallToolResult, ErrorData>> + Send;
}

impl Answers for SqliteMcp {
    const WRAPPED: bool = true;

    fn tool(name: &str) -> Option<&'static str> {
        tools::known(name)
    }

    fn passes_meta_on(&self) -> bool {
        self.looks_at_meta()
    }

    async fn answer(&self, called: Called<'_>) -> Result<CallToolResult, ErrorData> {
        let Called { tool, arguments, meta, headers, who } = called;
        self.call_apart(tool, ToolCall::read(tool, arguments), meta, headers, who).await
    }
}

/// A call that needs nothing of the SDK.
#[derive(Debug)]
pub struct DirectCall<'a> {
    id: RequestId,
    tool: &'static str,
    arguments: Option<&'a str>,
    era: Era,
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
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(default, rename = "_meta")]
    meta: Meta,
}

impl<'a> DirectCall<'a> {
    /// Reads a request; None: the SDK's. `legacy`: revisions before 2026-07-28 are served without sessions, so that a call is whole in itself.
    pub fn read<A: Answers>(method: &Method, headers: &HeaderMap, body: &'a [u8], legacy: bool) -> Option<Self> {
        let plain = method == Method::POST
            && only(headers, &CONTENT_TYPE) == Some("application/json")
            && matches!(
                only(headers, &ACCEPT),
                Some("application/json, text/event-stream" | "application/json,text/event-stream")
            );
        if !plain {
            return None;
        }
        let era = Era::of(headers, legacy)?;
        let body = std::str::from_utf8(body).ok()?;
        let Envelope { jsonrpc, id, method, params: Params { name, arguments, meta } } = serde_json::from_str(body).ok()?;
        if jsonrpc != "2.0" || method != METHOD || !era.fits(headers, name, &meta) {
            return None;
        }
        Some(Self { id, tool: A::tool(name)?, arguments: arguments.map(RawValue::get), era })
    }

    /// Runs the call that was read from this body. None: the answer could not be written as JSON.
    pub async fn answer<A: Answers>(self, handler: &A, headers: HeaderMap, body: &[u8], who: Caller) -> Option<Response> {
        let Self { id, tool, arguments, era } = self;
        let meta = if handler.passes_meta_on() {
            serde_json::from_slice::<OnlyMeta>(body).ok()?.params.meta
        } else {
            RequestMetaObject::default()
        };
        let message = match handler.answer(Called { tool, arguments, meta, headers, who }).await {
            Ok(mut result) => {
                if era == Era::Legacy {
                    // Earlier revisions do not know the field.
                    result.result_type = None;
                }
                ServerJsonRpcMessage::response(ServerResult::CallToolResult(result), id)
            }
            Err(error) => ServerJsonRpcMessage::error(error, Some(id)),
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&message).ok()?));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Some(response)
    }
}

//! The short way for the commonest request: a complete, well-formed `tools/call`. The SDK's way through a transport, a peer and several
//! tasks costs more than most statements do. Whatever is not beyond doubt goes the SDK's way, so that every refusal and every stream of
//! progress is the SDK's own; tests/it/direct.rs and tests/it/stdio.rs hold the two ways to the same bytes. What the headers of a request
//! must be is http/direct.rs.

mod meta;

use http::HeaderMap;
use rmcp::model::{CallToolResult, ErrorData, RequestId, RequestMetaObject, ServerJsonRpcMessage, ServerResult};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::db::turns::Caller;
use crate::mcp::SqliteMcp;
use crate::mcp::tools::{self, ToolCall};
use meta::Meta;

/// The method of the calls that may go the short way.
pub const METHOD: &str = "tools/call";

/// Which rules a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2026-07-28: everything about a call is in its headers and its `_meta`.
    Modern,
    /// 2025-03-26 to 2025-11-25.
    Legacy,
}

impl Era {
    /// Of a revision by its date; None: not one for the short way.
    pub fn of(revision: &str) -> Option<Self> {
        match revision {
            "2026-07-28" => Some(Self::Modern),
            "2025-11-25" | "2025-06-18" | "2025-03-26" => Some(Self::Legacy),
            _ => None,
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
    /// The request's headers; none on standard input.
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

    /// Reads a call, and then runs it to its end, also when nobody waits any more.
    fn answer(&self, called: Called<'_>) -> impl Future<Output = Result<CallToolResult, ErrorData>> + Send + 'static + use<Self>;
}

impl Answers for SqliteMcp {
    const WRAPPED: bool = true;

    fn tool(name: &str) -> Option<&'static str> {
        tools::known(name)
    }

    fn passes_meta_on(&self) -> bool {
        self.looks_at_meta()
    }

    fn answer(&self, called: Called<'_>) -> impl Future<Output = Result<CallToolResult, ErrorData>> + Send + 'static + use<> {
        let Called { tool, arguments, meta, headers, who } = called;
        self.call_apart(tool, ToolCall::read(tool, arguments), meta, headers, who)
    }
}

/// A call that may need nothing of the SDK.
#[derive(Debug)]
pub struct DirectCall<'a> {
    id: RequestId,
    tool: &'static str,
    arguments: Option<&'a str>,
    meta: Meta,
    message: &'a [u8],
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
    /// Reads a message; None: the SDK's.
    pub fn read<A: Answers>(message: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let Envelope { jsonrpc, id, method, params: Params { name, arguments, meta } } = serde_json::from_str(text).ok()?;
        if jsonrpc != "2.0" || method != METHOD {
            return None;
        }
        Some(Self { id, tool: A::tool(name)?, arguments: arguments.map(RawValue::get), meta, message })
    }

    /// Whether it is a call by the rules of this era, and one whose answer is a single message.
    pub fn fits(&self, era: Era) -> bool {
        !self.meta.asks_for_progress
            && match era {
                Era::Modern => self.meta.is_modern && self.meta.has_capabilities,
                Era::Legacy => !self.meta.speaks_of_the_protocol,
            }
    }

    /// The tool.
    pub fn tool(&self) -> &'static str {
        self.tool
    }

    /// What its answer will name.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Runs it. Gives the answer's JSON; None: it could not be written, or the call's `_meta` could not be read.
    pub fn answer<A: Answers>(
        self,
        era: Era,
        handler: &A,
        headers: HeaderMap,
        who: Caller,
    ) -> Option<impl Future<Output = Option<Vec<u8>>> + Send + use<A>> {
        let Self { id, tool, arguments, message, .. } = self;
        let meta = if handler.passes_meta_on() {
            serde_json::from_slice::<OnlyMeta>(message).ok()?.params.meta
        } else {
            RequestMetaObject::default()
        };
        let result = handler.answer(Called { tool, arguments, meta, headers, who });
        Some(async move {
            let message = match result.await {
                Ok(mut result) => {
                    if era == Era::Legacy {
                        // Earlier revisions do not know the field.
                        result.result_type = None;
                    }
                    ServerJsonRpcMessage::response(ServerResult::CallToolResult(result), id)
                }
                Err(error) => ServerJsonRpcMessage::error(error, Some(id)),
            };
            serde_json::to_vec(&message).ok()
        })
    }
}

//! MCP as bytes: the requests that a probe sends, and the reading of what comes back. Pure.
//!
//! The order of requests is `converse`'s; HTTP is `client`'s.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::HeaderMap;
use mcp_wire::{
    headers::{self, Named},
    hello::{self, Unusable},
    item::Item,
    json::{self, MAX_WEIGHT},
    message::{self, Arrays},
};
pub use mcp_wire::{
    hello::{LEGACY, MODERN, WITH_ARRAYS},
    message::Fault,
};
use serde_json::{Value, json};

use super::{
    tools::{self, Judged, Tool},
    verdict::{Problem, Step},
};
use crate::crd::{Era, ServerInfo, ToolCall};

/// JSON-RPC: no such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// MCP: no revision in common.
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// Pages of one list that are read.
pub const MAX_PAGES: usize = 64;

const MESSAGE_CHARS: usize = 200;

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is, for messages.
    pub step: Step,
    /// The tool that it calls.
    pub name: Option<Arc<str>>,
    /// By which it says what it is: in the modern era alone.
    pub headers: HeaderMap,
    /// The id that the answer must carry; none for a notification.
    pub id: Option<u64>,
    /// The body.
    pub body: Bytes,
}

/// The ids are fixed, one a step: the same question gets the same bytes as answer, and those need not be parsed again.
mod id {
    pub(super) const DISCOVER: u64 = 1;
    pub(super) const INITIALIZE: u64 = 2;
    pub(super) const PING: u64 = 3;
    pub(super) const CALL: u64 = 4;
    pub(super) const LIST: u64 = 5;
}

impl Request {
    /// The same, with those of its arguments as headers that its tool wants there, too.
    pub fn with_arguments(&self, named: &[Named]) -> Self {
        let mut request = self.clone();
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        headers::arguments(&mut request.headers, named, &body["params"]["arguments"]);
        request
    }
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": client_info(),
    })
}

fn client_info() -> Value {
    json!({"name": "mcpfleet-prober", "version": env!("CARGO_PKG_VERSION")})
}

fn body(id: Option<u64>, method: &str, params: Value) -> Bytes {
    let mut message = json!({"jsonrpc": "2.0", "method": method});
    if let Some(id) = id {
        message["id"] = id.into();
    }
    if !params.is_null() {
        message["params"] = params;
    }
    Bytes::from(message.to_string())
}

fn request(era: Era, step: Step, method: &'static str, id: u64, mut params: Value) -> Request {
    let mut headers = HeaderMap::new();
    if era == Era::Modern {
        headers = headers::of(method, params.get("name").and_then(Value::as_str));
        params["_meta"] = meta();
    }
    Request { step, name: None, headers, id: Some(id), body: body(Some(id), method, params) }
}

/// `server/discover`: modern only.
pub fn discover() -> Request {
    static REQUEST: LazyLock<Request> =
        LazyLock::new(|| request(Era::Modern, Step::Discover, "server/discover", id::DISCOVER, json!({})));
    REQUEST.clone()
}

/// `initialize` by this revision: legacy only.
pub fn initialize(revision: &str) -> Request {
    static LATEST: LazyLock<Request> = LazyLock::new(|| initialize_by(LEGACY[0]));
    if revision == LEGACY[0] { LATEST.clone() } else { initialize_by(revision) }
}

fn initialize_by(revision: &str) -> Request {
    let params = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": client_info()});
    request(Era::Legacy, Step::Initialize, "initialize", id::INITIALIZE, params)
}

/// `notifications/initialized`: legacy only.
pub fn initialized() -> Request {
    static REQUEST: LazyLock<Request> = LazyLock::new(|| Request {
        step: Step::Initialized,
        name: None,
        headers: HeaderMap::new(),
        id: None,
        body: body(None, "notifications/initialized", Value::Null),
    });
    REQUEST.clone()
}

/// `ping`: legacy only.
pub fn ping() -> Request {
    static REQUEST: LazyLock<Request> = LazyLock::new(|| request(Era::Legacy, Step::Ping, "ping", id::PING, Value::Null));
    REQUEST.clone()
}

/// `tools/list`, the page at `cursor`, the `page`-th.
pub fn list(era: Era, cursor: Option<&str>, page: usize) -> Request {
    static MODERN_FIRST: LazyLock<Request> = LazyLock::new(|| list_page(Era::Modern, None, 0));
    static LEGACY_FIRST: LazyLock<Request> = LazyLock::new(|| list_page(Era::Legacy, None, 0));
    match (cursor, era) {
        (None, Era::Modern) => MODERN_FIRST.clone(),
        (None, Era::Legacy) => LEGACY_FIRST.clone(),
        (cursor, era) => list_page(era, cursor, page),
    }
}

fn list_page(era: Era, cursor: Option<&str>, page: usize) -> Request {
    let mut params = json!({});
    if let Some(cursor) = cursor {
        params["cursor"] = cursor.into();
    }
    request(era, Step::List, "tools/list", id::LIST + page as u64, params)
}

/// `tools/call` of `health.toolCall`.
pub fn call(era: Era, call: &ToolCall) -> Request {
    let params = json!({"name": call.name, "arguments": call.arguments});
    Request { name: Some(call.name.as_str().into()), ..request(era, Step::Call, "tools/call", id::CALL, params) }
}

/// One JSON-RPC message from the server.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// The result of the request.
    Result(Value),
    /// The error of the request.
    Error(RpcError),
    /// A notification, or a request of the server's own: not what was asked for.
    Other,
}

/// A JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// The code.
    pub code: i64,
    /// The message, cut to a line.
    pub message: String,
    /// `data.supported`, where there is one.
    pub supported: Vec<String>,
}

impl RpcError {
    /// As what ended the probe.
    pub fn problem(self, step: Step) -> Problem {
        Problem::Rpc { step, code: self.code, message: self.message, supported: self.supported }
    }
}

/// Reads the message that answers the request `id`, as the apps do. `batches`: it may be one of several in an array.
pub fn message(data: &[u8], id: u64, batches: bool) -> Result<Message, Fault> {
    let none = |told: String| Fault { told, answers: false };
    let text = json::tidy(data, MAX_WEIGHT).map_err(|problem| none(problem.to_string()))?;
    let id = i64::try_from(id).unwrap_or_default();
    match message::read(&text, id, if batches { Arrays::Taken } else { Arrays::Refused })? {
        message::Message::Result(result) => {
            // It was read once.
            let result = json::parse(result.get()).map_err(|error| none(format!("its result is not JSON: {error}")))?;
            Ok(Message::Result(result))
        }
        message::Message::Error(error) if error.code == 0 => {
            Err(Fault { told: "its \"error\" has no code".into(), answers: true })
        }
        message::Message::Error(error) => Ok(Message::Error(rpc_error(&error))),
        message::Message::Other => Ok(Message::Other),
    }
}

/// What is said to the requests of the server's own in one body or event: a ping is answered, and all else is not offered here (`ping`
/// in all revisions with sessions; JSON-RPC 2.0, 5.1).
pub fn replies(data: &[u8], batches: bool) -> Vec<Bytes> {
    let Ok(text) = json::tidy(data, MAX_WEIGHT) else { return Vec::new() };
    let asked = message::asked(&text, if batches { Arrays::Taken } else { Arrays::Refused });
    asked.into_iter().map(|asked| reply(&asked)).collect()
}

fn reply(asked: &message::Asked) -> Bytes {
    let said = if asked.method == "ping" {
        r#""result":{}"#.to_owned()
    } else {
        format!(r#""error":{{"code":{METHOD_NOT_FOUND},"message":"Method not found"}}"#)
    };
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{},{said}}}"#, asked.id))
}

fn rpc_error(error: &message::RpcError) -> RpcError {
    let supported = error.data.as_ref().and_then(|data| data.get("supported")).and_then(Value::as_array);
    RpcError {
        code: error.code,
        message: one_line(&error.message),
        supported: supported.into_iter().flatten().filter_map(Value::as_str).map(one_line).take(16).collect(),
    }
}

/// What a server says, fit for a status: one line, without control characters, cut.
pub fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARS).collect();
    if text.chars().nth(MESSAGE_CHARS).is_some() {
        line.push('…');
    }
    line
}

/// What a server says about itself, in either era.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The era.
    pub era: Era,
    /// The revision.
    pub version: &'static str,
    /// What it calls itself.
    pub server_info: ServerInfo,
    /// It offers tools.
    pub tools: bool,
}

/// What an answer to discover means.
#[derive(Debug, PartialEq)]
pub enum Discovered {
    /// It speaks the modern revision.
    Modern(Hello),
    /// It lists revisions, and of those that we know only legacy ones.
    Legacy,
    /// It lists revisions, and none that we know.
    Unknown(Vec<String>),
    /// This is no discover result.
    No,
}

/// Reads the result of `server/discover`.
pub fn discovered(result: &Value) -> Discovered {
    match hello::discovered(result) {
        hello::Discovered::Modern => Discovered::Modern(Hello {
            era: Era::Modern,
            version: MODERN,
            server_info: server_info(
                result.get("serverInfo").or_else(|| result.get("_meta")?.get("io.modelcontextprotocol/serverInfo")),
            ),
            tools: hello::offers(result, Item::Tool.field()),
        }),
        hello::Discovered::Legacy => Discovered::Legacy,
        hello::Discovered::Unknown(versions) => Discovered::Unknown(versions.iter().map(|version| one_line(version)).collect()),
        hello::Discovered::No => Discovered::No,
    }
}

/// Reads the result of `initialize`.
pub fn initialized_as(result: &Value) -> Result<Hello, Problem> {
    let version = hello::initialized(result).map_err(|unusable| match unusable {
        Unusable::Malformed(what) => Problem::NotMcp(Step::Initialize, what.into()),
        Unusable::Revision(version) => Problem::Version(one_line(&version)),
    })?;
    Ok(Hello {
        era: Era::Legacy,
        version,
        server_info: server_info(result.get("serverInfo")),
        tools: hello::offers(result, Item::Tool.field()),
    })
}

fn server_info(info: Option<&Value>) -> ServerInfo {
    let field = |key| info.and_then(|info| info.get(key)).and_then(Value::as_str).map(one_line).unwrap_or_default();
    ServerInfo { name: field("name"), version: field("version") }
}

/// One page of `tools/list`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    /// The tools on it.
    pub tools: Vec<Tool>,
    /// The names of those that break the specification, and whatever else cannot be read: no client can offer them to a model.
    pub left_out: Vec<Box<str>>,
    /// Where the next page is.
    pub next: Option<Box<str>>,
    /// Which arguments are headers, too, by the names of the tools that want it so.
    pub in_headers: Vec<(Box<str>, Vec<Named>)>,
}

/// Reads one page of `tools/list`.
pub fn page(result: &Value) -> Result<Page, Problem> {
    let not_mcp = |what: &str| Problem::NotMcp(Step::List, what.into());
    let tools = result.get("tools").and_then(Value::as_array).ok_or_else(|| not_mcp("it has no list of tools"))?;
    let mut page = Page { tools: Vec::with_capacity(tools.len()), left_out: Vec::new(), next: None, in_headers: Vec::new() };
    for (place, tool) in tools.iter().enumerate() {
        match tools::judge(tool, place) {
            Judged::Sound(sound) => {
                page.tools.push(sound);
                page.in_headers.extend(in_headers(tool));
            }
            Judged::Malformed(name) => page.left_out.push(name),
        }
    }
    page.next = match result.get("nextCursor") {
        None | Some(Value::Null) => None,
        // No client goes on with an empty one.
        Some(Value::String(cursor)) if cursor.is_empty() => None,
        Some(Value::String(cursor)) => Some(cursor.as_str().into()),
        // The apps end there, too, with what they have.
        Some(_) => {
            page.left_out.push("all further pages: nextCursor is no string".into());
            None
        }
    };
    Ok(page)
}

fn in_headers(tool: &Value) -> Option<(Box<str>, Vec<Named>)> {
    let named = headers::named(tool.get("inputSchema")?.as_object()?);
    (!named.is_empty()).then_some((tool.get("name")?.as_str()?.into(), named))
}

/// Reads the result of `tools/call`.
pub fn called(result: &Value) -> Result<(), Problem> {
    if result.get("isError").is_some_and(|flag| flag == true) {
        let texts = result.get("content").and_then(Value::as_array).into_iter().flatten();
        let said = texts.filter_map(|block| block.get("text")?.as_str()).map(str::trim).find(|text| !text.is_empty());
        let said = said.map(|text| format!(": {}", one_line(text))).unwrap_or_default();
        return Err(Problem::ToolCall(format!("the tool answered with isError{said}")));
    }
    match result.get("resultType").and_then(Value::as_str) {
        None | Some("complete") => {}
        Some(other) => return Err(Problem::ToolCall(format!("the tool answered with resultType {}", one_line(other)))),
    }
    if result.get("content").is_some_and(Value::is_array) || result.get("structuredContent").is_some() {
        Ok(())
    } else {
        Err(Problem::ToolCall("the answer has no content".into()))
    }
}

//! MCP as bytes: the requests that a probe sends, and the reading of what comes back. Pure.
//!
//! The order of requests is `converse`'s; HTTP is `client`'s.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    json,
    tools::{self, Judged, Tool},
    verdict::{Problem, Step},
};
use crate::crd::{Era, ServerInfo, ToolCall};

/// The one modern revision that we know.
pub const MODERN: &str = "2026-07-28";
/// The legacy revisions that we know, newest first. The first is the one we offer.
pub const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The revision in which the messages of an answer may come in an array.
pub const BATCHES: &str = "2025-03-26";
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
    /// The JSON-RPC method, also the `Mcp-Method` header of the modern era.
    pub method: &'static str,
    /// The `Mcp-Name` header of the modern era.
    pub name: Option<Arc<str>>,
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

fn request(step: Step, method: &'static str, id: u64, params: Value) -> Request {
    Request { step, method, name: None, id: Some(id), body: body(Some(id), method, params) }
}

/// `server/discover`: modern only.
pub fn discover() -> Request {
    static REQUEST: LazyLock<Request> =
        LazyLock::new(|| request(Step::Discover, "server/discover", id::DISCOVER, json!({"_meta": meta()})));
    REQUEST.clone()
}

/// `initialize`: legacy only.
pub fn initialize() -> Request {
    static REQUEST: LazyLock<Request> = LazyLock::new(|| {
        let params = json!({"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": client_info()});
        request(Step::Initialize, "initialize", id::INITIALIZE, params)
    });
    REQUEST.clone()
}

/// `notifications/initialized`: legacy only.
pub fn initialized() -> Request {
    static REQUEST: LazyLock<Request> = LazyLock::new(|| Request {
        step: Step::Initialized,
        method: "notifications/initialized",
        name: None,
        id: None,
        body: body(None, "notifications/initialized", Value::Null),
    });
    REQUEST.clone()
}

/// `ping`: legacy only.
pub fn ping() -> Request {
    static REQUEST: LazyLock<Request> = LazyLock::new(|| request(Step::Ping, "ping", id::PING, Value::Null));
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
    if era == Era::Modern {
        params["_meta"] = meta();
    }
    request(Step::List, "tools/list", id::LIST + page as u64, params)
}

/// `tools/call` of `health.toolCall`.
pub fn call(era: Era, call: &ToolCall) -> Request {
    let mut params = json!({"name": call.name, "arguments": call.arguments});
    if era == Era::Modern {
        params["_meta"] = meta();
    }
    Request { name: Some(call.name.as_str().into()), ..request(Step::Call, "tools/call", id::CALL, params) }
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

/// Reads the message that answers the request `id`. The error says what is wrong with it. `batches`: it may be one of several in an array.
pub fn message(data: &[u8], id: u64, batches: bool) -> Result<Message, String> {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    if data.trim_ascii().is_empty() {
        return Err("the body is empty".into());
    }
    match json::read(data).map_err(|error| not_json(data, &error))? {
        Value::Array(messages) if batches => of_batch(messages, id),
        message => one_message(message, id),
    }
}

/// The answer among the messages of a batch. Notifications and requests of the server's own may stand beside it.
fn of_batch(messages: Vec<Value>, id: u64) -> Result<Message, String> {
    let mut wrong = None;
    for message in messages {
        match one_message(message, id) {
            Ok(Message::Other) => {}
            Ok(answer) => return Ok(answer),
            Err(what) => wrong = Some(what),
        }
    }
    wrong.map_or(Ok(Message::Other), Err)
}

fn one_message(message: Value, id: u64) -> Result<Message, String> {
    let Value::Object(mut fields) = message else { return Err("it is no JSON object".into()) };
    match fields.get("jsonrpc") {
        Some(Value::String(version)) if version == "2.0" => {}
        Some(_) => return Err("its \"jsonrpc\" is not \"2.0\"".into()),
        None => return Err("it is JSON, but no JSON-RPC message".into()),
    }
    if fields.contains_key("method") {
        return Ok(Message::Other);
    }
    let error = fields.remove("error");
    match fields.get("id") {
        Some(Value::Number(number)) if number.as_u64() == Some(id) => {}
        Some(Value::Number(number)) if number.as_f64().is_some_and(|number| number.to_bits() == as_f64(id).to_bits()) => {}
        // All SDK clients accept "1" for 1.
        Some(Value::String(text)) if *text == id.to_string() => {}
        // Who could not read the request does not know its id.
        Some(Value::Null) | None if error.is_some() => {}
        Some(Value::Null) | None => return Err("its \"id\" is missing".into()),
        Some(_) => return Err("its \"id\" is not the one of the request".into()),
    }
    match (fields.remove("result"), error) {
        (None, Some(error)) => rpc_error(&error).map(Message::Error).ok_or_else(|| "its \"error\" has no code".into()),
        (Some(Value::Object(result)), None) => Ok(Message::Result(Value::Object(result))),
        (Some(_), None) => Err("its \"result\" is no object".into()),
        (Some(_), Some(_)) => Err("it has both \"result\" and \"error\"".into()),
        (None, None) => Err("it has neither \"result\" nor \"error\"".into()),
    }
}

#[allow(clippy::cast_precision_loss, reason = "ids are below a hundred")]
const fn as_f64(id: u64) -> f64 {
    id as f64
}

fn not_json(data: &[u8], error: &serde_json::Error) -> String {
    let start = data.trim_ascii_start();
    if start.starts_with(b"<") {
        "it is HTML or XML".into()
    } else {
        // Position and kind only: the text itself may hold anything.
        format!("it is not JSON (line {}, column {})", error.line(), error.column())
    }
}

fn rpc_error(error: &Value) -> Option<RpcError> {
    let code = error.get("code")?.as_i64()?;
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    let supported = error.get("data").and_then(|data| data.get("supported")).and_then(Value::as_array);
    Some(RpcError {
        code,
        message: one_line(message),
        supported: supported.into_iter().flatten().filter_map(Value::as_str).map(one_line).take(16).collect(),
    })
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
    let complete = result.get("resultType").is_none_or(|kind| kind == "complete");
    let (Some(versions), true, true) = (
        result.get("supportedVersions").and_then(Value::as_array),
        complete,
        result.get("capabilities").is_some_and(Value::is_object),
    ) else {
        return Discovered::No;
    };
    let versions: Vec<String> = versions.iter().filter_map(Value::as_str).map(one_line).collect();
    match offered(&versions) {
        Some(Era::Modern) => Discovered::Modern(Hello {
            era: Era::Modern,
            version: MODERN,
            server_info: server_info(
                result.get("serverInfo").or_else(|| result.get("_meta")?.get("io.modelcontextprotocol/serverInfo")),
            ),
            tools: advertises_tools(result),
        }),
        Some(Era::Legacy) => Discovered::Legacy,
        None if versions.is_empty() => Discovered::No,
        None => Discovered::Unknown(versions),
    }
}

/// The era of the best revision among those offered; none when we know none of them.
pub fn offered(versions: &[String]) -> Option<Era> {
    if versions.iter().any(|version| version == MODERN) {
        Some(Era::Modern)
    } else if versions.iter().any(|version| LEGACY.contains(&version.as_str())) {
        Some(Era::Legacy)
    } else {
        None
    }
}

/// Reads the result of `initialize`.
pub fn initialized_as(result: &Value) -> Result<Hello, Problem> {
    let not_mcp = |what: &str| Problem::NotMcp(Step::Initialize, what.into());
    let version = result.get("protocolVersion").and_then(Value::as_str).ok_or_else(|| not_mcp("it names no protocolVersion"))?;
    let known = LEGACY.iter().find(|known| **known == version).ok_or_else(|| Problem::Version(one_line(version)))?;
    if !result.get("capabilities").is_some_and(Value::is_object) {
        return Err(not_mcp("it names no capabilities"));
    }
    Ok(Hello {
        era: Era::Legacy,
        version: known,
        server_info: server_info(result.get("serverInfo")),
        tools: advertises_tools(result),
    })
}

fn advertises_tools(result: &Value) -> bool {
    result.get("capabilities").and_then(|capabilities| capabilities.get("tools")).is_some_and(|tools| !tools.is_null())
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
}

/// Reads one page of `tools/list`.
pub fn page(result: &Value) -> Result<Page, Problem> {
    let not_mcp = |what: &str| Problem::NotMcp(Step::List, what.into());
    let tools = result.get("tools").and_then(Value::as_array).ok_or_else(|| not_mcp("it has no list of tools"))?;
    let mut page = Page { tools: Vec::with_capacity(tools.len()), left_out: Vec::new(), next: None };
    for (place, tool) in tools.iter().enumerate() {
        match tools::judge(tool, place) {
            Judged::Sound(tool) => page.tools.push(tool),
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

/// Reads the result of `tools/call`.
pub fn called(result: &Value) -> Result<(), Problem> {
    if result.get("isError").is_some_and(|flag| flag == true) {
        // What the tool says may hold anything: it is not repeated.
        return Err(Problem::ToolCall("the tool answered with isError".into()));
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

//! What a server's answer is to the request that it answers. Pure. Whatever comes becomes a result of the right type, or an error that says
//! what is wrong. The SDK alone would take any object for any result, and would wait for an id that never comes. Rules that the prober
//! shares are `mcp_wire`'s.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mcp_wire::{
    json,
    message::{self, Arrays, Message, RpcError},
    tool,
};
use rmcp::model::{
    CallToolResult, ClientJsonRpcMessage, ClientNotification, ClientRequest, DiscoverResult, ErrorCode, ErrorData,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, MetaObject,
    RequestId, ServerJsonRpcMessage, ServerResult, Tool,
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::oneshot;

use crate::{heavy::LIGHT, numbers};

/// The modern revision.
pub const MODERN: &str = "2026-07-28";
/// The revision in which a server may answer in arrays.
const WITH_ARRAYS: &str = "2025-03-26";
/// What one message of a server may take in memory, in bytes; and what a result of a call may, of which there are many at once.
pub const MAX_WEIGHT: usize = 96 << 20;
const MAX_RESULT_WEIGHT: usize = 48 << 20;
/// Where a list tells what was left out of it (of tools, each; of others, how many): the SDK's own types have no place for that.
pub const LEFT_OUT: &str = "mcpfleet.dev/left-out";
/// Its items as they were written, in their order: what the SDK's types do not know is in there, too.
pub const WRITTEN: &str = "mcpfleet.dev/written";
/// And how many bytes it had.
pub const SIZE: &str = "mcpfleet.dev/size";
/// Blocks of these kinds are known.
const BLOCKS: [&str; 5] = ["text", "image", "audio", "resource", "resource_link"];

/// A request that waits for its answer.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: RequestId,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Discover,
    Initialize,
    ListTools,
    CallTool,
    ListResources,
    ListTemplates,
    ListPrompts,
    ReadResource,
    GetPrompt,
    Complete,
    Other,
}

/// What came for a request.
#[derive(Debug)]
pub enum Came {
    Answer(Box<Answer>),
    /// Something else, that goes on as it is.
    Other,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub id: RequestId,
    pub result: Result<Given, ErrorData>,
}

impl Answer {
    /// As the SDK is to read it.
    pub fn message(self) -> ServerJsonRpcMessage {
        match self.result {
            Ok(given) => ServerJsonRpcMessage::response(given.result, self.id),
            Err(error) => ServerJsonRpcMessage::error(error, Some(self.id)),
        }
    }
}

/// A result.
#[derive(Debug)]
pub struct Given {
    pub result: ServerResult,
    /// That of anything but a list as it was written: what the SDK's types do not know is in there, too.
    pub written: Option<Box<RawValue>>,
}

impl From<ServerResult> for Given {
    fn from(result: ServerResult) -> Self {
        Self { result, written: None }
    }
}

impl Asked {
    /// The request, if a message is one.
    pub fn of(message: &ClientJsonRpcMessage) -> Option<Self> {
        let ClientJsonRpcMessage::Request(request) = message else { return None };
        Some(Self::to(request.id.clone(), &request.request))
    }

    /// This request.
    pub fn to(id: RequestId, request: &ClientRequest) -> Self {
        let kind = match request {
            ClientRequest::DiscoverRequest(_) => Kind::Discover,
            ClientRequest::InitializeRequest(_) => Kind::Initialize,
            ClientRequest::ListToolsRequest(_) => Kind::ListTools,
            ClientRequest::CallToolRequest(_) => Kind::CallTool,
            ClientRequest::ListResourcesRequest(_) => Kind::ListResources,
            ClientRequest::ListResourceTemplatesRequest(_) => Kind::ListTemplates,
            ClientRequest::ListPromptsRequest(_) => Kind::ListPrompts,
            ClientRequest::ReadResourceRequest(_) => Kind::ReadResource,
            ClientRequest::GetPromptRequest(_) => Kind::GetPrompt,
            ClientRequest::CompleteRequest(_) => Kind::Complete,
            _ => Kind::Other,
        };
        Self { id, kind }
    }

    /// A call of a tool.
    pub fn call(id: RequestId) -> Self {
        Self { id, kind: Kind::CallTool }
    }

    pub fn is_discover(&self) -> bool {
        self.kind == Kind::Discover
    }

    /// Before a session there is none that could have ended.
    pub fn opens(&self) -> bool {
        matches!(self.kind, Kind::Discover | Kind::Initialize)
    }

    pub fn number(&self) -> i64 {
        match &self.id {
            RequestId::Number(number) => *number,
            // Ids are the SDK's, and it counts.
            RequestId::String(_) => -1,
        }
    }

    /// Reads one body, event or line. `revision` is the one in use, where it is known.
    pub fn read(&self, bytes: &[u8], revision: Option<&str>) -> Came {
        let arrays = if revision.is_none_or(|revision| revision == WITH_ARRAYS) { Arrays::Taken } else { Arrays::Refused };
        let tidied = match json::tidy(bytes, self.most()) {
            Ok(tidied) => tidied,
            Err(problem) => return self.odd(&format!("the server's answer cannot be read: {problem}")),
        };
        match message::read(&tidied, self.number(), arrays) {
            Ok(Message::Result(result)) => match self.result(result) {
                Ok(given) => Came::Answer(Box::new(Answer { id: self.id.clone(), result: Ok(given) })),
                Err(problem) => self.odd(&format!("the server's result is malformed: {problem}")),
            },
            Ok(Message::Error(error)) => Came::Answer(Box::new(self.error(error))),
            Ok(Message::Other) => Came::Other,
            Err(problem) => self.odd(&format!("the server's answer is malformed: {problem}")),
        }
    }

    /// What an answer takes of the memory once it is read, of a kind of which there may be many at once; nothing, where it will be refused.
    pub fn weight(&self, bytes: &[u8]) -> usize {
        let is_one_of_many = matches!(self.kind, Kind::CallTool | Kind::ReadResource | Kind::GetPrompt | Kind::Complete);
        if !is_one_of_many || bytes.len() < LIGHT {
            return 0;
        }
        json::weight(bytes).filter(|weight| *weight <= self.most()).unwrap_or_default()
    }

    fn most(&self) -> usize {
        if self.kind == Kind::CallTool { MAX_RESULT_WEIGHT } else { MAX_WEIGHT }
    }

    fn odd(&self, problem: &str) -> Came {
        Came::Answer(Box::new(self.failed(problem)))
    }

    /// The answer that there is none of use. To discover, that means an earlier era: it leads to initialize.
    pub fn failed(&self, problem: &str) -> Answer {
        let code = if self.is_discover() { ErrorCode::METHOD_NOT_FOUND } else { ErrorCode::INTERNAL_ERROR };
        Answer { id: self.id.clone(), result: Err(ErrorData::new(code, problem.to_owned(), None)) }
    }

    /// An error of the server's own.
    pub fn error(&self, error: RpcError) -> Answer {
        let mut code = i32::try_from(error.code).map_or(ErrorCode::INTERNAL_ERROR, ErrorCode);
        let supported = error.data.as_ref().and_then(|data| data.get("supported")).and_then(Value::as_array);
        let modern = supported.is_some_and(|supported| supported.iter().any(|version| version == MODERN));
        // It lists what it speaks, and that is of earlier eras.
        if self.is_discover() && code == ErrorCode::UNSUPPORTED_PROTOCOL_VERSION && !modern {
            code = ErrorCode::METHOD_NOT_FOUND;
        }
        let message = if error.message.is_empty() { "an error without a message".to_owned() } else { error.message };
        Answer { id: self.id.clone(), result: Err(ErrorData::new(code, message, error.data)) }
    }

    fn result(&self, result: &RawValue) -> Result<Given, String> {
        let result = match self.kind {
            Kind::CallTool => return called(result),
            Kind::ReadResource => return whole_or_asking(result, ServerResult::ReadResourceResult),
            Kind::GetPrompt => return whole_or_asking(result, ServerResult::GetPromptResult),
            Kind::Complete => return whole_or_asking(result, ServerResult::CompleteResult),
            Kind::Discover => discovered(result.get()),
            Kind::Initialize => initialized(result.get()),
            Kind::ListTools => listed(result.get()),
            Kind::ListResources => {
                let (items, next_cursor, meta) = items(result.get(), "resources")?;
                let list = ListResourcesResult { next_cursor, meta, ..ListResourcesResult::with_all_items(items) };
                Ok(ServerResult::ListResourcesResult(list))
            }
            Kind::ListTemplates => {
                let (items, next_cursor, meta) = items(result.get(), "resourceTemplates")?;
                let all = ListResourceTemplatesResult::with_all_items(items);
                let list = ListResourceTemplatesResult { next_cursor, meta, ..all };
                Ok(ServerResult::ListResourceTemplatesResult(list))
            }
            Kind::ListPrompts => {
                let (items, next_cursor, meta) = items(result.get(), "prompts")?;
                let list = ListPromptsResult { next_cursor, meta, ..ListPromptsResult::with_all_items(items) };
                Ok(ServerResult::ListPromptsResult(list))
            }
            Kind::Other => json::parse(result.get()).map_err(|error| plain(&error)),
        };
        result.map(Given::from)
    }
}

/// The requests to a child that wait for their answers: all of them come by one pipe.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Waits>>);

/// A request, and to whom its answer goes, where that is not the SDK.
type Wait = (Asked, Option<oneshot::Sender<Box<Answer>>>);

#[derive(Debug, Default)]
struct Waits {
    all: HashMap<i64, Wait>,
    /// Nothing will come any more.
    over: bool,
}

impl Waiting {
    /// Notes what the SDK sends.
    pub fn sent(&self, message: &ClientJsonRpcMessage) {
        if let Some(asked) = Asked::of(message) {
            self.waits().all.insert(asked.number(), (asked, None));
        }
        if let ClientJsonRpcMessage::Notification(notification) = message
            && let ClientNotification::CancelledNotification(cancelled) = &notification.notification
            && let Some(RequestId::Number(number)) = &cancelled.params.request_id
        {
            self.waits().all.remove(number);
        }
    }

    /// Notes a request whose answer comes by what is returned.
    pub fn asks(&self, asked: Asked) -> oneshot::Receiver<Box<Answer>> {
        let (to, answer) = oneshot::channel();
        let mut waits = self.waits();
        if !waits.over {
            waits.all.insert(asked.number(), (asked, Some(to)));
        }
        answer
    }

    /// Nobody waits for ever: the child has ended.
    pub fn end(&self) {
        let mut waits = self.waits();
        (waits.over, waits.all) = (true, HashMap::new());
    }

    /// What a line is.
    pub fn read(&self, line: &[u8]) -> Line {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let Ok(peek) = serde_json::from_slice::<Peek>(line) else { return Line::Nothing };
        if peek.method.is_some() {
            let message = json::tidy(line, MAX_WEIGHT).ok().and_then(|tidied| json::parse(&tidied).ok());
            return message.map_or(Line::Nothing, |message| Line::Sdk(Box::new(message)));
        }
        let Some((asked, to)) = self.take(&peek) else { return Line::Nothing };
        match (asked.read(line, None), to) {
            (Came::Answer(answer), Some(to)) => {
                // Whoever asked may have gone.
                let _ = to.send(answer);
                Line::Taken
            }
            (Came::Answer(answer), None) => Line::Sdk(Box::new(answer.message())),
            (Came::Other, _) => Line::Nothing,
        }
    }

    /// Whose answer a line is, and what it takes of the memory once it is read: see `Asked::weight`.
    pub fn weight(&self, line: &[u8]) -> Option<(RequestId, usize)> {
        if line.len() < LIGHT {
            return None;
        }
        let peek: Peek = serde_json::from_slice(line).ok().filter(|peek: &Peek| peek.method.is_none())?;
        let asked = {
            let waits = self.waits();
            waits.all.get(&peek.number(&waits.all)?)?.0.clone()
        };
        let weight = asked.weight(line);
        Some((asked.id, weight))
    }

    /// The request that a message answers.
    fn take(&self, peek: &Peek) -> Option<Wait> {
        let mut waits = self.waits();
        let number = peek.number(&waits.all)?;
        waits.all.remove(&number)
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a line of a child is.
#[derive(Debug)]
pub enum Line {
    /// An answer that the SDK waits for, or a message of the child's own.
    Sdk(Box<ServerJsonRpcMessage>),
    /// An answer that has gone where it was waited for.
    Taken,
    /// What nobody waits for, or no message at all, such as a banner.
    Nothing,
}

#[derive(Deserialize)]
struct Peek {
    #[serde(default)]
    id: Option<Value>,
    method: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

impl Peek {
    /// The number of the request that is answered.
    fn number<T>(&self, waiting: &HashMap<i64, T>) -> Option<i64> {
        match &self.id {
            Some(Value::Number(number)) => number.as_i64().or_else(|| whole(number.as_f64()?)),
            Some(Value::String(text)) => text.parse().ok(),
            // Who could not read a request does not know its id. Where several wait, it is not known whose it is.
            _ if self.error.is_some() && waiting.len() == 1 => waiting.keys().next().copied(),
            _ => None,
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "it is whole, and ids are counted from zero")]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64)
}

/// Without the place, which is one in the middle of the message.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn filled(text: &str, defaults: &[(&str, Value)]) -> Result<Value, String> {
    let mut value: Value = json::parse(text).map_err(|error| plain(&error))?;
    for (name, default) in defaults {
        if value.get(*name).is_none_or(Value::is_null) {
            value[*name] = default.clone();
        }
    }
    Ok(value)
}

fn discovered(text: &str) -> Result<ServerResult, String> {
    let defaults = [("resultType", json!("complete")), ("ttlMs", json!(0)), ("cacheScope", json!("private"))];
    let value = filled(text, &defaults)?;
    let versions = value.get("supportedVersions").and_then(Value::as_array);
    if !versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN)) {
        return Err(format!("it is no result of server/discover that lists {MODERN}"));
    }
    let result: DiscoverResult = serde_json::from_value(value).map_err(|error| plain(&error))?;
    Ok(ServerResult::DiscoverResult(result))
}

fn initialized(text: &str) -> Result<ServerResult, String> {
    let defaults = [("capabilities", json!({})), ("serverInfo", json!({"name": "", "version": ""}))];
    let result: InitializeResult = serde_json::from_value(filled(text, &defaults)?).map_err(|error| plain(&error))?;
    Ok(ServerResult::InitializeResult(result))
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    tools: &'a RawValue,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Value,
}

/// A page of tools, without those that nobody can use.
fn listed(text: &str) -> Result<ServerResult, String> {
    let page: Page = serde_json::from_str(text).map_err(|error| plain(&error))?;
    let raw: Vec<&RawValue> = serde_json::from_str(page.tools.get()).map_err(|_| "its \"tools\" are no array".to_owned())?;
    let (mut tools, mut written, mut left_out) = (Vec::with_capacity(raw.len()), Vec::with_capacity(raw.len()), Vec::new());
    for (place, raw) in raw.into_iter().enumerate() {
        match usable(raw.get()) {
            Ok(tool) => {
                tools.push(tool);
                written.push(Value::from(raw.get()));
            }
            Err(problem) => {
                let value: Value = json::parse(raw.get()).unwrap_or_default();
                left_out.push(Value::from(format!("{}: {problem}", tool::known_as(&value, place))));
            }
        }
    }
    let next_cursor = match page.next_cursor {
        // Nobody goes on with an empty one.
        Value::String(cursor) => Some(cursor).filter(|cursor| !cursor.is_empty()),
        Value::Null => None,
        _ => {
            left_out.push("all further pages: the nextCursor of tools/list is no string".into());
            None
        }
    };
    let mut list = ListToolsResult { next_cursor, ..ListToolsResult::with_all_items(tools) };
    let told =
        [(LEFT_OUT.to_owned(), left_out.into()), (WRITTEN.to_owned(), written.into()), (SIZE.to_owned(), text.len().into())];
    list.meta = Some(MetaObject(serde_json::Map::from_iter(told)));
    Ok(ServerResult::ListToolsResult(list))
}

/// The items of a page that are what they should be, where the list goes on, and how many others there were: they cost only themselves.
type Items<T> = (Vec<T>, Option<String>, Option<MetaObject>);

fn items<T: DeserializeOwned>(text: &str, field: &str) -> Result<Items<T>, String> {
    let page: HashMap<String, &RawValue> = serde_json::from_str(text).map_err(|error| plain(&error))?;
    let raw = page.get(field).ok_or_else(|| format!("missing field `{field}`"))?;
    let raw: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| format!("its \"{field}\" are no array"))?;
    let all = raw.len();
    let good = raw.into_iter().filter_map(|raw| Some((json::parse(raw.get()).ok()?, Value::from(raw.get()))));
    let (items, written): (Vec<T>, Vec<Value>) = good.unzip();
    let odd = all - items.len();
    let mut told = serde_json::Map::from_iter([(SIZE.to_owned(), text.len().into()), (WRITTEN.to_owned(), written.into())]);
    if odd > 0 {
        told.insert(LEFT_OUT.to_owned(), odd.into());
    }
    let next = page.get("nextCursor").and_then(|next| serde_json::from_str::<String>(next.get()).ok());
    // Nobody goes on with an empty one.
    Ok((items, next.filter(|cursor| !cursor.is_empty()), Some(MetaObject(told))))
}

/// A result, or what the server wants to know before there is one.
fn whole_or_asking<T: DeserializeOwned>(raw: &RawValue, of: impl Fn(T) -> ServerResult) -> Result<Given, String> {
    let text = &numbers::guard(raw.get());
    let written = |result| Given { result, written: Some(raw.to_owned()) };
    let problem = match json::parse::<T>(text) {
        Ok(result) => return Ok(written(of(result))),
        Err(error) => plain(&error),
    };
    let mut value: Value = json::parse(text).map_err(|error| plain(&error))?;
    if value.get("resultType").is_some_and(|kind| kind != "complete") {
        return serde_json::from_value(value).map(written).map_err(|error| plain(&error));
    }
    for message in value.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(block) = message.get_mut("content") {
            make_known(block);
        }
    }
    let written = RawValue::from_string(numbers::written(&value)).ok();
    let result = serde_json::from_value(value).map(of).map_err(|_| problem)?;
    Ok(Given { result, written })
}

/// A block of a kind that nobody here knows becomes a word about it.
fn make_known(block: &mut Value) {
    let kind = block.get("type").and_then(Value::as_str);
    if let Some(kind) = kind.filter(|kind| !BLOCKS.contains(kind)) {
        *block = json!({"type": "text", "text": format!("[content of the unknown kind {kind:?}, left out]")});
    }
}

fn usable(text: &str) -> Result<Tool, String> {
    // Nearly every tool is good: what is wrong with one is looked for only then.
    json::parse::<Tool>(text).map_or_else(
        |error| {
            let value: Value = json::parse(text).unwrap_or_default();
            Err(tool::fault(&value).unwrap_or_else(|| plain(&error)))
        },
        |tool| if tool.name.is_empty() { Err("its name is empty".into()) } else { Ok(tool) },
    )
}

fn called(written: &RawValue) -> Result<Given, String> {
    let text = &numbers::guard(written.get());
    let problem = match json::parse::<CallToolResult>(text) {
        Ok(result) => {
            return Ok(Given { result: ServerResult::CallToolResult(result), written: Some(written.to_owned()) });
        }
        Err(error) => plain(&error),
    };
    let mut value: Value = json::parse(text).map_err(|error| plain(&error))?;
    let complete = value.get("resultType").is_none_or(|kind| kind == "complete");
    // A task, a question to the user, or nothing at all.
    if !complete || ["content", "structuredContent", "isError"].iter().all(|field| value.get(field).is_none()) {
        let result = serde_json::from_value(value).map_err(|error| plain(&error))?;
        return Ok(Given { result, written: Some(written.to_owned()) });
    }
    value.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten().for_each(make_known);
    let written = RawValue::from_string(numbers::written(&value)).ok();
    let result: CallToolResult = serde_json::from_value(value).map_err(|_| problem)?;
    Ok(Given { result: ServerResult::CallToolResult(result), written })
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ListToolsRequest, PaginatedRequestParams};

    use super::*;

    fn asked(kind: Kind) -> Asked {
        Asked { id: RequestId::Number(7), kind }
    }

    /// Requests of the SDK that wait.
    fn of<const N: usize>(all: [Asked; N]) -> Waiting {
        let all = all.into_iter().map(|asked| (asked.number(), (asked, None))).collect();
        Waiting(Arc::new(Mutex::new(Waits { all, over: false })))
    }

    /// What the SDK is told, as JSON; "other" when it is not the answer.
    fn told(kind: Kind, body: &str, revision: Option<&str>) -> Value {
        match asked(kind).read(body.as_bytes(), revision) {
            Came::Answer(answer) => serde_json::to_value(answer.message()).expect("JSON"),
            Came::Other => "other".into(),
        }
    }

    fn result(kind: Kind, result: &Value) -> Value {
        told(kind, &json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string(), None)
    }

    #[test]
    fn a_request_is_known_by_its_kind() {
        let request = ClientRequest::ListToolsRequest(ListToolsRequest::with_param(PaginatedRequestParams::default()));
        let asked = Asked::of(&ClientJsonRpcMessage::request(request, RequestId::Number(7))).expect("a request");
        assert_eq!((asked.number(), asked.kind), (7, Kind::ListTools));
    }

    #[test]
    fn an_error_without_an_id_is_the_answer() {
        for body in [
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID provided"}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"No valid session ID provided"}}"#,
        ] {
            let told = told(Kind::CallTool, body, Some("2025-06-18"));
            assert_eq!((&told["id"], &told["error"]["message"]), (&json!(7), &json!("No valid session ID provided")), "{body}");
        }
    }

    #[test]
    fn a_malformed_tool_is_left_out_and_named_and_the_others_are_not() {
        let good = json!({"name": "good", "inputSchema": {"type": "object", "properties": {"q": {"type": "string"}}}});
        for (odd, named) in [
            (json!({"name": "bare"}), "bare: it has no inputSchema"),
            (json!({"name": "bare", "inputSchema": null}), "bare: its inputSchema is null"),
            (json!({"name": "bare", "inputSchema": "x"}), "bare: its inputSchema is a string"),
            (json!({"name": "bare", "inputSchema": []}), "bare: its inputSchema is an array"),
            (json!({"name": "bare", "inputSchema": true}), "bare: its inputSchema is a truth value"),
            (json!({"inputSchema": {}}), "tools[1]: it has no name"),
            (json!({"name": 5, "inputSchema": {}}), "tools[1]: its name is a number"),
            (json!({"name": "", "inputSchema": {}}), "tools[1]: its name is empty"),
            (json!(null), "tools[1]: it is null"),
            (json!("bare"), "tools[1]: it is a string"),
            (json!({"name": "bare", "inputSchema": {}, "description": 5}), "bare: invalid type"),
        ] {
            let told = result(Kind::ListTools, &json!({"tools": [good, odd]}));
            assert_eq!(told["result"]["tools"].as_array().map(Vec::len), Some(1), "{odd}: {told}");
            let left_out = told["result"]["_meta"][LEFT_OUT][0].as_str().unwrap_or_default();
            assert!(left_out.starts_with(named), "{odd}: {left_out}");
        }
        for field in ["description", "annotations", "outputSchema", "title", "icons", "_meta", "execution"] {
            let mut odd = json!({"name": "odd", "inputSchema": {}});
            odd[field] = Value::Null;
            let told = result(Kind::ListTools, &json!({"tools": [good, odd]}));
            assert_eq!(told["result"]["tools"].as_array().map(Vec::len), Some(2), "{field}: {told}");
        }
    }

    #[test]
    fn a_list_is_no_other_thing_and_its_cursor_is_a_string() {
        assert_eq!(
            result(Kind::ListTools, &json!({"tools": "none"}))["error"]["message"],
            "the server's result is malformed: its \"tools\" are no array"
        );
        assert!(
            result(Kind::ListTools, &json!({"content": []}))["error"]["message"]
                .as_str()
                .is_some_and(|told| told.contains("tools"))
        );
        let told = result(Kind::ListTools, &json!({"tools": [], "nextCursor": 5}));
        assert!(told["result"]["_meta"][LEFT_OUT][0].as_str().is_some_and(|told| told.contains("nextCursor")), "{told}");
        assert_eq!(result(Kind::ListTools, &json!({"tools": [], "nextCursor": "x"}))["result"]["nextCursor"], "x");
        let own = json!({"tools": [], "_meta": {LEFT_OUT: ["a lie"]}});
        assert_eq!(result(Kind::ListTools, &own)["result"]["_meta"][LEFT_OUT], json!([]));
    }

    #[test]
    fn a_malformed_resource_or_prompt_costs_only_itself() {
        for (kind, field, good, odd) in [
            (Kind::ListResources, "resources", json!({"uri": "a:b", "name": "a"}), json!({"name": "no URI"})),
            (Kind::ListTemplates, "resourceTemplates", json!({"uriTemplate": "a:{b}", "name": "a"}), json!({"uriTemplate": 5})),
            (
                Kind::ListPrompts,
                "prompts",
                json!({"name": "a", "arguments": [{"name": "x"}]}),
                json!({"name": "a", "arguments": "x"}),
            ),
        ] {
            for next in [json!(5), json!(null), json!("")] {
                let told = result(kind, &json!({field: [good, odd, "x", null], "nextCursor": next}));
                assert_eq!(told["result"][field].as_array().map(Vec::len), Some(1), "{field}: {told}");
                assert_eq!(told["result"]["nextCursor"], Value::Null, "{field}: {told}");
            }
            assert_eq!(result(kind, &json!({field: [], "nextCursor": "x"}))["result"]["nextCursor"], "x");
            for malformed in [json!({field: "none"}), json!({}), json!({field: null})] {
                let told = result(kind, &malformed);
                assert!(told["error"]["message"].as_str().is_some_and(|told| told.contains("malformed")), "{field}: {told}");
            }
        }
    }

    #[test]
    fn what_a_resource_or_a_prompt_is_passes_whole_and_nothing_else_is_taken_for_it() {
        let read = result(Kind::ReadResource, &json!({"contents": [{"uri": "a:b", "text": "x"}], "_meta": {"a": 1}}));
        assert_eq!((&read["result"]["contents"][0]["text"], &read["result"]["_meta"]["a"]), (&json!("x"), &json!(1)));
        let odd = json!({"role": "user", "content": {"type": "video", "data": "x"}});
        let text = json!({"role": "assistant", "content": {"type": "text", "text": "x"}});
        let prompt = result(Kind::GetPrompt, &json!({"messages": [odd, text]}));
        assert!(
            prompt["result"]["messages"][0]["content"]["text"].as_str().is_some_and(|told| told.contains("video")),
            "{prompt}"
        );
        assert_eq!(
            result(Kind::Complete, &json!({"completion": {"values": ["x"]}}))["result"]["completion"]["values"],
            json!(["x"])
        );
        let asks = json!({"resultType": "input_required", "requestState": "s", "inputRequests": {}});
        assert_eq!(result(Kind::GetPrompt, &asks)["result"]["requestState"], "s");
        for (kind, malformed) in [
            (Kind::ReadResource, json!({"contents": "x"})),
            (Kind::ReadResource, json!({"contents": [{"uri": "a:b"}]})),
            (Kind::ReadResource, json!({"content": []})),
            (Kind::GetPrompt, json!({"messages": [{"role": "user", "content": "x"}]})),
            (Kind::GetPrompt, json!({"messages": [{"role": "nobody", "content": {"type": "text", "text": "x"}}]})),
            (Kind::Complete, json!({"values": ["x"]})),
        ] {
            let told = result(kind, &malformed);
            assert!(told["error"]["message"].as_str().is_some_and(|told| told.contains("malformed")), "{malformed}: {told}");
        }
    }

    #[test]
    fn a_malformed_result_of_a_call_is_an_error_that_says_so() {
        for odd in [
            json!({"content": "x"}),
            json!({"content": [5]}),
            json!({"content": [{"type": "text"}]}),
            json!({"content": [], "isError": "no"}),
            json!({"content": {"type": "text", "text": "x"}}),
            json!(null),
            json!("x"),
            json!([]),
            json!(5),
        ] {
            let told = result(Kind::CallTool, &odd);
            assert!(told["error"]["message"].as_str().is_some_and(|told| told.contains("malformed")), "{odd}: {told}");
        }
        for good in [json!({"content": []}), json!({"structuredContent": {"a": 1}}), json!({}), json!({"isError": true})] {
            assert!(result(Kind::CallTool, &good)["error"].is_null(), "{good}");
        }
        let told = result(Kind::CallTool, &json!({"content": [{"type": "video", "data": "…"}, {"type": "text", "text": "x"}]}));
        assert_eq!(told["result"]["content"][1]["text"], "x", "{told}");
        assert!(told["result"]["content"][0]["text"].as_str().is_some_and(|told| told.contains("video")), "{told}");
    }

    #[test]
    fn what_is_no_discover_result_means_an_earlier_era() {
        for odd in
            [json!({}), json!({"supportedVersions": ["2025-11-25"], "capabilities": {}}), json!({"tools": []}), json!(null)]
        {
            assert_eq!(result(Kind::Discover, &odd)["error"]["code"], -32601, "{odd}");
        }
        let legacy = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32022,"message":"no","data":{"supported":["2025-06-18"]}}}"#;
        assert_eq!(told(Kind::Discover, legacy, None)["error"]["code"], -32601);
        let header = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32020,"message":"no"}}"#;
        assert_eq!(told(Kind::Discover, header, None)["error"]["code"], -32020);
        let good = json!({"supportedVersions": [MODERN], "capabilities": {"tools": {}}});
        assert_eq!(result(Kind::Discover, &good)["result"]["supportedVersions"][0], MODERN);
        assert_eq!(
            result(Kind::Initialize, &json!({"protocolVersion": "2025-06-18"}))["result"]["protocolVersion"],
            "2025-06-18"
        );
    }

    #[test]
    fn the_lines_of_a_child_are_told_apart() {
        let asked = |number| Asked { id: RequestId::Number(number), kind: Kind::CallTool };
        let waiting = of([7, 8].map(asked));
        let read = |line: &str| match waiting.read(line.as_bytes()) {
            Line::Sdk(message) => Some(serde_json::to_value(message).expect("JSON")),
            Line::Taken | Line::Nothing => None,
        };
        assert_eq!(read("Listening on stdio"), None);
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#), None);
        assert_eq!(read(r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"?"}}"#), None, "whose?");
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
        assert_eq!(read(progress).expect("a message")["method"], "notifications/progress");
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":"8","result":{"content":"x"}}"#).expect("an answer")["error"]["code"], -32603);
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":8,"result":{"content":[]}}"#), None, "answered already");
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#).expect("an answer")["id"], 7);
    }

    #[test]
    fn an_answer_of_a_child_goes_where_it_is_waited_for() {
        let waiting = Waiting::default();
        let line = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
        let mut answer = waiting.asks(asked(Kind::CallTool));
        assert!(matches!(waiting.read(line.as_bytes()), Line::Taken));
        assert!(answer.try_recv().expect("the answer").result.is_ok());
        assert!(matches!(waiting.read(line.as_bytes()), Line::Nothing), "once");
        let mut open = waiting.asks(asked(Kind::CallTool));
        waiting.end();
        assert!(open.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        let mut late = waiting.asks(asked(Kind::CallTool));
        assert!(late.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed), "it has ended");
    }

    /// The result of a call, as it is passed on.
    fn written_of(body: &str) -> String {
        let Came::Answer(answer) = asked(Kind::CallTool).read(body.as_bytes(), None) else { return String::new() };
        answer.result.expect("a result").written.expect("a call's").get().to_owned()
    }

    #[test]
    fn what_the_types_do_not_know_of_a_result_stays_in_it() {
        let written = |result: Value| {
            let body = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
            written_of(&body)
        };
        let own = json!({"content": [{"type": "text", "text": "x", "of": {"its": "own"}}], "more": 1});
        assert_eq!(written(own.clone()), own.to_string());
        let odd = json!({"content": [{"type": "text", "text": "x", "own": 1}, {"type": "video", "data": "x"}]});
        let told: Value = serde_json::from_str(&written(odd)).expect("JSON");
        assert_eq!((&told["content"][0]["own"], &told["content"][1]["type"]), (&json!(1), &json!("text")), "{told}");
        let long = r#"{"jsonrpc":"2.0","id":7,"result":{"structuredContent":{"id":12345678901234567890123}}}"#;
        assert_eq!(written_of(long), r#"{"structuredContent":{"id":12345678901234567890123}}"#);
    }

    #[test]
    fn what_many_answers_take_together_is_known_before_they_are_read() {
        let result =
            |values: usize| format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"a":[{}1]}}}}"#, r#"{"a":1},"#.repeat(values));
        let weight = |kind, values| asked(kind).weight(result(values).as_bytes()) >> 20;
        assert!((13..=14).contains(&weight(Kind::CallTool, 20_000)), "{}", weight(Kind::CallTool, 20_000));
        assert_eq!(weight(Kind::CallTool, 200), 0, "it is small");
        assert_eq!(weight(Kind::CallTool, 900_000), 0, "it is not read at all");
        assert_eq!(weight(Kind::ListTools, 20_000), 0, "of which there is one at a time");
        let waiting = of([asked(Kind::CallTool)]);
        let (id, weight) = waiting.weight(result(20_000).as_bytes()).expect("an answer");
        assert_eq!((id, weight >> 20), (RequestId::Number(7), 13));
        assert!(matches!(waiting.read(result(1).as_bytes()), Line::Sdk(_)), "it still waits");
    }

    #[test]
    fn marks_arrays_and_depth_are_read_and_small_bombs_are_not() {
        let body = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
        assert!(told(Kind::CallTool, &format!("\u{feff}{body}"), None)["result"].is_object());
        assert!(told(Kind::CallTool, &format!("[{body}]"), Some(WITH_ARRAYS))["result"].is_object());
        assert!(told(Kind::CallTool, &format!("[{body}]"), Some("2025-06-18"))["error"].is_object());
        let deep = "[".repeat(400) + &"]".repeat(400);
        let body = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"structuredContent":{{"a":{deep}}}}}}}"#);
        assert!(told(Kind::CallTool, &body, None)["result"].is_object());
        let bomb = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"structuredContent":[{}1]}}}}"#, r#"{"a":1},"#.repeat(900_000));
        assert!(
            told(Kind::CallTool, &bomb, None)["error"]["message"].as_str().is_some_and(|told| told.contains("too many values"))
        );
        assert_eq!(told(Kind::CallTool, r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, None), "other");
    }
}

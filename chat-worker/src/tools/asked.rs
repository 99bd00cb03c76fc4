//! What a server's answer is to the request that it answers. Pure. Whatever comes becomes a result of the right type, or an error that says
//! what is wrong. The SDK alone would take any object for any result, and would wait for an id that never comes. Rules that the prober
//! shares are `mcp_wire`'s.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mcp_wire::{
    content,
    hello::{self, Discovered, WITH_ARRAYS},
    item::Item,
    json::{self, MAX_WEIGHT},
    message::{self, Arrays, Message, Peek, RpcError},
};
use rmcp::model::{
    CallToolResult, ClientJsonRpcMessage, ClientNotification, ClientRequest, DiscoverResult, ErrorCode, ErrorData,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, MetaObject,
    RequestId, ServerJsonRpcMessage, ServerResult,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use tokio::sync::oneshot;

use crate::{heavy::LIGHT, numbers};

/// What a result of a call may take in memory, in bytes: there are many at once.
const MAX_RESULT_WEIGHT: usize = 48 << 20;
/// Where a list tells what was left out of it, and why: the SDK's own types have no place for that.
pub const LEFT_OUT: &str = "mcpfleet.dev/left-out";
/// And how many bytes it had.
pub const SIZE: &str = "mcpfleet.dev/size";

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
    Listen,
    Other,
}

/// What came for a request.
#[derive(Debug)]
pub enum Came {
    Answer(Box<Answer>),
    /// No message, or the answer to something else. Where more may come, it is passed over; this is the answer where nothing does.
    Odd(Box<Answer>),
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
    /// That of a call of a tool as it was written: what the SDK's types do not know is in there, too.
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
            ClientRequest::SubscriptionsListenRequest(_) => Kind::Listen,
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

    pub fn is_initialize(&self) -> bool {
        self.kind == Kind::Initialize
    }

    /// Its stream goes on for as long as somebody listens.
    pub fn listens(&self) -> bool {
        self.kind == Kind::Listen
    }

    /// Somebody made it, and waits for as long as it has time. All others are answered at once, if at all.
    pub fn is_of_somebody(&self) -> bool {
        matches!(self.kind, Kind::CallTool | Kind::ReadResource | Kind::GetPrompt | Kind::Complete)
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
        let arrays = if revision == Some(WITH_ARRAYS) { Arrays::Taken } else { Arrays::Refused };
        let tidied = match json::tidy(bytes, self.most()) {
            Ok(tidied) => tidied,
            Err(problem) => return Came::Odd(Box::new(self.failed(&format!("the server's answer cannot be read: {problem}")))),
        };
        match message::read(&tidied, self.number(), arrays) {
            Ok(Message::Result(result)) => match self.result(result) {
                Ok(given) => Came::Answer(Box::new(Answer { id: self.id.clone(), result: Ok(given) })),
                Err(problem) => Came::Answer(Box::new(self.failed(&format!("the server's result is malformed: {problem}")))),
            },
            Ok(Message::Error(error)) => Came::Answer(Box::new(self.error(error))),
            Ok(Message::Other) => Came::Other,
            Err(fault) => {
                let failed = Box::new(self.failed(&format!("the server's answer is malformed: {fault}")));
                if fault.answers { Came::Answer(failed) } else { Came::Odd(failed) }
            }
        }
    }

    /// What an answer takes of the memory once it is read, of a kind of which there may be many at once; nothing, where it will be refused.
    pub fn weight(&self, bytes: &[u8]) -> usize {
        if !self.is_of_somebody() || bytes.len() < LIGHT {
            return 0;
        }
        json::weight(bytes).filter(|weight| *weight <= self.most()).unwrap_or_default()
    }

    fn most(&self) -> usize {
        if self.kind == Kind::CallTool { MAX_RESULT_WEIGHT } else { MAX_WEIGHT }
    }

    /// The answer that there is none of use. To discover, that means an earlier era: it leads to initialize.
    pub fn failed(&self, problem: &str) -> Answer {
        let code = if self.is_discover() { ErrorCode::METHOD_NOT_FOUND } else { ErrorCode::INTERNAL_ERROR };
        Answer { id: self.id.clone(), result: Err(ErrorData::new(code, problem.to_owned(), None)) }
    }

    /// An error of the server's own. Whatever it is, to discover it means an earlier era.
    pub fn error(&self, error: RpcError) -> Answer {
        let message = if error.message.is_empty() { "an error without a message".to_owned() } else { error.message };
        if self.is_discover() {
            return self.failed(&message);
        }
        let code = i32::try_from(error.code).map_or(ErrorCode::INTERNAL_ERROR, ErrorCode);
        Answer { id: self.id.clone(), result: Err(ErrorData::new(code, message, error.data)) }
    }

    fn result(&self, result: &RawValue) -> Result<Given, String> {
        let result = match self.kind {
            Kind::CallTool => return called(result),
            Kind::Discover => discovered(result.get()),
            Kind::Initialize => initialized(result.get()),
            Kind::ListTools => {
                let Page { items, next, told } = page(result.get(), Item::Tool)?;
                let list = ListToolsResult { next_cursor: next, meta: told, ..ListToolsResult::with_all_items(items) };
                Ok(ServerResult::ListToolsResult(list))
            }
            Kind::ListResources => {
                let Page { items, next, told } = page(result.get(), Item::Resource)?;
                let list = ListResourcesResult { next_cursor: next, meta: told, ..ListResourcesResult::with_all_items(items) };
                Ok(ServerResult::ListResourcesResult(list))
            }
            Kind::ListTemplates => {
                let Page { items, next, told } = page(result.get(), Item::Template)?;
                let all = ListResourceTemplatesResult::with_all_items(items);
                let list = ListResourceTemplatesResult { next_cursor: next, meta: told, ..all };
                Ok(ServerResult::ListResourceTemplatesResult(list))
            }
            Kind::ListPrompts => {
                let Page { items, next, told } = page(result.get(), Item::Prompt)?;
                let list = ListPromptsResult { next_cursor: next, meta: told, ..ListPromptsResult::with_all_items(items) };
                Ok(ServerResult::ListPromptsResult(list))
            }
            Kind::ReadResource => whole_or_asking(result.get(), ServerResult::ReadResourceResult),
            Kind::GetPrompt => whole_or_asking(result.get(), ServerResult::GetPromptResult),
            Kind::Complete => whole_or_asking(result.get(), ServerResult::CompleteResult),
            Kind::Listen | Kind::Other => json::parse(result.get()).map_err(|error| plain(&error)),
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
        let Some(peek) = message::peek(line) else { return Line::Nothing };
        if peek.has_method {
            let message = json::tidy(line, MAX_WEIGHT).ok().and_then(|tidied| json::parse(&tidied).ok());
            return message.map_or(Line::Nothing, |message| Line::Sdk(Box::new(message)));
        }
        let Some((asked, to)) = self.take(&peek) else { return Line::Nothing };
        match (asked.read(line, None), to) {
            (Came::Answer(answer) | Came::Odd(answer), Some(to)) => {
                // Whoever asked may have gone.
                let _ = to.send(answer);
                Line::Taken
            }
            (Came::Answer(answer) | Came::Odd(answer), None) => Line::Sdk(Box::new(answer.message())),
            (Came::Other, _) => Line::Nothing,
        }
    }

    /// Whose answer a line is, and what it takes of the memory once it is read: see `Asked::weight`.
    pub fn weight(&self, line: &[u8]) -> Option<(RequestId, usize)> {
        if line.len() < LIGHT {
            return None;
        }
        let peek = message::peek(line).filter(|peek| !peek.has_method)?;
        let asked = {
            let waits = self.waits();
            waits.all.get(&answered(&peek, &waits.all)?)?.0.clone()
        };
        let weight = asked.weight(line);
        Some((asked.id, weight))
    }

    /// The request that a message answers.
    fn take(&self, peek: &Peek) -> Option<Wait> {
        let mut waits = self.waits();
        let number = answered(peek, &waits.all)?;
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

/// The number of the request that a message answers.
fn answered<T>(peek: &Peek, waiting: &HashMap<i64, T>) -> Option<i64> {
    match &peek.id {
        Some(Value::Number(number)) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Some(Value::String(text)) => text.parse().ok(),
        // Who could not read a request does not know its id. Where several wait, it is not known whose it is.
        _ if peek.has_error && waiting.len() == 1 => waiting.keys().next().copied(),
        _ => None,
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

fn discovered(text: &str) -> Result<ServerResult, String> {
    let value: Value = json::parse(text).map_err(|error| plain(&error))?;
    if hello::discovered(&value) != Discovered::Modern {
        return Err(format!("it is no result of server/discover that lists {}", hello::MODERN));
    }
    let result: DiscoverResult = serde_json::from_value(hello::fit(value)).map_err(|error| plain(&error))?;
    Ok(ServerResult::DiscoverResult(result))
}

fn initialized(text: &str) -> Result<ServerResult, String> {
    let value: Value = json::parse(text).map_err(|error| plain(&error))?;
    hello::initialized(&value).map_err(|problem| problem.to_string())?;
    let result: InitializeResult = serde_json::from_value(hello::fit(value)).map_err(|error| plain(&error))?;
    Ok(ServerResult::InitializeResult(result))
}

/// A page of a list: its items that can be used, where it goes on, and what is told of the others.
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
    told: Option<MetaObject>,
}

/// Reads a page. What nobody can use costs only itself, and is named.
fn page<T: DeserializeOwned>(text: &str, item: Item) -> Result<Page<T>, String> {
    let field = item.field();
    let page: HashMap<String, &RawValue> = serde_json::from_str(text).map_err(|error| plain(&error))?;
    let raw = page.get(field).ok_or_else(|| format!("missing field `{field}`"))?;
    let raw: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| format!("its \"{field}\" are no array"))?;
    let (mut items, mut left_out) = (Vec::with_capacity(raw.len()), Vec::new());
    for (place, raw) in raw.into_iter().enumerate() {
        match usable(raw.get(), item, place) {
            Ok(one) => items.push(one),
            Err(problem) => left_out.push(Value::from(problem)),
        }
    }
    let next = match page.get("nextCursor").map(|next| serde_json::from_str(next.get())) {
        // Nobody goes on with an empty one.
        Some(Ok(Value::String(cursor))) => Some(cursor).filter(|cursor| !cursor.is_empty()),
        None | Some(Ok(Value::Null)) => None,
        Some(_) => {
            left_out.push(format!("all further pages: the nextCursor of {field} is no string").into());
            None
        }
    };
    let mut told = serde_json::Map::from_iter([(SIZE.to_owned(), text.len().into())]);
    told.insert(LEFT_OUT.to_owned(), left_out.into());
    Ok(Page { items, next, told: Some(MetaObject(told)) })
}

/// One item of a list; the error says which it is, and what is wrong with it.
fn usable<T: DeserializeOwned>(text: &str, item: Item, place: usize) -> Result<T, String> {
    let value: Value = json::parse(text).map_err(|error| format!("{}[{place}]: {}", item.field(), plain(&error)))?;
    let known_as = item.known_as(&value, place);
    let one = item.usable(value).and_then(|value| serde_json::from_value(value).map_err(|error| plain(&error)));
    one.map_err(|problem| format!("{known_as}: {problem}"))
}

/// A result, or what the server wants to know before there is one.
fn whole_or_asking<T: DeserializeOwned>(text: &str, of: impl Fn(T) -> ServerResult) -> Result<ServerResult, String> {
    let text = &numbers::guard(text);
    let problem = match json::parse::<T>(text) {
        Ok(result) => return Ok(of(result)),
        Err(error) => plain(&error),
    };
    let mut value: Value = json::parse(text).map_err(|error| plain(&error))?;
    if value.get("resultType").is_some_and(|kind| kind != "complete") {
        return serde_json::from_value(value).map_err(|error| plain(&error));
    }
    content::fit(&mut value);
    serde_json::from_value(value).map(of).map_err(|_| problem)
}

/// The result of a call. As it was written it passes to whoever takes it whole; what a model is told of it has to fit our types.
fn called(written: &RawValue) -> Result<Given, String> {
    let text = &numbers::guard(written.get());
    let given = |result| Given { result: ServerResult::CallToolResult(result), written: Some(written.to_owned()) };
    let problem = match json::parse::<CallToolResult>(text) {
        Ok(result) => return Ok(given(result)),
        Err(error) => plain(&error),
    };
    let mut value: Value = json::parse(text).map_err(|error| plain(&error))?;
    let complete = value.get("resultType").is_none_or(|kind| kind == "complete");
    // A task, a question to the user, or nothing at all.
    if !complete || ["content", "structuredContent", "isError"].iter().all(|field| value.get(field).is_none()) {
        return serde_json::from_value::<ServerResult>(value).map(Given::from).map_err(|error| plain(&error));
    }
    content::fit(&mut value);
    serde_json::from_value(value).map(given).map_err(|_| problem)
}

#[cfg(test)]
mod tests {
    use mcp_wire::hello::MODERN;
    use rmcp::model::{ListToolsRequest, PaginatedRequestParams};
    use serde_json::json;

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
            Came::Answer(answer) | Came::Odd(answer) => serde_json::to_value(answer.message()).expect("JSON"),
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
            (json!(["bare", null, null, {}, null, null, null, null]), "tools[1]: it is an array"),
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
            odd[field] = if field == "outputSchema" { json!(true) } else { json!([5]) };
            let told = result(Kind::ListTools, &json!({"tools": [good, odd]}));
            assert_eq!(told["result"]["tools"].as_array().map(Vec::len), Some(2), "{field}: {told}");
            assert_eq!(told["result"]["_meta"][LEFT_OUT], json!([]), "{field}: {told}");
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
    fn a_malformed_resource_or_prompt_costs_only_itself_and_is_named() {
        for (kind, field, good, odd, reason) in [
            (
                Kind::ListResources,
                "resources",
                json!({"uri": "a:b", "name": "a", "size": 12.0, "icons": [{"src": "a", "sizes": "48x48"}]}),
                json!({"name": "no URI"}),
                "no URI: it has no uri",
            ),
            (
                Kind::ListTemplates,
                "resourceTemplates",
                json!({"uriTemplate": "a:{b}", "name": "a", "annotations": []}),
                json!({"uriTemplate": 5}),
                "resourceTemplates[1]: its uriTemplate is a number",
            ),
            (
                Kind::ListPrompts,
                "prompts",
                json!({"name": "a", "arguments": [{"name": "x", "required": "yes"}], "_meta": []}),
                json!({"name": "b", "arguments": "x"}),
                "b: its arguments are a string",
            ),
        ] {
            for next in [json!(5), json!(null), json!("")] {
                let told = result(kind, &json!({field: [good, odd, "x", null], "nextCursor": next}));
                assert_eq!(told["result"][field].as_array().map(Vec::len), Some(1), "{field}: {told}");
                assert_eq!(told["result"]["nextCursor"], Value::Null, "{field}: {told}");
                let left_out = told["result"]["_meta"][LEFT_OUT].to_string();
                for named in [reason, &format!("{field}[2]: it is a string"), &format!("{field}[3]: it is null")] {
                    assert!(left_out.contains(named), "{named}: {left_out}");
                }
                assert_eq!(left_out.contains("no string"), next == json!(5), "{left_out}");
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
        assert_eq!(told(Kind::Discover, header, None)["error"]["code"], -32601);
        let both = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}}"#;
        assert_eq!(told(Kind::Discover, both, None)["error"]["code"], -32601);
        let unnamed = json!({"supportedVersions": [MODERN], "capabilities": null});
        assert_eq!(result(Kind::Discover, &unnamed)["error"]["code"], -32601);
        let good = json!({"supportedVersions": [MODERN], "capabilities": {"tools": {}}});
        assert_eq!(result(Kind::Discover, &good)["result"]["supportedVersions"][0], MODERN);
    }

    #[test]
    fn a_hello_opens_a_connection_whatever_only_describes_its_server_and_none_of_an_unknown_revision_does() {
        let hello = |odd: Value| {
            let mut hello = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                                   "serverInfo": {"name": "x", "version": "1"}});
            hello.as_object_mut().expect("an object").extend(odd.as_object().expect("an object").clone());
            result(Kind::Initialize, &hello)
        };
        for odd in [
            json!({"capabilities": {"tools": []}}),
            json!({"capabilities": {"tools": {}, "experimental": []}}),
            json!({"capabilities": {"tools": {"listChanged": "true"}, "logging": true}}),
            json!({"serverInfo": {"name": "x", "version": 1.2}}),
            json!({"serverInfo": null}),
            json!({"serverInfo": {"name": "x", "version": "1", "icons": [{"src": "a", "sizes": "48x48"}]}}),
            json!({"instructions": ["a"]}),
            json!({"_meta": []}),
        ] {
            assert!(hello(odd.clone())["result"]["capabilities"]["tools"].is_object(), "{odd}: {}", hello(odd.clone()));
        }
        for (odd, told) in [
            (json!({"protocolVersion": "2099-01-01"}), "its revision \"2099-01-01\" is not known here"),
            (json!({"protocolVersion": MODERN}), "is not known here"),
            (json!({"protocolVersion": 5}), "it names no protocolVersion"),
            (json!({"capabilities": null}), "it names no capabilities"),
        ] {
            let message = &hello(odd)["error"]["message"];
            assert!(message.as_str().is_some_and(|message| message.contains(told)), "{message}");
        }
        let odd = json!({"supportedVersions": [MODERN], "capabilities": {"tools": []}, "ttlMs": 1.5, "cacheScope": "shared"});
        assert_eq!(result(Kind::Discover, &odd)["result"]["cacheScope"], "private");
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
        let twice = of([asked(7)]).read(br#"{"id":9,"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#);
        assert!(matches!(twice, Line::Sdk(_)), "the last id counts");
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
        for odd in [
            json!({"content": [{"type": "text", "text": "x", "own": 1}, {"type": "video", "data": "x"}]}),
            json!({"content": [{"type": "resource_link", "uri": "a:b", "name": "a", "size": 12.0}]}),
            json!({"content": [{"type": "resource_link", "uri": "a:b", "name": "a", "icons": [{"src": "a", "sizes": "48x48"}]}]}),
            json!({"content": [{"type": "text", "text": "x", "annotations": []}], "_meta": []}),
        ] {
            assert_eq!(written(odd.clone()), odd.to_string());
        }
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
        let others = told(Kind::CallTool, r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, None);
        assert!(others["error"]["message"].as_str().is_some_and(|told| told.contains("not the one of the request")), "{others}");
    }
}

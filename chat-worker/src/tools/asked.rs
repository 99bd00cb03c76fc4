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

use super::question::in_a_request;
use crate::{heavy::LIGHT, numbers};

/// What a result of a call may take in memory, in bytes: there are many at once.
const MAX_RESULT_WEIGHT: usize = 48 << 20;
/// Where a list tells what was left out of it, and why: the SDK's own types have no place for that.
pub const LEFT_OUT: &str = "mcpfleet.dev/left-out";
/// Its items as they were written, in their order: what the SDK's types do not know is in there, too.
pub const WRITTEN: &str = "mcpfleet.dev/written";
/// And how many bytes it had.
pub const SIZE: &str = "mcpfleet.dev/size";

/// What is told of discover where nothing came.
pub const SILENT: &str = "no answer to server/discover";

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
    pub result: Result<Given, Refused>,
}

/// Why there is no result.
#[derive(Debug)]
pub struct Refused {
    pub error: ErrorData,
    /// In the server's words, not in ours.
    pub is_own: bool,
}

impl Answer {
    /// As the SDK is to read it.
    pub fn message(self) -> ServerJsonRpcMessage {
        match self.result {
            Ok(given) => ServerJsonRpcMessage::response(given.result, self.id),
            Err(refused) => ServerJsonRpcMessage::error(refused.error, Some(self.id)),
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

    /// Nobody made it: we want to know of the server.
    pub fn is_of_ours(&self) -> bool {
        matches!(self.kind, Kind::Discover | Kind::Initialize | Kind::ListTools)
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
            // Once more, with its numbers as they are written.
            Ok(Message::Error(error)) => match message::read(&numbers::guard(&tidied), self.number(), arrays) {
                Ok(Message::Error(error)) => Came::Answer(Box::new(self.error(error))),
                _ => Came::Answer(Box::new(self.error(error))),
            },
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
        let error = ErrorData::new(code, problem.to_owned(), None);
        Answer { id: self.id.clone(), result: Err(Refused { error, is_own: false }) }
    }

    /// The answer where none came, and none is waited for any more.
    pub fn silent(&self) -> Answer {
        self.failed(SILENT)
    }

    /// An error of the server's own. Whatever it is, to discover it means an earlier era.
    pub fn error(&self, error: RpcError) -> Answer {
        let message = if error.message.is_empty() { "an error without a message".to_owned() } else { error.message };
        if self.is_discover() {
            return self.failed(&message);
        }
        let code = i32::try_from(error.code).map_or(ErrorCode::INTERNAL_ERROR, ErrorCode);
        let error = ErrorData::new(code, message, error.data);
        Answer { id: self.id.clone(), result: Err(Refused { error, is_own: true }) }
    }

    fn result(&self, result: &RawValue) -> Result<Given, String> {
        let result = match self.kind {
            Kind::CallTool => return called(result),
            Kind::ReadResource => return whole_or_asking(result, ServerResult::ReadResourceResult),
            Kind::GetPrompt => return whole_or_asking(result, ServerResult::GetPromptResult),
            Kind::Complete => return whole_or_asking(result, ServerResult::CompleteResult),
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

    /// Nobody waits any more for the answer to discover: it is this one. What comes late is nobody's.
    pub fn silent(&self) -> Option<Answer> {
        let mut waits = self.waits();
        let number = waits.all.iter().find(|(_, (asked, _))| asked.is_discover()).map(|(number, _)| *number)?;
        waits.all.remove(&number).map(|(asked, _)| asked.silent())
    }

    /// The answer to this request is larger than what is taken. Whoever waits for it is told so; for the SDK, by what is returned.
    pub fn too_long(&self, number: i64, most: usize) -> Option<ServerJsonRpcMessage> {
        let (asked, to) = self.waits().all.remove(&number)?;
        let answer = asked.failed(&format!("the answer is larger than {} MiB", most >> 20));
        match to {
            // Whoever asked may have gone.
            Some(to) => to.send(Box::new(answer)).err().and(None),
            None => Some(answer.message()),
        }
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
            let message = json::tidy(line, MAX_WEIGHT).ok().and_then(|tidied| json::parse(&in_a_request(&tidied)).ok());
            return message.map_or(Line::Nothing, |message| Line::Sdk(Box::new(message)));
        }
        let Some((asked, to)) = self.take(&peek) else {
            if peek.id.is_some() {
                tracing::debug!("a child answers what nobody waits for (any more); it is passed over");
            }
            return Line::Nothing;
        };
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
    let (mut items, mut written, mut left_out) = (Vec::with_capacity(raw.len()), Vec::with_capacity(raw.len()), Vec::new());
    for (place, raw) in raw.into_iter().enumerate() {
        match usable(raw.get(), item, place) {
            Ok((one, text)) => {
                items.push(one);
                written.push(Value::from(text));
            }
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
    let told =
        [(SIZE.to_owned(), text.len().into()), (WRITTEN.to_owned(), written.into()), (LEFT_OUT.to_owned(), left_out.into())];
    let told = serde_json::Map::from_iter(told);
    Ok(Page { items, next, told: Some(MetaObject(told)) })
}

/// One item of a list, and how it passes on: as it was written, but for what clients would refuse it for. The error says which it is, and what
/// is wrong with it.
fn usable<T: DeserializeOwned>(text: &str, item: Item, place: usize) -> Result<(T, String), String> {
    let value: Value = json::parse(text).map_err(|error| format!("{}[{place}]: {}", item.field(), plain(&error)))?;
    let known_as = item.known_as(&value, place);
    let one = || {
        let usable = item.usable(value.clone())?;
        let written = if usable == value { text.to_owned() } else { rewritten(text, item)? };
        Ok((serde_json::from_value(usable).map_err(|error| plain(&error))?, written))
    };
    one().map_err(|problem: String| format!("{known_as}: {problem}"))
}

/// Its text without what cannot be used, and with numbers as they were written.
fn rewritten(text: &str, item: Item) -> Result<String, String> {
    let value = json::parse(&numbers::guard(text)).map_err(|error| plain(&error))?;
    item.usable(value).map(|usable| numbers::written(&usable))
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
        return incomplete(value).map(written);
    }
    content::fit(&mut value);
    let result = serde_json::from_value(value).map(of).map_err(|_| problem)?;
    Ok(Given { result, written: Some(raw.to_owned()) })
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
        let result = incomplete(value)?;
        return Ok(Given { result, written: Some(written.to_owned()) });
    }
    content::fit(&mut value);
    serde_json::from_value(value).map(given).map_err(|_| problem)
}

/// What comes in the place of a result. What a server asks is read where it is asked, as it was written: the SDK's types know less of it.
fn incomplete(mut value: Value) -> Result<ServerResult, String> {
    if let Value::Object(fields) = &mut value
        && fields.get("resultType").is_some_and(|kind| kind == "input_required")
    {
        match fields.get_mut("inputRequests") {
            None => {}
            Some(Value::Null) => drop(fields.remove("inputRequests")),
            // That it asks is a result, also without a state to come back with.
            Some(Value::Object(questions)) => questions.clear(),
            Some(_) => return Err("its \"inputRequests\" are no object".to_owned()),
        }
    }
    serde_json::from_value(value).map_err(|error| plain(&error))
}

#[cfg(test)]
mod tests;

//! The short way of most requests: a complete, well-formed one for what servers have is read, run and answered without the SDK, whose way
//! through a transport and several tasks costs more than the rest, and whose types know less than what servers write. Whatever is not beyond
//! doubt goes the SDK's way, so that every refusal is the SDK's own; tests/chat_ways.rs holds the two ways to the same answers.

use std::{borrow::Cow, convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response, Sse, sse},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http_server::{host::only, json_rpc, request_id};
use mcp_wire::hello::LEGACY;
use rmcp::{
    ErrorData,
    model::{
        CompleteRequestParams, GetPromptRequestParams, InputResponses, PaginatedRequestParams, ProtocolVersion,
        ReadResourceRequestParams, RequestId, RequestMetaObject, ServerJsonRpcMessage,
    },
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Wanted,
    client::{Client, Streams},
    gateway::Gateway,
    offered::{Answer, Kind},
    running::{Asker, Ear, Message},
};
use crate::{
    numbers,
    tools::MODERN,
    ui::web::{problem::Problem, state::Web},
};

const CALL: &str = "tools/call";
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// What the names of headers begin with that repeat an argument, and the keys of `_meta` that are the protocol's own.
const ARGUMENT: &str = "mcp-param-";
const PROTOCOL: &str = "io.modelcontextprotocol/";
/// Messages that a client has not read yet; beyond them, the call waits.
const UNREAD: usize = 16;

/// A request that needs nothing of the SDK.
#[derive(Debug)]
pub struct Direct {
    id: RequestId,
    wanted: Wanted,
    meta: RequestMetaObject,
    is_modern: bool,
}

/// The only shape that is taken: an unknown, missing or doubled field is for the SDK to judge.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    jsonrpc: &'a str,
    id: RequestId,
    method: &'a str,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CallParams<'a> {
    name: &'a str,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    request_state: Option<String>,
    #[serde(default)]
    input_responses: InputResponses,
    #[serde(default, rename = "_meta")]
    _meta: IgnoredAny,
}

#[derive(Deserialize)]
struct OfMeta {
    #[serde(default, rename = "_meta")]
    meta: RequestMetaObject,
}

/// Reads a request; `None`: the SDK's.
pub fn read(parts: &Parts, body: &[u8]) -> Option<Direct> {
    let headers = &parts.headers;
    let is_json = only(headers, &header::CONTENT_TYPE)?.split(';').next()?.trim().eq_ignore_ascii_case("application/json");
    if parts.method != Method::POST || !is_json || !json_rpc::takes_json(headers) {
        return None;
    }
    // Numbers that are longer than those of a machine pass as they are written.
    let body = numbers::guard(std::str::from_utf8(body).ok()?);
    let Envelope { jsonrpc, id, method, params } = serde_json::from_str(&body).ok()?;
    if jsonrpc != "2.0" {
        return None;
    }
    let params = params.map_or("{}", RawValue::get);
    if !params.starts_with('{') {
        return None;
    }
    let wanted = wanted(method, params)?;
    let OfMeta { meta } = serde_json::from_str(params).ok()?;
    let is_modern = is_modern(headers, method, wanted.named(), &meta)?;
    Some(Direct { id, wanted, meta, is_modern })
}

/// What is asked for; `None` where it is none of these.
fn wanted(method: &str, params: &str) -> Option<Wanted> {
    let list = |kind| match serde_json::from_str::<PaginatedRequestParams>(params) {
        Ok(params) => Some(Wanted::List(kind, params.cursor)),
        // The SDK would read it as a request without any.
        Err(_) => json_rpc::misfit(method, None, false).map(Wanted::Misfit),
    };
    match method {
        CALL => {
            let CallParams { name, arguments, request_state, input_responses, .. } = serde_json::from_str(params).ok()?;
            let arguments = match arguments {
                Some(arguments) => as_written(arguments)?,
                None => RawValue::from_string("{}".to_owned()).ok()?,
            };
            Some(Wanted::Call { tool: name.to_owned(), arguments, state: request_state, answers: input_responses })
        }
        "resources/read" => {
            let mut params: ReadResourceRequestParams = serde_json::from_str(params).ok()?;
            params.meta = None;
            Some(Wanted::Read(params))
        }
        "prompts/get" => {
            let mut params: GetPromptRequestParams = serde_json::from_str(params).ok()?;
            params.meta = None;
            Some(Wanted::Prompt(params))
        }
        "completion/complete" => {
            let mut params: CompleteRequestParams = serde_json::from_str(params).ok()?;
            params.meta = None;
            Some(Wanted::Complete(params))
        }
        "tools/list" => list(Kind::Tools),
        "resources/list" => list(Kind::Resources),
        "resources/templates/list" => list(Kind::Templates),
        "prompts/list" => list(Kind::Prompts),
        _ => None,
    }
}

/// Arguments letter by letter, but for line breaks between them: a child reads a message by its line. `None`: they are no object.
fn as_written(arguments: &RawValue) -> Option<Box<RawValue>> {
    let text = arguments.get();
    if !text.starts_with('{') {
        return None;
    }
    match numbers::release(text) {
        Cow::Borrowed(_) if !text.contains(['\r', '\n']) => Some(arguments.to_owned()),
        released => RawValue::from_string(released.replace(['\r', '\n'], " ")).ok(),
    }
}

impl Wanted {
    /// What the header `Mcp-Name` has to say of it.
    fn named(&self) -> Option<&str> {
        match self {
            Self::Call { tool, .. } => Some(tool),
            Self::Read(params) => Some(&params.uri),
            Self::Prompt(params) => Some(&params.name),
            Self::Complete(_) | Self::List(..) | Self::Misfit(_) => None,
        }
    }
}

/// Whether a request is of the modern era; `None` where the headers and the body do not say the same.
fn is_modern(headers: &HeaderMap, method: &str, named: Option<&str>, meta: &RequestMetaObject) -> Option<bool> {
    let version = if headers.contains_key(&VERSION) { only(headers, &VERSION)? } else { LEGACY[0] };
    if LEGACY.contains(&version) {
        return (!meta.keys().any(|key| key.starts_with(PROTOCOL))).then_some(false);
    }
    let is_named = match named {
        Some(name) => only(headers, &NAME)? == name && !name.starts_with("=?"),
        None => !headers.contains_key(&NAME),
    };
    let said = only(headers, &METHOD)? == method && is_named;
    let plain = !headers.keys().any(|name| name.as_str().starts_with(ARGUMENT));
    let whole = meta.protocol_version().is_some_and(|version| version == ProtocolVersion::V_2026_07_28)
        && meta.missing_required_keys(&ProtocolVersion::V_2026_07_28).is_empty();
    (version == MODERN && said && plain && whole).then_some(true)
}

/// Does what is asked for, and answers with its result alone, or with a stream where something is said before that, or where there is none.
pub async fn answer(web: Arc<Web>, parts: Parts, direct: Direct) -> Response {
    let (to, mut messages) = mpsc::channel(UNREAD);
    let (gone, stopped) = (CancellationToken::new(), web.stopped.clone());
    let leaves = gone.clone().drop_guard();
    let takes_stream = parts.extensions.get::<Streams>().is_some_and(|streams| streams.0);
    let broken_off = {
        let (id, is_modern) = (direct.id.clone(), direct.is_modern);
        move || {
            let told = "this server stops, and the call has not ended: whether it did what it was asked for is not known";
            written(&id, Err(ErrorData::internal_error(told, None)), is_modern)
        }
    };
    let mut work = ToItsEnd::new(async move {
        let Direct { id, wanted, meta, is_modern } = direct;
        let asker = Asker {
            client: Client::who_sent(&parts, &meta, is_modern),
            id,
            request_id: request_id::of(&parts.headers).to_owned(),
            ear: Ear::Stream(to.clone()),
            gone,
            cancel: CancellationToken::new(),
        };
        let answer = Gateway { web }.wanted(wanted, Some(&parts.headers), &meta, &asker).await;
        // Who has cancelled a request expects no answer to it. One that takes no stream could not be told so.
        let last = if asker.cancel.is_cancelled() && takes_stream {
            Message::Ended
        } else {
            let code = answer.as_ref().err().map(|error| i64::from(error.code.0));
            Message::Answer(json_rpc::status(is_modern, code), written(&asker.id, answer, is_modern))
        };
        // The client may be gone.
        let _ = to.send(last).await;
    });
    let first = tokio::select! {
        biased;
        first = messages.recv() => first,
        () = work.done() => messages.recv().await,
        () = stopped.cancelled() => Some(Message::Answer(StatusCode::SERVICE_UNAVAILABLE, broken_off())),
    };
    // It goes on by itself while its client reads what is said meanwhile.
    drop(work);
    let said = match first {
        Some(Message::Said(said)) => Some(said),
        Some(Message::Ended) => None,
        Some(Message::Answer(status, answer)) => {
            return (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], answer).into_response();
        }
        None => return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the call ended without an answer").into_response(),
    };
    let goes_on = said.is_some().then_some((messages, leaves, stopped, broken_off));
    let rest = stream::unfold(goes_on, |state| async move {
        let (mut messages, leaves, stopped, broken_off) = state?;
        let next = tokio::select! {
            biased;
            next = messages.recv() => next?,
            () = stopped.cancelled() => return Some((broken_off(), None)),
        };
        match next {
            Message::Said(said) => Some((said, Some((messages, leaves, stopped, broken_off)))),
            Message::Answer(_, answer) => Some((answer, None)),
            Message::Ended => None,
        }
    });
    let events = stream::iter(said).chain(rest).map(|message| Ok::<_, Infallible>(event(&message)));
    let events = Sse::new(events).keep_alive(sse::KeepAlive::default());
    // Proxies in front pass each event on as it comes.
    ([(HeaderName::from_static("x-accel-buffering"), "no")], events).into_response()
}

/// Work that is done where it is waited for, and by itself where nobody waits for it any more: whoever leaves cancels a call, which still comes
/// to an end.
struct ToItsEnd(Option<BoxFuture<'static, ()>>);

impl ToItsEnd {
    fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(work.boxed()))
    }

    /// Waits for its end, which a fault of ours is, too: that is told as the end of the call, and not of the connection.
    async fn done(&mut self) {
        if let Some(work) = &mut self.0 {
            let done = AssertUnwindSafe(work).catch_unwind().await;
            self.0 = None;
            if done.is_err() {
                tracing::error!("a call broke off");
            }
        }
    }
}

impl Drop for ToItsEnd {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(work), Ok(runtime)) = (self.0.take(), runtime) {
            runtime.spawn(work);
        }
    }
}

/// What servers write may have line breaks between its fields, and only there.
fn event(message: &str) -> sse::Event {
    sse::Event::default().data(message.replace(['\r', '\n'], " "))
}

/// The answer as a message.
fn written(id: &RequestId, answer: Result<Answer, ErrorData>, is_modern: bool) -> String {
    let result = answer.and_then(|answer| {
        answer
            .written(is_modern)
            .map_err(|error| ErrorData::internal_error(format!("the result cannot be written: {error}"), None))
    });
    // An id and an error can always be written.
    match result {
        Ok(result) => {
            let id = serde_json::to_string(id).unwrap_or_default();
            let id = numbers::release(&id);
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
        }
        Err(error) => {
            let message = serde_json::to_string(&ServerJsonRpcMessage::error(error, Some(id.clone()))).unwrap_or_default();
            numbers::release(&message).into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn work_that_breaks_off_is_over() {
        let mut work = ToItsEnd::new(async { unreachable!("a fault of ours") });
        work.done().await;
        assert!(work.0.is_none(), "nobody goes on with it");
    }

    fn taken(headers: &[(&'static str, &'static str)], body: &str) -> Option<bool> {
        let mut request = Request::post("/mcp").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        read(&parts, body.as_bytes()).map(|call| call.is_modern)
    }

    fn message(params: &Value) -> String {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
    }

    #[test]
    fn whole_calls_of_both_eras_are_taken() {
        let plain = message(&json!({"name": "t", "arguments": {"a": 1}}));
        assert_eq!(taken(&[], &plain), Some(false));
        assert_eq!(taken(&[("mcp-protocol-version", "2025-06-18"), ("accept", "*/*")], &plain), Some(false));
        assert_eq!(taken(&[], &message(&json!({"name": "t", "_meta": {"progressToken": 1, "x/y": {}}}))), Some(false));
        assert_eq!(taken(&[], &message(&json!({"name": "t", "requestState": "s", "inputResponses": {"a": {}}}))), Some(false));
        for method in ["tools/list", "resources/list", "resources/templates/list", "prompts/list"] {
            assert_eq!(taken(&[], &json!({"jsonrpc": "2.0", "id": 1, "method": method}).to_string()), Some(false), "{method}");
        }
        let version = ("mcp-protocol-version", "2026-07-28");
        let all = [version, ("mcp-method", "tools/call"), ("mcp-name", "t")];
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"}, "io.modelcontextprotocol/clientCapabilities": {}});
        let modern = message(&json!({"name": "t", "_meta": meta}));
        assert_eq!(taken(&all, &modern), Some(true));
        assert_eq!(taken(&[version, ("mcp-method", "tools/call"), ("mcp-name", "other")], &modern), None);
        assert_eq!(taken(&[version, ("mcp-method", "tools/list"), ("mcp-name", "t")], &modern), None);
        assert_eq!(taken(&[all[0], all[1], all[2], ("mcp-param-x", "1")], &modern), None);
        assert_eq!(taken(&all[..2], &modern), None);
        assert_eq!(taken(&all, &plain), None, "it does not say what its client can");
        assert_eq!(taken(&[], &modern), None, "the header says another thing");
    }

    #[rstest]
    #[case::unknown(json!({"name": "t", "x": 1}))]
    #[case::nameless(json!({"arguments": {}}))]
    #[case::no_object(json!({"name": "t", "arguments": [1]}))]
    #[case::odd_meta(json!({"name": "t", "_meta": 5}))]
    fn what_is_in_doubt_is_not(#[case] params: Value) {
        assert_eq!(taken(&[], &message(&params)), None);
    }

    #[test]
    fn another_method_version_or_type_is_not_either() {
        let plain = message(&json!({"name": "t"}));
        for odd in [
            plain.replace("2.0", "1.0"),
            plain.replace("tools/call", "tools/like"),
            plain.replace(r#""id":1"#, r#""id":null"#),
            format!("[{plain}]"),
            plain.replace(r#""id":1"#, r#""id":1,"id":2"#),
        ] {
            assert_eq!(taken(&[], &odd), None, "{odd}");
        }
        assert_eq!(taken(&[("mcp-protocol-version", "2024-01-01")], &plain), None);
        assert_eq!(taken(&[("accept", "text/event-stream")], &plain), None);
        assert_eq!(taken(&[("content-type", "text/plain")], &plain), None, "two of them");
    }
}

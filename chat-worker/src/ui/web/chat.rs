//! POST /v1/chat: one turn, as a stream of events or as one object. The caller keeps the conversation and sends it with
//! every question, so that any replica can answer.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Extension, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_server::{forwarded::Caller, request_id};
use mcp_wire::json;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    problem::Problem,
    state::{MAX_BODY, Web},
    told::Told,
};
use crate::{
    heavy::{self, Room},
    limits,
    llm::none,
    message::Message,
    numbers, telemetry,
    turn::{driver::Turn, event::Event, opening::Opening, transcript::Transcript},
    ui::summary::{Gathered, summary},
};

/// What a caller sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What the user says. Without it, and without `with`, the conversation goes on where it stopped.
    message: Option<String>,
    /// What the user asks with: messages of a prompt, or a resource, as /v1/prompt and /v1/resource return them.
    #[serde(default)]
    with: Vec<Message>,
    /// The conversation so far, as the last turn returned it.
    #[serde(default)]
    messages: Vec<Message>,
    /// The ids of the waiting calls that the user allows; those that are not named are denied. Absent: not decided.
    approve: Option<Vec<String>>,
    /// Tools that need no asking any more, as `name@hash`.
    #[serde(default)]
    always: HashSet<String>,
    /// false: one object at the end.
    stream: Option<bool>,
    /// An earlier answer to the same request will do, where answers are kept.
    #[serde(default)]
    cache: bool,
}

pub async fn chat(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    room: Option<Extension<Arc<Room>>>,
    headers: HeaderMap,
    body: Result<Json<Box<RawValue>>, JsonRejection>,
) -> Result<Response, Problem> {
    if web.app.is_gateway {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, none::SENTENCE));
    }
    let request: Request = read(body, r#"{"message": "Hello"}"#).await?;
    let streamed = request.stream.unwrap_or_else(|| !wants_one_object(&headers));
    // A stream that has begun has its status.
    if streamed
        && !request.cache
        && let Some(error) = web.app.engine.ledger.over_budget()
    {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, error.to_string());
        return Err(match error.retry_after() {
            Some(seconds) => problem.retry_after(seconds),
            None => problem,
        });
    }
    let turn = turn(&web, request, request_id::of(&headers).to_owned(), caller.address.to_string())?;
    let cancel = turn.cancel.clone();
    let (sender, mut events) = mpsc::channel(64);
    let runner = Arc::clone(&web);
    let running = async move {
        // What the conversation takes of the memory, it takes until the turn has ended.
        let _room = room;
        runner.app.engine.metrics.running.inc();
        runner.app.engine.run(turn, sender).await;
        runner.app.engine.metrics.running.dec();
    };
    // A task of its own: it ends properly also when the caller goes away, which cancels it.
    let guard = cancel.drop_guard();
    tokio::spawn(running.instrument(telemetry::serve("POST", "/v1/chat", &headers)));
    if streamed {
        return Ok(Told::new(events, guard, &web.draining, web.app.settings.drain_seconds).into_response());
    }
    let mut gathered = Gathered::default();
    while let Some(event) = events.recv().await {
        gathered.take(event);
    }
    drop(guard);
    let seen = gathered.events();
    if !matches!(seen.last(), Some(Event::Done { .. } | Event::Error { .. })) {
        let detail =
            "the turn broke off by a fault of this program, of which its log says more; the conversation is as it was sent";
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail));
    }
    let body = numbers::release(&summary(seen).to_string()).into_owned();
    let mut response = (status_of(seen), [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let Some(Event::Error { retry_after: Some(seconds), .. }) = seen.last() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    Ok(response)
}

/// The request, or what to change about it.
pub async fn read<T: DeserializeOwned + Send + 'static>(
    body: Result<Json<Box<RawValue>>, JsonRejection>,
    example: &str,
) -> Result<T, Problem> {
    let Json(body) = body.map_err(|rejection| {
        let detail = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the request is larger than {} MiB", MAX_BODY / 1024 / 1024),
            _ => rejection.body_text(),
        };
        Problem::new(rejection.status(), detail)
    })?;
    // Fields by their place, which an array would be taken for, are nothing that anybody means.
    if !body.get().starts_with('{') {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("the request must be a JSON object such as {example}"),
        ));
    }
    // Its size and its weight have been looked at. What JavaScript and Python write is read, half a letter at the end of a text included.
    let read = heavy::work(body.get().len(), move || {
        let tidied = json::tidy(body.get().as_bytes(), usize::MAX).map_err(serde::de::Error::custom)?;
        json::parse(&numbers::guard(&tidied))
    });
    read.await.map_err(|error: serde_json::Error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the request: {error}")))
}

fn turn(web: &Arc<Web>, request: Request, request_id: String, caller: String) -> Result<Turn, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let shown = shown(&request.messages);
    let transcript = Transcript::read(request.messages).map_err(|error| bad(format!("messages: {error}")))?;
    let say = said(request.message.as_deref(), request.with, web.app.settings.max_message_chars as usize).map_err(bad)?;
    if say.is_none() && transcript.messages().is_empty() {
        return Err(bad("message: say something, or send the messages of a conversation to go on with".into()));
    }
    Ok(Turn {
        request_id,
        transcript,
        say,
        approvals: web.app.settings.approvals,
        unattended: false,
        caller,
        always: request.always,
        decided: request.approve,
        shown,
        decisions: None,
        model: None,
        cache: request.cache,
        cancel: CancellationToken::clone(&web.stopped).child_token(),
    })
}

/// Which definitions calls were shown with, as the turns that asked wrote it into them.
fn shown(messages: &[Message]) -> HashMap<String, String> {
    let blocks = messages.iter().flat_map(|message| &message.content).filter(|block| block["type"] == "tool_use");
    blocks.filter_map(|block| Some((block["id"].as_str()?.to_owned(), block["hash"].as_str()?.to_owned()))).collect()
}

/// What the user says, and asks with; or what is wrong with it.
fn said(message: Option<&str>, with: Vec<Message>, most: usize) -> Result<Option<Opening>, String> {
    if let Some(text) = message {
        limits::check_message(text, most).map_err(|error| format!("message: {error}"))?;
    }
    if with.is_empty() {
        return Ok(message.map(Opening::from));
    }
    let opening = Opening::read(with).map_err(|error| format!("with: {error}"))?;
    let opening = opening.ok_or("with: nothing is said in it; leave it out")?;
    let opening = match message {
        Some(text) => opening.and(text),
        None => opening,
    };
    limits::check_text(&opening.text(), most).map_err(|error| format!("with: {error}"))?;
    Ok(Some(opening))
}

fn wants_one_object(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

/// A turn that failed is a failed request; where the fault lies with the model API, a bad gateway.
fn status_of(events: &[Event]) -> StatusCode {
    match events.last() {
        Some(Event::Error { kind, .. }) if kind == "rate_limit" => StatusCode::TOO_MANY_REQUESTS,
        Some(Event::Error { kind, .. }) if kind == "deadline" => StatusCode::GATEWAY_TIMEOUT,
        Some(Event::Error { .. }) | None => StatusCode::BAD_GATEWAY,
        Some(_) => StatusCode::OK,
    }
}

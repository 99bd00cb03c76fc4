//! POST /v1/prompt and /v1/resource: a prompt or a resource of a server as messages, for a question to be asked with (`with` of /v1/chat).
//! They are fetched and put into words as for the terminal; the caller shows them to its user before they are sent. One object, or a stream of
//! events that tells meanwhile how far the server is. Whoever goes away stops it, for the server, too.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http_server::request_id;
use rmcp::{
    ErrorData,
    model::{ClientCapabilities, ErrorCode, GetPromptRequestParams, JsonObject, ReadResourceRequestParams},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{chat, problem::Problem, state::Web};
use crate::{
    current_request,
    heavy::Room,
    llm::none,
    message::Message,
    tools::{
        quoted::Source,
        relay::{Following, Next, Relay, Said, in_words},
        sanitize::clean_line,
    },
    turn::opening::Opening,
};

/// What a large request takes of the memory.
type Kept = Option<Extension<Arc<Room>>>;
type Body = Result<Json<Box<RawValue>>, JsonRejection>;
type Asking = Following<BoxFuture<'static, Result<Vec<Message>, ErrorData>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptRequest {
    /// As the terminal and /mcp list it.
    name: String,
    #[serde(default)]
    arguments: JsonObject,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceRequest {
    uri: String,
}

/// A prompt, filled in.
pub async fn prompt(State(web): State<Arc<Web>>, room: Kept, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let request: PromptRequest = chat::read(body, r#"{"name": "server__prompt", "arguments": {}}"#).await?;
    let params = GetPromptRequestParams::new(request.name).with_arguments(request.arguments);
    quoted(web, &headers, Source::Prompt(params), room).await
}

/// A resource.
pub async fn resource(State(web): State<Arc<Web>>, room: Kept, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let request: ResourceRequest = chat::read(body, r#"{"uri": "file:///notes.txt"}"#).await?;
    quoted(web, &headers, Source::Resource(ReadResourceRequestParams::new(request.uri)), room).await
}

async fn quoted(web: Arc<Web>, headers: &HeaderMap, source: Source, room: Kept) -> Result<Response, Problem> {
    if web.app.is_gateway {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, none::SENTENCE));
    }
    let (relay, hears) = Relay::new(ClientCapabilities::default(), None, false);
    let hub = Arc::clone(&web.app.engine.hub);
    let work = async move {
        // What the request takes of the memory, it takes until the server has answered.
        let _room = room;
        hub.quoted(source, relay).await
    };
    let mut asking = Following::new(current_request::scope(request_id::of(headers).to_owned(), work).boxed(), hears);
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") {
        return Ok(streamed(asking, &web));
    }
    loop {
        if let Next::Over(answer) = asking.next().await {
            return Ok(Json(read(answer)?).into_response());
        }
    }
}

/// The events: `progress`, and at the end `done` with the messages, or `error`.
fn streamed(asking: Asking, web: &Web) -> Response {
    let events = stream::unfold(Some(asking), |asking| async move {
        let mut asking = asking?;
        loop {
            match asking.next().await {
                Next::Said(Said::Told { params, .. }) => {
                    return Some((event("progress", &json!({"text": in_words(&params)})), Some(asking)));
                }
                Next::Said(Said::Asked(_)) => {}
                Next::Over(answer) => return Some((last(read(answer)), None)),
            }
        }
    });
    let events = events.map(Ok::<_, Infallible>).take_until(web.stopped.clone().cancelled_owned());
    // Proxies in front pass each event on as it comes.
    let headers = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Sse::new(events).keep_alive(sse::KeepAlive::default())).into_response()
}

fn last(read: Result<Value, Problem>) -> sse::Event {
    match read {
        Ok(messages) => event("done", &messages),
        Err(problem) => event("error", &json!({"status": problem.status.as_u16(), "detail": problem.detail})),
    }
}

fn event(name: &str, data: &Value) -> sse::Event {
    sse::Event::default().event(name).data(data.to_string())
}

/// The messages, as a question of theirs; or why there are none.
fn read(answer: Result<Vec<Message>, ErrorData>) -> Result<Value, Problem> {
    let messages = answer.map_err(|error| {
        let is_callers = matches!(error.code, ErrorCode::INVALID_PARAMS | ErrorCode::RESOURCE_NOT_FOUND);
        let status = if is_callers { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_GATEWAY };
        Problem::new(status, clean_line(&error.message))
    })?;
    let nothing = || Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is nothing in it");
    let opening = Opening::of(messages).ok_or_else(nothing)?;
    Ok(json!({"messages": opening.messages()}))
}

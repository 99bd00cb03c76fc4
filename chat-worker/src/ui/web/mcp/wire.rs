//! The HTTP around /mcp: whole bodies, numbers as they are written, and what clients of earlier eras send beside their requests, which the
//! SDK, without sessions of its own, has no place for.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http_server::{forwarded::Caller, json_rpc};
use mcp_wire::json;
use rmcp::{ErrorData, model::ClientCapabilities};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Sdk,
    client::{self, SESSION, Streams},
    direct,
    gateway::{Gateway, MAX_BODY},
    lists, running,
};
use crate::{
    numbers,
    ui::web::{problem::Problem, state::Web},
};

/// Takes what the SDK does not: the stream of an earlier era and its end, answers to questions, cancellations, and calls that need nothing of
/// it. All else is the SDK's, with its whole body.
pub async fn answer(web: Arc<Web>, sdk: &Sdk, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_modern = is_modern(&parts.headers);
    match parts.method {
        Method::GET if !is_modern && takes_events(&parts.headers) => {
            return lists::stream(Gateway { web }, parts).into_response();
        }
        _ => {}
    }
    if let (&Method::DELETE, false, Some(session)) = (&parts.method, is_modern, client::session(&parts.headers)) {
        Gateway { web }.ended(session).await;
        return StatusCode::NO_CONTENT.into_response();
    }
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        let detail = format!("the body is larger than {} MiB, or broken", MAX_BODY / 1024 / 1024);
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
    };
    let body = tidied(body);
    match json_rpc::batch(&parts.headers, &body) {
        Some(messages) => {
            let one = |place, parts, body| one_of_several(&web, sdk, place, parts, body);
            json_rpc::several(parts, messages, one).await
        }
        None => message(web, sdk, parts, body).await,
    }
}

/// The answer to one of several messages. Each keeps the pace; the first one has been counted.
async fn one_of_several(web: &Arc<Web>, sdk: &Sdk, place: usize, parts: Parts, body: Bytes) -> Response {
    let caller = parts.extensions.get::<Caller>();
    if let (1.., Some(pace), Some(caller)) = (place, &web.pace, caller)
        && let Err(wait) = pace.take(caller.counted_as())
    {
        web.app.engine.metrics.rate_limited.inc();
        let detail = format!("too many requests; try again in {} s", wait.as_secs() + 1);
        return Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).into_response();
    }
    message(Arc::clone(web), sdk, parts, body).await
}

async fn message(web: Arc<Web>, sdk: &Sdk, mut parts: Parts, body: Bytes) -> Response {
    let is_modern = is_modern(&parts.headers);
    if let Some(call) = direct::read(&parts, &body) {
        parts.extensions.insert(Streams(takes_events(&parts.headers)));
        return direct::answer(web, parts, call).await;
    }
    let sent: Sent = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(response) = taken(&web, &parts, &sent) {
        return response;
    }
    let opens = sent.opens();
    parts.extensions.insert(Streams(takes_events(&parts.headers)));
    // Numbers that are longer than those of a machine pass as they are written, in both directions.
    let body = match std::str::from_utf8(&body).map(numbers::guard) {
        Ok(Cow::Owned(guarded)) => Bytes::from(guarded),
        _ => body,
    };
    let mut response = released(json_rpc::run(parts, body, async |request| sdk.handle(request).await.map(Body::new)).await).await;
    // The SDK knows of no other method than POST.
    if !is_modern && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,POST,DELETE"));
    }
    match opens {
        Some(can) if response.status().is_success() => begun(response, &can).await,
        _ => response,
    }
}

/// The answer to what begins a session: with its id, unless it is a refusal.
async fn begun(response: Response, can: &ClientCapabilities) -> Response {
    let (mut parts, body) = response.into_parts();
    // It is in memory already: whoever begins is told nothing before the answer.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let has_begun = serde_json::from_slice::<Sent>(&body).is_ok_and(|answer| answer.result.is_some());
    if let Some(id) = has_begun.then(|| HeaderValue::try_from(client::new_session(can)).ok()).flatten() {
        parts.headers.insert(SESSION, id);
    }
    Response::from_parts(parts, Body::from(body))
}

/// A body as a strict parser reads it, by the rule for what servers send: a text that is cut inside a letter, or a number beyond a double,
/// is what every JavaScript and Python client may write. What is not to be mended stays as it is.
fn tidied(body: Bytes) -> Bytes {
    // Its weight has been looked at.
    match json::tidy(&body, usize::MAX) {
        Ok(Cow::Owned(tidied)) => tidied.into(),
        Ok(Cow::Borrowed(text)) => body.slice_ref(text.as_bytes()),
        Err(_) => body,
    }
}

fn is_modern(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|version| version == crate::tools::MODERN)
}

/// What a message is, as far as it concerns us.
#[derive(Default, Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    id: Option<Value>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Value>,
}

impl Sent<'_> {
    /// What the client can, when the message begins a session.
    fn opens(&self) -> Option<ClientCapabilities> {
        #[derive(Deserialize)]
        struct Params {
            #[serde(default)]
            capabilities: ClientCapabilities,
        }
        if self.method.as_deref() != Some("initialize") {
            return None;
        }
        // What it says of itself may be odd: then it can nothing, and the SDK says what is wrong.
        let params: Option<Params> = self.params.and_then(|params| serde_json::from_str(params.get()).ok());
        Some(params.map(|params| params.capabilities).unwrap_or_default())
    }
}

/// Takes an answer to a question, and the cancellation of a call.
fn taken(web: &Web, parts: &Parts, sent: &Sent) -> Option<Response> {
    match (sent.method.as_deref(), &sent.id) {
        (None, Some(id)) if sent.result.is_some() || sent.error.is_some() => {
            let answer = match &sent.error {
                Some(error) => {
                    Err(serde_json::from_value(error.clone()).unwrap_or_else(|_| ErrorData::internal_error("an error", None)))
                }
                None => Ok(serde_json::from_str(&numbers::guard(sent.result?.get())).unwrap_or_default()),
            };
            if web.calls.answered(id, answer) {
                return Some(StatusCode::ACCEPTED.into_response());
            }
            tracing::debug!("an answer came to no question that was asked here");
            let message = "nobody waits for this answer: it answers no question of this replica that is open";
            let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": message}});
            Some((StatusCode::BAD_REQUEST, Json(error)).into_response())
        }
        (Some("notifications/cancelled"), None) => {
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Params {
                request_id: Value,
            }
            let params: Option<Params> = sent.params.and_then(|params| serde_json::from_str(params.get()).ok());
            if let (Some(session), Some(params)) = (client::session(&parts.headers), params) {
                web.calls.cancelled(session, &params.request_id);
            }
            None
        }
        _ => None,
    }
}

fn takes_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|accept| accept.split(',')).any(|range| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("text/event-stream")
    })
}

/// The answer with marked numbers as they are. A stream goes as it comes: an event is written as one piece.
async fn released(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let is_json = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        let pieces = body.into_data_stream().map(|piece| {
            piece.map(|piece| {
                let piece = running::as_request(&piece).map_or(piece, Bytes::from);
                numbers::release_bytes(piece.into())
            })
        });
        return Response::from_parts(parts, Body::from_stream(pieces));
    }
    // It is in memory already.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    if !numbers::are_marked(&body) {
        return Response::from_parts(parts, Body::from(body));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(numbers::release_bytes(body.into())))
}

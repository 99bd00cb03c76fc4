//! Requests of the revisions with sessions.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Bytes;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_server::host::only;
use http_server::json_rpc;
use serde_json::json;
use tokio::time::Instant;

use super::{DEAF, SESSION, VERSION};
use crate::bridge::{Bridge, caller, child_era, down, own_error, own_result};
use crate::era::{ALL, Era};
use crate::forward::{self, FORWARDED, Failed};
use crate::lane::Lane;
use crate::post::{Envelope, Post};
use crate::seal::{KeyError, Sealed};
use crate::session::Session;
use crate::sessions::{Found, Held};
use crate::stream;
use crate::told::Audience as _;
use crate::wire::{self, Params};

/// Of what a client says of itself, no more than this goes into its session's id.
const MAX_SAID: usize = 2048;

/// Calls that change nothing may be made again when it is not known whether they arrived.
const REPEATABLE: [&str; 8] = [
    "ping",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
];

const REPLICA_LOST: &str = r#"{"reason":"ReplicaLost"}"#;
const WENT_AWAY: &str = "the replica that has this session went away during the call, which may have been made";
const SILENT: &str = "the replica that has this session did not answer in the time of a call, which may have been made";

/// A message.
pub async fn post(bridge: &Arc<Bridge>, parts: &Parts, post: Post) -> Response {
    if let Some(version) = only(&parts.headers, &VERSION).filter(|version| !ALL.contains(version)) {
        bridge.metrics.refuse("version");
        let id = if let Post::Request(envelope) = &post { envelope.id() } else { "null" };
        let data = json!({"supported": ALL, "requested": version}).to_string();
        let words = format!("Unsupported protocol version: {version}");
        return stream::error(StatusCode::BAD_REQUEST, id, -32022, &words, Some(&data));
    }
    match post {
        Post::Request(envelope) if &*envelope.method == "initialize" => Box::pin(initialize(bridge, parts, envelope)).await,
        // What is said of a call that is under way here stays here.
        Post::Request(_) if bridge.gives_back(&parts.headers) => forward::back(),
        post => {
            let handed = match &post {
                Post::Request(call) => {
                    Handed { body: call.body.clone(), call: Some(call), repeatable: REPEATABLE.contains(&&*call.method) }
                }
                Post::Notification { body, .. } | Post::Answer { body, .. } => {
                    Handed { body: body.clone(), call: None, repeatable: false }
                }
            };
            match session(bridge, parts, handed).await {
                Whose::Held(held) => within(bridge, &parts.headers, post, Some(held)).await,
                Whose::Nobodys => within(bridge, &parts.headers, post, None).await,
                Whose::Answered(response) => response,
            }
        }
    }
}

/// The stream on which a client listens.
pub async fn get(bridge: &Arc<Bridge>, parts: &Parts) -> Response {
    if bridge.gives_back(&parts.headers) {
        return forward::back();
    }
    bridge.standing(listens(bridge, parts), None).await
}

async fn listens(bridge: &Arc<Bridge>, parts: &Parts) -> Response {
    match session(bridge, parts, Handed::NOTHING).await {
        Whose::Held(Held { session, .. }) if json_rpc::takes_events(&parts.headers) => {
            let in_use = session.in_use();
            stream::stream(None, session.listen(), None, Some(in_use))
        }
        Whose::Held(_) => (StatusCode::NOT_ACCEPTABLE, "Not Acceptable: accept text/event-stream\n").into_response(),
        Whose::Nobodys => super::not_allowed("POST"),
        Whose::Answered(response) => response,
    }
}

/// The end of a session.
pub async fn delete(bridge: &Arc<Bridge>, parts: &Parts) -> Response {
    if bridge.gives_back(&parts.headers) {
        return forward::back();
    }
    match session(bridge, parts, Handed::NOTHING).await {
        Whose::Held(held) => {
            if bridge.sessions.delete(&held.session).is_some() {
                bridge.end_session(&held);
            }
            StatusCode::OK.into_response()
        }
        Whose::Nobodys => (StatusCode::BAD_REQUEST, "Bad Request: an Mcp-Session-Id header is needed\n").into_response(),
        Whose::Answered(response) => response,
    }
}

/// What is handed on where the session is another replica's.
struct Handed<'a> {
    body: Bytes,
    /// None: it is no call.
    call: Option<&'a Envelope>,
    /// It may be done twice.
    repeatable: bool,
}

impl Handed<'_> {
    /// The request says it all without a body.
    const NOTHING: Self = Self { body: Bytes::new(), call: None, repeatable: true };
}

enum Whose {
    Held(Held),
    /// Without a session, which a shared child does not need.
    Nobodys,
    /// Elsewhere, or not at all.
    Answered(Response),
}

async fn session(bridge: &Arc<Bridge>, parts: &Parts, handed: Handed<'_>) -> Whose {
    if !parts.headers.contains_key(SESSION) {
        return if bridge.pool.is_none() {
            Whose::Nobodys
        } else {
            Whose::Answered((StatusCode::BAD_REQUEST, "Bad Request: an Mcp-Session-Id header is needed\n").into_response())
        };
    }
    let Handed { body, call, repeatable } = handed;
    let number = call.map_or("null", Envelope::id);
    let gone = || {
        bridge.metrics.refuse("session");
        let words = "Session not found: initialize again";
        Whose::Answered(own_error(StatusCode::NOT_FOUND, number, -32001, words))
    };
    let Some(id) = only(&parts.headers, &SESSION) else { return gone() };
    let sealed = match bridge.sessions.find(id, &caller(&parts.headers)) {
        Found::Here(held) => return Whose::Held(held),
        Found::Unknown => return gone(),
        Found::Lost(sealed) => sealed,
        Found::Elsewhere(sealed) => {
            let outcome = |outcome: &str| bridge.metrics.forwarded.with_label_values(&[outcome]).inc();
            if !parts.headers.contains_key(FORWARDED) {
                let patience = bridge.patience(call, &parts.headers);
                let last = call.map(|call| wire::error(call.id(), -32000, WENT_AWAY, Some(REPLICA_LOST)).into());
                match Box::pin(bridge.forward.send(&sealed.pod, parts, body, patience, last)).await {
                    Ok(response) if forward::is_back(&response) => outcome("given_back"),
                    Ok(response) => {
                        outcome("answered");
                        return Whose::Answered(response);
                    }
                    Err(failed @ (Failed::Lost | Failed::Silent)) if !repeatable => {
                        outcome("lost");
                        if failed == Failed::Silent && bridge.pool.is_none() {
                            // The next call does not wait for it, too.
                            bridge.sessions.take_over(id, sealed, &bridge.shared);
                        }
                        let words = if failed == Failed::Silent { SILENT } else { WENT_AWAY };
                        return Whose::Answered(stream::error(
                            StatusCode::BAD_GATEWAY,
                            number,
                            -32000,
                            words,
                            Some(REPLICA_LOST),
                        ));
                    }
                    Err(_) => outcome("owner_gone"),
                }
            }
            sealed
        }
    };
    if bridge.pool.is_some() {
        // What its child knew is gone with it.
        return gone();
    }
    Whose::Held(bridge.sessions.take_over(id, sealed, &bridge.shared))
}

async fn initialize(bridge: &Arc<Bridge>, parts: &Parts, envelope: Envelope) -> Response {
    if bridge.is_draining() {
        return bridge.busy(envelope.id(), "it is shutting down");
    }
    let said: Params<'_> = envelope.params().and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default();
    let asked = wire::text(said.protocol_version).map(std::borrow::Cow::into_owned);
    let short = |raw: Option<&serde_json::value::RawValue>| {
        raw.map(|raw| raw.get().to_owned()).filter(|text| text.len() <= MAX_SAID && text.starts_with('{'))
    };
    let sealed = || Sealed {
        pod: String::new(),
        session: 0,
        caller: caller(&parts.headers),
        capabilities: short(said.capabilities),
        info: short(said.client_info),
    };
    let begin = |lane: &Arc<Lane>| {
        let session = bridge.sessions.seal(sealed())?;
        Ok(Held { session, lane: Arc::clone(lane) })
    };
    let unsealed = |error: &KeyError| own_error(StatusCode::INTERNAL_SERVER_ERROR, envelope.id(), -32603, &error.to_string());
    let Some(pool) = &bridge.pool else {
        return match bridge.hello().await {
            Ok(hello) => match begin(&bridge.shared) {
                Ok(held) => {
                    let response = own_result(envelope.id(), &hello.initialize_result(asked.as_deref()));
                    let response = named(&held.session, response);
                    bridge.sessions.hold(held);
                    response
                }
                Err(error) => unsealed(&error),
            },
            Err(absent) => down(envelope.id(), &absent),
        };
    };
    let Some(taken) = pool.take() else {
        return bridge.busy(envelope.id(), "there are as many sessions as are allowed");
    };
    let hello = match bridge.hello_of(&taken.lane).await {
        Ok(hello) => hello,
        Err(absent) => return down(envelope.id(), &absent),
    };
    let Held { session, lane } = match begin(&taken.lane) {
        Ok(held) => held,
        Err(error) => return unsealed(&error),
    };
    taken.give_to(&session);
    bridge.sessions.hold(Held { session: Arc::clone(&session), lane: Arc::clone(&lane) });
    let response = if hello.era == Era::Modern {
        own_result(envelope.id(), &hello.initialize_result(asked.as_deref()))
    } else {
        // The child hears what its client can do. It may end at that, or refuse.
        let response = bridge.call(&lane, envelope, Some(Arc::clone(&session)), &parts.headers).await;
        if stream::is_error(&response) {
            // Nobody gets to know of the session: it would keep its place until it is idle for long.
            if let Some(held) = bridge.sessions.forget(&session) {
                bridge.end_session(&held);
            }
            return response;
        }
        response
    };
    named(&session, response)
}

/// The answer to `initialize` carries the session's id.
fn named(session: &Session, mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(&session.id) {
        response.headers_mut().insert(SESSION, id);
    }
    response
}

/// A message of a session, or of nobody's.
async fn within(bridge: &Arc<Bridge>, headers: &HeaderMap, post: Post, held: Option<Held>) -> Response {
    let (session, lane) = match held {
        Some(Held { session, lane }) => (Some(session), lane),
        None => (None, Arc::clone(&bridge.shared)),
    };
    let in_use = session.as_ref().map(Session::in_use);
    match post {
        Post::Request(envelope) => request(bridge, headers, envelope, session, &lane).await,
        Post::Notification { method, request, reason, body } => {
            if let Some(session) = &session {
                match &*method {
                    "notifications/cancelled" => {
                        let said = |place: Option<Range<usize>>| std::str::from_utf8(&body[place?]).ok();
                        lane.with(|calls| calls.cancelled(session, said(request).unwrap_or_default(), said(reason)));
                    }
                    // A shared child was initialized by us, and knows nothing of its clients.
                    _ if lane.owner().is_some()
                        && child_era(&lane) == Some(Era::Legacy)
                        && !lane.with(|calls| calls.pass_on(&body)) =>
                    {
                        return bridge.busy("null", DEAF);
                    }
                    _ => {}
                }
            }
            drop(in_use);
            StatusCode::ACCEPTED.into_response()
        }
        Post::Answer { id, body } => {
            if let Some(session) = &session
                && !lane.with(|calls| calls.hears_answer(session, &id, &body, Instant::now()))
            {
                return bridge.busy("null", DEAF);
            }
            StatusCode::ACCEPTED.into_response()
        }
    }
}

async fn request(
    bridge: &Arc<Bridge>,
    headers: &HeaderMap,
    envelope: Envelope,
    session: Option<Arc<Session>>,
    lane: &Arc<Lane>,
) -> Response {
    let shared = lane.owner().is_none();
    let modern = child_era(lane) == Some(Era::Modern);
    match (&*envelope.method, &session) {
        // What a modern child does not know, and is true all the same.
        ("ping", _) if modern => own_result(envelope.id(), "{}"),
        ("logging/setLevel", Some(session)) => {
            let said: Params<'_> = envelope.params().and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default();
            session.set_level(&wire::text(said.level).unwrap_or_default());
            if modern {
                return own_result(envelope.id(), "{}");
            }
            bridge.call(lane, envelope, Some(Arc::clone(session)), headers).await
        }
        ("resources/subscribe" | "resources/unsubscribe", Some(session)) if shared || modern => {
            let Some(uri) = envelope.target.as_deref() else {
                return own_error(StatusCode::OK, envelope.id(), -32602, "Invalid params: uri is missing");
            };
            let wanted = &*envelope.method == "resources/subscribe";
            if !session.subscribe(uri, wanted) {
                let words = "Invalid params: the session is subscribed to as many resources as it may, or the uri is too long";
                return own_error(StatusCode::OK, envelope.id(), -32602, words);
            }
            if modern {
                if !lane.follow_resources() {
                    return bridge.busy(envelope.id(), DEAF);
                }
            } else if wanted || !bridge.sessions.resources().contains(uri) {
                // Others may still want to hear of it.
                return bridge.call(lane, envelope, Some(Arc::clone(session)), headers).await;
            }
            own_result(envelope.id(), "{}")
        }
        _ => bridge.call(lane, envelope, session, headers).await,
    }
}

//! A client's outbox as the answer of an HTTP request: plain JSON where the answer comes first, a stream of events where something comes
//! before it, or where it takes long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_server::json_rpc;
use tokio::time::timeout;

use crate::era::Era;
use crate::lane::Lane;
use crate::outbox::{Event, Outbox};
use crate::session::InUse;
use crate::trail::OwnError;
use crate::wire;

/// A stream says that it lives: something on the way may close what is silent for a minute, and whoever is gone is noticed.
pub const ALIVE: Duration = Duration::from_secs(15);

/// A call under way. Dropping it before it is answered means that its client has hung up.
#[derive(Debug)]
pub struct Waits {
    /// The child that was called.
    pub lane: Arc<Lane>,
    /// The number of the call.
    pub number: u64,
    /// The session is not idle meanwhile.
    pub session: Option<InUse>,
    answered: bool,
}

impl Waits {
    /// From the moment that it was taken.
    pub fn new(lane: Arc<Lane>, number: u64, session: Option<InUse>) -> Self {
        Self { lane, number, session, answered: false }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if !self.answered {
            self.lane.with(|calls| calls.hang_up(self.number));
        }
    }
}

/// In which forms a client takes an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As one message.
    Json,
    /// As a stream of events.
    Events,
    /// As one message, or as a stream where there is more to tell.
    Either,
}

impl Form {
    /// None: in no form that there is.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        // Who says nothing of streams may not know them.
        let says = headers.get_all(ACCEPT).iter().any(|accept| !accept.is_empty());
        match (json_rpc::takes_json(headers), says && json_rpc::takes_events(headers)) {
            (true, true) => Some(Self::Either),
            (true, false) => Some(Self::Json),
            (false, true) => Some(Self::Events),
            (false, false) => None,
        }
    }
}

/// Whether a client reads streams of events.
pub fn reads_events(headers: &HeaderMap) -> bool {
    matches!(Form::of(headers), Some(Form::Events | Form::Either))
}

/// Whether a response is a stream of events.
pub fn is_events(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Put beside an answer that is an error, whoever's.
#[derive(Debug, Clone, Copy)]
struct IsError;

/// Whether a response is an error as a whole.
pub fn is_error(response: &Response) -> bool {
    response.extensions().get::<IsError>().is_some()
}

/// The answer to a call.
pub async fn respond(outbox: Outbox, mut waits: Waits, era: Era, form: Form) -> Response {
    if form == Form::Events {
        return stream(None, outbox, Some(waits), None);
    }
    let events = form == Form::Either;
    loop {
        match timeout(ALIVE, outbox.next()).await {
            Ok(Some(Event::Answer(answer, code))) => {
                waits.answered = true;
                let mut response = json(json_rpc::status(era == Era::Modern, code), answer);
                if code.is_some() {
                    response.extensions_mut().insert(IsError);
                }
                return response;
            }
            Ok(Some(Event::Message(message))) if events => return stream(Some(message), outbox, Some(waits), None),
            Err(_) if events => return stream(None, outbox, Some(waits), None),
            Ok(None) => {
                // Taken back by its client, which therefore waits for nothing.
                waits.answered = true;
                return stream(None, outbox, None, None);
            }
            Ok(Some(Event::Message(_))) | Err(_) => {}
        }
    }
}

/// Nobody reads any more when this is dropped: what would be said goes elsewhere, or nowhere.
#[derive(Debug)]
struct Reading(Outbox);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A message as the whole answer.
pub fn json(status: StatusCode, message: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(message.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error of our own as the whole answer. `id` and `data` are JSON.
pub fn error(status: StatusCode, id: &str, code: i64, words: &str, data: Option<&str>) -> Response {
    let mut response = json(status, wire::error(id, code, words, data));
    response.extensions_mut().insert(OwnError(code));
    response.extensions_mut().insert(IsError);
    response
}

/// A stream of events, for as long as the outbox is not at its end and somebody reads.
pub fn stream(first: Option<Bytes>, outbox: Outbox, waits: Option<Waits>, session: Option<InUse>) -> Response {
    // The head is sent with the first piece: whoever waits for it is told at once.
    let first = first.map_or_else(|| Bytes::from_static(b":\n\n"), |first| event(&first));
    let state = (Some(first), Reading(outbox), waits, session);
    let events = futures::stream::unfold(state, |(first, outbox, mut waits, session)| async move {
        if let Some(first) = first {
            return Some((first, (None, outbox, waits, session)));
        }
        let piece = match timeout(ALIVE, outbox.0.next()).await {
            Ok(Some(Event::Message(message))) => event(&message),
            Ok(Some(Event::Answer(answer, _))) => {
                if let Some(waits) = &mut waits {
                    waits.answered = true;
                }
                event(&answer)
            }
            Ok(None) => return None,
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        Some((piece, (None, outbox, waits, session)))
    });
    let mut response = Response::new(Body::from_stream(futures::StreamExt::map(events, Ok::<_, Infallible>)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// One message. A carriage return would end the line, and is white space in JSON.
pub fn event(message: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(message.len() + 24);
    text.extend_from_slice(b"event: message\ndata: ");
    text.extend(message.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    text.extend_from_slice(b"\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_stream_that_nobody_reads_any_more_takes_nothing() {
        let outbox = Outbox::default();
        let response = stream(None, outbox.clone(), None, None);
        assert!(outbox.tell(Bytes::from_static(b"{}")));
        drop(response);
        assert!(!outbox.tell(Bytes::from_static(b"{}")), "it would fill up, and be kept for ever");
    }

    #[rstest]
    #[case(&[], Some(Form::Json))]
    #[case(&[""], Some(Form::Json))]
    #[case(&["*/*"], Some(Form::Either))]
    #[case(&["application/json"], Some(Form::Json))]
    #[case(&["Application/*;q=0.5"], Some(Form::Json))]
    #[case(&["application/json, text/event-stream"], Some(Form::Either))]
    #[case(&["application/json", "text/event-stream"], Some(Form::Either))]
    #[case(&["application/json, text/event-stream;q=0"], Some(Form::Json))]
    #[case(&["text/event-stream"], Some(Form::Events))]
    #[case(&["text/*"], Some(Form::Events))]
    #[case(&["application/json;q=0, text/event-stream"], Some(Form::Events))]
    #[case(&["text/html"], None)]
    #[case(&["text/event-streams, application/jsonl"], None)]
    #[case(&["*/*;q=0"], None)]
    fn an_answer_has_a_form_that_its_client_takes(#[case] accept: &[&'static str], #[case] form: Option<Form>) {
        let headers = accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))).collect();
        assert_eq!(Form::of(&headers), form);
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(event(b"{\r\n}\r"), "event: message\ndata: {  } \n\n");
    }
}

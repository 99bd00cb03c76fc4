//! Requests that go past the SDK: their answers, and what else comes on their streams.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use http::{HeaderValue, Method, header};
use http_server::request_id::REQUEST_ID;
use mcp_wire::{
    body::{Content, SECOND_CHANCE},
    json::{self, MAX_WEIGHT},
    sse::{Event, Resumption},
};
use rmcp::{
    model::{GetExtensions as _, ServerJsonRpcMessage},
    service::InboundStreamOrigin,
    transport::streamable_http_client::StreamableHttpError,
};
use tokio::time::{sleep, timeout};

use super::{
    super::{
        MAX_MESSAGE,
        asked::{Answer, Asked, Came},
        question::in_a_request,
        sending::Sending,
    },
    DRAIN, Door, Events, Failure, REVISION, Remote, SESSION, TAKEN, content_type, events, read_event,
};

/// How often the pause before a stream is asked for again doubles while it cannot be had.
const RESUME_DOUBLINGS: u32 = 5;

/// What came of a request.
#[derive(Debug)]
pub enum Outcome {
    Answer(Box<Answer>),
    /// Its session may be forgotten. If it is not, this is the answer.
    Forgotten(Box<Answer>),
}

impl Remote {
    /// The answer to a request, past the SDK. What else comes on its stream goes to whom it is for.
    pub async fn ask(&self, sending: &Sending) -> Result<Outcome, Failure> {
        // It is never closed.
        let _place = self.shared.places.acquire().await;
        let (door, asked) = (self.door(), &sending.asked);
        let mut headers = sending.headers.clone();
        headers.insert(header::ACCEPT, TAKEN);
        headers.extend(door.revision.clone().map(|revision| (REVISION, revision)));
        headers.extend(door.session.as_deref().and_then(|id| HeaderValue::from_str(id).ok()).map(|id| (SESSION, id)));
        let called_for = sending.called_for.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
        headers.extend(called_for.map(|id| (REQUEST_ID, id)));
        let body = sending.body.clone();
        let reply = self.send(Method::POST, &door.uri, headers, Some(body)).await.map_err(StreamableHttpError::Client)?;
        if !reply.status().is_success() {
            let (of_session, answer) = self.refused(asked, reply).await;
            let forgotten = of_session && door.session.is_some();
            return answer.map(if forgotten { Outcome::Forgotten } else { Outcome::Answer });
        }
        let answer = match content_type(&reply) {
            Content::Events => {
                let events = events(reply, MAX_MESSAGE, Arc::clone(&self.shared.large));
                self.follow(asked, events, &door).await
            }
            content => self.single(asked, reply, content, door.revision()).await?,
        };
        Ok(Outcome::Answer(answer))
    }

    /// The answer out of a stream. One that ends before it goes on where it ended, where its events have ids. What is no message, or answers
    /// something else, is passed over; after it, an answer that should come at once has little time left.
    pub(super) async fn follow(&self, asked: &Asked, mut events: Events, door: &Door) -> Box<Answer> {
        let (mut resumption, mut odd) = (Resumption::default(), None);
        loop {
            let next = match &odd {
                Some(_) if !asked.is_of_somebody() => timeout(SECOND_CHANCE, events.next()).await,
                _ => Ok(events.next().await),
            };
            let problem = match next {
                Ok(Some(Ok(event))) => {
                    resumption.passed(&event);
                    let (event, came) = read_event(asked, event, door.revision(), &self.shared.calls).await;
                    match came {
                        Some(Came::Answer(answer)) => {
                            tokio::spawn(timeout(DRAIN, async move { while events.next().await.is_some() {} }));
                            return answer;
                        }
                        Some(Came::Odd(answer)) => odd = Some(answer),
                        Some(Came::Other) => self.pass_on(&event, asked).await,
                        None => {}
                    }
                    continue;
                }
                Ok(Some(Err(error))) => Some(format!("the stream of events broke off: {error}")),
                Ok(None) => Some("the stream of events ended without the answer".to_owned()),
                Err(_) => None,
            };
            if let (Some(last), Some(_)) = (&resumption.last, &problem)
                && let Some(again) = self.resumed(last, resumption.pause, door).await
            {
                events = again;
                continue;
            }
            return odd.unwrap_or_else(|| Box::new(asked.failed(&problem.unwrap_or_default())));
        }
    }

    /// A stream from behind this event on; `None` where the server has no such thing. It is tried for as long as the request has time.
    async fn resumed(&self, last: &str, pause: Duration, door: &Door) -> Option<Events> {
        for attempt in 0.. {
            sleep(pause.saturating_mul(1 << attempt.min(RESUME_DOUBLINGS))).await;
            let headers = door.revision.clone().map(|revision| (REVISION, revision)).into_iter().collect();
            match self.opened_stream(&door.uri, door.session.as_deref(), Some(last.to_owned()), headers, MAX_MESSAGE).await {
                Ok(events) => return Some(events),
                Err(StreamableHttpError::ServerDoesNotSupportSse) => return None,
                Err(error) => tracing::debug!("a stream of events is not resumed yet: {error}"),
            }
        }
        None
    }

    /// What comes before an answer: what its caller hears, and what the SDK answers or tells of.
    async fn pass_on(&self, event: &Event, asked: &Asked) {
        let of = &asked.id;
        if self.shared.calls.hear(Some(of), &event.data) {
            return;
        }
        // The SDK takes nothing from there before the connection is open.
        if asked.opens() {
            return;
        }
        let message = json::tidy(&event.data, MAX_WEIGHT).ok().and_then(|text| json::parse(&in_a_request(&text)).ok());
        let message = match message {
            Some(ServerJsonRpcMessage::Request(mut request)) => {
                request.request.extensions_mut().insert(InboundStreamOrigin::OutboundRequest(of.clone()));
                ServerJsonRpcMessage::Request(request)
            }
            Some(message @ ServerJsonRpcMessage::Notification(_)) => message,
            _ => return,
        };
        // It is gone only when the connection is.
        let _ = self.shared.aside.send(message).await;
    }
}

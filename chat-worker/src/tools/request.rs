//! One request to a server, for which it may take its time: a call of a tool, a resource that is read, a prompt, a completion. Its server
//! may speak to whoever made it, it has time for as long as the server tells of progress, and one that nobody waits for any more is
//! cancelled.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ErrorData, RoleClient,
    model::{
        CancelledNotificationParam, ClientRequest, ErrorCode, GetExtensions as _, InputRequiredResult, InputResponses, RequestId,
        RequestMetaObject, ServerResult,
    },
    service::{Peer, PeerRequestOptions, ServiceError},
};
use serde_json::Value;

use super::relay::{Call, Calls, Question, Relay};
use crate::{heavy::Room, logging};

/// A server that asks again and again instead of answering is not asked any more.
const MAX_ROUNDS: usize = 10;

/// The id of the request of ours that a request belongs to: the server's own log may name it, too.
#[derive(Debug, Clone)]
pub struct CalledFor(pub String);

/// The way to a server that is up.
#[derive(Debug, Clone)]
pub struct Line {
    /// The server's name.
    pub server: Arc<str>,
    pub peer: Peer<RoleClient>,
    pub calls: Calls,
    /// For one request.
    pub limit: Duration,
}

impl Line {
    /// Whether the server speaks the modern era, in which each request says what its client can.
    pub fn is_modern(&self) -> bool {
        self.peer.peer_info().is_some_and(|info| !info.protocol_version.has_initialize())
    }

    /// The result of a request. What the server wants to know before it goes on is asked of whoever made the request; the result says it
    /// only where that one can come back with the answers by itself, as with resources and prompts in the modern era. With it comes the room
    /// that it takes, to be kept as long as it is.
    pub async fn result(
        &self,
        mut request: ClientRequest,
        relay: Option<Relay>,
    ) -> Result<(ServerResult, Option<Room>), ServiceError> {
        let is_call = matches!(request, ClientRequest::CallToolRequest(_));
        let comes_back = !is_call && relay.as_ref().is_none_or(|relay| relay.comes_back);
        let meta = self.meta(relay.as_ref());
        let call = Call::new(Arc::clone(&self.server), relay);
        for _ in 0..MAX_ROUNDS {
            match self.attempt(request.clone(), meta.clone(), &call).await? {
                ServerResult::InputRequiredResult(required) if !comes_back => {
                    let state = required.request_state.clone();
                    let answers = answers(required, &call).await.map_err(ServiceError::McpError)?;
                    resume(&mut request, state, answers);
                }
                result => return Ok((result, call.take_room())),
            }
        }
        Err(ServiceError::McpError(refused("it asks its user again and again".to_owned())))
    }

    /// What the one can that made the request, and nothing of what it cannot.
    fn meta(&self, relay: Option<&Relay>) -> RequestMetaObject {
        let mut meta = RequestMetaObject::new();
        if self.is_modern() {
            meta.set_client_capabilities(relay.map(|relay| relay.can.clone()).unwrap_or_default());
            if let Some(level) = relay.and_then(|relay| relay.log_level) {
                meta.set_log_level(level);
            }
        }
        meta
    }

    /// The answer to a request, which has as long as the limit after each progress that it tells of. Whoever stops waiting cancels it.
    async fn attempt(
        &self,
        mut request: ClientRequest,
        meta: RequestMetaObject,
        call: &Call,
    ) -> Result<ServerResult, ServiceError> {
        if let Some(id) = logging::request_id() {
            request.extensions_mut().insert(CalledFor(id));
        }
        request.extensions_mut().insert(call.clone());
        let options = PeerRequestOptions::no_options().with_meta(meta);
        let mut handle = self.peer.send_cancellable_request(request, options).await?;
        let mut given_up = GivenUp { line: self, id: &handle.id, answered: false };
        let answer = loop {
            let due = call.due(self.limit);
            tokio::select! {
                answer = &mut handle.rx => break answer.map_err(|_| ServiceError::TransportClosed),
                () = tokio::time::sleep_until(due) => {
                    if call.due(self.limit) <= due {
                        return Err(ServiceError::Timeout { timeout: self.limit });
                    }
                }
            }
        };
        given_up.answered = true;
        drop(given_up);
        answer?
    }
}

/// Ends a request's account, and tells the server of one whose answer nobody waits for any more.
struct GivenUp<'a> {
    line: &'a Line,
    id: &'a RequestId,
    answered: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.line.calls.ended(self.id);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.answered {
            return;
        }
        let (peer, id) = (self.line.peer.clone(), self.id.clone());
        runtime.spawn(async move {
            let cancelled = CancelledNotificationParam::new(Some(id), Some("nobody waits for it any more".to_owned()));
            // The server may be gone, too.
            let _ = peer.notify_cancelled(cancelled).await;
        });
    }
}

/// What the user answers to what a server of the modern era wants to know before it goes on.
async fn answers(required: InputRequiredResult, call: &Call) -> Result<InputResponses, ErrorData> {
    let questions = required.input_requests.unwrap_or_default().into_iter().filter_map(|(key, request)| {
        let mut request = serde_json::to_value(request).ok()?;
        let method = request.get("method")?.as_str()?.to_owned();
        Some((key, Question { method, params: request.get_mut("params").map(Value::take).unwrap_or_default() }))
    });
    let questions: Vec<_> = questions.collect();
    if questions.is_empty() {
        return Ok(InputResponses::new());
    }
    let answers =
        call.ask(questions).await.map_err(|_| refused("it asks its user for input, which cannot be given here".to_owned()))?;
    let answer = |(key, answer): (String, Result<Value, ErrorData>)| match answer {
        Ok(answer) => Ok((key, answer)),
        Err(error) => Err(refused(format!("it asked its user for input, and did not get it: {}", error.message))),
    };
    answers.into_iter().map(answer).collect()
}

fn refused(why: String) -> ErrorData {
    ErrorData::new(ErrorCode::INTERNAL_ERROR, why, None)
}

/// The same request again, with what was answered.
fn resume(request: &mut ClientRequest, state: Option<String>, answers: InputResponses) {
    let (own_state, own_answers) = match request {
        ClientRequest::CallToolRequest(request) => (&mut request.params.request_state, &mut request.params.input_responses),
        ClientRequest::ReadResourceRequest(request) => (&mut request.params.request_state, &mut request.params.input_responses),
        ClientRequest::GetPromptRequest(request) => (&mut request.params.request_state, &mut request.params.input_responses),
        _ => return,
    };
    (*own_state, *own_answers) = (state, Some(answers));
}

//! One request to a server, for which it may take its time: a call of a tool, a resource that is read, a prompt, a completion. Its server
//! may speak to whoever made it, it has time for as long as the server tells of progress, and one that nobody waits for any more is
//! cancelled. It goes past the SDK's client, whose several tasks and copies would cost more than all else: the SDK keeps the connection, and
//! hears what a server says of itself.

#![allow(deprecated, reason = "messages for a log, which earlier eras have")]

use std::{
    any::TypeId,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use mcp_stdio::exit::Exit;
use mcp_wire::{headers, question::THINKING};
use rmcp::{
    ErrorData, RoleClient,
    model::{
        CancelledNotificationParam, ClientJsonRpcMessage, ClientRequest, ErrorCode, GetMeta as _, InputResponses, PingRequest,
        ProgressToken, RequestId, RequestMetaObject, ServerResult, SetLevelRequest, SetLevelRequestParams,
    },
    service::{Peer, ServiceError},
    transport::DynamicTransportError,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use tokio::{sync::watch, time::timeout};

use super::{
    asked::{Answer, Asked, Given, Refused},
    level,
    question::Question,
    relay::{Call, Calls, Relay},
    remote::{Outcome, Remote},
    sanitize::clean_line,
    sending::Sending,
    spec::ToolSpec,
    stdio::Pipe,
};
use crate::{current_request, heavy::Room, numbers, redact::redact};

/// A server that asks again and again instead of answering is not asked any more.
const MAX_ROUNDS: usize = 10;
/// Where our ids begin: the SDK counts its own from zero.
const FIRST_ID: i64 = 1 << 30;
/// That a server takes a level is waited for no longer: the request that comes next has its own time.
const LEVEL: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Request {
    Call(ToolRequest),
    Other(Box<ClientRequest>),
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub struct ToolRequest {
    pub spec: Arc<ToolSpec>,
    /// As JSON.
    pub arguments: Arc<RawValue>,
    /// Which trace it belongs to.
    pub trace: RequestMetaObject,
    state: Option<String>,
    answers: Option<InputResponses>,
}

impl ToolRequest {
    pub fn new(spec: Arc<ToolSpec>, arguments: Arc<RawValue>, trace: RequestMetaObject) -> Self {
        Self { spec, arguments, trace, state: None, answers: None }
    }
}

/// Why a request has no result.
#[derive(Debug)]
pub enum Failed {
    /// The server refused it, in words of its own.
    Own(ErrorData),
    Otherwise(ServiceError),
}

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Self {
        Self::Otherwise(error)
    }
}

impl From<Refused> for Failed {
    fn from(Refused { error, is_own }: Refused) -> Self {
        if is_own { Self::Own(error) } else { Self::Otherwise(ServiceError::McpError(error)) }
    }
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum Way {
    Http(Remote),
    Child(Pipe),
}

impl Way {
    /// How the child ended, where it is one that has.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Child(pipe) => pipe.exit(),
            Self::Http(_) => None,
        }
    }

    /// Changes with each further session of the same connection; a child has one.
    pub fn sessions(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Http(remote) => Some(remote.sessions()),
            Self::Child(_) => None,
        }
    }
}

/// The way to a server that is up.
#[derive(Debug, Clone)]
pub struct Line {
    /// The server's name.
    pub server: Arc<str>,
    /// The SDK's side of the connection.
    pub peer: Peer<RoleClient>,
    pub way: Way,
    pub calls: Calls,
    /// What every request says of us.
    pub hello: Arc<RequestMetaObject>,
    pub ids: Ids,
    /// From which level on messages for a log are wanted, and what the server knows of that.
    pub log_level: (level::Wanted, level::Told),
    /// For one request.
    pub limit: Duration,
}

/// Gives each request of a connection its id.
#[derive(Debug, Clone)]
pub struct Ids(Arc<AtomicI64>);

impl Default for Ids {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(FIRST_ID)))
    }
}

impl Line {
    /// Whether the server speaks the modern era, in which each request says what its client can.
    pub fn is_modern(&self) -> bool {
        self.hello.protocol_version().is_some()
    }

    /// The result of a request. What the server wants to know before it goes on is asked of whoever made the request; the result says it
    /// only where that one can come back with the answers by itself, as with resources and prompts in the modern era. With it comes the room
    /// that it takes, to be kept as long as it is.
    pub async fn result(&self, mut request: Request, mut relay: Option<Relay>) -> Result<(Given, Option<Room>), Failed> {
        if relay.as_ref().is_some_and(|relay| !relay.shares) {
            self.tell_level().await;
        }
        let is_call = matches!(request, Request::Call(_));
        let comes_back = !is_call && relay.as_ref().is_none_or(|relay| relay.comes_back);
        let meta = self.meta(relay.as_ref());
        if let (Request::Call(call), Some(relay), true) = (&mut request, &mut relay, self.is_modern()) {
            call.answers = relay.answers.take();
        }
        let call = Call::new(Arc::clone(&self.server), relay);
        for _ in 0..MAX_ROUNDS {
            let answer = self.attempt(&request, meta.clone(), &call).await;
            if let Err(Failed::Own(error)) = &answer {
                call.refused(error);
            }
            match answer? {
                Given { result: ServerResult::InputRequiredResult(required), written } if !comes_back => {
                    let state = required.request_state;
                    let answers = answers(written.as_deref(), &call, self.limit).await.map_err(ServiceError::McpError)?;
                    resume(&mut request, state, answers);
                }
                given => return Ok((given, call.take_room())),
            }
        }
        Err(ServiceError::McpError(refused("it asks its user again and again".to_owned())).into())
    }

    /// Sees to it that the server knows from which level on its messages are wanted: once in each session of it, since a new one has forgotten.
    /// In the modern era each request says it.
    pub fn tell_level(&self) -> BoxFuture<'_, ()> {
        let session = match &self.way {
            Way::Http(remote) => remote.opened(),
            Way::Child(_) => 0,
        };
        let (wanted, told) = &self.log_level;
        let has_messages = || self.peer.peer_info().is_some_and(|info| info.capabilities.logging.is_some());
        let due = if self.is_modern() { None } else { told.due(wanted, session) };
        let Some(level) = due.filter(|_| has_messages()) else { return ready(()).boxed() };
        async move {
            let request = ClientRequest::SetLevelRequest(SetLevelRequest::new(SetLevelRequestParams::new(level)));
            let (request, call) = (Request::Other(Box::new(request)), Call::new(Arc::clone(&self.server), None));
            let problem = match timeout(LEVEL, self.attempt(&request, self.meta(None), &call)).await {
                Ok(Ok(_)) => return,
                Ok(Err(Failed::Own(error))) => error.message.into_owned(),
                Ok(Err(Failed::Otherwise(error))) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::warn!(server = &*self.server, "the level of its messages is not set: {}", redact(&clean_line(&problem)));
        }
        .boxed()
    }

    /// What the one can that made the request, and nothing of what it cannot.
    fn meta(&self, relay: Option<&Relay>) -> RequestMetaObject {
        let mut meta = (*self.hello).clone();
        if self.is_modern() {
            meta.set_client_capabilities(relay.map(|relay| relay.can.clone()).unwrap_or_default());
            if let Some(level) = relay.and_then(|relay| relay.log_level) {
                meta.set_log_level(level);
            }
        }
        meta
    }

    /// The answer to a request, which has as long as the limit after each progress that it tells of. Whoever stops waiting cancels it.
    async fn attempt(&self, request: &Request, meta: RequestMetaObject, call: &Call) -> Result<Given, Failed> {
        let id = RequestId::Number(self.ids.0.fetch_add(1, Ordering::Relaxed));
        let sending = self.sending(&id, request, meta)?;
        self.calls.begun(&id, call);
        let mut given_up = GivenUp { line: self, id: &id, answered: false };
        // It is large: what waits for it is not, and is moved often.
        let mut asking = self.ask(&sending).boxed();
        let answer = tokio::select! {
            answer = &mut asking => answer,
            () = call.over(self.limit) => return Err(ServiceError::Timeout { timeout: self.limit }.into()),
        };
        given_up.answered = true;
        answer?.result.map_err(Failed::from)
    }

    /// Its progress is told by its own id.
    fn sending(&self, id: &RequestId, request: &Request, mut meta: RequestMetaObject) -> Result<Sending, ServiceError> {
        meta.set_progress_token(ProgressToken(id.clone()));
        let called_for = current_request::id();
        let written = match request {
            Request::Call(call) => {
                meta.extend(call.trace.clone());
                self.call(id, call, &meta)
            }
            Request::Other(request) => self.other(id, ClientRequest::clone(request), meta),
        };
        // What came as JSON can be written as JSON.
        let (asked, body, headers) = written.map_err(|_| ServiceError::UnexpectedResponse)?;
        Ok(Sending { asked, body, headers, called_for })
    }

    fn call(&self, id: &RequestId, call: &ToolRequest, meta: &RequestMetaObject) -> serde_json::Result<Written> {
        let (name, named) = (call.spec.tool.as_str(), &call.spec.named);
        let params =
            CallParams { meta, name, arguments: &call.arguments, input_responses: &call.answers, request_state: &call.state };
        let body = serde_json::to_vec(&CallMessage { jsonrpc: "2.0", id, method: CALL, params })?;
        // Answers of clients may hold long numbers.
        let body = if call.answers.is_some() { numbers::release_bytes(body) } else { body };
        let mut headers = http::HeaderMap::new();
        if self.is_modern() {
            headers = headers::of(CALL, Some(name));
            if !named.is_empty() {
                headers::arguments(&mut headers, named, &serde_json::from_str(call.arguments.get())?);
            }
        }
        Ok((Asked::call(id.clone()), body, headers))
    }

    fn other(&self, id: &RequestId, mut request: ClientRequest, meta: RequestMetaObject) -> serde_json::Result<Written> {
        request.get_meta_mut().extend(meta);
        let (method, name) = match &request {
            ClientRequest::ReadResourceRequest(request) => ("resources/read", Some(request.params.uri.as_str())),
            ClientRequest::GetPromptRequest(request) => ("prompts/get", Some(request.params.name.as_str())),
            ClientRequest::CompleteRequest(_) => ("completion/complete", None),
            _ => ("logging/setLevel", None),
        };
        let headers = if self.is_modern() { headers::of(method, name) } else { http::HeaderMap::new() };
        let asked = Asked::to(id.clone(), &request);
        let body = serde_json::to_vec(&ClientJsonRpcMessage::request(request, id.clone()))?;
        Ok((asked, numbers::release_bytes(body), headers))
    }

    /// A session that the server has forgotten is opened anew, once: by the SDK, which does so when a request of its own meets it. In a
    /// session that goes on, what was refused was refused: the same again might be done twice.
    async fn ask(&self, sending: &Sending) -> Result<Box<Answer>, ServiceError> {
        let remote = match &self.way {
            Way::Child(pipe) => return pipe.ask(sending).await,
            Way::Http(remote) => remote,
        };
        let met = remote.opened();
        let mut outcome = remote.ask(sending).await;
        if matches!(outcome, Ok(Outcome::Forgotten(_))) {
            // Unless somebody else has by now.
            if remote.opened() == met {
                // What it comes to is seen next.
                let _ = self.peer.send_request(ClientRequest::PingRequest(PingRequest::default())).await;
            }
            if remote.opened() != met {
                self.tell_level().await;
                outcome = remote.ask(sending).await;
            }
        }
        let answer = outcome.map(|outcome| match outcome {
            Outcome::Answer(answer) | Outcome::Forgotten(answer) => answer,
        });
        answer.map_err(|error| {
            ServiceError::TransportSend(DynamicTransportError::from_parts("HTTP", TypeId::of::<Remote>(), Box::new(error)))
        })
    }
}

const CALL: &str = "tools/call";

type Written = (Asked, Vec<u8>, http::HeaderMap);

#[derive(Serialize)]
struct CallMessage<'a> {
    jsonrpc: &'a str,
    id: &'a RequestId,
    method: &'a str,
    params: CallParams<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallParams<'a> {
    #[serde(rename = "_meta")]
    meta: &'a RequestMetaObject,
    name: &'a str,
    arguments: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_responses: &'a Option<InputResponses>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_state: &'a Option<String>,
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

/// What a server wants to know, as it wrote it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Required {
    #[serde(default)]
    input_requests: Option<BTreeMap<String, Question>>,
}

/// What the user answers to what a server of the modern era wants to know before it goes on.
async fn answers(required: Option<&RawValue>, call: &Call, limit: Duration) -> Result<InputResponses, ErrorData> {
    let required = required.map_or("{}", RawValue::get);
    let Required { input_requests } =
        serde_json::from_str(required).map_err(|_| refused("it asks its user for input, by what is no request".to_owned()))?;
    let questions: Vec<_> = input_requests.unwrap_or_default().into_iter().collect();
    if questions.is_empty() {
        return Ok(InputResponses::new());
    }
    // While it is asked for, no request of ours is under way that had a time of its own.
    let patience = if questions.iter().any(|(_, question)| question.takes_time()) { THINKING } else { limit };
    let asked = timeout(patience, call.ask(questions));
    let answers = asked.await.map_err(|_| refused("it asked its user for input, which was not given in time".to_owned()))?;
    let answers = answers.map_err(|error| match error.code {
        ErrorCode::INVALID_PARAMS => refused(format!("it asks its user for input: {}", error.message)),
        _ => refused("it asks its user for input, which cannot be given here".to_owned()),
    })?;
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
fn resume(request: &mut Request, state: Option<String>, answers: InputResponses) {
    let (own_state, own_answers) = match request {
        Request::Call(call) => (&mut call.state, &mut call.answers),
        Request::Other(other) => match &mut **other {
            ClientRequest::ReadResourceRequest(request) => {
                (&mut request.params.request_state, &mut request.params.input_responses)
            }
            ClientRequest::GetPromptRequest(request) => (&mut request.params.request_state, &mut request.params.input_responses),
            _ => return,
        },
    };
    (*own_state, *own_answers) = (state, Some(answers));
}

//! Speaks to one MCP server: connects over HTTP or to a child process, in the era that the server understands, lists
//! its tools and calls them. Knows nothing of retries, circuits or other servers.

#![allow(deprecated, reason = "sampling and messages for a log, which earlier eras have")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mcp_stdio::group::Spawned;
use rmcp::{
    ClientHandler, ClientServiceExt, ErrorData, RoleClient,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResponse, CallToolResult, CancelledNotificationParam, ClientCapabilities,
        ClientConfig, ClientRequest, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationCapability, ErrorCode, FormElicitationCapability, Implementation, InputRequiredResult,
        InputResponses, PaginatedRequestParams, ProtocolVersion, RequestId, RequestMetaObject, ServerCapabilities,
        ServerNotification, ServerResult, SubscriptionFilter, Tool, UrlElicitationCapability,
    },
    service::{
        ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, InboundStreamOrigin, NotificationContext, Peer,
        PeerRequestOptions, QuitReason, RequestContext, RunningServiceCancellationToken, ServiceError,
    },
    transport::{
        DynamicTransportError, StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Map, Value};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinHandle},
    time::timeout,
};

use super::{
    asked,
    child::{self, LastWords},
    credentials::Credentials,
    http,
    relay::{Call, Calls, Question, Relay},
    remote::{CalledFor, Remote, RemoteError},
    sanitize::{cap, clean_line},
    stdio::ChildTransport,
};
use crate::{
    config::file::{ServerEntry, Target},
    logging,
    redact::redact,
    telemetry,
};

/// A message of a server larger than this is a fault.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
const MAX_PAGES: usize = 64;
const MAX_LISTED: usize = 1_024;
/// All pages of a list of tools together.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;
/// A stream of notifications that ended is opened again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Calls of one server at once; more wait in line.
pub const MAX_CALLS: usize = 64;
/// Requests of one server at once: its calls, and beside them what looks after it.
const MAX_REQUESTS: usize = MAX_CALLS + 16;
/// A server that asks again and again instead of answering is not asked any more.
const MAX_ROUNDS: usize = 10;
/// rmcp waits ten seconds for an answer to discover before it tries initialize.
const ERA_ALLOWANCE: Duration = Duration::from_secs(12);

/// Why a server cannot be used, or a call of it failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServerError {
    #[error("{0} could not be started: {1}")]
    Start(String, String),
    #[error("its credentials cannot be used: {0}")]
    Credentials(String),
    #[error("could not connect: {0}")]
    Connect(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection failed: {0}")]
    Transport(String),
    /// The server is up, and says no.
    #[error("{0}")]
    Refused(String),
}

impl ServerError {
    /// Whether it speaks against the server's health.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    /// Whether the same call may do better at once: a timeout has already cost its time.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::Connect(_))
    }
}

/// A connection that has proved that it speaks MCP.
pub struct Connection {
    pub peer: Peer<RoleClient>,
    pub calls: Calls,
    pub protocol: String,
    /// "modern" or "legacy".
    pub era: &'static str,
    ended: JoinHandle<Result<QuitReason, JoinError>>,
    _listening: Option<AbortOnDrop>,
    cancel: Option<RunningServiceCancellationToken>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("protocol", &self.protocol).field("era", &self.era).finish_non_exhaustive()
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens to a server of the modern era as long as it lets us. Without that, its tools are looked at in intervals.
async fn listen(peer: Peer<RoleClient>, filter: SubscriptionFilter, changed: Changed) {
    while !peer.is_transport_closed() {
        if let Ok(mut subscription) = peer.listen(filter.clone()).await {
            while let Ok(Some(notification)) = subscription.next().await {
                match notification {
                    ServerNotification::ToolListChangedNotification(_) => changed.tools.notify_one(),
                    ServerNotification::ResourceListChangedNotification(_) => changed.lists.resources(),
                    ServerNotification::PromptListChangedNotification(_) => changed.lists.prompts(),
                    _ => {}
                }
            }
        }
        // What changed while nobody listened is seen at the next look.
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// What is told of a server's lists: that of its tools is looked at by its owner, of the others those want to hear who passed them on.
#[derive(Debug, Clone)]
pub struct Changed {
    pub tools: Arc<Notify>,
    pub lists: Lists,
}

/// How often a server's other lists have changed.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    counts: Arc<[AtomicU64; 2]>,
    told: Arc<Notify>,
}

impl Lists {
    pub fn new(told: Arc<Notify>) -> Self {
        Self { told, ..Self::default() }
    }

    fn resources(&self) {
        self.count(0);
    }

    fn prompts(&self) {
        self.count(1);
    }

    fn count(&self, which: usize) {
        self.counts[which].fetch_add(1, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// Of resources and of prompts.
    pub fn now(&self) -> [u64; 2] {
        [0, 1].map(|which: usize| self.counts[which].load(Ordering::Relaxed))
    }
}

/// What a server may say without being asked: that its lists changed, and, where somebody behind us may answer, a question.
#[derive(Debug, Clone)]
struct Listener {
    changed: Changed,
    calls: Calls,
    /// Whether servers are told that questions may be answered.
    is_between: bool,
}

impl Listener {
    async fn ask(&self, method: &str, params: Value, context: RequestContext<RoleClient>) -> Result<Value, ErrorData> {
        let of = match context.extensions.get::<InboundStreamOrigin>() {
            Some(InboundStreamOrigin::OutboundRequest(id)) => Some(id),
            Some(InboundStreamOrigin::Unassociated) | None => None,
        };
        let nobody = || ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "nobody can be asked", None);
        let call = self.calls.of(of).ok_or_else(nobody)?;
        let question = Question { method: method.to_owned(), params };
        let answers = tokio::select! {
            answers = call.ask(vec![(String::new(), question)]) => answers?,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
        };
        answers.into_values().next().unwrap_or_else(|| Err(nobody()))
    }
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.client_info = Implementation::new("mcpfleet-chat-worker", env!("CARGO_PKG_VERSION"));
        if self.is_between {
            let forms_and_pages = ElicitationCapability::new()
                .with_form(FormElicitationCapability::default())
                .with_url(UrlElicitationCapability::default());
            info.capabilities = ClientCapabilities::builder().enable_sampling().build();
            info.capabilities.elicitation = Some(forms_and_pages);
        }
        info
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let answer = self.ask("sampling/createMessage", serde_json::to_value(params).unwrap_or_default(), context).await?;
        serde_json::from_value(answer)
            .map_err(|error| ErrorData::internal_error(format!("the answer is malformed: {error}"), None))
    }

    /// Who cannot be asked has not agreed.
    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let answer = self.ask("elicitation/create", serde_json::to_value(params).unwrap_or_default(), context).await;
        let declined = |_| Ok(ElicitResult::new(ElicitationAction::Decline));
        answer.map_or_else(declined, |answer| {
            serde_json::from_value(answer)
                .map_err(|error| ErrorData::internal_error(format!("the answer is malformed: {error}"), None))
        })
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.tools.notify_one();
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.lists.resources();
    }

    async fn on_prompt_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.lists.prompts();
    }
}

impl Connection {
    /// Connects. `changed` hears of the server's lists; `is_between`: there may be somebody who answers the server's questions.
    pub async fn open(
        entry: &ServerEntry,
        http: &reqwest::Client,
        changed: Changed,
        is_between: bool,
        stderr: &LastWords,
    ) -> Result<Self, ServerError> {
        let listener = Listener { changed, calls: Calls::default(), is_between };
        let automatic =
            ClientLifecycleMode::Auto { preferred_versions: vec![ProtocolVersion::V_2026_07_28], legacy_version: None };
        let budget = entry.timeout + ERA_ALLOWANCE;
        let attempt = Self::attempt(entry, http, listener, stderr, automatic);
        timeout(budget, attempt).await.unwrap_or(Err(ServerError::Timeout(budget)))
    }

    async fn attempt(
        entry: &ServerEntry,
        http: &reqwest::Client,
        listener: Listener,
        stderr: &LastWords,
        mode: ClientLifecycleMode,
    ) -> Result<Self, ServerError> {
        let (changed, calls) = (listener.changed.clone(), listener.calls.clone());
        let service = match &entry.target {
            Target::Url(url) => {
                let config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .max_json_response_size(MAX_MESSAGE)
                    .max_sse_event_size(MAX_MESSAGE)
                    .max_concurrent_requests(MAX_REQUESTS);
                let client = Remote::new(http::of(entry, http)?, Credentials::of(entry)?, calls.clone());
                let transport = StreamableHttpClientTransport::with_client(client, config);
                listener.serve_with_lifecycle(transport, mode).await
            }
            Target::Command(launch) => {
                let Spawned { stdin, stdout, stderr: errors, group } = child::spawn(launch)?;
                tokio::spawn(child::keep(errors, entry.name.clone(), stderr.clone()));
                let transport = ChildTransport::new(stdin, stdout, group, MAX_MESSAGE, calls.clone());
                listener.serve_with_lifecycle(transport, mode).await
            }
        };
        let service = service.map_err(|error| refused_to_start(&error))?;
        let peer = service.peer().clone();
        // Our list must be what the server says now.
        peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
        let info = peer.peer_info();
        let version = info.as_ref().map(|info| info.protocol_version.clone()).unwrap_or_default();
        let filter = info.map(|info| lists_told(&info.capabilities)).unwrap_or_default();
        // Earlier eras tell without being asked.
        let listens = filter != SubscriptionFilter::default() && !version.has_initialize();
        let listening = listens.then(|| AbortOnDrop(tokio::spawn(listen(peer.clone(), filter, changed))));
        Ok(Self {
            era: if version.has_initialize() { "legacy" } else { "modern" },
            protocol: version.to_string(),
            cancel: Some(service.cancellation_token()),
            ended: tokio::spawn(service.waiting()),
            _listening: listening,
            peer,
            calls,
        })
    }

    /// Completes when the connection is gone.
    pub async fn closed(&mut self) {
        // How it ended does not matter: it is gone.
        let _ = (&mut self.ended).await;
        self.cancel = None;
    }

    /// Ends the session, and the child.
    pub async fn close(mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.cancel();
            let _ = timeout(Duration::from_secs(10), &mut self.ended).await;
        }
    }
}

/// Of which of its lists a server tells that they changed.
fn lists_told(can: &ServerCapabilities) -> SubscriptionFilter {
    let mut filter = SubscriptionFilter::default();
    filter.tools_list_changed = can.tools.as_ref().and_then(|tools| tools.list_changed).filter(|tells| *tells);
    filter.resources_list_changed = can.resources.as_ref().and_then(|resources| resources.list_changed).filter(|tells| *tells);
    filter.prompts_list_changed = can.prompts.as_ref().and_then(|prompts| prompts.list_changed).filter(|tells| *tells);
    filter
}

/// The tools of a server, and those that nobody can use, with the reasons.
#[derive(Debug, Default)]
pub struct Listed {
    pub tools: Vec<Tool>,
    pub left_out: Vec<String>,
}

/// Every tool of the server.
pub async fn list_tools(peer: &Peer<RoleClient>, limit: Duration) -> Result<Listed, ServerError> {
    let has_tools = peer.peer_info().is_none_or(|info| info.capabilities.tools.is_some());
    if !has_tools {
        return Ok(Listed::default());
    }
    let pages = async {
        let (mut listed, mut cursor, mut size) = (Listed::default(), None, 0);
        for _ in 0..MAX_PAGES {
            let page = peer.list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor.clone()))).await;
            let page = page.map_err(|error| failed(&error, limit))?;
            size += serde_json::to_vec(&page.tools).map_or(0, |bytes| bytes.len());
            listed.tools.extend(page.tools);
            let left_out = page.meta.as_ref().and_then(|meta| meta.get(asked::LEFT_OUT)?.as_array());
            listed.left_out.extend(left_out.into_iter().flatten().filter_map(Value::as_str).map(clean_line));
            let too_much = listed.tools.len() > MAX_LISTED || size > MAX_LIST_BYTES;
            if too_much || page.next_cursor.is_none() || page.next_cursor == cursor {
                break;
            }
            cursor = page.next_cursor;
        }
        Ok(listed)
    };
    timeout(limit, pages).await.unwrap_or(Err(ServerError::Timeout(limit)))
}

/// Calls a tool. The server may speak to whoever listens by `relay`, and ask it.
pub async fn call_tool(
    connection: (&Peer<RoleClient>, &Calls),
    tool: &str,
    arguments: Map<String, Value>,
    limit: Duration,
    relay: Option<Relay>,
) -> Result<CallToolResult, ServerError> {
    let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    telemetry::inject(&mut params);
    let mut meta = RequestMetaObject::new();
    // In the modern era each request says what its client can: what the one can that called, and nothing of what it cannot.
    let is_modern = connection.0.peer_info().is_some_and(|info| !info.protocol_version.has_initialize());
    if is_modern {
        meta.set_client_capabilities(relay.as_ref().map(|relay| relay.can.clone()).unwrap_or_default());
        if let Some(level) = relay.as_ref().and_then(|relay| relay.log_level) {
            meta.set_log_level(level);
        }
    }
    let call = Call::new(relay);
    for _ in 0..MAX_ROUNDS {
        let answer = answer_to_call(connection, params.clone(), meta.clone(), limit, &call).await;
        match answer.map_err(|error| failed(&error, limit))? {
            CallToolResponse::Complete(result) => return Ok(result),
            CallToolResponse::InputRequired(required) => {
                params.request_state.clone_from(&required.request_state);
                params.input_responses = Some(answers(required, &call).await?);
            }
            _ => return Err(ServerError::Refused("the tool answered with a task, which this chat does not follow".into())),
        }
    }
    Err(ServerError::Refused("the tool asks its user again and again".into()))
}

/// What the user answers to what a server of the modern era wants to know before it goes on.
async fn answers(required: InputRequiredResult, call: &Call) -> Result<InputResponses, ServerError> {
    let questions = required.input_requests.unwrap_or_default().into_iter().filter_map(|(key, request)| {
        let mut request = serde_json::to_value(request).ok()?;
        let method = request.get("method")?.as_str()?.to_owned();
        Some((key, Question { method, params: request.get_mut("params").map(Value::take).unwrap_or_default() }))
    });
    let questions: Vec<_> = questions.collect();
    if questions.is_empty() {
        return Ok(InputResponses::new());
    }
    let answers = call
        .ask(questions)
        .await
        .map_err(|_| ServerError::Refused("the tool asks its user for input, which cannot be given here".into()))?;
    let answer = |(key, answer): (String, Result<Value, ErrorData>)| match answer {
        Ok(answer) => Ok((key, answer)),
        Err(error) => {
            Err(ServerError::Refused(format!("the tool asked its user for input, and did not get it: {}", error.message)))
        }
    };
    answers.into_iter().map(answer).collect()
}

/// The answer to a call, which has as long as `limit` after each progress that it tells of. Whoever stops waiting cancels it.
async fn answer_to_call(
    (peer, calls): (&Peer<RoleClient>, &Calls),
    params: CallToolRequestParams,
    meta: RequestMetaObject,
    limit: Duration,
    call: &Call,
) -> Result<CallToolResponse, ServiceError> {
    let mut request = CallToolRequest::new(params);
    if let Some(id) = logging::request_id() {
        request.extensions.insert(CalledFor(id));
    }
    request.extensions.insert(call.clone());
    let options = PeerRequestOptions::no_options().with_meta(meta);
    let mut handle = peer.send_cancellable_request(ClientRequest::CallToolRequest(request), options).await?;
    let mut given_up = GivenUp { peer, calls, id: &handle.id, answered: false };
    let answer = loop {
        let due = call.due(limit);
        tokio::select! {
            answer = &mut handle.rx => break answer.map_err(|_| ServiceError::TransportClosed),
            () = tokio::time::sleep_until(due) => {
                if call.due(limit) <= due {
                    return Err(ServiceError::Timeout { timeout: limit });
                }
            }
        }
    };
    given_up.answered = true;
    drop(given_up);
    match answer?? {
        ServerResult::CallToolResult(result) => Ok(CallToolResponse::Complete(result)),
        ServerResult::InputRequiredResult(result) => Ok(CallToolResponse::InputRequired(result)),
        ServerResult::CreateTaskResult(result) => Ok(CallToolResponse::Task(result)),
        // Nothing to tell is a result, too.
        ServerResult::EmptyResult(_) | ServerResult::TaskAckResult(_) => {
            Ok(CallToolResponse::Complete(CallToolResult::default()))
        }
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

/// Ends a call's account, and tells the server of one whose answer nobody waits for any more.
struct GivenUp<'a> {
    peer: &'a Peer<RoleClient>,
    calls: &'a Calls,
    id: &'a RequestId,
    answered: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.calls.ended(self.id);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.answered {
            return;
        }
        let (peer, id) = (self.peer.clone(), self.id.clone());
        runtime.spawn(async move {
            let cancelled = CancelledNotificationParam::new(Some(id), Some("nobody waits for it any more".to_owned()));
            // The server may be gone, too.
            let _ = peer.notify_cancelled(cancelled).await;
        });
    }
}

fn refused_to_start(error: &ClientInitializeError) -> ServerError {
    // The SDK does not name what the transport met as this error's source.
    let met: &(dyn Error + 'static) = match error {
        ClientInitializeError::TransportError { error, .. } => error,
        other => other,
    };
    let text = redact(&clean_line(&with_causes(met))).into_owned();
    match error {
        ClientInitializeError::TransportError { .. } if !was_refused(met) => ServerError::Connect(text),
        ClientInitializeError::ConnectionClosed(_) => ServerError::Connect(text),
        _ => ServerError::Refused(text),
    }
}

fn failed(error: &ServiceError, limit: Duration) -> ServerError {
    let text = || redact(&clean_line(&with_causes(error))).into_owned();
    match error {
        ServiceError::McpError(error) => ServerError::Refused(redact(&clean_line(&error.message)).into_owned()),
        ServiceError::Timeout { .. } => ServerError::Timeout(limit),
        // It is up, and says no, or nothing that we take.
        _ if was_refused(error) => ServerError::Refused(text()),
        ServiceError::UnexpectedResponse => ServerError::Refused("the server's result is malformed".to_owned()),
        _ => ServerError::Transport(text()),
    }
}

/// The error, what caused it, what caused that, and so on.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (**error).source())
}

/// Whether the server was reached, and it, or what stands in front of it, will say the same again. A gateway that has nobody behind it is
/// no such answer.
fn was_refused(error: &(dyn Error + 'static)) -> bool {
    let met = chain(error).find_map(|error| error.downcast_ref::<RemoteError>());
    match met {
        Some(RemoteError::Status(refusal)) => !refusal.status.is_server_error(),
        Some(RemoteError::Redirected(_) | RemoteError::TooLarge(_) | RemoteError::Credentials(_) | RemoteError::Url(_)) => true,
        Some(RemoteError::Transport(_)) | None => false,
    }
}

/// The error and its causes, each once. The SDK wraps what a transport met into the name of the transport's Rust type, which tells a
/// person nothing: what was met is told alone.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let met = chain(error).find_map(|error| error.downcast_ref::<DynamicTransportError>()?.source());
    let mut told = String::new();
    for text in chain(met.unwrap_or(error)).map(ToString::to_string) {
        if told.is_empty() {
            told = text;
        } else if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
    }
    cap(told, 600).0
}

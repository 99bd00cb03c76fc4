//! Speaks to one MCP server: connects over HTTP or to a child process, in the era that the server understands, lists
//! its tools and calls them. Knows nothing of retries, circuits or other servers.

use std::{error::Error, sync::Arc, time::Duration};

use rmcp::{
    ClientHandler, ClientServiceExt, RoleClient,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResponse, CallToolResult, CancelledNotificationParam, ClientConfig,
        ClientRequest, Implementation, PaginatedRequestParams, ProtocolVersion, RequestId, ServerResult, SubscriptionFilter,
        Tool,
    },
    service::{
        ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, NotificationContext, Peer, PeerRequestOptions, QuitReason,
        RunningServiceCancellationToken, ServiceError,
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
    child::{self, StderrTail},
    credentials::Credentials,
    http,
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
/// A call that tells of its progress may take so many times as long as one that does not.
const PROGRESS_EXTENDS: u32 = 20;
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
async fn listen(peer: Peer<RoleClient>, changed: Arc<Notify>) {
    let filter = SubscriptionFilter::builder().tools_list_changed().build();
    while !peer.is_transport_closed() {
        if let Ok(mut subscription) = peer.listen(filter.clone()).await {
            while let Ok(Some(_)) = subscription.next().await {
                changed.notify_one();
            }
        }
        // What changed while nobody listened is seen at the next look.
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Wakes its owner when the server says that its tools changed.
#[derive(Debug, Clone)]
struct Listener(Arc<Notify>);

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.client_info = Implementation::new("mcpfleet-chat-worker", env!("CARGO_PKG_VERSION"));
        info
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.notify_one();
    }
}

impl Connection {
    /// Connects. `changed` is woken when the server says that its tools changed.
    pub async fn open(
        entry: &ServerEntry,
        http: &reqwest::Client,
        changed: Arc<Notify>,
        stderr: &StderrTail,
    ) -> Result<Self, ServerError> {
        let listener = Listener(changed);
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
        stderr: &StderrTail,
        mode: ClientLifecycleMode,
    ) -> Result<Self, ServerError> {
        let changed = listener.clone();
        let service = match &entry.target {
            Target::Url(url) => {
                let config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .max_json_response_size(MAX_MESSAGE)
                    .max_sse_event_size(MAX_MESSAGE)
                    .max_concurrent_requests(MAX_REQUESTS);
                let client = Remote::new(http::of(entry, http)?, Credentials::of(entry)?);
                let transport = StreamableHttpClientTransport::with_client(client, config);
                listener.serve_with_lifecycle(transport, mode).await
            }
            Target::Command(launch) => {
                let mut child = child::spawn(launch)?;
                if let Some(errors) = child.stderr.take() {
                    tokio::spawn(child::keep(errors, entry.name.clone(), stderr.clone()));
                }
                let transport = ChildTransport::new(child, MAX_MESSAGE)
                    .map_err(|error| ServerError::Start(launch.program.clone(), error.to_string()))?;
                listener.serve_with_lifecycle(transport, mode).await
            }
        };
        let service = service.map_err(|error| refused_to_start(&error))?;
        let peer = service.peer().clone();
        // Our list must be what the server says now.
        peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
        let info = peer.peer_info();
        let version = info.as_ref().map(|info| info.protocol_version.clone()).unwrap_or_default();
        let tells = info.and_then(|info| info.capabilities.tools.as_ref()?.list_changed) == Some(true);
        // Earlier eras tell without being asked.
        let listening = (tells && !version.has_initialize()).then(|| AbortOnDrop(tokio::spawn(listen(peer.clone(), changed.0))));
        Ok(Self {
            era: if version.has_initialize() { "legacy" } else { "modern" },
            protocol: version.to_string(),
            cancel: Some(service.cancellation_token()),
            ended: tokio::spawn(service.waiting()),
            _listening: listening,
            peer,
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

/// Calls a tool.
pub async fn call_tool(
    peer: &Peer<RoleClient>,
    tool: &str,
    arguments: Map<String, Value>,
    limit: Duration,
) -> Result<CallToolResult, ServerError> {
    let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    telemetry::inject(&mut params);
    match answer_to_call(peer, params, limit).await.map_err(|error| failed(&error, limit))? {
        CallToolResponse::Complete(result) => Ok(result),
        CallToolResponse::InputRequired(_) => {
            Err(ServerError::Refused("the tool asks its user for input, which this chat cannot give".into()))
        }
        _ => Err(ServerError::Refused("the tool answered with a task, which this chat does not follow".into())),
    }
}

/// The answer to a call, which has as long as `limit` after each progress that it tells of. Whoever stops waiting cancels it.
async fn answer_to_call(
    peer: &Peer<RoleClient>,
    params: CallToolRequestParams,
    limit: Duration,
) -> Result<CallToolResponse, ServiceError> {
    let mut request = CallToolRequest::new(params);
    if let Some(id) = logging::request_id() {
        request.extensions.insert(CalledFor(id));
    }
    let options = PeerRequestOptions::with_timeout(limit)
        .reset_timeout_on_progress()
        .with_max_total_timeout(limit.saturating_mul(PROGRESS_EXTENDS));
    let handle = peer.send_cancellable_request(ClientRequest::CallToolRequest(request), options).await?;
    let mut given_up = GivenUp(Some((peer.clone(), handle.id.clone())));
    let answer = handle.await_response().await;
    given_up.0 = None;
    match answer? {
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

/// Tells the server of a call whose answer nobody waits for any more.
struct GivenUp(Option<(Peer<RoleClient>, RequestId)>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        let (Some((peer, id)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
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

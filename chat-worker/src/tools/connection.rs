//! Speaks to one MCP server: connects over HTTP or to a child process, in the era that the server understands, lists
//! its tools and calls them. Knows nothing of retries, circuits or other servers; one request is `request`'s.

#![allow(deprecated, reason = "roots, sampling and messages for a log, which earlier eras have")]

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mcp_stdio::{exit::Exit, group::Spawned};
use mcp_wire::question::ELICITATION;
use rmcp::{
    ClientHandler, ClientServiceExt, ErrorData, RoleClient,
    model::{
        CallToolResult, ClientCapabilities, ClientConfig, ClientRequest, CustomRequest, CustomResult, ElicitationCapability,
        ErrorCode, FormElicitationCapability, Implementation, PaginatedRequestParams, PingRequest, RequestMetaObject,
        ResourceUpdatedNotificationParam, ServerCapabilities, ServerJsonRpcMessage, ServerNotification, ServerResult,
        SubscriptionFilter, UrlElicitationCapability,
    },
    service::{
        ClientCacheConfig, ClientInitializeError, InboundStreamOrigin, NotificationContext, Peer, QuitReason, RequestContext,
        RunningServiceCancellationToken, RxJsonRpcMessage, ServiceError, TxJsonRpcMessage,
    },
    transport::{StreamableHttpClientTransport, Transport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json, value::RawValue};
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinError, JoinHandle},
    time::timeout,
};

use super::{
    MAX_MESSAGE,
    answer::Whole,
    asked,
    catalogue::Defined,
    child::{self, LastWords},
    credentials::Credentials,
    error::ServerError,
    failure, http, level,
    opening::Opening,
    pages::Pages,
    question::{Question, nobody},
    relay::{Calls, Relay},
    remote::Remote,
    request::{Ids, Line, Request, ToolRequest, Way},
    sanitize::clean_line,
    spec::ToolSpec,
    stdio::ChildTransport,
    subscribed,
    watches::Watched,
};
use crate::{
    config::server::{ServerEntry, Target},
    telemetry,
};

const MAX_PAGES: usize = 64;
const MAX_LISTED: usize = 1_024;
/// All pages of a list of tools together.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;
/// A stream of notifications that ended is opened again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Calls of one server at once; more wait in line.
pub const MAX_CALLS: usize = 64;
/// Requests of one server at once: its calls, and beside them what else clients ask of it, and what looks after it.
const MAX_REQUESTS: usize = MAX_CALLS + 16;
/// Messages for the SDK that came on the streams of calls, and that it has not taken yet.
const ASIDE: usize = 64;
/// What a connection may take beside the time of one request: silence to discover, or a program that has to be fetched before it runs.
const ERA_ALLOWANCE: Duration = Duration::from_secs(3);
const CHILD_ALLOWANCE: Duration = Duration::from_secs(12);

/// A connection that has proved that it speaks MCP.
pub struct Connection {
    pub peer: Peer<RoleClient>,
    pub way: Way,
    pub calls: Calls,
    /// What every request says of us, which earlier eras say once.
    pub hello: RequestMetaObject,
    pub ids: Ids,
    /// What the server was told of the level of its messages.
    pub log_level: level::Told,
    pub protocol: String,
    /// "modern" or "legacy".
    pub era: &'static str,
    ended: JoinHandle<Result<QuitReason, JoinError>>,
    _listening: Option<AbortOnDrop>,
    watching: Option<AbortOnDrop>,
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

/// What is told of a server's lists: that of its tools is looked at by its owner, of the others those want to hear who passed them on; and of
/// single resources, who watches them.
#[derive(Debug, Clone)]
pub struct Changed {
    pub tools: Arc<Notify>,
    pub lists: Lists,
    pub watched: Watched,
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
    opening: Opening,
}

impl Listener {
    /// What whoever made the call answers, which may be an error; without one, why there is nothing of that.
    async fn ask(&self, question: Question, context: &RequestContext<RoleClient>) -> Result<Result<Value, ErrorData>, ErrorData> {
        let of = match context.extensions.get::<InboundStreamOrigin>() {
            Some(InboundStreamOrigin::OutboundRequest(id)) => Some(id),
            Some(InboundStreamOrigin::Unassociated) | None => None,
        };
        let call = self.calls.of(of).ok_or_else(nobody)?;
        let answers = tokio::select! {
            answers = call.ask(vec![(String::new(), question)]) => answers?,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
        };
        answers.into_values().next().ok_or_else(nobody)
    }
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.protocol_version = self.opening.revision();
        info.client_info = Implementation::new("mcpfleet-chat-worker", env!("CARGO_PKG_VERSION"));
        if self.is_between {
            let forms_and_pages = ElicitationCapability::new()
                .with_form(FormElicitationCapability::default())
                .with_url(UrlElicitationCapability::default());
            info.capabilities = ClientCapabilities::builder().enable_roots().enable_sampling().build();
            info.capabilities.elicitation = Some(forms_and_pages);
        }
        info
    }

    /// A question, in the form that it travels in. Who cannot be asked for an agreement has not agreed; a question that nobody could be asked,
    /// and what the client answers, are the server's to hear.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleClient>,
    ) -> Result<CustomResult, ErrorData> {
        let Some(question) = Question::within(&request) else {
            return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None));
        };
        let is_agreement = question.method == ELICITATION;
        match self.ask(question, &context).await {
            Ok(Ok(answer)) if !answer.is_object() => {
                Err(ErrorData::internal_error("the client's answer is malformed: it is no object", None))
            }
            Ok(answer) => answer.map(CustomResult),
            Err(error) if is_agreement && error.code != ErrorCode::INVALID_PARAMS => {
                Ok(CustomResult(json!({"action": "decline"})))
            }
            Err(error) => Err(error),
        }
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

    async fn on_resource_updated(&self, params: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        self.changed.watched.updated(&params.uri);
    }
}

/// What a child said last is there when it has ended, or soon after.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// An attempt that came to nothing.
struct Failed {
    error: ClientInitializeError,
    /// How its child ended, where it did.
    ended: Option<String>,
}

impl Connection {
    /// Connects. `changed` hears of the server's lists; `is_between`: there may be somebody who answers the server's questions;
    /// `pages`: who is told of those that it asked to open.
    pub async fn open(
        entry: &ServerEntry,
        http: &reqwest::Client,
        changed: Changed,
        is_between: bool,
        pages: Pages,
        stderr: &LastWords,
    ) -> Result<Self, ServerError> {
        let mut listener =
            Listener { changed, calls: Calls::new(&entry.name, pages), is_between, opening: Opening::first(entry.legacy) };
        let is_child = matches!(entry.target, Target::Command(_));
        let budget = entry.timeout + if is_child { CHILD_ALLOWANCE } else { ERA_ALLOWANCE };
        let mut told = None;
        let opened = timeout(budget, async {
            loop {
                let Failed { error, ended } = match Self::attempt(entry, http, listener.clone(), stderr).await? {
                    Ok(connection) => return Ok(connection),
                    Err(failed) => failed,
                };
                let why = ended.map_or_else(|| failure::to_start(&error), ServerError::Ended);
                let next = listener.opening.after(&error);
                // That one who refused to be initialized has not answered discover, either, is no news.
                if listener.opening != Opening::Modern {
                    told = Some(why);
                }
                match next {
                    Some(next) => listener.opening = next,
                    None => return Err(told.take().unwrap_or(ServerError::Timeout(budget))),
                }
            }
        });
        opened.await.unwrap_or_else(|_| Err(told.unwrap_or(ServerError::Timeout(budget))))
    }

    /// After an error of the SDK's, something else may be tried.
    async fn attempt(
        entry: &ServerEntry,
        http: &reqwest::Client,
        listener: Listener,
        stderr: &LastWords,
    ) -> Result<Result<Self, Failed>, ServerError> {
        let (changed, calls, info) = (listener.changed.clone(), listener.calls.clone(), listener.get_info());
        let is_between = listener.is_between;
        let (mode, takes_silence) = (listener.opening.mode(), listener.opening.takes_silence());
        let mut stderr_read = None;
        let (service, way) = match &entry.target {
            Target::Url(url) => {
                let config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .max_json_response_size(MAX_MESSAGE)
                    .max_sse_event_size(MAX_MESSAGE)
                    .max_concurrent_requests(MAX_REQUESTS);
                let (to, aside) = mpsc::channel(ASIDE);
                let client =
                    Remote::new(http::of(entry, http)?, Credentials::of(entry)?, calls.clone(), MAX_REQUESTS, to, takes_silence);
                let transport = StreamableHttpClientTransport::with_client(client.clone(), config);
                (listener.serve_with_lifecycle(Beside { transport, aside }, mode).await, Way::Http(client))
            }
            Target::Command(launch) => {
                let Spawned { stdin, stdout, stderr: errors, group } = child::spawn(launch)?;
                stderr_read = Some(tokio::spawn(child::keep(errors, entry.name.clone(), stderr.clone())));
                let transport = ChildTransport::new(stdin, stdout, group, MAX_MESSAGE, calls.clone(), takes_silence);
                let pipe = transport.pipe();
                (listener.serve_with_lifecycle(transport, mode).await, Way::Child(pipe))
            }
        };
        let service = match service {
            Ok(service) => service,
            Err(error) => {
                let mut ended = None;
                if let (Target::Command(launch), Some(exit), Some(read)) = (&entry.target, way.exit(), stderr_read) {
                    // What it started may hold its standard error open.
                    let _ = timeout(LAST_WORDS, read).await;
                    ended = Some(child::ended(launch, Some(exit), stderr));
                }
                return Ok(Err(Failed { error, ended }));
            }
        };
        let peer = service.peer().clone();
        // Our list must be what the server says now.
        peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
        let theirs = peer.peer_info();
        let version = theirs.as_ref().map(|info| info.protocol_version.clone()).unwrap_or_default();
        let tells = is_between && theirs.as_ref().is_some_and(|info| tells_of_resources(&info.capabilities));
        let filter = theirs.map(|info| lists_told(&info.capabilities)).unwrap_or_default();
        let mut hello = RequestMetaObject::new();
        if !version.has_initialize() {
            hello.set_protocol_version(version.clone());
            hello.set_client_info(info.client_info);
        }
        // Earlier eras tell without being asked.
        let listens = filter != SubscriptionFilter::default() && !version.has_initialize();
        let watched = changed.watched.clone();
        let listening = listens.then(|| AbortOnDrop(tokio::spawn(listen(peer.clone(), filter, changed))));
        let watching = tells.then(|| {
            let (peer, limit) = (peer.clone(), entry.timeout);
            AbortOnDrop(if version.has_initialize() {
                tokio::spawn(subscribed::by_requests(peer, watched, way.sessions(), limit))
            } else {
                tokio::spawn(subscribed::by_a_stream(peer, watched, limit))
            })
        });
        Ok(Ok(Self {
            era: if version.has_initialize() { "legacy" } else { "modern" },
            protocol: version.to_string(),
            cancel: Some(service.cancellation_token()),
            ended: tokio::spawn(service.waiting()),
            _listening: listening,
            watching,
            peer,
            way,
            calls,
            hello,
            ids: Ids::default(),
            log_level: level::Told::default(),
        }))
    }

    /// How its child ended, where it is one that has.
    pub fn exit(&self) -> Option<Exit> {
        self.way.exit()
    }

    /// Completes when the connection is gone.
    pub async fn closed(&mut self) {
        // How it ended does not matter: it is gone.
        let _ = (&mut self.ended).await;
        self.cancel = None;
    }

    /// It is given up: it tells of no resources any more, which the next one does.
    pub fn is_left(&mut self) {
        self.watching = None;
    }

    /// Ends the session, and the child.
    pub async fn close(mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.cancel();
            let _ = timeout(Duration::from_secs(10), &mut self.ended).await;
        }
    }
}

/// The SDK's transport, by which also comes what belongs to requests that went past it.
struct Beside<T> {
    transport: T,
    aside: mpsc::Receiver<ServerJsonRpcMessage>,
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Beside<T> {
    type Error = T::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        self.transport.send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        tokio::select! {
            message = self.transport.receive() => message,
            Some(message) = self.aside.recv() => Some(message),
        }
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.transport.close().await
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

/// Whether a server tells that a single resource changed.
pub fn tells_of_resources(can: &ServerCapabilities) -> bool {
    can.resources.as_ref().is_some_and(|resources| resources.subscribe == Some(true))
}

/// The tools of a server, and those that nobody can use, with the reasons.
#[derive(Debug, Default)]
pub struct Listed {
    pub tools: Vec<Defined>,
    pub left_out: Vec<String>,
    /// Of all pages, in bytes as sent.
    pub size: usize,
}

/// Every tool of the server.
pub async fn list_tools(peer: &Peer<RoleClient>, limit: Duration) -> Result<Listed, ServerError> {
    let theirs = peer.peer_info();
    if theirs.as_ref().is_some_and(|info| info.capabilities.tools.is_none()) {
        // A list would show that it lives. So does what earlier eras have for that.
        if theirs.is_some_and(|info| info.protocol_version.has_initialize()) {
            ping(peer, limit).await?;
        }
        return Ok(Listed::default());
    }
    let pages = async {
        let (mut listed, mut cursor, mut seen) = (Listed::default(), None, HashSet::new());
        for _ in 0..MAX_PAGES {
            let page = peer.list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor.clone()))).await;
            let mut page = page.map_err(|error| failure::of(&error, limit))?;
            let written = page.meta.as_mut().and_then(|meta| meta.0.remove(asked::WRITTEN));
            let mut written = written.as_ref().and_then(Value::as_array).into_iter().flatten().map(Value::as_str);
            listed.tools.extend(page.tools.into_iter().map(|tool| {
                let written = written.next().flatten().and_then(|text| RawValue::from_string(text.to_owned()).ok());
                Defined { tool, written }
            }));
            let told = |name| page.meta.as_ref().and_then(|meta| meta.get(name));
            let left_out = told(asked::LEFT_OUT).and_then(Value::as_array);
            listed.left_out.extend(left_out.into_iter().flatten().filter_map(Value::as_str).map(clean_line));
            let size = told(asked::SIZE).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
            listed.size += size.unwrap_or_default();
            let too_much = listed.tools.len() > MAX_LISTED || listed.size > MAX_LIST_BYTES;
            match page.next_cursor {
                // There is nothing new behind a cursor that comes twice.
                Some(next) if !too_much && seen.insert(next.clone()) => cursor = Some(next),
                _ => return Ok(listed),
            }
        }
        Err(ServerError::Refused(format!("its list of tools has more than {MAX_PAGES} pages")))
    };
    timeout(limit, pages).await.unwrap_or(Err(ServerError::Timeout(limit)))
}

/// Whether the server answers. One that does not know this request does.
async fn ping(peer: &Peer<RoleClient>, limit: Duration) -> Result<(), ServerError> {
    let request = ClientRequest::PingRequest(PingRequest::default());
    match timeout(limit, peer.send_request(request)).await.unwrap_or(Err(ServiceError::Timeout { timeout: limit })) {
        Ok(_) => Ok(()),
        Err(ServiceError::McpError(error)) if error.code == ErrorCode::METHOD_NOT_FOUND => Ok(()),
        Err(error) => Err(failure::of(&error, limit)),
    }
}

/// Calls a tool. The server may speak to whoever listens by `relay`, and ask it.
pub async fn call_tool(
    line: &Line,
    spec: &Arc<ToolSpec>,
    arguments: Arc<RawValue>,
    relay: Option<Relay>,
) -> Result<Whole, ServerError> {
    let request = Request::Call(ToolRequest::new(Arc::clone(spec), arguments, telemetry::here()));
    let (given, room) = line.result(request, relay).await.map_err(|failed| failure::of_call(failed, line.limit))?;
    match given.result {
        ServerResult::CallToolResult(result) => Ok(Whole::new(result, given.written, room)),
        // Nothing to tell is a result, too.
        ServerResult::EmptyResult(_) | ServerResult::TaskAckResult(_) => Ok(Whole::new(CallToolResult::default(), None, None)),
        ServerResult::CreateTaskResult(_) => {
            Err(ServerError::Refused("the tool answered with a task, which this chat does not follow".into()))
        }
        _ => Err(failure::of(&ServiceError::UnexpectedResponse, line.limit)),
    }
}

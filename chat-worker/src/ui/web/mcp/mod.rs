//! /mcp: the fleet as one MCP server. Every tool, resource and prompt of every server that is up, for any MCP client of either era
//! (`gateway`: which, `offered`: in which form). Token, rate limit, circuits, timeouts, caps and metrics are those of a turn; asking the user
//! is the client's business, which the annotations are passed on for. Any replica takes any request (`client`: what it says of its sender);
//! what a server says while it works goes to the client that called (`running`), that a list changed to all who listen, and that a page is
//! done to the session that was asked to open it (`lists`).
//! `wire` is the HTTP around it, and `direct` the short way of most requests, past the SDK.

#![allow(deprecated, reason = "sampling, messages for a log and resources/subscribe, which earlier eras have")]

mod client;
mod direct;
mod gateway;
mod levels;
mod lists;
mod offered;
pub mod running;
mod wire;

use std::{collections::BTreeSet, ops::Bound, pin::pin, sync::Arc, time::Instant};

use axum::http::{HeaderMap, request::Parts};
use futures::{FutureExt, future::join_all};
use http_server::json_rpc;
use mcp_wire::json;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult,
        CustomRequest, CustomResult, DiscoverResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
        Implementation, InitializeRequestParams, InitializeResult, InputResponses, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, RequestMetaObject, ServerCapabilities, ServerConfig,
        SetLevelRequestMethod, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
    },
    service::{RequestContext, SubscriptionContext},
    transport::{StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

pub use self::wire::answer;
use self::{
    client::{Client, counted, unguessable},
    gateway::{Gateway, MAX_BODY},
    lists::{List, Told},
    offered::{Answer, Kind, no_cursor},
    running::{Asker, Resumed, Running},
};
use super::state::Web;
use crate::{
    audit, current_request,
    digest::digest,
    llm::offer::search,
    message::ToolCall,
    numbers,
    policy::{self, By, Decision, Verdict, Why},
    redact::redact,
    telemetry::{self, Traced},
    tools::{
        answer::ToolOutput,
        asked::Given,
        relay::{Following, Relay},
        sanitize::clean_line,
        watches::MOST_OF_WATCHER,
    },
    written::Fields,
};

/// How long a client may keep the list: servers come and go.
const LIST_TTL_MS: u64 = 5_000;
/// How long a client may keep what changes only with the version of this program.
const STATIC_TTL_MS: u64 = 300_000;
const TOOLS_A_PAGE: usize = 200;
const INSTRUCTIONS: &str = "The tools of several MCP servers, each named server__tool. A server that is down takes its own \
    tools away until it is back.";

/// The SDK's side of the path.
pub type Sdk = StreamableHttpService<Gateway, LocalSessionManager>;

pub fn service(web: &Arc<Web>) -> Sdk {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY)
        .with_cancellation_token(web.stopped.clone())
        // Host and Origin have been checked by then, by the rule of the other paths.
        .disable_allowed_hosts()
        .disable_allowed_origins();
    let web = Arc::clone(web);
    StreamableHttpService::new(move || Ok(Gateway { web: Arc::clone(&web) }), Arc::default(), config)
}

impl Gateway {
    /// Runs a call that may be made, with arguments as they are written; `None` when there is no such tool.
    async fn run(
        &self,
        name: &str,
        arguments: &str,
        caller: &str,
        cancel: &CancellationToken,
        relay: Option<Relay>,
    ) -> Option<ToolOutput> {
        let engine = &self.web.app.engine;
        let searches = name == search::FIND;
        let spec = if searches {
            None
        } else {
            tokio::select! {
                spec = engine.hub.tool_soon(name) => spec,
                () = cancel.cancelled() => None,
            }
        };
        let verdict = match &spec {
            None if searches => Verdict::Run(By::Harmless),
            spec => policy::judge(spec.as_deref(), self.web.app.settings.approvals, Decision::Client),
        };
        // What is not offered is not there.
        let is_there = match verdict {
            Verdict::Refuse(Why::Never) => false,
            Verdict::Refuse(Why::Unknown) => engine.hub.may_return(name),
            _ => true,
        };
        let began = Instant::now();
        let (server, tool) = spec.as_ref().map_or(("", "unknown"), |spec| (spec.server.as_str(), spec.tool.as_str()));
        let output = match (verdict, &spec) {
            (Verdict::Run(_), None) => {
                let catalogue = engine.hub.catalogue();
                let offered = catalogue.iter().filter(|spec| self.offers(spec));
                ToolOutput::told(search::find(offered, &value_of(arguments)).to_string())
            }
            (Verdict::Run(_), Some(spec)) => {
                let traced = Traced::execute_tool(server, tool, None);
                let output = tokio::select! {
                    output = engine.hub.call_as(spec, arguments, relay).instrument(traced.span()) => output,
                    () = cancel.cancelled() => ToolOutput {
                        duration: began.elapsed(),
                        ..ToolOutput::failed("cancelled before it had a result".to_owned(), "cancelled")
                    },
                };
                traced.ended(output.is_error.then_some(output.outcome));
                output
            }
            (Verdict::Refuse(why @ (Why::Never | Why::Denied | Why::Unattended)), _) => ToolOutput::refused(why.sentence()),
            _ => engine.hub.unknown(name),
        };
        engine.metrics.tool_call(server, tool, output.outcome, output.duration);
        let (allowed, decision) = match verdict {
            Verdict::Run(by) => (true, by.name()),
            Verdict::Refuse(why) => (false, why.name()),
            Verdict::Ask => (false, "open"),
        };
        let tool = if spec.is_some() { tool } else { name };
        let (outcome, duration) = (output.outcome, output.duration);
        audit::Call { caller, server, tool, arguments, decision, allowed, outcome, duration }.log(engine.audit_arguments);
        is_there.then_some(output)
    }

    /// What a client asks for, of what servers have: by the short way and by the SDK's.
    async fn wanted(
        &self,
        wanted: Wanted,
        headers: Option<&HeaderMap>,
        meta: &RequestMetaObject,
        asker: &Asker,
    ) -> Result<Answer, ErrorData> {
        let hub = Arc::clone(&self.web.app.engine.hub);
        match wanted {
            Wanted::Call { tool, arguments, state: Some(state), answers } => {
                let gone = || ErrorData::invalid_params("this call does not wait any more, or not here: call again", None);
                let what = what_of("tool", &tool, &value_of(arguments.get()));
                self.resumed(&state, &what, answers, asker).await.ok_or_else(gone)?
            }
            Wanted::Call { tool, arguments, answers, .. } => {
                let traced = telemetry::serve_tool(&tool, headers, meta);
                self.call(tool, arguments, answers, traced, asker).await
            }
            Wanted::Read(params) => {
                let what = what_of("resource", &params.uri, &());
                let (state, answers) = (params.request_state.clone(), params.input_responses.clone());
                let read =
                    self.asked(what, state, answers, asker, |relay| async move { hub.read(params, relay).await }.boxed()).await;
                if asker.client.is_modern { read.map(Answer::cacheable) } else { read }
            }
            Wanted::Prompt(params) => {
                let what = what_of("prompt", &params.name, &params.arguments);
                let (state, answers) = (params.request_state.clone(), params.input_responses.clone());
                self.asked(what, state, answers, asker, |relay| async move { hub.prompt(params, relay).await }.boxed()).await
            }
            Wanted::Complete(params) => {
                let complete = |relay| async move { hub.complete(params, relay).await }.boxed();
                self.asked("completion".to_owned(), None, None, asker, complete).await
            }
            Wanted::List(kind, cursor) => self.list(kind, cursor.as_deref(), asker.client.is_modern).await,
            Wanted::Misfit(told) => Err(ErrorData::invalid_params(told, None)),
        }
    }

    async fn list(&self, kind: Kind, cursor: Option<&str>, is_modern: bool) -> Result<Answer, ErrorData> {
        let hub = &self.web.app.engine.hub;
        match kind {
            Kind::Tools => self.tools(cursor, is_modern),
            Kind::Resources => offered::page(kind, hub.resources().await, cursor, LIST_TTL_MS),
            Kind::Templates => offered::page(kind, hub.templates().await, cursor, LIST_TTL_MS),
            Kind::Prompts => offered::page(kind, hub.prompts().await, cursor, LIST_TTL_MS),
        }
    }

    /// A page begins after the name that the cursor is: right also when servers went and came between two pages.
    fn tools(&self, cursor: Option<&str>, is_modern: bool) -> Result<Answer, ErrorData> {
        let place = Kind::Tools.place(cursor)?;
        if self.searches() {
            return match place {
                Some(_) => Err(no_cursor()),
                None => Ok(offered::list(Kind::Tools, &offered::search_tools(), None, STATIC_TTL_MS)),
            };
        }
        let catalogue = self.web.app.engine.hub.catalogue();
        let mut tools = catalogue.after(place.map_or(Bound::Unbounded, Bound::Excluded)).filter(|spec| self.offers(spec));
        let page: Vec<_> = tools.by_ref().take(TOOLS_A_PAGE).collect();
        let more = tools.next().is_some();
        let next = page.last().filter(|_| more).map(|spec| spec.name.as_str());
        let page: Vec<_> = page.iter().map(|spec| offered::tool(spec, is_modern)).collect();
        Ok(offered::list(Kind::Tools, &page, next, LIST_TTL_MS))
    }

    /// The same for a request that the SDK handed over.
    async fn handed(&self, wanted: Wanted, context: &RequestContext<RoleServer>) -> Result<Answer, ErrorData> {
        let headers = context.extensions.get::<Parts>().map(|parts| &parts.headers);
        self.wanted(wanted, headers, &context.meta, &Asker::of(context)).await
    }

    /// Calls a tool for a client.
    async fn call(
        &self,
        tool: String,
        arguments: Box<RawValue>,
        answers: InputResponses,
        traced: Span,
        asker: &Asker,
    ) -> Result<Answer, ErrorData> {
        // What waits for nobody needs no name.
        let what = if asker.client.comes_back() { what_of("tool", &tool, &value_of(arguments.get())) } else { String::new() };
        let (name, arguments) = meant(tool, arguments);
        let (gateway, caller) = (self.clone(), asker.client.caller.clone());
        let run = |relay: Option<Relay>, ended: CancellationToken| async move {
            let answers = (!answers.is_empty()).then_some(answers);
            let relay = relay.map(|mut relay| {
                relay.answers = answers;
                relay
            });
            let run = gateway.run(&name, arguments.get(), &caller, &ended, relay).instrument(traced.clone());
            let Some(output) = run.await else {
                telemetry::failed(&traced, "unknown_tool");
                let told = format!("there is no tool {name}, or its calls are not allowed here");
                return Err(ErrorData::invalid_params(told, None));
            };
            if output.is_error {
                telemetry::failed(&traced, output.outcome);
            }
            offered::result(output, gateway.web.app.settings.max_result_bytes)
        };
        self.accompanied(what, asker, run).await
    }

    /// Does what a client waits for, which meanwhile hears what servers say, may be asked, and may cancel it. The log lines of the work, and
    /// its requests to servers, carry the request's id.
    async fn accompanied<W>(
        &self,
        what: String,
        asker: &Asker,
        work: impl FnOnce(Option<Relay>, CancellationToken) -> W,
    ) -> Result<Answer, ErrorData>
    where
        W: Future<Output = Result<Answer, ErrorData>> + Send + 'static,
    {
        let (client, cancel) = (&asker.client, asker.cancel.clone());
        let _begun = client.session.as_deref().map(|session| self.web.calls.begun(session, &asker.id, &cancel));
        let (mut relay, hears) = Relay::new(client.can.clone(), self.web.calls.log_level(client), client.is_modern);
        if relay.log_level.is_none() && !client.is_modern && client.takes_logs() {
            // A session that never said a level hears all, and servers of the modern era say nothing unless they are told one.
            relay.log_level = Some(LoggingLevel::Debug);
        }
        let session = client.session.as_deref().filter(|_| !client.is_modern);
        relay.later = session.map(|session| self.web.app.engine.hub.pages.later(session));
        let work = work(client.listens().then_some(relay), cancel.clone());
        let output = current_request::scope(asker.request_id.clone(), work).boxed();
        let running = Running { what, call: Following::new(output, hears), cancel, weight: client.weight };
        self.web.calls.accompany(running, asker).await
    }

    /// Notes from which level on a session wants messages for a log; none when it has ended.
    async fn want_messages(&self, session: &str, level: Option<LoggingLevel>) {
        let lowest = self.web.calls.levels.set(session, level);
        self.web.app.engine.hub.want_messages(lowest).await;
    }

    /// A session has ended: nothing of it is remembered.
    async fn ended(&self, session: &str) {
        self.web.app.engine.hub.pages.forget(session);
        self.web.app.engine.hub.watches.forget(session);
        self.want_messages(session, None).await;
    }

    /// Goes on with what waits for these answers, as soon as they are all there; `None` where nothing waits.
    async fn resumed(
        &self,
        state: &str,
        what: &str,
        answers: InputResponses,
        asker: &Asker,
    ) -> Option<Result<Answer, ErrorData>> {
        Some(match self.web.calls.resume(state, what, answers)? {
            Resumed::Goes(running) => self.web.calls.accompany(*running, asker).await,
            Resumed::AsksAgain(question) => Ok(question),
            Resumed::Another => {
                let told = "this requestState is of another request: send it with what that one asked for, or call without it";
                Err(ErrorData::invalid_params(told, None))
            }
        })
    }

    /// The answer of a server to something else than a call, as far as it may be passed on. A state that is not ours is the server's.
    async fn asked<W>(
        &self,
        what: String,
        state: Option<String>,
        answers: Option<InputResponses>,
        asker: &Asker,
        ask: impl FnOnce(Option<Relay>) -> W,
    ) -> Result<Answer, ErrorData>
    where
        W: Future<Output = Result<Given, ErrorData>> + Send + 'static,
    {
        if let Some(state) = &state
            && let Some(resumed) = self.resumed(state, &what, answers.unwrap_or_default(), asker).await
        {
            return resumed;
        }
        let most = self.web.app.settings.max_result_bytes;
        let work = |relay, cancel: CancellationToken| {
            let answer = ask(relay);
            async move {
                tokio::select! {
                    answer = answer => answer.and_then(|given| offered::within(given, most)),
                    () = cancel.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
                }
            }
        };
        self.accompanied(what, asker, work).await
    }
}

/// What is asked for, so that the answers to its questions can be told from those of another one.
fn what_of(kind: &str, name: &str, arguments: &impl Serialize) -> String {
    // What came as JSON can be written as JSON.
    digest(&[kind, name, &serde_json::to_string(arguments).unwrap_or_default()])
}

/// Arguments to be looked at.
fn value_of(arguments: &str) -> Value {
    // They are an object, and no deeper than what may be read.
    json::parse(&numbers::guard(arguments)).unwrap_or_default()
}

/// The call that a call of `call_tool` stands for, whose arguments are those within; any other stands for itself.
fn meant(tool: String, arguments: Box<RawValue>) -> (String, Box<RawValue>) {
    if tool != search::CALL {
        return (tool, arguments);
    }
    let meant = search::meant(ToolCall { id: String::new(), name: tool, input: value_of(arguments.get()) });
    if meant.name == search::CALL {
        return (meant.name, arguments);
    }
    let within = Fields::read(arguments.get()).ok();
    let within = within.as_ref().and_then(|fields| fields.get("arguments")).filter(|own| own.starts_with('{'));
    let own = within.map_or_else(|| numbers::written(&meant.input), str::to_owned);
    (meant.name, RawValue::from_string(own).unwrap_or_default())
}

impl ServerHandler for Gateway {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_completions()
            .enable_logging()
            .build();
        let instructions = self.web.app.engine.hub.instructions().into_iter();
        let instructions = instructions.fold(INSTRUCTIONS.to_owned(), |all, (server, text)| format!("{all}\n\n{server}: {text}"));
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("mcpfleet-chat-worker", env!("CARGO_PKG_VERSION")).with_title("mcpfleet"))
            .with_instructions(instructions)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }

    async fn discover(&self, _context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        Ok(DiscoverResult::from_server_info(self.supported_protocol_versions().into_owned(), self.get_info())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    /// Of single resources as many as are watched for one stream, where there is a server that tells of any.
    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let mut accepted = requested.clone();
        if !self.web.app.engine.hub.tells_of_resources() {
            accepted.resource_subscriptions = None;
        }
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.truncate(MOST_OF_WATCHER);
        }
        Some(accepted)
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let hub = &self.web.app.engine.hub;
        let mut versions = hub.subscribe();
        let mut told = Told::now(self);
        let (name, caller) = (unguessable(), counted(subscription.request_context().extensions.get()));
        let ear = hub.watches.listens(&name, &caller, false);
        let uris: BTreeSet<&String> = subscription.accepted().resource_subscriptions.iter().flatten().collect();
        let mut watching = pin!(join_all(uris.into_iter().map(async |uri| {
            if let Err(error) = hub.watch(&name, &caller, uri).await {
                tracing::debug!("a client is not told of changes of a resource: {}", redact(&clean_line(&error.message)));
            }
        })));
        let mut is_watching = false;
        loop {
            tokio::select! {
                _ = &mut watching, if !is_watching => {
                    is_watching = true;
                    continue;
                }
                uri = ear.next() => match subscription.sink().notify_resource_updated(uri).await {
                    Ok(()) => continue,
                    Err(_) => return Ok(()),
                },
                changed = versions.changed() => if changed.is_err() { return Ok(()) },
                () = subscription.cancelled() => return Ok(()),
                () = self.web.draining.cancelled() => return Ok(()),
            }
            let (wants, sink) = (subscription.accepted(), subscription.sink());
            for list in told.changes(self) {
                let sent = match list {
                    List::Tools if wants.tools_list_changed == Some(true) => sink.notify_tool_list_changed().await,
                    List::Resources if wants.resources_list_changed == Some(true) => sink.notify_resource_list_changed().await,
                    List::Prompts if wants.prompts_list_changed == Some(true) => sink.notify_prompt_list_changed().await,
                    _ => Ok(()),
                };
                if sent.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// A session hears on the stream that it opens that a resource changed.
    async fn subscribe(&self, request: SubscribeRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let Some(session) = Client::of(&context).session else {
            let told = "what changes is told to a session: send the Mcp-Session-Id that initialize was answered with";
            return Err(ErrorData::invalid_request(told, None));
        };
        self.web.app.engine.hub.watch(&session, &counted(context.extensions.get()), &request.uri).await
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        if let Some(session) = Client::of(&context).session {
            self.web.app.engine.hub.watches.unwatch(&session, &request.uri);
        }
        Ok(())
    }

    /// From which level on a session wants messages for a log. Servers are asked for the lowest that any wants.
    async fn set_level(&self, request: SetLevelRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let client = Client::of(&context);
        if client.is_modern {
            return Err(ErrorData::method_not_found::<SetLevelRequestMethod>());
        }
        // Without a session it hears none.
        if let Some(session) = client.session {
            self.want_messages(&session, Some(request.level)).await;
        }
        Ok(())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        listed(self.handed(Wanted::List(Kind::Tools, cursor(request)), &context).await?)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let wanted = Wanted::Call {
            tool: request.name.into_owned(),
            // It was JSON.
            arguments: RawValue::from_string(numbers::written(&Value::Object(request.arguments.unwrap_or_default())))
                .unwrap_or_default(),
            state: request.request_state,
            answers: request.input_responses.unwrap_or_default(),
        };
        self.handed(wanted, &context).await?.typed::<CallToolResult, _>()
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        listed(self.handed(Wanted::List(Kind::Resources, cursor(request)), &context).await?)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        listed(self.handed(Wanted::List(Kind::Templates, cursor(request)), &context).await?)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.handed(Wanted::Read(request), &context).await?.typed::<ReadResourceResult, _>()
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        listed(self.handed(Wanted::List(Kind::Prompts, cursor(request)), &context).await?)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        self.handed(Wanted::Prompt(request), &context).await?.typed::<GetPromptResult, _>()
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        listed(self.handed(Wanted::Complete(request), &context).await?)
    }

    /// The SDK hands over what it could not read as a request that it knows: an unknown method, or a known one with parameters of a
    /// wrong shape.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let is_modern = context.protocol_version().is_some_and(|version| !version.has_initialize());
        Err(match json_rpc::misfit(&request.method, request.params.as_ref(), is_modern) {
            Some(told) => ErrorData::invalid_params(told, None),
            None => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None),
        })
    }
}

/// What a client asks for, of what servers have.
#[derive(Debug)]
enum Wanted {
    /// With a state, it is one that waits for these answers.
    Call {
        tool: String,
        /// An object, as it was written.
        arguments: Box<RawValue>,
        state: Option<String>,
        answers: InputResponses,
    },
    Read(ReadResourceRequestParams),
    Prompt(GetPromptRequestParams),
    Complete(CompleteRequestParams),
    List(Kind, Option<String>),
    /// A list, with parameters of a wrong shape: what is wrong.
    Misfit(String),
}

fn cursor(request: Option<PaginatedRequestParams>) -> Option<String> {
    request.and_then(|request| request.cursor)
}

/// A result that asks nothing.
fn listed<T: DeserializeOwned>(answer: Answer) -> Result<T, ErrorData> {
    answer.typed_as(|result| serde_json::from_value(result))
}

//! /mcp: the fleet as one MCP server. Every tool, resource and prompt of every server that is up, for any MCP client of either era
//! (`gateway`: which, `offered`: in which form). Token, rate limit, circuits, timeouts, caps and metrics are those of a turn; asking the user
//! is the client's business, which the annotations are passed on for. Any replica takes any request (`client`: what it says of its sender);
//! what a server says while it works goes to the client that called (`running`), and that a list changed to all who listen (`lists`).
//! `wire` is the HTTP around it, and `direct` the short way of most calls, past the SDK.

#![allow(deprecated, reason = "sampling and messages for a log, which earlier eras have")]

mod client;
mod direct;
mod gateway;
mod lists;
mod offered;
pub mod running;
mod wire;

use std::{ops::Bound, sync::Arc, time::Instant};

use axum::http::request::Parts;
use futures::FutureExt;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, DiscoverResult,
        GetPromptRequestParams, GetPromptResponse, Implementation, InitializeRequestParams, InitializeResult, InputResponses,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, ServerResult, SetLevelRequestParams,
        SubscriptionFilter, Tool,
    },
    service::{RequestContext, SubscriptionContext},
    transport::{StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager},
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

pub use self::wire::answer;
use self::{
    gateway::{Gateway, MAX_BODY},
    lists::{List, Told},
    offered::Answer,
    running::{Asker, Running},
};
use super::state::Web;
use crate::{
    audit,
    llm::{offer::search, wire::ToolCall},
    logging, numbers,
    policy::{self, Decision, Verdict, Why},
    telemetry::{self, Traced},
    tools::{answer::ToolOutput, relay::Relay},
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
    /// Runs a call that may be made; `None` when there is no such tool.
    async fn run(&self, call: &ToolCall, caller: &str, cancel: &CancellationToken, relay: Option<Relay>) -> Option<ToolOutput> {
        let engine = &self.web.app.engine;
        let name = call.name.as_str();
        if name == search::FIND {
            let catalogue = engine.hub.catalogue();
            return Some(ToolOutput::told(
                search::find(catalogue.iter().filter(|spec| self.offers(spec)), &call.input).to_string(),
            ));
        }
        let spec = tokio::select! {
            spec = engine.hub.tool_soon(name) => spec,
            () = cancel.cancelled() => None,
        };
        let verdict = policy::judge(spec.as_deref(), self.web.app.settings.approvals, Decision::Client);
        if verdict == Verdict::Refuse(Why::Unknown) && !engine.hub.may_return(name) {
            return None;
        }
        let began = Instant::now();
        let (server, tool) = spec.as_ref().map_or(("", "unknown"), |spec| (spec.server.as_str(), spec.tool.as_str()));
        let arguments = &numbers::written(&call.input);
        let output = match (verdict, &spec) {
            (Verdict::Run(_), Some(spec)) => {
                let traced = Traced::execute_tool(server, tool, None);
                let output = tokio::select! {
                    output = engine.hub.call_as(spec, arguments, relay).instrument(traced.span()) => output,
                    () = cancel.cancelled() => ToolOutput {
                        duration: began.elapsed(),
                        ..ToolOutput::failed("cancelled before it had a result".to_owned(), "cancelled")
                    },
                };
                traced.executed(&output);
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
        // What is not offered is not there.
        (verdict != Verdict::Refuse(Why::Never)).then_some(output)
    }

    /// Calls a tool for a client.
    async fn call(&self, tool: &str, arguments: Map<String, Value>, traced: Span, asker: &Asker) -> Result<Answer, ErrorData> {
        let call = search::meant(ToolCall { id: String::new(), name: tool.to_owned(), input: Value::Object(arguments) });
        let (gateway, caller) = (self.clone(), asker.client.caller.clone());
        let run = |relay, ended: CancellationToken| async move {
            let run = gateway.run(&call, &caller, &ended, relay).instrument(traced.clone());
            let Some(output) = run.await else {
                telemetry::failed(&traced, "unknown_tool");
                let told = format!("there is no tool {}, or its calls are not allowed here", call.name);
                return Err(ErrorData::invalid_params(told, None));
            };
            if output.is_error {
                telemetry::failed(&traced, output.outcome);
            }
            Ok(offered::result(output, gateway.web.app.settings.max_result_bytes))
        };
        self.accompanied(what_of(tool), asker, run).await
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
        let (client, cancel) = (&asker.client, CancellationToken::new());
        let _begun = client.session.as_deref().map(|session| self.web.calls.begun(session, &asker.id, &cancel));
        let (relay, hears) = Relay::new(client.can.clone(), client.log_level, client.is_modern);
        let work = work(client.listens().then_some(relay), cancel.clone());
        let output = logging::of_request(asker.request_id.clone(), work).boxed();
        self.web.calls.accompany(Running { what, output, hears, cancel }, asker).await
    }

    /// Goes on with what waits for these answers; `None` where nothing does.
    async fn resumed(
        &self,
        state: &str,
        what: &str,
        answers: InputResponses,
        asker: &Asker,
    ) -> Option<Result<ServerResult, ErrorData>> {
        let running = self.web.calls.resume(state, what, answers)?;
        Some(self.web.calls.accompany(running, asker).await.map(Answer::typed))
    }

    /// The answer of a server to something else than a call, as far as it may be passed on. A state that is not ours is the server's.
    async fn asked<W>(
        &self,
        what: String,
        state: Option<String>,
        answers: Option<InputResponses>,
        context: &RequestContext<RoleServer>,
        ask: impl FnOnce(Option<Relay>) -> W,
    ) -> Result<ServerResult, ErrorData>
    where
        W: Future<Output = Result<ServerResult, ErrorData>> + Send + 'static,
    {
        let asker = Asker::of(context);
        let resumed = match &state {
            Some(state) => self.resumed(state, &what, answers.unwrap_or_default(), &asker).await,
            None => None,
        };
        let result = if let Some(result) = resumed {
            result?
        } else {
            let work = |relay, cancel: CancellationToken| {
                let answer = ask(relay);
                async move {
                    tokio::select! {
                        answer = answer => answer.map(|answer| Answer::Typed(Box::new(answer))),
                        () = cancel.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
                    }
                }
            };
            self.accompanied(what, &asker, work).await?.typed()
        };
        offered::within(result, self.web.app.settings.max_result_bytes)
    }
}

/// What a call of a tool is, for the answers that it may wait for.
fn what_of(tool: &str) -> String {
    format!("tool {tool}")
}

impl ServerHandler for Gateway {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
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

    /// Single resources are not watched.
    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let mut accepted = requested.clone();
        accepted.resource_subscriptions = None;
        Some(accepted)
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let mut versions = self.web.app.engine.hub.subscribe();
        let mut told = Told::now(self);
        loop {
            tokio::select! {
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

    /// From which level on servers send messages for a log. They are everybody's: the last word of a client counts.
    async fn set_level(&self, request: SetLevelRequestParams, _context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.web.app.engine.hub.set_log_level(request).await;
        Ok(())
    }

    /// A page begins after the name that the cursor is: right also when servers went and came between two pages.
    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if self.searches() {
            return Ok(ListToolsResult {
                ttl_ms: Some(STATIC_TTL_MS),
                cache_scope: Some(CacheScope::Private),
                ..ListToolsResult::with_all_items(offered::search_tools())
            });
        }
        let cursor = request.and_then(|request| request.cursor);
        let start = cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let catalogue = self.web.app.engine.hub.catalogue();
        let mut tools = catalogue.after(start).filter(|spec| self.offers(spec));
        let page: Vec<Tool> = tools.by_ref().take(TOOLS_A_PAGE).map(|spec| offered::tool(spec)).collect();
        let more = tools.next().is_some();
        let next_cursor = page.last().filter(|_| more).map(|tool| tool.name.to_string());
        Ok(ListToolsResult {
            next_cursor,
            ttl_ms: Some(LIST_TTL_MS),
            cache_scope: Some(CacheScope::Private),
            ..ListToolsResult::with_all_items(page)
        })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asker = Asker::of(&context);
        if let Some(state) = &request.request_state {
            let answers = request.input_responses.unwrap_or_default();
            let resumed = self.resumed(state, &what_of(&request.name), answers, &asker).await;
            let gone = || ErrorData::invalid_params("this call does not wait any more, or not here: call again", None);
            return called(resumed.unwrap_or_else(|| Err(gone()))?);
        }
        let headers = context.extensions.get::<Parts>().map(|parts| &parts.headers);
        let traced = telemetry::serve_tool(&request.name, headers, &context.meta);
        called(self.call(&request.name, request.arguments.unwrap_or_default(), traced, &asker).await?.typed())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let (page, next_cursor) = offered::page(self.web.app.engine.hub.resources().await, request)?;
        Ok(ListResourcesResult {
            next_cursor,
            ttl_ms: Some(LIST_TTL_MS),
            cache_scope: Some(CacheScope::Private),
            ..ListResourcesResult::with_all_items(page)
        })
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let (page, next_cursor) = offered::page(self.web.app.engine.hub.templates().await, request)?;
        Ok(ListResourceTemplatesResult {
            next_cursor,
            ttl_ms: Some(LIST_TTL_MS),
            cache_scope: Some(CacheScope::Private),
            ..ListResourceTemplatesResult::with_all_items(page)
        })
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (what, hub) = (format!("resource {}", request.uri), Arc::clone(&self.web.app.engine.hub));
        let (state, answers) = (request.request_state.clone(), request.input_responses.clone());
        let read = |relay| async move { hub.read(request, relay).await }.boxed();
        match self.asked(what, state, answers, &context, read).await? {
            ServerResult::ReadResourceResult(result) => Ok(ReadResourceResponse::Complete(result)),
            ServerResult::InputRequiredResult(result) => Ok(ReadResourceResponse::InputRequired(result)),
            _ => Err(unexpected()),
        }
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let (page, next_cursor) = offered::page(self.web.app.engine.hub.prompts().await, request)?;
        Ok(ListPromptsResult {
            next_cursor,
            ttl_ms: Some(LIST_TTL_MS),
            cache_scope: Some(CacheScope::Private),
            ..ListPromptsResult::with_all_items(page)
        })
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let (what, hub) = (format!("prompt {}", request.name), Arc::clone(&self.web.app.engine.hub));
        let (state, answers) = (request.request_state.clone(), request.input_responses.clone());
        let fill = |relay| async move { hub.prompt(request, relay).await }.boxed();
        match self.asked(what, state, answers, &context, fill).await? {
            ServerResult::GetPromptResult(result) => Ok(GetPromptResponse::Complete(result)),
            ServerResult::InputRequiredResult(result) => Ok(GetPromptResponse::InputRequired(result)),
            _ => Err(unexpected()),
        }
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let hub = Arc::clone(&self.web.app.engine.hub);
        let complete = |relay| async move { hub.complete(request, relay).await }.boxed();
        match self.asked("completion".to_owned(), None, None, &context, complete).await? {
            ServerResult::CompleteResult(result) => Ok(result),
            _ => Err(unexpected()),
        }
    }
}

fn called(result: ServerResult) -> Result<CallToolResponse, ErrorData> {
    match result {
        ServerResult::CallToolResult(result) => Ok(CallToolResponse::Complete(result)),
        ServerResult::InputRequiredResult(result) => Ok(CallToolResponse::InputRequired(result)),
        _ => Err(unexpected()),
    }
}

/// What is asked of a server here is answered by its kind, or by an error.
fn unexpected() -> ErrorData {
    ErrorData::internal_error("the server answered something else than what it was asked", None)
}

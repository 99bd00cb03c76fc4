//! /mcp: the fleet as one MCP server. Every tool, resource and prompt of every server that is up, for any MCP client of either era
//! (`offered`: in which form). Token, rate limit, circuits, timeouts, caps and metrics are those of a turn; asking the user
//! is the client's business, which the annotations are passed on for. Stateless, so that any replica can answer: clients of
//! the modern era hear of changes by subscriptions/listen, earlier ones ask again.

use std::{borrow::Cow, ops::Bound, sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http_server::{forwarded::Caller, json_rpc};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, DiscoverResult,
        GetPromptRequestParams, GetPromptResponse, Implementation, InitializeRequestParams, InitializeResult, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
        ReadResourceResponse, ServerCapabilities, ServerConfig, SubscriptionFilter, Tool,
    },
    service::{RequestContext, SubscriptionContext},
    transport::{StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager},
};
use serde_json::Value;
use tracing::Instrument;

use super::{
    Web, offered,
    problem::{Problem, id_of},
};
use crate::{
    audit,
    llm::{
        offer::{Search, search},
        wire::ToolCall,
    },
    logging, numbers,
    policy::{self, Decision, Verdict, Why},
    telemetry::{self, Traced},
    tools::{catalogue::ToolSpec, hub::ToolOutput},
};

/// Arguments of one call. Far below what a conversation may be.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// How long a client may keep the list: servers come and go.
const LIST_TTL_MS: u64 = 5_000;
/// How long a client may keep what changes only with the version of this program.
const STATIC_TTL_MS: u64 = 300_000;
const TOOLS_A_PAGE: usize = 200;
const INSTRUCTIONS: &str = "The tools of several MCP servers, each named server__tool. A server that is down takes its own \
    tools away until it is back.";

/// The handler of every request.
#[derive(Debug, Clone)]
pub struct Gateway {
    web: Arc<Web>,
}

/// The service for the path.
pub fn service(web: &Arc<Web>) -> StreamableHttpService<Gateway, LocalSessionManager> {
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

/// Takes the whole body before the SDK does, so that what is no message is told so.
pub async fn whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        let detail = format!("the body is larger than {} MiB, or broken", MAX_BODY / 1024 / 1024);
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
    };
    // Numbers that are longer than those of a machine pass as they are written, in both directions.
    let body = match std::str::from_utf8(&body).map(numbers::guard) {
        Ok(Cow::Owned(guarded)) => Bytes::from(guarded),
        _ => body,
    };
    released(json_rpc::run(parts, body, async |request| next.run(request).await).await).await
}

/// The answer with marked numbers as they are. A stream goes as it comes: an event is written as one piece.
async fn released(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let is_json = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        let pieces = body.into_data_stream().map(|piece| piece.map(|piece| numbers::release_bytes(piece.into())));
        return Response::from_parts(parts, Body::from_stream(pieces));
    }
    // It is in memory already.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    if !numbers::are_marked(&body) {
        return Response::from_parts(parts, Body::from(body));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(numbers::release_bytes(body.into())))
}

impl Gateway {
    /// Whether calls of it are made at all. `ask` leaves the asking to the client, which sees what the tool says of itself.
    fn offers(&self, spec: &ToolSpec) -> bool {
        policy::offers(spec, self.web.app.settings.approvals)
    }

    fn searches(&self) -> bool {
        self.web.app.settings.tool_search == Search::Always
    }

    /// What is offered now: a change of it is worth telling.
    fn offered(&self) -> Vec<(String, String)> {
        let catalogue = self.web.app.engine.hub.catalogue();
        catalogue.iter().filter(|spec| self.offers(spec)).map(|spec| (spec.name.clone(), spec.hash.clone())).collect()
    }

    /// Runs a call that may be made; `None` when there is no such tool.
    async fn run(&self, call: &ToolCall, caller: &str, context: &RequestContext<RoleServer>) -> Option<ToolOutput> {
        let engine = &self.web.app.engine;
        let name = call.name.as_str();
        if name == search::FIND {
            let catalogue = engine.hub.catalogue();
            return Some(ToolOutput::told(
                search::find(catalogue.iter().filter(|spec| self.offers(spec)), &call.input).to_string(),
            ));
        }
        let spec = engine.hub.catalogue().get(name).cloned();
        let verdict = policy::judge(spec.as_deref(), self.web.app.settings.approvals, Decision::Client);
        if verdict == Verdict::Refuse(Why::Unknown) && !engine.hub.may_return(name) {
            return None;
        }
        let began = Instant::now();
        let (server, tool) = spec.as_ref().map_or(("", "unknown"), |spec| (spec.server.as_str(), spec.tool.as_str()));
        let output = match (verdict, &spec) {
            (Verdict::Run(_), Some(spec)) => {
                let traced = Traced::execute_tool(server, tool, None);
                let output = tokio::select! {
                    output = engine.hub.call_as(spec, &call.input).instrument(traced.span()) => output,
                    () = context.ct.cancelled() => ToolOutput {
                        text: "cancelled before it had a result".to_owned(),
                        is_error: true,
                        whole: None,
                        outcome: "cancelled",
                        duration: began.elapsed(),
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
        let (arguments, outcome, duration) = (&call.input, output.outcome, output.duration);
        audit::Call { caller, server, tool, arguments, decision, allowed, outcome, duration }.log(engine.audit_arguments);
        // What is not offered is not there.
        (verdict != Verdict::Refuse(Why::Never)).then_some(output)
    }
}

impl ServerHandler for Gateway {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
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
        let mut info = self.negotiate_initialize(&request)?;
        // Without a session there is no way to tell a client of an earlier era.
        if let Some(tools) = &mut info.capabilities.tools {
            tools.list_changed = None;
        }
        Ok(info)
    }

    async fn discover(&self, _context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        Ok(DiscoverResult::from_server_info(self.supported_protocol_versions().into_owned(), self.get_info())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let mut versions = self.web.app.engine.hub.subscribe();
        let mut told = self.offered();
        loop {
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return Ok(()) },
                () = subscription.cancelled() => return Ok(()),
                () = self.web.draining.cancelled() => return Ok(()),
            }
            let now = self.offered();
            if now == told {
                continue;
            }
            told = now;
            let wanted = subscription.accepted().tools_list_changed == Some(true);
            if wanted && subscription.sink().notify_tool_list_changed().await.is_err() {
                return Ok(());
            }
        }
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
        let headers = context.extensions.get::<Parts>().map(|parts| &parts.headers);
        let request_id = headers.map(id_of).unwrap_or_default();
        let traced = telemetry::serve_tool(&request.name, headers, &context.meta);
        let input = Value::Object(request.arguments.unwrap_or_default());
        let call = search::meant(&ToolCall { id: String::new(), name: request.name.to_string(), input });
        let caller = context.extensions.get::<Parts>().and_then(|parts| parts.extensions.get::<Caller>());
        let caller = caller.map_or_else(String::new, |caller| caller.address.to_string());
        let run = self.run(&call, &caller, &context).instrument(traced.clone());
        let Some(output) = logging::of_request(request_id, run).await else {
            telemetry::failed(&traced, "unknown_tool");
            return Err(ErrorData::invalid_params(
                format!("there is no tool {}, or its calls are not allowed here", call.name),
                None,
            ));
        };
        if output.is_error {
            telemetry::failed(&traced, output.outcome);
        }
        Ok(offered::result(output, self.web.app.settings.max_result_bytes).into())
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
        tokio::select! {
            found = self.web.app.engine.hub.read(request) => found,
            () = context.ct.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
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
        tokio::select! {
            found = self.web.app.engine.hub.prompt(request) => found,
            () = context.ct.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
        }
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        self.web.app.engine.hub.complete(request).await
    }
}

//! /mcp: the fleet as one MCP server. Every tool of every server that is up, under the name that the model knows it by, for
//! any MCP client of either era. Token, rate limit, circuits, timeouts, caps and metrics are those of a turn; asking the user
//! is the client's business, which the annotations are passed on for. Stateless, so that any replica can answer: clients of
//! the modern era hear of changes by subscriptions/listen, earlier ones ask again.

use std::{ops::Bound, sync::Arc, time::Instant};

use axum::{
    body::to_bytes,
    extract::Request,
    http::{StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_server::json_rpc;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, DiscoverResult, Implementation,
        InitializeRequestParams, InitializeResult, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
        SubscriptionFilter, Tool,
    },
    service::{RequestContext, SubscriptionContext},
    transport::{StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager},
};
use serde_json::Value;
use tracing::Instrument;

use super::{
    Web,
    problem::{Problem, id_of},
};
use crate::{
    config::settings::Approvals,
    logging,
    telemetry::{self, Traced},
    tools::{catalogue::ToolSpec, connection::MAX_RESULT, hub::ToolOutput, sanitize::clean_json},
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
    json_rpc::run(parts, body, async |request| next.run(request).await).await
}

impl Gateway {
    /// Whether calls of it are made at all. `ask` leaves the asking to the client, which sees what the tool says of itself.
    fn offers(&self, spec: &ToolSpec) -> bool {
        !(spec.destructive && self.web.app.settings.approvals == Approvals::Never)
    }

    /// What is offered now: a change of it is worth telling.
    fn offered(&self) -> Vec<(String, String)> {
        let catalogue = self.web.app.engine.hub.catalogue();
        catalogue.iter().filter(|spec| self.offers(spec)).map(|spec| (spec.name.clone(), spec.hash.clone())).collect()
    }

    async fn run(&self, name: &str, input: &Value, context: &RequestContext<RoleServer>) -> Option<ToolOutput> {
        let hub = &self.web.app.engine.hub;
        let spec = hub.catalogue().get(name).cloned();
        if spec.as_ref().is_some_and(|spec| !self.offers(spec)) {
            return None;
        }
        if spec.is_none() && !hub.may_return(name) {
            return None;
        }
        let began = Instant::now();
        let (server, tool) = spec.as_ref().map_or(("", "unknown"), |spec| (spec.server.as_str(), spec.tool.as_str()));
        let traced = Traced::execute_tool(server, tool, None);
        let output = tokio::select! {
            output = hub.call(name, input).instrument(traced.span()) => output,
            () = context.ct.cancelled() => ToolOutput {
                text: "cancelled before it had a result".to_owned(),
                is_error: true,
                structured: None,
                outcome: "cancelled",
                duration: began.elapsed(),
            },
        };
        traced.executed(&output);
        self.web.app.engine.metrics.tool_call(server, tool, output.outcome, output.duration);
        tracing::info!(
            duration_seconds = output.duration.as_secs_f64(),
            tools_used = name,
            outcome = output.outcome,
            "Tool call over /mcp completed"
        );
        Some(output)
    }
}

impl ServerHandler for Gateway {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("mcpfleet-chat-worker", env!("CARGO_PKG_VERSION")).with_title("mcpfleet"))
            .with_instructions(INSTRUCTIONS)
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
        let cursor = request.and_then(|request| request.cursor);
        let start = cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let catalogue = self.web.app.engine.hub.catalogue();
        let mut tools = catalogue.after(start).filter(|spec| self.offers(spec));
        let page: Vec<Tool> = tools.by_ref().take(TOOLS_A_PAGE).map(|spec| tool(spec)).collect();
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
        let run = self.run(&request.name, &input, &context).instrument(traced.clone());
        let Some(output) = logging::of_request(request_id, run).await else {
            telemetry::failed(&traced, "unknown_tool");
            return Err(ErrorData::invalid_params(format!("there is no tool {}", request.name), None));
        };
        if output.is_error {
            telemetry::failed(&traced, output.outcome);
        }
        let told = vec![ContentBlock::text(output.text)];
        let mut result = if output.is_error { CallToolResult::error(told) } else { CallToolResult::success(told) };
        result.structured_content = output.structured.and_then(|structured| clean_json(&structured, MAX_RESULT));
        Ok(result.into())
    }
}

/// As its server describes it, cleaned, and under the name that is offered. No output schema is promised: a structured result that is too
/// large is left out.
fn tool(spec: &ToolSpec) -> Tool {
    // ToolSpec makes every schema an object.
    let schema = serde_json::from_str(spec.input_schema.get()).unwrap_or_default();
    let mut tool = Tool::new(spec.name.clone(), spec.description.clone(), Arc::new(schema));
    tool.title.clone_from(&spec.title);
    tool.annotations.clone_from(&spec.annotations);
    tool
}

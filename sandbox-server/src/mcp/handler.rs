//! The protocol's requests as the SDK hands them over: lists, resources, the prompt, completion, subscriptions, and tools, which mcp/call.rs
//! runs.

use std::sync::Arc;

use http_server::json_rpc::misfit;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, CompletionInfo, CustomRequest,
    CustomResult, DiscoverResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, InitializeRequestParams,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Reference,
    ServerConfig, SubscribeRequestMethod, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestMethod,
    UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::call::Caller;
use super::events::Events;
use super::resources::Target;
use super::tools::ToolCall;
use super::{SqliteMcp, arguments, prompt, resources, tools};
use crate::db::error::DbError;
use crate::db::limits::CallBudget;
use crate::db::schema;
use crate::db::turns::Caller as Who;
use crate::telemetry::Origin;

/// How long a client may keep what changes only with the version of this server.
const STATIC_TTL_MS: u64 = 300_000;

/// How long a client may keep a list of tables.
const SCHEMA_TTL_MS: u64 = 5_000;

/// Resources on one page of the list.
const RESOURCES_A_PAGE: usize = 200;

impl SqliteMcp {
    fn scope() -> CacheScope {
        // What this server shows may depend on a token, and is never for caches between people.
        CacheScope::Private
    }

    fn budget(&self, context: &RequestContext<RoleServer>) -> CallBudget {
        self.shared.db.budget().of(who(context))
    }

    /// Answers a request as a part of its caller's trace. Calls of tools have more to tell of themselves.
    async fn traced<T>(
        &self,
        method: &'static str,
        context: &RequestContext<RoleServer>,
        answer: impl Future<Output = Result<T, ErrorData>>,
    ) -> Result<T, ErrorData> {
        let mut span = self.shared.settings.telemetry.as_ref().map(|telemetry| telemetry.begin(method, None, origin(context)));
        let result = answer.await;
        if let (Some(span), Err(error)) = (&mut span, &result) {
            // As the SDK is going to answer.
            let modern =
                context.protocol_version().is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
            let renamed = modern && error.code == ErrorCode::RESOURCE_NOT_FOUND;
            span.refused(if renamed { ErrorCode::INVALID_PARAMS.0 } else { error.code.0 });
        }
        result
    }
}

/// Who asks.
fn origin(context: &RequestContext<RoleServer>) -> Origin<'_> {
    Origin { headers: context.extensions.get::<http::request::Parts>().map(|parts| &parts.headers), meta: &context.meta }
}

/// Whose share of the database's threads a request uses: the door has said it.
fn who(context: &RequestContext<RoleServer>) -> Who {
    let said = context.extensions.get::<http::request::Parts>().and_then(|parts| parts.extensions.get::<Who>());
    said.copied().unwrap_or(Who::OWN)
}

/// A failure of the server's own, for requests that have no tool result to put it into.
fn internal(error: &DbError) -> ErrorData {
    match error {
        DbError::NoSuchTable(table) => ErrorData::resource_not_found(format!("no such table: {table}"), None),
        other => ErrorData::internal_error(other.to_string(), None),
    }
}

impl ServerHandler for SqliteMcp {
    fn get_info(&self) -> ServerConfig {
        self.shared.info.clone()
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        self.traced("initialize", &context, async {
            context.peer.set_peer_info(request.clone());
            let mut info = self.negotiate_initialize(&request)?;
            if !self.shared.settings.sessions
                && let Some(resources) = &mut info.capabilities.resources
            {
                // Without a session there is no way to tell a client of an earlier era.
                resources.subscribe = None;
                resources.list_changed = None;
            }
            Ok(info)
        })
        .await
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let (shared, watched) = (Arc::clone(&self.shared), Arc::clone(&self.watched));
        tokio::spawn(async move { shared.events.follow(context.peer, watched).await });
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(Events::acceptable(requested))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        self.shared.events.listen(context).await
    }

    async fn subscribe(&self, request: SubscribeRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.traced("resources/subscribe", &context, async {
            if !self.shared.settings.sessions {
                return Err(ErrorData::method_not_found::<SubscribeRequestMethod>());
            }
            self.watched.add(request.uri)
        })
        .await
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.traced("resources/unsubscribe", &context, async {
            if !self.shared.settings.sessions {
                return Err(ErrorData::method_not_found::<UnsubscribeRequestMethod>());
            }
            self.watched.remove(&request.uri);
            Ok(())
        })
        .await
    }

    async fn discover(&self, context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        self.traced("server/discover", &context, async {
            Ok(DiscoverResult::from_server_info(self.supported_protocol_versions().into_owned(), self.get_info())
                .with_ttl_ms(STATIC_TTL_MS)
                .with_cache_scope(Self::scope()))
        })
        .await
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.traced("tools/list", &context, async {
            Ok(ListToolsResult {
                ttl_ms: Some(STATIC_TTL_MS),
                cache_scope: Some(Self::scope()),
                ..ListToolsResult::with_all_items(self.shared.tools.clone())
            })
        })
        .await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = tools::known(&request.name) else {
            let error = ErrorData::invalid_params(format!("no tool named {}", request.name), None);
            return self.traced("tools/call", &context, async { Err(error) }).await;
        };
        let caller = Caller { origin: origin(&context), peer: Some(&context.peer), gone: &context.ct, who: who(&context) };
        let arguments = arguments::unwrapped(request.arguments);
        self.call(tool, ToolCall::read(tool, arguments.as_deref()), &caller).await.map(Into::into)
    }

    /// The SDK hands over what it could not read as a request that it knows: an unknown method, or a known one with parameters of a
    /// wrong shape.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let is_modern = context.protocol_version().is_some_and(|version| !version.has_initialize());
        let error = match misfit(&request.method, request.params.as_ref(), is_modern) {
            Some(told) => ErrorData::invalid_params(told, None),
            None => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method.clone(), None),
        };
        self.traced("custom", &context, async { Err(error) }).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.traced("resources/list", &context, async {
            let offset = match request.and_then(|request| request.cursor) {
                None => 0,
                Some(cursor) => cursor
                    .parse::<usize>()
                    .map_err(|_| ErrorData::invalid_params("the cursor is not one of this server", None))?,
            };
            let all = self.shared.db.inspect(self.budget(&context), resources::list).await.map_err(|error| internal(&error))?;
            let next = offset.saturating_add(RESOURCES_A_PAGE);
            let next_cursor = (next < all.len()).then(|| next.to_string());
            let page = all.into_iter().skip(offset).take(RESOURCES_A_PAGE).collect();
            Ok(ListResourcesResult {
                next_cursor,
                ttl_ms: Some(SCHEMA_TTL_MS),
                cache_scope: Some(Self::scope()),
                ..ListResourcesResult::with_all_items(page)
            })
        })
        .await
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        self.traced("resources/templates/list", &context, async {
            let templates = vec![resources::template()];
            Ok(ListResourceTemplatesResult {
                ttl_ms: Some(STATIC_TTL_MS),
                cache_scope: Some(Self::scope()),
                ..ListResourceTemplatesResult::with_all_items(templates)
            })
        })
        .await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.traced("resources/read", &context, async {
            let Some(target) = Target::parse(&request.uri) else {
                return Err(ErrorData::resource_not_found(
                    format!("no resource {}; there are memo://insights, schema://tables and schema://tables/NAME", request.uri),
                    None,
                ));
            };
            let uri = request.uri;
            let contents = self
                .shared
                .db
                .inspect(self.budget(&context), move |conn| target.read(conn, &uri))
                .await
                .map_err(|error| internal(&error))?;
            let mut result = ReadResourceResult::new(vec![contents]);
            result.ttl_ms = Some(0);
            result.cache_scope = Some(Self::scope());
            Ok(result.into())
        })
        .await
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        self.traced("prompts/list", &context, async {
            Ok(ListPromptsResult {
                ttl_ms: Some(STATIC_TTL_MS),
                cache_scope: Some(Self::scope()),
                ..ListPromptsResult::with_all_items(vec![prompt::definition()])
            })
        })
        .await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        self.traced("prompts/get", &context, async { prompt::get(&request).map(Into::into) }).await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        self.traced("completion/complete", &context, async {
            let wanted = match &request.r#ref {
                Reference::Resource(template) => template.uri == resources::TABLE_TEMPLATE && request.argument.name == "table",
                _ => false,
            };
            if !wanted {
                return Ok(CompleteResult::default());
            }
            let prefix = request.argument.value.to_lowercase();
            let tables = self.shared.db.inspect(self.budget(&context), schema::tables).await.map_err(|error| internal(&error))?;
            let mut names: Vec<_> =
                tables.into_iter().map(|table| table.name).filter(|name| name.to_lowercase().starts_with(&prefix)).collect();
            let total = names.len();
            names.truncate(CompletionInfo::MAX_VALUES);
            let mut info = CompletionInfo::default();
            info.has_more = Some(total > names.len());
            info.total = u32::try_from(total).ok();
            info.values = names;
            Ok(CompleteResult::new(info))
        })
        .await
    }
}

//! The protocol's requests as the SDK hands them over: lists, resources, the prompt, completion, subscriptions, and tools, which mcp/call.rs
//! runs.

use std::sync::Arc;

use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, CompletionInfo, DiscoverResult,
    GetPromptRequestParams, GetPromptResponse, InitializeRequestParams, InitializeResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Reference, ServerConfig, SubscribeRequestMethod, SubscribeRequestParams,
    SubscriptionFilter, UnsubscribeRequestMethod, UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::call::Caller;
use super::events::Events;
use super::resources::Target;
use super::{SqliteMcp, prompt, resources, tools};
use crate::db::error::DbError;
use crate::db::schema;

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

    async fn subscribe(&self, request: SubscribeRequestParams, _context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        if !self.shared.settings.sessions {
            return Err(ErrorData::method_not_found::<SubscribeRequestMethod>());
        }
        self.watched.add(request.uri)
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if !self.shared.settings.sessions {
            return Err(ErrorData::method_not_found::<UnsubscribeRequestMethod>());
        }
        self.watched.remove(&request.uri);
        Ok(())
    }

    async fn discover(&self, _context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        Ok(DiscoverResult::from_server_info(self.supported_protocol_versions().into_owned(), self.get_info())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(Self::scope()))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult {
            ttl_ms: Some(STATIC_TTL_MS),
            cache_scope: Some(Self::scope()),
            ..ListToolsResult::with_all_items(self.shared.tools.clone())
        })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = tools::known(&request.name) else {
            return Err(ErrorData::invalid_params(format!("no tool named {}", request.name), None));
        };
        let caller = Caller {
            headers: context.extensions.get::<http::request::Parts>().map(|parts| &parts.headers),
            meta: &context.meta,
            peer: Some(&context.peer),
            gone: &context.ct,
        };
        Ok(self.call(tool, request.arguments, &caller).await.into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let offset = match request.and_then(|request| request.cursor) {
            None => 0,
            Some(cursor) => {
                cursor.parse::<usize>().map_err(|_| ErrorData::invalid_params("the cursor is not one of this server", None))?
            }
        };
        let all = self.shared.db.inspect(self.shared.db.budget(), resources::list).await.map_err(|error| internal(&error))?;
        let next = offset.saturating_add(RESOURCES_A_PAGE);
        let next_cursor = (next < all.len()).then(|| next.to_string());
        let page = all.into_iter().skip(offset).take(RESOURCES_A_PAGE).collect();
        Ok(ListResourcesResult {
            next_cursor,
            ttl_ms: Some(SCHEMA_TTL_MS),
            cache_scope: Some(Self::scope()),
            ..ListResourcesResult::with_all_items(page)
        })
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let templates = vec![resources::template()];
        Ok(ListResourceTemplatesResult {
            ttl_ms: Some(STATIC_TTL_MS),
            cache_scope: Some(Self::scope()),
            ..ListResourceTemplatesResult::with_all_items(templates)
        })
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
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
            .inspect(self.shared.db.budget(), move |conn| target.read(conn, &uri))
            .await
            .map_err(|error| internal(&error))?;
        let mut result = ReadResourceResult::new(vec![contents]);
        result.ttl_ms = Some(0);
        result.cache_scope = Some(Self::scope());
        Ok(result.into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult {
            ttl_ms: Some(STATIC_TTL_MS),
            cache_scope: Some(Self::scope()),
            ..ListPromptsResult::with_all_items(vec![prompt::definition()])
        })
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompt::get(&request).map(Into::into)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let wanted = match &request.r#ref {
            Reference::Resource(template) => template.uri == resources::TABLE_TEMPLATE && request.argument.name == "table",
            _ => false,
        };
        if !wanted {
            return Ok(CompleteResult::default());
        }
        let prefix = request.argument.value.to_lowercase();
        let tables = self.shared.db.inspect(self.shared.db.budget(), schema::tables).await.map_err(|error| internal(&error))?;
        let mut names: Vec<_> =
            tables.into_iter().map(|table| table.name).filter(|name| name.to_lowercase().starts_with(&prefix)).collect();
        let total = names.len();
        names.truncate(CompletionInfo::MAX_VALUES);
        let mut info = CompletionInfo::default();
        info.has_more = Some(total > names.len());
        info.total = u32::try_from(total).ok();
        info.values = names;
        Ok(CompleteResult::new(info))
    }
}

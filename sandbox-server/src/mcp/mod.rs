//! The MCP server: runs the tools, resources and the prompt on the database. Both protocol eras and both transports share it; how
//! requests arrive is http/ and main.rs.

pub mod error;
pub mod events;
pub mod portable;
pub mod prompt;
pub mod render;
pub mod resources;
pub mod tools;
pub mod types;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::HeaderMap;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult, CompletionInfo,
    ContentBlock, DiscoverResult, GetPromptRequestParams, GetPromptResponse, Implementation, InitializeRequestParams,
    InitializeResult, JsonObject, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    Reference, RequestMetaObject, ServerCapabilities, ServerConfig, SubscribeRequestMethod, SubscribeRequestParams,
    SubscriptionFilter, Tool, UnsubscribeRequestMethod, UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, Peer, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::db::Database;
use crate::db::error::DbError;
use crate::db::limits::CallBudget;
use crate::db::query::Parameters;
use crate::db::schema;
use crate::db::writer::{Command, WriteOutcome};
use crate::metrics::Metrics;
use events::{Change, Events, Watched};
use resources::Target;
use tools::{ToolCall, Unreadable};
use types::{Done, QueryResult, SearchResult, TableList, WriteResult};

/// How often a client that asked for it is told that its statement still runs.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How long a client may keep what changes only with the version of this server.
const STATIC_TTL_MS: u64 = 300_000;

/// How long a client may keep a list of tables.
const SCHEMA_TTL_MS: u64 = 5_000;

/// Resources on one page of the list.
const RESOURCES_A_PAGE: usize = 200;

/// Matches that search_schema shows.
const MAX_MATCHES: usize = 200;

/// The handler of every request. Cheap to make: rmcp takes one for each request, or each session.
#[derive(Debug, Clone)]
pub struct SqliteMcp {
    shared: Arc<Shared>,
    /// Of this session; requests without one have an empty set.
    watched: Arc<Watched>,
}

/// What main.rs decides about the handler.
#[derive(Debug, Clone, Copy, Default)]
pub struct HandlerSettings {
    /// Clients of earlier eras keep a session, through which they can be told of changes.
    pub sessions: bool,
    /// Write the audit log.
    pub audit: bool,
}

#[derive(Debug)]
struct Shared {
    db: Database,
    metrics: Metrics,
    settings: HandlerSettings,
    events: Events,
    requests: AtomicU64,
    tools: Vec<Tool>,
    info: ServerConfig,
}

/// Who calls: what the call came with, and how its caller is told of progress or goes away.
struct Caller<'a> {
    /// None on standard input.
    headers: Option<&'a HeaderMap>,
    meta: &'a RequestMetaObject,
    /// None: the caller asked for no progress.
    peer: Option<&'a Peer<RoleServer>>,
    gone: &'a CancellationToken,
}

/// A tool's answer before it is put into the protocol's shape.
struct Answer {
    text: String,
    structured: Value,
    rows: usize,
}

impl Answer {
    fn new(text: String, structured: &impl Serialize) -> Self {
        // Our result types are maps with string keys; serialising them cannot fail.
        Self { text, structured: serde_json::to_value(structured).unwrap_or_default(), rows: 0 }
    }
}

impl SqliteMcp {
    /// A handler over an open database. Subscriptions end when `stop` is cancelled.
    pub fn new(db: Database, metrics: Metrics, settings: HandlerSettings, stop: CancellationToken) -> Self {
        let read_only = db.options().read_only;
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_prompts()
            .enable_completions()
            .build();
        let info = ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("sandbox-server", env!("CARGO_PKG_VERSION")).with_title("SQLite sandbox"))
            .with_instructions(instructions(read_only));
        let shared = Shared {
            db,
            metrics,
            settings,
            events: Events::new(stop),
            requests: AtomicU64::new(0),
            tools: tools::definitions(read_only),
            info,
        };
        Self { shared: Arc::new(shared), watched: Arc::default() }
    }

    /// A handler for another session over the same database.
    pub fn for_another_session(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), watched: Arc::default() }
    }

    async fn run(&self, call: ToolCall, budget: CallBudget) -> Result<Answer, DbError> {
        let db = &self.shared.db;
        match call {
            ToolCall::Read(args) => {
                let max_rows = args.max_rows.map(|rows| rows as usize);
                let page = db.read(budget, args.query, args.params.into(), max_rows, args.cursor).await?;
                self.shared.metrics.bytes.inc_by(page.set.bytes as u64);
                let mut result = QueryResult::whole(page.set);
                result.next_cursor = page.next_cursor;
                result.changed_between_pages = page.changed_between_pages;
                Ok(self.rows(result))
            }
            ToolCall::Write(args) => self.write(budget, args.query, args.params.into()).await,
            ToolCall::Create(args) => {
                db.write(budget, Command::Create { sql: args.query }).await?;
                self.shared.events.announce(Change::Schema);
                Ok(done("Created."))
            }
            ToolCall::Insight(args) if args.insight.trim().is_empty() => Err(DbError::Parameters("the insight is empty".into())),
            ToolCall::Insight(args) => {
                db.write(budget, Command::Insight(args.insight)).await?;
                self.shared.events.announce(Change::Memo);
                Ok(done("Insight added to the memo."))
            }
            ToolCall::ListTables => {
                let list = TableList { tables: db.inspect(budget, schema::tables).await? };
                Ok(Answer::new(render::tables(&list), &list))
            }
            ToolCall::Describe(args) => {
                let table = db.inspect(budget, move |conn| schema::describe(conn, &args.table_name)).await?;
                Ok(Answer::new(render::description(&table), &table))
            }
            ToolCall::Explain(args) => Ok(self.rows(QueryResult::whole(db.explain(budget, args.query).await?))),
            ToolCall::Search(args) => {
                let result = SearchResult {
                    matches: db.inspect(budget, move |conn| schema::search(conn, &args.text, MAX_MATCHES)).await?,
                };
                Ok(Answer::new(render::search(&result), &result))
            }
        }
    }

    fn rows(&self, result: QueryResult) -> Answer {
        self.shared.metrics.rows.inc_by(result.row_count as u64);
        Answer { text: render::query(&result), rows: result.row_count, structured: result.into_value() }
    }

    async fn write(&self, budget: CallBudget, sql: String, parameters: Parameters) -> Result<Answer, DbError> {
        let limits = self.shared.db.limits();
        let page = crate::db::query::Page { offset: 0, max_rows: limits.max_rows, max_bytes: limits.max_result_bytes };
        let WriteOutcome { rows_affected, last_insert_rowid, returned } =
            self.shared.db.write(budget, Command::Change { sql, parameters, page }).await?;
        let result = WriteResult { affected_rows: rows_affected, last_insert_rowid, returned: returned.map(QueryResult::whole) };
        Ok(Answer::new(render::write(&result), &result))
    }

    /// The error as a tool result that helps to mend the SQL.
    async fn tool_error(&self, error: &DbError, sql: &str) -> CallToolResult {
        let names = if error::wants_names(error) {
            // Without the names the message is shorter, not wrong.
            self.shared.db.inspect(self.shared.db.budget(), error::Names::read).await.unwrap_or_default()
        } else {
            error::Names::default()
        };
        CallToolResult::error(vec![ContentBlock::text(error::explain(error, sql, &names))])
    }

    /// Runs a call, tells of its progress, and stops it when the client cancels or hangs up.
    async fn run_to_the_end(&self, call: ToolCall, caller: &Caller<'_>) -> Result<Answer, DbError> {
        let budget = self.shared.db.budget();
        let mut run = std::pin::pin!(self.run(call, budget.clone()));
        let told = caller.peer.zip(caller.meta.get_progress_token());
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        loop {
            tokio::select! {
                result = &mut run => return result,
                () = caller.gone.cancelled() => {
                    budget.cancel();
                    return run.await;
                }
                _ = tick.tick(), if told.is_some() => {
                    let Some((peer, token)) = told.clone() else { continue };
                    let total = (budget.deadline - budget.started).as_secs_f64();
                    let progress = budget.started.elapsed().as_secs_f64();
                    let message = format!("running for {progress:.0} s of at most {total:.0} s");
                    // A client that cannot be told is found out by the answer.
                    let _ = peer.notify_progress(ProgressNotificationParam::new(token, progress).with_total(total).with_message(message)).await;
                }
            }
        }
    }

    /// Runs a call to its end, whatever becomes of the caller: then the statement is stopped, but still counted and logged.
    pub(crate) async fn call_apart(
        &self,
        tool: &'static str,
        arguments: Option<JsonObject>,
        meta: RequestMetaObject,
        headers: HeaderMap,
    ) -> CallToolResult {
        let gone = CancellationToken::new();
        let (handler, seen) = (self.clone(), gone.clone());
        let call = async move {
            let caller = Caller { headers: Some(&headers), meta: &meta, peer: None, gone: &seen };
            handler.call(tool, arguments, &caller).await
        };
        ToTheEnd { call: Some(Box::pin(call)), gone }.await
    }

    /// One call of a known tool: read, run, counted, logged.
    async fn call(&self, tool: &'static str, arguments: Option<JsonObject>, caller: &Caller<'_>) -> CallToolResult {
        let started = Instant::now();
        let metrics = &self.shared.metrics;
        let call = match ToolCall::read(tool, arguments) {
            Ok(call) => call,
            Err(unreadable) => {
                let text = match unreadable {
                    Unreadable::Arguments(text) => text,
                    Unreadable::UnknownTool => format!("no tool named {tool}"),
                };
                metrics.finished(tool, "bad_arguments", started.elapsed().as_secs_f64());
                return CallToolResult::error(vec![ContentBlock::text(text)]);
            }
        };
        let sql = call.sql().to_owned();
        metrics.in_flight.inc();
        let result = self.run_to_the_end(call, caller).await;
        metrics.in_flight.dec();
        let (outcome, rows) = match &result {
            Ok(answer) => ("ok", answer.rows),
            Err(error) => (outcome(error), 0),
        };
        let duration = started.elapsed();
        metrics.finished(tool, outcome, duration.as_secs_f64());
        if self.shared.settings.audit {
            let (request, trace) = (self.request_id(caller), trace_id(caller));
            audit::Entry { tool, sql: &sql, outcome, took: duration, rows, request: &request, trace: &trace }.write();
        }
        match result {
            Ok(answer) => {
                let mut result = CallToolResult::success(vec![ContentBlock::text(answer.text)]);
                result.structured_content = Some(answer.structured);
                result
            }
            Err(error) => self.tool_error(&error, &sql).await,
        }
    }

    /// The caller's own request id when it sent one, else a number since the start.
    fn request_id(&self, caller: &Caller<'_>) -> String {
        let sent = caller.headers.and_then(|headers| headers.get("x-request-id")).and_then(|id| id.to_str().ok());
        match sent {
            Some(id) => id.chars().filter(char::is_ascii_graphic).take(64).collect(),
            None => self.shared.requests.fetch_add(1, Ordering::Relaxed).to_string(),
        }
    }

    fn scope() -> CacheScope {
        // What this server shows may depend on a token, and is never for caches between people.
        CacheScope::Private
    }
}

/// A call that goes on by itself, told that its caller is gone, when it is dropped before its end. A task of its own from the start would
/// cost each call that is not dropped a way through the scheduler.
struct ToTheEnd<F: Future<Output: Send> + Send + 'static> {
    call: Option<Pin<Box<F>>>,
    gone: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Future for ToTheEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let result = ready!(call.as_mut().poll(context));
        self.call = None;
        Poll::Ready(result)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for ToTheEnd<F> {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let (Some(call), Ok(runtime)) = (self.call.take(), Handle::try_current()) {
            self.gone.cancel();
            runtime.spawn(call);
        }
    }
}

fn done(message: &str) -> Answer {
    Answer::new(message.to_owned(), &Done { message: message.to_owned() })
}

fn instructions(read_only: bool) -> &'static str {
    if read_only {
        "A SQLite database that can only be read. Begin with list_tables and describe_table, then use read_query with values in params."
    } else {
        "A SQLite database. Begin with list_tables and describe_table. Use read_query to read, write_query to change rows, create_table to create tables and indexes; \
         one statement a call, values in params. Each call is a transaction of its own."
    }
}

/// The label of a finished call in the metrics.
fn outcome(error: &DbError) -> &'static str {
    match error {
        DbError::Sqlite(_) | DbError::NoSuchTable(_) => "sql_error",
        DbError::Denied(_) | DbError::WrongKind(_) => "denied",
        DbError::Parameters(_) | DbError::Cursor(_) => "bad_arguments",
        DbError::Timeout(_) => "timeout",
        DbError::Cancelled => "cancelled",
        DbError::RowTooLarge(_) | DbError::ValueTooLarge { .. } => "too_large",
        DbError::Busy(_) => "busy",
        DbError::Closed => "closed",
    }
}

/// The trace that the caller is in, from `_meta` or the header: the second part of a W3C traceparent.
fn trace_id(caller: &Caller<'_>) -> String {
    let header = || caller.headers?.get("traceparent")?.to_str().ok();
    let meta = caller.meta.get("traceparent").and_then(Value::as_str);
    let trace = meta.or_else(header).and_then(|parent| parent.split('-').nth(1)).unwrap_or_default();
    if trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()) { trace.to_owned() } else { String::new() }
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

//! One call of a tool: read, run, stopped when its caller goes away, counted, logged. What the tools are is mcp/tools.rs, how calls arrive
//! is mcp/handler.rs and http/direct.rs.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use http::HeaderMap;
use http_server::request_id;
use rmcp::model::{CallToolResult, ContentBlock, ProgressNotificationParam, RequestMetaObject};
use rmcp::service::Peer;
use rmcp::{ErrorData, RoleServer};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::events::Change;
use super::tools::{ToolCall, Unreadable};
use super::types::{BatchResult, BatchStatement, Done, QueryResult, ReadArgs, SearchResult, TableList, WriteResult};
use super::{SqliteMcp, error, render};
use crate::audit;
use crate::db::error::DbError;
use crate::db::limits::CallBudget;
use crate::db::parameters::Parameters;
use crate::db::query::{self, Page};
use crate::db::schema;
use crate::db::turns::Caller as Who;
use crate::db::write::{BoundStatement, Command, Takes};
use crate::telemetry::Origin;

/// How often a client that asked for it is told that its statement still runs.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Matches that search_schema shows.
const MAX_MATCHES: usize = 200;

/// Who calls: what the call came with, and how its caller is told of progress or goes away.
pub(super) struct Caller<'a> {
    pub(super) origin: Origin<'a>,
    /// None: the caller asked for no progress.
    pub(super) peer: Option<&'a Peer<RoleServer>>,
    pub(super) gone: &'a CancellationToken,
    /// Whose share of the database's threads it uses.
    pub(super) who: Who,
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
    async fn run(&self, call: ToolCall, budget: CallBudget) -> Result<Answer, DbError> {
        let db = &self.shared.db;
        match call {
            ToolCall::Read(args) => self.read(budget, args).await,
            ToolCall::Write(args) => self.write(budget, args.query, args.params, Takes::Rows).await,
            ToolCall::Create(args) => self.write(budget, args.query, Parameters::None, Takes::Schema).await,
            ToolCall::ChangeSchema(args) => self.write(budget, args.query, Parameters::None, Takes::Schema).await,
            ToolCall::Any(args) => self.any(budget, args).await,
            ToolCall::Batch(args) => {
                let bound = |one: BatchStatement| BoundStatement { sql: one.query, parameters: one.params };
                let outcomes = db.write_batch(budget, args.statements.into_iter().map(bound).collect()).await?;
                if outcomes.iter().any(|outcome| outcome.schema) {
                    self.shared.events.announce(Change::Schema);
                }
                let result = BatchResult { results: outcomes.into_iter().map(WriteResult::from).collect() };
                Ok(Answer::new(render::batch(&result), &result))
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
                let mut matches = db.inspect(budget, move |conn| schema::search(conn, &args.text, MAX_MATCHES + 1)).await?;
                let truncated = matches.len() > MAX_MATCHES;
                matches.truncate(MAX_MATCHES);
                let result = SearchResult { matches, truncated };
                Ok(Answer::new(render::search(&result), &result))
            }
        }
    }

    fn rows(&self, result: QueryResult) -> Answer {
        self.shared.metrics.rows.inc_by(result.row_count as u64);
        Answer { text: render::query(&result), rows: result.row_count, structured: result.into_value() }
    }

    async fn read(&self, budget: CallBudget, args: ReadArgs) -> Result<Answer, DbError> {
        let max_rows = args.max_rows.map(|rows| rows as usize);
        let page = self.shared.db.read(budget, args.query, args.params, max_rows, args.cursor).await?;
        self.shared.metrics.bytes.inc_by(page.set.bytes as u64);
        let mut result = QueryResult::whole(page.set);
        result.next_cursor = page.next_cursor;
        result.changed_between_pages = page.changed_between_pages;
        Ok(self.rows(result))
    }

    async fn write(&self, budget: CallBudget, sql: String, parameters: Parameters, takes: Takes) -> Result<Answer, DbError> {
        let limits = self.shared.db.limits();
        let page = Page { offset: 0, max_rows: limits.max_rows, max_bytes: limits.max_result_bytes };
        let created = query::keyword(&sql) == "CREATE";
        let command = Command::Run { statement: BoundStatement { sql, parameters }, takes, page };
        let outcome = self.shared.db.write(budget, command).await?;
        if outcome.schema {
            self.shared.events.announce(Change::Schema);
            return Ok(done(if created { "Created." } else { "Done." }));
        }
        let result = WriteResult::from(outcome);
        Ok(Answer::new(render::write(&result), &result))
    }

    /// A statement of any kind. SQLite says whether it writes; the first word only saves it from being asked by a thread that reads.
    async fn any(&self, budget: CallBudget, args: ReadArgs) -> Result<Answer, DbError> {
        const WRITING: [&str; 10] =
            ["INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "ANALYZE", "REINDEX", "VACUUM"];
        let write = |args: ReadArgs| self.write(budget.clone(), args.query, args.params, Takes::Anything);
        if WRITING.contains(&query::keyword(&args.query).as_str()) {
            return write(args).await;
        }
        match self.read(budget.clone(), args.clone()).await {
            Err(DbError::Changes) => write(args).await,
            other => other,
        }
    }

    /// The error as a tool result that helps to mend the SQL.
    async fn tool_error(&self, error: &DbError, sql: &str, who: Who) -> CallToolResult {
        let names = if error::wants_names(error) {
            // Without the names the message is shorter, not wrong.
            self.shared.db.inspect(self.shared.db.budget().of(who), error::Names::read).await.unwrap_or_default()
        } else {
            error::Names::default()
        };
        let mut text = error::explain(error, sql, &names);
        if matches!(error, DbError::Timeout(_)) && !sql.is_empty() {
            // Without a plan the message is shorter, not wrong.
            text.push_str(&error::plan(
                &self.shared.db.advise(self.shared.db.budget().of(who), sql.to_owned()).await.unwrap_or_default(),
            ));
        }
        if error::says_damaged(error) {
            text.push_str(error::checked(self.shared.db.is_damaged(self.shared.db.budget().of(who)).await));
        }
        CallToolResult::error(vec![ContentBlock::text(text)])
    }

    /// Runs a call, tells of its progress, and stops it when the client cancels or hangs up.
    async fn run_to_the_end(&self, call: ToolCall, caller: &Caller<'_>) -> Result<Answer, DbError> {
        let budget = self.shared.db.budget().of(caller.who);
        let mut run = std::pin::pin!(self.run(call, budget.clone()));
        let told = caller.peer.zip(caller.origin.meta.get_progress_token());
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

    /// Whether anything of a call's `_meta` is looked at beyond its way in: traces are continued from it, and logged.
    pub(crate) fn looks_at_meta(&self) -> bool {
        self.shared.settings.telemetry.is_some() || self.shared.settings.audit
    }

    /// Runs a call to its end, whatever becomes of the caller: then the statement is stopped, but still counted and logged.
    pub(crate) fn call_apart(
        &self,
        tool: &'static str,
        call: Result<ToolCall, Unreadable>,
        meta: RequestMetaObject,
        headers: HeaderMap,
        who: Who,
    ) -> impl Future<Output = Result<CallToolResult, ErrorData>> + Send + use<> {
        // At the end of the time to drain nobody waits any longer.
        let gone = self.shared.end.child_token();
        let (handler, seen) = (self.clone(), gone.clone());
        let run = async move {
            // On standard input there are none.
            let origin = Origin { headers: Some(&headers).filter(|headers| !headers.is_empty()), meta: &meta };
            let caller = Caller { origin, peer: None, gone: &seen, who };
            handler.call(tool, call, &caller).await
        };
        ToTheEnd { call: Some(Box::pin(run)), gone }
    }

    /// One call of a known tool: run, counted, logged.
    pub(super) async fn call(
        &self,
        tool: &'static str,
        call: Result<ToolCall, Unreadable>,
        caller: &Caller<'_>,
    ) -> Result<CallToolResult, ErrorData> {
        let started = Instant::now();
        let metrics = &self.shared.metrics;
        let mut span = self.shared.settings.telemetry.as_ref().map(|telemetry| {
            let mut span = telemetry.begin("tools/call", Some(tool), caller.origin);
            span.tool(tool);
            span
        });
        let call = match call {
            Ok(call) => call,
            Err(unreadable) => {
                let text = match unreadable {
                    Unreadable::Arguments(text) => text,
                    Unreadable::UnknownTool => format!("no tool named {tool}"),
                };
                metrics.finished(tool, "bad_arguments", started.elapsed().as_secs_f64());
                if let Some(span) = &mut span {
                    span.called("bad_arguments", 0);
                }
                return Ok(CallToolResult::error(vec![ContentBlock::text(text)]));
            }
        };
        let sql = call.sql().into_owned();
        metrics.in_flight.inc();
        let result = caught(self.run_to_the_end(call, caller)).await;
        metrics.in_flight.dec();
        let (outcome, rows) = match &result {
            Ok(Ok(answer)) => ("ok", answer.rows),
            Ok(Err(error)) => (outcome(error), 0),
            Err(_) => ("panicked", 0),
        };
        let duration = started.elapsed();
        metrics.finished(tool, outcome, duration.as_secs_f64());
        if let Some(span) = &mut span {
            span.called(outcome, rows);
            if self.shared.settings.audit && !sql.is_empty() {
                span.statement(audit::without_values(&sql));
            }
        }
        if self.shared.settings.audit {
            let trace = span.as_ref().map_or_else(|| trace_id(caller), |span| span.trace().to_string());
            // On standard input a call has none of its own.
            let request = caller.origin.headers.map_or_else(request_id::new, |headers| request_id::of(headers).to_owned());
            audit::Entry { tool, sql: &sql, outcome, took: duration, rows, request: &request, trace: &trace }.write();
        }
        Ok(match result? {
            Ok(answer) => {
                let mut result = CallToolResult::success(vec![ContentBlock::text(answer.text)]);
                result.structured_content = Some(answer.structured);
                result
            }
            Err(error) => self.tool_error(&error, &sql, caller.who).await,
        })
    }
}

/// What a future gives; a panic in it, which the log has told of by then, is an error of the protocol, whichever way the call came.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, ErrorData> {
    let caught = AssertUnwindSafe(work).catch_unwind().await;
    caught.map_err(|_| ErrorData::internal_error("the server failed while it ran this call; its log says where", None))
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

/// The label of a finished call in the metrics.
fn outcome(error: &DbError) -> &'static str {
    match error {
        DbError::Sqlite(_) | DbError::NoSuchTable(_) | DbError::NoNumberLeft(_) => "sql_error",
        DbError::Denied(_) | DbError::Changes | DbError::WrongKind(_) => "denied",
        DbError::Parameters(_) | DbError::Cursor(_) => "bad_arguments",
        DbError::Timeout(_) => "timeout",
        DbError::Cancelled => "cancelled",
        DbError::RowTooLarge(_)
        | DbError::BatchTooLarge(_)
        | DbError::ValueTooLarge { .. }
        | DbError::SqlTooLong(_)
        | DbError::DatabaseFull(_)
        | DbError::TooMuchMemory => "too_large",
        DbError::InBatch { source, .. } => outcome(source),
        DbError::Busy(_) | DbError::GaveWay | DbError::Changing => "busy",
        DbError::Closed => "closed",
    }
}

/// The trace that the caller is in, from `_meta` or the header: the second part of a W3C traceparent.
fn trace_id(caller: &Caller<'_>) -> String {
    let header = || caller.origin.headers?.get("traceparent")?.to_str().ok();
    let meta = caller.origin.meta.get("traceparent").and_then(Value::as_str);
    let trace = meta.or_else(header).and_then(|parent| parent.split('-').nth(1)).unwrap_or_default();
    if trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()) { trace.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_protocol() {
        assert_eq!(caught(async { 5 }).await.unwrap(), 5);
        let panics = async {
            tokio::task::yield_now().await;
            "as a bug would".parse::<u8>().unwrap()
        };
        let error = caught(panics).await.unwrap_err();
        assert_eq!((error.code.0, error.data), (-32603, None));
    }
}

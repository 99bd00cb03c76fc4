//! The database as the rest of the program uses it: a handle that takes reads and writes and answers without blocking the caller's
//! thread. The parts: file (before it is opened), open (connections and their settings), reader and writer (threads), authorizer (what),
//! limits (how much), query, schema.

pub mod advice;
pub mod authorizer;
pub mod backup;
pub mod costly;
mod created;
pub mod error;
pub mod facts;
pub mod file;
pub mod functions;
pub mod limits;
mod line;
pub mod open;
pub mod pace;
pub mod parameters;
pub mod query;
pub mod reader;
pub mod regexp;
pub mod restore;
pub mod schema;
pub mod standing;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod turns;
pub mod upkeep;
pub mod write;
pub mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use advice::Advice;
use authorizer::{Permit, SchemaMode};
use error::{DbError, OpenError};
use file::FileState;
use limits::{CallBudget, Limits};
use open::{OpenOptions, Session};
use pace::Load;
use parameters::Parameters;
use query::{Cursor, Page, ResultSet};
use reader::Readers;
use write::{BoundStatement, Command, WriteOutcome};
use writer::{Writer, WriterStats};

/// After the deadline a statement stops at its next check. One that sits inside a single long function is answered for after this, and ends later.
const UNINTERRUPTIBLE_GRACE: Duration = Duration::from_millis(500);

/// An open database. Cheap to clone; `close` ends its threads.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    options: OpenOptions,
    created: bool,
    readers: Readers,
    writer: Option<Writer>,
    stats: Arc<WriterStats>,
    writer_thread: Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.0.options.path).finish_non_exhaustive()
    }
}

/// A page of a reading statement.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadPage {
    /// The rows.
    pub set: ResultSet,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<String>,
    /// Data was committed between the page before and this one: rows may be missing or twice.
    pub changed_between_pages: bool,
}

impl Database {
    /// Opens (or creates) the database and starts its threads.
    pub fn open(options: OpenOptions) -> Result<Self, OpenError> {
        Self::open_as_it_is(options).map_err(OpenError::confirmed)
    }

    fn open_as_it_is(options: OpenOptions) -> Result<Self, OpenError> {
        let file = file::inspect(&options.path)?;
        if (options.read_only || !options.create) && file == FileState::Absent {
            return Err(OpenError::Missing(options.path));
        }
        let stats = Arc::new(WriterStats::default());
        let load = Load::new(options.limits.max_memory_bytes);
        let (writer, writer_thread) = if options.read_only {
            (None, None)
        } else {
            let (writer, thread) = Writer::start(open::writer(&options)?, &options, Arc::clone(&stats), Arc::clone(&load))?;
            (Some(writer), Some(thread))
        };
        let readers = Readers::start(&options, load)?;
        Ok(Self(Arc::new(Inner {
            created: file == FileState::Absent,
            options,
            readers,
            writer,
            stats,
            writer_thread: Mutex::new(writer_thread),
            closed: AtomicBool::new(false),
        })))
    }

    /// Whether the file was made just now.
    pub fn was_created(&self) -> bool {
        self.0.created
    }

    /// How it was opened.
    pub fn options(&self) -> &OpenOptions {
        &self.0.options
    }

    /// The caps in force.
    pub fn limits(&self) -> &Limits {
        &self.0.options.limits
    }

    /// What the writer has done so far.
    pub fn writer_stats(&self) -> &WriterStats {
        &self.0.stats
    }

    /// Statements that wait for a reading and for the writing thread, and the number of reading threads.
    pub fn queue_lengths(&self) -> (usize, usize, usize) {
        (self.0.readers.waiting(), self.0.writer.as_ref().map_or(0, Writer::waiting), self.0.readers.threads())
    }

    /// A budget for one call of the server's own, from now; `of` makes it a caller's.
    pub fn budget(&self) -> CallBudget {
        CallBudget::starting_now(self.0.options.limits.statement_timeout)
    }

    /// Runs a reading statement and returns one page of it.
    pub async fn read(
        &self,
        budget: CallBudget,
        sql: String,
        parameters: Parameters,
        max_rows: Option<usize>,
        cursor: Option<String>,
    ) -> Result<ReadPage, DbError> {
        let limits = &self.0.options.limits;
        let generation = self.0.stats.commits.load(Ordering::Acquire);
        let from = match cursor {
            Some(cursor) => Cursor::decode(&cursor, &sql, &parameters)?,
            None => Cursor { offset: 0, generation },
        };
        let max_rows = max_rows.unwrap_or(limits.max_rows).clamp(1, limits.max_rows);
        let page = Page { offset: from.offset, max_rows, max_bytes: limits.max_result_bytes };
        let permit = if query::keyword(&sql) == "EXPLAIN" { self.explaining(&sql) } else { Permit::Read };
        self.run(permit, budget, move |session| {
            let read = || {
                let set = query::with_statement(session, &sql, &parameters, permit == Permit::Read, |statement, _| {
                    // EXPLAIN runs nothing, whatever it explains; and of the PRAGMAs that could write the gate lets through what reports.
                    if !statement.readonly() && statement.is_explain() == 0 && query::keyword(&sql) != "PRAGMA" {
                        return Err(DbError::Changes);
                    }
                    query::collect(statement, page)
                });
                session.explain_refusal(set)
            };
            let set = match read() {
                Err(DbError::Changes) if session.meet_virtual_tables()? => read()?,
                set => set?,
            };
            let next = Cursor { offset: from.offset + set.rows.len() as u64, generation };
            let next_cursor = set.more.then(|| next.encode(&sql, &parameters));
            Ok(ReadPage { set, next_cursor, changed_between_pages: from.generation != generation })
        })
        .await
    }

    /// What a statement may be that is explained and not run: whatever one that is run may be.
    fn explaining(&self, sql: &str) -> Permit {
        match (self.0.options.schema, query::keyword(query::explained(sql)).as_str()) {
            (SchemaMode::Full, "CREATE" | "ALTER" | "DROP" | "REINDEX" | "ANALYZE") => Permit::Schema,
            (SchemaMode::Add, "CREATE") => Permit::Create,
            _ => Permit::Write,
        }
    }

    /// The plan that SQLite would follow for a statement, which is not run.
    pub async fn explain(&self, budget: CallBudget, sql: String) -> Result<ResultSet, DbError> {
        const PREFIX: &str = "EXPLAIN QUERY PLAN ";
        let page = Page { offset: 0, max_rows: self.limits().max_rows, max_bytes: self.limits().max_result_bytes };
        self.run(self.explaining(&sql), budget, move |session| {
            let bare = query::explained(&sql);
            query::check_not_empty(bare)?;
            // Placeholders without values are explained as NULL.
            let explain = format!("{PREFIX}{bare}");
            let result = session.terms.run(&session.conn, &sql, || query::collect(&mut session.conn.prepare(&explain)?, page));
            result.map_err(|error| error.earlier_by(PREFIX.len()).later_by(sql.len() - bare.len()))
        })
        .await
    }

    /// Runs the server's own reading work, on the schema or on files beside the database. It may be begun more than once.
    pub async fn inspect<T: Send + 'static>(
        &self,
        budget: CallBudget,
        mut work: impl FnMut(&rusqlite::Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.run(Permit::Internal, budget, move |session| session.terms.wide(&session.conn, || work(&session.conn))?).await
    }

    /// Whether statements can be answered: a query through a reading thread, a writer that is alive, and a disk that takes what it writes.
    pub async fn check(&self) -> Result<(), DbError> {
        let writer = self.0.writer_thread.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(JoinHandle::is_finished);
        if writer == Some(true) {
            return Err(DbError::Closed);
        }
        if self.0.stats.disk_full.load(Ordering::Relaxed) {
            self.submit_write(self.budget(), Command::Probe).await?;
        }
        self.inspect(self.budget(), |conn| {
            Ok(conn.prepare_cached("SELECT count(*) FROM sqlite_schema")?.query_row([], |_| Ok(()))?)
        })
        .await
    }

    /// The plan of a statement, and the indexes that it would use if they were there.
    pub async fn advise(&self, budget: CallBudget, sql: String) -> Result<Advice, DbError> {
        self.inspect(budget, move |conn| advice::advise(conn, query::explained(&sql))).await
    }

    /// What an integrity check says of the file. None: it was not over in the time of a statement.
    pub async fn is_damaged(&self, budget: CallBudget) -> Option<bool> {
        match self.inspect(budget, |conn| Ok(open::is_damaged(conn)?)).await {
            Ok(damaged) => Some(damaged),
            Err(DbError::Sqlite(_)) => Some(true),
            Err(_) => None,
        }
    }

    /// Writes what is one statement. The answer comes when the change is on disk, also when the caller has stopped waiting.
    pub async fn write(&self, budget: CallBudget, command: Command) -> Result<WriteOutcome, DbError> {
        Ok(self.submit_write(budget, command).await?.pop().unwrap_or_default())
    }

    /// Writes several statements, of which all are kept or none. One outcome for each.
    pub async fn write_batch(&self, budget: CallBudget, statements: Vec<BoundStatement>) -> Result<Vec<WriteOutcome>, DbError> {
        let page = Page { offset: 0, max_rows: self.limits().max_rows, max_bytes: self.limits().max_result_bytes };
        self.submit_write(budget, Command::Batch { statements, page }).await
    }

    async fn submit_write(&self, budget: CallBudget, command: Command) -> Result<Vec<WriteOutcome>, DbError> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(DbError::Closed);
        }
        let writer = self
            .0
            .writer
            .as_ref()
            .ok_or_else(|| DbError::Denied("not allowed: this server was started with --read-only".into()))?;
        // No early answer at the deadline: "timed out" must mean that nothing was written.
        writer.submit(command, budget)?.await.unwrap_or(Err(DbError::Closed))
    }

    async fn run<T: Send + 'static>(
        &self,
        permit: Permit,
        budget: CallBudget,
        work: impl FnMut(&Session) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(DbError::Closed);
        }
        let deadline = budget.deadline + UNINTERRUPTIBLE_GRACE;
        let timeout = (budget.deadline - budget.started).as_millis();
        let answered = self.0.readers.submit(permit, budget, work)?;
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(answer) => answer.unwrap_or(Err(DbError::Closed)),
            Err(_) => Err(DbError::Timeout(timeout)),
        }
    }

    /// Finishes what is queued, folds the log into the database and ends the threads. Blocks.
    pub fn close(&self) {
        if self.0.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        self.0.readers.close();
        // The writer goes last: the last connection to close folds the log in, and readers may not write.
        if let Some(writer) = &self.0.writer {
            writer.stop();
        }
        if let Some(thread) = self.0.writer_thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

//! Every cap on a statement, and the guard that stops one which runs too long. What is allowed at all is db/authorizer.rs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::limits::Limit;

use super::error::DbError;
use super::pace::Pace;
use super::turns::Caller;

/// How many instructions of SQLite's machine run between two looks at the clock: about 20 µs.
const INSTRUCTIONS_BETWEEN_CHECKS: i32 = 2000;

/// The caps that an operator can set. Each has a flag of the same name.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time for one statement, waiting included.
    pub statement_timeout: Duration,
    /// Rows in one result; the rest comes by cursor.
    pub max_rows: usize,
    /// Bytes in one result, counted as JSON.
    pub max_result_bytes: usize,
    /// Bytes of one value or row inside SQLite.
    pub max_value_bytes: usize,
    /// Bytes of the text of one statement.
    pub max_sql_bytes: usize,
    /// Bytes of memory that SQLite may take in the whole process.
    pub max_memory_bytes: u64,
    /// Statements that may wait for a thread.
    pub max_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_timeout: Duration::from_secs(10),
            max_rows: 1000,
            max_result_bytes: 1 << 20,
            max_value_bytes: 16 << 20,
            max_sql_bytes: 256 << 10,
            max_memory_bytes: 256 << 20,
            max_queue: 1024,
        }
    }
}

/// Stack of a database thread: SQLite follows a thousand nested expressions, views or triggers by recursion. Only what is used is taken.
pub const STACK_BYTES: usize = 64 << 20;

impl Limits {
    /// Sets SQLite's own limits on a connection. Columns, depth, terms, arguments, placeholders and triggers keep what SQLite is built with:
    /// its limits bind the reading of the schema too, and a lower one would make a file unreadable that another program wrote within them.
    /// Those that bind new statements only are db/terms.rs.
    pub fn apply(&self, conn: &Connection) -> rusqlite::Result<()> {
        for (limit, value) in
            [(Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000), (Limit::SQLITE_LIMIT_ATTACHED, 0), (Limit::SQLITE_LIMIT_WORKER_THREADS, 0)]
        {
            conn.set_limit(limit, value)?;
        }
        // Process-wide in SQLite, so the last connection to set it decides; all set the same.
        conn.query_row(&format!("PRAGMA hard_heap_limit={}", self.max_memory_bytes), [], |_| Ok(()))
    }
}

/// The caller's side of a running statement: shared, so that dropping a request can stop the work.
#[derive(Debug, Clone)]
pub struct CallBudget {
    /// When the call was accepted.
    pub started: Instant,
    /// When it has to be over.
    pub deadline: Instant,
    /// Whose it is.
    pub caller: Caller,
    cancelled: Arc<AtomicBool>,
}

impl CallBudget {
    /// A budget of the server's own that starts now.
    pub fn starting_now(timeout: Duration) -> Self {
        let started = Instant::now();
        Self { started, deadline: started + timeout, caller: Caller::OWN, cancelled: Arc::default() }
    }

    /// The same for a caller.
    pub fn of(self, caller: Caller) -> Self {
        Self { caller, ..self }
    }

    /// Stops the statement at its next check.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The same time with `lost` given back: it went by through no fault of this one.
    pub fn later_by(&self, lost: Duration) -> Self {
        Self { deadline: self.deadline + lost, ..self.clone() }
    }

    /// Why the statement must not go on, if so.
    pub fn exhausted(&self, now: Instant) -> Option<DbError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Some(DbError::Cancelled);
        }
        (now >= self.deadline).then(|| DbError::Timeout((self.deadline - self.started).as_millis()))
    }
}

/// A connection's end of the budget: SQLite asks it every few thousand instructions, while preparing too.
#[derive(Debug, Clone, Default)]
pub struct Guard(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    running: Option<CallBudget>,
    pace: Option<Pace>,
    /// Why it was stopped.
    stopped: Option<DbError>,
}

impl Guard {
    /// Installs the guard on a connection.
    pub fn install(conn: &mut Connection) -> rusqlite::Result<Self> {
        let guard = Self::default();
        let seen = guard.clone();
        conn.progress_handler(INSTRUCTIONS_BETWEEN_CHECKS, Some(move || seen.lock().must_stop()))?;
        Ok(guard)
    }

    /// What a statement must not cost others is looked at, too, from now on.
    pub fn pace(&self, pace: Pace) {
        self.lock().pace = Some(pace);
    }

    /// Runs `work` under `budget`; an interrupt comes back as the reason for it.
    pub fn watch<T>(&self, budget: &CallBudget, work: impl FnOnce() -> Result<T, DbError>) -> Result<T, DbError> {
        let now = Instant::now();
        if let Some(reason) = budget.exhausted(now) {
            return Err(reason);
        }
        self.lock().begin(budget.clone(), now);
        let result = work();
        let stopped = self.lock().end();
        match result {
            Err(DbError::Sqlite(error)) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
                Err(stopped.or_else(|| budget.exhausted(Instant::now())).unwrap_or(DbError::Cancelled))
            }
            other => other,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn begin(&mut self, budget: CallBudget, now: Instant) {
        self.running = Some(budget);
        self.stopped = None;
        if let Some(pace) = &mut self.pace {
            pace.begin(now);
        }
    }

    fn end(&mut self) -> Option<DbError> {
        self.running = None;
        if let Some(pace) = &mut self.pace {
            pace.end();
        }
        self.stopped.take()
    }

    fn must_stop(&mut self) -> bool {
        let Some(budget) = &self.running else { return false };
        let now = Instant::now();
        if self.stopped.is_none() {
            self.stopped = budget.exhausted(now).or_else(|| self.pace.as_mut()?.look(now));
        }
        self.stopped.is_some()
    }
}

//! The one thread that writes. Statements that wait together are committed together: one transaction, one flush to disk, and each is
//! answered only after it. A statement that undoes the transaction (a timeout, ON CONFLICT ROLLBACK, a full disk) must not cost the
//! others theirs: then each is run again in a transaction of its own, and gets its own answer.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Statement;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::authorizer::{INSIGHTS_TABLE, Permit};
use super::error::{DbError, OpenError};
use super::limits::CallBudget;
use super::line::Line;
use super::open::{OpenOptions, Session};
use super::pace::{LONG, Load, Pace};
use super::parameters::Parameters;
use super::query::{self, Page, ResultSet};
use super::turns::Caller;

/// Statements in one transaction. More would not save flushes, and would delay the first one's answer.
const MAX_GROUP: usize = 256;

/// How long a transaction goes on taking in statements that arrive.
const GROUP_WINDOW: Duration = Duration::from_millis(5);

/// The longest that a transaction waits for writers that took part in the last one. Callers that write one after the other send their
/// next statement a moment after they are answered: committing at once flushes for the first of them alone, and again for the rest.
const MAX_PATIENCE: Duration = Duration::from_millis(2);

/// How long callers take to come back, and what each of them adds (measured on two processors, for 4 to 64 of them). Where a flush is
/// over sooner, the rest come back during the first one's flush, and nobody is waited for.
const COMING_BACK: Duration = Duration::from_micros(250);
const COMING_BACK_EACH: Duration = Duration::from_micros(10);

/// So many callers are remembered as slow; then all are forgotten, and those that still are will be remembered again.
const MAX_SLOW: usize = 1024;

/// What to write. Kept as data, because it may have to run twice.
#[derive(Debug, Clone)]
pub enum Command {
    /// A statement that changes rows.
    Change {
        /// The statement.
        sql: String,
        /// Its values.
        parameters: Parameters,
        /// The caps on what RETURNING gives back.
        page: Page,
    },
    /// A statement that creates something.
    Create {
        /// The statement.
        sql: String,
    },
    /// A line for the memo.
    Insight(String),
}

/// What a write did.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteOutcome {
    /// Rows inserted, updated or deleted, those of triggers and foreign keys not counted.
    pub rows_affected: u64,
    /// The rowid of the last row inserted.
    pub last_insert_rowid: Option<i64>,
    /// What RETURNING gave.
    pub returned: Option<ResultSet>,
}

type Outcome = Result<WriteOutcome, DbError>;

#[derive(Debug)]
struct Job {
    command: Command,
    budget: CallBudget,
    answer: oneshot::Sender<Outcome>,
}

/// The answers of one group, with where they go.
type Answers = Vec<(oneshot::Sender<Outcome>, Outcome)>;

/// The writing thread's own statements, apart from the cache: a caller's text must never find a statement that was prepared without a gate.
struct Transaction<'c> {
    session: &'c Session,
    begin: Statement<'c>,
    commit: Statement<'c>,
    /// How many statements the last group had.
    last_group: usize,
    /// How long the last flush took.
    last_flush: Duration,
    /// Callers whose last statement was a long one. They get transactions of their own: whoever shared one would wait for the statement, and
    /// be run again when it is stopped.
    slow: HashSet<Caller>,
}

/// Numbers that the writer keeps for others to read.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Transactions committed. A cursor remembers it, to know whether data has changed since.
    pub commits: AtomicU64,
    /// Statements in them.
    pub statements: AtomicU64,
    /// Groups that had to be run again one by one.
    pub replays: AtomicU64,
}

/// The queue's end that takes work.
#[derive(Debug)]
pub struct Writer {
    line: Arc<Line<Job>>,
    /// What the thread has answered, until somebody hands it out.
    answered: Mutex<Option<UnboundedReceiver<Answers>>>,
}

impl Writer {
    /// Starts the thread on an open connection.
    pub fn start(
        session: Session,
        options: &OpenOptions,
        stats: Arc<WriterStats>,
        load: Arc<Load>,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        session.guard.pace(Pace::new(load, None));
        let line = Arc::new(Line::new(options.limits.max_queue));
        let work = Arc::clone(&line);
        let (answers, answered) = unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("write".into())
            .spawn(move || {
                serve(&session, &work, &answers, &stats);
                // What is left when the thread could not go on is answered by being dropped.
                work.close();
                while work.next().is_some() {}
            })
            .map_err(OpenError::Thread)?;
        Ok((Self { line, answered: Mutex::new(Some(answered)) }, thread))
    }

    /// Queues a command; its answer comes when it is on disk. Needs a tokio runtime, the same one for every call.
    pub fn submit(&self, command: Command, budget: CallBudget) -> Result<oneshot::Receiver<Outcome>, DbError> {
        if let Some(answered) = self.answered.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tokio::spawn(hand_out(answered));
        }
        let (answer, answered) = oneshot::channel();
        self.line.push(budget.caller, Job { command, budget, answer })?;
        Ok(answered)
    }

    /// Statements that wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Lets the thread end after the work that is queued already.
    pub fn stop(&self) {
        self.line.close();
    }
}

/// Hands out the answers of each group on the runtime itself. From the writing thread, each answer would wake the runtime's own.
async fn hand_out(mut answered: UnboundedReceiver<Answers>) {
    while let Some(group) = answered.recv().await {
        for (answer, outcome) in group {
            // The caller may have gone; then nobody waits for the answer.
            let _ = answer.send(outcome);
        }
    }
}

fn serve(session: &Session, work: &Line<Job>, answers: &UnboundedSender<Answers>, stats: &WriterStats) {
    let mut transaction = match Transaction::prepare(session) {
        Ok(transaction) => transaction,
        Err(error) => return tracing::error!(%error, "the writing thread could not start"),
    };
    while let Some(first) = work.next() {
        let mut group = vec![first];
        let results = match transaction.run_group(&mut group, work) {
            Ok(results) => results,
            Err(Lost { error, .. }) if group.len() == 1 => vec![Err(error)],
            Err(Lost { error, culprit }) => {
                stats.replays.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, statements = group.len(), "a group of writes was undone; running them one by one");
                let mut error = Some(error);
                let again = |(index, job): (usize, &mut Job)| {
                    if culprit == Some(index) {
                        return Err(error.take().unwrap_or(DbError::Closed));
                    }
                    job.budget = job.budget.renewed();
                    transaction.run_alone(job)
                };
                group.iter_mut().enumerate().map(again).collect()
            }
        };
        // Counted before the answers, so that whoever has an answer also finds its commit counted.
        stats.commits.fetch_add(1, Ordering::Release);
        stats.statements.fetch_add(group.len() as u64, Ordering::Relaxed);
        // Fails when the runtime has ended, and with it all who could wait.
        let _ = answers.send(group.into_iter().map(|job| job.answer).zip(results).collect());
    }
}

/// How long a transaction waits for `writers` that have just been answered. Never longer than a flush: that would cost more than it saves.
fn patience(last_flush: Duration, writers: usize) -> Duration {
    let back = COMING_BACK + COMING_BACK_EACH * u32::try_from(writers).unwrap_or(u32::MAX);
    if last_flush > back { last_flush.min(MAX_PATIENCE) } else { Duration::ZERO }
}

type Results = Vec<Outcome>;

/// Nothing of a group was kept.
struct Lost {
    /// Why.
    error: DbError,
    /// Whose statement it was; None: found only at the commit.
    culprit: Option<usize>,
}

impl<'c> Transaction<'c> {
    fn prepare(session: &'c Session) -> Result<Self, DbError> {
        let (begin, commit) = (session.conn.prepare("BEGIN IMMEDIATE")?, session.conn.prepare("COMMIT")?);
        Ok(Self { session, begin, commit, last_group: 1, last_flush: Duration::ZERO, slow: HashSet::new() })
    }

    /// Runs the group, and what arrives meanwhile, in one transaction.
    fn run_group(&mut self, group: &mut Vec<Job>, work: &Line<Job>) -> Result<Results, Lost> {
        let alone = self.slow.contains(&group[0].budget.caller);
        self.begin.execute([]).map_err(|error| Lost { error: error.into(), culprit: None })?;
        // From here: what another process held the lock for was not the group's time.
        let started = Instant::now();
        let patience = started + patience(self.last_flush, self.last_group + group.len() + work.len());
        let mut results = Results::new();
        while results.len() < group.len() {
            let index = results.len();
            let result = self.run_timed(&group[index]);
            results.push(result.map_err(|error| Lost { error, culprit: Some(index) })?);
            if results.len() == group.len() && group.len() < MAX_GROUP && started.elapsed() < GROUP_WINDOW && !alone {
                let may = |caller| !self.slow.contains(&caller);
                group.extend(if group.len() < self.last_group { work.next_before(patience, may) } else { work.next_now(may) });
            }
        }
        let flushing = Instant::now();
        self.commit().map_err(|error| Lost { error, culprit: None })?;
        self.last_flush = flushing.elapsed();
        self.last_group = group.len();
        Ok(results)
    }

    /// Runs a statement and remembers whether its caller's are long.
    fn run_timed(&mut self, job: &Job) -> Result<Outcome, DbError> {
        let started = Instant::now();
        let result = self.run_inside(job);
        if started.elapsed() < LONG {
            self.slow.remove(&job.budget.caller);
        } else {
            if self.slow.len() >= MAX_SLOW {
                self.slow.clear();
            }
            self.slow.insert(job.budget.caller);
        }
        result
    }

    fn run_alone(&mut self, job: &Job) -> Result<WriteOutcome, DbError> {
        self.begin.execute([])?;
        let result = self.run_inside(job)?;
        self.commit()?;
        result
    }

    /// The outer error: the statement has undone the whole transaction. The inner one: it has undone only itself.
    fn run_inside(&self, job: &Job) -> Result<Result<WriteOutcome, DbError>, DbError> {
        let result = run_one(self.session, job);
        if self.session.conn.is_autocommit() { Err(result.err().unwrap_or(DbError::Closed)) } else { Ok(result) }
    }

    /// Commits, or leaves no transaction open.
    fn commit(&mut self) -> Result<(), DbError> {
        let Err(error) = self.commit.execute([]) else { return Ok(()) };
        if !self.session.conn.is_autocommit() {
            // The reason for the failed commit is what the caller needs to know.
            let _ = self.session.conn.execute_batch("ROLLBACK");
        }
        Err(error.into())
    }
}

fn run_one(session: &Session, job: &Job) -> Result<WriteOutcome, DbError> {
    let result = session.guard.watch(&job.budget, || match &job.command {
        Command::Change { sql, parameters, page } => session.gate.with(Permit::Write, || change(session, sql, parameters, *page)),
        Command::Create { sql } => session.gate.with(Permit::Create, || create(session, sql)),
        Command::Insight(text) => append_insight(session, text),
    });
    session.explain_refusal(result)
}

fn change(session: &Session, sql: &str, parameters: &Parameters, page: Page) -> Result<WriteOutcome, DbError> {
    query::check_not_empty(sql)?;
    match query::keyword(sql).as_str() {
        "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "WITH" => {}
        "SELECT" | "VALUES" | "PRAGMA" => {
            return Err(DbError::WrongKind(
                "write_query takes INSERT, UPDATE, DELETE and REPLACE; use read_query for this statement".into(),
            ));
        }
        "EXPLAIN" => {
            return Err(DbError::WrongKind(
                "write_query takes INSERT, UPDATE, DELETE and REPLACE; use explain_query for EXPLAIN".into(),
            ));
        }
        "CREATE" => {
            return Err(DbError::WrongKind(
                "write_query takes INSERT, UPDATE, DELETE and REPLACE; use create_table for CREATE".into(),
            ));
        }
        other => return Err(DbError::WrongKind(format!("write_query takes INSERT, UPDATE, DELETE and REPLACE, not {other}"))),
    }
    query::with_statement(session, sql, parameters, true, |statement| {
        if statement.readonly() {
            return Err(DbError::WrongKind("this statement changes nothing; use read_query for it".into()));
        }
        let before = session.conn.total_changes();
        let returned = if statement.column_count() > 0 { Some(returning(session, statement, page)?) } else { None };
        if returned.is_none() {
            statement.raw_execute()?;
        }
        let inserted = matches!(query::keyword(sql).as_str(), "INSERT" | "REPLACE");
        // changes() keeps its last value over statements that change nothing.
        let rows_affected = if session.conn.total_changes() == before { 0 } else { session.conn.changes() };
        let last_insert_rowid = (inserted && rows_affected > 0).then(|| session.conn.last_insert_rowid());
        Ok(WriteOutcome { rows_affected, last_insert_rowid, returned })
    })
}

/// The rows have been changed before the first one comes back: when they cannot be handed out, the change must not stay either.
fn returning(session: &Session, statement: &mut Statement<'_>, page: Page) -> Result<ResultSet, DbError> {
    let savepoint = |sql: &str| session.gate.with(Permit::Internal, || session.conn.execute_batch(sql));
    savepoint("SAVEPOINT returned_rows")?;
    let result = query::collect(statement, page);
    // An interrupt has undone the whole transaction, and the savepoint with it.
    if !session.conn.is_autocommit() {
        savepoint(if result.is_ok() { "RELEASE returned_rows" } else { "ROLLBACK TO returned_rows; RELEASE returned_rows" })?;
    }
    result
}

fn create(session: &Session, sql: &str) -> Result<WriteOutcome, DbError> {
    if query::keyword(sql) != "CREATE" {
        return Err(DbError::WrongKind(
            "create_table takes CREATE TABLE, CREATE INDEX, CREATE VIEW and CREATE VIRTUAL TABLE".into(),
        ));
    }
    // Not from the cache: a statement prepared under this permit must not be found by one with a smaller permit.
    query::with_statement(session, sql, &Parameters::None, false, |statement| {
        statement.raw_execute()?;
        Ok(WriteOutcome { rows_affected: 0, last_insert_rowid: None, returned: None })
    })
}

fn append_insight(session: &Session, text: &str) -> Result<WriteOutcome, DbError> {
    session.conn.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {INSIGHTS_TABLE} (id INTEGER PRIMARY KEY, insight TEXT NOT NULL, created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    ))?;
    // Not from the cache either.
    session.conn.execute(&format!("INSERT INTO {INSIGHTS_TABLE} (insight) VALUES (?1)"), [text])?;
    Ok(WriteOutcome { rows_affected: 1, last_insert_rowid: Some(session.conn.last_insert_rowid()), returned: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flush_that_takes_longer_than_the_writers_is_worth_waiting_for() {
        let wait = |micros, writers| patience(Duration::from_micros(micros), writers).as_micros();
        assert_eq!(wait(210, 4), 0, "the rest come back during it");
        assert_eq!(wait(500, 4), 500);
        assert_eq!(wait(500, 64), 0, "so many take longer");
        assert_eq!(wait(1_500, 64), 1_500);
        assert_eq!(wait(30_000, 64), 2_000, "a very slow disk keeps nobody waiting long");
    }
}

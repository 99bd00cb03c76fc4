//! The one thread that writes. Statements that wait together are committed together: one transaction, one flush to disk, and each is
//! answered only after it. A statement that undoes the transaction (a timeout, ON CONFLICT ROLLBACK) must not cost the others theirs: they
//! are run again without it. What one write is and does is db/write.rs; what the thread does beside is db/upkeep.rs.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, Statement};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::authorizer::SchemaMode;
use super::error::{DbError, OpenError};
use super::facts::Touched;
use super::limits::CallBudget;
use super::line::Line;
use super::open::{OpenOptions, Session};
use super::pace::{LONG, Load, Pace};
use super::thread;
use super::turns::Caller;
use super::upkeep::Upkeep;
use super::write::{self, Desk};
pub use super::write::{Command, WriteOutcome};

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

type Outcome = Result<Vec<WriteOutcome>, DbError>;

/// A write that waits.
#[derive(Debug)]
pub struct Job {
    command: Command,
    budget: CallBudget,
    answer: oneshot::Sender<Outcome>,
}

/// The answers of one group, with where they go.
type Answers = Vec<(oneshot::Sender<Outcome>, Outcome)>;

/// The writing thread's own statements, apart from the cache: a caller's text must never find a statement that was prepared without a gate.
struct Transaction<'c> {
    session: &'c Session,
    desk: Desk<'c>,
    mode: SchemaMode,
    begin: Statement<'c>,
    commit: Statement<'c>,
    savepoint: Statement<'c>,
    release: Statement<'c>,
    undo: Statement<'c>,
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
    /// Groups of which a part had to be run again.
    pub replays: AtomicU64,
    /// The last thing that the disk said to a write is that it is full.
    pub disk_full: AtomicBool,
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
        mut session: Session,
        options: &OpenOptions,
        stats: Arc<WriterStats>,
        load: Arc<Load>,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        session.guard.pace(Pace::new(load, None));
        let line = Arc::new(Line::new(options.limits.max_queue));
        let work = Arc::clone(&line);
        let (answers, answered) = unbounded_channel();
        let touched = Touched::install(&mut session.conn).map_err(|error| OpenError::from_sqlite(&options.path, error))?;
        let options = options.clone();
        let thread = thread::spawn("write".into(), move || {
            let desk = Desk::new(&session, options.schema, touched);
            match Transaction::prepare(&session, desk, options.schema) {
                Ok(transaction) => serve(transaction, &options, &work, &answers, &stats),
                Err(error) => tracing::error!(%error, "the writing thread could not start"),
            }
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

fn serve(
    mut transaction: Transaction<'_>,
    options: &OpenOptions,
    work: &Line<Job>,
    answers: &UnboundedSender<Answers>,
    stats: &WriterStats,
) {
    let mut upkeep = Upkeep::new(options);
    let mut waiting: Vec<Job> = Vec::new();
    // How many of those that wait are run one by one: a group of them was undone, and nobody knows by whose fault.
    let mut alone = 0;
    loop {
        if waiting.is_empty() {
            match upkeep.next(work, transaction.session) {
                Some(job) => waiting.push(job),
                None => return,
            }
        }
        let began = Instant::now();
        let group = Group { most: if alone > 0 { 1 } else { MAX_GROUP }, open: alone == 0 };
        let (done, results) = match transaction.run_group(&mut waiting, group, work) {
            Ok(results) => {
                stats.disk_full.store(false, Ordering::Relaxed);
                let told = results.into_iter().map(|result| result.map_err(|error| tell_full(error, options, stats)));
                let results: Results = told.collect();
                (waiting.drain(..results.len()).collect::<Vec<_>>(), results)
            }
            Err(Lost { error, culprit }) => {
                let error = tell_full(error, options, stats);
                // The time that is lost by another's fault is given back; not that for which another process had the lock.
                if !is_locked(&error) {
                    for job in &mut waiting {
                        job.budget = job.budget.later_by(began.elapsed());
                    }
                }
                stats.replays.fetch_add(u64::from(waiting.len() > 1), Ordering::Relaxed);
                if let Some(culprit) = culprit.or_else(|| (waiting.len() == 1 || alone > 0).then_some(0)) {
                    tracing::debug!(%error, statements = waiting.len(), "a statement has undone its group; the others are run again");
                    (vec![waiting.remove(culprit)], vec![Err(error)])
                } else {
                    tracing::debug!(%error, statements = waiting.len(), "a group of writes was undone; running them one by one");
                    alone = waiting.len() + 1;
                    (Vec::new(), Vec::new())
                }
            }
        };
        alone = alone.saturating_sub(1);
        upkeep.after(&results, transaction.session);
        // Counted before the answers, so that whoever has an answer also finds its commit counted.
        stats.commits.fetch_add(u64::from(results.iter().any(Result::is_ok)), Ordering::Release);
        stats.statements.fetch_add(done.len() as u64, Ordering::Relaxed);
        // Fails when the runtime has ended, and with it all who could wait.
        let _ = answers.send(done.into_iter().map(|job| job.answer).zip(results).collect());
    }
}

/// SQLite has one word for a full disk and for a file that may not grow any more. The readiness probe finds out which of them it is.
fn tell_full(error: DbError, options: &OpenOptions, stats: &WriterStats) -> DbError {
    match error {
        DbError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            stats.disk_full.store(true, Ordering::Relaxed);
            options.max_db_bytes.map_or(DbError::Sqlite(error), DbError::DatabaseFull)
        }
        DbError::InBatch { number, of, sql, source } => {
            DbError::InBatch { number, of, sql, source: Box::new(tell_full(*source, options, stats)) }
        }
        other => other,
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

/// How a group is put together.
#[derive(Debug, Clone, Copy)]
struct Group {
    /// Statements in it.
    most: usize,
    /// What arrives meanwhile is taken in.
    open: bool,
}

impl<'c> Transaction<'c> {
    fn prepare(session: &'c Session, desk: Desk<'c>, mode: SchemaMode) -> Result<Self, DbError> {
        let prepare = |sql: &'static str| session.conn.prepare(sql);
        Ok(Self {
            session,
            desk,
            mode,
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            savepoint: prepare("SAVEPOINT statement")?,
            release: prepare("RELEASE statement")?,
            undo: prepare("ROLLBACK TO statement")?,
            last_group: 1,
            last_flush: Duration::ZERO,
            slow: HashSet::new(),
        })
    }

    /// Runs the first of `waiting`, as many as go together, and what arrives meanwhile, in one transaction. One result for each of them.
    fn run_group(&mut self, waiting: &mut Vec<Job>, group: Group, work: &Line<Job>) -> Result<Results, Lost> {
        if waiting[0].command.stands_alone(self.mode) {
            return Ok(vec![self.run_outside(&waiting[0])]);
        }
        let alone = self.slow.contains(&waiting[0].budget.caller);
        self.begin(waiting)?;
        // From here: what another process held the lock for was not the group's time.
        let started = Instant::now();
        let patience = started + patience(self.last_flush, self.last_group + waiting.len() + work.len());
        let mut results = Results::new();
        while results.len() < waiting.len().min(group.most) {
            let index = results.len();
            if waiting[index].command.stands_alone(self.mode) {
                break;
            }
            let result = self.run_timed(&waiting[index]);
            results.push(result.map_err(|error| Lost { error, culprit: Some(index) })?);
            if self.ends_group(results.last()) {
                break;
            }
            let room = results.len() == waiting.len() && waiting.len() < group.most && started.elapsed() < GROUP_WINDOW;
            if room && group.open && !alone {
                let may = |caller| !self.slow.contains(&caller);
                waiting.extend(if waiting.len() < self.last_group {
                    work.next_before(patience, may)
                } else {
                    work.next_now(may)
                });
            }
        }
        let flushing = Instant::now();
        // What is judged at the commit is the last statement's: the group ended with it.
        let judged = self.desk.touched.judged_at_commit().then(|| results.len() - 1);
        self.commit().map_err(|error| Lost { culprit: judged.filter(|_| is_violation(&error)), error })?;
        self.last_flush = flushing.elapsed();
        self.last_group = results.len();
        Ok(results)
    }

    /// Begins, as soon as no other process writes: for as long as one of those that wait has time.
    fn begin(&mut self, waiting: &[Job]) -> Result<(), Lost> {
        let result = loop {
            match self.begin.execute([]) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    if let Some(expired) = waiting.iter().position(|job| job.budget.exhausted(Instant::now()).is_some()) {
                        return Err(Lost { error: error.into(), culprit: Some(expired) });
                    }
                }
                result => break result,
            }
        };
        result.and_then(|_| self.desk.touched.refresh(self.session)).map_err(|error| {
            self.leave();
            Lost { error: error.into(), culprit: None }
        })
    }

    /// A deferred foreign key has to be judged with its own statement, and what follows a change of the schema is prepared on the new one.
    fn ends_group(&self, last: Option<&Outcome>) -> bool {
        let schema = matches!(last, Some(Ok(outcomes)) if outcomes.iter().any(|outcome| outcome.schema));
        schema || self.desk.touched.judged_at_commit()
    }

    /// The outer error: the statement has undone the whole transaction. The inner one: it has undone only itself.
    fn run_inside(&mut self, job: &Job) -> Result<Outcome, DbError> {
        let undoable = job.command.leaves_halves(&self.desk.touched);
        if undoable {
            self.savepoint.execute([])?;
        }
        let result = self.watched(job, || self.desk.run(&job.command));
        if self.session.conn.is_autocommit() {
            return Err(result.err().unwrap_or(DbError::Closed));
        }
        if undoable {
            if result.is_err() {
                self.undo.execute([])?;
            }
            self.release.execute([])?;
        }
        Ok(result)
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

    /// What cannot run in a transaction.
    fn run_outside(&self, job: &Job) -> Outcome {
        let Command::Run { statement, .. } = &job.command else { return Err(DbError::Closed) };
        self.watched(job, || Ok(vec![write::vacuum(self.session, &statement.sql)?]))
    }

    fn watched<T>(&self, job: &Job, work: impl FnOnce() -> Result<T, DbError>) -> Result<T, DbError> {
        self.session.explain_refusal(self.session.guard.watch(&job.budget, work))
    }

    /// Commits, or leaves no transaction open.
    fn commit(&mut self) -> Result<(), DbError> {
        let Err(error) = self.commit.execute([]) else { return Ok(()) };
        self.leave();
        Err(error.into())
    }

    fn leave(&self) {
        if !self.session.conn.is_autocommit() {
            // The reason for the failure is what the caller needs to know.
            let _ = self.session.conn.execute_batch("ROLLBACK");
        }
    }
}

fn is_locked(error: &DbError) -> bool {
    matches!(error, DbError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

fn is_violation(error: &DbError) -> bool {
    matches!(error, DbError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation))
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

//! The threads that read, each with a connection of its own. So many statements run at once as there are processors to run them; one that
//! turns out to be long gets a place beside them, as many of a caller as `--readers` says, and another thread comes in its stead. When
//! there is no such place it is stopped, and run again from its beginning when there is one: what reads can be begun again. So a statement
//! waits for a few milliseconds of others' work, whatever the others have sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use super::authorizer::Permit;
use super::error::{DbError, OpenError};
use super::limits::CallBudget;
use super::open::{self, OpenOptions, Session};
use super::pace::{Load, Pace, Places};
use super::thread;
use super::turns::{Caller, Turns};

/// Long statements that run at once, of all callers.
const MAX_LONG: usize = 16;

/// A thread beyond the usual number that has had nothing to do for so long ends, and its connection with it.
const SURPLUS_AFTER: Duration = Duration::from_secs(10);

/// How often a statement for which there was no memory is tried again: somebody else's took it, and is about to end. A long one may be
/// the one that took it.
const MEMORY_TRIES: u32 = 8;
const LONG_MEMORY_TRIES: u32 = 1;

/// Between two tries to open a database anew that another process is changing.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// How often a statement is begun on files that another process changes.
const TRIES_ON_CHANGING_FILES: u32 = 20;

type Job = Box<dyn FnMut(&Session, &Phase) -> Ended + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Answered.
    Done,
    /// To be run again among the long ones.
    GaveWay,
    /// The files have changed under the connection: to be run again on a new one.
    Outdated,
}

/// Whether the statement that a thread runs is a long one.
#[derive(Debug, Default)]
struct Phase(AtomicU8);

impl Phase {
    fn set_long(&self, long: bool) {
        self.0.store(u8::from(long), Ordering::Relaxed);
    }

    fn is_long(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

/// The queue's end that takes work.
pub struct Readers(Arc<Pool>);

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

struct Pool {
    options: OpenOptions,
    load: Arc<Load>,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    /// Not run yet.
    fresh: Turns<Job>,
    /// Known to be long.
    long: Turns<Job>,
    running_short: usize,
    running_long: HashMap<Caller, usize>,
    all_running_long: usize,
    idle: usize,
    threads: usize,
    handles: Vec<JoinHandle<()>>,
    closed: bool,
}

impl State {
    /// The next statement to run. Short ones first: they are what somebody waits for.
    fn take(&mut self, readers: usize) -> Option<(Caller, Job, bool)> {
        if self.running_short < readers
            && let Some((caller, job)) = self.fresh.pop(|_| true)
        {
            self.running_short += 1;
            return Some((caller, job, false));
        }
        if self.all_running_long >= MAX_LONG {
            return None;
        }
        let Self { long, running_long, .. } = self;
        let (caller, job) = long.pop(|caller| running_long.get(&caller).is_none_or(|count| *count < share(readers)))?;
        self.add_long(caller);
        Some((caller, job, true))
    }

    fn add_long(&mut self, caller: Caller) {
        *self.running_long.entry(caller).or_default() += 1;
        self.all_running_long += 1;
    }

    fn remove_long(&mut self, caller: Caller) {
        self.all_running_long -= 1;
        if let Some(count) = self.running_long.get_mut(&caller) {
            *count -= 1;
            if *count == 0 {
                self.running_long.remove(&caller);
            }
        }
    }
}

/// Long statements of one caller at once.
fn share(readers: usize) -> usize {
    readers.max(2)
}

impl Readers {
    /// Opens the connections and starts the threads.
    pub fn start(options: &OpenOptions, load: Arc<Load>) -> Result<Self, OpenError> {
        let sessions: Vec<_> = (0..options.readers).map(|_| open::reader(options)).collect::<Result<_, _>>()?;
        let pool = Arc::new(Pool { options: options.clone(), load, state: Mutex::default(), arrived: Condvar::new() });
        for session in sessions {
            let mut state = pool.lock();
            pool.start_thread(&mut state, Some(session)).map_err(OpenError::Thread)?;
        }
        Ok(Self(pool))
    }

    /// Queues `work`; its answer comes through the receiver. With `Permit::Internal` the work is the server's own. It may be begun more
    /// than once.
    pub fn submit<T: Send + 'static>(
        &self,
        permit: Permit,
        budget: CallBudget,
        mut work: impl FnMut(&Session) -> Result<T, DbError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, DbError>>, DbError> {
        let (answer, answered) = oneshot::channel();
        let caller = budget.caller;
        let mut answer = Some(answer);
        let mut changes = 0;
        let job: Job = Box::new(move |session, phase| {
            let mut tries = 0;
            loop {
                let result = session.guard.watch(&budget, || session.gate.with(permit, || work(session)));
                let mut result = session.explain_refusal(result);
                if session.is_outdated() {
                    changes += 1;
                    if changes < TRIES_ON_CHANGING_FILES {
                        return Ended::Outdated;
                    }
                    result = Err(DbError::Changing);
                }
                match result {
                    Err(DbError::GaveWay) => return Ended::GaveWay,
                    Err(DbError::Sqlite(error)) if may_try_again(&error, tries, phase) => {
                        tries += 1;
                        std::thread::sleep(Duration::from_millis(1 << tries));
                    }
                    result => {
                        // The caller may have gone; then nobody waits for the answer.
                        let _ = answer.take().map(|answer| answer.send(result));
                        return Ended::Done;
                    }
                }
            }
        });
        self.0.push(caller, job)?;
        Ok(answered)
    }

    /// Statements that wait for a thread.
    pub fn waiting(&self) -> usize {
        let state = self.0.lock();
        state.fresh.len() + state.long.len()
    }

    /// Threads that take work, those that run long statements not counted.
    pub fn threads(&self) -> usize {
        self.0.options.readers
    }

    /// Ends the threads after the work that is queued already. Blocks.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.arrived.notify_all();
        loop {
            let handles = std::mem::take(&mut self.0.lock().handles);
            if handles.is_empty() {
                return;
            }
            for handle in handles {
                // A thread that panicked has logged it.
                let _ = handle.join();
            }
        }
    }
}

fn may_try_again(error: &rusqlite::Error, tries: u32, phase: &Phase) -> bool {
    let most = if phase.is_long() { LONG_MEMORY_TRIES } else { MEMORY_TRIES };
    error.sqlite_error_code() == Some(ErrorCode::OutOfMemory) && tries < most
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, caller: Caller, job: Job) -> Result<(), DbError> {
        let mut state = self.lock();
        if state.closed {
            return Err(DbError::Closed);
        }
        let waiting = state.fresh.len() + state.long.len();
        let free = self.options.limits.max_queue.saturating_sub(waiting);
        // A caller takes at most half of what is left: there is always a place for another one.
        if state.fresh.of(caller) + state.long.of(caller) >= free {
            return Err(DbError::Busy(waiting));
        }
        state.fresh.push(caller, job);
        self.load.short.fetch_add(1, Ordering::Relaxed);
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits for a statement to run. None: the thread is not needed any more.
    fn next(&self) -> Option<(Caller, Job, bool)> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take(self.options.readers) {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            if state.threads > self.options.readers {
                let (again, waited) = self.arrived.wait_timeout(state, SURPLUS_AFTER).unwrap_or_else(PoisonError::into_inner);
                state = again;
                state.idle -= 1;
                if waited.timed_out() && state.idle >= self.options.readers && state.fresh.is_empty() {
                    return None;
                }
            } else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    /// A statement has run for long: it leaves its place to another one, if it finds one among the long ones.
    fn become_long(self: &Arc<Self>, caller: Caller) -> bool {
        let mut state = self.lock();
        let own = state.running_long.get(&caller).copied().unwrap_or(0);
        if own >= share(self.options.readers) || state.all_running_long >= MAX_LONG {
            return false;
        }
        state.add_long(caller);
        state.running_short -= 1;
        self.load.short.fetch_sub(1, Ordering::Relaxed);
        if state.idle > 0 {
            self.arrived.notify_one();
        } else if let Err(error) = self.start_thread(&mut state, None) {
            tracing::warn!(%error, "no thread to read beside a long statement");
        }
        true
    }

    fn finished(&self, caller: Caller, long: bool) {
        let mut state = self.lock();
        if long {
            state.remove_long(caller);
        } else {
            state.running_short -= 1;
            self.load.short.fetch_sub(1, Ordering::Relaxed);
        }
        // This thread takes one of what may run now.
        if !state.long.is_empty() && state.idle > 0 {
            self.arrived.notify_one();
        }
    }

    fn gave_way(&self, caller: Caller, job: Job) {
        let mut state = self.lock();
        state.running_short -= 1;
        self.load.short.fetch_sub(1, Ordering::Relaxed);
        state.long.push(caller, job);
    }

    fn start_thread(self: &Arc<Self>, state: &mut State, session: Option<Session>) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        let name = format!("read-{}", state.threads);
        let handle = thread::spawn(name, move || {
            match session.map_or_else(|| open::reader(&pool.options), Ok) {
                Ok(session) => pool.serve(session),
                Err(error) => tracing::warn!(%error, "no connection to read beside a long statement"),
            }
            pool.lock().threads -= 1;
        })?;
        state.threads += 1;
        state.handles.retain(|handle| !handle.is_finished());
        state.handles.push(handle);
        Ok(())
    }

    /// The connection opened anew; in a moment between two writers in which that cannot be, the old one.
    fn anew(&self, session: Session) -> Session {
        open::reader(&self.options).unwrap_or_else(|error| {
            tracing::debug!(%error, "the database has changed and could not be opened anew");
            std::thread::sleep(REOPEN_AFTER);
            session
        })
    }

    fn serve(self: &Arc<Self>, mut session: Session) {
        let place = Arc::new(Thread { pool: Arc::clone(self), phase: Phase::default(), caller: Mutex::new(Caller::OWN) });
        let give_pace =
            |session: &Session| session.guard.pace(Pace::new(Arc::clone(&self.load), Some(Box::new(Arc::clone(&place)))));
        give_pace(&session);
        while let Some((caller, mut job, long)) = self.next() {
            place.phase.set_long(long);
            *place.caller.lock().unwrap_or_else(PoisonError::into_inner) = caller;
            if session.is_outdated() {
                session = self.anew(session);
                give_pace(&session);
            }
            let ended = loop {
                match job(&session, &place.phase) {
                    Ended::Outdated => {
                        session = self.anew(session);
                        give_pace(&session);
                    }
                    ended => break ended,
                }
            };
            match ended {
                Ended::GaveWay => self.gave_way(caller, job),
                _ => self.finished(caller, place.phase.is_long()),
            }
        }
    }
}

/// What a thread runs, as the pace of its statements sees it.
struct Thread {
    pool: Arc<Pool>,
    phase: Phase,
    caller: Mutex<Caller>,
}

impl Places for Arc<Thread> {
    fn become_long(&self) -> bool {
        let caller = *self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        let became = self.pool.become_long(caller);
        if became {
            self.phase.set_long(true);
        }
        became
    }

    fn is_long(&self) -> bool {
        self.phase.is_long()
    }
}

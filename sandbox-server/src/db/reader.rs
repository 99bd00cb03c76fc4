//! The threads that read: a fixed set, each with a connection of its own, fed from one queue. A thread a call would cost more than
//! most statements do.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use super::authorizer::Permit;
use super::error::{DbError, OpenError};
use super::limits::CallBudget;
use super::open::{self, OpenOptions, Session};

/// Between two tries to open a database anew that another process is changing.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// How often a statement is begun on files that another process changes.
const TRIES_ON_CHANGING_FILES: u32 = 20;

/// False: the files have changed under the connection, and the work has to be done again on a new one.
type Job = Box<dyn FnMut(&Session) -> bool + Send>;

enum Message {
    Run(Job),
    Stop,
}

/// The queue's end that takes work.
#[derive(Debug)]
pub struct Readers {
    queue: Sender<Message>,
    capacity: usize,
    threads: usize,
}

impl Readers {
    /// Opens the connections and starts the threads.
    pub fn start(options: &OpenOptions) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        let (queue, work) = bounded(options.limits.max_queue);
        let mut handles = Vec::new();
        for index in 0..options.readers {
            let session = open::reader(options)?;
            let (work, options) = (work.clone(), options.clone());
            let thread = super::thread::spawn(format!("read-{index}"), move || serve(session, &options, &work));
            handles.push(thread.map_err(OpenError::Thread)?);
        }
        Ok((Self { queue, capacity: options.limits.max_queue, threads: options.readers }, handles))
    }

    /// Queues `work`; its answer comes through the receiver. With `Permit::Internal` the work is the server's own.
    pub fn submit<T: Send + 'static>(
        &self,
        permit: Permit,
        budget: CallBudget,
        mut work: impl FnMut(&Session) -> Result<T, DbError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, DbError>>, DbError> {
        let (answer, answered) = oneshot::channel();
        let mut answer = Some(answer);
        let mut tries = 0;
        let job: Job = Box::new(move |session| {
            let result = session.guard.watch(&budget, || session.gate.with(permit, || work(session)));
            let mut result = session.explain_refusal(result);
            if session.is_outdated() {
                tries += 1;
                if tries < TRIES_ON_CHANGING_FILES {
                    return false;
                }
                result = Err(DbError::Changing);
            }
            // The caller may have gone; then nobody waits for the answer.
            let _ = answer.take().map(|answer| answer.send(result));
            true
        });
        match self.queue.try_send(Message::Run(job)) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_)) => Err(DbError::Busy(self.capacity)),
            Err(TrySendError::Disconnected(_)) => Err(DbError::Closed),
        }
    }

    /// Statements that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Lets every thread end after the work that is queued already.
    pub fn stop(&self) {
        for _ in 0..self.threads {
            // Fails only when all threads have ended.
            let _ = self.queue.send(Message::Stop);
        }
    }
}

fn serve(mut session: Session, options: &OpenOptions, work: &Receiver<Message>) {
    while let Ok(Message::Run(mut job)) = work.recv() {
        if session.is_outdated() {
            session = anew(session, options);
        }
        while !job(&session) {
            session = anew(session, options);
        }
    }
}

/// The connection opened anew; in a moment between two writers in which that cannot be, the old one.
fn anew(session: Session, options: &OpenOptions) -> Session {
    open::reader(options).unwrap_or_else(|error| {
        tracing::debug!(%error, "the database has changed and could not be opened anew");
        std::thread::sleep(REOPEN_AFTER);
        session
    })
}

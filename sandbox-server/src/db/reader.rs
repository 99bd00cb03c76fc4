//! The threads that read: a fixed set, each with a connection of its own, fed from one queue. A thread a call would cost more than
//! most statements do.

use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use super::authorizer::Permit;
use super::error::{DbError, OpenError};
use super::limits::CallBudget;
use super::open::{self, OpenOptions, Session};

type Job = Box<dyn FnOnce(&Session) + Send>;

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
            let work = work.clone();
            let thread = std::thread::Builder::new().name(format!("read-{index}")).spawn(move || serve(&session, &work));
            handles.push(thread.map_err(OpenError::Thread)?);
        }
        Ok((Self { queue, capacity: options.limits.max_queue, threads: options.readers }, handles))
    }

    /// Queues `work`; its answer comes through the receiver. With `Permit::Internal` the work is the server's own.
    pub fn submit<T: Send + 'static>(
        &self,
        permit: Permit,
        budget: CallBudget,
        work: impl FnOnce(&Session) -> Result<T, DbError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, DbError>>, DbError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |session| {
            let result = session.guard.watch(&budget, || session.gate.with(permit, || work(session)));
            // The caller may have gone; then nobody waits for the answer.
            let _ = answer.send(session.explain_refusal(result));
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

fn serve(session: &Session, work: &Receiver<Message>) {
    while let Ok(Message::Run(job)) = work.recv() {
        job(session);
    }
}

impl Session {
    /// SQLite says only "not authorized"; the gate remembers what it refused.
    pub fn explain_refusal<T>(&self, result: Result<T, DbError>) -> Result<T, DbError> {
        let refusal = self.gate.take_refusal();
        match (result, refusal) {
            (Err(DbError::Sqlite(error)), Some(reason))
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) =>
            {
                Err(DbError::Denied(reason))
            }
            (result, _) => result,
        }
    }
}

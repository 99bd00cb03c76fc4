//! MCP over standard input and output. Most messages are calls of tools, which go the short way (direct.rs); the rest is the SDK's, which
//! reads and writes pipes of ours, its arguments wrapped as the door wraps them (mcp/arguments.rs). Each direction moves as many messages
//! at once as there are: a pipe that is read and written a message at a time costs more than the calls do.

mod ends;
mod output;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use mcp_stdio::framing::{Frame, Frames, Newlines};
use rmcp::ServiceExt as _;
use rmcp::model::RequestId;
use rmcp::service::Peer;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::db::turns::Caller;
use crate::direct::{DirectCall, Era};
use crate::mcp::{SqliteMcp, arguments};
use output::Output;

/// What may wait on the way to the SDK, and from it, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// The longest message, in bytes: the SDK's own limit.
const MAX_LINE: usize = 16 << 20;

/// Calls that run or wait at once on the short way. With more of them, what comes next is read later. A few less than the half of the
/// database's line that one caller may take: the SDK has some, too.
const MAX_CALLS: usize = 480;

/// Sooner than the time of a statement, as a rule.
const TIMER: Duration = Duration::from_secs(5);

/// What calls get to end when there is no more input, as the SDK gives it to its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves the one client that there is, until its input ends or it reads no more.
pub async fn serve(handler: SqliteMcp) {
    let (input, output) = ends::open();
    serve_over(handler, input, output).await;
}

async fn serve_over(handler: SqliteMcp, input: impl AsyncRead + Send + Unpin, output: impl AsyncWrite + Send + Unpin + 'static) {
    let (to_sdk, sdk_reads) = tokio::io::duplex(BUFFER_BYTES);
    let (sdk_writes, from_sdk) = tokio::io::duplex(BUFFER_BYTES);
    let out = Output::default();
    let writing = tokio::spawn(out.clone().write_to(output));
    let passing = tokio::spawn(pass(from_sdk, out.clone()));
    let calls = Calls::new(handler.clone(), out.clone());
    let (agree, agreement) = oneshot::channel();
    let mut sdk = std::pin::pin!(async {
        // A client that hangs up before it has said hello wants nothing.
        if let Ok(service) = handler.serve((sdk_reads, sdk_writes)).await {
            // (The reader may be gone by then.)
            let _ = agree.send(service.peer().clone());
            // The reasons for an end are all the client's.
            let _ = service.waiting().await;
        }
    });
    tokio::select! {
        // It will not serve this client.
        () = &mut sdk => {}
        () = calls.read(input, to_sdk, agreement) => {
            tokio::join!(sdk, calls.ended());
        }
        () = keep_a_timer() => {}
    }
    // The SDK's answers are all in its pipe by now, and that has been closed.
    let _ = passing.await;
    out.end();
    let _ = writing.await;
}

/// For ever. A timer that is the earliest of all wakes the thread that sets it, and each call sets one: while this one is there, none is.
async fn keep_a_timer() {
    let mut timer = tokio::time::interval(TIMER);
    loop {
        timer.tick().await;
    }
}

/// What the SDK writes, on its way out.
async fn pass(from_sdk: DuplexStream, out: Output) {
    let mut frames = Frames::new(from_sdk, Newlines, usize::MAX);
    while frames.read().await.is_ok_and(|bytes| bytes > 0) {
        while let Some(frame) = frames.next_frame() {
            if let Frame::Message(message) = frame {
                out.push(message);
            }
        }
        out.room().await;
    }
}

/// The calls on the short way.
struct Calls {
    handler: SqliteMcp,
    out: Output,
    running: Arc<Mutex<HashMap<RequestId, AbortHandle>>>,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
}

/// What is asked of a message that is no call.
#[derive(Deserialize)]
struct Cancelled {
    method: String,
    params: CancelledParams,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CancelledParams {
    request_id: RequestId,
}

impl Calls {
    fn new(handler: SqliteMcp, out: Output) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CALLS));
        Self { handler, out, running: Arc::default(), tasks: TaskTracker::new(), places }
    }

    /// Until there is no more input, or nobody who reads the answers.
    async fn read(
        &self,
        input: impl AsyncRead + Send + Unpin,
        mut to_sdk: DuplexStream,
        mut agreement: oneshot::Receiver<Peer<rmcp::RoleServer>>,
    ) {
        let mut frames = Frames::new(input, Newlines, MAX_LINE);
        // Of the short way, once the SDK has agreed with the client on it.
        let mut era = None;
        loop {
            let read = tokio::select! {
                read = frames.read() => read,
                () = self.out.broken() => return,
            };
            match read {
                Ok(1..) => {}
                Ok(0) => break,
                Err(error) => {
                    tracing::warn!(%error, "standard input cannot be read any more");
                    break;
                }
            }
            while let Some(frame) = frames.next_frame() {
                let line = match frame {
                    Frame::Message(line) => line,
                    Frame::TooLong { bytes, .. } => {
                        tracing::warn!(bytes, most = MAX_LINE, "a message on standard input is too long and was left out");
                        continue;
                    }
                };
                // It is there once.
                if let Ok(peer) = agreement.try_recv() {
                    era = agreed(&peer);
                }
                if let Some(era) = era
                    && let Some(call) = DirectCall::read::<SqliteMcp>(line).filter(|call| call.fits(era))
                    && self.start(call, era).await
                {
                    continue;
                }
                self.cancel(line);
                let wrapped = arguments::wrapped(line);
                let line = wrapped.as_deref().unwrap_or(line);
                if to_sdk.write_all(line).await.is_err() || to_sdk.write_all(b"\n").await.is_err() {
                    return;
                }
                if era.is_none() {
                    // The SDK, which is polled beside this, agrees with the client before any more of its calls go the long way.
                    tokio::task::yield_now().await;
                }
            }
            self.out.room().await;
        }
    }

    /// Until all are answered.
    async fn ended(&self) {
        self.tasks.close();
        // What takes longer is told to nobody.
        let _ = tokio::time::timeout(PATIENCE, self.tasks.wait()).await;
    }

    /// False: it is for the SDK.
    async fn start(&self, call: DirectCall<'_>, era: Era) -> bool {
        let id = call.id().clone();
        if self.running().contains_key(&id) {
            // Of two calls with one id: what the SDK says of them.
            return false;
        }
        let Some(answer) = call.answer(era, &self.handler, HeaderMap::new(), Caller::OWN) else { return false };
        // Never closed.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let (out, running) = (self.out.clone(), Arc::clone(&self.running));
        // It is known before it can end.
        let mut known = self.running();
        let task = self.tasks.spawn({
            let id = id.clone();
            async move {
                let _place = place;
                if let Some(json) = answer.await {
                    out.push(&json);
                }
                running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
        });
        known.insert(id, task.abort_handle());
        true
    }

    /// Ends the call that a message takes back, if it does: it is stopped, counted and logged, and not answered.
    fn cancel(&self, line: &[u8]) {
        const METHOD: &str = "notifications/cancelled";
        let mut running = self.running();
        if running.is_empty() || memchr::memmem::find(line, METHOD.as_bytes()).is_none() {
            return;
        }
        if let Ok(cancelled) = serde_json::from_slice::<Cancelled>(line)
            && cancelled.method == METHOD
            && let Some(task) = running.remove(&cancelled.params.request_id)
        {
            task.abort();
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<RequestId, AbortHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules of a session that began with `initialize`, or of a client that needs none; None: calls are all the SDK's.
fn agreed(peer: &Peer<rmcp::RoleServer>) -> Option<Era> {
    match peer.peer_info() {
        Some(client) => Era::of(client.protocol_version.as_str()).filter(|era| *era == Era::Legacy),
        None => Some(Era::Modern),
    }
}

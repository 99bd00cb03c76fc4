//! The pipe to a child: reads its standard output no faster than is bearable, leaves out lines that are too long, and ends the child
//! with everything that it started in its process group. What a child is, and its last words, are `child`'s.

use std::{
    any::TypeId,
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{self, Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use mcp_stdio::{
    exit::Exit,
    framing::{Frame, Frames, Newlines},
    group::Group,
};
use mcp_wire::message;
use rmcp::{
    RoleClient,
    service::{RxJsonRpcMessage, ServiceError, TxJsonRpcMessage},
    transport::{DynamicTransportError, Transport},
};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    process::{ChildStdin, ChildStdout},
    sync::Mutex,
    time::{Instant, Sleep, timeout},
};

use super::{
    asked::{Answer, Asked, Line, Waiting},
    pace::Pace,
    relay::Calls,
    sending::Sending,
};
use crate::{heavy, numbers};

/// A child that writes no more has mostly ended: how, is waited for so long.
const LAST: Duration = Duration::from_millis(500);
/// What a child gets to end after its standard input closed, and again after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);
/// After so much silence a child is taken for one that does not know `server/discover`. It may have to be fetched first, and to be loaded.
const SILENCE: Duration = Duration::from_secs(5);
/// What may be read of a child in a second, in bytes; and what a line counts beside its own length, unless it is an answer: of those there
/// are no more than requests. A child that writes faster waits, and costs the others nothing.
const BYTES_A_SECOND: usize = 16 * 1024 * 1024;
const LINE_COST: usize = 8 * 1024;

/// A child as a transport.
pub struct ChildTransport {
    lines: Frames<Bearable<ChildStdout>>,
    /// Messages of an array, which came in one line.
    came: VecDeque<Vec<u8>>,
    /// A line that is being read: it goes on where whoever waits for it gives up, and comes again.
    reading: Option<BoxFuture<'static, Line>>,
    pipe: Pipe,
    calls: Calls,
    group: Option<Group>,
    /// Whether silence to discover is an answer to it, and when it is one.
    takes_silence: bool,
    silent_at: Option<Instant>,
    max_line: usize,
}

/// The way to a child: for requests that go past the SDK (`ask`), and for what the SDK sends.
#[derive(Debug, Clone)]
pub struct Pipe {
    input: Arc<Mutex<Option<ChildStdin>>>,
    waiting: Waiting,
    /// Why nothing comes any more, once that is so.
    end: Arc<OnceLock<Ended>>,
}

/// What comes next.
enum Next {
    Line(Vec<u8>),
    /// In the place of a line that was left out.
    Sdk(Box<RxJsonRpcMessage<RoleClient>>),
}

/// Nothing comes of a child any more.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum Ended {
    #[error("the program ended in the call: {0}")]
    Exited(Exit),
    #[error("the program closed its standard output in the call")]
    Closed,
    #[error("the program was given up in the call")]
    GivenUp,
}

impl Pipe {
    /// The answer to a request, past the SDK.
    pub async fn ask(&self, sending: &Sending) -> Result<Box<Answer>, ServiceError> {
        let answer = self.waiting.asks(sending.asked.clone());
        // A task of its own: whoever stops waiting leaves no half of a line in the pipe.
        let written = tokio::spawn(self.clone().write(sending.body.clone())).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            return Err(broken(error));
        }
        answer.await.map_err(|_| broken(self.end.get().copied().unwrap_or(Ended::Closed)))
    }

    /// How the child ended; `None` while it has not, as far as anybody knows.
    pub fn exit(&self) -> Option<Exit> {
        match self.end.get() {
            Some(Ended::Exited(exit)) => Some(*exit),
            Some(Ended::Closed | Ended::GivenUp) | None => None,
        }
    }

    async fn write(self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let mut input = self.input.lock().await;
        let input = input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(&line).await?;
        input.flush().await
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> ServiceError {
    ServiceError::TransportSend(DynamicTransportError::from_parts("a pipe", TypeId::of::<ChildTransport>(), Box::new(error)))
}

impl ChildTransport {
    pub fn new(stdin: ChildStdin, stdout: ChildStdout, group: Group, max_line: usize, calls: Calls, takes_silence: bool) -> Self {
        Self {
            lines: Frames::new(Bearable::new(stdout, LINE_COST), Newlines, max_line),
            max_line,
            came: VecDeque::new(),
            reading: None,
            pipe: Pipe { input: Arc::new(Mutex::new(Some(stdin))), waiting: Waiting::default(), end: Arc::default() },
            calls,
            group: Some(group),
            takes_silence,
            silent_at: None,
        }
    }

    /// Its other end.
    pub fn pipe(&self) -> Pipe {
        self.pipe.clone()
    }

    /// The next line, or a part of one that came in an array. What was read when this is given up is read on the next time. A line that is
    /// too long costs whoever waits for it, and nobody else.
    async fn next_line(&mut self) -> Option<Next> {
        if let Some(line) = self.came.pop_front() {
            return Some(Next::Line(line));
        }
        loop {
            match self.lines.next_frame() {
                Some(Frame::Message(line)) => return Some(Next::Line(line.to_vec())),
                Some(Frame::TooLong { bytes, head, tail }) => {
                    tracing::warn!(bytes, "a line of a child is too long, and is left out");
                    let id = message::claimed_id(head, tail).and_then(|id| i64::try_from(id).ok());
                    if let Some(answer) = id.and_then(|id| self.pipe.waiting.too_long(id, self.max_line)) {
                        return Some(Next::Sdk(Box::new(answer)));
                    }
                    continue;
                }
                None => {}
            }
            match self.lines.read().await {
                Ok(0) => return self.lines.rest().map(|line| Next::Line(line.to_vec())),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("what a child writes cannot be read: {error}");
                    return None;
                }
            }
        }
    }
}

impl Transport<RoleClient> for ChildTransport {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.pipe.waiting.sent(&item);
        if self.takes_silence && Asked::of(&item).is_some_and(|asked| asked.is_discover()) {
            self.silent_at = Some(Instant::now() + SILENCE);
        }
        let (text, pipe) = (serde_json::to_vec(&item), self.pipe.clone());
        async move {
            match pipe.write(numbers::release_bytes(text?)).await {
                // Who does not read any more has ended, as a rule: how, is known when its output has come to its end.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                written => written,
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let line = reading.await;
                self.reading = None;
                match line {
                    Line::Sdk(message) => return Some(*message),
                    Line::Taken => self.lines.source().was_asked_for(),
                    Line::Nothing => {}
                }
            }
            let silent_at = self.silent_at;
            let line = tokio::select! {
                line = self.next_line() => line,
                () = tokio::time::sleep_until(silent_at.unwrap_or_else(Instant::now)), if silent_at.is_some() => {
                    self.silent_at = None;
                    match self.pipe.waiting.silent() {
                        Some(answer) => return Some(answer.message()),
                        None => continue,
                    }
                }
            };
            let line = match line {
                Some(Next::Line(line)) => Some(line),
                Some(Next::Sdk(message)) => return Some(*message),
                None => None,
            };
            let Some(line) = line else {
                // Whoever waits for an answer wants to know why there is none.
                if let Some(group) = &mut self.group
                    && let Ok(exit) = timeout(LAST, group.wait()).await
                {
                    self.pipe.end.get_or_init(|| Ended::Exited(exit));
                }
                self.pipe.waiting.end();
                return None;
            };
            if line.starts_with(b"[")
                && let Ok(parts) = serde_json::from_slice::<Vec<&RawValue>>(&line)
            {
                self.came.extend(parts.into_iter().map(|part| part.get().as_bytes().to_vec()));
                continue;
            }
            let (waiting, calls) = (self.pipe.waiting.clone(), self.calls.clone());
            let light = line.len() < heavy::LIGHT;
            self.reading =
                Some(if light { ready(understood(&line, &waiting, &calls)).boxed() } else { read(line, waiting, calls).boxed() });
        }
    }

    /// As the protocol asks: standard input closes, then SIGTERM, then SIGKILL.
    async fn close(&mut self) -> io::Result<()> {
        // Nobody answers those who still wait.
        self.pipe.end.get_or_init(|| Ended::GivenUp);
        self.pipe.waiting.end();
        self.pipe.input.lock().await.take();
        if let Some(group) = self.group.take() {
            group.end(PATIENCE).await;
        }
        Ok(())
    }
}

/// What a line is. What will be large in memory waits until there is room.
async fn read(line: Vec<u8>, waiting: Waiting, calls: Calls) -> Line {
    let line: Arc<[u8]> = line.into();
    let (weighed, answered) = (Arc::clone(&line), waiting.clone());
    if let Some((id, weight)) = heavy::work(line.len(), move || answered.weight(weighed.trim_ascii())).await {
        calls.keep(&id, heavy::ANSWERS.room(weight).await);
    }
    heavy::work(line.len(), move || understood(&line, &waiting, &calls)).await
}

fn understood(line: &[u8], waiting: &Waiting, calls: &Calls) -> Line {
    let (line, message) = (line.trim_ascii(), waiting.read(line.trim_ascii()));
    if matches!(&message, Line::Sdk(message) if matches!(**message, RxJsonRpcMessage::<RoleClient>::Notification(_))) {
        calls.hear(None, line);
    }
    message
}

/// Lets a child wait that writes too fast.
#[derive(Debug)]
pub struct Bearable<R> {
    inner: R,
    /// What a line counts beside its own length.
    line_cost: usize,
    pace: Pace,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<R> Bearable<R> {
    pub fn new(inner: R, line_cost: usize) -> Self {
        Self { inner, line_cost, pace: Pace::new(BYTES_A_SECOND, Instant::now()), pause: None }
    }

    /// One of the lines was the answer to a request.
    fn was_asked_for(&mut self) {
        self.pace.give_back(self.line_cost, Instant::now());
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Bearable<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(until) = self.pace.pause(Instant::now()) {
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            task::ready!(pause.as_mut().poll(context));
        }
        self.pause = None;
        let before = buffer.filled().len();
        task::ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        let cost = read.len() + memchr::memchr_iter(b'\n', read).count() * self.line_cost;
        self.pace.spend(cost, Instant::now());
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use mcp_stdio::group::{Spawned, spawn};
    use rmcp::model::RequestId;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn child(command: tokio::process::Command, max_line: usize) -> ChildTransport {
        let Spawned { stdin, stdout, group, .. } = spawn(command).expect("it starts");
        ChildTransport::new(stdin, stdout, group, max_line, Calls::default(), true)
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_costs_only_whoever_waits_for_it() {
        let long = "x".repeat(3 << 20);
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{long}"}}]}}}}"#)
            .expect("written");
        // Of nobody, and the last one does not end.
        write!(file, r#"{long}{}{{"jsonrpc":"2.0","id":2,"result":{{"content":[]}}}}"#, '\n').expect("written");
        let mut command = tokio::process::Command::new("cat");
        command.arg(file.path());
        let mut transport = child(command, 1 << 20);
        let [first, second] = [1, 2].map(|id| transport.pipe().waiting.asks(Asked::call(RequestId::Number(id))));
        assert!(transport.receive().await.is_none(), "nothing was for the SDK");
        let refused = first.await.expect("an answer").result.expect_err("it is too long");
        assert_eq!(refused.error.message, "the answer is larger than 1 MiB");
        assert!(second.await.expect("an answer").result.is_ok());
    }

    #[tokio::test]
    async fn answers_that_were_asked_for_are_no_flood() {
        // A flood of so many lines is let through in ten seconds.
        let answers = 10 * BYTES_A_SECOND / LINE_COST;
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for id in 0..answers {
            writeln!(file, r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#).expect("written");
        }
        let mut command = tokio::process::Command::new("cat");
        command.arg(file.path());
        let mut transport = child(command, 1 << 20);
        let ids = (0..).take(answers).map(RequestId::Number);
        let waiting: Vec<_> = ids.map(|id| transport.pipe().waiting.asks(Asked::call(id))).collect();
        let began = Instant::now();
        assert!(transport.receive().await.is_none(), "nothing was for the SDK");
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        for answer in waiting {
            assert!(answer.await.is_ok_and(|answer| answer.result.is_ok()));
        }
    }

    #[tokio::test]
    async fn a_child_that_writes_too_fast_waits() {
        let began = Instant::now();
        let many = Cursor::new(vec![b'\n'; 2 * BYTES_A_SECOND / LINE_COST]);
        let mut text = Vec::new();
        Bearable::new(many, LINE_COST).read_to_end(&mut text).await.expect("read");
        // One read takes what the buffer holds, which may be more than a second's worth.
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

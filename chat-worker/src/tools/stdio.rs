//! The pipe to a child: reads its standard output no faster and in no longer lines than is bearable, and ends the child
//! with everything that it started in its process group. What a child is, and its last words, are `child`'s.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rmcp::{
    RoleClient,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, ReadBuf},
    process::{Child, ChildStdin, ChildStdout},
    sync::Mutex,
    time::{Instant, Sleep, timeout},
};

use super::{asked::Waiting, pace::Pace};
use crate::numbers;

/// What a child gets to end after its standard input closed, and again after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);
/// What may be read of a child in a second, in bytes; and what a line counts beside its own length. A child that writes
/// faster waits, and costs the others nothing.
const BYTES_A_SECOND: usize = 16 * 1024 * 1024;
const LINE_COST: usize = 8 * 1024;

/// A child as a transport.
pub struct ChildTransport {
    lines: BufReader<Bearable<ChildStdout>>,
    /// What was read of a line that has not ended yet.
    line: Vec<u8>,
    /// Messages of an array, which came in one line.
    came: VecDeque<Vec<u8>>,
    input: Arc<Mutex<Option<ChildStdin>>>,
    waiting: Waiting,
    group: Group,
}

impl ChildTransport {
    /// The child must lead a process group of its own, and have its standard input and output piped.
    pub fn new(mut child: Child, max_line: usize) -> io::Result<Self> {
        let (Some(stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(io::Error::other("its pipes are taken"));
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self {
            lines: BufReader::new(Bearable::new(stdout, max_line, LINE_COST)),
            line: Vec::new(),
            came: VecDeque::new(),
            input: Arc::new(Mutex::new(Some(stdin))),
            waiting: Waiting::default(),
            group: Group { child: Some(child), id },
        })
    }

    /// The next line, or a part of one that came in an array. What was read when this is given up is read on the next time.
    async fn next_line(&mut self) -> Option<Vec<u8>> {
        if let Some(line) = self.came.pop_front() {
            return Some(line);
        }
        match self.lines.read_until(b'\n', &mut self.line).await {
            Ok(0) if self.line.is_empty() => None,
            Ok(_) => Some(std::mem::take(&mut self.line)),
            Err(error) => {
                tracing::warn!("what a child writes cannot be read: {error}");
                None
            }
        }
    }
}

impl Transport<RoleClient> for ChildTransport {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.waiting.sent(&item);
        let (text, input) = (serde_json::to_vec(&item), Arc::clone(&self.input));
        async move {
            let mut text = numbers::release_bytes(text?);
            text.push(b'\n');
            let mut input = input.lock().await;
            let input = input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            input.write_all(&text).await?;
            input.flush().await
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let line = self.next_line().await?;
            if line.starts_with(b"[")
                && let Ok(parts) = serde_json::from_slice::<Vec<&RawValue>>(&line)
            {
                self.came.extend(parts.into_iter().map(|part| part.get().as_bytes().to_vec()));
                continue;
            }
            if let Some(message) = self.waiting.read(line.trim_ascii()) {
                return Some(message);
            }
        }
    }

    /// As the protocol asks: standard input closes, then SIGTERM, then SIGKILL.
    async fn close(&mut self) -> io::Result<()> {
        self.input.lock().await.take();
        self.group.end().await;
        Ok(())
    }
}

/// A child and what it started, unless that left the group.
#[derive(Debug)]
struct Group {
    child: Option<Child>,
    id: Option<Pid>,
}

impl Group {
    async fn end(&mut self) {
        let Some(child) = &mut self.child else { return };
        if timeout(PATIENCE, child.wait()).await.is_err() {
            signal(self.id, Signal::TERM);
            // It is killed next, however this ends.
            let _ = timeout(PATIENCE, child.wait()).await;
        }
        // Also when the child has ended well: what it started and left behind would live on.
        signal(self.id, Signal::KILL);
        let _ = child.wait().await;
        self.child = None;
    }
}

impl Drop for Group {
    /// A connection that was given up half-way, or a program that ends.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(self.id, Signal::KILL);
        // Without being waited for, it would stay a zombie. Without a runtime, we end too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { child.wait().await });
        }
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // Nobody is left in it: that is what was wanted.
        let _ = kill_process_group(group, signal);
    }
}

/// Ends in an error at a line that is too long, and lets a child wait that writes too fast.
pub struct Bearable<R> {
    inner: R,
    max_line: usize,
    /// What a line counts beside its own length.
    line_cost: usize,
    line: usize,
    pace: Pace,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<R> Bearable<R> {
    pub fn new(inner: R, max_line: usize, line_cost: usize) -> Self {
        let pace = Pace::new(BYTES_A_SECOND, Instant::now());
        Self { inner, max_line, line_cost, line: 0, pace, pause: None }
    }

    /// Counts what was read. False at a line that is too long.
    fn count(&mut self, bytes: &[u8]) -> bool {
        let lines = memchr::memchr_iter(b'\n', bytes).count();
        self.pace.spend(bytes.len() + lines * self.line_cost, Instant::now());
        self.line = memchr::memrchr(b'\n', bytes).map_or(self.line + bytes.len(), |end| bytes.len() - end - 1);
        self.line <= self.max_line
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Bearable<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(until) = self.pace.pause(Instant::now()) {
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            ready!(pause.as_mut().poll(context));
        }
        self.pause = None;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if self.count(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        // An error has read nothing.
        buffer.set_filled(before);
        Poll::Ready(Err(io::Error::other(format!("a line is longer than {} MiB", self.max_line / 1024 / 1024))))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn lines_may_be_many_but_not_endless() {
        let mut text = Vec::new();
        Bearable::new(Cursor::new(b"abc\ndefg\n"), 4, 1).read_to_end(&mut text).await.expect("short lines");
        assert_eq!(text, b"abc\ndefg\n");
        let endless = Bearable::new(tokio::io::repeat(b'x'), 1024 * 1024, 1).read_to_end(&mut text).await;
        assert!(endless.expect_err("no end").to_string().contains("longer than 1 MiB"));
    }

    #[tokio::test]
    async fn a_child_that_writes_too_fast_waits() {
        let began = Instant::now();
        let many = Cursor::new(vec![b'\n'; 2 * BYTES_A_SECOND / LINE_COST]);
        let mut text = Vec::new();
        Bearable::new(many, 4, LINE_COST).read_to_end(&mut text).await.expect("read");
        // One read takes what the buffer holds, which may be more than a second's worth.
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

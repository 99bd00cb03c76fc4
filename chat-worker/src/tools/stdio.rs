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

use futures::{FutureExt, future::BoxFuture};
use mcp_stdio::group::Group;
use rmcp::{
    RoleClient,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, ReadBuf},
    process::{ChildStdin, ChildStdout},
    sync::Mutex,
    time::{Instant, Sleep},
};

use super::{asked::Waiting, pace::Pace, relay::Calls};
use crate::{heavy, numbers};

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
    /// A line that is being read: it goes on where whoever waits for it gives up, and comes again.
    reading: Option<BoxFuture<'static, Option<RxJsonRpcMessage<RoleClient>>>>,
    input: Arc<Mutex<Option<ChildStdin>>>,
    waiting: Waiting,
    calls: Calls,
    group: Option<Group>,
}

impl ChildTransport {
    pub fn new(stdin: ChildStdin, stdout: ChildStdout, group: Group, max_line: usize, calls: Calls) -> Self {
        Self {
            lines: BufReader::new(Bearable::new(stdout, max_line, LINE_COST)),
            line: Vec::new(),
            came: VecDeque::new(),
            reading: None,
            input: Arc::new(Mutex::new(Some(stdin))),
            waiting: Waiting::default(),
            calls,
            group: Some(group),
        }
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
        self.calls.sent(&item);
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
            if let Some(reading) = &mut self.reading {
                let message = reading.await;
                self.reading = None;
                if message.is_some() {
                    return message;
                }
            }
            let line = self.next_line().await?;
            if line.starts_with(b"[")
                && let Ok(parts) = serde_json::from_slice::<Vec<&RawValue>>(&line)
            {
                self.came.extend(parts.into_iter().map(|part| part.get().as_bytes().to_vec()));
                continue;
            }
            self.reading = Some(read(line.into(), self.waiting.clone(), self.calls.clone()).boxed());
        }
    }

    /// As the protocol asks: standard input closes, then SIGTERM, then SIGKILL.
    async fn close(&mut self) -> io::Result<()> {
        self.input.lock().await.take();
        if let Some(group) = self.group.take() {
            group.end(PATIENCE).await;
        }
        Ok(())
    }
}

/// What a line is. What will be large in memory waits until there is room.
async fn read(line: Arc<[u8]>, waiting: Waiting, calls: Calls) -> Option<RxJsonRpcMessage<RoleClient>> {
    let (weighed, answered) = (Arc::clone(&line), waiting.clone());
    if let Some((id, weight)) = heavy::work(line.len(), move || answered.weight(weighed.trim_ascii())).await {
        calls.keep(&id, heavy::ANSWERS.room(weight).await);
    }
    heavy::work(line.len(), move || {
        let message = waiting.read(line.trim_ascii());
        if matches!(message, Some(RxJsonRpcMessage::<RoleClient>::Notification(_))) {
            calls.hear(None, line.trim_ascii());
        }
        message
    })
    .await
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

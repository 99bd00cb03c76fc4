//! A connection's stream that says whether what is written to it gets through: an answer that waits for its reader is still being given.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Hears of it.
pub trait Pace {
    /// The reader is slower than the writer: something waits to be written.
    fn blocked(&self);
    /// Something was written.
    fn moved(&self);
}

/// See the file.
#[derive(Debug)]
pub struct Flow<S, P> {
    stream: S,
    pace: P,
}

impl<S, P: Pace> Flow<S, P> {
    /// Over a stream.
    pub fn new(stream: S, pace: P) -> Self {
        Self { stream, pace }
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn told<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.pace.blocked();
        } else {
            self.pace.moved();
        }
        written
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Flow<S, P> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, P: Pace + Unpin> AsyncWrite for Flow<S, P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

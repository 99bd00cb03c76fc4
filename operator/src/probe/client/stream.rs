//! The bytes of a connection, with or without TLS, and whether any came in.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

/// With or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// The message by which one ends a conversation in TLS. No answer of HTTP begins so.
    TlsAlert,
    Something,
}

/// The first byte of what came in, 0 while there is none.
#[derive(Debug, Default)]
pub(super) struct First(AtomicU8);

impl First {
    const TLS_ALERT: u8 = 0x15;

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(super) fn heard(&self) -> Heard {
        match self.0.load(Ordering::Relaxed) {
            0 => Heard::Nothing,
            Self::TLS_ALERT => Heard::TlsAlert,
            _ => Heard::Something,
        }
    }

    fn hear(&self, byte: u8) {
        // Whoever begins with 0 has said something, too.
        let _earlier = self.0.compare_exchange(0, byte.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A stream that remembers whether anything came in.
pub(super) struct Watched {
    pub(super) stream: Stream,
    pub(super) first: Arc<First>,
    /// Until when a later probe may use it; none: it ends with this one.
    pub(super) kept_until: Option<Instant>,
    /// The server asked for a client certificate in the handshake.
    pub(super) certificate_wanted: bool,
}

impl Watched {
    /// Nothing came in while nobody asked. Some servers say goodbye to an idle connection (HTTP 408), which answers no question of ours.
    pub(super) fn is_quiet(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => {
                matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // What comes in there may be the handshake's own: session tickets.
            Stream::Tls(_) => true,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Some(first) = buf.filled().get(before) {
            self.first.hear(*first);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

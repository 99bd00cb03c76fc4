//! The body of a turn that is told while it runs: its events as server-sent events, as they come. What waits to be told goes out in one
//! piece. Dropped, when the caller goes away, it cancels the turn.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{DropGuard, WaitForCancellationFutureOwned};

use super::{Web, live};
use crate::ui::event::Event;

/// Proxies close connections on which nothing comes.
const SILENCE: Duration = Duration::from_secs(15);
/// A comment, which readers skip.
const STILL_HERE: &[u8] = b":\n\n";
/// More than this is not gathered into one piece.
const PIECE: usize = 16 * 1024;

/// The events of one turn on their way to its caller.
#[derive(Debug)]
pub struct Told {
    events: mpsc::Receiver<Event>,
    web: Arc<Web>,
    /// Completes when this replica is being stopped, which is told once.
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    silence: Pin<Box<Sleep>>,
    piece: BytesMut,
    _turn: DropGuard,
}

impl Told {
    /// `turn` is cancelled when this is dropped.
    pub fn new(events: mpsc::Receiver<Event>, turn: DropGuard, web: Arc<Web>) -> Self {
        // What was let in at the last moment will not be told again.
        let draining = (!web.draining.is_cancelled()).then(|| Box::pin(web.draining.clone().cancelled_owned()));
        Self { events, web, draining, silence: Box::pin(sleep(SILENCE)), piece: BytesMut::new(), _turn: turn }
    }
}

impl Stream for Told {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while this.piece.len() < PIECE {
            match this.events.poll_recv(context) {
                Poll::Ready(Some(event)) => write(&mut this.piece, event.name(), &event),
                Poll::Ready(None) if this.piece.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if this.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(context).is_ready()) {
            this.draining = None;
            write(&mut this.piece, "draining", &live::draining(&this.web));
        }
        if this.piece.is_empty() && this.silence.as_mut().poll(context).is_ready() {
            this.piece.put_slice(STILL_HERE);
        }
        if this.piece.is_empty() {
            return Poll::Pending;
        }
        this.silence.as_mut().reset(Instant::now() + SILENCE);
        Poll::Ready(Some(Ok(this.piece.split().freeze())))
    }
}

/// An event as a reader of the stream takes it. Its JSON has no line ends.
fn write(piece: &mut BytesMut, name: &str, event: &impl Serialize) {
    piece.put_slice(b"event: ");
    piece.put_slice(name.as_bytes());
    piece.put_slice(b"\ndata: ");
    // Serialising our own events into memory cannot fail; an event without data would only be skipped.
    let _ = serde_json::to_writer(piece.writer(), event);
    piece.put_slice(b"\n\n");
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            // Proxies that buffer would hold the words back.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        (headers, Body::from_stream(self)).into_response()
    }
}

//! The body of a turn that is told while it runs: its events as server-sent events, as they come. What waits to be told goes out in one
//! piece. Dropped, when the caller goes away, it cancels the turn.

use std::{
    convert::Infallible,
    pin::Pin,
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
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::live;
use crate::{numbers, turn::event::Event};

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
    drain_seconds: u64,
    /// Completes when this replica is being stopped, which is told once.
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    silence: Pin<Box<Sleep>>,
    piece: BytesMut,
    _turn: DropGuard,
}

impl Told {
    /// `turn` is cancelled when this is dropped. When `draining` is, the caller is told that what runs has `drain_seconds` to end.
    pub fn new(events: mpsc::Receiver<Event>, turn: DropGuard, draining: &CancellationToken, drain_seconds: u64) -> Self {
        // What was let in at the last moment will not be told again.
        let draining = (!draining.is_cancelled()).then(|| Box::pin(draining.clone().cancelled_owned()));
        Self { events, drain_seconds, draining, silence: Box::pin(sleep(SILENCE)), piece: BytesMut::new(), _turn: turn }
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
        // The rest is looked at when there is nothing to tell, which is before every wait.
        if this.piece.is_empty() && this.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(context).is_ready()) {
            this.draining = None;
            write(&mut this.piece, "draining", &live::draining(this.drain_seconds));
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
    let start = piece.len();
    let _ = serde_json::to_writer((&mut *piece).writer(), event);
    if numbers::are_marked(&piece[start..]) {
        let released = numbers::release_bytes(piece[start..].to_vec());
        piece.truncate(start);
        piece.put_slice(&released);
    }
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

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    struct Turn {
        events: mpsc::Sender<Event>,
        cancelled: CancellationToken,
        draining: CancellationToken,
        told: Told,
    }

    fn turn() -> Turn {
        let (events, receiver) = mpsc::channel(64);
        let (cancelled, draining) = (CancellationToken::new(), CancellationToken::new());
        let told = Told::new(receiver, cancelled.clone().drop_guard(), &draining, 20);
        Turn { events, cancelled, draining, told }
    }

    fn text(text: &str) -> Event {
        Event::Text { text: text.to_owned() }
    }

    /// What is told without waiting.
    fn now(told: &mut Told) -> Option<String> {
        let piece = told.next().now_or_never()??;
        piece.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn what_waits_is_told_in_one_piece_and_the_end_is_the_end() {
        let Turn { events, mut told, .. } = turn();
        assert_eq!(now(&mut told), None, "nothing yet");
        for piece in ["one", "two\nlines"] {
            events.send(text(piece)).await.expect("taken");
        }
        let both = "event: text\ndata: {\"type\":\"text\",\"text\":\"one\"}\n\nevent: text\ndata: {\"type\":\"text\",\"text\":\"two\\nlines\"}\n\n";
        assert_eq!(now(&mut told).as_deref(), Some(both));
        assert_eq!(now(&mut told), None);
        events.send(text("last")).await.expect("taken");
        drop(events);
        assert!(now(&mut told).is_some_and(|piece| piece.contains("last")));
        assert!(told.next().now_or_never().is_some_and(|end| end.is_none()), "the stream ends");
    }

    #[tokio::test]
    async fn a_piece_has_a_bound() {
        let Turn { events, mut told, .. } = turn();
        for _ in 0..3 {
            events.send(text(&"x".repeat(PIECE))).await.expect("taken");
        }
        for _ in 0..3 {
            assert!(now(&mut told).is_some_and(|piece| piece.matches("event: text").count() == 1));
        }
        assert_eq!(now(&mut told), None);
    }

    #[tokio::test]
    async fn that_the_replica_is_being_stopped_is_told_once() {
        let Turn { events, draining, mut told, .. } = turn();
        events.send(text("one")).await.expect("taken");
        draining.cancel();
        assert!(now(&mut told).is_some_and(|piece| piece.contains("one")));
        let notice = "event: draining\ndata: {\"seconds\":20,\"type\":\"draining\"}\n\n";
        assert_eq!(now(&mut told).as_deref(), Some(notice));
        assert_eq!(now(&mut told), None);
        events.send(text("two")).await.expect("taken");
        assert!(now(&mut told).is_some_and(|piece| !piece.contains("draining")));
        // Nor is it told to a turn that began when it was being stopped already.
        let (_events, receiver) = mpsc::channel(1);
        let mut late = Told::new(receiver, CancellationToken::new().drop_guard(), &draining, 20);
        assert_eq!(now(&mut late), None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_a_comment_and_begins_anew_with_every_piece() {
        let Turn { events, mut told, .. } = turn();
        let began = Instant::now();
        assert_eq!(told.next().await, Some(Ok(Bytes::from_static(STILL_HERE))));
        assert_eq!(began.elapsed(), SILENCE);
        tokio::time::advance(SILENCE / 2).await;
        events.send(text("one")).await.expect("taken");
        assert!(now(&mut told).is_some_and(|piece| piece.contains("one")));
        let began = Instant::now();
        assert_eq!(told.next().await, Some(Ok(Bytes::from_static(STILL_HERE))));
        assert_eq!(began.elapsed(), SILENCE, "counted from the last piece");
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_cancels_the_turn() {
        let Turn { cancelled, told, .. } = turn();
        assert!(!cancelled.is_cancelled());
        drop(told);
        assert!(cancelled.is_cancelled());
    }
}

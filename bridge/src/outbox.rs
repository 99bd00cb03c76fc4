//! What one client's stream is still to be sent. It is bounded: what a slow reader may miss is left out first, then its stream ends. Whoever
//! fills it never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// Bytes that may wait for one client.
const ROOM: usize = 1 << 20;

/// Something for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A notification, or a request of the server's.
    Message(Bytes),
    /// The answer, after which nothing comes, and the code if it is an error.
    Answer(Bytes, Option<i64>),
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    ended: bool,
    reader: Option<Waker>,
}

/// Cheap to clone: one end fills, one reads.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Mutex<State>>);

impl Outbox {
    /// Something that may be missed. False: it was left out.
    pub fn tell(&self, message: Bytes) -> bool {
        let mut state = self.state();
        let fits = !state.ended && state.bytes + message.len() <= ROOM;
        if fits {
            state.push(Event::Message(message));
        }
        fits
    }

    /// Something without which the rest makes no sense. False: there was no room, and the stream ends here.
    pub fn ask(&self, message: Bytes) -> bool {
        let told = self.tell(message);
        if !told {
            self.end();
        }
        told
    }

    /// The last thing, whatever waits already: an answer never comes in pieces.
    pub fn answer(&self, answer: Bytes, code: Option<i64>) {
        let mut state = self.state();
        if !state.ended {
            state.push(Event::Answer(answer, code));
            state.end();
        }
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.state().end();
    }

    /// Whether nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// None: that was all.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.state();
        match state.events.pop_front() {
            Some(event) => {
                state.bytes -= event.len();
                Poll::Ready(Some(event))
            }
            None if state.ended => Poll::Ready(None),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// None: that was all.
    pub async fn next(&self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, event: Event) {
        self.bytes += event.len();
        self.events.push_back(event);
        self.wake();
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Event {
    fn len(&self) -> usize {
        match self {
            Self::Message(bytes) | Self::Answer(bytes, _) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_stream_loses_notifications_and_never_its_answer() {
        let outbox = Outbox::default();
        let large = Bytes::from(vec![b'x'; ROOM]);
        assert!(outbox.tell(large.clone()));
        assert!(!outbox.tell(Bytes::from_static(b"progress")));
        outbox.answer(large.clone(), None);
        assert_eq!(outbox.next().await, Some(Event::Message(large.clone())));
        assert_eq!(outbox.next().await, Some(Event::Answer(large, None)));
        assert_eq!(outbox.next().await, None);
    }

    #[tokio::test]
    async fn a_question_that_does_not_fit_ends_the_stream() {
        let outbox = Outbox::default();
        assert!(!outbox.ask(Bytes::from(vec![b'x'; ROOM + 1])));
        assert_eq!(outbox.next().await, None);
        assert!(!outbox.tell(Bytes::new()));
    }
}

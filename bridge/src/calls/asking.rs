//! Questions of a child of one session, and the time of calls meanwhile. While a client thinks, the time is not the call's: it stands still,
//! within a bound of its own (`THINKING`), and goes on with the answer. A request of a child's does not say for which of its calls it is
//! made: it holds the time of all of which the child has heard.

use std::collections::VecDeque;

use mcp_wire::question::{THINKING, takes_time};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Call, Calls, Limits};
use crate::session::Session;

/// Open questions whose answers are passed on, and bytes of the id of one: nobody has to answer.
const MAX_OPEN: usize = 256;
const MAX_ID: usize = 1024;

/// Those that are open, the latest last.
#[derive(Debug, Default)]
pub(super) struct Asking(VecDeque<Question>);

#[derive(Debug)]
struct Question {
    /// As JSON.
    id: Box<str>,
    /// The next call's: it was put for an earlier one.
    before: u64,
    /// So long the client may think about it; None: it need not.
    until: Option<Instant>,
}

impl Asking {
    /// Whether the id is of an open question, which it is not from now on.
    fn take(&mut self, id: &str) -> bool {
        self.0.iter().position(|open| *open.id == *id).and_then(|at| self.0.remove(at)).is_some()
    }
}

impl Call {
    /// Its time begins anew.
    pub(super) fn progresses(&mut self, limits: &Limits, now: Instant) {
        self.deadline = self.deadline.max((now + limits.timeout).min(self.latest));
    }

    /// Its client may think until then.
    pub(super) fn stands_still(&mut self, limits: &Limits, until: Instant, now: Instant) {
        self.still.get_or_insert(now);
        self.deadline = self.deadline.max(until.min(self.last(limits)));
    }

    /// Its client has answered, or need not any more.
    pub(super) fn goes_on(&mut self, limits: &Limits, now: Instant) {
        if let Some(since) = self.still.take() {
            self.latest = (self.latest + (now - since)).min(self.last(limits));
        }
        self.deadline = (now + limits.timeout).min(self.latest);
    }

    /// However much progress it makes, and however much its client is asked: a child may ask without end.
    fn last(&self, limits: &Limits) -> Instant {
        self.began + limits.longest + THINKING
    }
}

impl Calls {
    /// A question of the child's to its client. False: it is not to be put.
    pub(super) fn asks(&mut self, id: &str, method: &str, now: Instant) -> bool {
        if id.len() > MAX_ID {
            return false;
        }
        let until = takes_time(method).then(|| now + THINKING);
        self.asking.0.push_back(Question { id: id.into(), before: self.next, until });
        if self.asking.0.len() > MAX_OPEN {
            self.asking.0.pop_front();
        }
        if let Some(until) = until {
            for call in self.open.values_mut().filter(|call| call.is_owed()) {
                call.stands_still(&self.limits, until, now);
            }
        }
        true
    }

    /// The child does not want to know any more what it asked.
    pub(super) fn takes_back(&mut self, id: Option<&RawValue>, now: Instant) {
        if id.is_some_and(|id| self.asking.take(id.get())) {
            self.go_on(now);
        }
    }

    /// A client's answer. False: the child does not read; the same may come again.
    pub fn hears_answer(&mut self, session: &Session, id: &str, body: &[u8], now: Instant) -> bool {
        if self.was_answered(session, id, body, now) {
            return true;
        }
        let fits = self.has_room(body.len());
        // What nobody asked is dropped.
        if fits && self.asking.take(id) {
            self.send(body);
            self.go_on(now);
        }
        fits
    }

    /// Until when the client may think at most; None: it does not, or not for a call that is still owed.
    pub(super) fn thinks_until(&self, now: Instant) -> Option<Instant> {
        if self.asking.0.is_empty() {
            return None;
        }
        let oldest = self.open.iter().filter(|(_, call)| call.is_owed()).map(|(id, _)| *id).min()?;
        let open = self.asking.0.iter().filter(|question| question.before > oldest);
        open.filter_map(|question| question.until).max().filter(|until| *until > now)
    }

    /// One more call of which the child hears: it may not look at it before it has its client's answer.
    pub(super) fn joins(&mut self, id: u64, now: Instant) {
        if let Some(until) = self.thinks_until(now)
            && let Some(call) = self.open.get_mut(&id)
        {
            call.stands_still(&self.limits, until, now);
        }
    }

    /// Where no client thinks any more, the time of calls goes on.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.thinks_until(now).is_none() {
            for call in self.open.values_mut().filter(|call| call.is_owed() && call.still.is_some()) {
                call.goes_on(&self.limits, now);
            }
        }
    }
}

//! The calls of one child: which are in flight, whose they are, what is still to be written, and what follows from what the child says. Both
//! ids and progress tokens are ours towards the child, counted up and never used twice, so that two clients' equal ids cannot meet. Pure but
//! for the clients' outboxes: `now` is passed in, nothing waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcp_stdio::framing::{Framing as _, Newlines};
use tokio::time::Instant;

use crate::death::Death;
use crate::era::{Era, Hello, MODERN};
use crate::handshake::{By, Handshake, Known, Step};
use crate::metrics::{Metrics, Outcome};
use crate::outbox::Outbox;
use crate::post::Envelope;
use crate::session::Session;
use crate::trail::Trail;
use crate::translate::{self, Profile};
use crate::unread;
use crate::wire;

mod asking;
mod hear;
mod questions;
mod silence;
#[cfg(test)]
mod tests;

use asking::Asking;
use silence::{Follows, Silence};

pub use hear::Heard;

/// What a child and its clients may have of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls at once.
    pub in_flight: usize,
    /// Bytes that wait to be written to the child.
    pub queue: usize,
    /// Time for a call; progress begins it anew.
    pub timeout: Duration,
    /// Time for a call however much progress it makes.
    pub longest: Duration,
    /// A child that is asked, and says nothing for so long, is killed; zero: never.
    pub silence: Duration,
}

/// Why a call is not taken.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// Too much is in flight already, or waits for the child to read it: which of both.
    Busy(&'static str),
    /// There is no child, and will not be one in the time of the call; how long it takes, where one comes.
    Down(Arc<Death>, Option<Duration>),
}

/// A call, as the door hands it in.
#[derive(Debug)]
pub struct Ask {
    /// The request.
    pub envelope: Envelope,
    /// The session that it belongs to.
    pub session: Option<Arc<Session>>,
    /// Where its answer goes.
    pub out: Outbox,
    /// Members of `_meta` that continue its trace, each a key and JSON.
    pub trace: Vec<(&'static str, String)>,
    /// What is told of it beside its answer.
    pub trail: Trail,
    /// It stands until somebody ends it, and is no call: `subscriptions/listen`.
    pub stands: bool,
    /// Its client reads what comes before the answer: it may be asked something there.
    pub hears: bool,
}

#[derive(Debug)]
struct Call {
    ask: Ask,
    began: Instant,
    deadline: Instant,
    latest: Instant,
    /// Since when its client thinks about a question, and its time stands still.
    still: Option<Instant>,
    /// Where its line begins, counted from the first byte for this child; None: not given to it.
    at: Option<u64>,
    /// Lines that were no messages, when it was given to the child.
    garbled_before: u64,
    /// What the client was asked on behalf of the child.
    questions: Option<questions::Questions>,
}

impl Call {
    /// No child knows of it.
    fn is_unsent(&self) -> bool {
        self.at.is_none() && self.questions.is_none() && !self.ask.stands
    }

    /// The child has heard of it, and is to answer it.
    fn is_owed(&self) -> bool {
        self.at.is_some() && !self.ask.stands
    }
}

/// See the file.
#[derive(Debug)]
pub struct Calls {
    limits: Limits,
    metrics: Metrics,
    by: By,
    hello: Option<Arc<Hello>>,
    /// What an earlier child spoke, or may have spoken.
    known: Option<Known>,
    handshake: Option<Handshake>,
    next: u64,
    open: HashMap<u64, Call>,
    in_flight: usize,
    /// Calls for the next child, in their order.
    waiting: VecDeque<u64>,
    /// Requests of our own; nobody waits for their answers.
    own: HashSet<u64>,
    /// Our own `subscriptions/listen`.
    listening: Option<u64>,
    /// Questions to clients, by their ids as JSON.
    asked: HashMap<String, (u64, String)>,
    /// Those that the child puts itself.
    asking: Asking,
    out: Vec<u8>,
    appended: u64,
    written: u64,
    /// Lines that were no messages.
    garbled: u64,
    /// Until when; None: for ever.
    down: Option<(Arc<Death>, Option<Instant>)>,
    silence: Silence,
}

impl Calls {
    /// Without a child yet.
    pub fn new(limits: Limits, metrics: Metrics, by: By) -> Self {
        Self {
            limits,
            metrics,
            by,
            hello: None,
            known: None,
            handshake: None,
            next: 1,
            open: HashMap::new(),
            in_flight: 0,
            waiting: VecDeque::new(),
            own: HashSet::new(),
            listening: None,
            asked: HashMap::new(),
            asking: Asking::default(),
            out: Vec::new(),
            appended: 0,
            written: 0,
            garbled: 0,
            down: None,
            silence: Silence::new(limits.silence),
        }
    }

    /// What the child spoke, or what to take the next one for; None: nothing is known.
    pub fn known(&self) -> Option<Known> {
        self.known
    }

    /// What another child of the same program spoke, or may have spoken.
    pub fn expect(&mut self, known: Option<Known>) {
        self.known = known;
    }

    /// A child has started: it is asked what it is.
    pub fn began(&mut self, now: Instant) -> Heard {
        self.nothing_waits();
        self.down = None;
        self.silence = Silence::new(self.limits.silence);
        self.asking = Asking::default();
        let ids = [self.id(), self.id()];
        let (handshake, step) = Handshake::begin(self.by, ids, self.known, now);
        self.handshake = Some(handshake);
        self.step(step, now)
    }

    /// What the child said of itself; None: it has not yet.
    pub fn hello(&self) -> Option<&Arc<Hello>> {
        self.hello.as_ref()
    }

    /// The death that keeps it down for longer than this, and until when; None: for ever.
    pub fn down(&self, longer: Instant) -> Option<&(Arc<Death>, Option<Instant>)> {
        self.down.as_ref().filter(|(_, until)| until.is_none_or(|until| until > longer))
    }

    /// Takes a call; its number is for `hang_up`.
    pub fn admit(&mut self, ask: Ask, now: Instant) -> Result<u64, Refusal> {
        if let Some((death, until)) = self.down(now + self.limits.timeout) {
            return Err(Refusal::Down(Arc::clone(death), until.map(|until| until - now)));
        }
        if !self.has_room(ask.envelope.body.len()) {
            return Err(Refusal::Busy("the server does not read what waits for it already"));
        }
        if !ask.stands && self.in_flight >= self.limits.in_flight {
            return Err(Refusal::Busy("too many calls are in flight"));
        }
        if unread::is_full(&self.metrics.unread) {
            return Err(Refusal::Busy("clients do not read the answers that wait for them"));
        }
        let id = self.id();
        let (deadline, latest) = (now + self.limits.timeout, now + self.limits.longest);
        if !ask.stands {
            self.in_flight += 1;
            self.metrics.in_flight.inc();
        }
        let call = Call { ask, began: now, deadline, latest, still: None, at: None, garbled_before: 0, questions: None };
        self.open.insert(id, call);
        match self.hello.clone() {
            Some(hello) => self.give(id, &hello, now),
            None => self.waiting.push_back(id),
        }
        Ok(id)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Puts a call's line behind what is to be written.
    fn give(&mut self, id: u64, hello: &Hello, now: Instant) {
        let Some(call) = self.open.get_mut(&id) else { return };
        let begin = self.out.len();
        let ask = &call.ask;
        let nobody = Profile::default();
        let held = ask.session.as_ref().map(|session| session.profile());
        translate::request(&ask.envelope, id, hello.era, held.as_deref().unwrap_or(&nobody), &ask.trace, &mut self.out);
        Newlines.end(&mut self.out, begin);
        call.at = Some(self.appended);
        call.garbled_before = self.garbled;
        self.appends(begin);
        self.silence.asked(now);
        self.joins(id, now);
    }

    /// Whether a message of so many bytes may wait to be written.
    pub fn has_room(&self, bytes: usize) -> bool {
        let waits = self.queued();
        waits == 0 || waits + bytes as u64 <= self.limits.queue as u64
    }

    /// Sends what somebody else wants to say or to hear, who could want it without end. False: there is no room.
    pub fn pass_on(&mut self, message: &[u8]) -> bool {
        let fits = self.has_room(message.len());
        if fits {
            self.send(message);
        }
        fits
    }

    /// Puts a message behind what is to be written.
    fn send(&mut self, message: &[u8]) {
        let begin = self.out.len();
        self.out.extend_from_slice(message);
        Newlines.end(&mut self.out, begin);
        self.appends(begin);
    }

    /// A request of our own, whose answer nobody waits for.
    pub fn request(&mut self, method: &str, params: &str) -> u64 {
        let id = self.id();
        self.own.insert(id);
        self.send(&wire::request(&id.to_string(), method, params));
        id
    }

    /// Hears by itself what a modern child tells only those who ask: changed lists, and these resources. False: there is no room to say so.
    pub fn listen(&mut self, resources: &[String]) -> bool {
        let Some(hello) = self.hello.clone().filter(|hello| hello.era == Era::Modern) else { return true };
        let offers = hello.offers();
        let filter = serde_json::json!({"toolsListChanged": offers.tools, "promptsListChanged": offers.prompts,
            "resourcesListChanged": offers.resources, "resourceSubscriptions": resources});
        let params = format!(r#"{{"_meta":{},"notifications":{filter}}}"#, self.own_meta());
        if !self.has_room(params.len()) {
            return false;
        }
        if let Some(before) = self.listening.take() {
            self.cancel(before, None);
        }
        if offers.tools || offers.prompts || offers.resources || !resources.is_empty() {
            self.listening = Some(self.request("subscriptions/listen", &params));
        }
        true
    }

    /// What is to be written next; empty: nothing. The buffer that comes in is used again.
    pub fn take_out(&mut self, buffer: &mut Vec<u8>) {
        buffer.clear();
        std::mem::swap(&mut self.out, buffer);
    }

    /// So many bytes more have reached the child.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.metrics.queued.sub(signed(bytes as u64));
    }

    /// What `out` has beyond `begin` waits to be written.
    fn appends(&mut self, begin: usize) {
        let bytes = (self.out.len() - begin) as u64;
        self.appended += bytes;
        self.metrics.queued.add(signed(bytes));
    }

    /// There is nobody any more who would read it.
    fn nothing_waits(&mut self) {
        self.out.clear();
        self.metrics.queued.sub(signed(self.queued()));
        (self.appended, self.written) = (0, 0);
    }

    /// So many bytes of what was written were never read: the child has heard nothing of what begins there.
    pub fn unread(&mut self, bytes: u64) {
        let unread = bytes.min(self.written);
        self.written -= unread;
        self.metrics.queued.add(signed(unread));
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> u64 {
        self.appended - self.written
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The client of a call is gone. To hang up is to cancel, but not before 2026-07-28: there the call goes on, for nobody.
    pub fn hang_up(&mut self, id: u64) {
        let Some(call) = self.open.get(&id) else { return };
        call.ask.out.end();
        if call.ask.envelope.era == Era::Modern || call.at.is_none() {
            self.give_up(id, Outcome::Cancelled, None);
        } else if !call.ask.stands {
            self.silence.abandoned(call.began);
        }
    }

    /// A client takes back what it asked for; the id is its own, and both are JSON.
    pub fn cancelled(&mut self, session: &Arc<Session>, id: &str, reason: Option<&str>) {
        let is_it =
            |call: &Call| call.ask.envelope.id() == id && call.ask.session.as_ref().is_some_and(|own| Arc::ptr_eq(own, session));
        let found = self.open.iter().find(|(_, call)| is_it(call)).map(|(id, _)| *id);
        if let Some(id) = found
            && let Some(call) = self.give_up(id, Outcome::Cancelled, reason)
        {
            call.ask.out.end();
        }
    }

    /// When the oldest call began that the child has heard of, and for whose answer somebody waits.
    fn oldest_awaited(&self) -> Option<Instant> {
        let awaited = |call: &&Call| call.is_owed() && !call.ask.out.has_ended();
        self.open.values().filter(awaited).map(|call| call.began).min()
    }

    /// Any answer will do, also an error.
    fn ask_whether_it_hears(&mut self) {
        match self.hello.as_ref().map(|hello| hello.era) {
            Some(Era::Legacy) => self.request("ping", "{}"),
            Some(Era::Modern) => self.request("server/discover", &format!(r#"{{"_meta":{}}}"#, self.own_meta())),
            // Until it has said what it is, it has the time that a start may take.
            None => return,
        };
    }

    /// The `_meta` of our own requests to a modern child.
    fn own_meta(&self) -> String {
        let version = self.hello.as_ref().map_or(MODERN, |hello| &hello.version);
        format!(r#"{{"io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientCapabilities":{{}}}}"#)
    }

    /// The child is told that nobody waits any more.
    fn give_up(&mut self, id: u64, outcome: Outcome, reason: Option<&str>) -> Option<Call> {
        let call = self.finish(id, outcome)?;
        if call.is_owed() && outcome == Outcome::Cancelled {
            self.silence.abandoned(call.began);
        }
        if call.at.is_some() {
            self.cancel(id, reason);
        } else {
            self.waiting.retain(|waiting| *waiting != id);
        }
        Some(call)
    }

    fn cancel(&mut self, id: u64, reason: Option<&str>) {
        // Without a reason it is always told: there are no more of them than calls.
        let reason = reason.filter(|reason| self.has_room(reason.len()));
        let reason = reason.map_or_else(String::new, |reason| format!(r#","reason":{reason}"#));
        self.send(&wire::notification("notifications/cancelled", &format!(r#"{{"requestId":{id}{reason}}}"#)));
    }

    fn finish(&mut self, id: u64, outcome: Outcome) -> Option<Call> {
        let mut call = self.open.remove(&id)?;
        let took = call.began.elapsed();
        if !call.ask.stands {
            self.in_flight -= 1;
            self.metrics.in_flight.dec();
            self.metrics.finished(&call.ask.envelope.method, call.ask.envelope.target.as_deref(), outcome, took);
        }
        std::mem::take(&mut call.ask.trail).ended(&call.ask.envelope, outcome, took);
        if call.questions.is_some() {
            self.asked.retain(|_, (asker, _)| *asker != id);
        }
        Some(call)
    }

    /// Time has passed: calls end, and the handshake goes on.
    pub fn tick(&mut self, now: Instant) -> Heard {
        let late: Vec<u64> =
            self.open.iter().filter(|(_, call)| !call.ask.stands && call.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            let Some(call) = self.give_up(id, Outcome::Timeout, None) else { continue };
            if call.at.is_some() && call.still.is_none() {
                self.silence.expired();
            }
            let seconds = (now - call.began).as_secs();
            let (words, data) = match &self.down {
                Some((death, _)) if call.is_unsent() => (death.unsent(), death.data(false)),
                None if call.is_unsent() => {
                    let words = format!("the call was not sent: the server did not say within {seconds} s what it is");
                    (words, r#"{"reason":"NotSent"}"#.to_owned())
                }
                _ => {
                    let instead = match self.garbled - call.garbled_before {
                        _ if call.still.is_some() => ": it waits for an answer of its client's",
                        0 => "",
                        _ => ", and printed lines that are no messages: its log has them",
                    };
                    let words = format!("the server did not answer within {seconds} s{instead}");
                    (words, format!(r#"{{"reason":"Timeout","seconds":{seconds}}}"#))
                }
            };
            answer_error(&call, -32001, &words, &data);
        }
        let follows = if self.thinks_until(now).is_some() {
            // It is not its turn to say something.
            Follows::Nothing
        } else {
            self.go_on(now);
            self.silence.follows(self.oldest_awaited(), now)
        };
        match follows {
            Follows::Wedged => return Heard::Wedged,
            Follows::Ask => self.ask_whether_it_hears(),
            Follows::Nothing => {}
        }
        let Some(handshake) = &mut self.handshake else { return Heard::Nothing };
        let step = handshake.silent(now);
        self.step(step, now)
    }

    /// The child is gone. What it had heard of is answered; what it had not waits for the next one, if there is `until` to wait for.
    pub fn died(&mut self, death: &Arc<Death>, until: Option<Instant>) {
        self.hello = None;
        if let Some(handshake) = self.handshake.take() {
            self.known = handshake.guess();
        }
        self.own.clear();
        self.listening = None;
        self.silence = Silence::new(self.limits.silence);
        let mut unheard = Vec::new();
        let mut lost = Vec::new();
        for (id, call) in &mut self.open {
            match call.at.take() {
                Some(at) if at < self.written && !call.ask.stands => lost.push(*id),
                Some(_) => unheard.push(*id),
                // It waits already, or for its client.
                None => {}
            }
        }
        self.nothing_waits();
        unheard.sort_unstable();
        // They were before those that wait.
        for id in unheard.into_iter().rev() {
            self.waiting.push_front(id);
        }
        let heard = lost.len();
        if until.is_none() {
            lost.extend(self.open.keys());
            self.waiting.clear();
        }
        for (place, id) in lost.into_iter().enumerate() {
            let Some(call) = self.finish(id, Outcome::Exited) else { continue };
            let sent = place < heard || !call.is_unsent();
            let words = if sent { death.summary() } else { death.unsent() };
            answer_error(&call, -32000, &words, &death.data(sent));
        }
        self.down = Some((Arc::clone(death), until));
    }

    fn step(&mut self, step: Step, now: Instant) -> Heard {
        match step {
            Step::Wait => Heard::Nothing,
            Step::Send(message) => {
                self.send(&message);
                self.silence.asked(now);
                Heard::Nothing
            }
            Step::Failed(words) => Heard::NotMcp(words),
            Step::Again(known) => {
                // What this child says from now on is no word of the next one.
                self.handshake = None;
                self.nothing_waits();
                self.known = Some(known);
                Heard::Again
            }
            Step::Ready(hello, last) => {
                if let Some(last) = last {
                    self.send(&last);
                }
                self.handshake = None;
                if self.known != Some(Known::Both) {
                    self.known = Some(if hello.era == Era::Modern { Known::Modern } else { Known::Legacy });
                }
                let hello = Arc::new(hello);
                self.hello = Some(Arc::clone(&hello));
                while let Some(id) = self.waiting.pop_front() {
                    self.give(id, &hello, now);
                }
                Heard::Ready(hello)
            }
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.nothing_waits();
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn answer_error(call: &Call, code: i64, words: &str, data: &str) {
    let answer = wire::error(call.ask.envelope.id(), code, words, Some(data));
    call.ask.out.answer(Bytes::from(answer), Some(code));
}

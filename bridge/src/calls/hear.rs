//! What a child says: an answer to a call, progress of one (which begins its time anew), something for those who listen, a question, or nothing of the kind.

use std::sync::Arc;

use bytes::Bytes;
use mcp_wire::message::{self, Answer, claimed_id};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Call, Calls};
use crate::era::{Era, Hello};
use crate::handshake::By;
use crate::metrics::Outcome;
use crate::session::Session;
use crate::told::Notification;
use crate::translate;
use crate::unread;
use crate::wire::{self, Message};

const BOM: &[u8] = "\u{feff}".as_bytes();

/// What is left to do after something was heard.
#[derive(Debug)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// It was no message, or one that answers nothing that was asked.
    Stray,
    /// The child is one that can be called.
    Ready(Arc<Hello>),
    /// Another child is to be started in its place.
    Again,
    /// The child does not speak MCP.
    NotMcp(String),
    /// The child has been asked, and says nothing at all.
    Wedged,
    /// For those who listen.
    Told(Notification),
    /// A request of the child's, for the client whose child it is.
    Asks(Bytes),
}

impl Calls {
    /// A line of the child's standard output.
    pub fn heard(&mut self, line: &[u8], now: Instant) -> Heard {
        // A byte order mark is no part of a text.
        let line = line.strip_prefix(BOM).unwrap_or(line);
        let mended: String;
        let (line, message) = if let Some(message) = Message::read(line) {
            (line, message)
        } else {
            // What is said to a terminal (colours, its title) is no part of a message; what another code page has left in a text is shown
            // as such.
            mended = String::from_utf8_lossy(&strip_ansi_escapes::strip(line)).into_owned();
            let Some(message) = Message::read(mended.as_bytes()) else { return self.garbled(mended.as_bytes()) };
            (mended.as_bytes(), message)
        };
        // What is said with an id that is null wants no answer.
        let heard = match (&message.method, message.id.filter(|id| id.get() != "null")) {
            (None, id) if id.is_some() || message.error.is_some() => self.answered(line, &message, id, now),
            (Some(_), None) => self.told(line, &message, now),
            (Some(method), Some(id)) => self.was_asked(line, &method.0, id, now),
            _ => Heard::Stray,
        };
        self.silence.broken(self.open.values().any(Call::is_owed), now);
        heard
    }

    fn answered(&mut self, line: &[u8], message: &Message<'_>, id: Option<&RawValue>, now: Instant) -> Heard {
        let Some(id) = wire::number(id).or_else(|| id.is_none().then(|| self.meant(message))?) else { return Heard::Stray };
        let answer = message::answer(message.result, message.error);
        if let Some(handshake) = &mut self.handshake {
            let step = handshake.answered(id, answer);
            return self.step(step, now);
        }
        if self.own.remove(&id) {
            return Heard::Nothing;
        }
        // Answered before, or never asked.
        let Some(call) = self.open.get(&id).filter(|call| call.at.is_some()) else { return Heard::Stray };
        let child = self.hello.as_ref().map_or(Era::Legacy, |hello| hello.era);
        let (outcome, code, answer) = match answer {
            Ok(Answer::Result(result))
                if child == Era::Modern
                    && call.ask.envelope.era == Era::Legacy
                    && wire::may_say(result.get(), "input_required")
                    && translate::result_type(result).as_deref() == Some("input_required") =>
            {
                self.put_questions(id, result, now);
                return Heard::Nothing;
            }
            Ok(Answer::Result(result)) => {
                let outcome = if says_is_error(line) { Outcome::ToolError } else { Outcome::Ok };
                (outcome, None, translate::result(result, &call.ask.envelope, child))
            }
            Ok(Answer::Error(error)) => {
                let (code, answer) = translate::error(error, &call.ask.envelope);
                (Outcome::Error, Some(code), answer)
            }
            Err(fault) => {
                self.failed_by(Some(id), || format!("the server's answer is none: {fault}"));
                return Heard::Stray;
            }
        };
        if let Some(call) = self.finish(id, outcome) {
            call.ask.out.answer(unread::counted(answer, &self.metrics.unread), code);
        }
        Heard::Nothing
    }

    /// Which call an error is about that has no id: whoever could not read a request does not know it. Only where there is no doubt.
    fn meant(&self, message: &Message<'_>) -> Option<u64> {
        if message.error.is_none() || !self.own.is_empty() {
            return None;
        }
        if let Some(handshake) = &self.handshake {
            return Some(handshake.awaited());
        }
        let mut given = self.open.iter().filter(|(_, call)| call.is_owed());
        let (only, _) = given.next()?;
        given.next().is_none().then_some(*only)
    }

    /// No JSON. Where it says that it is the answer to a call, that one waits for no other: `NaN`, a key twice, a brace too few.
    fn garbled(&mut self, line: &[u8]) -> Heard {
        self.garbled += 1;
        self.failed_by(claimed_id(line, line), || match serde_json::from_slice::<serde::de::IgnoredAny>(line) {
            Err(error) => format!("the server's answer is no JSON: {error}"),
            Ok(_) => "the server's answer has a member twice".to_owned(),
        });
        Heard::Stray
    }

    /// A line of so many bytes was not read. Where its ends say that it is the answer to a call, that one waits for no other.
    pub fn left_out(&mut self, bytes: usize, head: &[u8], tail: &[u8]) {
        self.failed_by(claimed_id(head, tail), || {
            format!("the server's answer has {bytes} bytes, more than are taken in one line")
        });
    }

    fn failed_by(&mut self, answered: Option<u64>, words: impl FnOnce() -> String) {
        let call = answered.filter(|id| self.open.get(id).is_some_and(|call| call.at.is_some()));
        if let Some(call) = call.and_then(|id| self.finish(id, Outcome::Error)) {
            super::answer_error(&call, -32603, &words(), r#"{"reason":"Unreadable"}"#);
        }
    }

    fn told(&mut self, line: &[u8], message: &Message<'_>, now: Instant) -> Heard {
        let method = message.method.as_ref().map_or("", |method| method.0.as_ref());
        let params = message.params();
        if method == "notifications/progress" {
            return self.progress(line, params.progress_token, now);
        }
        if let Some(subscription) = params.meta().subscription {
            let number = wire::number(Some(subscription));
            if let Some(call) = number.and_then(|number| self.open.get(&number)) {
                call.ask.out.tell(translate::with(line, subscription, call.ask.envelope.id()).into());
                return Heard::Nothing;
            }
            // What else is not ours was of a subscription that has ended.
            if number.is_none() || number != self.listening || method == "notifications/subscriptions/acknowledged" {
                return Heard::Nothing;
            }
        }
        if method == "notifications/cancelled" {
            self.takes_back(params.request_id, now);
        }
        let mut only = None;
        if method == "notifications/message" {
            // Nothing in it says which call it belongs to. It is shown only where there is no doubt.
            match self.sole_caller() {
                Some(call) if call.ask.envelope.era == Era::Modern => {
                    if call.ask.envelope.says.log_level {
                        call.ask.out.tell(Bytes::copy_from_slice(line));
                    }
                    return Heard::Nothing;
                }
                Some(call) => {
                    let level = wire::text(params.level);
                    if call.ask.session.as_ref().is_none_or(|session| session.hears(level.as_deref())) {
                        call.ask.out.tell(Bytes::copy_from_slice(line));
                    }
                    return Heard::Nothing;
                }
                None => only = self.sole_session(),
            }
        }
        Heard::Told(Notification {
            method: method.into(),
            uri: wire::text(params.uri).map(|uri| uri.as_ref().into()),
            level: wire::text(params.level).map(|level| level.as_ref().into()),
            only,
            line: Bytes::copy_from_slice(line),
        })
    }

    fn progress(&mut self, line: &[u8], token: Option<&RawValue>, now: Instant) -> Heard {
        let call = wire::number(token).and_then(|number| self.open.get_mut(&number));
        let (Some(call), Some(token)) = (call, token) else { return Heard::Nothing };
        call.progresses(&self.limits, now);
        if let Some(own) = call.ask.envelope.token() {
            call.ask.out.tell(translate::with(line, token, own).into());
        }
        Heard::Nothing
    }

    /// The only call, or the latest one of the only session that has any.
    fn sole_caller(&self) -> Option<&Call> {
        let given = || self.open.iter().filter(|(_, call)| call.is_owed());
        let (_, latest) = given().max_by_key(|(id, _)| **id)?;
        let same = |call: &Call| match (&call.ask.session, &latest.ask.session) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => std::ptr::eq(call, latest),
        };
        given().all(|(_, call)| same(call)).then_some(latest)
    }

    fn sole_session(&self) -> Option<Arc<Session>> {
        self.sole_caller()?.ask.session.clone()
    }

    fn was_asked(&mut self, line: &[u8], method: &str, id: &RawValue, now: Instant) -> Heard {
        match self.hello.as_ref().map(|hello| hello.era) {
            // Since 2026-07-28 a server asks nothing, and an answer to it would be no message either.
            Some(Era::Modern) => Heard::Stray,
            _ if method == "ping" => {
                // Whoever reads no answers gets none.
                self.pass_on(&wire::result(id.get(), "{}"));
                Heard::Nothing
            }
            _ if self.by == By::Client => {
                if self.asks(id.get(), method, now) {
                    Heard::Asks(Bytes::copy_from_slice(line))
                } else {
                    Heard::Nothing
                }
            }
            _ => {
                let words = "clients share this child, and it may ask none of them: run it PerSession, where clients with sessions have one of their own that may";
                self.pass_on(&wire::error(id.get(), -32601, words, None));
                Heard::Nothing
            }
        }
    }

    /// The stream on which a client is asked something: that of its latest call.
    pub fn latest_call(&self) -> Option<crate::outbox::Outbox> {
        let hears = |(_, call): &(&u64, &Call)| call.ask.hears && !call.ask.out.has_ended();
        let (_, latest) = self.open.iter().filter(hears).max_by_key(|(id, _)| **id)?;
        Some(latest.ask.out.clone())
    }
}

/// Whether a tool says that it failed. In a string of JSON the quotes would be escaped; only structured content could mislead, and a metric
/// is worth no second reading of the result.
fn says_is_error(line: &[u8]) -> bool {
    const KEY: &[u8] = b"\"isError\"";
    let Some(at) = memchr::memmem::find(line, KEY) else { return false };
    let value = line[at + KEY.len()..].trim_ascii_start();
    value.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"true"))
}

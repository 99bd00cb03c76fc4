//! A modern server that needs something of a person answers `input_required`, and is called again with what it wanted. A legacy client is
//! asked for it as its era asks: by requests on the stream of its call.

use bytes::Bytes;
use mcp_wire::question::{ELICITATION, SAMPLING, THINKING, takes_time};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Calls, answer_error};
use crate::metrics::Outcome;
use crate::post::Post;
use crate::session::Session;
use crate::wire::{self, Members, Message, Text};

/// What is still to be heard of a client, and what has been.
#[derive(Debug)]
pub(super) struct Questions {
    open: usize,
    /// Key and JSON.
    answers: Vec<(String, String)>,
    /// The server's, as JSON.
    state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputRequired<'a> {
    #[serde(borrow, default)]
    input_requests: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Question<'a> {
    #[serde(borrow)]
    method: Text<'a>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// The capability that a client must have to be asked.
fn capability(method: &str) -> Option<&'static str> {
    match method {
        ELICITATION => Some("elicitation"),
        SAMPLING => Some("sampling"),
        "roots/list" => Some("roots"),
        _ => None,
    }
}

impl Calls {
    pub(super) fn put_questions(&mut self, id: u64, result: &RawValue, now: Instant) {
        let Ok(InputRequired { input_requests, request_state }) = serde_json::from_str(result.get()) else {
            return self.refuse(id, "its input_required cannot be read");
        };
        let wanted = Members::of(input_requests);
        let Some(call) = self.open.get_mut(&id) else { return };
        // It is the client's turn; the child has forgotten the call.
        call.at = None;
        let state = request_state.map(|state| state.get().to_owned());
        call.questions = Some(Questions { open: wanted.0.len(), answers: Vec::new(), state });
        for (key, question) in &wanted.0 {
            let Ok(Question { method, params }) = serde_json::from_str(question.get()) else {
                return self.refuse(id, "its input_required cannot be read");
            };
            let asks = capability(&method.0);
            let able = asks.is_some_and(|asks| {
                self.open.get(&id).is_some_and(|call| call.ask.session.as_ref().is_some_and(|session| session.can(asks)))
            });
            if !able {
                return self.refuse(id, &format!("the server needs {}, which this client does not offer", method.0));
            }
            if takes_time(&method.0)
                && let Some(call) = self.open.get_mut(&id)
            {
                call.stands_still(&self.limits, now + THINKING, now);
            }
            let own = format!(r#""mcpfleet-{id}-{}""#, self.asked.len());
            let message = wire::request(&own, &method.0, params.map_or("{}", RawValue::get));
            self.asked.insert(own, (id, key.as_ref().to_owned()));
            if !self.open.get(&id).is_some_and(|call| call.ask.hears && call.ask.out.ask(Bytes::from(message))) {
                return self.refuse(id, "the client does not read its stream");
            }
        }
        if wanted.0.is_empty() {
            self.call_again(id, now);
        }
    }

    fn refuse(&mut self, id: u64, words: &str) {
        if let Some(call) = self.finish(id, Outcome::Error) {
            answer_error(&call, -32603, words, r#"{"reason":"InputRequired"}"#);
        }
    }

    /// A client's answer to a question of ours. False: it is none.
    pub(super) fn was_answered(&mut self, session: &Session, id: &str, body: &[u8], now: Instant) -> bool {
        let Some((call_id, key)) = self.asked.get(id).cloned() else { return false };
        let Some(call) = self.open.get_mut(&call_id) else { return false };
        if !call.ask.session.as_ref().is_some_and(|own| std::ptr::eq(own.as_ref(), session)) {
            return false;
        }
        self.asked.remove(id);
        let message = Message::read(body);
        let Some(result) = message.and_then(|message| message.result) else {
            self.refuse(call_id, "the client refused to answer what the server needs");
            return true;
        };
        if let Some(questions) = &mut call.questions {
            questions.answers.push((key, result.get().to_owned()));
            questions.open -= 1;
            if questions.open == 0 {
                self.call_again(call_id, now);
            }
        }
        true
    }

    /// With what was wanted, and under a new id.
    fn call_again(&mut self, id: u64, now: Instant) {
        let Some(mut call) = self.open.remove(&id) else { return };
        let Some(Questions { answers, state, .. }) = call.questions.take() else { return };
        let raw = call.ask.envelope.params().and_then(|params| serde_json::from_str(params).ok());
        let mut params: Members<'_> = raw.unwrap_or_default();
        params.0.retain(|(key, _)| key != "inputResponses" && key != "requestState");
        let answers: Vec<_> = answers.iter().map(|(key, answer)| (key.as_str(), answer.as_str())).collect();
        let answers = Members::default().with(&answers);
        let mut more = vec![("inputResponses", answers.as_str())];
        more.extend(state.as_deref().map(|state| ("requestState", state)));
        let body = wire::request(call.ask.envelope.id(), &call.ask.envelope.method, &params.with(&more));
        if let Ok(Post::Request(again)) = Post::read(&Bytes::from(body)) {
            call.ask.envelope = again;
        }
        call.goes_on(&self.limits, now);
        let next = self.id();
        // Who hangs up knows it by its first number, and its client is of an era where that cancels nothing.
        self.open.insert(next, call);
        match self.hello.clone() {
            Some(hello) => self.give(next, &hello, now),
            None => self.waiting.push_back(next),
        }
    }
}

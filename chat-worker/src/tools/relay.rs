//! What a server says while it works on a request: progress, messages for a log, and questions. Each is for whoever made that call, and for
//! nobody else; that a page is done may be said when the call has ended, too (`pages`). The transports hand over what comes (`hear`), in its order; a caller listens by a `Relay`.

#![allow(deprecated, reason = "sampling and messages for a log, which earlier eras have")]

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mcp_wire::{
    json::{self, MAX_WEIGHT},
    question::THINKING,
};
use rmcp::{
    ErrorData,
    model::{ClientCapabilities, InputResponses, LoggingLevel, ProgressToken, RequestId},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use super::{
    pages::{self, Later, PAGE_DONE, Pages},
    question::{Question, nobody},
    sanitize::clean_line,
};
use crate::{heavy::Room, numbers};

/// Notifications that a caller has not taken yet; further ones are lost, a call does not wait for them.
const UNHEARD: usize = 256;
/// A call that tells of its progress may take so many times as long as one that does not.
const PROGRESS_EXTENDS: u32 = 20;

pub const PROGRESS: &str = "notifications/progress";
pub const LOG: &str = "notifications/message";
/// Letters of what a person is told while a server works.
const MAX_WORDS: usize = 100;

/// Something that a caller hears while its call runs.
#[derive(Debug)]
pub enum Said {
    /// A notification of a server, with its parameters as they came.
    Told {
        server: Arc<str>,
        method: &'static str,
        params: Value,
    },
    Asked(Questions),
}

impl Said {
    /// What of it a person is told who waits for the result: how far the server is, in one short line. Messages for a log are not for people.
    pub fn progress(&self) -> Option<String> {
        match self {
            Self::Told { method: PROGRESS, params, .. } => Some(in_words(params)),
            _ => None,
        }
    }
}

/// A notification in words: what it says, or how far the server is.
pub fn in_words(params: &Value) -> String {
    let words = params["message"].as_str().or_else(|| params["data"].as_str()).map(clean_line);
    let words = words.filter(|words| !words.is_empty()).unwrap_or_else(|| match (&params["progress"], &params["total"]) {
        (Value::Null, _) => params["data"].to_string(),
        (progress, Value::Null) => progress.to_string(),
        (progress, total) => format!("{progress} of {total}"),
    });
    words.chars().take(MAX_WORDS).collect()
}

/// Requests of a server to the client that called, by keys of the server's.
#[derive(Debug)]
pub struct Questions {
    pub all: Vec<(String, Question)>,
    pub answers: oneshot::Sender<HashMap<String, Result<Value, ErrorData>>>,
}

/// A caller's ear.
#[derive(Debug, Clone)]
pub struct Relay {
    said: mpsc::Sender<Said>,
    /// What of a client's abilities concerns a call: elicitation, sampling and roots.
    pub can: ClientCapabilities,
    /// From which level on it wants a modern server's messages.
    pub log_level: Option<LoggingLevel>,
    /// It makes a request again by itself, with the answers that the result asked for.
    pub comes_back: bool,
    /// It only hears of the progress, which others may hear as well who ask for the same.
    pub shares: bool,
    /// Its session, which is told of its pages when the call has ended, too.
    pub later: Option<Later>,
    /// What it answers before it was asked here: a server that keeps no state finds in it what it asks for.
    pub answers: Option<InputResponses>,
}

impl Relay {
    /// A caller's ear, and what it hears.
    pub fn new(can: ClientCapabilities, log_level: Option<LoggingLevel>, comes_back: bool) -> (Self, mpsc::Receiver<Said>) {
        let (said, hears) = mpsc::channel(UNHEARD);
        (Self { said, can, log_level, comes_back, shares: false, later: None, answers: None }, hears)
    }

    /// The ear of whoever only wants to know how far it is.
    pub fn of_progress() -> (Self, mpsc::Receiver<Said>) {
        let (relay, hears) = Self::new(ClientCapabilities::default(), None, false);
        (Self { shares: true, ..relay }, hears)
    }

    /// Passes on what was told to somebody else, too.
    pub fn hear(&self, said: &Said) {
        if let Said::Told { server, method, params } = said {
            let said = Said::Told { server: Arc::clone(server), method, params: params.clone() };
            // Whoever does not keep up misses some.
            let _ = self.said.try_send(said);
        }
    }
}

/// What comes next of a call.
#[derive(Debug)]
pub enum Next<T> {
    Said(Said),
    Over(T),
}

/// A call as its caller follows it. Whatever its server said before the answer is heard before the answer, also where both came in one piece.
#[derive(Debug)]
pub struct Following<F: Future> {
    answer: F,
    hears: mpsc::Receiver<Said>,
    /// The answer, while there is still something to hear before it.
    over: Option<F::Output>,
}

impl<F: Future + Unpin> Following<F> {
    pub fn new(answer: F, hears: mpsc::Receiver<Said>) -> Self {
        Self { answer, hears, over: None }
    }

    /// Whoever stops waiting for it misses nothing by that.
    pub async fn next(&mut self) -> Next<F::Output> {
        let answer = if let Some(answer) = self.over.take() {
            answer
        } else {
            tokio::select! {
                biased;
                Some(said) = self.hears.recv() => return Next::Said(said),
                answer = &mut self.answer => answer,
            }
        };
        loop {
            match self.hears.try_recv() {
                Ok(said @ Said::Told { .. }) => {
                    self.over = Some(answer);
                    return Next::Said(said);
                }
                // Nobody waits for that any more.
                Ok(Said::Asked(_)) => {}
                Err(_) => return Next::Over(answer),
            }
        }
    }
}

/// One call that is under way.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whom it was made to, by name.
    server: Arc<str>,
    relay: Option<Relay>,
    time: Arc<Mutex<Time>>,
    /// A question has been answered, or is no longer open.
    goes_on: Arc<Notify>,
}

/// How a call's time goes, and what belongs to it meanwhile.
#[derive(Debug)]
struct Time {
    began: Instant,
    last: Instant,
    /// Questions that wait for their answers.
    asking: usize,
    /// The pages that its caller was asked to open.
    pages: Vec<String>,
    /// What its answer takes of the memory, once that has been read.
    room: Option<Room>,
}

impl Call {
    pub fn new(server: Arc<str>, relay: Option<Relay>) -> Self {
        let now = Instant::now();
        Self {
            server,
            relay,
            time: Arc::new(Mutex::new(Time { began: now, last: now, asking: 0, pages: Vec::new(), room: None })),
            goes_on: Arc::default(),
        }
    }

    /// When it is to be given up, as things are: `limit` after its begin, its last progress, or its last answer to a question.
    fn due(&self, limit: Duration) -> Instant {
        let time = self.time();
        if time.asking > 0 {
            return time.last + THINKING;
        }
        (time.last + limit).min(time.began + limit.saturating_mul(PROGRESS_EXTENDS))
    }

    /// Until it is to be given up. Progress, and a question, put that off; the answer brings it nearer again.
    pub async fn over(&self, limit: Duration) {
        loop {
            let due = self.due(limit);
            tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    if self.due(limit) <= due {
                        return;
                    }
                }
                () = self.goes_on.notified() => {}
            }
        }
    }

    /// Asks whoever made the call. Fails at once where that cannot answer.
    pub async fn ask(&self, all: Vec<(String, Question)>) -> Result<HashMap<String, Result<Value, ErrorData>>, ErrorData> {
        let relay = self.relay.as_ref().ok_or_else(nobody)?;
        if let Some(refusal) = all.iter().find_map(|(_, question)| question.refusal(&relay.can)) {
            return Err(refusal);
        }
        let pages: Vec<String> = all.iter().filter_map(|(_, question)| question.page()).collect();
        self.given(pages.iter().map(String::as_str));
        self.time().pages.extend(pages);
        let (answers, given) = oneshot::channel();
        // What a program answers by itself takes the call's own time.
        let takes_time = all.iter().any(|(_, question)| question.takes_time());
        relay.said.send(Said::Asked(Questions { all, answers })).await.map_err(|_| nobody())?;
        let _asking = takes_time.then(|| Asking::begin(self));
        given.await.map_err(|_| ErrorData::internal_error("the question was not answered", None))
    }

    /// Notes what its caller is asked to open by the error in the place of a result.
    pub fn refused(&self, error: &ErrorData) {
        self.given(pages::asked_first(error).filter_map(pages::id));
    }

    fn given<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        if let Some(later) = self.relay.as_ref().and_then(|relay| relay.later.as_ref()) {
            later.given(&self.server, ids);
        }
    }

    /// What its answer takes of the memory: kept by whoever has the answer now.
    pub fn take_room(&self) -> Option<Room> {
        self.time().room.take()
    }

    fn progressed(&self) {
        self.time().last = Instant::now();
    }

    fn time(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While somebody thinks, the call's time stands still.
struct Asking<'a> {
    call: &'a Call,
    since: Instant,
}

impl<'a> Asking<'a> {
    fn begin(call: &'a Call) -> Self {
        let since = Instant::now();
        let mut time = call.time();
        time.asking += 1;
        time.last = since;
        Self { call, since }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut time = self.call.time();
        let now = Instant::now();
        time.asking -= 1;
        time.last = now;
        time.began += now - self.since;
        self.call.goes_on.notify_one();
    }
}

/// The calls of one connection that are under way.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    all: Arc<Mutex<HashMap<RequestId, Call>>>,
    server: Arc<str>,
    pages: Pages,
}

impl Calls {
    /// Of a connection to this server. What is said of `pages` goes on to those who were given them.
    pub fn new(server: &str, pages: Pages) -> Self {
        Self { all: Arc::default(), server: server.into(), pages }
    }

    /// Notes a call that is being sent, whose progress is told by its own id: before the server can say anything about it.
    pub fn begun(&self, id: &RequestId, call: &Call) {
        self.all().insert(id.clone(), call.clone());
    }

    /// Notes what the answer to a request takes of the memory; nobody's takes none.
    pub fn keep(&self, id: &RequestId, room: Option<Room>) {
        let call = self.all().get(id).cloned();
        if let Some(call) = call {
            call.time().room = room;
        }
    }

    /// When the last of them is to be given up that are under way, as things are; `None` while there are none.
    pub fn due(&self, limit: Duration) -> Option<Instant> {
        self.all().values().map(|call| call.due(limit)).max()
    }

    /// It is over, however that came.
    pub fn ended(&self, id: &RequestId) {
        self.all().remove(id);
    }

    /// Takes a message that is no answer. `of`: the request on whose stream it came. False for what is no caller's to hear.
    pub fn hear(&self, of: Option<&RequestId>, message: &[u8]) -> bool {
        let Ok(Heard { method: Some(method), id: None, params }) = serde_json::from_slice(message) else { return false };
        if !matches!(&*method, PROGRESS | LOG | PAGE_DONE) {
            return false;
        }
        let params: Value = params.and_then(read).unwrap_or_default();
        match &*method {
            PROGRESS => {
                let token: Option<ProgressToken> =
                    params.get("progressToken").and_then(|token| serde_json::from_value(token.clone()).ok());
                let call = token.and_then(|token| self.all().get(&token.0).cloned());
                if let Some(call) = call {
                    call.progressed();
                    tell(&call, PROGRESS, params);
                }
            }
            LOG => {
                if let Some(call) = self.of(of) {
                    tell(&call, LOG, params);
                }
            }
            PAGE_DONE => self.page_done(&params),
            _ => {}
        }
        true
    }

    /// Tells whoever was asked to open the page: by its call, while that runs, and else its session.
    fn page_done(&self, params: &Value) {
        let Some(page) = pages::id(params) else { return };
        let asked = |call: &&Call| call.time().pages.iter().any(|asked| asked == page);
        let calls: Vec<Call> = self.all().values().filter(asked).cloned().collect();
        for call in &calls {
            tell(call, PAGE_DONE, params.clone());
        }
        let told = calls.iter().filter_map(|call| call.relay.as_ref()?.later.as_ref()).map(|later| Arc::clone(&later.session));
        self.pages.done(&self.server, params, &told.collect::<Vec<_>>());
    }

    /// The call that a message of the server's belongs to: the one on whose stream it came, else the only one there is. Of several, nobody
    /// can tell which.
    pub fn of(&self, request: Option<&RequestId>) -> Option<Call> {
        let all = self.all();
        match request {
            Some(id) => all.get(id).cloned(),
            None if all.len() == 1 => all.values().next().cloned(),
            None => None,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RequestId, Call>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not too deep, and not too much.
fn read(params: &RawValue) -> Option<Value> {
    let tidied = json::tidy(params.get().as_bytes(), MAX_WEIGHT).ok()?;
    json::parse(&numbers::guard(&tidied)).ok()
}

fn tell(call: &Call, method: &'static str, params: Value) {
    if let Some(relay) = &call.relay {
        // Whoever does not keep up misses some.
        let _ = relay.said.try_send(Said::Told { server: Arc::clone(&call.server), method, params });
    }
}

#[derive(Deserialize)]
struct Heard<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    id: Option<IgnoredAny>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(calls: &Calls, id: i64, can: Value) -> (Call, mpsc::Receiver<Said>) {
        let (relay, hears) = Relay::new(serde_json::from_value(can).expect("capabilities"), None, false);
        let call = Call::new("s".into(), Some(relay));
        calls.begun(&RequestId::Number(id), &call);
        (call, hears)
    }

    fn heard(hears: &mut mpsc::Receiver<Said>) -> Option<Value> {
        match hears.try_recv().ok()? {
            Said::Told { params, .. } => Some(params),
            Said::Asked(_) => None,
        }
    }

    fn asked(said: Said) -> Option<Questions> {
        match said {
            Said::Asked(questions) => Some(questions),
            Said::Told { .. } => None,
        }
    }

    #[test]
    fn each_caller_hears_of_its_own_call_only() {
        let calls = Calls::default();
        let ((_one, mut first), (_two, mut second)) = (call(&calls, 1, json!({})), call(&calls, 2, json!({})));
        let hear = |of: Option<i64>, method: &str, params: Value| {
            calls.hear(
                of.map(RequestId::Number).as_ref(),
                json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string().as_bytes(),
            );
        };
        hear(None, PROGRESS, json!({"progressToken": 2, "progress": 1}));
        assert_eq!((heard(&mut first), heard(&mut second)), (None, Some(json!({"progressToken": 2, "progress": 1}))));
        hear(Some(1), LOG, json!({"level": "info", "data": "x"}));
        assert_eq!((heard(&mut first).is_some(), heard(&mut second)), (true, None));
        hear(None, LOG, json!({"level": "info", "data": "of whom?"}));
        hear(None, PROGRESS, json!({"progressToken": 9, "progress": 1}));
        hear(Some(1), "notifications/other", json!({}));
        assert_eq!((heard(&mut first), heard(&mut second)), (None, None));
        calls.ended(&RequestId::Number(1));
        hear(None, LOG, json!({"level": "info", "data": "of the only one"}));
        assert_eq!((heard(&mut first), heard(&mut second).is_some()), (None, true));
    }

    #[test]
    fn what_is_nested_without_end_is_passed_over() {
        let calls = Calls::default();
        let (_call, mut hears) = call(&calls, 1, json!({}));
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let message = format!(r#"{{"jsonrpc":"2.0","method":"{LOG}","params":{{"level":"info","data":{deep}}}}}"#);
        assert!(calls.hear(None, message.as_bytes()));
        assert_eq!(heard(&mut hears), Some(Value::Null));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_and_questions_extend_a_call_within_bounds() {
        let calls = Calls::default();
        let limit = Duration::from_secs(10);
        let began = Instant::now();
        let (call, mut hears) = call(&calls, 1, json!({"elicitation": {}}));
        assert_eq!(call.due(limit), began + limit);
        tokio::time::advance(Duration::from_secs(6)).await;
        calls.hear(None, br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#);
        assert_eq!(call.due(limit), began + Duration::from_secs(16));
        let question = r#"{"method": "elicitation/create", "params": {"message": "sure?", "requestedSchema": {}}}"#;
        let question: Question = serde_json::from_str(question).expect("a question");
        let asking = tokio::spawn({
            let call = call.clone();
            async move { call.ask(vec![("q".to_owned(), question)]).await }
        });
        let _progress = hears.recv().await;
        let questions = hears.recv().await.and_then(asked).expect("a question");
        tokio::task::yield_now().await;
        assert_eq!(call.due(limit), Instant::now() + THINKING);
        tokio::time::advance(Duration::from_mins(1)).await;
        questions.answers.send(HashMap::from([("q".to_owned(), Ok(json!({"action": "accept"})))])).expect("taken");
        asking.await.expect("no panic").expect("answers");
        assert_eq!(call.due(limit), Instant::now() + limit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_after_its_question_was_answered_is_given_up_in_its_own_time() {
        let (call, mut hears) = call(&Calls::default(), 1, json!({"elicitation": {}}));
        let limit = Duration::from_secs(10);
        let question = r#"{"method": "elicitation/create", "params": {"message": "sure?", "requestedSchema": {}}}"#;
        let question: Question = serde_json::from_str(question).expect("a question");
        let answered = async {
            let asking = call.ask(vec![("q".to_owned(), question)]);
            let answering = async {
                let questions = hears.recv().await.and_then(asked).expect("a question");
                tokio::time::sleep(limit * 3).await;
                questions.answers.send(HashMap::new()).expect("taken");
            };
            let (answers, ()) = tokio::join!(asking, answering);
            answers.expect("answers");
            Instant::now()
        };
        let ((), answered) = tokio::join!(call.over(limit), answered);
        assert_eq!((Instant::now() - answered).as_secs(), limit.as_secs());
    }

    #[test]
    fn what_a_server_tells_meanwhile_is_one_short_line() {
        assert_eq!(in_words(&json!({"progress": 2, "total": 3, "message": "half\n way"})), "half way");
        assert_eq!(in_words(&json!({"progress": 2, "total": 3})), "2 of 3");
        assert_eq!(in_words(&json!({"progress": 0.5})), "0.5");
        assert_eq!(in_words(&json!({"level": "info", "data": "\u{1b}[31mreading"})), "[31mreading");
        assert_eq!(in_words(&json!({"level": "info", "data": {"rows": 3}})), r#"{"rows":3}"#);
        assert_eq!(in_words(&json!({"data": "x".repeat(9_000)})).len(), MAX_WORDS);
    }

    #[tokio::test]
    async fn whatever_was_said_before_the_answer_is_heard_before_it() {
        let calls = Calls::default();
        let (call, hears) = call(&calls, 1, json!({}));
        // The answer comes while it is looked at, and with it what was said before.
        let answer = Box::pin(async {
            for step in 1..=2 {
                tell(&call, PROGRESS, json!({"progressToken": 1, "progress": step}));
            }
            "the answer"
        });
        let mut following = Following::new(answer, hears);
        for step in ["1", "2"] {
            assert!(matches!(following.next().await, Next::Said(said) if said.progress().as_deref() == Some(step)));
        }
        assert!(matches!(following.next().await, Next::Over("the answer")));
    }
}

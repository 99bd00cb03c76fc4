//! Calls that are under way, for clients that hear of them. A question of a server goes to a client of an earlier era on the stream of its
//! call, and its answer comes as a request of its own; one of the modern era gets it as the call's result, and makes the call again with the
//! answer, while the server waits.

#![allow(deprecated, reason = "messages for a log, which earlier eras have")]

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::http::{StatusCode, request::Parts};
use futures::future::{BoxFuture, join_all};
use http_server::request_id;
use mcp_wire::question::THINKING;
use rmcp::{
    ErrorData, RoleServer,
    model::{CustomNotification, InputResponses, LoggingLevel, RequestId, ServerNotification},
    service::{Peer, RequestContext},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, unguessable},
    levels::Levels,
    offered::Answer,
};
use crate::{
    numbers,
    tools::{
        level::is_for,
        question::Question,
        relay::{Following, LOG, Next, PROGRESS, Questions, Said},
    },
};

/// Calls that wait for their clients' answers, and what they take of the memory together, in bytes; beyond that, the oldest are given up.
const MAX_WAITING: usize = 256;
const MAX_WEIGHT: usize = 64 << 20;
/// Questions whose answers may still come, though nobody waits for them.
const MAX_LATE: usize = 1_024;
/// The SDK gives a question an id that is only its own within one stream, and waits for the answer there. It passes notifications as they
/// are: a question travels in one of this name, and becomes a request where it leaves (`as_request`).
const IN_A_NOTIFICATION: &str = "mcpfleet.dev/question";
const CANCELLED: &str = "notifications/cancelled";

/// A request under way.
pub struct Running {
    /// What is asked for: its answers belong to the same.
    pub what: String,
    pub call: Following<BoxFuture<'static, Result<Answer, ErrorData>>>,
    /// Ends it.
    pub cancel: CancellationToken,
    /// What it was asked for with takes of the memory, in bytes.
    pub weight: usize,
}

/// Who asks for something, and waits for it.
#[derive(Debug)]
pub struct Asker {
    pub client: Client,
    /// Of its request.
    pub id: RequestId,
    /// By which the logs name it.
    pub request_id: String,
    pub ear: Ear,
    /// That it has left.
    pub gone: CancellationToken,
    /// Ends its request, also where it says so by another one.
    pub cancel: CancellationToken,
}

/// What a client hears by, before the answer.
#[derive(Debug, Clone)]
pub enum Ear {
    /// The SDK writes to it.
    Peer(Peer<RoleServer>),
    /// We do.
    Stream(mpsc::Sender<Message>),
}

/// What a client is sent, as JSON.
#[derive(Debug)]
pub enum Message {
    /// Before the answer.
    Said(String),
    /// With the status that it has where nothing is said before it.
    Answer(StatusCode, String),
    /// There is no answer: its client has cancelled the request.
    Ended,
}

impl Asker {
    /// Of a request that the SDK handed over.
    pub fn of(context: &RequestContext<RoleServer>) -> Self {
        let parts = context.extensions.get::<Parts>();
        Self {
            client: Client::of(context),
            id: context.id.clone(),
            request_id: parts.map(|parts| request_id::of(&parts.headers).to_owned()).unwrap_or_default(),
            ear: Ear::Peer(context.peer.clone()),
            gone: context.ct.clone(),
            cancel: CancellationToken::new(),
        }
    }
}

impl Ear {
    /// The client may be gone: then its call is cancelled.
    async fn tell(&self, method: &str, params: Value) {
        let _ = match self {
            Self::Peer(peer) => notify(peer, method, params).await.ok(),
            Self::Stream(to) => {
                let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
                to.send(Message::Said(numbers::written(&message))).await.ok()
            }
        };
    }

    /// Puts a question; `None` where the client is gone.
    async fn ask(&self, id: &str, question: Question) -> Option<()> {
        match self {
            Self::Peer(peer) => {
                let travels = json!({"id": id, "method": question.method, "written": question.params()});
                notify(peer, IN_A_NOTIFICATION, travels).await.ok()
            }
            Self::Stream(to) => to.send(Message::Said(request(id, &question.method, question.params()))).await.ok(),
        }
    }
}

/// Questions that are put and not answered yet, by the ids that their client knows them by.
type Open = Arc<tokio::sync::Mutex<HashSet<String>>>;

/// Tells a client of the questions that nobody waits for the answers of: their server withdrew them, or the call has ended.
async fn withdraw(open: &Open, ear: &Ear) {
    for id in open.lock().await.drain() {
        ear.tell(CANCELLED, json!({"requestId": id, "reason": "the answer is not waited for any more"})).await;
    }
}

/// A call that waits for its client's answers.
struct Waiting {
    running: Running,
    answers: oneshot::Sender<HashMap<String, Result<Value, ErrorData>>>,
    /// What is asked, by its keys, and as its client was told.
    keys: Vec<String>,
    asks: Box<RawValue>,
    since: Instant,
}

/// What becomes of a call whose client comes back.
pub enum Resumed {
    Goes(Box<Running>),
    /// Not all of its questions are answered.
    AsksAgain(Answer),
    /// The state that came is of another request.
    Another,
}

/// Questions to clients of earlier eras. Each that is not answered is in one of both.
#[derive(Default)]
struct Asked {
    /// By the ids that they went out with.
    waiting: HashMap<String, oneshot::Sender<Result<Value, ErrorData>>>,
    /// The ids of those that nobody waits for any more: the last ones.
    late: VecDeque<String>,
}

/// What waits for clients.
#[derive(Default)]
pub struct Calls {
    asked: Mutex<Asked>,
    /// Calls of clients of the modern era, by the state that those bring back.
    waiting: Mutex<HashMap<String, Waiting>>,
    /// Calls of clients of earlier eras, by session and request, so that those can cancel them.
    running: Mutex<HashMap<(String, String), CancellationToken>>,
    pub(super) levels: Levels,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

impl Calls {
    /// Stays with a call until it has ended, or asks its client.
    pub async fn accompany(self: &Arc<Self>, mut running: Running, asker: &Asker) -> Result<Answer, ErrorData> {
        let mut all = Vec::<Open>::new();
        loop {
            tokio::select! {
                biased;
                next = running.call.next() => match next {
                    Next::Said(Said::Told { server, method, params }) => self.tell(&server, asker, method, params).await,
                    Next::Said(Said::Asked(questions)) if asker.client.is_modern => return Ok(self.wait(running, questions)),
                    Next::Said(Said::Asked(questions)) => all.push(self.ask_all(questions, asker.ear.clone())),
                    Next::Over(output) => {
                        for open in &all {
                            withdraw(open, &asker.ear).await;
                        }
                        return output;
                    }
                },
                () = asker.gone.cancelled(), if !running.cancel.is_cancelled() => running.cancel.cancel(),
            }
        }
    }

    /// Keeps a call until its client comes back with the answers, and says what is asked.
    fn wait(&self, running: Running, questions: Questions) -> Answer {
        let Questions { all, answers } = questions;
        let named = |key: &str| if key.is_empty() { "question".to_owned() } else { key.to_owned() };
        let asked = |(key, question): &(String, Question)| {
            format!(r#"{}:{{"method":{},"params":{}}}"#, json!(named(key)), json!(question.method), question.params())
        };
        let requests = all.iter().map(asked).collect::<Vec<_>>().join(",");
        let state = unguessable();
        let asks = format!(r#"{{"resultType":"input_required","inputRequests":{{{requests}}},"requestState":"{state}"}}"#);
        let asks = RawValue::from_string(asks).unwrap_or_default();
        let keys = all.iter().map(|(key, _)| named(key)).collect();
        let mut waiting = held(&self.waiting);
        waiting.retain(|_, call| call.since.elapsed() < THINKING);
        let is_full = |waiting: &HashMap<String, Waiting>| {
            let weight = waiting.values().fold(running.weight, |sum, call| sum.saturating_add(call.running.weight));
            waiting.len() >= MAX_WAITING || weight > MAX_WEIGHT
        };
        while is_full(&waiting) {
            let oldest = waiting.iter().min_by_key(|(_, call)| call.since).map(|(state, _)| state.clone());
            let Some(oldest) = oldest else { break };
            waiting.remove(&oldest);
        }
        waiting.insert(state, Waiting { running, answers, keys, asks: asks.clone(), since: Instant::now() });
        Answer::Written(asks)
    }

    /// Gives a call the answers that its client came back with, when they are all there; `None` when it does not wait, or not any more.
    pub fn resume(&self, state: &str, what: &str, answers: InputResponses) -> Option<Resumed> {
        let mut all = held(&self.waiting);
        let call = all.get_mut(state)?;
        if call.running.what != what {
            return Some(Resumed::Another);
        }
        if !call.keys.iter().all(|key| answers.contains_key(key)) {
            call.since = Instant::now();
            return Some(Resumed::AsksAgain(Answer::Written(call.asks.clone())));
        }
        let Waiting { running, answers: to, .. } = all.remove(state)?;
        // Whoever asked may be gone: then the call has failed, which is told next.
        let _ = to.send(answers.into_iter().map(|(key, answer)| (key, Ok(answer))).collect());
        Some(Resumed::Goes(Box::new(running)))
    }

    /// From which level on a client wants messages for a log: it says so with each request, or its session once.
    pub fn log_level(&self, client: &Client) -> Option<LoggingLevel> {
        client.log_level.or_else(|| self.levels.of(client.session.as_deref()?))
    }

    /// Passes a notification of a server on: progress by the client's own token, messages with the server's name, and of the levels that the
    /// client wants.
    async fn tell(&self, server: &str, asker: &Asker, method: &str, mut params: Value) {
        let client = &asker.client;
        let Some(fields) = params.as_object_mut() else { return };
        match method {
            PROGRESS => {
                let Some(token) = &client.token else { return };
                fields.insert("progressToken".to_owned(), token.clone());
            }
            LOG => {
                let level = fields.get("level").and_then(|level| LoggingLevel::deserialize(level).ok());
                if !client.takes_logs() || !is_for(level, self.log_level(client)) {
                    return;
                }
                let own = fields.get("logger").and_then(Value::as_str);
                let logger = own.map_or_else(|| server.to_owned(), |own| format!("{server}/{own}"));
                fields.insert("logger".to_owned(), logger.into());
            }
            _ => {}
        }
        asker.ear.tell(method, params).await;
    }

    /// Gives up those that nobody came back for.
    pub fn forget(&self) {
        held(&self.waiting).retain(|_, call| call.since.elapsed() < THINKING);
    }

    /// Puts questions; what is returned are those that are open.
    fn ask_all(self: &Arc<Self>, questions: Questions, ear: Ear) -> Open {
        let (calls, open) = (Arc::clone(self), Open::default());
        let those = Arc::clone(&open);
        tokio::spawn(async move {
            let Questions { all, mut answers } = questions;
            let asked = join_all(all.into_iter().map(async |(key, question)| (key, calls.ask(&ear, question, &open).await)));
            let given = tokio::select! {
                given = asked => Some(given),
                () = answers.closed() => None,
            };
            match given {
                // The call may have ended just now.
                Some(given) => drop(answers.send(given.into_iter().collect())),
                None => withdraw(&open, &ear).await,
            }
        });
        those
    }

    async fn ask(&self, ear: &Ear, question: Question, open: &Open) -> Result<Value, ErrorData> {
        let id = unguessable();
        let (answer, given) = oneshot::channel();
        held(&self.asked).waiting.insert(id.clone(), answer);
        let _asked = Unanswered { calls: self, id: id.clone() };
        open.lock().await.insert(id.clone());
        ear.ask(&id, question).await.ok_or_else(|| ErrorData::internal_error("the client is gone", None))?;
        let given = given.await.unwrap_or_else(|_| Err(ErrorData::internal_error("there was no answer", None)));
        open.lock().await.remove(&id);
        given
    }

    /// An answer that a client of an earlier era sends; false where it answers no question of ours. One that comes late is passed over: some
    /// clients end when it is refused.
    pub fn answered(&self, id: &Value, answer: Result<Value, ErrorData>) -> bool {
        let Some(id) = id.as_str() else { return false };
        let mut asked = held(&self.asked);
        if let Some(to) = asked.waiting.remove(id) {
            // The call may have ended just now.
            let _ = to.send(answer);
            return true;
        }
        let place = asked.late.iter().position(|other| other == id);
        place.and_then(|place| asked.late.remove(place)).is_some()
    }

    /// Notes a call that its client may cancel by another request, for as long as the result lives.
    pub fn begun(
        &self,
        session: &str,
        id: &impl ToString,
        cancel: &CancellationToken,
    ) -> Forgotten<'_, (String, String), CancellationToken> {
        let key = (session.to_owned(), id.to_string());
        held(&self.running).insert(key.clone(), cancel.clone());
        Forgotten { all: &self.running, key }
    }

    /// Cancels a call of that session.
    pub fn cancelled(&self, session: &str, id: &Value) {
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        if let Some(cancel) = held(&self.running).remove(&(session.to_owned(), id)) {
            cancel.cancel();
        }
    }
}

/// A question that is put. Where this is dropped before it is answered, the answer comes late.
struct Unanswered<'a> {
    calls: &'a Calls,
    id: String,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        // Both at once: an answer that comes just now is not one to nothing.
        let mut asked = held(&self.calls.asked);
        if asked.waiting.remove(&self.id).is_some() {
            asked.late.push_back(std::mem::take(&mut self.id));
            if asked.late.len() > MAX_LATE {
                asked.late.pop_front();
            }
        }
    }
}

/// Takes its entry out of a table when it is dropped.
pub struct Forgotten<'a, K: std::hash::Hash + Eq, V> {
    all: &'a Mutex<HashMap<K, V>>,
    key: K,
}

impl<K: std::hash::Hash + Eq, V> Drop for Forgotten<'_, K, V> {
    fn drop(&mut self) {
        held(self.all).remove(&self.key);
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A question as its client reads it.
fn request(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"method":{},"params":{params}}}"#, json!(id), json!(method))
}

async fn notify(peer: &Peer<RoleServer>, method: &str, params: Value) -> Result<(), rmcp::ServiceError> {
    peer.send_notification(ServerNotification::CustomNotification(CustomNotification::new(method, Some(params)))).await
}

/// The events of a stream as they leave: questions are requests again.
pub fn as_request(events: &[u8]) -> Option<String> {
    memchr::memmem::find(events, IN_A_NOTIFICATION.as_bytes())?;
    let text = std::str::from_utf8(events).ok()?;
    let rewritten = |line: &str| {
        let message: Value = serde_json::from_str(line.strip_prefix("data:")?).ok()?;
        let travels = message.get("params").filter(|_| message["method"] == IN_A_NOTIFICATION)?;
        let [id, method, written] = ["id", "method", "written"].map(|field| travels[field].as_str());
        // What servers write may have line breaks between its fields, and only there.
        Some(format!("data: {}\n", request(id?, method?, &written?.replace(['\r', '\n'], " "))))
    };
    Some(text.split_inclusive('\n').map(|line| rewritten(line).unwrap_or_else(|| line.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_comes_late_is_taken_once_and_one_to_nothing_is_not() {
        let (calls, open) = (Calls::default(), Open::default());
        let (to, mut said) = mpsc::channel(1);
        let question = || serde_json::from_str(r#"{"method": "roots/list"}"#).expect("a question");
        let ear = Ear::Stream(to);
        let mut put = async || {
            // So many in a row are more than one turn of a task may do.
            tokio::task::yield_now().await;
            let mut asking = Box::pin(calls.ask(&ear, question(), &open));
            assert!(futures::poll!(&mut asking).is_pending());
            let Some(Message::Said(question)) = said.recv().await else { unreachable!("it is put") };
            let question: Value = serde_json::from_str(&question).expect("JSON");
            (asking, question["id"].clone())
        };
        let (asking, id) = put().await;
        assert!(calls.answered(&id, Ok(json!({"roots": []}))) && asking.await == Ok(json!({"roots": []})));
        assert!(!calls.answered(&id, Ok(json!({}))), "it has been answered");
        let (asking, id) = put().await;
        drop(asking);
        assert_eq!([0; 2].map(|_: i32| calls.answered(&id, Ok(json!({})))), [true, false]);
        assert!(!calls.answered(&json!(7), Ok(json!({}))) && !calls.answered(&json!("x"), Ok(json!({}))));
        for _ in 0..200 {
            let (asking, id) = put().await;
            let taken = std::thread::scope(|scope| {
                let answering = scope.spawn(|| calls.answered(&id, Ok(json!({}))));
                drop(asking);
                answering.join()
            });
            assert!(taken.is_ok_and(|taken| taken), "it comes while the question is given up");
        }
        for _ in 0..=MAX_LATE {
            drop(put().await);
        }
        let asked = held(&calls.asked);
        assert_eq!((asked.late.len(), asked.waiting.len()), (MAX_LATE, 0));
    }

    #[test]
    fn calls_that_wait_take_no_more_of_the_memory_than_is_bearable() {
        let calls = Calls::default();
        let wait = |weight| {
            let (answers, given) = oneshot::channel();
            let call = Following::new(std::future::pending().boxed(), mpsc::channel(1).1);
            let running = Running { what: String::new(), call, cancel: CancellationToken::new(), weight };
            calls.wait(running, Questions { all: Vec::new(), answers });
            given
        };
        let all = [MAX_WEIGHT / 2, MAX_WEIGHT / 2, 0, 1, MAX_WEIGHT].map(wait);
        let given_up = all.map(|mut given| given.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(given_up, [true, true, true, true, false], "the first ones make room");
        assert_eq!(held(&calls.waiting).len(), 1);
    }

    #[test]
    fn a_question_leaves_as_a_request_and_everything_else_as_it_is() {
        let event = |message: &Value| format!("id: 1\ndata: {message}\n\n");
        let params = json!({"id": "x", "method": "elicitation/create", "written": "{\"message\":\n\"?\"}"});
        let left = as_request(event(&json!({"jsonrpc": "2.0", "method": IN_A_NOTIFICATION, "params": params})).as_bytes());
        let left = left.expect("a question");
        let data = left.lines().nth(1).and_then(|line| line.strip_prefix("data: ")).expect("data");
        let request: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(request, json!({"jsonrpc": "2.0", "id": "x", "method": "elicitation/create", "params": {"message": "?"}}));
        assert!(left.starts_with("id: 1\n") && left.ends_with("\n\n"), "{left}");
        let other = event(&json!({"jsonrpc": "2.0", "id": 1, "result": {"text": IN_A_NOTIFICATION}}));
        assert_eq!(as_request(other.as_bytes()).as_deref(), Some(&other[..]));
        assert_eq!(as_request(b"data: {}\n\n"), None);
    }
}

//! The session of a legacy client: what it said of itself, what it wants to hear, and the stream on which it listens.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::outbox::Outbox;
use crate::seal::Sealed;
use crate::translate::Profile;

/// Questions of a server that may wait for its client to listen.
const BACKLOG: usize = 64;

/// Resources that one client may want to hear of.
pub const MAX_RESOURCES: usize = 1024;

/// Bytes of the name of one.
pub const MAX_URI: usize = 8192;

/// From the least to the most severe.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// One session.
#[derive(Debug)]
pub struct Session {
    /// As the client knows it.
    pub id: Box<str>,
    /// What is sealed in its id.
    pub sealed: Sealed,
    /// Streams and calls that are open.
    open: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    profile: Arc<Profile>,
    level: Option<usize>,
    stream: Option<Outbox>,
    /// Waits for a stream.
    backlog: VecDeque<Bytes>,
    resources: HashSet<String>,
    last_used: Instant,
}

/// While it lives, its session is in use.
#[derive(Debug)]
pub struct InUse(Arc<Session>);

impl Session {
    /// As its sealed id says.
    pub fn new(id: &str, sealed: Sealed, now: Instant) -> Arc<Self> {
        let profile = Profile { capabilities: sealed.capabilities.clone(), info: sealed.info.clone(), log_level: None };
        let state = State {
            profile: Arc::new(profile),
            level: None,
            stream: None,
            backlog: VecDeque::new(),
            resources: HashSet::new(),
            last_used: now,
        };
        Arc::new(Self { id: id.into(), sealed, open: AtomicUsize::new(0), state: Mutex::new(state) })
    }

    /// What its client said of itself.
    pub fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.state().profile)
    }

    /// Whether its client said that it can do something.
    pub fn can(&self, capability: &str) -> bool {
        let said: Option<Value> = self.sealed.capabilities.as_deref().and_then(|all| serde_json::from_str(all).ok());
        said.is_some_and(|said| said.get(capability).is_some_and(|value| !value.is_null()))
    }

    /// The least severe log message that it wants.
    pub fn set_level(&self, level: &str) {
        let mut state = self.state();
        state.level = LEVELS.iter().position(|known| *known == level);
        let mut profile = Profile::clone(&state.profile);
        profile.log_level = state.level.map(|_| crate::wire::quoted(level));
        state.profile = Arc::new(profile);
    }

    /// Whether it wants a log message of this level.
    pub fn hears(&self, level: Option<&str>) -> bool {
        let severity = level.and_then(|level| LEVELS.iter().position(|known| *known == level));
        self.state().level.is_none_or(|least| severity.is_none_or(|severity| severity >= least))
    }

    /// Wants to hear of a resource, or not any more. False: it wants more than anybody may.
    pub fn subscribe(&self, uri: &str, wanted: bool) -> bool {
        let mut state = self.state();
        if !wanted {
            state.resources.remove(uri);
        } else if uri.len() > MAX_URI || (state.resources.len() >= MAX_RESOURCES && !state.resources.contains(uri)) {
            return false;
        } else {
            state.resources.insert(uri.to_owned());
        }
        true
    }

    /// The resources that it wants to hear of.
    pub fn resources(&self) -> Vec<String> {
        self.state().resources.iter().cloned().collect()
    }

    /// Whether it wants to hear of a resource.
    pub fn subscribes_to(&self, uri: &str) -> bool {
        self.state().resources.contains(uri)
    }

    /// It listens on a new stream; the one before ends.
    pub fn listen(&self) -> Outbox {
        let stream = Outbox::default();
        let mut state = self.state();
        for waiting in state.backlog.drain(..) {
            stream.ask(waiting);
        }
        if let Some(before) = state.stream.replace(stream.clone()) {
            before.end();
        }
        stream
    }

    /// Something that it may miss.
    pub fn tell(&self, message: Bytes) {
        if let Some(stream) = &self.state().stream {
            stream.tell(message);
        }
    }

    /// A question of its server, on the stream of one of its calls or on the one where it listens; otherwise it waits for that.
    pub fn ask(&self, question: Bytes, call: Option<&Outbox>) {
        let mut state = self.state();
        let stream = call.or(state.stream.as_ref()).filter(|stream| !stream.has_ended());
        if !stream.is_some_and(|stream| stream.ask(question.clone())) && state.backlog.len() < BACKLOG {
            state.backlog.push_back(question);
        }
    }

    /// It is used from now until the guard goes.
    pub fn in_use(self: &Arc<Self>) -> InUse {
        self.open.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(self))
    }

    /// Nobody has used it for so long.
    pub fn is_idle(&self, limit: Duration, now: Instant) -> bool {
        self.open.load(Ordering::Relaxed) == 0 && now - self.last_used() >= limit
    }

    /// When somebody last did.
    pub fn last_used(&self) -> Instant {
        self.state().last_used
    }

    /// Its streams end.
    pub fn end(&self) {
        if let Some(stream) = self.state().stream.take() {
            stream.end();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.state().last_used = Instant::now();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::outbox::Event;

    pub(crate) fn session(capabilities: &str) -> Arc<Session> {
        let sealed =
            Sealed { pod: String::new(), session: 1, caller: [0; 16], capabilities: Some(capabilities.into()), info: None };
        Session::new("id", sealed, Instant::now())
    }

    #[test]
    fn a_session_hears_what_is_severe_enough() {
        let session = session("{}");
        assert!(session.hears(Some("debug")));
        session.set_level("warning");
        assert!(session.hears(Some("error")) && session.hears(None) && !session.hears(Some("info")));
        assert_eq!(session.profile().log_level.as_deref(), Some("\"warning\""));
    }

    #[test]
    fn a_session_wants_to_hear_of_no_more_than_it_may() {
        let session = session("{}");
        assert!((0..MAX_RESOURCES).all(|number| session.subscribe(&number.to_string(), true)));
        assert!(session.subscribe("7", true) && !session.subscribe("one more", true));
        assert!(session.subscribe("7", false) && session.subscribe("one more", true));
        assert!(!session.subscribe(&"x".repeat(MAX_URI + 1), true));
    }

    #[tokio::test]
    async fn a_question_waits_for_the_client_to_listen() {
        let session = session(r#"{"roots": {}, "sampling": null}"#);
        assert!(session.can("roots") && !session.can("sampling") && !session.can("elicitation"));
        session.ask(Bytes::from_static(b"question"), None);
        let stream = session.listen();
        assert_eq!(stream.next().await, Some(Event::Message(Bytes::from_static(b"question"))));
        session.listen();
        assert_eq!(stream.next().await, None, "one stream at a time");
    }
}

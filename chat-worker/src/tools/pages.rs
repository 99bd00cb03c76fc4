//! Pages that clients were asked to open (elicitation by URL, MCP 2025-11-25): in a question of a call, or by the error in the place of its
//! result. What a person does there is mostly done when the call is long over. So each session remembers the pages that it was given, and it
//! alone is told when their server says that one is done. What is told while a call runs is `relay`'s.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rmcp::{ErrorData, model::ErrorCode};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The code of an error that asks to open pages first (`URLElicitationRequired`).
pub const PAGES_FIRST: ErrorCode = ErrorCode(-32042);
/// That a page is done, in the words of the protocol.
pub const PAGE_DONE: &str = "notifications/elicitation/complete";
/// Pages that a session remembers, and news that wait for it: of more, the first ones are forgotten.
const MOST_PAGES: usize = 64;
/// Sessions need not say that they end: beyond so many, the one that was not heard of for longest is forgotten.
const MOST_SESSIONS: usize = 1_024;
/// Longer ids are not remembered, in bytes; of longer news only the id is kept.
const LONGEST_ID: usize = 256;
const LONGEST_NEWS: usize = 4 * 1024;

/// The pages that an error asks to open before the same is asked for again, as it describes them.
pub fn asked_first(error: &ErrorData) -> impl Iterator<Item = &Value> {
    let data = error.data.as_ref().filter(|_| error.code == PAGES_FIRST);
    data.and_then(|data| data.get("elicitations")?.as_array()).into_iter().flatten()
}

/// The id of a page, in what describes it or tells of it: by it the server tells when it is done.
pub fn id(of: &Value) -> Option<&str> {
    of.get("elicitationId")?.as_str()
}

/// What all sessions were asked to open.
#[derive(Debug, Clone, Default)]
pub struct Pages(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    sessions: Mutex<HashMap<Arc<str>, Session>>,
    /// Changes when there is news for one of them.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Session {
    /// By server and id: two servers may have the same.
    given: VecDeque<(Arc<str>, String)>,
    /// What is to be told, as it came.
    done: VecDeque<Value>,
    used: Instant,
}

/// A session that is told of its pages, also after the call that it was given them by.
#[derive(Debug, Clone)]
pub struct Later {
    pages: Pages,
    pub session: Arc<str>,
}

impl Later {
    /// Notes what the session was asked to open by this server.
    pub fn given<'a>(&self, server: &Arc<str>, ids: impl Iterator<Item = &'a str>) {
        let ids: Vec<&str> = ids.filter(|id| id.len() <= LONGEST_ID).take(MOST_PAGES).collect();
        if ids.is_empty() {
            return;
        }
        let mut all = self.pages.sessions();
        let now = Instant::now();
        let new = || Session { given: VecDeque::new(), done: VecDeque::new(), used: now };
        let session = all.entry(Arc::clone(&self.session)).or_insert_with(new);
        session.used = now;
        for id in ids {
            session.given.retain(|(of, known)| (of, known.as_str()) != (server, id));
            push(&mut session.given, (Arc::clone(server), id.to_owned()));
        }
        if all.len() > MOST_SESSIONS {
            let oldest = all.iter().min_by_key(|(_, session)| session.used).map(|(name, _)| Arc::clone(name));
            oldest.map(|name| all.remove(&name));
        }
    }
}

impl Pages {
    /// The ear of a session.
    pub fn later(&self, session: &str) -> Later {
        Later { pages: self.clone(), session: session.into() }
    }

    /// A server tells that a page is done: news for each session that was given it, but for those that were told already.
    pub fn done(&self, server: &str, params: &Value, told: &[Arc<str>]) {
        let Some(done) = id(params) else { return };
        let mut is_news = false;
        for (name, session) in self.sessions().iter_mut() {
            let before = session.given.len();
            session.given.retain(|(of, id)| (&**of, id.as_str()) != (server, done));
            if session.given.len() < before && !told.contains(name) {
                let is_long = params.to_string().len() > LONGEST_NEWS;
                push(&mut session.done, if is_long { json!({"elicitationId": done}) } else { params.clone() });
                is_news = true;
            }
        }
        if is_news {
            self.0.news.send_replace(());
        }
    }

    /// The next that a session is to be told. It is told once.
    pub fn next(&self, session: &str) -> Option<Value> {
        let mut all = self.sessions();
        let session = all.get_mut(session)?;
        session.used = Instant::now();
        session.done.pop_front()
    }

    /// A session has ended.
    pub fn forget(&self, session: &str) {
        self.sessions().remove(session);
    }

    /// Changes when there is news for any session.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Arc<str>, Session>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one at the end, and takes the first away where there are too many.
fn push<T>(all: &mut VecDeque<T>, one: T) {
    all.push_back(one);
    if all.len() > MOST_PAGES {
        all.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pages: &Pages, session: &str, server: &str, ids: &[&str]) {
        pages.later(session).given(&server.into(), ids.iter().copied());
    }

    fn news(id: &str) -> Value {
        json!({"elicitationId": id, "own": 1})
    }

    #[test]
    fn each_session_is_told_once_of_the_pages_that_it_was_given() {
        let pages = Pages::default();
        let mut wakes = pages.subscribe();
        given(&pages, "one", "pay", &["a", "b"]);
        given(&pages, "two", "pay", &["b"]);
        given(&pages, "two", "other", &["a"]);
        pages.done("pay", &news("x"), &[]);
        assert!(!wakes.has_changed().expect("open"), "nobody was given it");
        pages.done("pay", &news("a"), &[]);
        assert!(wakes.has_changed().expect("open"));
        wakes.mark_unchanged();
        assert_eq!((pages.next("one"), pages.next("one"), pages.next("two")), (Some(news("a")), None, None));
        pages.done("pay", &news("a"), &[]);
        assert_eq!(pages.next("one"), None, "it was done before");
        // One heard of it while its call ran.
        pages.done("pay", &news("b"), &["one".into()]);
        assert_eq!((pages.next("one"), pages.next("two")), (None, Some(news("b"))));
        pages.forget("two");
        pages.done("other", &news("a"), &[]);
        assert_eq!(pages.next("two"), None, "it has ended");
    }

    #[test]
    fn what_is_remembered_has_bounds() {
        let pages = Pages::default();
        let ids: Vec<String> = (0..MOST_PAGES + 2).map(|id| id.to_string()).collect();
        for id in &ids {
            given(&pages, "one", "s", &[id]);
        }
        given(&pages, "one", "s", &[&"x".repeat(LONGEST_ID + 1)]);
        for id in &ids {
            pages.done("s", &json!({"elicitationId": id, "long": "x".repeat(LONGEST_NEWS)}), &[]);
        }
        pages.done("s", &news(&"x".repeat(LONGEST_ID + 1)), &[]);
        let told: Vec<Value> = std::iter::from_fn(|| pages.next("one")).collect();
        assert_eq!((told.len(), &told[0]), (MOST_PAGES, &json!({"elicitationId": "2"})));
        for session in 0..MOST_SESSIONS {
            given(&pages, &session.to_string(), "s", &["a"]);
        }
        assert_eq!(pages.sessions().len(), MOST_SESSIONS);
        assert!(!pages.sessions().contains_key("one"), "it was not heard of for longest");
    }

    #[test]
    fn the_pages_of_an_error_are_those_of_its_code() {
        let error =
            |code: i32| ErrorData::new(ErrorCode(code), "m", Some(json!({"elicitations": [{"elicitationId": "a"}, {}, 5]})));
        assert_eq!(asked_first(&error(-32042)).filter_map(id).collect::<Vec<_>>(), ["a"]);
        assert_eq!(asked_first(&error(-32000)).count(), 0);
    }
}

//! The sessions that the server beside us gave, as far as its answers show them: they end with its pod.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode};

/// Sessions that are remembered: a client may begin any number of them.
const MOST: usize = 65_536;

/// How each is used.
#[derive(Debug)]
pub struct Sessions {
    all: Mutex<HashMap<HeaderValue, Use>>,
    idle: Duration,
}

#[derive(Debug)]
struct Use {
    /// Answers that have not come to their end: calls, and streams on which a client listens.
    open: usize,
    last: Instant,
}

/// While it lives, its session is in use.
#[derive(Debug)]
pub struct InUse {
    sessions: Arc<Sessions>,
    session: HeaderValue,
}

impl Sessions {
    /// One that nobody uses for `idle` counts no more.
    pub fn new(idle: Duration) -> Self {
        Self { all: Mutex::default(), idle }
    }

    /// Takes up a request that named a session, perhaps, and the head of an answer that did. The session is in use until the answer ends.
    pub fn saw(
        self: &Arc<Self>,
        method: &Method,
        asked: Option<&HeaderValue>,
        status: StatusCode,
        given: Option<&HeaderValue>,
    ) -> Option<InUse> {
        let mut all = self.all();
        if let Some(asked) = asked
            && (status == StatusCode::NOT_FOUND || method == Method::DELETE && status.is_success())
        {
            all.remove(asked);
            return None;
        }
        let session = given.or(asked).filter(|session| all.len() < MOST || all.contains_key(*session))?;
        let used = all.entry(session.clone()).or_insert_with(|| Use { open: 0, last: Instant::now() });
        used.open += 1;
        Some(InUse { sessions: Arc::clone(self), session: session.clone() })
    }

    /// How many there are.
    pub fn count(&self, now: Instant) -> usize {
        let mut all = self.all();
        all.retain(|_, used| used.open > 0 || now.duration_since(used.last) < self.idle);
        all.len()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<HeaderValue, Use>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // It may have been ended meanwhile.
        if let Some(used) = self.sessions.all().get_mut(&self.session) {
            (used.open, used.last) = (used.open.saturating_sub(1), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_from_its_beginning_until_its_end_or_until_nobody_uses_it() {
        let idle = Duration::from_mins(5);
        let (sessions, id) = (Arc::new(Sessions::new(idle)), HeaderValue::from_static("a"));
        let (ok, now) = (StatusCode::OK, Instant::now());
        sessions.saw(&Method::POST, None, ok, Some(&id));
        sessions.saw(&Method::POST, Some(&id), ok, None);
        assert_eq!(sessions.count(now), 1);
        sessions.saw(&Method::DELETE, Some(&id), StatusCode::METHOD_NOT_ALLOWED, None);
        assert_eq!(sessions.count(now), 1, "the server keeps it");
        sessions.saw(&Method::DELETE, Some(&id), ok, None);
        assert_eq!(sessions.count(now), 0);
        sessions.saw(&Method::POST, Some(&id), StatusCode::NOT_FOUND, None);
        assert_eq!(sessions.count(now), 0, "one that the server does not know is none");
        sessions.saw(&Method::POST, Some(&id), ok, None);
        assert_eq!(sessions.count(Instant::now() + idle), 0);
    }

    #[test]
    fn whoever_listens_keeps_the_session_for_as_long_as_that() {
        let idle = Duration::from_mins(5);
        let (sessions, id) = (Arc::new(Sessions::new(idle)), HeaderValue::from_static("a"));
        let listens = sessions.saw(&Method::GET, Some(&id), StatusCode::OK, None);
        assert_eq!(sessions.count(Instant::now() + idle * 10), 1);
        drop(listens);
        assert_eq!(sessions.count(Instant::now()), 1, "the time begins with its end");
        assert_eq!(sessions.count(Instant::now() + idle), 0);
        let listens = sessions.saw(&Method::GET, Some(&id), StatusCode::OK, None);
        sessions.saw(&Method::DELETE, Some(&id), StatusCode::OK, None);
        drop(listens);
        assert_eq!(sessions.count(Instant::now()), 0, "it was ended before its stream");
    }
}

//! The sessions that the server beside us gave, as far as its answers show them: they end with its pod.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode};

/// Sessions that are remembered: a client may begin any number of them.
const MOST: usize = 65_536;

/// When each was last used.
#[derive(Debug)]
pub struct Sessions {
    last: Mutex<HashMap<HeaderValue, Instant>>,
    idle: Duration,
}

impl Sessions {
    /// One that nobody uses for `idle` counts no more.
    pub fn new(idle: Duration) -> Self {
        Self { last: Mutex::default(), idle }
    }

    /// Takes up a request that named a session, perhaps, and an answer that did.
    pub fn saw(&self, method: &Method, asked: Option<&HeaderValue>, status: StatusCode, given: Option<&HeaderValue>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked
            && (status == StatusCode::NOT_FOUND || method == Method::DELETE && status.is_success())
        {
            last.remove(asked);
        } else if let Some(session) = given.or(asked).filter(|session| last.len() < MOST || last.contains_key(*session)) {
            last.insert(session.clone(), Instant::now());
        }
    }

    /// How many there are.
    pub fn count(&self, now: Instant) -> usize {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, used| now.duration_since(*used) < self.idle);
        last.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_from_its_beginning_until_its_end_or_until_nobody_uses_it() {
        let idle = Duration::from_mins(5);
        let (sessions, id) = (Sessions::new(idle), HeaderValue::from_static("a"));
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
}

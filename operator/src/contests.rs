//! Whose writes do not stay: an object that another writer (a webhook, a controller, a second operator) changes back again and again.
//!
//! Without this, two writers would undo each other as fast as the API server lets them. A contested object is left alone for a
//! minute, and the CR says so. A field that Kubernetes itself drops is nobody's contest: what is beside it is kept right, and it is
//! written again only after an hour. Kept in memory only: an operator that starts anew finds out again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{child::Key, digest::hex};

/// How long a contested object is left alone: less than until it is looked at again, a minute later or a little before (`requeue`). One look
/// that comes too early would cost a second minute.
pub const REST: Duration = Duration::from_secs(45);
/// Writes of the same within [`WINDOW`] that are no contest yet: people put things right by hand, too.
const WRITES: u32 = 5;
/// After so long a field that Kubernetes dropped is written again: it may have been upgraded.
const DROPPED: Duration = Duration::from_hours(1);
/// What is further apart has nothing to do with each other.
const WINDOW: Duration = Duration::from_mins(2);

/// Contests by object.
#[derive(Debug, Default)]
pub struct Contests(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    lately: HashMap<Key, Contest>,
    dropped: HashMap<Key, Dropped>,
    /// When what is too old was thrown away last: not at every write, for in a big fleet there are many.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Contest {
    /// What we wanted.
    hash: String,
    last: Instant,
    writes: u32,
    /// Until when it is left alone.
    rest: Option<(Instant, Contested)>,
}

/// The fields that an answer to our own write lacked.
#[derive(Debug)]
struct Dropped {
    /// Of what we wanted.
    hash: String,
    until: Instant,
    fields: Vec<String>,
}

/// What does not stay as we write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// The first field that differs; empty where the whole object comes and goes.
    pub what: String,
    /// It was undone again and again, so that somebody must decide; else the API server changed it as it was written.
    pub undone: bool,
}

impl Contest {
    fn is_of_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < WINDOW
    }

    fn told(&self, now: Instant) -> Result<(), Contested> {
        match &self.rest {
            Some((until, contested)) if *until > now => Err(contested.clone()),
            _ => Ok(()),
        }
    }
}

impl Contests {
    /// Whether this may be written now: not while it is contested. Something else may be, at once.
    pub fn may_write(&self, key: &Key, hash: &str, now: Instant) -> Result<(), Contested> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.lately.get(key).filter(|contest| contest.hash == hash).map_or(Ok(()), |contest| contest.told(now))
    }

    /// Takes up a write because of the field `what`, and what the answer to it did not hold.
    pub fn wrote(&self, key: &Key, hash: &str, unheld: Option<String>, what: &str, now: Instant) -> Result<(), Contested> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= WINDOW) {
            written.lately.retain(|_, contest| contest.is_of_late(now));
            written.dropped.retain(|_, dropped| dropped.until > now);
            written.swept = Some(now);
        }
        let fresh = || Contest { hash: hash.to_owned(), last: now, writes: 0, rest: None };
        let contest = written.lately.entry(key.clone()).or_insert_with(fresh);
        if contest.hash != hash || !contest.is_of_late(now) {
            *contest = fresh();
        }
        contest.last = now;
        contest.writes += 1;
        contest.rest = match unheld {
            Some(what) => Some((now + REST, Contested { what, undone: false })),
            None if contest.writes > WRITES => Some((now + REST, Contested { what: what.to_owned(), undone: true })),
            None => None,
        };
        contest.told(now)
    }

    /// Takes up which fields the answer to a write of ours lacked.
    pub fn lacked(&self, key: &Key, hash: &str, fields: Vec<String>, now: Instant) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if fields.is_empty() {
            written.dropped.remove(key);
        } else {
            written.dropped.insert(key.clone(), Dropped { hash: hash.to_owned(), until: now + DROPPED, fields });
        }
    }

    /// The fields that Kubernetes drops of what we want: writing them again would change nothing.
    pub fn dropped(&self, key: &Key, hash: &str, now: Instant) -> Vec<String> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = written.dropped.get(key).filter(|dropped| dropped.hash == hash && dropped.until > now);
        known.map(|dropped| dropped.fields.clone()).unwrap_or_default()
    }
}

/// A hash of what a status says, whenever it was said first: two writers differ in that at every write.
pub fn said(status: &impl Serialize) -> String {
    let mut status = serde_json::to_value(status).expect("a status is JSON");
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"].take();
    }
    hex(&Sha256::digest(status.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("Deployment", "team", "db-mcp")
    }

    fn contested(result: &Result<(), Contested>) -> Option<bool> {
        result.as_ref().err().map(|contested| contested.undone)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_undone_again_and_again_is_left_alone_for_a_minute() {
        let contests = Contests::default();
        for _ in 0..WRITES {
            assert!(contests.wrote(&key(), "a", None, "spec.replicas", Instant::now()).is_ok());
        }
        assert_eq!(contested(&contests.wrote(&key(), "a", None, "spec.replicas", Instant::now())), Some(true));
        assert_eq!(contested(&contests.may_write(&key(), "a", Instant::now())), Some(true));
        assert!(contests.may_write(&key(), "b", Instant::now()).is_ok(), "an edit is written at once");
        assert!(contests.may_write(&Key::new("Service", "team", "db-mcp"), "a", Instant::now()).is_ok());

        tokio::time::advance(REST).await;
        assert!(contests.may_write(&key(), "a", Instant::now()).is_ok());
        let again = contests.wrote(&key(), "a", None, "spec.replicas", Instant::now());
        assert_eq!(contested(&again), Some(true), "one try a minute while it goes on");
        tokio::time::advance(WINDOW).await;
        assert!(contests.wrote(&key(), "a", None, "spec.replicas", Instant::now()).is_ok(), "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_api_server_changes_as_it_is_written_is_told_at_once() {
        let contests = Contests::default();
        let told = contests.wrote(&key(), "a", Some("spec.image".into()), "spec.image", Instant::now());
        assert_eq!(contested(&told), Some(false));
        assert_eq!(told.expect_err("contested").what, "spec.image");
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_begins_anew() {
        let contests = Contests::default();
        for number in 0..20 {
            assert!(contests.wrote(&key(), &number.to_string(), None, "spec", Instant::now()).is_ok());
        }
    }

    #[test]
    fn a_status_says_the_same_whenever_it_was_said_first() {
        let status =
            |time: &str, reason: &str| serde_json::json!({"conditions": [{"reason": reason, "lastTransitionTime": time}]});
        assert_eq!(said(&status("1", "a")), said(&status("2", "a")));
        assert_ne!(said(&status("1", "a")), said(&status("1", "b")));
        assert_eq!(said(&serde_json::json!({})), said(&serde_json::json!({})));
    }
}

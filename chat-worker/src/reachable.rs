//! Whether the model answers, as the last turns met it. Nothing is asked for this: what was not asked yet is not known.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use crate::llm::{Answer, ModelError};

/// What `/readyz` says of the model. The operator reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Reachable {
    /// Null: not known.
    pub reachable: Option<bool>,
    /// One word; null while all is well.
    pub reason: Option<&'static str>,
    pub message: Option<String>,
    /// Since when it is so.
    pub since: Option<Timestamp>,
}

/// Follows the answers.
#[derive(Debug, Default)]
pub struct Follower(Mutex<Reachable>);

impl Follower {
    pub fn now(&self) -> Reachable {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call of the model ended.
    pub fn met(&self, answer: Result<&Answer, &ModelError>, now: Timestamp) {
        let (reachable, reason) = match answer {
            Ok(_) => (true, None),
            Err(error) => reason(error),
        };
        let message = answer.err().filter(|_| reason.is_some()).map(ToString::to_string);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = last.reachable == Some(reachable) && last.reason == reason;
        let since = if same { last.since } else { Some(now) };
        *last = Reachable { reachable: Some(reachable), reason, message, since };
    }
}

/// Whether the model is reachable in spite of an error, and the error in a word; no word for one that is about the question.
fn reason(error: &ModelError) -> (bool, Option<&'static str>) {
    match error {
        ModelError::Key(_) => (false, Some("NoKey")),
        ModelError::Connect(_) => (false, Some("Unreachable")),
        ModelError::NotTheApi { .. } => (false, Some("NotTheApi")),
        ModelError::Deadline(_) => (false, Some("Timeout")),
        ModelError::Status { status: 401 | 403, .. } => (false, Some("KeyRefused")),
        ModelError::Status { status: 404, .. } => (false, Some("ModelNotFound")),
        ModelError::Status { status: 429, .. } => (true, Some("RateLimited")),
        ModelError::Status { status: 500.., .. } | ModelError::Stream(_) | ModelError::Event { .. } => {
            (false, Some("Unavailable"))
        }
        // It understood the question well enough to refuse it, wrote without an end, or was not asked.
        ModelError::Status { .. } | ModelError::TooLarge(_) | ModelError::Budget { .. } => (true, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> ModelError {
        ModelError::Status { status, kind: None, message: "no".into(), retry_after: None }
    }

    #[test]
    fn it_is_told_since_when_the_model_cannot_be_reached_and_why() {
        let follower = Follower::default();
        assert_eq!(follower.now().reachable, None, "it was not asked");
        let at = |second| Timestamp::from_second(second).expect("a time");
        follower.met(Err(&status(401)), at(1));
        follower.met(Err(&status(401)), at(2));
        let now = follower.now();
        assert_eq!((now.reachable, now.reason, now.since), (Some(false), Some("KeyRefused"), Some(at(1))));
        follower.met(Err(&status(529)), at(3));
        assert_eq!((follower.now().reason, follower.now().since), (Some("Unavailable"), Some(at(3))));
        follower.met(Err(&status(400)), at(4));
        assert_eq!((follower.now().reachable, follower.now().reason, follower.now().message), (Some(true), None, None));
        follower.met(Err(&status(429)), at(5));
        assert_eq!((follower.now().reachable, follower.now().reason), (Some(true), Some("RateLimited")));
    }
}

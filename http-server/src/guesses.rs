//! Wrong tokens: a caller has a few, and is then not asked any more for a while, whatever it brings. Without this, guessing is as fast as the
//! network.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Wrong tokens of one caller in a window.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Callers that are remembered. Beyond them, those whose window is over are forgotten, and if there are none, all.
const CALLERS: usize = 10_000;

/// Who guessed, and how often.
#[derive(Debug, Default)]
pub struct Guesses {
    callers: Mutex<HashMap<IpAddr, Wrong>>,
    hasher: RandomState,
}

/// What one caller guessed in its window.
#[derive(Debug)]
struct Wrong {
    count: u32,
    since: Instant,
    /// The sessions among them, as hashes: no more than guesses.
    sessions: Vec<u64>,
}

impl Guesses {
    /// How long a caller has to wait before its token is looked at again; none when it may be.
    pub fn wait(&self, caller: IpAddr, now: Instant) -> Option<Duration> {
        let callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let Wrong { count, since, .. } = callers.get(&caller)?;
        let left = (*since + WINDOW).saturating_duration_since(now);
        (*count >= MOST && !left.is_zero()).then_some(left)
    }

    /// Counts a wrong token.
    pub fn wrong(&self, caller: IpAddr, now: Instant) {
        self.count(caller, None, now);
    }

    /// Counts a session that nobody has. The same one again is what a browser does that still has that of an earlier token; another one is
    /// a guess.
    pub fn wrong_session(&self, caller: IpAddr, session: &str, now: Instant) {
        self.count(caller, Some(self.hasher.hash_one(session)), now);
    }

    fn count(&self, caller: IpAddr, session: Option<u64>, now: Instant) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS && !callers.contains_key(&caller) {
            callers.retain(|_, wrong| now < wrong.since + WINDOW);
            if callers.len() >= CALLERS {
                callers.clear();
            }
        }
        let wrong = callers.entry(caller).or_insert(Wrong { count: 0, since: now, sessions: Vec::new() });
        if session.is_some_and(|session| wrong.sessions.contains(&session)) {
            return;
        }
        if now >= wrong.since + WINDOW {
            (wrong.count, wrong.since) = (0, now);
            wrong.sessions.clear();
        }
        wrong.count += 1;
        wrong.sessions.extend(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_few_wrong_tokens_in_a_minute_and_costs_the_others_none() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        for _ in 0..MOST {
            assert_eq!(guesses.wait(one, now), None);
            guesses.wrong(one, now);
        }
        assert_eq!(guesses.wait(one, now), Some(WINDOW));
        assert_eq!(guesses.wait(two, now), None);
        assert_eq!(guesses.wait(one, now + WINDOW), None);
        guesses.wrong(one, now + WINDOW);
        assert_eq!(guesses.wait(one, now + WINDOW), None, "a new window");
    }

    #[test]
    fn a_session_of_before_is_one_guess_and_other_sessions_are_more() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let caller = "192.0.2.1".parse().unwrap();
        for _ in 0..100 {
            guesses.wrong_session(caller, "of an earlier token", now);
            guesses.wrong_session(caller, "of one before that", now);
        }
        assert_eq!(guesses.wait(caller, now), None);
        for number in 2..MOST {
            guesses.wrong_session(caller, &format!("guess {number}"), now);
        }
        assert_eq!(guesses.wait(caller, now), Some(WINDOW));
    }

    #[test]
    fn no_number_of_callers_fills_the_memory() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for number in 0..2 * u32::try_from(CALLERS).unwrap() {
            guesses.wrong(IpAddr::V4(number.into()), now);
        }
        assert!(guesses.callers.lock().unwrap().len() <= CALLERS);
    }
}

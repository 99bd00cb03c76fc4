//! Wrong tokens: a caller has a few, and is then not asked any more for a while, whatever it brings. Without this, guessing is as fast as the
//! network.

use std::{
    collections::HashMap,
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
pub struct Guesses(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Guesses {
    /// How long a caller has to wait before its token is looked at again; none when it may be.
    pub fn wait(&self, caller: IpAddr, now: Instant) -> Option<Duration> {
        let guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = guesses.get(&caller)?;
        let left = (*since + WINDOW).saturating_duration_since(now);
        (*count >= MOST && !left.is_zero()).then_some(left)
    }

    /// Counts a wrong token.
    pub fn wrong(&self, caller: IpAddr, now: Instant) {
        let mut guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guesses.len() >= CALLERS && !guesses.contains_key(&caller) {
            guesses.retain(|_, (_, since)| now < *since + WINDOW);
            if guesses.len() >= CALLERS {
                guesses.clear();
            }
        }
        let (count, since) = guesses.entry(caller).or_insert((0, now));
        if now >= *since + WINDOW {
            (*count, *since) = (0, now);
        }
        *count += 1;
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
    fn no_number_of_callers_fills_the_memory() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for number in 0..2 * u32::try_from(CALLERS).unwrap() {
            guesses.wrong(IpAddr::V4(number.into()), now);
        }
        assert!(guesses.0.lock().unwrap().len() <= CALLERS);
    }
}

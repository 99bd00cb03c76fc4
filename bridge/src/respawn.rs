//! When a child that died is started again, and when that makes no sense any more. Pure: `now` is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The limits.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// So many deaths within `WINDOW` are the end; 0: never.
    pub max_deaths: usize,
    /// The longest wait.
    pub max_delay: Duration,
}

/// A child that lived so long has made up for those before it.
const WINDOW: Duration = Duration::from_mins(1);

/// What follows from a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start another one after so long.
    StartIn(Duration),
    /// It does not work.
    GiveUp,
}

/// The deaths so far.
#[derive(Debug)]
pub struct Respawn {
    policy: Policy,
    recent: VecDeque<Instant>,
    /// Deaths since a child lived long.
    in_a_row: u32,
}

impl Respawn {
    /// Nobody has died yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, recent: VecDeque::new(), in_a_row: 0 }
    }

    /// A child that was started at `started` has died.
    pub fn died(&mut self, started: Instant, now: Instant) -> Next {
        if now - started >= WINDOW {
            self.in_a_row = 0;
        }
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|death| now - *death >= WINDOW) {
            self.recent.pop_front();
        }
        if self.policy.max_deaths > 0 && self.recent.len() >= self.policy.max_deaths {
            return Next::GiveUp;
        }
        // At once, then 1, 2, 4 … seconds.
        let delay = self.in_a_row.checked_sub(1).map_or(0, |doublings| 1_u64 << doublings.min(16));
        self.in_a_row += 1;
        Next::StartIn(Duration::from_secs(delay).min(self.policy.max_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { max_deaths: 5, max_delay: Duration::from_secs(30) };

    /// Seconds to wait after each of these lives, in seconds; None: the end.
    fn delays(policy: Policy, lives: &[u64]) -> Vec<Option<u64>> {
        let mut respawn = Respawn::new(policy);
        let mut now = Instant::now();
        lives
            .iter()
            .map(|life| {
                let started = now;
                now += Duration::from_secs(*life);
                match respawn.died(started, now) {
                    Next::StartIn(delay) => {
                        now += delay;
                        Some(delay.as_secs())
                    }
                    Next::GiveUp => None,
                }
            })
            .collect()
    }

    #[test]
    fn five_deaths_in_a_minute_are_the_end() {
        assert_eq!(delays(POLICY, &[0, 0, 0, 0, 0]), [Some(0), Some(1), Some(2), Some(4), None]);
    }

    #[test]
    fn slow_deaths_are_followed_by_longer_waits_up_to_the_longest() {
        let expected = [0, 1, 2, 4, 8, 16, 30, 30].map(Some);
        assert_eq!(delays(POLICY, &[20; 8]), expected);
    }

    #[test]
    fn a_long_life_is_followed_by_a_start_at_once() {
        assert_eq!(delays(POLICY, &[0, 0, 61, 0]), [Some(0), Some(1), Some(0), Some(1)]);
    }

    #[test]
    fn without_a_limit_it_never_ends() {
        let policy = Policy { max_deaths: 0, max_delay: Duration::ZERO };
        assert_eq!(delays(policy, &[0; 20]), [Some(0); 20]);
    }
}

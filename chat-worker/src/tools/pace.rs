//! How fast a server may talk. One that floods is read more slowly, so that it waits and costs the others nothing: the
//! network and the pipe hold it back. Pure.

use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// An allowance that is new every second.
#[derive(Debug)]
pub struct Pace {
    a_second: usize,
    left: usize,
    since: Instant,
}

impl Pace {
    pub fn new(a_second: usize, now: Instant) -> Self {
        Self { a_second, left: a_second, since: now }
    }

    /// Takes what was used.
    pub fn spend(&mut self, amount: usize, now: Instant) {
        if now >= self.since + SECOND {
            (self.left, self.since) = (self.a_second, now);
        }
        self.left = self.left.saturating_sub(amount);
    }

    /// Takes back a part of what was spent within this second.
    pub fn give_back(&mut self, amount: usize, now: Instant) {
        if now < self.since + SECOND {
            self.left = self.left.saturating_add(amount).min(self.a_second);
        }
    }

    /// When it goes on, where the second's allowance is used up.
    pub fn pause(&self, now: Instant) -> Option<Instant> {
        let end = self.since + SECOND;
        (self.left == 0 && now < end).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_that_is_used_up_lasts_until_the_next_second() {
        let now = Instant::now();
        let mut pace = Pace::new(10, now);
        pace.spend(9, now);
        assert_eq!(pace.pause(now), None);
        pace.spend(5, now);
        assert_eq!(pace.pause(now), Some(now + SECOND));
        pace.give_back(1, now);
        assert_eq!(pace.pause(now), None, "some of it did not count");
        pace.spend(5, now);
        assert_eq!(pace.pause(now + SECOND), None);
        pace.spend(1, now + SECOND);
        assert_eq!(pace.pause(now + SECOND), None);
    }
}

//! When a watch that broke is opened again.
//!
//! Calls that wait for a server to wake wait for watches, too: the longest pause is what they lose when the API server comes back. It is
//! short all the same to who has many clients: each watch asks by itself and at its own time, one that goes on from where it was costs the
//! API server little, and a list that fails is not begun anew at once, as it would be if the beginning of one counted as a success.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::{
    utils::{Backoff, ResetTimerBackoff},
    watcher::ExponentialBackoff,
};

/// The first and the longest pause. Each is lengthened by up to as much again, so that watches that broke together do not come back together.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(1_500)];
/// After so long without an error the pauses begin anew.
const CALM: Duration = Duration::from_secs(30);

/// The pauses between the attempts of one watch.
pub struct Again(ResetTimerBackoff<ExponentialBackoff>);

impl Default for Again {
    fn default() -> Self {
        let [first, longest] = PAUSES;
        let pauses = ExponentialBuilder::new().with_jitter().with_min_delay(first).with_max_delay(longest).without_max_times();
        Self(ResetTimerBackoff::new(pauses.into(), CALM))
    }
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Again")
    }
}

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for Again {
    /// Called at every event, and at the beginning of every list, whether that comes or not: only time tells that it is well.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_three_seconds_and_no_further_also_where_every_list_begins_and_breaks() {
        let mut again = Again::default();
        let mut pause = || {
            again.reset();
            again.next().expect("it never gives up")
        };
        let pauses: Vec<_> = (0..40).map(|_| pause()).collect();
        assert!(pauses[0] <= Duration::from_millis(200), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(3)), "{pauses:?}");
        assert!(pauses[5..].iter().all(|pause| *pause >= Duration::from_millis(1_500)), "{pauses:?}");
        assert!(pauses[5..].iter().any(|pause| *pause != pauses[5]), "not all at the same time: {pauses:?}");
    }
}

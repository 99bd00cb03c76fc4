//! Fleet panic: when more than half of what was well fails within one window, the fault is probably ours. Pure.
//!
//! It only counts. What is held while it lasts is decided in `registry`.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::schedule::TargetId;

/// Failures that began within so long count as one event.
pub const WINDOW: Duration = Duration::from_mins(1);
/// A fleet of fewer has no majority to speak of.
const SMALLEST: usize = 4;

/// Counts who is well and who failed lately.
#[derive(Debug, Default)]
pub struct FleetPanic {
    well: BTreeSet<TargetId>,
    /// Those that were well and failed within the window, by when. While panic lasts nobody leaves for having failed long ago.
    fell: BTreeSet<(Instant, TargetId)>,
    active: bool,
}

impl FleetPanic {
    /// True while it lasts.
    pub const fn active(&self) -> bool {
        self.active
    }

    /// The target is well; `failed_at` is when it had begun to fail.
    pub fn well(&mut self, id: TargetId, failed_at: Option<Instant>) {
        self.forget(id, failed_at);
        self.well.insert(id);
    }

    /// The target, which was well, begins to fail. Those that never were well do not count.
    pub fn fails(&mut self, id: TargetId, now: Instant) {
        if self.well.remove(&id) {
            self.fell.insert((now, id));
        }
    }

    /// The target is no part of the fleet any more.
    pub fn forget(&mut self, id: TargetId, failed_at: Option<Instant>) {
        self.well.remove(&id);
        if let Some(at) = failed_at {
            self.fell.remove(&(at, id));
        }
    }

    /// Looks again. Panic begins only when `acting`: somebody is about to be taken out of service. Some(active) when that changed.
    pub fn weigh(&mut self, acting: bool, now: Instant) -> Option<bool> {
        if !self.active {
            while self.fell.first().is_some_and(|(at, _)| *at + WINDOW < now) {
                self.fell.pop_first();
            }
        }
        let fleet = self.well.len() + self.fell.len();
        let most = fleet >= SMALLEST && self.fell.len() * 2 > fleet;
        let active = most && (self.active || acting);
        (std::mem::replace(&mut self.active, active) != active).then_some(active)
    }

    /// Who is counted: as well, and as having begun to fail when. For tests.
    #[cfg(test)]
    pub fn members(&self) -> (&BTreeSet<TargetId>, &BTreeSet<(Instant, TargetId)>) {
        (&self.well, &self.fell)
    }

    /// How many of how many fail.
    pub fn counts(&self) -> (usize, usize) {
        (self.fell.len(), self.well.len() + self.fell.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(size: u64) -> FleetPanic {
        let mut panic = FleetPanic::default();
        (0..size).for_each(|id| panic.well(TargetId(id), None));
        panic
    }

    #[test]
    fn it_takes_more_than_half_of_at_least_four() {
        let now = Instant::now();
        for (size, failing, expected) in [(3, 3, false), (4, 2, false), (4, 3, true), (10, 5, false), (10, 6, true)] {
            let mut panic = fleet(size);
            (0..failing).for_each(|id| panic.fails(TargetId(id), now));
            assert_eq!(panic.weigh(true, now), expected.then_some(true), "{failing} of {size}");
        }
    }

    #[test]
    fn failures_further_apart_than_the_window_are_no_event() {
        let now = Instant::now();
        let mut panic = fleet(4);
        for id in 0..4 {
            let at = now + (WINDOW + Duration::from_secs(1)) * u32::try_from(id).expect("small");
            panic.fails(TargetId(id), at);
            assert_eq!(panic.weigh(true, at), None);
        }
    }

    #[test]
    fn it_lasts_until_half_are_well_again_however_long_that_takes() {
        let now = Instant::now();
        let mut panic = fleet(4);
        (0..3).for_each(|id| panic.fails(TargetId(id), now));
        assert_eq!(panic.weigh(true, now), Some(true));
        assert_eq!(panic.weigh(false, now + WINDOW * 100), None);
        panic.well(TargetId(0), Some(now));
        assert_eq!(panic.weigh(false, now + WINDOW * 100), Some(false));
    }

    #[test]
    fn it_does_not_begin_while_nobody_would_be_taken_out() {
        let now = Instant::now();
        let mut panic = fleet(4);
        (0..4).for_each(|id| panic.fails(TargetId(id), now));
        assert_eq!(panic.weigh(false, now), None);
    }
}

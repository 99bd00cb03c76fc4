//! When an object is looked at again, decided from how the last pass ended: the class of what stands in the way. Pure.

use std::time::Duration;

use crate::pod_trouble::SILENT;

/// How a pass that could not reach the spec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The spec must be edited: nothing happens until it is.
    Rejected,
    /// Something that the spec points at is missing, or Kubernetes refuses what the spec asks for. A watch wakes us, mostly; the look is
    /// for what no watch shows: a quota, a policy, somebody else's object that has the name of a child.
    Waiting,
    /// What we ask for does not stay as we ask for it. Nobody has to do anything, and asking more often would not help.
    Contested,
    /// The API server could not do it now: again soon, and later each time.
    Transient,
}

impl Class {
    /// Whether a person, or another object, must do something first.
    pub const fn is_obstacle(self) -> bool {
        matches!(self, Self::Rejected | Self::Waiting)
    }

    /// The class as a label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Waiting => "waiting",
            Self::Contested => "contested",
            Self::Transient => "transient",
        }
    }
}

/// How far jitter moves a wait, either way: whoever failed together at an API server that was away does not come back together.
const JITTER: f64 = 0.2;

/// How soon it is looked whether what is waited for is there, at first and at last.
const FIRST: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_mins(1);

/// By then a pod that is being made without a word has been so for long enough to be told of ([`SILENT`]): it is made a little after that is
/// told.
const LATE: Duration = Duration::from_secs(SILENT.unsigned_abs() + 5);

/// When to look at pods that are on their way in the usual manner, where nothing happens to them: one that is being made without a word
/// shows nothing. Once, for so long after it was told that they are.
pub fn look_at_pods(told_for: Duration) -> Option<Duration> {
    LATE.checked_sub(told_for).filter(|wait| !wait.is_zero())
}

/// When to look again. None: when something changes. `waits` is for how long it has been told that something is waited for, where that is
/// known: who just read of it may be mending it, and what has been so for long may stay so. `jitter` is a number from 0 to 1.
pub fn decide(class: Option<Class>, attempts: u32, waits: Option<Duration>, jitter: f64) -> Option<Duration> {
    let wait = match class {
        None | Some(Class::Rejected) => return None,
        Some(Class::Waiting) => waits.map_or(LAST, |waits| (waits / 4).clamp(FIRST, LAST)),
        Some(Class::Contested) => LAST,
        Some(Class::Transient) => Duration::from_secs(1 << attempts.min(6)).min(Duration::from_mins(1)),
    };
    Some(wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contests;

    /// Without jitter.
    fn decide(class: Option<Class>, attempts: u32) -> Option<Duration> {
        super::decide(class, attempts, None, 0.5)
    }

    #[test]
    fn two_objects_that_failed_together_are_not_looked_at_together() {
        let waits = [0.0, 0.5, 1.0].map(|jitter| super::decide(Some(Class::Transient), 0, None, jitter));
        assert_eq!(waits, [800, 1_000, 1_200].map(|millis| Some(Duration::from_millis(millis))));
    }

    #[test]
    fn a_transient_failure_is_tried_again_later_each_time_up_to_a_minute() {
        let delays: Vec<_> = [0, 1, 2, 6, 100].map(|attempts| decide(Some(Class::Transient), attempts)).into();
        assert_eq!(delays, [1, 2, 4, 60, 60].map(|seconds| Some(Duration::from_secs(seconds))));
    }

    #[test]
    fn what_is_contested_or_waits_is_looked_at_once_a_minute() {
        assert_eq!(decide(Some(Class::Waiting), 3), Some(Duration::from_mins(1)));
        assert_eq!(decide(Some(Class::Contested), 3), Some(Duration::from_mins(1)));
    }

    #[test]
    fn what_is_contested_is_looked_at_when_its_rest_is_over_and_not_before() {
        for class in [Class::Contested, Class::Waiting] {
            let earliest = super::decide(Some(class), 0, None, 0.0).expect("a look");
            assert!(earliest >= contests::REST, "{class:?}: {earliest:?}");
        }
    }

    #[test]
    fn what_waits_is_looked_at_often_at_first_and_the_looks_are_few() {
        let wait = |seconds| super::decide(Some(Class::Waiting), 0, Some(Duration::from_secs(seconds)), 0.5).expect("a look");
        assert_eq!([0, 20, 60, 240, 9_999].map(|seconds| wait(seconds).as_secs()), [5, 5, 15, 60, 60]);
        let (mut looks, mut passed) = (0, Duration::ZERO);
        while passed < Duration::from_mins(5) {
            passed += wait(passed.as_secs());
            looks += 1;
        }
        assert!(looks < 20, "{looks}");
    }

    #[test]
    fn pods_in_the_usual_manner_are_looked_at_once_more() {
        let look = |seconds| look_at_pods(Duration::from_secs(seconds)).map(|wait| wait.as_secs());
        assert_eq!([0, 8, 30, 34, 35, 9_999].map(look), [Some(35), Some(27), Some(5), Some(1), None, None]);
    }

    #[test]
    fn a_rejected_spec_waits_for_an_edit() {
        assert_eq!(decide(Some(Class::Rejected), 0), None);
        assert_eq!(decide(None, 3), None);
    }
}

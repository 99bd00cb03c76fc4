//! When an object is looked at again, decided from how the last pass ended: the class of what stands in the way. Pure.

use std::time::Duration;

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
    /// The API server itself did not answer: again every few seconds, for whoever waits for the object waits for nothing else.
    Away,
}

impl Class {
    /// Whether a person, or another object, must do something first.
    pub const fn is_obstacle(self) -> bool {
        matches!(self, Self::Rejected | Self::Waiting)
    }

    /// Whether it may well be done by the next try, without anybody's doing.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Transient | Self::Away)
    }

    /// The one of which a look comes soonest.
    pub fn soonest(classes: impl IntoIterator<Item = Self>) -> Option<Self> {
        let haste = |class: &Self| match class {
            Self::Away => 0,
            Self::Transient => 1,
            Self::Waiting => 2,
            Self::Contested => 3,
            Self::Rejected => 4,
        };
        classes.into_iter().min_by_key(haste)
    }

    /// The class as a label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Waiting => "waiting",
            Self::Contested => "contested",
            Self::Transient | Self::Away => "transient",
        }
    }
}

/// How far jitter moves a wait, either way: whoever failed together at an API server that was away does not come back together.
const JITTER: f64 = 0.2;

/// How soon it is looked whether what is waited for is there, at first and at last.
const FIRST: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_mins(1);

/// The longest wait for an API server that is away, with jitter three seconds: calls to servers that sleep wait for it.
const BACK: Duration = Duration::from_millis(2_500);
/// By so much for each object that waits for it, where there are many: they are not to keep a core busy by asking in vain.
const SHARE: Duration = Duration::from_millis(5);

/// What was tried in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Failed passes over the object in a row, before this one, that ended as this one did: what an API server that was away kept us from
    /// says nothing of how soon it can do something.
    pub in_a_row: u32,
    /// All failed passes over the object in a row, before this one.
    pub failed: u32,
    /// Objects whose last pass failed.
    pub objects: u32,
}

/// When to look again. None: when something changes. `waits` is for how long it has been told that something is waited for, where that is
/// known: who just read of it may be mending it, and what has been so for long may stay so. `jitter` is a number from 0 to 1.
pub fn decide(class: Option<Class>, tries: Tries, waits: Option<Duration>, jitter: f64) -> Option<Duration> {
    let doubled = || Duration::from_secs(1 << tries.in_a_row.min(6)).min(LAST);
    let wait = match class {
        None | Some(Class::Rejected) => return None,
        Some(Class::Waiting) => waits.map_or(LAST, |waits| (waits / 4).clamp(FIRST, LAST)),
        Some(Class::Contested) => LAST,
        Some(Class::Transient) => doubled(),
        Some(Class::Away) => doubled().min(BACK.max(SHARE.saturating_mul(tries.objects))),
    };
    Some(wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contests;

    /// Without jitter.
    fn decide(class: Option<Class>, in_a_row: u32) -> Option<Duration> {
        super::decide(class, Tries { in_a_row, failed: in_a_row, objects: 1 }, None, 0.5)
    }

    #[test]
    fn two_objects_that_failed_together_are_not_looked_at_together() {
        let waits = [0.0, 0.5, 1.0].map(|jitter| super::decide(Some(Class::Transient), Tries::default(), None, jitter));
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
            let earliest = super::decide(Some(class), Tries::default(), None, 0.0).expect("a look");
            assert!(earliest >= contests::REST, "{class:?}: {earliest:?}");
        }
    }

    #[test]
    fn what_waits_is_looked_at_often_at_first_and_the_looks_are_few() {
        let wait = |seconds| {
            super::decide(Some(Class::Waiting), Tries::default(), Some(Duration::from_secs(seconds)), 0.5).expect("a look")
        };
        assert_eq!([0, 20, 60, 240, 9_999].map(|seconds| wait(seconds).as_secs()), [5, 5, 15, 60, 60]);
        let (mut looks, mut passed) = (0, Duration::ZERO);
        while passed < Duration::from_mins(5) {
            passed += wait(passed.as_secs());
            looks += 1;
        }
        assert!(looks < 20, "{looks}");
    }

    #[test]
    fn an_api_server_that_was_away_is_met_within_three_seconds_of_its_return_unless_very_many_wait_for_it() {
        let wait = |in_a_row, objects, jitter| {
            super::decide(Some(Class::Away), Tries { in_a_row, failed: in_a_row, objects }, None, jitter).expect("a look")
        };
        assert_eq!([0, 1, 2, 100].map(|tries| wait(tries, 1, 0.5).as_millis()), [1_000, 2_000, 2_500, 2_500]);
        for objects in [1, 100, 500] {
            assert!(wait(100, objects, 1.0) <= Duration::from_secs(3), "{objects}");
        }
        assert_eq!(wait(100, 4_000, 0.5), Duration::from_secs(20), "two hundred a second");
        assert_eq!(wait(100, u32::MAX, 0.5), Duration::from_mins(1));
    }

    #[test]
    fn of_several_the_class_counts_that_is_looked_at_soonest() {
        let all = [Class::Rejected, Class::Contested, Class::Waiting, Class::Transient, Class::Away];
        for (index, class) in all.into_iter().enumerate() {
            assert_eq!(Class::soonest(all[..=index].to_vec()), Some(class));
        }
        assert_eq!(Class::soonest([]), None);
    }

    #[test]
    fn a_rejected_spec_waits_for_an_edit() {
        assert_eq!(decide(Some(Class::Rejected), 0), None);
        assert_eq!(decide(None, 3), None);
    }
}

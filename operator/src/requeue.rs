//! When an object is looked at again, decided from how the last pass ended. Pure.

use std::time::Duration;

/// How a pass that could not reach the spec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The spec must be edited: nothing happens until it is.
    Rejected,
    /// Something that the spec points at is missing. Its watch wakes us; the slow look is for what no watch shows.
    Waiting,
    /// The API server could not do it now: again soon, and later each time.
    Transient,
}

impl Class {
    /// The class as a label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Waiting => "waiting",
            Self::Transient => "transient",
        }
    }
}

/// When to look again. None: when something changes.
pub fn decide(class: Option<Class>, attempts: u32) -> Option<Duration> {
    match class {
        None | Some(Class::Rejected) => None,
        Some(Class::Waiting) => Some(Duration::from_mins(1)),
        Some(Class::Transient) => Some(Duration::from_secs(1 << attempts.min(6)).min(Duration::from_mins(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transient_failure_is_tried_again_later_each_time_up_to_a_minute() {
        let delays: Vec<_> = [0, 1, 2, 6, 100].map(|attempts| decide(Some(Class::Transient), attempts)).into();
        assert_eq!(delays, [1, 2, 4, 60, 60].map(|seconds| Some(Duration::from_secs(seconds))));
    }

    #[test]
    fn a_rejected_spec_waits_for_an_edit() {
        assert_eq!(decide(Some(Class::Rejected), 0), None);
        assert_eq!(decide(None, 3), None);
    }
}

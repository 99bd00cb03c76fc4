//! Failed passes in a row, by object: kube's error policy is not told the attempt. How long is waited after so many is `requeue`'s.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use metrics_text::IntGaugeVec;

use crate::{child::Key, requeue::Tries};

/// After so many failed passes in a row, which take some ten seconds at least (`requeue`), an object counts as failing: what failed once or
/// twice, and was done by the next try, is worth nobody's time.
const FAILING: u32 = 5;

/// Counts by object.
#[derive(Debug)]
pub struct Attempts {
    counts: Mutex<HashMap<Key, u32>>,
    failing: IntGaugeVec,
}

impl Attempts {
    /// `failing`: how many objects of a kind fail.
    pub fn new(failing: IntGaugeVec) -> Self {
        Self { counts: Mutex::default(), failing }
    }

    /// Counts a failed pass, or forgets them all. Gives what had been tried in vain before it.
    pub fn count(&self, object: &Key, failed: bool) -> Tries {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = counts.get(object).copied().unwrap_or_default();
        let gauge = self.failing.with_label_values(&[object.kind]);
        if !failed {
            counts.remove(object);
            if before >= FAILING {
                gauge.dec();
            }
            return Tries::default();
        }
        let count = before.saturating_add(1);
        counts.insert(object.clone(), count);
        if count == FAILING {
            gauge.inc();
        }
        Tries { in_a_row: before, objects: u32::try_from(counts.len()).unwrap_or(u32::MAX) }
    }

    /// The object is gone.
    pub fn forget(&self, object: &Key) {
        self.count(object, false);
    }
}

#[cfg(test)]
mod tests {
    use metrics_text::MetricSet;

    use super::*;

    #[test]
    fn an_object_counts_as_failing_from_its_fifth_failed_pass_until_one_succeeds_or_it_is_gone() {
        let gauge = MetricSet::default().gauges("failing", "failing", &["kind"]);
        let attempts = Attempts::new(gauge.clone());
        let failing = || gauge.with_label_values(&["McpServer"]).get();
        let [one, two, app] =
            [("McpServer", "one"), ("McpServer", "two"), ("McpApp", "one")].map(|(kind, name)| Key::new(kind, "team", name));
        assert_eq!([0, 1, 2, 3].map(|_| attempts.count(&one, true).in_a_row), [0, 1, 2, 3]);
        assert_eq!(failing(), 0);
        (0..9).for_each(|_| _ = [&one, &two, &app].map(|object| attempts.count(object, true)));
        assert_eq!(failing(), 2);
        assert_eq!(attempts.count(&two, true).objects, 3);
        assert_eq!(attempts.count(&one, false), Tries::default());
        assert_eq!(failing(), 1);
        assert_eq!(attempts.count(&one, true).in_a_row, 0, "they are counted anew");
        attempts.forget(&two);
        attempts.forget(&two);
        assert_eq!((failing(), gauge.with_label_values(&["McpApp"]).get()), (0, 1));
    }
}

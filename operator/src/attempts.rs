//! Failed passes in a row, by object: kube's error policy is not told the attempt. How long is waited after so many is `requeue`'s.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use metrics_text::IntGaugeVec;

use crate::{
    child::Key,
    requeue::{Class, Tries},
};

/// After so many failed passes in a row, which take some ten seconds at least (`requeue`), an object counts as failing: what failed once or
/// twice, and was done by the next try, is worth nobody's time.
const FAILING: u32 = 5;

/// What was tried in vain over an object.
#[derive(Clone, Copy, Debug)]
struct Count {
    /// Failed passes in a row.
    failed: u32,
    /// The last of them that ended in the same way, and in which.
    alike: u32,
    class: Class,
}

/// Counts by object.
#[derive(Debug)]
pub struct Attempts {
    counts: Mutex<HashMap<Key, Count>>,
    failing: IntGaugeVec,
}

impl Attempts {
    /// `failing`: how many objects of a kind fail.
    pub fn new(failing: IntGaugeVec) -> Self {
        Self { counts: Mutex::default(), failing }
    }

    /// Counts a pass that failed in such a way, or forgets them all. Gives what had been tried in vain before it.
    pub fn count(&self, object: &Key, failed: Option<Class>) -> Tries {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = counts.get(object).copied();
        let all = before.map_or(0, |before| before.failed);
        let gauge = self.failing.with_label_values(&[object.kind]);
        let Some(class) = failed else {
            counts.remove(object);
            if all >= FAILING {
                gauge.dec();
            }
            return Tries::default();
        };
        let alike = before.filter(|before| before.class == class).map_or(0, |before| before.alike);
        let count = Count { failed: all.saturating_add(1), alike: alike.saturating_add(1), class };
        counts.insert(object.clone(), count);
        if count.failed == FAILING {
            gauge.inc();
        }
        Tries { in_a_row: alike, failed: all, objects: u32::try_from(counts.len()).unwrap_or(u32::MAX) }
    }

    /// The object is gone.
    pub fn forget(&self, object: &Key) {
        self.count(object, None);
    }
}

#[cfg(test)]
mod tests {
    use metrics_text::MetricSet;

    use super::*;

    const FAILED: Option<Class> = Some(Class::Transient);

    #[test]
    fn an_object_counts_as_failing_from_its_fifth_failed_pass_until_one_succeeds_or_it_is_gone() {
        let gauge = MetricSet::default().gauges("failing", "failing", &["kind"]);
        let attempts = Attempts::new(gauge.clone());
        let failing = || gauge.with_label_values(&["McpServer"]).get();
        let [one, two, app] =
            [("McpServer", "one"), ("McpServer", "two"), ("McpApp", "one")].map(|(kind, name)| Key::new(kind, "team", name));
        assert_eq!([0, 1, 2, 3].map(|_| attempts.count(&one, FAILED).in_a_row), [0, 1, 2, 3]);
        assert_eq!(failing(), 0);
        (0..9).for_each(|_| _ = [&one, &two, &app].map(|object| attempts.count(object, FAILED)));
        assert_eq!(failing(), 2);
        assert_eq!(attempts.count(&two, FAILED).objects, 3);
        assert_eq!(attempts.count(&one, None), Tries::default());
        assert_eq!(failing(), 1);
        assert_eq!(attempts.count(&one, FAILED).in_a_row, 0, "they are counted anew");
        attempts.forget(&two);
        attempts.forget(&two);
        assert_eq!((failing(), gauge.with_label_values(&["McpApp"]).get()), (0, 1));
    }

    #[test]
    fn passes_that_failed_in_another_way_count_as_failed_and_not_for_the_wait() {
        let gauge = MetricSet::default().gauges("failing", "failing", &["kind"]);
        let attempts = Attempts::new(gauge.clone());
        let one = Key::new("McpServer", "team", "one");
        let count = |class| {
            let tries = attempts.count(&one, Some(class));
            (tries.in_a_row, tries.failed)
        };
        assert_eq!([0; 10].map(|_| count(Class::Away).0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!([0; 2].map(|_| count(Class::Transient)), [(0, 10), (1, 11)]);
        assert_eq!([Class::Away, Class::Transient].map(count), [(0, 12), (0, 13)]);
        assert_eq!(gauge.with_label_values(&["McpServer"]).get(), 1);
    }
}

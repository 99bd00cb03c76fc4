//! Failed passes in a row, by object: kube's error policy is not told the attempt.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Counts by object.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, u32>>);

impl Attempts {
    /// Counts a failed pass, or forgets them all. Gives the failed passes before this one.
    pub fn count(&self, object: &str, failed: bool) -> u32 {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !failed {
            attempts.remove(object);
            return 0;
        }
        let count = attempts.entry(object.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count - 1
    }

    /// The object is gone.
    pub fn forget(&self, object: &str) {
        self.count(object, false);
    }
}

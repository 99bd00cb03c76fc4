//! Equal values held once: a thousand replicas of one server tell the same tools a thousand times. No I/O.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Below so many values nobody looks for those that are gone.
const FEW: usize = 256;

/// Values that are shared by all who hold an equal one, and forgotten when nobody holds them any more.
#[derive(Debug)]
pub struct Interner<T> {
    keys: RandomState,
    held: Mutex<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    by_hash: HashMap<u64, Weak<T>>,
    /// From so many on, those that are gone are looked for.
    prune_at: usize,
}

impl<T: Hash + Eq> Interner<T> {
    /// One that holds nothing.
    pub fn new() -> Self {
        Self { keys: RandomState::new(), held: Mutex::new(Held { by_hash: HashMap::new(), prune_at: FEW }) }
    }

    /// The value, or one that is equal to it and that somebody holds.
    pub fn share(&self, value: T) -> Arc<T> {
        let hash = self.keys.hash_one(&value);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Two values of one hash: the later one takes the place, and the earlier one is merely shared no longer.
        if let Some(known) = held.by_hash.get(&hash).and_then(Weak::upgrade).filter(|known| **known == value) {
            return known;
        }
        let value = Arc::new(value);
        held.by_hash.insert(hash, Arc::downgrade(&value));
        if held.by_hash.len() >= held.prune_at {
            held.by_hash.retain(|_, value| value.strong_count() > 0);
            // Twice as many as are left: a look at all of them is paid for by as many insertions.
            held.prune_at = FEW.max(held.by_hash.len() * 2);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_others_are_not() {
        let interner = Interner::new();
        let (first, second, other) = (interner.share("a".to_owned()), interner.share("a".to_owned()), interner.share("b".into()));
        assert!(Arc::ptr_eq(&first, &second) && *other == "b");
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let interner = Interner::new();
        let kept = interner.share(0);
        for n in 1..100 * FEW {
            interner.share(n);
        }
        assert!(interner.held.lock().expect("no panic").by_hash.len() <= FEW);
        assert!(Arc::ptr_eq(&kept, &interner.share(0)), "what somebody holds stays");
    }
}

//! The requests that are worked on at once. One caller takes at most half of what the others leave, so that there is always room for
//! somebody who has none yet.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::db::turns::Caller;

/// So many requests at once.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_caller: HashMap<Caller, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place<'p> {
    places: &'p Places,
    caller: Caller,
}

impl Places {
    /// All of them free.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// A place for a request of `caller`, if it may have one.
    pub fn take(&self, caller: Caller) -> Option<Place<'_>> {
        let mut taken = self.lock();
        let free = self.most - taken.all;
        let own = taken.by_caller.entry(caller).or_default();
        if *own >= free {
            if *own == 0 {
                taken.by_caller.remove(&caller);
            }
            return None;
        }
        *own += 1;
        taken.all += 1;
        Some(Place { places: self, caller })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_caller.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                taken.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_who_has_none_yet() {
        let places = Places::new(8);
        let [a, b, c] = ["a", "b", "c"].map(Caller::known_by);
        let many = |caller| std::iter::from_fn(|| places.take(caller)).collect::<Vec<_>>();
        let of_a = many(a);
        let of_b = many(b);
        let of_c = many(c);
        assert_eq!((of_a.len(), of_b.len(), of_c.len()), (4, 2, 1));
        drop(of_a);
        assert_eq!(of_b.len() + many(b).len(), 4, "half of what the others leave");
        drop((of_b, of_c));
        assert!(places.lock().by_caller.is_empty());
        assert_eq!(many(c).len(), 4);
    }

    #[test]
    fn one_place_can_be_taken() {
        let places = Places::new(1);
        let one = places.take(Caller::OWN);
        assert!(one.is_some() && places.take(Caller::known_by("b")).is_none());
    }
}

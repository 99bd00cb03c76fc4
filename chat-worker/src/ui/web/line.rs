//! The line of those who would rather wait than be turned away: so many of one caller, and so many in all, since each holds a connection. Pure.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Requests of one caller that wait.
const OF_ONE: usize = 8;
/// And of all callers together.
const OF_ALL: usize = 256;

/// How many of each caller wait now.
#[derive(Debug, Default)]
pub struct Line(Mutex<HashMap<IpAddr, usize>>);

/// A place in it, for as long as this lives.
#[derive(Debug)]
pub struct Place<'a> {
    line: &'a Line,
    caller: IpAddr,
}

impl Line {
    /// A place for a request of this caller; `None` where there is none left.
    pub fn place(&self, caller: IpAddr) -> Option<Place<'_>> {
        let mut waiting = self.waiting();
        let own = waiting.get(&caller).copied().unwrap_or_default();
        if own >= OF_ONE || waiting.values().sum::<usize>() >= OF_ALL {
            return None;
        }
        waiting.insert(caller, own + 1);
        Some(Place { line: self, caller })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting();
        let left = waiting.get(&self.caller).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            waiting.remove(&self.caller);
        } else {
            waiting.insert(self.caller, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_one_caller_and_so_many_in_all_wait_and_who_leaves_makes_room() {
        let line = Line::default();
        let caller = |number: usize| IpAddr::from([10, 0, 0, u8::try_from(number).expect("few")]);
        let mut all: Vec<_> = (0..OF_ONE).map(|_| line.place(caller(0)).expect("a place")).collect();
        assert!(line.place(caller(0)).is_none());
        all.pop();
        all.extend(line.place(caller(0)));
        assert_eq!(all.len(), OF_ONE);
        for other in 1..OF_ALL / OF_ONE {
            all.extend((0..OF_ONE).filter_map(|_| line.place(caller(other))));
        }
        assert_eq!((all.len(), line.place(caller(250)).is_none()), (OF_ALL, true));
        drop(all);
        assert!(line.waiting().is_empty() && line.place(caller(250)).is_some());
    }
}

//! Work that waits, by caller: callers take turns, so that one who has sent a thousand statements delays another's by one. Without locks and
//! threads; those are reader.rs's and line.rs's.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;

/// Who a statement is from: the holder of a token, or an address. Only told apart, never told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller(u64);

impl Caller {
    /// The server itself, and the one client of standard input.
    pub const OWN: Self = Self(0);

    /// The caller that is known by `mark`. Who chooses his own mark cannot choose somebody else's number.
    pub fn known_by(mark: impl Hash) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEY.hash_one(mark).max(1))
    }
}

/// Emptied queues that are kept for the next caller.
const SPARES: usize = 16;

/// Work in the order in which it is to be done.
#[derive(Debug)]
pub struct Turns<T> {
    /// Callers who wait, the next one first, each once and with something to do.
    callers: VecDeque<(Caller, VecDeque<T>)>,
    spares: Vec<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { callers: VecDeque::new(), spares: Vec::new(), len: 0 }
    }
}

impl<T> Turns<T> {
    /// Everything that waits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What waits of one caller.
    pub fn of(&self, caller: Caller) -> usize {
        self.callers.iter().find(|(one, _)| *one == caller).map_or(0, |(_, work)| work.len())
    }

    /// Adds work behind what its caller has waiting already.
    pub fn push(&mut self, caller: Caller, work: T) {
        self.len += 1;
        if let Some((_, queue)) = self.callers.iter_mut().find(|(one, _)| *one == caller) {
            queue.push_back(work);
        } else {
            let mut queue = self.spares.pop().unwrap_or_default();
            queue.push_back(work);
            self.callers.push_back((caller, queue));
        }
    }

    /// The next work of the first caller in turn who `may`; he goes to the end.
    pub fn pop(&mut self, may: impl Fn(Caller) -> bool) -> Option<(Caller, T)> {
        let at = self.callers.iter().position(|(caller, _)| may(*caller))?;
        let (caller, mut queue) = self.callers.remove(at)?;
        let work = queue.pop_front()?;
        self.len -= 1;
        if !queue.is_empty() {
            self.callers.push_back((caller, queue));
        } else if self.spares.len() < SPARES {
            self.spares.push(queue);
        }
        Some((caller, work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_turns_and_each_keeps_its_order() {
        let mut turns = Turns::default();
        let [a, b, c] = ["a", "b", "c"].map(Caller::known_by);
        for (caller, work) in [(a, 1), (a, 2), (a, 3), (b, 4), (c, 5), (b, 6)] {
            turns.push(caller, work);
        }
        assert_eq!((turns.len(), turns.of(a), turns.of(b)), (6, 3, 2));
        let order: Vec<_> = std::iter::from_fn(|| turns.pop(|_| true)).map(|(_, work)| work).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_may_not_is_passed_over_and_keeps_his_turn() {
        let mut turns = Turns::default();
        let [a, b] = ["a", "b"].map(Caller::known_by);
        for (caller, work) in [(a, 1), (b, 2), (b, 3)] {
            turns.push(caller, work);
        }
        assert_eq!(turns.pop(|caller| caller != a), Some((b, 2)));
        assert_eq!(turns.pop(|_| true), Some((a, 1)));
        assert_eq!(turns.pop(|caller| caller == a), None);
        assert_eq!(turns.len(), 1);
    }
}

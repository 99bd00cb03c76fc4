//! The line in front of the one thread that writes: callers take turns in it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::DbError;
use super::turns::{Caller, Turns};

/// Work that waits for one thread.
#[derive(Debug)]
pub struct Line<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: Turns<T>,
    /// The thread has nothing to do.
    idle: bool,
    closed: bool,
}

impl<T> Line<T> {
    /// For so much work at once.
    pub fn new(capacity: usize) -> Self {
        let state = State { waiting: Turns::default(), idle: false, closed: false };
        Self { capacity, state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Adds work. A caller takes at most half of what is left: there is always a place for another one.
    pub fn push(&self, caller: Caller, work: T) -> Result<(), DbError> {
        let mut state = self.lock();
        if state.closed {
            return Err(DbError::Closed);
        }
        let waiting = state.waiting.len();
        if state.waiting.of(caller) >= self.capacity.saturating_sub(waiting) {
            return Err(DbError::Busy(waiting));
        }
        state.waiting.push(caller, work);
        let wake = state.idle;
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits for work. None: the line is closed, and all of it has been done.
    pub fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some((_, work)) = state.waiting.pop(|_| true) {
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state.idle = true;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
        }
    }

    /// The next work of a caller who `may`, waited for until `deadline`.
    pub fn next_before(&self, deadline: Instant, may: impl Fn(Caller) -> bool) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some((_, work)) = state.waiting.pop(&may) {
                return Some(work);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                return None;
            }
            state.idle = true;
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.idle = false;
        }
    }

    /// The next work of a caller who `may`, if it is there.
    pub fn next_now(&self, may: impl Fn(Caller) -> bool) -> Option<T> {
        self.lock().waiting.pop(may).map(|(_, work)| work)
    }

    /// Whether no more work is taken.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Everything that waits.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Takes no more work. What waits is still done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_line_has_room_for_another_caller() {
        let line = Line::new(4);
        let [a, b] = ["a", "b"].map(Caller::known_by);
        assert!((0..2).all(|work| line.push(a, work).is_ok()));
        assert!(matches!(line.push(a, 2), Err(DbError::Busy(2))));
        assert!(line.push(b, 3).is_ok());
        assert_eq!((line.len(), line.next(), line.next()), (3, Some(0), Some(3)));
    }

    #[test]
    fn a_closed_line_is_worked_off() {
        let line = Line::new(4);
        let (a, soon) = (Caller::OWN, Instant::now() + Duration::from_millis(1));
        line.push(a, 1).unwrap();
        assert_eq!(line.next_now(|_| false), None);
        assert_eq!(line.next_before(soon, |_| false), None);
        line.close();
        assert!(matches!(line.push(a, 2), Err(DbError::Closed)));
        assert_eq!((line.next(), line.next()), (Some(1), None));
        assert_eq!(line.next_before(Instant::now() + Duration::from_mins(1), |_| true), None);
    }
}

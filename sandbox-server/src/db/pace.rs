//! What a statement must not cost the others: after a few milliseconds it is a long one. Then it needs a place among the long ones or gives
//! way, rests while short ones run, and ends when the process's memory runs out and it has taken the most. Looked at between instructions of
//! SQLite's machine, by the guard (limits.rs). Who gets which thread is reader.rs.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::DbError;

/// A statement that has run for this long is a long one.
pub const LONG: Duration = Duration::from_millis(5);

/// A long statement works for this long, and rests as long, while short ones run.
const STINT: Duration = Duration::from_micros(500);

/// How often a long statement looks at the memory.
const MEMORY_EVERY: Duration = Duration::from_millis(2);

/// Bytes of a page of memory, as the kernel counts them here.
const PAGE_BYTES: u64 = 4096;

/// What all statements of a database share.
#[derive(Debug)]
pub struct Load {
    /// Short statements that run or wait for a thread.
    pub short: AtomicUsize,
    /// The process's memory, in bytes, from which on the largest statement has to end.
    memory_ceiling: u64,
    /// A statement that has taken fewer bytes is not why memory runs out.
    much: u64,
    /// What each long statement has taken, roughly, in bytes. None: the place is free.
    taken: Mutex<Vec<Option<u64>>>,
}

impl Load {
    /// With SQLite's cap in bytes. A quarter of it is kept for statements that take little.
    pub fn new(max_memory_bytes: u64) -> Arc<Self> {
        let ceiling = resident_bytes().unwrap_or(0) + max_memory_bytes / 4 * 3;
        let much = max_memory_bytes / 8;
        Arc::new(Self { short: AtomicUsize::new(0), memory_ceiling: ceiling, much, taken: Mutex::default() })
    }

    fn enter(&self) -> usize {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let place = taken.iter().position(Option::is_none).unwrap_or(taken.len());
        if place == taken.len() {
            taken.push(None);
        }
        taken[place] = Some(0);
        place
    }

    fn leave(&self, place: usize) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)[place] = None;
    }

    /// Notes what a statement has taken; true: memory runs out, and no other has taken more.
    fn is_too_much(&self, place: usize, bytes: u64) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken[place] = Some(bytes);
        let largest = taken.iter().flatten().max().is_none_or(|most| *most <= bytes);
        drop(taken);
        largest && bytes >= self.much && resident_bytes().is_some_and(|resident| resident > self.memory_ceiling)
    }
}

/// The process's memory in bytes.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE_BYTES)
}

/// How much memory this thread has touched for the first time since it was started, in bytes: SQLite counts for the whole process only, and
/// a statement's sort is a thread's.
fn touched_bytes() -> Option<u64> {
    let stat = fs::read_to_string("/proc/thread-self/stat").ok()?;
    // After the name, which may hold anything, comes the state; the minor faults are seven fields on.
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').nth(7)?.parse::<u64>().ok()? * PAGE_BYTES)
}

/// What happens to a statement that becomes a long one.
pub trait Places: Send {
    /// It asks for a place among the long ones; false: it gives way, to be run again when there is one.
    fn become_long(&self) -> bool;
    /// It begins; true: it has such a place already.
    fn is_long(&self) -> bool;
}

/// A thread's statement, one after the other.
pub struct Pace {
    load: Arc<Load>,
    /// None: there is one such thread, and nobody else's statement could be run instead.
    places: Option<Box<dyn Places>>,
    started: Instant,
    long: Option<Long>,
}

struct Long {
    place: usize,
    touched_before: u64,
    rested: Instant,
    looked: Instant,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").finish_non_exhaustive()
    }
}

impl Pace {
    /// For the statements of one thread.
    pub fn new(load: Arc<Load>, places: Option<Box<dyn Places>>) -> Self {
        Self { load, places, started: Instant::now(), long: None }
    }

    /// A statement begins.
    pub fn begin(&mut self, now: Instant) {
        self.started = now;
        if self.places.as_ref().is_some_and(|places| places.is_long()) {
            self.be_long(now);
        }
    }

    /// A statement has ended.
    pub fn end(&mut self) {
        if let Some(long) = self.long.take() {
            self.load.leave(long.place);
        }
    }

    fn be_long(&mut self, now: Instant) {
        let touched_before = touched_bytes().unwrap_or(0);
        self.long = Some(Long { place: self.load.enter(), touched_before, rested: now, looked: now });
    }

    /// Looks at a running statement; an error ends it.
    pub fn look(&mut self, now: Instant) -> Option<DbError> {
        let Some(long) = &mut self.long else {
            if now - self.started >= LONG {
                if self.places.as_ref().is_some_and(|places| !places.become_long()) {
                    return Some(DbError::GaveWay);
                }
                self.be_long(now);
            }
            return None;
        };
        if now - long.looked >= MEMORY_EVERY {
            long.looked = now;
            let touched = touched_bytes().unwrap_or(0).saturating_sub(long.touched_before);
            if self.load.is_too_much(long.place, touched) {
                return Some(DbError::TooMuchMemory);
            }
        }
        let worked = now - long.rested;
        // The writer does not rest: who waits for it waits for its lock.
        if worked >= STINT && self.places.is_some() {
            if self.load.short.load(Ordering::Relaxed) > 0 {
                std::thread::sleep(worked.min(2 * STINT));
            }
            long.rested = Instant::now();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_statements_the_larger_one_ends_when_memory_runs_out() {
        let load = |ceiling| Load { short: AtomicUsize::new(0), memory_ceiling: ceiling, much: 100, taken: Mutex::default() };
        let (full, free) = (load(0), load(u64::MAX));
        for (load, ends) in [(&full, true), (&free, false)] {
            let (small, large) = (load.enter(), load.enter());
            assert!(!load.is_too_much(small, 99), "it has not taken much");
            assert_eq!(load.is_too_much(large, 200), ends);
            assert!(!load.is_too_much(small, 100), "another has taken more");
            load.leave(large);
            assert_eq!(load.is_too_much(small, 100), ends);
            assert_eq!(load.enter(), large, "places are used again");
        }
    }

    #[test]
    fn the_kernel_tells_what_a_thread_has_touched() {
        let before = touched_bytes().unwrap();
        let memory = vec![1_u8; 8 << 20];
        let touched = touched_bytes().unwrap() - before;
        assert!(touched >= memory.len() as u64 / 2, "{touched}");
        assert!(resident_bytes().unwrap() > memory.len() as u64);
    }
}

//! Work on large texts. One thread serves everybody: what reads megabytes is done beside it, and one piece at a time, so that what many
//! large answers take while they are read adds up to no more than one of them. What they take once they are read is bounded, too: the next
//! one is read when there is room.

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};

/// A text of fewer bytes takes less than a MiB, whatever it holds.
pub const LIGHT: usize = 4 << 10;
/// From so many bytes on, a text is long: some milliseconds of reading.
const LONG: usize = 128 * 1024;

static PLACE: Semaphore = Semaphore::const_new(1);

/// What servers answer takes so much of the memory together, once it is read.
pub static ANSWERS: Memory = Memory::of(128);
/// And what clients of /mcp send.
pub static REQUESTS: Memory = Memory::of(64);
/// And the long conversations that turns go on with, each for as long as its turn.
pub static CONVERSATIONS: Memory = Memory::of(96);

/// A part of the memory, in MiB. What takes less than one does not count.
#[derive(Debug)]
pub struct Memory {
    all: u32,
    left: Semaphore,
}

/// What a request takes of the memory once it is read, in bytes: for whoever keeps it when its room has been given back.
#[derive(Debug, Clone, Copy)]
pub struct Weight(pub usize);

/// What is taken of it, for as long as this lives.
#[derive(Debug)]
pub struct Room {
    _permit: SemaphorePermit<'static>,
}

impl Memory {
    const fn of(mebibytes: u32) -> Self {
        Self { all: mebibytes, left: Semaphore::const_new(mebibytes as usize) }
    }

    /// Waits until there is room for something that takes so many bytes. Whoever has room must need no more of it to give it back.
    pub async fn room(&'static self, weight: usize) -> Option<Room> {
        let mebibytes = u32::try_from(weight >> 20).unwrap_or(self.all).min(self.all);
        if mebibytes == 0 {
            return None;
        }
        // It is never closed.
        self.left.acquire_many(mebibytes).await.ok().map(|permit| Room { _permit: permit })
    }
}

/// Does `work` on a text of `size` bytes: at once where it is small, else on a thread of its own. Whoever stops waiting stops nothing that
/// has begun.
pub async fn work<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if size < LONG {
        return work();
    }
    // It is never closed.
    let place = PLACE.acquire().await;
    let done = spawn_blocking(move || {
        let _place = place;
        work()
    });
    match done.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The program ends, and this with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn what_is_large_waits_for_room_and_what_is_small_does_not() {
        static MEMORY: Memory = Memory::of(8);
        let (first, second) = (MEMORY.room(4 << 20).await, MEMORY.room(4 << 20).await);
        assert!(first.is_some() && second.is_some());
        assert!(MEMORY.room(1 << 19).await.is_none(), "it takes none");
        let mut third = Box::pin(MEMORY.room(1 << 20));
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        assert!(third.await.is_some());
        drop(second);
        assert!(MEMORY.room(usize::MAX).await.is_some(), "however much it is");
    }

    #[tokio::test]
    async fn large_pieces_hold_up_nobody_and_are_done_one_at_a_time() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let one = |beside: Option<std::sync::mpsc::Receiver<()>>| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            work(LONG, move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let held_up = beside.is_some_and(|beside| beside.recv_timeout(Duration::from_secs(20)).is_err());
                std::thread::sleep(Duration::from_millis(50));
                now.fetch_sub(1, Ordering::SeqCst);
                held_up
            })
        };
        let (done, beside) = std::sync::mpsc::channel();
        let small = async {
            tokio::task::yield_now().await;
            let five = work(LONG - 1, || 5).await;
            done.send(()).map(|()| five)
        };
        let (held_up, _, five) = tokio::join!(one(Some(beside)), one(None), small);
        assert_eq!((held_up, five, most.load(Ordering::SeqCst)), (false, Ok(5), 1));
    }
}

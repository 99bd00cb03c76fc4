//! Work on large texts. One thread serves everybody: what reads megabytes is done beside it, and one piece at a time, so that what many
//! large answers take while they are read adds up to no more than one of them.

use tokio::{sync::Semaphore, task::spawn_blocking};

/// From so many bytes on, a text is large: some milliseconds of reading.
pub const LARGE: usize = 128 * 1024;

static PLACE: Semaphore = Semaphore::const_new(1);

/// Does `work` on a text of `size` bytes: at once where it is small, else on a thread of its own. Whoever stops waiting stops nothing that
/// has begun.
pub async fn work<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if size < LARGE {
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

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn large_pieces_hold_up_nobody_and_are_done_one_at_a_time() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let one = || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            work(LARGE, move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(100));
                now.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let began = Instant::now();
        let small = async {
            tokio::task::yield_now().await;
            (work(LARGE - 1, || 5).await, began.elapsed())
        };
        let ((), (), (five, took)) = tokio::join!(one(), one(), small);
        assert_eq!((five, most.load(Ordering::SeqCst)), (5, 1));
        assert!(took < Duration::from_millis(90), "{took:?}");
        assert!(began.elapsed() >= Duration::from_millis(200));
    }
}

//! The places of connections. When all are taken, the connection that has been without a request for longest gives its place to the next
//! one: connections that only stand there keep nobody out. Who has been without one for too long leaves in any case; that is looked at for
//! all of them at once, because a timer of its own for each request would wake the thread that serves it. An answer holds its place until it
//! is written, as long as its reader reads.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::flow::Pace;

/// Whoever reads nothing of its answer for so long is taken for one who only stands there.
const STUCK: Duration = Duration::from_secs(15);

/// All places.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    /// Who may be asked to leave, by a number of its own.
    taken: Mutex<HashMap<u64, Arc<Seat>>>,
    /// Numbers those who take a place.
    next: AtomicU64,
    /// Times are counted from here.
    opened: Instant,
    became_idle: Notify,
}

#[derive(Debug, Default)]
struct Seat {
    busy: AtomicBool,
    /// It had a request.
    known: AtomicBool,
    /// In nanoseconds.
    idle_since: AtomicU64,
    /// Something waits to be written, of which nothing has gone since `moved`.
    blocked: AtomicBool,
    /// In nanoseconds.
    moved: AtomicU64,
    /// It leaves as soon as it has no request.
    asked: AtomicBool,
    leave: Notify,
}

/// A connection's place; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    all: Arc<Places>,
    number: u64,
    seat: Arc<Seat>,
    _permit: OwnedSemaphorePermit,
}

/// While it lives, the connection has a request and keeps its place.
#[derive(Debug)]
pub struct Busy(Writing);

/// Of the stream of a connection.
#[derive(Debug, Clone)]
pub struct Writing {
    all: Arc<Places>,
    seat: Arc<Seat>,
}

impl Places {
    /// So many, at least one.
    pub fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(number.max(1))),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
            opened: Instant::now(),
            became_idle: Notify::new(),
        })
    }

    /// A place for one more connection. Waits only while every connection has a request.
    pub async fn take(self: &Arc<Self>) -> Place {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                break permit;
            }
            // Who has been asked leaves, if not at once then after the request that came in between.
            let asked = self.ask_longest_idle();
            tokio::select! {
                permit = Arc::clone(&self.free).acquire_owned() => break permit.expect("the semaphore is never closed"),
                () = self.became_idle.notified(), if !asked => {}
            }
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat { idle_since: AtomicU64::new(self.now()), ..Seat::default() });
        self.taken().insert(number, Arc::clone(&seat));
        Place { all: Arc::clone(self), number, seat, _permit: permit }
    }

    /// Whether there was one.
    fn ask_longest_idle(&self) -> bool {
        let now = self.now();
        let taken = self.taken();
        let idle = taken.values().filter(|seat| !seat.asked.load(Ordering::Relaxed));
        let longest = idle.filter_map(|seat| Some((seat.idle_since(now)?, seat))).min_by_key(|(since, _)| *since);
        longest.inspect(|(_, seat)| seat.ask()).is_some()
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks all to leave who have been without a request for `limit`, and for `first` those who never had one.
    pub fn ask_idle(&self, first: Duration, limit: Duration) {
        let now = self.now();
        for seat in self.taken().values() {
            let limit = if seat.known.load(Ordering::Relaxed) { limit } else { first };
            if seat.idle_since(now).is_some_and(|since| since.saturating_add(nanoseconds(limit)) <= now) {
                seat.ask();
            }
        }
    }

    fn now(&self) -> u64 {
        nanoseconds(self.opened.elapsed())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Seat {
    /// Since when it has neither a request nor an answer that somebody reads.
    fn idle_since(&self, now: u64) -> Option<u64> {
        if self.blocked.load(Ordering::Acquire) {
            let moved = self.moved.load(Ordering::Relaxed);
            return (moved.saturating_add(nanoseconds(STUCK)) <= now).then_some(moved);
        }
        (!self.busy.load(Ordering::Acquire)).then(|| self.idle_since.load(Ordering::Relaxed))
    }

    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.leave.notify_one();
    }
}

impl Place {
    /// For the stream of the connection.
    pub fn pace(&self) -> Writing {
        Writing { all: Arc::clone(&self.all), seat: Arc::clone(&self.seat) }
    }

    /// To be kept as long as a request is answered.
    pub fn busy(&self) -> Busy {
        self.seat.known.store(true, Ordering::Relaxed);
        self.seat.busy.store(true, Ordering::Release);
        Busy(self.pace())
    }

    /// Runs a connection until it ends, or until it has no request and another needs its place: then it is given back.
    pub async fn hold<C: Future + Unpin>(&self, mut connection: C) -> Option<C> {
        let mut asked = pin!(self.seat.leave.notified());
        loop {
            let ended = std::future::poll_fn(|context| {
                // First the connection: what it has to say is said before it leaves.
                if Pin::new(&mut connection).poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                while asked.as_mut().poll(context).is_ready() {
                    asked.set(self.seat.leave.notified());
                }
                if self.leaves() { Poll::Ready(false) } else { Poll::Pending }
            });
            if ended.await {
                return None;
            }
            // A request that has arrived already is known to the runtime when it has looked once more.
            tokio::task::yield_now().await;
            let ended = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context).is_ready()));
            if ended.await {
                return None;
            }
            if self.leaves() {
                return Some(connection);
            }
        }
    }

    /// Whether an answer waits to be written that nobody reads.
    pub fn is_stuck(&self) -> bool {
        self.seat.blocked.load(Ordering::Acquire)
    }

    fn leaves(&self) -> bool {
        self.seat.asked.load(Ordering::Acquire) && self.seat.idle_since(self.all.now()).is_some()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Writing { all, seat } = &self.0;
        seat.idle_since.store(all.now(), Ordering::Relaxed);
        seat.busy.store(false, Ordering::Release);
        all.became_idle.notify_one();
    }
}

impl Pace for Writing {
    fn blocked(&self) {
        self.seat.moved.store(self.all.now(), Ordering::Relaxed);
        self.seat.blocked.store(true, Ordering::Release);
    }

    fn moved(&self) {
        if self.seat.blocked.load(Ordering::Relaxed) {
            self.seat.idle_since.store(self.all.now(), Ordering::Relaxed);
            self.seat.blocked.store(false, Ordering::Release);
            self.all.became_idle.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.taken().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// Whether a connection that would never end by itself has left.
    fn held(place: Place) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { assert!(place.hold(pending::<()>()).await.is_some(), "it has left, and not ended") })
    }

    #[tokio::test]
    async fn the_longest_idle_leaves_for_the_next() {
        let places = Places::new(3);
        let first = places.take().await;
        let second = places.take().await;
        let third = places.take().await;
        // The first had a request since: now the second has been idle for longest.
        drop(first.busy());
        let (first, second, third) = (held(first), held(second), held(third));
        let fourth = places.take().await;
        second.await.unwrap();
        assert!(!first.is_finished() && !third.is_finished());
        let _fifth = places.take().await;
        third.await.unwrap();
        assert!(!first.is_finished());
        drop(fourth);
        let _sixth = places.take().await;
        assert!(!first.is_finished(), "a place was free");
    }

    #[tokio::test]
    async fn a_connection_with_a_request_keeps_its_place() {
        let places = Places::new(1);
        let place = places.take().await;
        let busy = place.busy();
        let connection = held(place);
        let next = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished() && !connection.is_finished());
        // And leaves once it is answered, since somebody waits.
        drop(busy);
        connection.await.unwrap();
        next.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_request_for_long_leaves_and_who_has_one_stays() {
        let (limit, nearly) = (Duration::from_secs(15), Duration::from_secs(14));
        let places = Places::new(3);
        let (idle, busy, late) = (places.take().await, places.take().await, places.take().await);
        let request = busy.busy();
        let (idle, busy) = (held(idle), held(busy));
        tokio::time::advance(limit).await;
        drop(late.busy());
        let late = held(late);
        places.ask_idle(limit, limit);
        idle.await.unwrap();
        assert!(!busy.is_finished() && !late.is_finished());
        // From the end of its request on.
        drop(request);
        tokio::time::advance(nearly).await;
        places.ask_idle(limit, limit);
        tokio::task::yield_now().await;
        assert!(!busy.is_finished() && !late.is_finished());
        tokio::time::advance(Duration::from_secs(1)).await;
        places.ask_idle(limit, limit);
        busy.await.unwrap();
        late.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_had_a_request_may_stand_there_for_longer() {
        let places = Places::new(2);
        let (new, known) = (places.take().await, places.take().await);
        drop(known.busy());
        let (new, known) = (held(new), held(known));
        let (first, limit) = (Duration::from_secs(15), Duration::from_secs(75));
        tokio::time::advance(Duration::from_secs(74)).await;
        places.ask_idle(first, limit);
        new.await.unwrap();
        assert!(!known.is_finished());
        tokio::time::advance(Duration::from_secs(1)).await;
        places.ask_idle(first, limit);
        known.await.unwrap();
    }

    #[tokio::test]
    async fn who_was_asked_before_its_request_leaves_after_it() {
        let places = Places::new(1);
        let place = places.take().await;
        assert!(places.ask_longest_idle());
        let (answered, answer) = tokio::sync::oneshot::channel::<()>();
        let connection = tokio::spawn(async move {
            let request = async {
                let busy = place.busy();
                answer.await.unwrap();
                drop(busy);
                pending::<()>().await;
            };
            place.hold(Box::pin(request)).await;
        });
        tokio::task::yield_now().await;
        assert!(!connection.is_finished());
        assert!(!places.ask_longest_idle(), "nobody is asked twice");
        answered.send(()).unwrap();
        let _next = places.take().await;
        connection.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_its_answer_is_taken_for_idle_after_a_while() {
        let places = Places::new(2);
        let (slow, stuck) = (places.take().await, places.take().await);
        let (slowly, stuck_writing) = (slow.pace(), stuck.pace());
        drop((slow.busy(), stuck.busy()));
        slowly.blocked();
        stuck_writing.blocked();
        let (slow, stuck) = (held(slow), held(stuck));
        tokio::time::advance(STUCK / 2).await;
        assert!(!places.ask_longest_idle(), "both are being answered");
        slowly.moved();
        slowly.blocked();
        tokio::time::advance(STUCK / 2).await;
        assert!(places.ask_longest_idle());
        stuck.await.unwrap();
        assert!(!slow.is_finished());
    }
}

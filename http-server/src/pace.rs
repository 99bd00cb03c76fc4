//! How often a caller may ask, as a token bucket: a whole window's worth at once, refilled evenly. A caller is an address as
//! `forwarded::Caller::counted_as` has it. It is asked before a token is looked at: guessing is asking, too.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// After so many requests the callers whose buckets are full again are forgotten.
const FORGET_EVERY: u32 = 4096;

/// See the file.
#[derive(Debug)]
pub struct Pace {
    buckets: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    asked: AtomicU32,
}

impl Pace {
    /// So many requests of each caller in a window; None: a window that cannot be divided into so many.
    pub fn new(requests: NonZeroU32, window: Duration) -> Option<Self> {
        let quota = Quota::with_period(window / requests.get())?.allow_burst(requests);
        Some(Self { buckets: RateLimiter::keyed(quota), clock: DefaultClock::default(), asked: AtomicU32::new(0) })
    }

    /// Takes one request of this caller; otherwise how long it has to wait.
    pub fn take(&self, caller: IpAddr) -> Result<(), Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
        self.buckets.check_key(&caller).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_the_whole_window_is_taken_and_then_one_has_to_wait() {
        let pace = |requests| Pace::new(NonZeroU32::new(requests).unwrap(), Duration::from_mins(1));
        let [one, two] = ["192.0.2.1", "2001:db8::"].map(|address| address.parse().unwrap());
        let three = pace(3).unwrap();
        for _ in 0..3 {
            assert_eq!(three.take(one), Ok(()));
        }
        let wait = three.take(one).unwrap_err();
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(three.take(two), Ok(()));
        assert!(Pace::new(NonZeroU32::MAX, Duration::from_nanos(1)).is_none());
    }

    #[test]
    fn no_number_of_callers_fills_the_memory() {
        let pace = Pace::new(NonZeroU32::new(1_000_000).unwrap(), Duration::from_secs(1)).unwrap();
        for caller in 0..4 * FORGET_EVERY {
            pace.take(IpAddr::V4(caller.into())).unwrap();
        }
        assert!(pace.buckets.len() <= 2 * FORGET_EVERY as usize, "{}", pace.buckets.len());
    }
}

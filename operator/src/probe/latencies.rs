//! How long a target's last answers took. Pure.

use std::time::Duration;

/// The last latencies of a target.
#[derive(Debug, Default)]
pub struct Latencies {
    ring: Vec<f32>,
    next: usize,
}

impl Latencies {
    const KEPT: usize = 32;

    pub(super) fn add(&mut self, latency: Duration) {
        let ms = latency.as_secs_f32() * 1_000.0;
        if self.ring.len() < Self::KEPT {
            self.ring.push(ms);
        } else {
            self.ring[self.next] = ms;
            self.next = (self.next + 1) % Self::KEPT;
        }
    }

    /// The value below which a share of the latencies lies, in milliseconds.
    pub fn percentile(&self, percent: usize) -> Option<f32> {
        let mut sorted = self.ring.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
    }
}

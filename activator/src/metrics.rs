//! Every metric of the activator, once.

use std::time::Duration;

use metrics_text::{Exposition, Histogram, IntCounterVec, IntGauge, MetricSet};

/// From the first call to the first pod, in seconds.
const SECONDS: [f64; 14] = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0];

/// The metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    all: MetricSet,
    requests: IntCounterVec,
    wakes: Histogram,
    /// Requests that wait for a server to wake.
    pub held: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let all = MetricSet::default();
        let requests = "Requests for servers that may sleep, by what became of them.";
        Self {
            requests: all.counters("activator_requests_total", requests, &["outcome"]),
            wakes: all.histogram("activator_wake_seconds", "Time from the first call to the first pod in service.", &SECONDS),
            held: all.gauge("activator_requests_held", "Requests that wait for a server to wake."),
            all,
        }
    }
}

impl Metrics {
    /// What became of a request: answered, forwarded, late, refused.
    pub fn request(&self, outcome: &str) {
        self.requests.with_label_values(&[outcome]).inc();
    }

    /// A server woke within this time.
    pub fn woken(&self, after: Duration) {
        self.wakes.observe(after.as_secs_f64());
    }

    /// What answers `/metrics`.
    pub fn answer(&self) -> Exposition {
        self.all.answer()
    }
}

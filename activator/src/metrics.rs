//! Every metric of the activator, once.

use std::time::Duration;

use prometheus::{Encoder as _, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The metrics, and the registry that they are printed from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    wakes: Histogram,
    /// Requests that wait for a server to wake.
    pub held: IntGauge,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let requests = Opts::new("activator_requests_total", "Requests for servers that may sleep, by what became of them.");
        let requests = IntCounterVec::new(requests, &["outcome"])?;
        let buckets = vec![0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0];
        let wakes = HistogramOpts::new("activator_wake_seconds", "Time from the first call to the first pod in service.");
        let wakes = Histogram::with_opts(wakes.buckets(buckets))?;
        let held = IntGauge::new("activator_requests_held", "Requests that wait for a server to wake.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(wakes.clone()))?;
        registry.register(Box::new(held.clone()))?;
        Ok(Self { registry, requests, wakes, held })
    }

    /// What became of a request: answered, forwarded, late, refused.
    pub fn request(&self, outcome: &str) {
        self.requests.with_label_values(&[outcome]).inc();
    }

    /// A server woke within this time.
    pub fn woken(&self, after: Duration) {
        self.wakes.observe(after.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

//! The controllers' metrics. The prober's are in `probe::metrics`.

use std::time::Instant;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// How many passes there were, how they ended, and how long they took.
#[derive(Clone, Debug)]
pub struct ReconcileMetrics {
    passes: IntCounterVec,
    seconds: HistogramVec,
}

impl ReconcileMetrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let passes = IntCounterVec::new(
            Opts::new(
                "mcpfleet_reconcile_total",
                "Passes by kind and outcome: ok, paused, rejected, waiting, contested or transient",
            ),
            &["kind", "outcome"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("mcpfleet_reconcile_duration_seconds", "Seconds that a pass took, by kind")
                .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
            &["kind"],
        )?;
        registry.register(Box::new(passes.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { passes, seconds })
    }

    /// Begins a pass.
    pub fn start(&self, kind: &'static str) -> Timer<'_> {
        Timer { metrics: self, kind, began: Instant::now() }
    }
}

/// A pass under way.
#[derive(Debug)]
pub struct Timer<'a> {
    metrics: &'a ReconcileMetrics,
    kind: &'static str,
    began: Instant,
}

impl Timer<'_> {
    /// Ends it.
    pub fn done(self, outcome: &str) {
        self.metrics.passes.with_label_values(&[self.kind, outcome]).inc();
        self.metrics.seconds.with_label_values(&[self.kind]).observe(self.began.elapsed().as_secs_f64());
    }
}

/// Whether this process leads.
pub fn leader_gauge(registry: &Registry) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new("mcpfleet_leader", "1 while this process holds the Lease")?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

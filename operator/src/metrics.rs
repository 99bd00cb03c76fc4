//! The controllers' metrics. The prober's are in `probe::metrics`, others where they are counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use metrics_text::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, MetricSet};

/// Of a pass, in seconds.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// How many passes there were, how they ended, and how long they took.
#[derive(Clone, Debug)]
pub struct ReconcileMetrics {
    passes: IntCounterVec,
    seconds: HistogramVec,
    failing: IntGaugeVec,
    under_way: Arc<AtomicUsize>,
}

/// So many passes at once are those of a wave: each waits for the API server, and not for something of its own.
const MANY: usize = 8;

impl ReconcileMetrics {
    /// Registers them.
    pub fn new(all: &MetricSet) -> Self {
        let outcomes = "Passes by kind and outcome: ok, paused, rejected, waiting, contested or transient";
        let failing = "Objects of which five passes in a row or more ended as transient, by kind";
        let seconds = ("mcpfleet_reconcile_duration_seconds", "Seconds that a pass took, by kind");
        Self {
            passes: all.counters("mcpfleet_reconcile_total", outcomes, &["kind", "outcome"]),
            seconds: all.histograms(seconds.0, seconds.1, &["kind"], &SECONDS),
            failing: all.gauges("mcpfleet_reconcile_failing", failing, &["kind"]),
            under_way: Arc::default(),
        }
    }

    /// How many objects fail.
    pub fn failing(&self) -> IntGaugeVec {
        self.failing.clone()
    }

    /// Whether many passes are under way at once.
    pub fn are_many(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) >= MANY
    }

    /// Begins a pass.
    pub fn start(&self, kind: &'static str) -> Timer<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
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

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.metrics.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this process leads.
pub fn leader_gauge(all: &MetricSet) -> IntGauge {
    all.gauge("mcpfleet_leader", "1 while this process holds the Lease")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path, time::Duration};

    use super::*;
    use crate::{
        autoscale::Autoscaler,
        backups::Backups,
        probe::{EngineConfig, HealthEngine},
        scopes::ScopeMetric,
    };

    /// People look a metric up on one page, and the tests of the alerts look there whether there is what an alert asks for.
    #[test]
    fn every_metric_is_on_the_page_about_them() {
        let all = MetricSet::default();
        let _metrics = (ReconcileMetrics::new(&all), leader_gauge(&all), ScopeMetric::new(&all));
        let _metrics = (Backups::new(&all), Autoscaler::new(&all, Duration::ZERO));
        let _metrics = HealthEngine::new(EngineConfig::default(), &all);
        let there: BTreeSet<String> = all.rows().into_iter().collect();
        let page = include_str!("../../docs/metrics.md");
        let told: BTreeSet<String> = page.lines().filter(|line| line.starts_with("| `mcpfleet_")).map(str::to_owned).collect();
        let missing: Vec<_> = there.difference(&told).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks {missing:#?}");
        let unknown: Vec<_> = told.difference(&there).collect();
        assert!(unknown.is_empty(), "docs/metrics.md tells of what is not there: {unknown:#?}");

        let mut named = BTreeSet::new();
        names(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut named);
        named.retain(|name| !there.iter().any(|row| row.starts_with(&format!("| `{name}` "))));
        assert!(named.is_empty(), "not among those that were registered: {named:?}");
    }

    /// Every word in the code that names a metric.
    fn names(folder: &Path, named: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                names(&entry, named);
                continue;
            }
            let text = fs::read_to_string(&entry).expect("text");
            let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
            named.extend(words.filter(|word| word.len() > "mcpfleet_".len() && word.starts_with("mcpfleet_")).map(str::to_owned));
        }
    }
}

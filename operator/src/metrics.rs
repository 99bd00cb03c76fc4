//! The controllers' metrics, and the way in for all of them. The prober's are in `probe::metrics`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

/// Registers a metric. Every one of the operator's comes through here, so that a test knows them all.
pub fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> prometheus::Result<M> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    #[cfg(test)]
    tests::met(&metric);
    Ok(metric)
}

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
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let passes = IntCounterVec::new(
            Opts::new(
                "mcpfleet_reconcile_total",
                "Passes by kind and outcome: ok, paused, rejected, waiting, contested or transient",
            ),
            &["kind", "outcome"],
        );
        let seconds = HistogramVec::new(
            HistogramOpts::new("mcpfleet_reconcile_duration_seconds", "Seconds that a pass took, by kind")
                .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
            &["kind"],
        );
        let failing = IntGaugeVec::new(
            Opts::new("mcpfleet_reconcile_failing", "Objects of which five passes in a row or more ended as transient, by kind"),
            &["kind"],
        );
        Ok(Self {
            passes: registered(registry, passes)?,
            seconds: registered(registry, seconds)?,
            failing: registered(registry, failing)?,
            under_way: Arc::default(),
        })
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
pub fn leader_gauge(registry: &Registry) -> prometheus::Result<IntGauge> {
    registered(registry, IntGauge::new("mcpfleet_leader", "1 while this process holds the Lease"))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet, fs, path::Path, time::Duration};

    use super::*;
    use crate::{
        autoscale::Autoscaler,
        backups::Backups,
        probe::{EngineConfig, HealthEngine},
        scopes::ScopeMetric,
    };

    thread_local! {
        /// The rows of the page about metrics, of those that this thread registered.
        static MET: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Takes up a metric that is registered.
    pub(super) fn met(metric: &impl Collector) {
        let rows = metric.collect().into_iter().zip(metric.desc()).map(|(family, about)| {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            let labels: Vec<_> = about.variable_labels.iter().map(|label| format!("`{label}`")).collect();
            let help = about.help.trim_end_matches('.');
            format!("| `{}` | {kind} | {} | {help} |", about.fq_name, labels.join(", "))
        });
        MET.with_borrow_mut(|met| met.extend(rows));
    }

    /// People look a metric up on one page, and the tests of the alerts look there whether there is what an alert asks for.
    #[test]
    fn every_metric_is_on_the_page_about_them() {
        let registry = Registry::new();
        let _metrics = (ReconcileMetrics::new(&registry), leader_gauge(&registry), ScopeMetric::new(&registry));
        let _metrics = (Backups::new(&registry), Autoscaler::new(&registry, Duration::ZERO));
        let _metrics = HealthEngine::new(EngineConfig::default(), &registry);
        let there = MET.take();
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

//! The metrics of every program of ours: how they are registered, how many names are told apart in them, and the text that Prometheus reads.
//! Which metrics there are is each program's own; their types are those of the crate `prometheus`, which nobody else uses.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderName, header::CONTENT_TYPE};
pub use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, core::Collector,
};
use prometheus::{
    HistogramOpts, Opts, Registry, TEXT_FORMAT, TextEncoder,
    core::{Atomic, AtomicU64, Desc, GenericCounter, GenericCounterVec, GenericGauge, GenericGaugeVec},
    proto::MetricFamily,
};

/// A gauge of what is never less than nothing.
pub type UintGauge = GenericGauge<AtomicU64>;
/// Such gauges by labels.
pub type UintGaugeVec = GenericGaugeVec<AtomicU64>;

/// What all names are counted as that are not told apart.
pub const OTHER: &str = "other";

/// The metrics of a program. Cheap to clone. A name or a label that Prometheus does not take, or a name that is there already, is a mistake in
/// the program, and ends it.
#[derive(Debug, Clone, Default)]
pub struct MetricSet {
    registry: Registry,
    rows: Arc<Mutex<Vec<String>>>,
}

/// What answers `/metrics`.
pub type Exposition = ([(HeaderName, &'static str); 1], String);

impl MetricSet {
    /// A counter.
    pub fn counter<P: Atomic + 'static>(&self, name: &str, help: &str) -> GenericCounter<P> {
        self.add("counter", GenericCounter::new(name, help))
    }

    /// Counters by labels.
    pub fn counters<P: Atomic + 'static>(&self, name: &str, help: &str, labels: &[&str]) -> GenericCounterVec<P> {
        self.add("counter", GenericCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge.
    pub fn gauge<P: Atomic + 'static>(&self, name: &str, help: &str) -> GenericGauge<P> {
        self.add("gauge", GenericGauge::new(name, help))
    }

    /// Gauges by labels.
    pub fn gauges<P: Atomic + 'static>(&self, name: &str, help: &str, labels: &[&str]) -> GenericGaugeVec<P> {
        self.add("gauge", GenericGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A histogram with these upper bounds.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add("histogram", Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    /// Histograms by labels.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.add("histogram", HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    fn add<M: Collector + Clone + 'static>(&self, kind: &'static str, metric: prometheus::Result<M>) -> M {
        const SOUND: &str = "names and labels are constants that Prometheus takes, each once in a program";
        let metric = metric.expect(SOUND);
        self.registry.register(Box::new(metric.clone())).expect(SOUND);
        let row = |desc: &Desc| {
            let labels: Vec<_> = desc.variable_labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {kind} | {} | {} |", desc.fq_name, labels.join(", "), desc.help.trim_end_matches('.'))
        };
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).extend(metric.desc().into_iter().map(row));
        metric
    }

    /// The table of a page about the metrics, a row each, as they were registered: name, kind, labels, and what it says.
    pub fn rows(&self) -> Vec<String> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The metrics as they are now, but for those that have no series.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.gather()).expect("what has a name and a series can be written")
    }

    /// The text, as the answer to a request.
    pub fn answer(&self) -> Exposition {
        ([(CONTENT_TYPE, TEXT_FORMAT)], self.text())
    }
}

/// Names that others make up, and that become labels. Whoever goes on inventing them fills neither our memory nor the monitoring's: the first
/// ones are told apart, and what comes after them is counted together.
#[derive(Debug)]
pub struct Names {
    most: usize,
    known: HashSet<Box<str>>,
}

impl Names {
    /// So many are told apart.
    pub fn first(most: usize) -> Self {
        Self { most, known: HashSet::new() }
    }

    /// Whether this one is told apart, now and from now on.
    pub fn tells(&mut self, name: &str) -> bool {
        if self.known.contains(name) {
            return true;
        }
        let has_room = self.known.len() < self.most;
        if has_room {
            self.known.insert(name.into());
        }
        has_room
    }

    /// The name, if it is told apart, or else `other`.
    pub fn known<'a>(&mut self, name: &'a str) -> &'a str {
        if self.tells(name) { name } else { OTHER }
    }

    /// Its place is another's.
    pub fn forget(&mut self, name: &str) {
        self.known.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_in_the_text_and_told_of() {
        let set = MetricSet::default();
        let counter: IntCounter = set.counter("a_total", "Counted.");
        let counters: CounterVec = set.counters("b_total", "Counted by x.", &["x"]);
        let gauge: IntGauge = set.gauge("c", "Now.");
        let gauges: IntGaugeVec = set.gauges("d", "Now by x.", &["x", "y"]);
        let histogram = set.histogram("e_seconds", "Time.", &[0.5, 1.0]);
        set.histograms("f_seconds", "Time by x.", &["x"], &[1.0]);
        counter.inc();
        counters.with_label_values(&["1"]).inc_by(0.5);
        gauge.set(-3);
        gauges.with_label_values(&["1", "2"]).set(4);
        histogram.observe(0.7);
        let ([(header, kind)], text) = set.answer();
        assert_eq!((header, kind), (CONTENT_TYPE, "text/plain; version=0.0.4"));
        for line in [
            "# HELP a_total Counted.\n# TYPE a_total counter\na_total 1\n",
            "b_total{x=\"1\"} 0.5\n",
            "# TYPE c gauge\nc -3\n",
            "d{x=\"1\",y=\"2\"} 4\n",
            "e_seconds_bucket{le=\"0.5\"} 0\ne_seconds_bucket{le=\"1\"} 1\ne_seconds_bucket{le=\"+Inf\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("f_seconds"), "it has no series");
        let rows = set.rows();
        assert_eq!((rows.len(), rows[0].as_str()), (6, "| `a_total` | counter |  | Counted |"));
        assert_eq!(
            [&*rows[3], &*rows[5]],
            ["| `d` | gauge | `x`, `y` | Now by x |", "| `f_seconds` | histogram | `x` | Time by x |"]
        );
    }

    #[test]
    #[should_panic(expected = "each once in a program")]
    fn a_name_is_registered_once() {
        let set = MetricSet::default();
        let _: (IntCounter, IntGauge) = (set.counter("a", "One."), set.gauge("a", "One."));
    }

    #[test]
    fn so_many_names_are_told_apart_and_the_rest_are_other() {
        let mut names = Names::first(2);
        assert_eq!(["a", "b", "c", "a", "c"].map(|name| names.known(name)), ["a", "b", OTHER, "a", OTHER]);
        names.forget("a");
        assert_eq!(["c", "a", "b"].map(|name| names.known(name)), ["c", OTHER, "b"], "its place was free");
        names.forget("unknown");
        assert!(!names.tells("a"));
    }
}

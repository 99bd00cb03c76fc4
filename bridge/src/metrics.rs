//! Every metric of the bridge, once. What happens is counted where it happens; this file only names it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_text::{Exposition, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, MetricSet, Names, OTHER};

/// So many names of tools and methods are told apart of those that were once answered with a result.
const MAX_KNOWN: usize = 256;

/// Any name may come from a client: so many more are told apart of those that were never answered with a result.
const MAX_STRANGE: usize = 32;

/// The one method that names a tool.
const CALL: &str = "tools/call";

/// Calls of other methods than `tools/call` have no tool.
const NO_TOOL: &str = "";

/// Of a call, in seconds.
const SECONDS: [f64; 16] = [0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With a result.
    Ok,
    /// With a result that says that the tool failed.
    ToolError,
    /// With an error of the protocol.
    Error,
    /// Not in time.
    Timeout,
    /// Its client did not want it any more.
    Cancelled,
    /// The child ended meanwhile.
    Exited,
}

impl Outcome {
    const ALL: [Self; 6] = [Self::Ok, Self::ToolError, Self::Error, Self::Timeout, Self::Cancelled, Self::Exited];

    /// As metrics, logs and traces name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Exited => "exited",
        }
    }
}

/// The metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    all: MetricSet,
    calls: IntCounterVec,
    seconds: HistogramVec,
    known: Arc<Mutex<Known>>,
    /// Calls that wait for their answers.
    pub in_flight: IntGauge,
    /// Children that live.
    pub children: IntGauge,
    /// Children that took the place of one that died.
    pub restarts: IntCounter,
    /// Sessions that are known here.
    pub sessions: IntGauge,
    /// Bytes that wait for the child to read them.
    pub queued: IntGauge,
    /// Bytes of answers that wait for their clients to read them.
    pub unread: IntGauge,
    /// Bytes that children have read.
    pub written: IntCounter,
    /// Bytes that children have said.
    pub read: IntCounter,
    /// Lines on standard output that were no messages, or answered nothing.
    pub stray: IntCounter,
    /// Requests that did not reach a child, by reason.
    pub refused: IntCounterVec,
    /// Requests for sessions of other bridges, by how that went.
    pub forwarded: IntCounterVec,
}

/// What is told apart.
#[derive(Debug)]
struct Known {
    /// By method and tool, looked up once: a call would pay for it every time.
    series: HashMap<Box<str>, HashMap<Box<str>, Series>>,
    /// Those that were once answered with a result.
    answered: Names,
    strange: Names,
}

#[derive(Debug)]
struct Series {
    /// It was answered with a result once: it is no name that a client made up.
    good: bool,
    outcomes: [IntCounter; Outcome::ALL.len()],
    seconds: Histogram,
}

impl Series {
    fn count(&self, outcome: Outcome, seconds: Duration) {
        if let Some(index) = Outcome::ALL.iter().position(|known| *known == outcome) {
            self.outcomes[index].inc();
        }
        self.seconds.observe(seconds.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let all = MetricSet::default();
        let stray = "Lines on standard output that were no messages, or answered nothing.";
        let labels = ["method", "tool", "outcome"];
        let known = Known { series: HashMap::new(), answered: Names::first(MAX_KNOWN), strange: Names::first(MAX_STRANGE) };
        Self {
            calls: all.counters("bridge_calls_total", "Requests to the child, by method, tool and outcome.", &labels),
            seconds: all.histograms("bridge_call_seconds", "Time from a request to its answer.", &labels[..2], &SECONDS),
            known: Arc::new(Mutex::new(known)),
            in_flight: all.gauge("bridge_calls_in_flight", "Requests that wait for their answers."),
            children: all.gauge("bridge_children", "Children that live."),
            restarts: all.counter("bridge_child_restarts_total", "Children that took the place of one that died."),
            sessions: all.gauge("bridge_sessions", "Sessions of legacy clients that are known here."),
            queued: all.gauge("bridge_queued_bytes", "Bytes that wait for the child to read them."),
            unread: all.gauge("bridge_unread_bytes", "Bytes of long answers that wait for their clients to read them."),
            written: all.counter("bridge_child_written_bytes_total", "Bytes that were written to children."),
            read: all.counter("bridge_child_read_bytes_total", "Bytes that were read from children."),
            stray: all.counter("bridge_stray_lines_total", stray),
            refused: all.counters("bridge_refused_total", "Requests that did not reach a child, by reason.", &["reason"]),
            forwarded: all.counters(
                "bridge_forwarded_total",
                "Requests for sessions of other replicas, by outcome.",
                &["outcome"],
            ),
            all,
        }
    }
}

impl Metrics {
    /// A call has ended. Only a tool is named: prompts and resources may be without number. What is not told apart counts as a tool without a
    /// name, or as the method `other`.
    pub fn finished(&self, method: &str, target: Option<&str>, outcome: Outcome, seconds: Duration) {
        let tool = target.filter(|_| method == CALL).unwrap_or(NO_TOOL);
        let good = outcome == Outcome::Ok;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { series, answered, strange } = &mut *known;
        if let Some(entry) = series.get_mut(method).and_then(|tools| tools.get_mut(tool)) {
            if good && !entry.good && !is_together(method, tool) {
                // Answered well for the first time: its place among the strange ones is another's.
                let name = name(method, tool);
                entry.good = answered.tells(&name);
                if entry.good {
                    strange.forget(&name);
                }
            }
            return entry.count(outcome, seconds);
        }
        let names = if good { answered } else { strange };
        let is_told = is_together(method, tool) || names.tells(&name(method, tool));
        let (method, tool) = match (is_told, method) {
            (true, _) => (method, tool),
            (false, CALL) => (CALL, NO_TOOL),
            (false, _) => (OTHER, NO_TOOL),
        };
        let new = || Series {
            good,
            outcomes: Outcome::ALL.map(|outcome| self.calls.with_label_values(&[method, tool, outcome.label()])),
            seconds: self.seconds.with_label_values(&[method, tool]),
        };
        series.entry(method.into()).or_default().entry(tool.into()).or_insert_with(new).count(outcome, seconds);
    }

    /// A request was refused.
    pub fn refuse(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// What answers `/metrics`.
    pub fn answer(&self) -> Exposition {
        self.all.answer()
    }
}

/// By which a tool, or another method, takes its place.
fn name(method: &str, tool: &str) -> String {
    if method == CALL { format!("tool {tool}") } else { format!("method {method}") }
}

/// Whether all those are counted so that are not told apart.
fn is_together(method: &str, tool: &str) -> bool {
    tool == NO_TOOL && (method == CALL || method == OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_tool_and_outcome_and_names_without_number_together() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(3);
        metrics.finished("tools/call", Some("add"), Outcome::ToolError, took);
        metrics.finished("resources/read", Some("file:///a"), Outcome::Ok, took);
        for number in 0..2 * MAX_KNOWN {
            metrics.finished("tools/call", Some(&number.to_string()), Outcome::Ok, took);
        }
        let text = metrics.all.text();
        assert!(text.contains(r#"bridge_calls_total{method="tools/call",outcome="tool_error",tool="add"} 1"#), "{text}");
        assert!(text.contains(r#"bridge_calls_total{method="resources/read",outcome="ok",tool=""} 1"#));
        let other = format!(r#"bridge_calls_total{{method="tools/call",outcome="ok",tool=""}} {}"#, MAX_KNOWN + 1);
        assert!(text.contains(&other), "{other}");
    }

    #[test]
    fn names_that_clients_make_up_take_no_room_from_those_that_there_are() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(3);
        for number in 0..1000 {
            metrics.finished("tools/call", Some(&format!("no-{number}")), Outcome::Error, took);
            metrics.finished(&format!("no/{number}"), None, Outcome::Error, took);
        }
        metrics.finished("tools/call", Some("echo"), Outcome::Ok, took);
        metrics.finished("prompts/get", Some("p"), Outcome::Ok, took);
        let text = metrics.all.text();
        assert!(text.contains(r#"bridge_calls_total{method="tools/call",outcome="ok",tool="echo"} 1"#), "{text}");
        assert!(text.contains(r#"bridge_calls_total{method="prompts/get",outcome="ok",tool=""} 1"#), "{text}");
        assert!(text.lines().count() < (MAX_STRANGE + 4) * 30, "{}", text.lines().count());
        let total: u64 = (text.lines().filter(|line| line.starts_with("bridge_calls_total") && line.contains(r#""error""#)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(total, 2000, "none is lost");
        // One that is answered at last was none.
        metrics.finished("tools/call", Some("no-0"), Outcome::Ok, took);
        metrics.finished("tools/call", Some("late"), Outcome::Timeout, took);
        assert!(metrics.all.text().contains(r#"outcome="timeout",tool="late"} 1"#), "its room is another's");
    }
}

//! Every metric of the bridge, once. What happens is counted where it happens; this file only names it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// So many names of tools and methods are told apart of those that were once answered with a result.
const MAX_KNOWN: usize = 256;

/// Any name may come from a client: so many more are told apart of those that were never answered with a result.
const MAX_STRANGE: usize = 32;

/// All methods that are not told apart.
const OTHER: &str = "other";

/// The one method that names a tool.
const CALL: &str = "tools/call";

/// Calls of other methods than `tools/call` have no tool.
const NO_TOOL: &str = "";

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

/// The metrics, and the registry that they are printed from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    seconds: HistogramVec,
    /// By method and tool, looked up once: a call would pay for it every time.
    known: Arc<Mutex<HashMap<Box<str>, ByTool>>>,
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

/// Of one method.
type ByTool = HashMap<Box<str>, Known>;

#[derive(Debug)]
struct Known {
    /// It was answered with a result once: it is no name that a client made up.
    good: bool,
    outcomes: [IntCounter; Outcome::ALL.len()],
    seconds: Histogram,
}

impl Known {
    fn count(&self, outcome: Outcome, seconds: Duration) {
        if let Some(index) = Outcome::ALL.iter().position(|known| *known == outcome) {
            self.outcomes[index].inc();
        }
        self.seconds.observe(seconds.as_secs_f64());
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let buckets = vec![0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let metrics = Self {
            calls: IntCounterVec::new(
                Opts::new("bridge_calls_total", "Requests to the child, by method, tool and outcome."),
                &["method", "tool", "outcome"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("bridge_call_seconds", "Time from a request to its answer.").buckets(buckets),
                &["method", "tool"],
            )?,
            known: Arc::default(),
            in_flight: IntGauge::new("bridge_calls_in_flight", "Requests that wait for their answers.")?,
            children: IntGauge::new("bridge_children", "Children that live.")?,
            restarts: IntCounter::new("bridge_child_restarts_total", "Children that took the place of one that died.")?,
            sessions: IntGauge::new("bridge_sessions", "Sessions of legacy clients that are known here.")?,
            queued: IntGauge::new("bridge_queued_bytes", "Bytes that wait for the child to read them.")?,
            unread: IntGauge::new("bridge_unread_bytes", "Bytes of long answers that wait for their clients to read them.")?,
            written: IntCounter::new("bridge_child_written_bytes_total", "Bytes that were written to children.")?,
            read: IntCounter::new("bridge_child_read_bytes_total", "Bytes that were read from children.")?,
            stray: IntCounter::new(
                "bridge_stray_lines_total",
                "Lines on standard output that were no messages, or answered nothing.",
            )?,
            refused: IntCounterVec::new(
                Opts::new("bridge_refused_total", "Requests that did not reach a child, by reason."),
                &["reason"],
            )?,
            forwarded: IntCounterVec::new(
                Opts::new("bridge_forwarded_total", "Requests for sessions of other replicas, by outcome."),
                &["outcome"],
            )?,
            registry,
        };
        let Self {
            registry,
            calls,
            seconds,
            known: _,
            in_flight,
            children,
            restarts,
            sessions,
            queued,
            unread,
            written,
            read,
            stray,
            refused,
            forwarded,
        } = &metrics;
        registry.register(Box::new(seconds.clone()))?;
        for vector in [calls, refused, forwarded] {
            registry.register(Box::new(vector.clone()))?;
        }
        for gauge in [in_flight, children, sessions, queued, unread] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [restarts, written, read, stray] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(metrics)
    }

    /// A call has ended. Only a tool is named: prompts and resources may be without number. What is not told apart counts as a tool without a
    /// name, or as the method `other`.
    pub fn finished(&self, method: &str, target: Option<&str>, outcome: Outcome, seconds: Duration) {
        let tool = target.filter(|_| method == CALL).unwrap_or(NO_TOOL);
        let good = outcome == Outcome::Ok;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.get_mut(method).and_then(|tools| tools.get_mut(tool));
        if let Some(entry) = entry.filter(|entry| entry.good || !good || is_together(method, tool)) {
            return entry.count(outcome, seconds);
        }
        let all = known.iter().flat_map(|(method, tools)| tools.iter().map(move |(tool, entry)| (method, tool, entry)));
        let alike = all.filter(|(method, tool, entry)| entry.good == good && !is_together(method, tool)).count();
        let room = alike < if good { MAX_KNOWN } else { MAX_STRANGE };
        if let Some(entry) = known.get_mut(method).and_then(|tools| tools.get_mut(tool)) {
            // Answered well for the first time: its place among the strange ones is another's.
            entry.good = room;
            return entry.count(outcome, seconds);
        }
        let (method, tool) = match (room, method) {
            (true, _) => (method, tool),
            (false, CALL) => (CALL, NO_TOOL),
            (false, _) => (OTHER, NO_TOOL),
        };
        let new = || Known {
            good,
            outcomes: Outcome::ALL.map(|outcome| self.calls.with_label_values(&[method, tool, outcome.label()])),
            seconds: self.seconds.with_label_values(&[method, tool]),
        };
        known.entry(method.into()).or_default().entry(tool.into()).or_insert_with(new).count(outcome, seconds);
    }

    /// A request was refused.
    pub fn refuse(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
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
        let metrics = Metrics::new().unwrap();
        let took = Duration::from_millis(3);
        metrics.finished("tools/call", Some("add"), Outcome::ToolError, took);
        metrics.finished("resources/read", Some("file:///a"), Outcome::Ok, took);
        for number in 0..2 * MAX_KNOWN {
            metrics.finished("tools/call", Some(&number.to_string()), Outcome::Ok, took);
        }
        let text = metrics.render().unwrap();
        assert!(text.contains(r#"bridge_calls_total{method="tools/call",outcome="tool_error",tool="add"} 1"#), "{text}");
        assert!(text.contains(r#"bridge_calls_total{method="resources/read",outcome="ok",tool=""} 1"#));
        let other = format!(r#"bridge_calls_total{{method="tools/call",outcome="ok",tool=""}} {}"#, MAX_KNOWN + 1);
        assert!(text.contains(&other), "{other}");
    }

    #[test]
    fn names_that_clients_make_up_take_no_room_from_those_that_there_are() {
        let metrics = Metrics::new().unwrap();
        let took = Duration::from_millis(3);
        for number in 0..1000 {
            metrics.finished("tools/call", Some(&format!("no-{number}")), Outcome::Error, took);
            metrics.finished(&format!("no/{number}"), None, Outcome::Error, took);
        }
        metrics.finished("tools/call", Some("echo"), Outcome::Ok, took);
        metrics.finished("prompts/get", Some("p"), Outcome::Ok, took);
        let text = metrics.render().unwrap();
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
        assert!(metrics.render().unwrap().contains(r#"outcome="timeout",tool="late"} 1"#), "its room is another's");
    }
}

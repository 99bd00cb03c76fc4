//! Every metric once, and what /health says of them. Names begin with `mcpfleet_chat_`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics_text::{
    Collector, CounterVec, Exposition, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, MetricSet, Names,
};
use serde::Serialize;

use crate::{
    llm::{Answer, ModelError},
    message::Usage,
    reachable::Follower,
    usage::Day,
};

/// From a cached answer to a long turn, in seconds.
const SECONDS: [f64; 13] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Names of one kind that become labels.
const MAX_NAMES: usize = 100;

/// The metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    all: MetricSet,
    requests: IntCounterVec,
    errors: IntCounterVec,
    request_seconds: HistogramVec,
    model_calls: IntCounterVec,
    model_seconds: HistogramVec,
    first_token_seconds: HistogramVec,
    pub model_retries: IntCounter,
    pub compactions: IntCounterVec,
    cache: IntCounterVec,
    budget_percent: IntGauge,
    tokens: IntCounterVec,
    cost: CounterVec,
    tool_calls: IntCounterVec,
    tool_seconds: HistogramVec,
    server_up: IntGaugeVec,
    server_circuit: IntGaugeVec,
    circuit_openings: IntCounterVec,
    /// The names that others make up: of tools by server, of models and of errors.
    names: Mutex<HashMap<String, Names>>,
    pub rate_limited: IntCounter,
    pub config_reloads: IntCounterVec,
    pub config_good: IntGauge,
    pub running: IntGauge,
    /// Whether the model answers: what `/readyz` says of it.
    pub model: Follower,
}

/// A server as the metrics tell of it.
#[derive(Debug)]
pub struct Server<'s> {
    pub name: &'s str,
    pub is_up: bool,
    pub is_circuit_open: bool,
    /// How often its circuit has opened.
    pub openings: u64,
}

/// What /health says under `metrics`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub requests: u64,
    pub successful: u64,
    pub failed: u64,
    /// By whoever asked; neither a success nor a failure.
    pub stopped: u64,
    /// Of those that were not stopped; null before the first one.
    pub success_rate: Option<f64>,
    pub average_latency_seconds: Option<f64>,
    /// By type.
    pub errors: BTreeMap<String, u64>,
    /// Calls by tool.
    pub tools: BTreeMap<String, u64>,
    pub rate_limited: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let all = MetricSet::default();
        let times = |name: &str, help: &str, labels: &[&str]| all.histograms(name, help, labels, &SECONDS);
        let tool = ["server", "tool", "outcome"];
        Self {
            requests: all.counters("mcpfleet_chat_requests_total", "Turns, by how they ended", &["outcome"]),
            errors: all.counters("mcpfleet_chat_errors_total", "Turns that failed, by type", &["type"]),
            request_seconds: times("mcpfleet_chat_request_seconds", "Time of a turn", &["outcome"]),
            model_calls: all.counters("mcpfleet_chat_model_calls_total", "Calls of the model", &["model", "outcome"]),
            model_seconds: times("mcpfleet_chat_model_call_seconds", "Time of a call of the model", &["model"]),
            first_token_seconds: times("mcpfleet_chat_model_first_token_seconds", "Time to the first token", &["model"]),
            model_retries: all.counter("mcpfleet_chat_model_retries_total", "Model calls made again"),
            compactions: all.counters("mcpfleet_chat_compactions_total", "Conversations that were too long", &["outcome"]),
            cache: all.counters("mcpfleet_chat_cache_lookups_total", "Requests that would take an earlier answer", &["outcome"]),
            budget_percent: all.gauge("mcpfleet_chat_budget_used_percent", "Of the day's budget; 0 without one"),
            tokens: all.counters("mcpfleet_chat_tokens_total", "Tokens, by kind", &["model", "kind"]),
            cost: all.counters("mcpfleet_chat_cost_dollars_total", "Cost where the price is known", &["model"]),
            tool_calls: all.counters("mcpfleet_chat_tool_calls_total", "Calls of tools", &tool),
            tool_seconds: times("mcpfleet_chat_tool_call_seconds", "Time of a call of a tool", &["server"]),
            server_up: all.gauges("mcpfleet_chat_server_up", "1: the server is up", &["server"]),
            server_circuit: all.gauges("mcpfleet_chat_server_circuit_open", "1: the server's circuit is open", &["server"]),
            circuit_openings: all.counters(
                "mcpfleet_chat_server_circuit_openings_total",
                "Times that its circuit opened",
                &["server"],
            ),
            names: Mutex::default(),
            rate_limited: all.counter("mcpfleet_chat_rate_limited_total", "Requests refused by the limit"),
            config_reloads: all.counters("mcpfleet_chat_config_reloads_total", "Reloads of mcp.json", &["outcome"]),
            config_good: all.gauge("mcpfleet_chat_config_good", "1: mcp.json as it is now is in force"),
            running: all.gauge("mcpfleet_chat_turns_running", "Turns under way"),
            model: Follower::default(),
            all,
        }
    }
}

impl Metrics {
    /// A turn ended: so, or in an error of this kind.
    pub fn request(&self, outcome: Result<&str, &str>, duration: Duration) {
        let name = outcome.unwrap_or_else(|kind| {
            self.errors.with_label_values(&[self.known("errors", kind)]).inc();
            "error"
        });
        self.requests.with_label_values(&[name]).inc();
        self.request_seconds.with_label_values(&[name]).observe(duration.as_secs_f64());
    }

    /// A turn asked for an earlier answer.
    pub fn cache(&self, asked: bool, hit: bool) {
        if asked {
            self.cache.with_label_values(&[if hit { "hit" } else { "miss" }]).inc();
        }
    }

    /// A call of a model ended. Where another one answered than was asked, it counts for that one.
    pub fn model_call(&self, asked: &str, answer: &Result<Answer, ModelError>, duration: Duration) {
        self.model.met(answer.as_ref(), jiff::Timestamp::now());
        let model = self.known("models", answer.as_ref().map_or(asked, |answer| answer.model.as_str()));
        let outcome = answer.as_ref().map_or_else(ModelError::kind, |_| "ok");
        self.model_calls.with_label_values(&[model, self.known("errors", outcome)]).inc();
        self.model_seconds.with_label_values(&[model]).observe(duration.as_secs_f64());
        if let Ok(Answer { first_token: Some(time), .. }) = answer {
            self.first_token_seconds.with_label_values(&[model]).observe(time.as_secs_f64());
        }
    }

    /// An answer was paid for.
    pub fn spent(&self, model: &str, usage: Usage, cost: Option<f64>) {
        for (kind, count) in [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_input_tokens),
            ("cache_write", usage.cache_creation_input_tokens),
        ] {
            self.tokens.with_label_values(&[model, kind]).inc_by(count);
        }
        if let Some(cost) = cost {
            self.cost.with_label_values(&[model]).inc_by(cost);
        }
    }

    /// A tool call ended.
    pub fn tool_call(&self, server: &str, tool: &str, outcome: &str, duration: Duration) {
        let tool = self.known(&format!("tools of {server}"), tool);
        self.tool_calls.with_label_values(&[server, tool, outcome]).inc();
        self.tool_seconds.with_label_values(&[server]).observe(duration.as_secs_f64());
    }

    /// What answers `/metrics`.
    pub fn answer<'s>(&self, servers: impl IntoIterator<Item = Server<'s>>, day: &Day) -> Exposition {
        self.budget_percent.set(day.budget_percent.and_then(|percent| i64::try_from(percent).ok()).unwrap_or(0));
        // Servers come and go; only those that are configured are shown.
        self.server_up.reset();
        self.server_circuit.reset();
        self.circuit_openings.reset();
        for Server { name, is_up, is_circuit_open, openings } in servers {
            self.circuit_openings.with_label_values(&[name]).inc_by(openings);
            self.server_up.with_label_values(&[name]).set(is_up.into());
            self.server_circuit.with_label_values(&[name]).set(is_circuit_open.into());
        }
        self.all.answer()
    }

    /// The name of this kind as a label: of a tool, a model or an error.
    fn known<'a>(&self, of: &str, name: &'a str) -> &'a str {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get_mut(of) {
            Some(names) => names.known(name),
            None => names.entry(of.to_owned()).or_insert_with(|| Names::first(MAX_NAMES)).known(name),
        }
    }

    /// The figures of /health and of `/metrics` in the terminal.
    pub fn summary(&self) -> Summary {
        let outcomes = sums(&self.requests, "outcome");
        let of = |outcome| outcomes.get(outcome).copied().unwrap_or(0);
        let (requests, failed, stopped) = (outcomes.values().sum(), of("error"), of("cancelled"));
        let successful = requests - failed - stopped;
        let (mut seconds, mut count) = (0.0, 0);
        for family in self.request_seconds.collect() {
            for metric in family.get_metric() {
                seconds += metric.get_histogram().get_sample_sum();
                count += metric.get_histogram().get_sample_count();
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "counts of requests stay far below 2^52")]
        let ratio = |part: f64, whole: u64| (whole > 0).then(|| part / whole as f64);
        #[allow(clippy::cast_precision_loss, reason = "counts of requests stay far below 2^52")]
        let success_rate = ratio(successful as f64, successful + failed);
        Summary {
            requests,
            successful,
            failed,
            stopped,
            success_rate,
            average_latency_seconds: ratio(seconds, count),
            errors: sums(&self.errors, "type"),
            tools: sums(&self.tool_calls, "tool"),
            rate_limited: self.rate_limited.get(),
        }
    }
}

/// The counts by one label, summed over the others.
fn sums(counters: &IntCounterVec, label: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for family in counters.collect() {
        for metric in family.get_metric() {
            let value = metric.get_label().iter().find(|pair| pair.name() == label).map(|pair| pair.value().to_owned());
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an integer counter as f64")]
            let count = metric.get_counter().get_value() as u64;
            *sums.entry(value.unwrap_or_default()).or_default() += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_make_up_are_bounded() {
        let metrics = Metrics::default();
        for number in 0..1_000 {
            metrics.tool_call("s", &format!("t{number}"), "ok", Duration::ZERO);
        }
        let (_, text) = metrics.answer([], &crate::usage::Ledger::new(crate::usage::Budget::default()).today());
        let calls = text.lines().filter(|line| line.starts_with("mcpfleet_chat_tool_calls_total{")).count();
        assert_eq!(calls, MAX_NAMES + 1);
        assert!(text.contains(r#"mcpfleet_chat_tool_calls_total{outcome="ok",server="s",tool="other"} 900"#));
    }

    #[test]
    fn the_summary_counts_what_was_recorded() {
        let metrics = Metrics::default();
        assert!(metrics.summary().success_rate.is_none());
        metrics.request(Ok("complete"), Duration::from_secs(1));
        metrics.request(Err("stream"), Duration::from_secs(3));
        metrics.request(Ok("cancelled"), Duration::from_secs(2));
        metrics.tool_call("s", "t", "ok", Duration::ZERO);
        metrics.tool_call("s", "t", "timeout", Duration::ZERO);
        let summary = metrics.summary();
        assert_eq!((summary.requests, summary.successful, summary.failed, summary.stopped), (3, 1, 1, 1));
        assert_eq!(summary.success_rate, Some(0.5));
        assert_eq!(summary.average_latency_seconds, Some(2.0));
        assert_eq!((summary.errors["stream"], summary.tools["t"]), (1, 2));
        let (_, text) = metrics.answer([], &crate::usage::Ledger::new(crate::usage::Budget::default()).today());
        assert!(text.contains("mcpfleet_chat_requests_total{outcome=\"complete\"} 1"));
    }
}

//! The engine's metrics: every one of them, once.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

use super::{breaker::Transition, types::ServerKey, verdict::Verdict};
use crate::crd::CircuitState;

/// The engine's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    probe_seconds: HistogramVec,
    verdicts: IntCounterVec,
    lag: Histogram,
    hedges: IntCounter,
    in_flight: IntGaugeVec,
    circuit: IntGaugeVec,
    transitions: IntCounterVec,
    gates: IntCounterVec,
    evictions: IntCounterVec,
    panic: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> Self {
        let probe_buckets = vec![0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let lag_buckets = vec![0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        let vec =
            |name: &str, help: &str, labels: &[&str]| registered(registry, IntCounterVec::new(Opts::new(name, help), labels));
        let gauges =
            |name: &str, help: &str, labels: &[&str]| registered(registry, IntGaugeVec::new(Opts::new(name, help), labels));
        Self {
            probe_seconds: registered(
                registry,
                HistogramVec::new(
                    HistogramOpts::new("mcpfleet_probe_duration_seconds", "How long probes took, by outcome.")
                        .buckets(probe_buckets),
                    &["outcome"],
                ),
            ),
            verdicts: vec("mcpfleet_probe_verdicts_total", "Verdicts of probes, by verdict and reason.", &["verdict", "reason"]),
            lag: registered(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new("mcpfleet_probe_lag_seconds", "How long after they were due probes started.")
                        .buckets(lag_buckets),
                ),
            ),
            hedges: registered(
                registry,
                IntCounter::new("mcpfleet_probe_hedges_total", "Second and third attempts at targets that hang."),
            ),
            in_flight: gauges("mcpfleet_probes_in_flight", "Probes in flight, by lane.", &["lane"]),
            circuit: gauges(
                "mcpfleet_circuit_state",
                "The circuit of a server: 0 Closed, 1 HalfOpen, 2 Open.",
                &["namespace", "name"],
            ),
            transitions: vec(
                "mcpfleet_circuit_transitions_total",
                "Changes of circuits, by state before and after.",
                &["from", "to"],
            ),
            gates: vec(
                "mcpfleet_gate_patches_total",
                "Patches of pods' readiness gates, by value and result.",
                &["value", "result"],
            ),
            evictions: vec("mcpfleet_evictions_total", "Evictions of pods that stayed Failed, by result.", &["result"]),
            panic: registered(
                registry,
                IntGauge::new("mcpfleet_fleet_panic", "1 while more than half of the fleet fails at once."),
            ),
        }
    }

    pub(super) fn probed(&self, verdict: &Verdict, latency: Duration) {
        self.probe_seconds.with_label_values(&[verdict.kind.as_str()]).observe(latency.as_secs_f64());
        self.verdicts.with_label_values(&[verdict.kind.as_str(), verdict.reason]).inc();
    }

    pub(super) fn started(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    pub(super) fn hedged(&self) {
        self.hedges.inc();
    }

    pub(super) fn in_flight(&self, (quick, slow): (usize, usize)) {
        self.in_flight.with_label_values(&["quick"]).set(i64::try_from(quick).unwrap_or(i64::MAX));
        self.in_flight.with_label_values(&["slow"]).set(i64::try_from(slow).unwrap_or(i64::MAX));
    }

    pub(super) fn circuit(&self, key: &ServerKey, state: CircuitState) {
        let value = match state {
            CircuitState::Closed => 0,
            CircuitState::HalfOpen => 1,
            CircuitState::Open => 2,
        };
        self.circuit.with_label_values(&[&key.namespace, &key.name]).set(value);
    }

    pub(super) fn transition(&self, transition: Transition) {
        self.transitions.with_label_values(&[transition.from.as_str(), transition.to.as_str()]).inc();
    }

    pub(super) fn gone(&self, key: &ServerKey) {
        // A server that never opened has no series.
        let _never_opened = self.circuit.remove_label_values(&[&key.namespace, &key.name]);
    }

    pub(super) fn gate(&self, value: bool, result: &str) {
        self.gates.with_label_values(&[if value { "true" } else { "false" }, result]).inc();
    }

    pub(super) fn eviction(&self, result: &str) {
        self.evictions.with_label_values(&[result]).inc();
    }

    pub(super) fn panic(&self, active: bool) {
        self.panic.set(active.into());
    }
}

fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("names and labels are constants that Prometheus accepts");
    registry.register(Box::new(metric.clone())).expect("every metric is registered once a registry");
    metric
}

//! The engine's metrics: every one of them, once.

use std::time::Duration;

use metrics_text::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, MetricSet};

use super::{
    breaker::Transition,
    types::{PodHealth, ServerHealth, ServerKey},
    verdict::{Kind, Verdict},
};
use crate::crd::CircuitState;

/// Of a probe, in seconds. Few, for there is one row of them a server: enough to tell quick from slow, and slow from about to time out.
const PROBE: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Of a probe's start behind its time, in seconds.
const LAG: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The engine's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    probe_seconds: HistogramVec,
    verdicts: IntCounterVec,
    lag: Histogram,
    hedges: IntCounter,
    in_flight: IntGaugeVec,
    given_up: IntCounter,
    /// Of every server, beside its circuit.
    of_servers: bool,
    ready: IntGaugeVec,
    pods: IntGaugeVec,
    circuit: IntGaugeVec,
    transitions: IntCounterVec,
    gates: IntCounterVec,
    evictions: IntCounterVec,
    panic: IntGauge,
}

impl Metrics {
    /// Registers them. `of_servers`: also those that come to some twenty series a server.
    pub fn new(all: &MetricSet, of_servers: bool) -> Self {
        let server = ["namespace", "name"];
        let took = "How long probes took, by outcome and server. Without metrics of servers namespace and name are empty.";
        let given_up = "Probes that could not be made for lack of descriptors, ports or memory. They say nothing about a server.";
        let ready = "1 while a client that connects to the server now gets an answer, as far as the prober knows; also of one that sleeps.";
        let pods = "Pods of a server by state: in_service, failing, starting, or out for another reason.";
        let transitions = "Changes of circuits, by state before and after.";
        let gates = "Patches of pods' readiness gates, by value and result.";
        let panic = "1 while more than half of the servers fail at once, for 10 minutes at most.";
        let verdicts = "Verdicts of probes, by verdict and reason.";
        Self {
            probe_seconds: all.histograms("mcpfleet_probe_duration_seconds", took, &["namespace", "name", "outcome"], &PROBE),
            verdicts: all.counters("mcpfleet_probe_verdicts_total", verdicts, &["verdict", "reason"]),
            lag: all.histogram("mcpfleet_probe_lag_seconds", "How long after they were due probes started.", &LAG),
            hedges: all.counter("mcpfleet_probe_hedges_total", "Second and third attempts at targets that hang."),
            in_flight: all.gauges("mcpfleet_probes_in_flight", "Probes in flight, by lane.", &["lane"]),
            given_up: all.counter("mcpfleet_probes_given_up_total", given_up),
            of_servers,
            ready: all.gauges("mcpfleet_server_ready", ready, &server),
            pods: all.gauges("mcpfleet_server_pods", pods, &["namespace", "name", "state"]),
            circuit: all.gauges("mcpfleet_circuit_state", "The circuit of a server: 0 Closed, 1 HalfOpen, 2 Open.", &server),
            transitions: all.counters("mcpfleet_circuit_transitions_total", transitions, &["from", "to"]),
            gates: all.counters("mcpfleet_gate_patches_total", gates, &["value", "result"]),
            evictions: all.counters("mcpfleet_evictions_total", "Evictions of pods that stayed Failed, by result.", &["result"]),
            panic: all.gauge("mcpfleet_fleet_panic", panic),
        }
    }

    pub(super) fn probed(&self, key: &ServerKey, verdict: &Verdict, latency: Duration) {
        let (namespace, name) = if self.of_servers { (key.namespace.as_str(), key.name.as_str()) } else { ("", "") };
        self.probe_seconds.with_label_values(&[namespace, name, verdict.kind.as_str()]).observe(latency.as_secs_f64());
        self.verdicts.with_label_values(&[verdict.kind.as_str(), verdict.reason]).inc();
    }

    pub(super) fn started(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    pub(super) fn gave_up(&self) {
        self.given_up.inc();
    }

    pub(super) fn hedged(&self) {
        self.hedges.inc();
    }

    pub(super) fn in_flight(&self, (quick, slow): (usize, usize)) {
        self.in_flight.with_label_values(&["quick"]).set(i64::try_from(quick).unwrap_or(i64::MAX));
        self.in_flight.with_label_values(&["slow"]).set(i64::try_from(slow).unwrap_or(i64::MAX));
    }

    /// What is known of a server: told whenever its status may show something else, from the first pass after a start on.
    pub(super) fn told(&self, key: &ServerKey, health: &ServerHealth) {
        let value = match health.circuit.state {
            CircuitState::Closed => 0,
            CircuitState::HalfOpen => 1,
            CircuitState::Open => 2,
        };
        let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
        self.circuit.with_label_values(&[namespace, name]).set(value);
        self.ready.with_label_values(&[namespace, name]).set(health.serves().into());
        if self.of_servers {
            for state in POD_STATES {
                let count = health.pods.iter().filter(|pod| pod_state(pod) == state).count();
                self.pods.with_label_values(&[namespace, name, state]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }

    pub(super) fn transition(&self, transition: Transition) {
        self.transitions.with_label_values(&[transition.from.as_str(), transition.to.as_str()]).inc();
    }

    pub(super) fn gone(&self, key: &ServerKey) {
        let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
        // A server that was never told of has no series, and one that never failed none of failures.
        let _absent = self.circuit.remove_label_values(&[namespace, name]);
        let _absent = self.ready.remove_label_values(&[namespace, name]);
        for state in POD_STATES {
            let _absent = self.pods.remove_label_values(&[namespace, name, state]);
        }
        for kind in [Kind::Unknown, Kind::Healthy, Kind::Alive, Kind::Failed] {
            let _absent = self.probe_seconds.remove_label_values(&[namespace, name, kind.as_str()]);
        }
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

/// What a pod is counted as, the first that is true of it.
const POD_STATES: [&str; 4] = ["in_service", "failing", "starting", "out"];

fn pod_state(pod: &PodHealth) -> &'static str {
    let states = [pod.in_service, pod.failing, pod.starting, true];
    let found = POD_STATES.into_iter().zip(states).find_map(|(state, is)| is.then_some(state));
    found.unwrap_or(POD_STATES[3])
}

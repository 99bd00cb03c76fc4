//! `/fleet`: all that the engine knows, as JSON. Also what status does not show: last verdicts, latencies, times.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    registry::Registry,
    server::Server,
    target::Target,
    types::{Moment, ServerKey},
    verdict::Kind,
};
use crate::crd::{CircuitState, Era, ProtocolStatus};

/// The document.
#[derive(Debug, Serialize)]
pub struct Fleet {
    /// Every server, by namespace and name.
    pub servers: Vec<FleetServer>,
}

/// One server.
#[derive(Debug, Serialize)]
pub struct FleetServer {
    /// Of its CR.
    pub namespace: String,
    /// Of its CR.
    pub name: String,
    /// Its circuit.
    pub circuit: FleetCircuit,
    /// The server as a whole.
    pub verdict: Kind,
    /// Why, for machines.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Which revision it speaks.
    pub protocol: Option<ProtocolStatus>,
    /// Its tools.
    pub tools: Option<FleetTools>,
    /// Its pods, or its one endpoint.
    pub pods: Vec<FleetPod>,
}

/// A circuit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetCircuit {
    /// Closed, Open or HalfOpen.
    pub state: CircuitState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// While Open: until when.
    pub retry_at: Option<Timestamp>,
    /// In a row.
    pub openings: u32,
    /// In a row, at the last change.
    pub failures: u32,
}

/// The tools, in short.
#[derive(Debug, Serialize)]
pub struct FleetTools {
    /// How many.
    pub count: usize,
    /// Of the normalised list.
    pub digest: String,
}

/// One pod, or the endpoint of a remote server (its name is empty).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetPod {
    /// The pod's name.
    pub name: String,
    /// The pod's address.
    pub address: Option<std::net::IpAddr>,
    /// Of the last probe.
    pub verdict: Kind,
    /// Of the last probe.
    pub reason: String,
    /// Of the last probe.
    pub message: String,
    /// The readiness gate, as decided; none for a remote server.
    pub gate: Option<bool>,
    /// In which it is asked.
    pub era: Option<Era>,
    /// Of the last probes that got an answer.
    pub latency_ms: FleetLatency,
    /// When the last probe ended.
    pub last_probe: Option<Timestamp>,
    /// When the next one is due; none while one is under way, or none is planned.
    pub next_probe: Option<Timestamp>,
}

/// Latencies, in milliseconds.
#[derive(Debug, Serialize)]
pub struct FleetLatency {
    /// The median.
    pub p50: Option<f32>,
    /// One in twenty takes longer.
    pub p95: Option<f32>,
}

impl Fleet {
    pub(super) fn of(registry: &Registry, now: Moment) -> Self {
        let known = registry.servers().filter(|server| server.spec.is_some());
        let mut servers: Vec<FleetServer> = known.map(|server| FleetServer::of(server, registry.panic(), now)).collect();
        servers.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Self { servers }
    }
}

impl FleetServer {
    fn of(server: &Server, panic: bool, now: Moment) -> Self {
        let ServerKey { namespace, name } = ServerKey::clone(&server.key);
        let health = server.snapshot(panic, now.mono);
        let circuit = health.circuit;
        let mut pods: Vec<FleetPod> = server.targets.values().map(|target| FleetPod::of(target, now)).collect();
        pods.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Self {
            namespace,
            name,
            circuit: FleetCircuit {
                state: circuit.state,
                since: circuit.since.map(|time| time.0),
                retry_at: circuit.retry_at.map(|time| time.0),
                openings: circuit.openings,
                failures: circuit.failures,
            },
            verdict: health.verdict.kind,
            reason: health.verdict.reason.into(),
            message: health.verdict.message.to_string(),
            protocol: health.protocol,
            tools: health.tools.map(|tools| FleetTools { count: tools.count(), digest: tools.digest.to_string() }),
            pods,
        }
    }
}

impl FleetPod {
    fn of(target: &Target, now: Moment) -> Self {
        let pod = target.pod.as_ref();
        Self {
            name: pod.map(|pod| pod.name.clone()).unwrap_or_default(),
            address: pod.and_then(|pod| pod.address),
            verdict: target.last.kind,
            reason: target.last.reason.into(),
            message: target.last.message.to_string(),
            gate: pod.map(|_| target.gate.decided),
            era: target.known.era,
            latency_ms: FleetLatency { p50: target.latencies.percentile(50), p95: target.latencies.percentile(95) },
            last_probe: target.ended.map(|ended| ended.wall),
            next_probe: target.due.and_then(|due| on_the_wall(due, now)),
        }
    }
}

fn on_the_wall(at: Instant, now: Moment) -> Option<Timestamp> {
    let ahead: Duration = at.saturating_duration_since(now.mono);
    now.wall.checked_add(SignedDuration::try_from(ahead).ok()?).ok()?.round(Unit::Second).ok()
}

//! What the engine does about what it finds: pace, gates, circuits, evictions, what it writes and what it tells. Time is paused.

#[path = "../support/mod.rs"]
mod support;

mod circuit;
mod contract;
mod credentials;
mod crowds;
mod evictions;
mod gates;
mod holds;
mod pace;
mod pods;
mod refusals;
mod rest;
mod restarts;
mod telling;
mod templates;

use std::{net::IpAddr, time::Duration};

use operator::{
    crd::{CircuitState, Health},
    probe::{ServerHealth, ServerSpec},
};
use support::{
    puppet::{Does, Puppet},
    rig::{Rig, key, pod, spec},
};
use tokio::time::sleep;

pub fn ip(n: u16) -> IpAddr {
    let [a, b] = n.to_be_bytes();
    IpAddr::from([10, 50, a, b])
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A server of the product's defaults, asked every 10 s.
pub fn usual(spec: &mut ServerSpec) {
    spec.health =
        Health { interval_seconds: 10, timeout_seconds: 5, startup_seconds: 120, restart_after_seconds: 0, ..Health::default() };
    spec.breaker.failure_threshold = 3;
}

/// A server with pods at these addresses, all in service.
pub async fn serving(rig: &Rig, puppet: &Puppet, name: &str, addresses: &[u16], change: impl FnOnce(&mut ServerSpec)) {
    let mut spec = spec(8080);
    usual(&mut spec);
    change(&mut spec);
    rig.engine.set_server(&key(name), spec, None);
    for n in addresses {
        puppet.set(ip(*n), Does::Answer);
        rig.api.set_pod(&key(name), pod(&format!("{name}-{n}"), ip(*n)));
    }
    let count = addresses.len();
    let all = |health: &ServerHealth| health.pods.iter().filter(|pod| pod.in_service).count() == count;
    rig.until(name, secs(5), all).await.expect("all pods in service");
    // The last patch and its echo.
    sleep(Duration::from_millis(50)).await;
}

pub fn gate(health: &ServerHealth, pod: &str) -> bool {
    health.pods.iter().find(|health| health.name == pod).is_some_and(|pod| pod.gate)
}

pub fn is_open(health: &ServerHealth) -> bool {
    health.circuit.state == CircuitState::Open
}

pub fn is_closed(health: &ServerHealth) -> bool {
    health.circuit.state == CircuitState::Closed && health.pods.iter().all(|pod| pod.in_service)
}

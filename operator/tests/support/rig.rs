//! An engine that runs against fakes, and waits for what it should come to.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use metrics_text::MetricSet;
use operator::{
    clock,
    crd::{CircuitStatus, Health},
    probe::{
        Endpoint, EngineConfig, HealthEngine, McpProber, PodState, Prober, ServerHealth, ServerKey, ServerSpec, ToolsContract,
    },
    rollout::Origin,
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{api::Api, puppet::Puppet};

pub struct Rig {
    pub engine: HealthEngine,
    pub api: Api,
    pub metrics: MetricSet,
    pub changed: mpsc::UnboundedReceiver<ServerKey>,
    pub shutdown: CancellationToken,
    pub running: Option<JoinHandle<()>>,
}

pub fn key(name: &str) -> ServerKey {
    ServerKey::new("test", name)
}

/// A server in pods at `port`: asked every second, failing after two failures in a row, without a time to start in.
pub fn spec(port: u16) -> ServerSpec {
    ServerSpec {
        object: ObjectReference {
            api_version: Some("mcpfleet.dev/v1alpha1".into()),
            kind: Some("McpServer".into()),
            name: Some("server".into()),
            namespace: Some("test".into()),
            uid: Some("uid".into()),
            ..ObjectReference::default()
        },
        endpoint: Endpoint::Pods { port, path: "/mcp".into(), host: "server-mcp.test.svc:8080".into() },
        credentials: Vec::new(),
        ca: None,
        lacks_credentials: false,
        enabled: true,
        paused: false,
        recheck: None,
        may_sleep: false,
        // Long enough that a busy machine is not taken for a slow server.
        health: Health {
            interval_seconds: 1,
            timeout_seconds: 3,
            startup_seconds: 0,
            restart_after_seconds: 0,
            ..Health::default()
        },
        breaker: operator::crd::CircuitBreaker { failure_threshold: 2, ..operator::crd::CircuitBreaker::default() },
        tools: ToolsContract::default(),
        mask: std::sync::Arc::default(),
        reach: None,
    }
}

fn last_octet(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// The origin of a pod of this template.
pub fn of_template(template: &str) -> Origin {
    Origin { template: Some(template.into()), ..Origin::default() }
}

pub fn pod(name: &str, address: IpAddr) -> PodState {
    PodState {
        name: name.into(),
        uid: format!("uid-{name}"),
        address: Some(address),
        incarnation: Some("0".into()),
        containers_ready: true,
        ready: true,
        started_at: Some(clock::now()),
        // Every other address is on another node: a fleet is spread.
        node: Some(format!("node-{}", last_octet(address) % 2)),
        origin: of_template("1"),
        ..PodState::default()
    }
}

impl Rig {
    pub fn start() -> Self {
        Self::start_with(EngineConfig { seed: Some(7), ..EngineConfig::default() })
    }

    /// With a prober that does not touch the network.
    pub fn with_puppet(puppet: &Puppet) -> Self {
        Self::with(EngineConfig { seed: Some(7), ..EngineConfig::default() }, puppet.clone())
    }

    pub fn start_with(config: EngineConfig) -> Self {
        let prober = McpProber::by(config.proxy.clone());
        Self::with(config, prober)
    }

    pub fn with(config: EngineConfig, prober: impl Prober) -> Self {
        let metrics = MetricSet::default();
        let engine = HealthEngine::new(config, &metrics);
        let api = Api::default();
        api.attach(&engine);
        let (sender, changed) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(engine.clone().run_with(prober, api.client(), sender, shutdown.clone()));
        Self { engine, api, metrics, changed, shutdown, running: Some(running) }
    }

    /// A server with one pod at `at`.
    pub fn server(&self, name: &str, at: SocketAddr, change: impl FnOnce(&mut ServerSpec)) {
        self.server_from(name, at, None, change);
    }

    pub fn server_from(
        &self,
        name: &str,
        at: SocketAddr,
        persisted: Option<&CircuitStatus>,
        change: impl FnOnce(&mut ServerSpec),
    ) {
        let mut spec = spec(at.port());
        change(&mut spec);
        let remote = matches!(spec.endpoint, Endpoint::Remote { .. });
        self.engine.set_server(&key(name), spec, persisted);
        if !remote {
            self.api.set_pod(&key(name), pod(&format!("{name}-0"), at.ip()));
        }
    }

    pub fn health(&self, name: &str) -> ServerHealth {
        self.engine.snapshot(&key(name)).expect("a known server")
    }

    /// Waits until the server's health is as `wanted`, and gives it.
    pub async fn until(
        &self,
        name: &str,
        within: Duration,
        wanted: impl Fn(&ServerHealth) -> bool,
    ) -> Result<ServerHealth, ServerHealth> {
        let deadline = Instant::now() + within;
        loop {
            let health = self.health(name);
            if wanted(&health) {
                return Ok(health);
            }
            if Instant::now() > deadline {
                return Err(health);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the engine as a lost lease would, and waits for it.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("the engine ends by itself");
        }
    }

    /// Which servers were said to have changed, since the last time.
    pub fn changes(&mut self) -> usize {
        std::iter::from_fn(|| self.changed.try_recv().ok()).count()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

//! Keeps one server connected for as long as it is configured: connects, lists its tools, looks after it at intervals,
//! leaves it alone while its circuit is open, and comes back. One task a server is the only owner of its connection; calls
//! borrow it and report faults.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rmcp::{RoleClient, service::Peer};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    breaker::{Breaker, Circuit},
    catalogue::{ToolSpec, describe},
    child::StderrTail,
    connection::{self, Connection, ServerError},
};
use crate::config::file::{ServerEntry, Target};

/// Calls of a server that is being removed get this long to end.
const DRAIN: Duration = Duration::from_secs(30);
/// A list of tools is quick, however long a call may take: a server that hangs is noticed by it.
const CHECK: Duration = Duration::from_secs(10);

/// How a server is, for people and for machines.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// The first attempt is under way.
    Connecting,
    Up {
        tools: usize,
        protocol: String,
        era: &'static str,
    },
    /// Not connected; it is tried again.
    Down {
        reason: String,
        retry_in_seconds: u64,
    },
    /// Left alone because it failed again and again.
    CircuitOpen {
        reason: String,
        retry_in_seconds: u64,
    },
    /// By its configuration.
    Disabled {
        reason: Option<String>,
        /// Its operator took it out because it fails.
        by_circuit: bool,
    },
}

impl State {
    /// Whether the service as a whole is less than it was configured to be.
    pub fn is_degraded(&self) -> bool {
        matches!(self, Self::Down { .. } | Self::CircuitOpen { .. } | Self::Disabled { by_circuit: true, .. })
    }

    /// In words, for the model and for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::Connecting => "is still being connected".to_owned(),
            Self::Up { tools, .. } => format!("is up, with {tools} tools"),
            Self::Down { reason, .. } => format!("is down: {reason}"),
            Self::CircuitOpen { reason, retry_in_seconds } => {
                format!("is left alone for {retry_in_seconds} s because it failed again and again: {reason}")
            }
            Self::Disabled { reason: Some(reason), .. } => format!("is disabled: {reason}"),
            Self::Disabled { reason: None, .. } => "is disabled".to_owned(),
        }
    }
}

/// What calls need of a server that is up.
#[derive(Debug)]
struct Live {
    peer: Peer<RoleClient>,
    tools: Vec<Arc<ToolSpec>>,
}

/// One configured server.
#[derive(Debug)]
pub struct Server {
    pub entry: ServerEntry,
    pub stderr: StderrTail,
    state: watch::Sender<State>,
    live: ArcSwapOption<Live>,
    reports: mpsc::UnboundedSender<Result<(), String>>,
    reconnect: Arc<Notify>,
    stop: CancellationToken,
    calls: TaskTracker,
    clean: AtomicBool,
    changed: Arc<Notify>,
}

impl Server {
    /// Starts looking after a server. `changed` is woken whenever its state or its tools change.
    pub fn start(entry: ServerEntry, http: reqwest::Client, changed: Arc<Notify>, tasks: &TaskTracker) -> Arc<Self> {
        let initial = if entry.enabled {
            State::Connecting
        } else {
            State::Disabled { reason: entry.disabled_because.clone(), by_circuit: entry.circuit_open }
        };
        let (reports, reported) = mpsc::unbounded_channel();
        let server = Arc::new(Self {
            stderr: StderrTail::default(),
            state: watch::Sender::new(initial),
            live: ArcSwapOption::empty(),
            reports,
            reconnect: Arc::default(),
            stop: CancellationToken::new(),
            calls: TaskTracker::new(),
            clean: AtomicBool::new(true),
            changed,
            entry,
        });
        if server.entry.enabled {
            let keeper = Keeper { server: Arc::clone(&server), http, reported, breaker: Breaker::default() };
            tasks.spawn(keeper.run());
        }
        server
    }

    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Completes when the first attempt has succeeded or failed.
    pub async fn settled(&self) {
        // The sender lives as long as self.
        let _ = self.state.subscribe().wait_for(|state| !matches!(state, State::Connecting)).await;
    }

    /// Its tools; none while it is not up.
    pub fn tools(&self) -> Vec<Arc<ToolSpec>> {
        self.live.load().as_ref().map(|live| live.tools.clone()).unwrap_or_default()
    }

    /// Tries again at once, whatever its circuit says.
    pub fn reconnect(&self) {
        self.reconnect.notify_one();
    }

    /// Takes no more calls, lets the running ones end, and disconnects.
    pub fn stop(&self) {
        self.live.store(None);
        self.stop.cancel();
    }

    /// One attempt of a call.
    pub async fn call(&self, tool: &str, arguments: Map<String, Value>) -> Result<(String, bool), ServerError> {
        let live = self.live.load_full();
        let Some(live) = live else { return Err(ServerError::Connect(self.state().in_words())) };
        let _running = self.calls.token();
        let result = connection::call_tool(&live.peer, tool, arguments, self.entry.timeout).await;
        match &result {
            Err(error) if error.is_fault() => {
                self.clean.store(false, Ordering::Relaxed);
                // The keeper is gone only when the server is.
                let _ = self.reports.send(Err(error.to_string()));
            }
            _ if !self.clean.swap(true, Ordering::Relaxed) => {
                let _ = self.reports.send(Ok(()));
            }
            _ => {}
        }
        result
    }

    fn publish(&self, state: State) {
        self.state.send_replace(state);
        self.changed.notify_one();
    }
}

/// The task that owns the connection.
struct Keeper {
    server: Arc<Server>,
    http: reqwest::Client,
    reported: mpsc::UnboundedReceiver<Result<(), String>>,
    breaker: Breaker,
}

/// Why a connection is given up.
enum Leave {
    Stop,
    Fault(String),
    Asked,
}

impl Keeper {
    async fn run(mut self) {
        let stop = self.server.stop.clone();
        loop {
            let tools_changed = Arc::new(Notify::new());
            let opened = tokio::select! {
                opened = self.open(&tools_changed) => opened,
                () = stop.cancelled() => return,
            };
            let leave = match opened {
                Ok(connection) => self.look_after(connection, &tools_changed).await,
                Err(error) => Leave::Fault(error.to_string()),
            };
            self.server.live.store(None);
            match leave {
                Leave::Stop => return,
                Leave::Asked => self.server.publish(State::Connecting),
                Leave::Fault(reason) => {
                    if !self.wait(reason, &stop).await {
                        return;
                    }
                }
            }
        }
    }

    async fn open(&mut self, changed: &Arc<Notify>) -> Result<Connection, ServerError> {
        let server = &self.server;
        let connection = Connection::open(&server.entry, &self.http, Arc::clone(changed), &server.stderr).await?;
        if let Err(error) = self.take_tools(&connection).await {
            connection.close().await;
            return Err(error);
        }
        Ok(connection)
    }

    /// Lists the tools and publishes them; with them the server is up.
    async fn take_tools(&mut self, connection: &Connection) -> Result<(), ServerError> {
        let server = &self.server;
        let listed = connection::list_tools(&connection.peer, server.entry.timeout.min(CHECK)).await?;
        let (tools, left_out) = describe(&server.entry.name, &listed);
        self.breaker.success();
        server.clean.store(true, Ordering::Relaxed);
        let before = server.live.load_full();
        let same = before.as_ref().is_some_and(|live| live.tools == tools);
        if same {
            return Ok(());
        }
        for reason in left_out {
            tracing::warn!(server = server.entry.name, "a tool is not offered: {reason}");
        }
        tracing::info!(
            server = server.entry.name,
            "server is up: {} tools, MCP {} ({})",
            tools.len(),
            connection.protocol,
            connection.era
        );
        let state = State::Up { tools: tools.len(), protocol: connection.protocol.clone(), era: connection.era };
        // A removal that came meanwhile stays one.
        if !server.stop.is_cancelled() {
            server.live.store(Some(Arc::new(Live { peer: connection.peer.clone(), tools })));
        }
        server.publish(state);
        Ok(())
    }

    async fn look_after(&mut self, mut connection: Connection, tools_changed: &Notify) -> Leave {
        let server = Arc::clone(&self.server);
        let mut ticks =
            tokio::time::interval_at(Instant::now() + server.entry.health_check_interval, server.entry.health_check_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let look = tokio::select! {
                () = server.stop.cancelled() => {
                    server.calls.close();
                    let _ = timeout(DRAIN, server.calls.wait()).await;
                    connection.close().await;
                    return Leave::Stop;
                }
                () = server.reconnect.notified() => {
                    connection.close().await;
                    return Leave::Asked;
                }
                () = connection.closed() => return Leave::Fault(ended(&server)),
                Some(report) = self.reported.recv() => match report {
                    Ok(()) => { self.breaker.success(); continue }
                    Err(reason) => match self.breaker.failure(Instant::now()) {
                        Circuit::Open { .. } => {
                            connection.close().await;
                            return Leave::Fault(reason);
                        }
                        // A single fault may have been one of the call: look at once whether the server is well.
                        Circuit::Closed | Circuit::HalfOpen => false,
                    },
                },
                () = tools_changed.notified() => true,
                _ = ticks.tick() => true,
            };
            if look && let Err(error) = self.take_tools(&connection).await {
                connection.close().await;
                return Leave::Fault(error.to_string());
            }
        }
    }

    /// Waits until it is time to try again. False when the server is to stop.
    async fn wait(&mut self, reason: String, stop: &CancellationToken) -> bool {
        let now = Instant::now();
        // The fault that opened the circuit has been counted; a failed attempt has not.
        let circuit = match self.breaker.circuit(now) {
            open @ Circuit::Open { .. } => open,
            Circuit::Closed | Circuit::HalfOpen => self.breaker.failure(now),
        };
        let delay = self.breaker.delay(now).mul_f64(1.0 + 0.1 * rand::random::<f64>());
        tracing::warn!(server = self.server.entry.name, "server is down, trying again in {:.1} s: {reason}", delay.as_secs_f64());
        let retry_in_seconds = delay.as_secs().max(1);
        self.server.publish(match circuit {
            Circuit::Open { .. } => State::CircuitOpen { reason, retry_in_seconds },
            Circuit::Closed | Circuit::HalfOpen => State::Down { reason, retry_in_seconds },
        });
        let asked = Arc::clone(&self.server.reconnect);
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = asked.notified() => true,
            () = stop.cancelled() => false,
        }
    }
}

/// Why a connection ended, with a child's last words.
fn ended(server: &Server) -> String {
    match &server.entry.target {
        Target::Url(_) => "the connection ended".to_owned(),
        Target::Command { program, .. } => match server.stderr.lines().last() {
            Some(line) => format!("{program} ended; its last words: {line}"),
            None => format!("{program} ended"),
        },
    }
}

//! Keeps one server connected for as long as it is configured: connects, lists its tools, looks after it at intervals,
//! leaves it alone while its circuit is open, and comes back. One task a server is the only owner of its connection; calls
//! borrow it and report faults, and wait while it is being made. However many of them one fault strikes, it is one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use mcp_stdio::exit::Exit;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::Whole,
    breaker::{Breaker, Circuit},
    catalogue::describe,
    child::LastWords,
    connection::{self, Changed, Connection, Lists},
    error::ServerError,
    first_seen::FirstSeen,
    level,
    live::{self, LEFT_OUT_TOLD},
    pages::Pages,
    relay::Relay,
    request::Line,
    spec::{ToolSpec, prefix_of},
};
use crate::{
    config::{
        rules::Trust,
        server::{Launch, ServerEntry, Target},
    },
    heavy,
    words::counted,
};

/// Calls of a connection that is given up get this long to end.
const DRAIN: Duration = Duration::from_secs(30);
/// A list of tools is quick, however long a call may take: a server that hangs is noticed by it.
const CHECK: Duration = Duration::from_secs(10);

/// Between two lists of tools that the server asks for by telling that they changed.
const CALM: Duration = Duration::from_secs(1);

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
    /// Its entry in mcp.json cannot be used.
    Refused {
        reason: String,
    },
}

impl State {
    /// Whether the service as a whole is less than it was configured to be.
    pub fn is_degraded(&self) -> bool {
        self.is_circuit_open() || matches!(self, Self::Down { .. } | Self::Refused { .. })
    }

    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// Whether it is left alone, by us or by its operator, because it fails.
    pub fn is_circuit_open(&self) -> bool {
        matches!(self, Self::CircuitOpen { .. } | Self::Disabled { by_circuit: true, .. })
    }

    /// In words, for the model and for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::Connecting => "is still being connected".to_owned(),
            Self::Up { tools, .. } => format!("is up, with {}", counted(*tools, "tool")),
            Self::Down { reason, .. } => format!("is down: {reason}"),
            Self::CircuitOpen { reason, retry_in_seconds } => {
                format!("is left alone for {retry_in_seconds} s because it failed again and again: {reason}")
            }
            Self::Disabled { reason, by_circuit: true } => {
                format!("is down: {}", reason.as_deref().unwrap_or("it failed again and again"))
            }
            Self::Disabled { reason: Some(reason), .. } => format!("is switched off: {reason}"),
            Self::Disabled { reason: None, .. } => "is switched off".to_owned(),
            Self::Refused { reason } => format!("is not used: {reason}"),
        }
    }
}

/// What all servers share.
#[derive(Debug)]
pub struct Shared {
    pub http: reqwest::Client,
    pub first_seen: Arc<Mutex<FirstSeen>>,
    /// Woken whenever the state, the tools or another list of a server change.
    pub changed: Arc<Notify>,
    /// There may be somebody who answers the questions of servers.
    pub is_between: bool,
    pub log_level: level::Wanted,
    pub pages: Pages,
}

/// What calls need of a server that is up.
#[derive(Debug)]
struct Live {
    line: Line,
    tools: Vec<Arc<ToolSpec>>,
    /// How the names of all its tools begin.
    prefix: String,
    /// Which connection it is: what a call says of an earlier one is no news.
    number: u64,
    /// The calls that are made over it.
    calls: TaskTracker,
}

/// How a call went, where that is news.
#[derive(Debug)]
struct Report {
    connection: u64,
    result: Result<(), String>,
}

/// One configured server.
#[derive(Debug)]
pub struct Server {
    pub entry: ServerEntry,
    pub stderr: LastWords,
    state: watch::Sender<State>,
    live: ArcSwapOption<Live>,
    reports: mpsc::UnboundedSender<Report>,
    reconnect: Arc<Notify>,
    stop: CancellationToken,
    /// Calls beyond it wait in line.
    places: Semaphore,
    clean: AtomicBool,
    openings: AtomicU64,
    writes: AtomicU64,
    lists: Lists,
    shared: Shared,
}

impl Server {
    /// Starts looking after a server.
    pub fn start(entry: ServerEntry, shared: Shared, tasks: &TaskTracker) -> Arc<Self> {
        let initial = if entry.enabled {
            State::Connecting
        } else {
            State::Disabled { reason: entry.disabled_because.clone(), by_circuit: entry.circuit_open }
        };
        let (reports, reported) = mpsc::unbounded_channel();
        let server = Arc::new(Self {
            stderr: LastWords::default(),
            state: watch::Sender::new(initial),
            live: ArcSwapOption::empty(),
            reports,
            reconnect: Arc::default(),
            stop: CancellationToken::new(),
            places: Semaphore::new(connection::MAX_CALLS),
            clean: AtomicBool::new(true),
            openings: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            lists: Lists::new(Arc::clone(&shared.changed)),
            shared,
            entry,
        });
        if server.entry.enabled {
            let keeper = Keeper {
                server: Arc::clone(&server),
                tasks: tasks.clone(),
                reported,
                breaker: Breaker::default(),
                number: 0,
                calls: TaskTracker::new(),
            };
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

    /// Waits while it is being connected, or will be in a moment: until it is up, or left alone. No longer than one call of it may take.
    pub async fn back(&self) {
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| match state {
            // It is told that the connection is gone a moment after that.
            State::Up { .. } => self.live.load().is_some(),
            State::Connecting | State::Down { .. } => false,
            State::CircuitOpen { .. } | State::Disabled { .. } | State::Refused { .. } => true,
        });
        tokio::select! {
            // The sender lives as long as self.
            _ = timeout(self.entry.timeout, decided) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Its tools; none while it is not up.
    pub fn tools(&self) -> Vec<Arc<ToolSpec>> {
        self.live.load().as_ref().map(|live| live.tools.clone()).unwrap_or_default()
    }

    /// One of its tools, by the name that clients and models call it; `None` while it is not up.
    pub fn tool(&self, name: &str) -> Option<Arc<ToolSpec>> {
        let live = self.live.load();
        let live = live.as_ref().filter(|live| name.starts_with(&live.prefix))?;
        live.tools.iter().find(|spec| spec.name == name).cloned()
    }

    /// What it takes to ask it for something else than a tool; `None` while it is not up.
    pub fn live(&self) -> Option<live::Live> {
        let line = self.live.load().as_ref()?.line.clone();
        Some(live::Live { line, trusted: self.entry.trust == Trust::Hints })
    }

    /// Which lists of resources and of prompts it has now: other ones after each change, and on each new connection. None while it is not
    /// up, or has none.
    pub fn lists(&self) -> [Option<[u64; 2]>; 2] {
        let live = self.live.load();
        let Some(live) = live.as_ref() else { return [None; 2] };
        let (can, [resources, prompts]) = (live.line.peer.peer_info(), self.lists.now());
        let can = can.as_ref().map(|info| &info.capabilities);
        [
            can.and_then(|can| can.resources.as_ref()).map(|_| [live.number, resources]),
            can.and_then(|can| can.prompts.as_ref()).map(|_| [live.number, prompts]),
        ]
    }

    /// How often its circuit has opened.
    pub fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// How many calls that may have changed something have ended, however they did: what is read before is another thing than what is
    /// read after.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// One more has ended.
    pub fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
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

    /// One attempt of a call. Who made it hears by `relay` what the server says meanwhile.
    pub async fn call(&self, spec: &Arc<ToolSpec>, arguments: Arc<RawValue>, relay: Option<Relay>) -> Result<Whole, ServerError> {
        if self.live.load().is_none() {
            self.back().await;
        }
        let live = self.live.load_full();
        let Some(live) = live else { return Err(ServerError::Connect(self.state().in_words())) };
        let _running = live.calls.token();
        // Waiting here says nothing about the server, and costs the call nothing of its time.
        let place = match self.places.try_acquire() {
            Ok(place) => Ok(Ok(place)),
            Err(_) => timeout(self.entry.timeout, self.places.acquire()).await,
        };
        let Ok(Ok(_place)) = place else {
            return Err(ServerError::Refused(format!("it is busy: {} calls of it are under way", connection::MAX_CALLS)));
        };
        let result = connection::call_tool(&live.line, spec, arguments, relay).await;
        let result = result.map_err(|error| match error {
            // What a child met, it may have told.
            ServerError::Transport(text) if self.is_child() => ServerError::Transport(text + &last_words(self)),
            error => error,
        });
        let news = match &result {
            Err(error) if error.is_fault() => {
                self.clean.store(false, Ordering::Relaxed);
                Some(Err(error.to_string()))
            }
            _ => (!self.clean.swap(true, Ordering::Relaxed)).then_some(Ok(())),
        };
        if let Some(result) = news {
            // The keeper is gone only when the server is.
            let _ = self.reports.send(Report { connection: live.number, result });
        }
        result
    }

    fn is_child(&self) -> bool {
        matches!(self.entry.target, Target::Command(_))
    }

    fn publish(&self, state: State) {
        self.state.send_replace(state);
        self.shared.changed.notify_one();
    }
}

/// The task that owns the connection.
struct Keeper {
    server: Arc<Server>,
    /// All that is waited for at the end.
    tasks: TaskTracker,
    reported: mpsc::UnboundedReceiver<Report>,
    breaker: Breaker,
    /// Counts the connections.
    number: u64,
    /// Those over the connection of now.
    calls: TaskTracker,
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
            let (leave, connection) = match opened {
                Ok(mut connection) => (self.look_after(&mut connection, &tools_changed).await, Some(connection)),
                Err(error) => (Leave::Fault(error.to_string()), None),
            };
            // Told before the connection is closed, for which a child may take its time.
            self.server.live.store(None);
            let removed = matches!(leave, Leave::Stop);
            let delay = match leave {
                Leave::Stop => None,
                Leave::Asked => {
                    self.server.publish(State::Connecting);
                    Some(Duration::ZERO)
                }
                Leave::Fault(reason) => Some(self.tell(reason)),
            };
            if let Some(connection) = connection {
                self.close(connection, removed).await;
            }
            let Some(delay) = delay else { return };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.server.reconnect.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Closes the connection, after the calls that are made over it. One by HTTP is many, and a fault of one of them says nothing of the calls
    /// on the others: they end while the next one is being made. A child that failed makes room for the next at once.
    async fn close(&self, connection: Connection, removed: bool) {
        if self.server.is_child() && !removed {
            return connection.close().await;
        }
        let calls = self.calls.clone();
        calls.close();
        let end = async move {
            let _ = timeout(DRAIN, calls.wait()).await;
            connection.close().await;
        };
        if removed {
            end.await;
        } else {
            self.tasks.spawn(end);
        }
    }

    async fn open(&mut self, tools_changed: &Arc<Notify>) -> Result<Connection, ServerError> {
        let server = &self.server;
        let changed = Changed { tools: Arc::clone(tools_changed), lists: server.lists.clone() };
        let shared = &server.shared;
        let opening =
            Connection::open(&server.entry, &shared.http, changed, shared.is_between, shared.pages.clone(), &server.stderr);
        let connection = opening.await?;
        self.number += 1;
        self.calls = TaskTracker::new();
        if let Err(error) = self.take_tools(&connection).await {
            connection.close().await;
            return Err(error);
        }
        Ok(connection)
    }

    /// Lists the tools and publishes them; with them the server is up.
    async fn take_tools(&mut self, connection: &Connection) -> Result<(), ServerError> {
        let server = &self.server;
        let connection::Listed { tools: listed, left_out: unusable, size } =
            connection::list_tools(&connection.peer, server.entry.timeout.min(CHECK)).await?;
        let owned = Arc::clone(server);
        let described = move || describe(&owned.entry.name, &listed, owned.entry.trust, &owned.entry.tools);
        let (mut specs, mut left_out) = heavy::work(size, described).await;
        left_out.extend(unusable);
        server.shared.first_seen.lock().unwrap_or_else(PoisonError::into_inner).mark(&server.entry.name, &mut specs);
        let tools: Vec<_> = specs.into_iter().map(Arc::new).collect();
        self.breaker.success();
        server.clean.store(true, Ordering::Relaxed);
        let before = server.live.load_full();
        let same = before.as_ref().is_some_and(|live| live.tools == tools);
        if same {
            return Ok(());
        }
        for reason in left_out.iter().take(LEFT_OUT_TOLD) {
            tracing::warn!(server = server.entry.name, "a tool is not offered: {reason}");
        }
        if left_out.len() > LEFT_OUT_TOLD {
            tracing::warn!(server = server.entry.name, "and {} more tools are not offered", left_out.len() - LEFT_OUT_TOLD);
        }
        tracing::info!(
            server = server.entry.name,
            "server is up: {}, MCP {} ({})",
            counted(tools.len(), "tool"),
            connection.protocol,
            connection.era
        );
        let state = State::Up { tools: tools.len(), protocol: connection.protocol.clone(), era: connection.era };
        // A removal that came meanwhile stays one.
        if !server.stop.is_cancelled() {
            server.live.store(Some(Arc::new(Live {
                line: Line {
                    server: server.entry.name.as_str().into(),
                    peer: connection.peer.clone(),
                    way: connection.way.clone(),
                    calls: connection.calls.clone(),
                    hello: Arc::new(connection.hello.clone()),
                    ids: connection.ids.clone(),
                    log_level: (server.shared.log_level.clone(), connection.log_level.clone()),
                    limit: server.entry.timeout,
                },
                prefix: prefix_of(&server.entry.name),
                tools,
                number: self.number,
                calls: self.calls.clone(),
            })));
        }
        server.publish(state);
        Ok(())
    }

    async fn look_after(&mut self, connection: &mut Connection, tools_changed: &Notify) -> Leave {
        let server = Arc::clone(&self.server);
        let mut ticks =
            tokio::time::interval_at(Instant::now() + server.entry.health_check_interval, server.entry.health_check_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // When the tools are listed because they changed: at once, but not again and again.
        let (mut listed, mut due) = (None::<Instant>, None);
        loop {
            let look = tokio::select! {
                () = server.stop.cancelled() => return Leave::Stop,
                () = server.reconnect.notified() => return Leave::Asked,
                () = connection.closed() => return Leave::Fault(ended(&server, connection.exit())),
                Some(report) = self.reported.recv() => match report.result {
                    _ if report.connection != self.number => continue,
                    Ok(()) => { self.breaker.success(); continue }
                    // It may have been one of the call, or of the tool: whether the server is well is looked at at once. Who waits for
                    // such a look already says nothing new.
                    Err(reason) => {
                        tracing::debug!(server = server.entry.name, "looked at because a call failed: {reason}");
                        due = due.or_else(|| Some(listed.map_or_else(Instant::now, |listed| listed + CALM)));
                        false
                    }
                },
                () = tools_changed.notified(), if due.is_none() => {
                    due = Some(listed.map_or_else(Instant::now, |listed| listed + CALM));
                    false
                }
                () = until(due), if due.is_some() => {
                    (listed, due) = (Some(Instant::now()), None);
                    true
                }
                _ = ticks.tick() => true,
            };
            if look && let Err(error) = self.look(connection).await {
                return Leave::Fault(error.to_string());
            }
        }
    }

    /// Lists the tools. An answer that was lost on the way does not make a server one that is down: a list may be asked for again.
    async fn look(&mut self, connection: &Connection) -> Result<(), ServerError> {
        match self.take_tools(connection).await {
            Err(ServerError::Transport(_)) => self.take_tools(connection).await,
            looked => looked,
        }
    }

    /// Tells that the server is down; the time after which it is tried again.
    fn tell(&mut self, reason: String) -> Duration {
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
            Circuit::Open { .. } => {
                self.server.openings.fetch_add(1, Ordering::Relaxed);
                State::CircuitOpen { reason, retry_in_seconds }
            }
            Circuit::Closed | Circuit::HalfOpen => State::Down { reason, retry_in_seconds },
        });
        delay
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// Why a connection ended, with how its child did, and that one's last words.
fn ended(server: &Server, exit: Option<Exit>) -> String {
    match &server.entry.target {
        Target::Url(_) => "the connection ended".to_owned(),
        Target::Command(Launch { program, .. }) => {
            let how = exit.map(|exit| format!(", {exit}")).unwrap_or_default();
            format!("{program} ended{how}{}", last_words(server))
        }
    }
}

fn last_words(server: &Server) -> String {
    server.stderr.last().map(|line| format!("; its last words: {line}")).unwrap_or_default()
}

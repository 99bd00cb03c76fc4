//! Keeps one server connected for as long as it is configured: connects, lists its tools, looks after it at intervals,
//! leaves it alone while its circuit is open, and comes back. One task a server is the only owner of its connection (`keeper`); calls
//! borrow it and report faults, and wait while it is being made. However many of them one fault strikes, it is one.

mod keeper;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::Whole,
    child::LastWords,
    connection::{self, Lists},
    error::ServerError,
    first_seen::FirstSeen,
    level, live,
    pages::Pages,
    relay::Relay,
    request::Line,
    spec::ToolSpec,
    watches::Watches,
};
use keeper::Keeper;

use crate::{
    config::{
        rules::Trust,
        server::{ServerEntry, Target},
    },
    words::counted,
};

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
    pub watches: Watches,
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
    /// How many calls it has answered.
    answered: AtomicU64,
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
            answered: AtomicU64::new(0),
            lists: Lists::new(Arc::clone(&shared.changed)),
            shared,
            entry,
        });
        if server.entry.enabled {
            tasks.spawn(Keeper::new(Arc::clone(&server), tasks.clone(), reported).run());
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

    /// Of a server without a connection. What it says of itself may be of a moment before, or after.
    fn why_not_connected(&self) -> String {
        match self.state() {
            state if state.is_up() => "its connection has just ended".to_owned(),
            state => format!("the server {}", state.in_words()),
        }
    }

    /// One attempt of a call. Who made it hears by `relay` what the server says meanwhile.
    pub async fn call(&self, spec: &Arc<ToolSpec>, arguments: Arc<RawValue>, relay: Option<Relay>) -> Result<Whole, ServerError> {
        if self.live.load().is_none() {
            self.back().await;
        }
        let live = self.live.load_full();
        let Some(live) = live else { return Err(ServerError::Connect(self.why_not_connected())) };
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
            ServerError::Transport(text) if self.is_child() => ServerError::Transport(text + &self.stderr.told()),
            error => error,
        });
        if matches!(&result, Ok(_) | Err(ServerError::Own(..))) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
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

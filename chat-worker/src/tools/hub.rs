//! All servers: which there are follows the configuration, what they offer is one catalogue, and a call finds its way
//! by name. A server that is down costs its own tools only.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

use super::{
    answer::ToolOutput,
    catalogue::Catalogue,
    error::ServerError,
    first_seen::FirstSeen,
    http,
    level::Wanted,
    live::Live,
    pages::Pages,
    relay::{Following, Next, Relay},
    server::{Server, Shared as Common, State},
    spec::{ToolSpec, prefix_of},
    watches::Watches,
};
use crate::config::{
    file::{McpConfig, Refused},
    server::ServerEntry,
};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(4);
/// A server as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct ServerStatus {
    pub name: String,
    pub description: String,
    pub version: String,
    #[serde(flatten)]
    pub state: State,
    pub degraded: bool,
    /// How often its circuit has opened since it was configured.
    #[serde(skip)]
    pub openings: u64,
}

type Pending = Shared<BoxFuture<'static, ToolOutput>>;

/// A read under way.
#[derive(Debug)]
struct Reading {
    answer: Pending,
    /// Who hears how far it is.
    ears: Arc<Mutex<Vec<Relay>>>,
}

/// All servers.
#[derive(Debug)]
pub struct Hub {
    http: reqwest::Client,
    servers: RwLock<BTreeMap<String, Arc<Server>>>,
    /// Entries of the configuration that cannot be used.
    refused: RwLock<Vec<Refused>>,
    /// Reads under way: an identical one waits for the same answer.
    reads: Mutex<HashMap<String, Reading>>,
    first_seen: Arc<Mutex<FirstSeen>>,
    is_between: bool,
    /// From which level on messages for a log are wanted.
    pub(super) log_level: Wanted,
    /// What clients were asked to open.
    pub pages: Pages,
    /// And which resources they watch.
    pub watches: Watches,
    changed: Arc<Notify>,
    version: watch::Sender<u64>,
    tasks: TaskTracker,
}

impl Hub {
    /// `is_between`: there may be clients behind this program who answer what servers ask.
    pub fn new(first_seen: FirstSeen, is_between: bool) -> reqwest::Result<Arc<Self>> {
        let hub = Arc::new(Self {
            http: http::shared()?,
            servers: RwLock::default(),
            refused: RwLock::default(),
            reads: Mutex::default(),
            first_seen: Arc::new(Mutex::new(first_seen)),
            is_between,
            log_level: Wanted::default(),
            pages: Pages::default(),
            watches: Watches::default(),
            changed: Arc::default(),
            version: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        });
        let (changed, weak) = (Arc::clone(&hub.changed), Arc::downgrade(&hub));
        tokio::spawn(async move {
            loop {
                changed.notified().await;
                let Some(hub) = weak.upgrade() else { return };
                hub.version.send_modify(|version| *version += 1);
            }
        });
        Ok(hub)
    }

    /// Makes the servers those of the configuration. What did not change stays connected.
    pub fn apply(&self, config: &McpConfig) {
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|name, server| {
            let keep = config.servers.iter().any(|entry| entry == &server.entry);
            if !keep {
                tracing::info!(server = name.as_str(), "server is removed, or configured anew");
                server.stop();
                // One that was taken out because its circuit is open comes back.
                let stays = |entry: &ServerEntry| entry.name == *name && (entry.enabled || entry.circuit_open);
                if !config.servers.iter().any(stays) {
                    self.watches.server_left(name);
                }
            }
            keep
        });
        for entry in &config.servers {
            servers.entry(entry.name.clone()).or_insert_with(|| {
                let common = Common {
                    http: self.http.clone(),
                    first_seen: Arc::clone(&self.first_seen),
                    changed: Arc::clone(&self.changed),
                    is_between: self.is_between,
                    log_level: self.log_level.clone(),
                    pages: self.pages.clone(),
                    watches: self.watches.clone(),
                };
                Server::start(entry.clone(), common, &self.tasks)
            });
        }
        self.refused.write().unwrap_or_else(PoisonError::into_inner).clone_from(&config.refused);
        self.changed.notify_one();
    }

    /// Waits until every server has been tried once, or the time is over.
    pub async fn settle(&self, limit: Duration) {
        let all = futures::future::join_all(self.servers().into_iter().map(|server| async move {
            server.settled().await;
        }));
        // Those that need longer join later.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Changes whenever a server, its tools or another list of it do.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub fn catalogue(&self) -> Catalogue {
        Catalogue::new(self.servers().iter().flat_map(|server| server.tools()))
    }

    /// One tool of the catalogue, without making it.
    pub fn tool(&self, name: &str) -> Option<Arc<ToolSpec>> {
        self.find(name).map(|(_, spec)| spec)
    }

    /// The same; where its server is just being connected, that is waited for.
    pub async fn tool_soon(&self, name: &str) -> Option<Arc<ToolSpec>> {
        self.find_soon(name).await.map(|(_, spec)| spec)
    }

    pub fn status(&self) -> Vec<ServerStatus> {
        let status = |server: Arc<Server>| {
            let state = server.state();
            ServerStatus {
                name: server.entry.name.clone(),
                description: server.entry.description.clone(),
                version: server.entry.version.clone(),
                degraded: state.is_degraded(),
                openings: server.openings(),
                state,
            }
        };
        let refused = |refused: &Refused| ServerStatus {
            name: refused.name.clone(),
            description: String::new(),
            version: String::new(),
            degraded: true,
            openings: 0,
            state: State::Refused { reason: refused.reason.clone() },
        };
        let not_used = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        self.servers().into_iter().map(status).chain(not_used.iter().map(refused)).collect()
    }

    /// The last lines of a child's standard error; `None` when there is no such server.
    pub fn stderr(&self, name: &str) -> Option<Vec<String>> {
        self.server(name).map(|server| server.stderr.lines())
    }

    /// Tries a server again at once (all of them without a name). False when there is no such server.
    pub fn reconnect(&self, name: Option<&str>) -> bool {
        let matching = self.servers().into_iter().filter(|server| name.is_none_or(|name| name == server.entry.name));
        let matching: Vec<_> = matching.collect();
        for server in &matching {
            server.reconnect();
        }
        !matching.is_empty()
    }

    /// The lists of resources, and those of prompts, as they are told apart: see `Server::lists`.
    pub fn lists(&self) -> [Vec<(String, [u64; 2])>; 2] {
        let mut all = [Vec::new(), Vec::new()];
        for server in self.servers() {
            for (lists, own) in all.iter_mut().zip(server.lists()) {
                lists.extend(own.map(|own| (server.entry.name.clone(), own)));
            }
        }
        all
    }

    /// Calls a tool as it was judged: one that has changed since is not called. `input` is JSON. Never fails: what went wrong is told to the
    /// model. What the server says meanwhile is heard by `relay`.
    pub async fn call_as(self: &Arc<Self>, judged: &ToolSpec, input: &str, relay: Option<Relay>) -> ToolOutput {
        let name = judged.name.as_str();
        let Some((server, spec)) = self.find_soon(name).await else { return self.unknown(name) };
        if *spec != *judged {
            return ToolOutput::refused(&format!(
                "{name} has changed since this call was allowed, and was not called; call it again"
            ));
        }
        let arguments = if input == "null" { "{}" } else { input };
        let arguments = match RawValue::from_string(arguments.to_owned()) {
            Ok(arguments) if arguments.get().starts_with('{') => Arc::from(arguments),
            _ => return ToolOutput::unavailable("the arguments must be a JSON object"),
        };
        if !spec.read_only {
            let _write = Write(Arc::clone(&server));
            return call(server, spec, arguments, relay).await;
        }
        // Who listens to more than the progress wants a call of its own.
        if relay.as_ref().is_some_and(|relay| !relay.shares) {
            return call(server, spec, arguments, relay).await;
        }
        // What began before a write ended may answer with what was before it.
        let key = format!("{name}\0{}\0{input}", server.writes());
        let pending = {
            let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            let reading = reads.entry(key.clone()).or_insert_with(|| self.reading(key.clone(), server, spec, arguments));
            reading.ears.lock().unwrap_or_else(PoisonError::into_inner).extend(relay);
            reading.answer.clone()
        };
        let mut waiting = Waiting { hub: self, key: &key, read: Some(pending) };
        match &mut waiting.read {
            Some(read) => read.await,
            // It is taken when it is dropped.
            None => self.unknown(name),
        }
    }

    /// A read for all who ask the same at the same time.
    fn reading(self: &Arc<Self>, key: String, server: Arc<Server>, spec: Arc<ToolSpec>, arguments: Arc<RawValue>) -> Reading {
        let (hub, ears) = (Arc::downgrade(self), Arc::<Mutex<Vec<Relay>>>::default());
        let told = Arc::clone(&ears);
        let answer = async move {
            let (relay, hears) = Relay::of_progress();
            let answer = pin!(call(server, spec, arguments, Some(relay)));
            let mut following = Following::new(answer, hears);
            let output = loop {
                match following.next().await {
                    Next::Said(said) => {
                        told.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|ear| ear.hear(&said));
                    }
                    Next::Over(output) => break output,
                }
            };
            if let Some(hub) = hub.upgrade() {
                hub.reads.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
            output
        };
        Reading { answer: answer.boxed().shared(), ears }
    }

    /// Disconnects every server and waits for that.
    pub async fn shutdown(&self, limit: Duration) {
        for server in self.servers() {
            server.stop();
        }
        self.tasks.close();
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
    }

    /// The servers that are up.
    pub fn live(&self) -> Vec<Live> {
        self.servers().into_iter().filter_map(|server| server.live()).collect()
    }

    fn servers(&self) -> Vec<Arc<Server>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn server(&self, name: &str) -> Option<Arc<Server>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn find(&self, name: &str) -> Option<(Arc<Server>, Arc<ToolSpec>)> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers.values().find_map(|server| Some((Arc::clone(server), server.tool(name)?)))
    }

    async fn find_soon(&self, name: &str) -> Option<(Arc<Server>, Arc<ToolSpec>)> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        self.absent_server_of(name)?.back().await;
        self.find(name)
    }

    /// Whether a name that is not in the catalogue may be in it again: its server is configured, and not up.
    pub fn may_return(&self, name: &str) -> bool {
        self.absent_server_of(name).is_some()
    }

    fn absent_server_of(&self, name: &str) -> Option<Arc<Server>> {
        let may_be_of = |server: &Arc<Server>| name.starts_with(&prefix_of(&server.entry.name));
        self.servers().into_iter().find(|server| may_be_of(server) && !server.state().is_up())
    }

    /// A name that is not in the catalogue: the model made it up, or its server has gone since it was offered.
    pub fn unknown(&self, name: &str) -> ToolOutput {
        match self.absent_server_of(name) {
            Some(server) => ToolOutput::unavailable(&format!(
                "{name} is not available now: the server {} {}",
                server.entry.name,
                server.state().in_words()
            )),
            None => ToolOutput::unavailable(&format!("there is no tool {name}")),
        }
    }
}

/// A read that nobody waits for any more is not kept: its future would never be polled to its end, and whoever asked the
/// same much later would get its old answer.
struct Waiting<'a> {
    hub: &'a Hub,
    key: &'a str,
    read: Option<Pending>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut reads = self.hub.reads.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that of two who give up together the last one sees that it is the last.
        let Some(mine) = self.read.take() else { return };
        let is_mine = reads.get(self.key).is_some_and(|read| read.answer.ptr_eq(&mine));
        drop(mine);
        let abandoned = is_mine && reads.get(self.key).is_some_and(|read| read.answer.strong_count().unwrap_or(0) <= 1);
        if abandoned {
            reads.remove(self.key);
        }
    }
}

/// A call that may change something. It ends when this does, also where nobody waits for it any more.
struct Write(Arc<Server>);

impl Drop for Write {
    fn drop(&mut self) {
        self.0.wrote();
    }
}

/// The call with its retries: only calls that may be repeated or that were not sent, and only faults that fail at once.
async fn call(server: Arc<Server>, spec: Arc<ToolSpec>, arguments: Arc<RawValue>, relay: Option<Relay>) -> ToolOutput {
    let began = Instant::now();
    let mut attempt = 0;
    loop {
        let error = match server.call(&spec, Arc::clone(&arguments), relay.clone()).await {
            Ok(whole) => return ToolOutput::given(whole, began.elapsed()),
            Err(error) => error,
        };
        tracing::warn!(server = spec.server, tool = spec.tool, attempt = attempt + 1, "tool call failed: {error}");
        let may_be_repeated = error.is_transient() && (spec.idempotent || error.was_not_sent());
        if attempt >= server.entry.max_retries || began.elapsed() >= server.entry.timeout || !may_be_repeated {
            let outcome = match error {
                ServerError::Timeout(_) => "timeout",
                ServerError::Refused(_) | ServerError::Limited(..) | ServerError::Own(..) => "tool_error",
                ServerError::Connect(_) => "unavailable",
                _ => "transport",
            };
            let text = format!("the call of {} failed: {error}", spec.tool);
            let output = match error {
                ServerError::Own(_, error) => ToolOutput::own_error(text, error),
                _ => ToolOutput::failed(text, outcome),
            };
            return ToolOutput { duration: began.elapsed(), ..output };
        }
        let delay = FIRST_RETRY.saturating_mul(1 << attempt.min(8)).min(LONGEST_RETRY);
        tokio::time::sleep(delay.mul_f64(1.0 - 0.25 * rand::random::<f64>())).await;
        attempt += 1;
    }
}

//! The task that owns a server's connection: makes it, lists the tools, looks after it, and gives it up.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use mcp_stdio::exit::Exit;
use mcp_wire::retry_after;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Live, Report, Server, State};
use crate::{
    config::server::Target,
    heavy,
    tools::{
        breaker::{Breaker, Circuit},
        catalogue::describe,
        child,
        connection::{self, Changed, Connection},
        error::ServerError,
        live::LEFT_OUT_TOLD,
        request::Line,
        spec::prefix_of,
    },
    words::counted,
};

/// Calls of a connection that is given up get this long to end.
const DRAIN: Duration = Duration::from_secs(30);
/// A list of tools is quick, however long a call may take: a server that hangs is noticed by it.
const CHECK: Duration = Duration::from_secs(10);

/// Between two lists of tools that the server asks for by telling that they changed.
const CALM: Duration = Duration::from_secs(1);

/// The task that owns the connection.
pub(super) struct Keeper {
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

/// A server that works on calls: until they are to be given up, and how many it had answered before.
#[derive(Debug, Clone, Copy)]
struct Busy {
    until: Instant,
    answered: u64,
}

/// Why a connection is given up.
enum Leave {
    Stop,
    Fault(ServerError),
    Asked,
}

impl Keeper {
    pub(super) fn new(server: Arc<Server>, tasks: TaskTracker, reported: mpsc::UnboundedReceiver<Report>) -> Self {
        Self { server, tasks, reported, breaker: Breaker::default(), number: 0, calls: TaskTracker::new() }
    }

    pub(super) async fn run(mut self) {
        let stop = self.server.stop.clone();
        loop {
            let tools_changed = Arc::new(Notify::new());
            let opened = tokio::select! {
                opened = self.open(&tools_changed) => opened,
                () = stop.cancelled() => return,
            };
            let (leave, connection) = match opened {
                Ok(mut connection) => (self.look_after(&mut connection, &tools_changed).await, Some(connection)),
                Err(error) => (Leave::Fault(error), None),
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
                Leave::Fault(error) => Some(self.tell(&error)),
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
    async fn close(&self, mut connection: Connection, removed: bool) {
        connection.is_left();
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
        let shared = &server.shared;
        let watched = shared.watches.of(&server.entry.name);
        let changed = Changed { tools: Arc::clone(tools_changed), lists: server.lists.clone(), watched };
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
        // It asked to be left alone until then; it said no when it was looked at last; and it works on calls.
        let (mut quiet, mut refused, mut busy) = (None::<Instant>, false, None::<Busy>);
        loop {
            let look = tokio::select! {
                () = server.stop.cancelled() => return Leave::Stop,
                () = server.reconnect.notified() => return Leave::Asked,
                () = connection.closed() => return Leave::Fault(ServerError::Ended(ended(&server, connection.exit()))),
                Some(report) = self.reported.recv() => match report.result {
                    _ if report.connection != self.number => continue,
                    Ok(()) => { self.breaker.success(); continue }
                    // It may have been one of the call, or of the tool: whether the server is well is looked at at once. Who waits for
                    // such a look already says nothing new.
                    Err(reason) => {
                        tracing::debug!(server = server.entry.name, "looked at because a call failed: {reason}");
                        due = due.or_else(|| Some(listed.map_or_else(Instant::now, |listed| listed + CALM)));
                        // It may be gone altogether.
                        quiet = None;
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
            if !look {
                continue;
            }
            if let Some(until) = quiet.filter(|until| Instant::now() < *until) {
                due = Some(until);
                continue;
            }
            match self.look(connection).await {
                Ok(()) => (refused, busy) = (false, None),
                Err(ServerError::Timeout(_)) if let Some(working) = self.works(connection, busy) => {
                    (busy, due) = (Some(working), Some(working.until));
                }
                // It is well, and says no to us: nothing is known of its tools but what was.
                Err(ServerError::Limited(reason, wait)) => {
                    tracing::info!(server = server.entry.name, "its tools are listed later: {reason}");
                    quiet = Some(Instant::now() + wait.min(retry_after::MOST));
                }
                // It answers, and may be well again in a moment.
                Err(ServerError::Refused(_) | ServerError::Own(..)) if !refused => {
                    (refused, due) = (true, Some(Instant::now() + CALM));
                }
                Err(error) => return Leave::Fault(error),
            }
        }
    }

    /// Many do one thing at a time: one that works on calls need not list meanwhile. It hangs when the time of those is over that were under
    /// way as it was noticed first, and it has answered none.
    fn works(&self, connection: &Connection, before: Option<Busy>) -> Option<Busy> {
        let (now, answered) = (Instant::now(), self.server.answered.load(Ordering::Relaxed));
        match before {
            Some(busy) if now < busy.until => Some(busy),
            Some(busy) if answered == busy.answered => None,
            _ => {
                let until = connection.calls.due(self.server.entry.timeout).filter(|until| now < *until)?;
                Some(Busy { until, answered })
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
    fn tell(&mut self, error: &ServerError) -> Duration {
        let (now, reason) = (Instant::now(), error.to_string());
        let asked = match error {
            ServerError::Limited(_, wait) => (*wait).min(retry_after::MOST),
            _ => Duration::ZERO,
        };
        // The fault that opened the circuit has been counted; a failed attempt has not.
        let circuit = match self.breaker.circuit(now) {
            open @ Circuit::Open { .. } => open,
            Circuit::Closed | Circuit::HalfOpen => self.breaker.failure(now),
        };
        let delay = self.breaker.delay(now).mul_f64(1.0 + 0.1 * rand::random::<f64>()).max(asked);
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
        Target::Command(launch) => child::ended(launch, exit, &server.stderr),
    }
}

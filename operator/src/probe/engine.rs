//! The engine's handle: one registry behind one lock, and what wakes and feeds whom. It gives the time to all that
//! decides: only input and output (`worker`, `publish`, `client`) look at a clock beside it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use metrics_text::MetricSet;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    effect::{Effect, Job},
    fleet_json::Fleet,
    metrics::Metrics,
    proxy::Proxy,
    publish::{self, Publisher},
    registry::{Outcome, Registry},
    schedule::{AttemptId, TargetId},
    types::{
        AcceptedTools, Credentials, Endpoint, Moment, PodState, ServerHealth, ServerKey, ServerSpec, Serving, ToolsContract,
    },
    worker::{self, McpProber, Prober},
};
use crate::{clock, crd::CircuitStatus, reach::Reach};

/// How the engine runs.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Probes in flight at a time, all servers together. A quarter of them is kept for servers that answer at once.
    pub max_in_flight: usize,
    /// Seed of the jitter in circuits; none: another one every time.
    pub seed: Option<u64>,
    /// The operator's own pod, for Events about the fleet as a whole.
    pub operator: Option<k8s_openapi::api::core::v1::ObjectReference>,
    /// Metrics of every server beside its circuit: some twenty series each.
    pub server_metrics: bool,
    /// By which proxy remote servers with TLS are reached.
    pub proxy: Option<Proxy>,
    /// The wall clock, in whole seconds.
    pub wall: fn() -> Timestamp,
    /// What is asked of remote servers.
    pub remote: RemotePolicy,
}

/// What is asked of servers that the operator does not run, on behalf of whoever may write an McpServer.
#[derive(Clone, Debug)]
pub struct RemotePolicy {
    /// Where they may be. None: anywhere.
    pub reach: Option<Arc<Reach>>,
    /// Whether `health.toolCall` is carried out.
    pub tool_calls: bool,
}

impl Default for RemotePolicy {
    /// Whoever uses the engine by hand asks for themselves.
    fn default() -> Self {
        Self { reach: None, tool_calls: true }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 2_048,
            seed: None,
            operator: None,
            server_metrics: true,
            proxy: None,
            wall: clock::now,
            remote: RemotePolicy::default(),
        }
    }
}

/// How long a target is left alone when we ran out of something to ask it with.
const GAVE_UP_WAIT: Duration = Duration::from_secs(2);
/// How often that is logged: it befalls many at a time.
const GAVE_UP_QUIET: Duration = Duration::from_secs(10);

/// When something may be logged again.
#[derive(Debug, Default)]
struct Quiet(Mutex<Option<Instant>>);

impl Quiet {
    /// True once in [`GAVE_UP_QUIET`].
    fn swap_if_over(&self, now: Instant) -> bool {
        let mut until = locked(&self.0);
        let over = until.is_none_or(|until| until <= now);
        if over {
            *until = Some(now + GAVE_UP_QUIET);
        }
        over
    }
}

/// The health engine. A handle: clones share one registry.
#[derive(Clone, Debug)]
pub struct HealthEngine {
    shared: Arc<Shared>,
}

/// What the engine's tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Notify,
    effects: mpsc::UnboundedSender<Effect>,
    inbox: Mutex<Option<mpsc::UnboundedReceiver<Effect>>>,
    /// What ends the probe of a target early, and of which epoch it is.
    flights: Mutex<HashMap<TargetId, (u32, CancellationToken)>>,
    quiet_until: Quiet,
    pub(super) metrics: Metrics,
    pub(super) config: EngineConfig,
}

#[derive(Debug)]
struct State {
    registry: Registry,
    /// When the worker means to wake up.
    planned: Option<Instant>,
}

/// A lock whose holder may have panicked: what it guards is consistent between any two statements that can.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn now(&self) -> Moment {
        Moment { mono: Instant::now(), wall: (self.config.wall)() }
    }

    /// Changes the registry, and passes on what follows.
    pub(super) fn act(&self, change: impl FnOnce(&mut Registry, Moment) -> Vec<Effect>) {
        let now = self.now();
        let (effects, early) = {
            let mut state = locked(&self.state);
            let effects = change(&mut state.registry, now);
            let early = state.wakes_early();
            (effects, early)
        };
        self.pass_on(effects, early);
    }

    fn pass_on(&self, effects: Vec<Effect>, early: bool) {
        for effect in effects {
            // The receiver is gone only once the engine ended.
            let _ended = self.effects.send(effect);
        }
        if early {
            self.wake.notify_one();
        }
    }

    /// The probes that start now, and when to ask again.
    pub(super) fn poll(&self) -> (Vec<Job>, Option<Instant>) {
        let now = self.now();
        let (jobs, effects, wake, in_flight) = {
            let mut state = locked(&self.state);
            let (jobs, effects) = state.registry.poll(now);
            state.planned = state.registry.wake();
            (jobs, effects, state.planned, state.registry.in_flight())
        };
        self.metrics.in_flight(in_flight);
        self.pass_on(effects, false);
        (jobs, wake)
    }

    /// What is known of a server; none before its spec is.
    pub(super) fn snapshot(&self, key: &ServerKey) -> Option<ServerHealth> {
        let now = self.now();
        locked(&self.state).registry.snapshot(key, now)
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes up what an attempt brought (none: it was cancelled) and gives its place back.
    pub(super) fn record(&self, job: &Job, place: AttemptId, outcome: Option<Outcome>, last: bool) {
        let now = self.now();
        let latency = outcome.as_ref().map(|outcome| outcome.latency);
        let (verdict, effects, early) = {
            let mut state = locked(&self.state);
            let awaited = state.registry.end(place);
            let (verdict, effects) = if let Some(outcome) = outcome {
                state.registry.record(outcome, now)
            } else {
                state.registry.abandon(job.id, job.epoch, Duration::ZERO, now);
                (None, Vec::new())
            };
            let early = state.wakes_early();
            (verdict, effects, awaited || early)
        };
        if let (Some(verdict), Some(latency)) = (verdict, latency) {
            self.metrics.probed(&job.server, &verdict, latency);
        }
        self.pass_on(effects, early);
        if last {
            self.land(job);
        }
    }

    /// An attempt failed for something that we ran out of: it says nothing about the target, which is asked again a little later.
    pub(super) fn gave_up(&self, job: &Job, place: AttemptId, what: &str, last: bool) {
        self.metrics.gave_up();
        if self.quiet_until.swap_if_over(Instant::now()) {
            tracing::warn!(what, "a probe could not be made; raise the limit of open files, or probe less often");
        }
        let now = self.now();
        let early = {
            let mut state = locked(&self.state);
            let awaited = state.registry.end(place);
            if last {
                state.registry.abandon(job.id, job.epoch, GAVE_UP_WAIT, now);
            }
            awaited || state.wakes_early()
        };
        self.pass_on(Vec::new(), early);
        if last {
            self.land(job);
        }
    }

    /// Gives a place back without a result.
    pub(super) fn free(&self, place: AttemptId) {
        let awaited = locked(&self.state).registry.end(place);
        if awaited {
            self.wake.notify_one();
        }
    }

    /// A place for another attempt.
    pub(super) fn hedge(&self) -> Option<AttemptId> {
        let now = self.now();
        locked(&self.state).registry.hedge(now)
    }

    /// A token that ends the probe of a target early. A probe that is still under way is of an epoch before, and void.
    pub(super) fn fly(&self, job: &Job, shutdown: &CancellationToken) -> CancellationToken {
        let token = shutdown.child_token();
        if let Some((_, void)) = locked(&self.flights).insert(job.id, (job.epoch, token.clone())) {
            void.cancel();
        }
        token
    }

    fn land(&self, job: &Job) {
        let mut flights = locked(&self.flights);
        if flights.get(&job.id).is_some_and(|(epoch, _)| *epoch == job.epoch) {
            flights.remove(&job.id);
        }
    }

    /// Ends the probe of a target early, if it is of an epoch before this one.
    pub(super) fn ground(&self, id: TargetId, epoch: u32) {
        let mut flights = locked(&self.flights);
        if flights.get(&id).is_some_and(|(flying, _)| *flying < epoch)
            && let Some((_, token)) = flights.remove(&id)
        {
            token.cancel();
        }
    }
}

impl State {
    fn wakes_early(&self) -> bool {
        match (self.registry.wake(), self.planned) {
            (Some(next), Some(planned)) => next < planned,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

impl HealthEngine {
    /// An engine that knows nothing yet, and probes nothing before `run`.
    pub fn new(config: EngineConfig, metrics: &MetricSet) -> Self {
        let (effects, inbox) = mpsc::unbounded_channel();
        let seed = config.seed.unwrap_or_else(rand::random);
        let registry = Registry::new(config.max_in_flight, seed, Instant::now());
        let shared = Shared {
            state: Mutex::new(State { registry, planned: None }),
            wake: Notify::new(),
            effects,
            inbox: Mutex::new(Some(inbox)),
            flights: Mutex::default(),
            quiet_until: Quiet::default(),
            metrics: Metrics::new(metrics, config.server_metrics),
            config,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes up a server's spec. `persisted` is its circuit from status; it counts only the first time that the server is seen.
    pub fn set_server(&self, key: &ServerKey, mut spec: ServerSpec, persisted: Option<&CircuitStatus>) {
        let remote = &self.shared.config.remote;
        spec.reach.clone_from(&remote.reach);
        if matches!(spec.endpoint, Endpoint::Remote { .. }) && !remote.tool_calls {
            spec.health.tool_call = None;
        }
        self.shared.act(|registry, now| registry.set_server(key, spec, persisted, now));
    }

    /// Takes up which tools a server must offer, where that was decided since its spec was taken up.
    pub fn set_contract(&self, key: &ServerKey, contract: &ToolsContract) {
        self.shared.act(|registry, now| registry.set_contract(key, contract, now));
    }

    /// The list of tools that was accepted by itself, and by which the pods of a server are measured. None: nothing is, or a person said it.
    pub fn accepted(&self, key: &ServerKey) -> Option<AcceptedTools> {
        locked(&self.shared.state).registry.contract(key).filter(|contract| !contract.pinned)?.accepted.clone()
    }

    /// What is asked of remote servers.
    pub fn remote_policy(&self) -> &RemotePolicy {
        &self.shared.config.remote
    }

    /// What probes of a server carry; none before that is known.
    pub fn credentials(&self, key: &ServerKey) -> Option<Credentials> {
        locked(&self.shared.state).registry.credentials(key)
    }

    /// Where a server is probed; none before `set_server`.
    pub fn endpoint(&self, key: &ServerKey) -> Option<Endpoint> {
        locked(&self.shared.state).registry.endpoint(key)
    }

    /// Whether the activator answers for a server. That is not the prober's to find out, but it tells people who serves.
    pub fn set_stood_in(&self, key: &ServerKey, stood_in: bool) {
        self.shared.act(|registry, now| registry.set_stood_in(key, stood_in, now));
    }

    /// The server's CR is gone.
    pub fn remove_server(&self, key: &ServerKey) {
        self.shared.act(|registry, now| registry.remove_server(key, now));
    }

    /// Takes up what Kubernetes says about a pod of a server. It may come before its server.
    pub fn set_pod(&self, key: &ServerKey, pod: PodState) {
        self.shared.act(|registry, now| registry.set_pod(key, pod, now));
    }

    /// The pod is gone, or is nobody's any more.
    pub fn remove_pod(&self, uid: &str) {
        self.shared.act(|registry, now| registry.remove_pod(uid, now));
    }

    /// Which pods are known.
    pub(super) fn pods(&self) -> Vec<(Arc<ServerKey>, String)> {
        locked(&self.shared.state).registry.pods()
    }

    /// What is known of a server; none before `set_server`.
    pub fn snapshot(&self, key: &ServerKey) -> Option<ServerHealth> {
        self.shared.snapshot(key)
    }

    /// The pods of a server that clients are sent to; none of a remote one, or of one that is not known.
    pub fn serving(&self, key: &ServerKey) -> Option<Serving> {
        locked(&self.shared.state).registry.serving(key)
    }

    /// All that is known, as `/fleet` shows it.
    pub fn fleet(&self) -> Fleet {
        let now = self.shared.now();
        Fleet::of(&locked(&self.shared.state).registry, now)
    }

    /// Probes, patches gates and tells `changed` which servers' status shows something else, until `shutdown`; returns once the
    /// sessions that it held are deleted. An engine runs once.
    pub async fn run(self, client: kube::Client, changed: mpsc::UnboundedSender<ServerKey>, shutdown: CancellationToken) {
        let prober = McpProber::by(self.shared.config.proxy.clone());
        self.run_with(prober, client, changed, shutdown).await;
    }

    /// As `run`, with another prober.
    pub async fn run_with<P: Prober>(
        self,
        prober: P,
        client: kube::Client,
        changed: mpsc::UnboundedSender<ServerKey>,
        shutdown: CancellationToken,
    ) {
        let Some(inbox) = locked(&self.shared.inbox).take() else {
            tracing::error!("the health engine was started twice");
            return;
        };
        let prober = Arc::new(prober);
        let publisher = Publisher::new(Arc::clone(&self.shared), client, changed);
        let publishing = publish::run(publisher, Arc::clone(&prober), inbox, shutdown.clone());
        let working = worker::run(Arc::clone(&self.shared), prober, shutdown);
        tokio::join!(working, publishing);
    }
}

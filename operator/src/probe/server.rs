//! One McpServer: its targets and its circuit, and what the two together come to. Pure.
//!
//! Everything that follows from a change is worked out anew in `settle`; nothing is decided from what was done before.

mod eviction;
mod summary;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use tokio::time::Instant;

use eviction::EvictionState;
use summary::accepted;

use super::{
    breaker::{Circuit, Transition},
    effect::{Effect, GatePatch, Notice},
    schedule::{Schedule, TargetId, Timer},
    target::Target,
    tools::{self, ToolsList},
    types::{Endpoint, Moment, ServerKey, ServerSpec},
    wire::Wire,
};
use crate::crd::{CircuitState, Force, ToolsPolicy, reason};

/// A list of tools that changes at every probe is shown at most once in so long.
const TOOLS_QUIET: Duration = Duration::from_mins(10);

/// What is around a server while it settles.
pub struct Around<'a> {
    /// Timers.
    pub schedule: &'a mut Schedule,
    /// What is to be done.
    pub effects: &'a mut Vec<Effect>,
    /// Fleet panic.
    pub panic: bool,
    /// When the engine began: slots count from here.
    pub epoch: Instant,
    /// From 0 to 1.
    pub jitter: f64,
    /// Now.
    pub now: Moment,
}

/// One McpServer.
#[derive(Debug)]
pub struct Server {
    /// Which.
    pub key: Arc<ServerKey>,
    /// Its namespace, as queues hold it.
    pub namespace: Arc<str>,
    /// What its CR says; none while only pods are known.
    pub spec: Option<Arc<ServerSpec>>,
    /// What its requests carry.
    pub wire: Option<Arc<Wire>>,
    /// Its circuit.
    pub circuit: Circuit,
    /// Its pods, or its one endpoint.
    pub targets: BTreeMap<TargetId, Target>,
    /// When the circuit left Closed.
    opened_at: Option<Timestamp>,
    /// Whose trial it is while HalfOpen.
    trial: Option<TargetId>,
    /// Something would be taken out of service if nothing held it.
    held: bool,
    timer: Option<Instant>,
    shown: ShownTools,
    eviction: EvictionState,
    /// Hash of what status shows.
    told: Option<u64>,
}

#[derive(Debug, Default)]
struct ShownTools {
    list: Option<Arc<ToolsList>>,
    at: Option<Instant>,
    /// What was offered at the last probe, and whether at the one before, too.
    candidate: Option<Box<str>>,
    steady: bool,
    /// When the list may be shown that waits.
    due: Option<Instant>,
}

impl Server {
    /// A server of which nothing is known.
    pub fn new(key: Arc<ServerKey>) -> Self {
        Self {
            namespace: key.namespace.as_str().into(),
            key,
            spec: None,
            wire: None,
            circuit: Circuit::closed(),
            targets: BTreeMap::new(),
            opened_at: None,
            trial: None,
            held: false,
            timer: None,
            shown: ShownTools::default(),
            eviction: EvictionState::default(),
            told: None,
        }
    }

    /// It is one URL.
    pub fn is_remote(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| matches!(spec.endpoint, Endpoint::Remote { .. }))
    }

    /// Its CR says that it is not in use.
    pub fn rests(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| !spec.enabled)
    }

    /// Works out the circuit, the gates, the schedule and what status shows.
    pub fn settle(&mut self, around: &mut Around<'_>) {
        let Some(spec) = self.spec.clone() else { return };
        self.settle_circuit(&spec, around);
        self.settle_gates(&spec, around);
        self.settle_tools(around.now.mono);
        self.pick_trial();
        self.reschedule(&spec, around);
        self.tell(around);
    }

    /// Takes up a change of the circuit's state.
    pub fn transitioned(&mut self, transition: Option<Transition>, around: &mut Around<'_>) {
        let (Some(transition), Some(spec)) = (transition, self.spec.as_deref()) else { return };
        around.effects.push(Effect::Transition(Arc::clone(&self.key), transition));
        if transition.from == CircuitState::Closed {
            self.opened_at = Some(around.now.wall);
        }
        match transition.to {
            CircuitState::Closed => {
                // Those whose trial it was not are asked at once; their gates follow what they say.
                for target in self.targets.values_mut() {
                    target.urgent = Some(target.id) != self.trial;
                }
                if transition.from == CircuitState::HalfOpen && self.circuit.forced().is_none() {
                    around.effects.push(notice(
                        &spec.object,
                        false,
                        reason::CIRCUIT_CLOSED,
                        "CloseCircuit",
                        "the server answers again".into(),
                    ));
                }
            }
            // A trial that failed is no news: the circuit was out of use before, and is now.
            CircuitState::Open if transition.from == CircuitState::HalfOpen => {}
            CircuitState::Open => {
                let status = self.circuit.status();
                let until = status.retry_at.as_ref().map(|at| format!(", tried again at {}", at.0)).unwrap_or_default();
                let why = self
                    .culprit()
                    .map_or_else(|| "held by circuitBreaker.force".into(), |target| target.settled.message.to_string());
                around.effects.push(notice(&spec.object, true, reason::CIRCUIT_OPEN, "OpenCircuit", format!("{why}{until}")));
            }
            CircuitState::HalfOpen => {}
        }
        self.trial = None;
    }

    /// Closed, no pod well, one failing at least: open. Starting pods neither save the server nor speak against it.
    fn settle_circuit(&mut self, spec: &ServerSpec, around: &mut Around<'_>) {
        self.held = false;
        if !spec.enabled || self.circuit.state() != CircuitState::Closed || self.circuit.forced().is_some() {
            return;
        }
        let well = self.targets.values().any(|target| target.reachable() && target.proven && !target.failing);
        let Some(culprit) = self.culprit().filter(|_| !well) else { return };
        if spec.paused || around.panic {
            self.held = true;
            return;
        }
        let (reason, failures) = (culprit.settled.reason, culprit.streak);
        let transition = self.circuit.fail(&spec.breaker, reason, failures, around.jitter, around.now);
        self.transitioned(transition, around);
    }

    /// The target that failed last.
    fn culprit(&self) -> Option<&Target> {
        self.targets.values().filter(|target| target.reachable() && target.failing).max_by_key(|target| target.failing_since)
    }

    fn settle_gates(&mut self, spec: &ServerSpec, around: &mut Around<'_>) {
        if !spec.enabled {
            return;
        }
        let (state, forced) = (self.circuit.state(), self.circuit.forced());
        for target in self.targets.values_mut() {
            let Some(pod) = target.pod.as_ref().filter(|pod| !pod.deleting) else { continue };
            let natural = match (forced, state) {
                (Some(Force::Closed), _) => true,
                (Some(Force::Open), _) | (_, CircuitState::Open | CircuitState::HalfOpen) => false,
                (None, CircuitState::Closed) => target.proven && !target.failing && !breaks_contract(spec, target),
            };
            // What keeps a pod out may be our own fault, what lets it in is its own answer: only the former is held.
            let hold = spec.paused || (around.panic && forced.is_none());
            let decided = natural || (hold && target.gate.decided);
            self.held |= decided != natural;
            if decided != target.gate.decided {
                target.gate.decided = decided;
                target.gate.failures = 0;
                around.schedule.set(Timer::Gate(target.id), &mut target.gate.retry, None);
                // The circuit's own Event says it for all pods at once.
                if state == CircuitState::Closed && forced.is_none() && (!decided || target.gate.taken_out) {
                    around.effects.push(gate_notice(spec, target, &pod.name, decided));
                    target.gate.taken_out = !decided;
                }
            }
            if target.gate.wants_patch() {
                target.gate.in_flight = true;
                let why = gate_reason(&self.circuit, target, decided);
                around.effects.push(Effect::Gate(GatePatch {
                    id: target.id,
                    namespace: self.key.namespace.clone(),
                    pod: pod.name.clone(),
                    uid: pod.uid.clone(),
                    value: decided,
                    reason: why.0,
                    message: why.1,
                }));
            }
        }
    }

    /// A new list is shown at once when the old one stood for long, or when it was seen twice in a row.
    fn settle_tools(&mut self, now: Instant) {
        let offered = tools::majority(self.targets.values().filter(|target| target.reachable()).filter_map(Target::tools));
        let shown = &mut self.shown;
        shown.due = None;
        let Some(offered) = offered else { return };
        if shown.list.as_ref().is_some_and(|list| list.digest == offered.digest) {
            return;
        }
        let quiet_until = shown.at.map(|at| at + TOOLS_QUIET);
        if quiet_until.is_none_or(|until| until <= now) || shown.steady {
            // The first list is no change: the one after it may follow at once.
            shown.at = shown.list.is_some().then_some(now);
            shown.list = Some(offered);
        } else {
            shown.due = quiet_until;
        }
    }

    /// Notes which list a probe saw: one that is seen twice in a row stays.
    pub fn saw_tools(&mut self) {
        let offered = tools::majority(self.targets.values().filter(|target| target.reachable()).filter_map(Target::tools));
        let digest = offered.map(|list| list.digest.clone());
        self.shown.steady = digest.is_some() && digest == self.shown.candidate;
        self.shown.candidate = digest;
    }

    /// A list of tools waits to be shown.
    pub const fn tools_wait(&self) -> bool {
        self.shown.due.is_some()
    }

    /// While HalfOpen one target is tried: the one that waited longest, if possible one whose containers are ready.
    fn pick_trial(&mut self) {
        if self.circuit.state() != CircuitState::HalfOpen {
            self.trial = None;
            return;
        }
        if self.trial.and_then(|id| self.targets.get(&id)).is_some_and(Target::reachable) {
            return;
        }
        let candidates = self.targets.values().filter(|target| target.reachable());
        let best = candidates.min_by_key(|target| {
            let ready = target.pod.as_ref().is_none_or(|pod| pod.containers_ready);
            (!ready, target.ended.map(|ended| ended.mono), target.id)
        });
        self.trial = best.map(|target| target.id);
    }

    /// When the server's own timer goes off, for tests.
    #[cfg(test)]
    pub const fn timer(&self) -> Option<Instant> {
        self.timer
    }

    /// The server's own timer went off.
    pub const fn timer_fired(&mut self) {
        self.timer = None;
    }

    /// Takes the server's own timer back.
    pub fn unset_timer(&mut self, schedule: &mut Schedule) {
        schedule.set(Timer::Server(Arc::clone(&self.key)), &mut self.timer, None);
    }

    /// It is this target's trial.
    pub fn is_trial(&self, id: TargetId) -> bool {
        self.trial == Some(id)
    }

    /// The trial goes to this target: it answered while nobody should have asked it.
    pub fn try_with(&mut self, id: TargetId) {
        self.trial = Some(id);
    }

    /// Gives every target that is at rest its next time, and the server its own.
    pub fn reschedule(&mut self, spec: &ServerSpec, around: &mut Around<'_>) {
        let ids: Vec<TargetId> = self.targets.keys().copied().collect();
        for id in ids {
            self.reschedule_one(id, spec, around.schedule, around.epoch, around.now);
        }
        let due = [self.circuit.until(), self.shown.due].into_iter().flatten().min();
        around.schedule.set(Timer::Server(Arc::clone(&self.key)), &mut self.timer, due);
    }

    /// Gives one target its next time.
    pub fn reschedule_one(&mut self, id: TargetId, spec: &ServerSpec, schedule: &mut Schedule, epoch: Instant, now: Moment) {
        let Some(target) = self.targets.get(&id) else { return };
        let due = if target.busy || target.queued { None } else { self.next_due(target, spec, epoch, now) };
        if let Some(target) = self.targets.get_mut(&id) {
            schedule.set(Timer::Probe(id), &mut target.due, due);
        }
    }

    /// When the target is to be probed; none: not until something changes.
    pub fn next_due(&self, target: &Target, spec: &ServerSpec, epoch: Instant, now: Moment) -> Option<Instant> {
        if !spec.enabled || !target.reachable() {
            return None;
        }
        let paced = || if target.urgent { now.mono } else { target.pace(spec, epoch, now.mono) };
        if self.circuit.forced().is_some() {
            return Some(paced());
        }
        match self.circuit.state() {
            CircuitState::Closed => Some(paced()),
            CircuitState::HalfOpen => {
                (self.trial == Some(target.id)).then(|| if target.urgent { now.mono } else { target.trial(now.mono) })
            }
            // At rest, but for two questions: does a pod that came after the opening do better, and is a pod to be evicted still failing?
            CircuitState::Open => {
                // What a trial before us tried is not remembered: an operator that starts anew goes by the last opening.
                let since = self.opened_at.or_else(|| self.circuit.status().since.as_ref().map(|since| since.0));
                if target.starting(spec, now.mono) && target.younger_than(since) {
                    Some(paced())
                } else {
                    self.eviction_check(target, spec)
                }
            }
        }
    }

    /// Says so when status shows something else than before.
    pub fn tell(&mut self, around: &mut Around<'_>) {
        let mut hasher = DefaultHasher::new();
        self.fingerprint(around.panic, around.now.mono, &mut hasher);
        let hash = hasher.finish();
        if self.told.replace(hash) != Some(hash) {
            around.effects.push(Effect::Changed(Arc::clone(&self.key)));
        }
    }

    fn fingerprint(&self, panic: bool, now: Instant, hasher: &mut DefaultHasher) {
        // Debug of what status is made of is as exact as the types are, and settling is rare.
        format!("{:?}", self.snapshot(panic, now)).hash(hasher);
    }
}

/// Its tools keep it out of service.
fn breaks_contract(spec: &ServerSpec, target: &Target) -> bool {
    spec.tools.policy == ToolsPolicy::Enforce && accepted(spec, target) == Some(false)
}

fn gate_reason(circuit: &Circuit, target: &Target, value: bool) -> (&'static str, Arc<str>) {
    match (value, circuit.state()) {
        (true, _) if circuit.forced().is_some() => (reason::FORCED, "circuitBreaker.force is Closed".into()),
        (false, _) if circuit.forced().is_some() => (reason::FORCED, "circuitBreaker.force is Open".into()),
        (false, CircuitState::Closed) if target.proven && !target.failing => {
            (reason::TOOLS_CHANGED, "its tools are not the accepted ones".into())
        }
        (false, CircuitState::Open | CircuitState::HalfOpen) if !target.failing => {
            (reason::CIRCUIT_OPEN, "the circuit is not Closed".into())
        }
        _ => (target.settled.reason, Arc::clone(&target.settled.message)),
    }
}

fn gate_notice(spec: &ServerSpec, target: &Target, pod: &str, decided: bool) -> Effect {
    if decided {
        return notice(&spec.object, false, reason::POD_IN_SERVICE, "OpenGate", format!("{pod} is back in service"));
    }
    let why = if target.failing { &*target.settled.message } else { "its tools are not the accepted ones" };
    notice(&spec.object, true, reason::POD_OUT_OF_SERVICE, "CloseGate", format!("{pod} is out of service: {why}"))
}

fn notice(object: &ObjectReference, warning: bool, reason: &'static str, action: &'static str, note: String) -> Effect {
    Effect::Event(Notice { object: object.clone(), warning, reason, action, note })
}

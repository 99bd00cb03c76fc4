//! One McpServer: its targets and its circuit, and what the two together come to. Pure.
//!
//! Everything that follows from a change is worked out anew in `settle`; nothing is decided from what was done before.

mod eviction;
mod serving;
mod settle;
mod shown_tools;
mod summary;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;

use eviction::EvictionState;
use shown_tools::{Offered, ShownTools};

use super::{
    breaker::{Circuit, Transition},
    effect::{Effect, Notice},
    pace::EAGER,
    route::Route,
    schedule::{Schedule, TargetId, Timer},
    target::Target,
    template::Template,
    types::{Endpoint, Moment, ServerHealth, ServerKey, ServerSpec},
    verdict::Verdict,
};
use crate::crd::{CircuitState, ToolsPolicy, reason};

/// What is around a server while it settles.
pub struct Around<'a> {
    /// Timers.
    pub schedule: &'a mut Schedule,
    /// What is to be done.
    pub effects: &'a mut Vec<Effect>,
    /// Fleet panic.
    pub panic: bool,
    /// The rest of the fleet was asked whether it fails, too, and has not all answered: what would be taken out of service waits a little.
    pub inquiry: bool,
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
    /// What its requests carry, by what the pods' templates say.
    routes: Vec<(Option<Arc<Template>>, Arc<Route>)>,
    /// Its circuit.
    pub circuit: Circuit,
    /// Its pods, or its one endpoint.
    pub targets: BTreeMap<TargetId, Target>,
    /// When the circuit left Closed.
    opened_at: Option<Instant>,
    /// Whose trial it is while HalfOpen.
    trial: Option<TargetId>,
    /// When the opening began that an operator before us left.
    pub(super) found_open: Option<Instant>,
    /// Who failed its trial since the circuit is HalfOpen.
    tried: BTreeSet<TargetId>,
    /// Something would be taken out of service if nothing held it.
    held: bool,
    /// Something is left in service while the fleet is asked: until when at the longest.
    doubt: Option<Instant>,
    timer: Option<Instant>,
    /// What most pods offer.
    shown: ShownTools,
    /// What one of the others offers, where that is not accepted.
    odd: ShownTools,
    eviction: EvictionState,
    /// The activator answers for it: it sleeps.
    pub stood_in: bool,
    /// What status shows.
    told: Option<Box<ServerHealth>>,
}

impl Server {
    /// A server of which nothing is known.
    pub fn new(key: Arc<ServerKey>) -> Self {
        Self {
            namespace: key.namespace.as_str().into(),
            key,
            spec: None,
            routes: Vec::new(),
            circuit: Circuit::closed(),
            targets: BTreeMap::new(),
            opened_at: None,
            trial: None,
            found_open: None,
            tried: BTreeSet::new(),
            held: false,
            doubt: None,
            timer: None,
            shown: ShownTools::default(),
            odd: ShownTools::default(),
            eviction: EvictionState::default(),
            stood_in: false,
            told: None,
        }
    }

    /// It is one URL.
    pub fn is_remote(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| matches!(spec.endpoint, Endpoint::Remote { .. }))
    }

    /// It is not probed, whatever becomes of its pods.
    pub fn rests(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| !spec.is_probed())
    }

    /// Works out the circuit, the gates, the schedule and what status shows.
    pub fn settle(&mut self, around: &mut Around<'_>) {
        let Some(spec) = self.spec.clone() else { return };
        self.doubt = None;
        self.settle_circuit(&spec, around);
        self.settle_gates(&spec, around);
        self.settle_tools(&spec, around.now.mono);
        self.pick_trial();
        self.reschedule(&spec, around);
        self.tell(around);
    }

    /// Takes up a change of the circuit's state.
    pub fn transitioned(&mut self, transition: Option<Transition>, around: &mut Around<'_>) {
        let (Some(transition), Some(spec)) = (transition, self.spec.as_deref()) else { return };
        let why = self.culprit().map(|target| (target.settled.reason, Arc::clone(&target.settled.message)));
        around.effects.push(Effect::Transition(Arc::clone(&self.key), transition, why));
        if transition.from == CircuitState::Closed {
            self.opened_at = Some(around.now.mono);
        }
        match transition.to {
            CircuitState::Closed => {
                self.found_open = None;
                // Those whose trial it was not are asked at once; their gates follow what they say.
                for target in self.targets.values_mut() {
                    target.urgent = Some(target.id) != self.trial;
                }
                if transition.from == CircuitState::HalfOpen && self.circuit.forced().is_none() && !self.stood_in {
                    around.effects.push(notice(
                        &spec.object,
                        false,
                        reason::CIRCUIT_CLOSED,
                        "CloseCircuit",
                        "the server answers, and is let in again".into(),
                    ));
                }
            }
            // A trial that failed is no news: the circuit was out of use before, and is now.
            CircuitState::Open if transition.from == CircuitState::HalfOpen => {}
            // That a person holds it open is told of Ready.
            CircuitState::Open if self.circuit.forced().is_some() => {}
            CircuitState::Open => {
                let status = self.circuit.status();
                let until = status.retry_at.as_ref().map(|at| format!("; tried again at {}", at.0)).unwrap_or_default();
                let why = self.culprit().map_or_else(|| "the server fails".into(), |target| target.settled.message.to_string());
                around.effects.push(notice(&spec.object, true, reason::CIRCUIT_OPEN, "OpenCircuit", format!("{why}{until}")));
            }
            CircuitState::HalfOpen => {}
        }
        self.trial = None;
        self.tried.clear();
    }

    /// The target that failed last.
    fn culprit(&self) -> Option<&Target> {
        self.targets.values().filter(|target| target.reachable() && target.failing).max_by_key(|target| target.failing_since)
    }

    fn settle_tools(&mut self, spec: &ServerSpec, now: Instant) {
        let offered = Offered::by(&self.targets, spec.tools.digest());
        self.shown.settle(offered.most.as_ref(), now);
        self.odd.settle_odd(offered.odd.as_ref(), now);
    }

    /// Notes which list a probe of this target saw: one that is seen twice in a row stays. What other targets offered before was not seen again.
    pub fn saw_tools(&mut self, id: TargetId) {
        let offered = Offered::by(&self.targets, self.spec.as_ref().and_then(|spec| spec.tools.digest()));
        let Some(seen) = self.targets.get(&id).and_then(Target::tools) else { return };
        if offered.most.as_ref().is_some_and(|list| list.digest == seen.digest) {
            self.shown.saw(offered.most.as_ref());
        }
        if offered.odd.as_ref().is_some_and(|list| list.digest == seen.digest) {
            self.odd.saw(offered.odd.as_ref());
        }
    }

    /// A list of tools waits to be shown, or to be seen a second time.
    pub fn tools_wait(&self) -> bool {
        self.shown.due.is_some() || self.odd.due.is_some() || self.wants_second_look()
    }

    /// Under Enforce nothing is accepted yet, and what is offered was seen once: some servers load their tools one after the other, and the
    /// first list that is accepted decides over all pods after it.
    pub fn wants_second_look(&self) -> bool {
        let undecided = |spec: &Arc<ServerSpec>| spec.tools.policy == ToolsPolicy::Enforce && spec.tools.accepted.is_none();
        self.spec.as_ref().is_some_and(undecided) && self.shown.list.is_some() && !self.shown.steady
    }

    /// What a target's requests carry: what its own template says where it says it, else what the spec does. None before the spec is known.
    pub fn route_of(&mut self, id: TargetId) -> Option<Arc<Route>> {
        let spec = self.spec.as_deref()?;
        let target = self.targets.get_mut(&id)?;
        let asked = target.pod.as_ref().and_then(|pod| pod.asked.as_ref());
        if let Some(former) = &mut target.former {
            let make = || {
                let spec = ServerSpec { credentials: former.credentials.clone(), ..spec.clone() };
                Arc::new(Route::of(&spec, asked.map(|asked| &**asked)))
            };
            return Some(Arc::clone(former.route.get_or_insert_with(make)));
        }
        if let Some((_, route)) = self.routes.iter().find(|(template, _)| template.as_ref() == asked) {
            return Some(Arc::clone(route));
        }
        let route = Arc::new(Route::of(spec, asked.map(|asked| &**asked)));
        self.routes.push((asked.cloned(), Arc::clone(&route)));
        Some(route)
    }

    /// Lets go of what requests carry where they carry something else now, or nobody asks so any more. What still fits is kept: connections
    /// are.
    pub fn rewire(&mut self, stale: impl Fn(Option<&Template>) -> bool) {
        let targets = &self.targets;
        let asked = |template: &Option<Arc<Template>>| {
            targets.values().any(|target| target.pod.as_ref().and_then(|pod| pod.asked.as_ref()) == template.as_ref())
        };
        self.routes.retain(|(template, _)| asked(template) && !stale(template.as_deref()));
        for target in self.targets.values_mut() {
            let template = target.pod.as_ref().and_then(|pod| pod.asked.as_deref());
            if let Some(former) = target.former.as_mut().filter(|_| stale(template)) {
                former.route = None;
            }
        }
    }

    /// A rollout is under way: there are pods of two templates.
    pub fn is_rolling(&self) -> bool {
        let pods = self.targets.values().filter_map(|target| target.pod.as_ref()).filter(|pod| !pod.deleting);
        let mut templates = pods.filter_map(|pod| pod.origin.template.as_ref());
        let first = templates.next();
        templates.any(|template| Some(template) != first)
    }

    /// While HalfOpen one target is tried: the one that waited longest, if possible one whose containers are ready, and that was not tried yet.
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
            (self.tried.contains(&target.id), !ready, target.ended.map(|ended| ended.mono), target.id)
        });
        self.trial = best.map(|target| target.id);
    }

    /// Something of it is left in service until the fleet has answered, and until then at the longest.
    pub const fn doubt(&self) -> Option<Instant> {
        self.doubt
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

    /// A trial failed. One pod that fails does not show that none is well: the next one is tried, until all of them have been. False: they
    /// have.
    pub fn try_another(&mut self, failed: TargetId) -> bool {
        self.tried.insert(failed);
        let left = self.targets.values().any(|target| target.reachable() && !self.tried.contains(&target.id));
        if left {
            self.circuit.try_another();
            self.trial = None;
            self.pick_trial();
        }
        left
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
        let due = [self.circuit.until(), self.shown.due, self.odd.due, self.doubt].into_iter().flatten().min();
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
        if !spec.is_probed() || !target.reachable() {
            return None;
        }
        let paced = || match (target.urgent, target.ended) {
            (true, _) => now.mono,
            (false, Some(ended)) if target.answers() && self.wants_second_look() => (ended.mono + EAGER).max(now.mono),
            (false, _) => target.pace(spec, epoch, now.mono),
        };
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
                let since = self.opened_at.or_else(|| now.ago(self.circuit.status().since.as_ref()?.0));
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
        let shown = self.snapshot(around.panic, around.now.mono);
        if self.told.as_deref() != Some(&shown) {
            self.told = Some(Box::new(shown));
            around.effects.push(Effect::Changed(Arc::clone(&self.key)));
        }
    }
}

fn notice(object: &ObjectReference, warning: bool, reason: &'static str, action: &'static str, note: String) -> Effect {
    Effect::Event(Notice { object: object.clone(), warning, reason, action, note })
}

/// Why a server is not probed whose credentials are not known.
pub const LACKS_CREDENTIALS: &str = "what headersFrom or caSecretRef names is missing, or cannot be read";

/// A person asked for a probe, and there is nobody to ask, or nothing to ask with.
pub fn not_rechecked(spec: &ServerSpec) -> Effect {
    let why = match (spec.enabled, spec.lacks_credentials) {
        (false, _) => "spec.enabled is false",
        (true, true) => LACKS_CREDENTIALS,
        (true, false) => "there is no pod to ask",
    };
    notice(&spec.object, true, reason::RECHECKED, "Recheck", format!("not asked: {why}"))
}

/// What a probe brought that a person had asked for: the one probe of which an Event tells whatever it brings.
pub fn rechecked(spec: &ServerSpec, target: &Target, verdict: &Verdict, latency: Duration) -> Effect {
    let pod = target.pod.as_ref().map(|pod| format!("pod {}: ", pod.name)).unwrap_or_default();
    let by = if target.former.is_some() { ", with the credentials of before" } else { "" };
    let note = format!("{pod}{} ({} ms{by})", verdict.message, latency.as_millis());
    notice(&spec.object, verdict.is_failed(), reason::RECHECKED, "Recheck", note)
}

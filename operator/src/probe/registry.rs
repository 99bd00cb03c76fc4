//! Every server and every target: takes up what happened and when, and answers with what is to be done. Pure.
//!
//! It hands a result to its target (`target`), counts it for the fleet (`suspicion`), feeds the circuit, and lets the server settle: where a
//! circuit opens and a gate turns is `server::settle`.

mod members;
mod published;
#[cfg(test)]
mod sequences;
mod suspicion;

use suspicion::Inquiry;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    converse::{Known, Observation},
    effect::{Effect, Job},
    fleet_panic::FleetPanic,
    schedule::{AttemptId, Lane, Schedule, TargetId, Timer},
    server::{self, Around, Server},
    target::{Recheck, Target},
    types::{Moment, PodState, ServerHealth, ServerKey, Serving},
    verdict::{self, Kind, Problem, Step, Verdict},
};
use crate::crd::{CircuitState, reason};

/// What one attempt brought.
#[derive(Debug)]
pub struct Outcome {
    /// Of whom.
    pub id: TargetId,
    /// Of which epoch.
    pub epoch: u32,
    /// What it found.
    pub result: Result<Observation, Problem>,
    /// What it learnt.
    pub known: Known,
    /// How long it took.
    pub latency: Duration,
    /// No other attempt at the same target is under way.
    pub last: bool,
}

/// Everything that the engine knows.
#[derive(Debug)]
pub struct Registry {
    servers: HashMap<Arc<ServerKey>, Server>,
    index: HashMap<TargetId, Arc<ServerKey>>,
    /// By the pod's uid, whatever server its labels name today.
    pods: HashMap<String, TargetId>,
    schedule: Schedule,
    panic: FleetPanic,
    panic_ends: Option<Instant>,
    inquiry: Inquiry,
    epoch: Instant,
    ids: u64,
    jitter: Jitter,
}

/// A row of numbers from 0 to 1, the same for the same seed.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> f64 {
        // SplitMix64: all that is asked of it is that circuits do not come back in step.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

impl Registry {
    /// A registry that knows nothing yet.
    pub fn new(max_in_flight: usize, seed: u64, epoch: Instant) -> Self {
        Self {
            servers: HashMap::new(),
            index: HashMap::new(),
            pods: HashMap::new(),
            schedule: Schedule::new(max_in_flight),
            panic: FleetPanic::default(),
            panic_ends: None,
            inquiry: Inquiry::default(),
            epoch,
            ids: 0,
            jitter: Jitter(seed),
        }
    }

    /// The servers, in no order.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values()
    }

    /// What is known of a server; none before its spec is.
    pub fn snapshot(&self, key: &ServerKey, now: Moment) -> Option<ServerHealth> {
        let server = self.servers.get(key).filter(|server| server.spec.is_some())?;
        Some(server.snapshot(self.panic.active(), now.mono))
    }

    /// The pods of a server that clients are sent to; none of a remote one, or of one that is not known.
    pub fn serving(&self, key: &ServerKey) -> Option<Serving> {
        self.servers.get(key)?.serving(self.panic.active())
    }

    /// Probes in flight in the quick and in the slow lane.
    pub fn in_flight(&self) -> (usize, usize) {
        self.schedule.in_flight()
    }

    /// Fleet panic.
    pub const fn panic(&self) -> bool {
        self.panic.active()
    }

    /// When something is to be done next, if nothing happens before.
    pub fn wake(&self) -> Option<Instant> {
        self.schedule.wake()
    }

    /// Does something with a server and everything around it. None when there is no such server.
    fn with<T>(
        &mut self,
        key: &ServerKey,
        now: Moment,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Server, &mut Around<'_>) -> T,
    ) -> Option<T> {
        let (key, _) = self.servers.get_key_value(key)?;
        let key = Arc::clone(key);
        let server = self.servers.get_mut(&key)?;
        let mut around = Around {
            schedule: &mut self.schedule,
            effects,
            panic: self.panic.active(),
            inquiry: self.inquiry.is_open(),
            epoch: self.epoch,
            jitter: self.jitter.next(),
            now,
        };
        let done = act(server, &mut around);
        self.inquiry.note(&key, server.doubt().is_some());
        self.count_for_panic(&key, now);
        Some(done)
    }

    fn entry(&mut self, key: &ServerKey) -> Arc<ServerKey> {
        if let Some((known, _)) = self.servers.get_key_value(key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key.clone());
        self.servers.insert(Arc::clone(&key), Server::new(Arc::clone(&key)));
        key
    }

    fn add_target(&mut self, key: &Arc<ServerKey>, pod: Option<PodState>, now: Moment) -> TargetId {
        self.ids += 1;
        let id = TargetId(self.ids);
        let name = format!("{key}/{}", pod.as_ref().map_or("", |pod| &pod.uid));
        if let Some(pod) = &pod {
            self.pods.insert(pod.uid.clone(), id);
        }
        self.index.insert(id, Arc::clone(key));
        if let Some(server) = self.servers.get_mut(key) {
            server.targets.insert(id, Target::new(id, &name, pod, now));
        }
        id
    }

    /// Lets go of a target. Its pod is handed back, where it has one.
    fn drop_target(&mut self, key: &ServerKey, id: TargetId, effects: &mut Vec<Effect>) -> Option<PodState> {
        let mut target = self.servers.get_mut(key).and_then(|server| server.targets.remove(&id))?;
        self.index.remove(&id);
        self.inquiry.answered(id);
        if let Some(pod) = &target.pod {
            self.pods.remove(&pod.uid);
        }
        self.schedule.set(Timer::Probe(id), &mut target.due, None);
        self.schedule.set(Timer::Gate(id), &mut target.gate.retry, None);
        effects.push(Effect::Forget(id, u32::MAX));
        target.pod
    }

    /// Does what is due, and hands out the probes that may start now.
    pub fn poll(&mut self, now: Moment) -> (Vec<Job>, Vec<Effect>) {
        let mut effects = Vec::new();
        while let Some((at, timer)) = self.schedule.due(now.mono) {
            match timer {
                Timer::Probe(id) => self.line_up(id, at),
                Timer::Gate(id) => self.retry_gate(id, now, &mut effects),
                Timer::Panic => {
                    self.panic_ends = None;
                    self.weigh_panic(false, now, &mut effects);
                }
                Timer::Server(key) => {
                    if let Some(server) = self.servers.get_mut(&key) {
                        server.timer_fired();
                    }
                    self.presume(&key, now, &mut effects);
                    self.with(&key, now, &mut effects, |server, around| {
                        let transition = server.circuit.tick(now);
                        server.transitioned(transition, around);
                        server.settle(around);
                    });
                }
            }
        }
        let mut jobs = Vec::new();
        while let Some((id, due, lane)) = self.schedule.pop(now.mono) {
            jobs.extend(self.start(id, due, lane, now));
        }
        (jobs, effects)
    }

    fn line_up(&mut self, id: TargetId, at: Instant) {
        let Some(server) = self.index.get(&id).and_then(|key| self.servers.get_mut(key)) else { return };
        let Some(target) = server.targets.get_mut(&id) else { return };
        target.due = None;
        target.queued = true;
        let has_clients = server.circuit.state() == CircuitState::Closed && target.proven && !target.failing;
        let lane = match target.last.reason {
            reason::TIMEOUT if has_clients => Lane::Slow,
            reason::TIMEOUT => Lane::Trial,
            _ => Lane::Quick,
        };
        self.schedule.enqueue(lane, &server.namespace, id, at);
    }

    fn start(&mut self, id: TargetId, due: Instant, lane: Lane, now: Moment) -> Option<Job> {
        let server = self.index.get(&id).and_then(|key| self.servers.get_mut(key))?;
        let spec = server.spec.clone()?;
        let target = server.targets.get_mut(&id)?;
        target.queued = false;
        target.former.take_if(|former| former.until <= now.mono);
        let route = server.route_of(id)?;
        // While it stood in line the circuit may have opened, or the pod begun to go.
        let allowed = server.next_due(server.targets.get(&id)?, &spec, self.epoch, now).is_some();
        let state = server.circuit.state();
        let target = server.targets.get_mut(&id).filter(|target| allowed && !target.busy)?;
        target.busy = true;
        target.asked_at = Some(now.mono);
        target.urgent = false;
        if target.recheck == Recheck::Wanted {
            target.recheck = Recheck::UnderWay;
        }
        // A trial is one probe; and who is known to fail, or to hang, need not be found out about three times as fast.
        let unexpected = state == CircuitState::Closed && !target.failing;
        let hedges = unexpected.then(|| target.hedges(route.timeout));
        Some(Job {
            id,
            server: Arc::clone(&server.key),
            epoch: target.epoch,
            attempt: self.schedule.start(lane, now.mono),
            route,
            ip: target.pod.as_ref().and_then(|pod| pod.address),
            known: target.known.clone(),
            hedges,
            lag: now.mono.saturating_duration_since(due),
        })
    }

    /// A place for a second attempt at a target that hangs, if there is one.
    pub fn hedge(&mut self, now: Moment) -> Option<AttemptId> {
        self.schedule.hedge(now.mono)
    }

    /// An attempt ended. True when somebody waits for its place.
    pub fn end(&mut self, attempt: AttemptId) -> bool {
        self.schedule.end(attempt)
    }

    /// Takes up what an attempt brought. The verdict is handed back for those who count them; none when the result is void.
    pub fn record(&mut self, outcome: Outcome, now: Moment) -> (Option<Verdict>, Vec<Effect>) {
        let mut effects = Vec::new();
        let Outcome { id, epoch, result, known, latency, last } = outcome;
        let Some(key) = self.index.get(&id).cloned() else { return (None, effects) };
        let Some(server) = self.servers.get_mut(&key) else { return (None, effects) };
        let (Some(spec), Some(route)) = (server.spec.clone(), server.route_of(id)) else { return (None, effects) };
        let Some(target) = server.targets.get_mut(&id).filter(|target| target.epoch == epoch) else { return (None, effects) };
        if target.former.is_some() && result.as_ref().is_err_and(verdict::may_mean_credentials) {
            target.former = None;
            // It takes what the CR gives now, or nothing: that is to be found out, and this was no answer to it.
            target.become_another();
            target.busy = false;
            effects.push(Effect::Forget(id, target.epoch));
            self.with(&key, now, &mut effects, Server::settle);
            return (None, effects);
        }
        target.busy = !last;
        let presumed = std::mem::take(&mut target.presumed);
        target.known = known;
        target.known.wary = matches!(result, Err(Problem::Timeout { step: Step::Initialize, .. }));
        let (verdict, wait) = match &result {
            Ok(_) => (healthy(), None),
            Err(problem) => verdict::judge(problem, route.given),
        };
        if target.recheck == Recheck::UnderWay {
            target.recheck = Recheck::No;
            effects.push(server::rechecked(&spec, target, &verdict, latency));
        }
        if verdict.kind != Kind::Failed {
            target.took(latency);
        } else if verdict.reason == reason::TIMEOUT && target.known.era.is_none() {
            // Silence to one era: the other one is tried first the next time.
            target.known.legacy_first = !target.known.legacy_first;
        }
        let same_as_ever = target.streak == 0
            && !presumed
            && verdict.kind == Kind::Healthy
            && target.last.kind == Kind::Healthy
            && result.as_ref().ok().is_some_and(|found| target.observation.as_ref().is_some_and(|known| same(known, found)))
            && server.circuit.state() == CircuitState::Closed
            && !server.tools_wait();
        let Some(target) = server.targets.get_mut(&id) else { return (None, effects) };
        if same_as_ever {
            target.ended = Some(now);
            server.reschedule_one(id, &spec, &mut self.schedule, self.epoch, now);
            self.heard(&key, id, false, now);
            self.release(now, &mut effects);
            return (Some(verdict), effects);
        }
        let first_failure = target.streak == 0 && verdict.is_failed();
        if first_failure {
            target.row_began = now.mono.checked_sub(latency);
        }
        let before = (target.streak > 0, target.last.kind);
        if let Ok(found) = result {
            target.observation = Some(found);
        }
        let on_trial = server.circuit.forced().is_none() && server.circuit.state() != CircuitState::Closed;
        let newly_failing = if on_trial && !verdict.is_failed() {
            target.absorb_trial(verdict.clone(), wait, now);
            false
        } else {
            let newly_failing = target.absorb(verdict.clone(), wait, &spec, now);
            if on_trial {
                target.failed_trial(&verdict);
            }
            newly_failing
        };
        let turned = (target.streak > 0, target.last.kind) != before && (before.0 || target.streak > 0);
        if turned {
            let pod = target.pod.as_ref().map(|pod| pod.name.clone()).unwrap_or_default();
            effects.push(Effect::Turned(Arc::clone(&key), pod, verdict.clone()));
        }
        self.count_for_panic(&key, now);
        self.heard(&key, id, first_failure, now);
        self.weigh_panic(newly_failing, now, &mut effects);
        self.release(now, &mut effects);
        let kind = verdict.kind;
        self.with(&key, now, &mut effects, |server, around| {
            if kind == Kind::Healthy {
                server.saw_tools(id);
            }
            feed_circuit(server, id, kind, around);
            server.settle(around);
            if kind == Kind::Failed {
                server.consider_eviction(id, around);
            } else {
                server.calm();
            }
        });
        (Some(verdict), effects)
    }

    /// A probe was given up without a result: its target is to be asked again, but not before `wait` is over.
    pub fn abandon(&mut self, id: TargetId, epoch: u32, wait: Duration, now: Moment) {
        let Some(server) = self.index.get(&id).and_then(|key| self.servers.get_mut(key)) else { return };
        let Some(spec) = server.spec.clone() else { return };
        if let Some(target) = server.targets.get_mut(&id).filter(|target| target.epoch == epoch) {
            target.busy = false;
            if !wait.is_zero() {
                target.not_before = target.not_before.max(Some(now.mono + wait));
            }
            server.reschedule_one(id, &spec, &mut self.schedule, self.epoch, now);
        }
    }
}

/// What an answer means for the circuit: once the trial of every pod has failed, it opens again; an answer while Open begins a trial.
fn feed_circuit(server: &mut Server, id: TargetId, kind: Kind, around: &mut Around<'_>) {
    let Some(spec) = server.spec.clone() else { return };
    if kind == Kind::Failed {
        if server.circuit.state() == CircuitState::HalfOpen
            && server.is_trial(id)
            && !server.try_another(id)
            && let Some(target) = server.targets.get(&id)
        {
            let (reason, failures) = (target.last.reason, target.streak);
            let transition = server.circuit.fail(&spec.breaker, reason, failures, around.jitter, around.now);
            server.transitioned(transition, around);
        }
        return;
    }
    if server.circuit.forced().is_some() {
        return;
    }
    let early = server.circuit.try_now(around.now);
    server.transitioned(early, around);
    if server.circuit.state() == CircuitState::HalfOpen {
        server.try_with(id);
        let last = server.targets.get(&id).is_some_and(Target::wants_rest);
        let transition = server.circuit.succeed(&spec.breaker, last, around.now);
        if transition.is_some()
            && let Some(target) = server.targets.get_mut(&id)
        {
            target.passed_trial();
        }
        server.transitioned(transition, around);
    }
}

fn same(known: &Observation, found: &Observation) -> bool {
    let tools = match (&known.tools, &found.tools) {
        (Some(known), Some(found)) => Arc::ptr_eq(known, found),
        (None, None) => true,
        _ => false,
    };
    tools && known.kept == found.kept && Arc::ptr_eq(&known.hello, &found.hello)
}

/// The verdict of every good probe: one text for all of them.
fn healthy() -> Verdict {
    static HEALTHY: std::sync::LazyLock<Verdict> = std::sync::LazyLock::new(Verdict::healthy);
    HEALTHY.clone()
}

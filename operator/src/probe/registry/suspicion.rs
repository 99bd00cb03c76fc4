//! Is it them, or is it us? What is counted for fleet panic, and what is asked sooner because of it. Pure.
//!
//! When servers begin to fail as they would if the fault were ours, all the others are asked: an inquiry. While it is open, what would be
//! taken out of service waits, but never past the time in which a failure is to be known; who has not answered by then counts as failing.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::Registry;
use crate::crd::CircuitState;
use crate::probe::{
    effect::Effect,
    fleet_panic::Standing,
    schedule::{TargetId, Timer},
    server::Server,
    target::Target,
    types::{Moment, ServerKey},
    verdict::Kind,
};

/// A fleet of fewer servers is not asked.
const SMALLEST: usize = 4;
/// From this share of the fleet failing on, the rest is asked without waiting for its turn: is it them, or is it us?
const SUSPICIOUS_TENTHS: usize = 1;
/// So many servers were heard lately; if half of those began to fail, the rest is asked, however large it is.
const LATELY: usize = 8;
/// Over how long those questions are spread, and how long they are not asked again.
const SUSPICION_SPREAD: Duration = Duration::from_secs(2);
const SUSPICION_QUIET: Duration = Duration::from_secs(10);
/// Who was asked less than so long ago may be about to answer.
const TOO_EARLY: Duration = Duration::from_secs(1);

/// The question to the rest of the fleet whether it fails, too.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// When it was last put.
    at: Option<Instant>,
    /// Who has not answered yet.
    asked: BTreeSet<TargetId>,
    /// Servers of which something is left in service meanwhile.
    waiting: BTreeSet<Arc<ServerKey>>,
    /// How many answered well since then.
    well: usize,
    /// Of the servers that were heard last, oldest first: whether it began to fail.
    lately: VecDeque<bool>,
}

impl Inquiry {
    /// Somebody has not answered yet.
    pub(super) fn is_open(&self) -> bool {
        !self.asked.is_empty()
    }

    /// This one answered, or will not be asked any more.
    pub(super) fn answered(&mut self, id: TargetId) {
        self.asked.remove(&id);
    }

    /// Notes whether something of a server is left in service while it is open.
    pub(super) fn note(&mut self, key: &Arc<ServerKey>, waits: bool) {
        if waits {
            self.waiting.insert(Arc::clone(key));
        } else {
            self.waiting.remove(key);
        }
    }

    fn hear(&mut self, failed: bool) {
        self.well += usize::from(!failed);
        self.lately.push_back(failed);
        if self.lately.len() > LATELY {
            self.lately.pop_front();
        }
    }

    fn is_run_of_failures(&self) -> bool {
        self.lately.iter().filter(|failed| **failed).count() * 2 >= LATELY
    }
}

impl Registry {
    /// Takes up how a server stands now. Whoever has not answered since it started, or is not probed, is no part of the fleet.
    pub(super) fn count_for_panic(&mut self, key: &Arc<ServerKey>, now: Moment) {
        let standing = self.servers.get(key).filter(|server| server.spec.is_some() && !server.rests()).and_then(standing);
        self.panic.set(key, standing, now.mono);
    }

    /// Takes up that a target was heard, and whether that was the first failure after an answer.
    pub(super) fn heard(&mut self, key: &Arc<ServerKey>, id: TargetId, first_failure: bool, now: Moment) {
        self.inquiry.answered(id);
        let target = self.servers.get(key).and_then(|server| server.targets.get(&id));
        let well = target.is_some_and(|target| target.streak == 0);
        if (first_failure || well) && self.panic.has(key) {
            self.inquiry.hear(first_failure);
        }
        if first_failure {
            self.suspect(now);
        }
    }

    pub(super) fn weigh_panic(&mut self, acting: bool, now: Moment, effects: &mut Vec<Effect>) {
        let acting = acting || !self.inquiry.waiting.is_empty();
        let lasted = self.panic.until().is_some_and(|until| until <= now.mono);
        if let Some(active) = self.panic.weigh(acting, now.mono) {
            effects.push(Effect::Panic(active));
            self.schedule.set(Timer::Panic, &mut self.panic_ends, self.panic.until());
            if !active && !lasted {
                self.ask_held(now);
            }
            // What was held, or waited, is decided now.
            let keys: Vec<Arc<ServerKey>> =
                if active { self.inquiry.waiting.iter().cloned().collect() } else { self.servers.keys().cloned().collect() };
            for key in keys {
                self.with(&key, now, effects, Server::settle);
            }
        }
    }

    /// When servers begin to fail as if it were our fault, asks all the others at once: the sooner it shows the less harm is done.
    fn suspect(&mut self, now: Moment) {
        let (failing, fleet) = self.panic.counts();
        let quiet = self.inquiry.at.is_some_and(|at| at + SUSPICION_QUIET > now.mono);
        let share = failing * 10 >= fleet * SUSPICIOUS_TENTHS;
        if self.panic.active() || quiet || failing == 0 || fleet < SMALLEST {
            return;
        }
        if !share && !self.inquiry.is_run_of_failures() && !self.knows_little() {
            return;
        }
        self.inquire(now, |target| target.streak == 0);
    }

    /// Half of the fleet answers again. What the others said last they said while the fault was probably ours: they are asked once more before
    /// that counts.
    fn ask_held(&mut self, now: Moment) {
        for server in self.servers.values_mut() {
            server.targets.values_mut().filter(|target| target.failing).for_each(|target| target.doubt_anew(now.mono));
        }
        self.inquire(now, |target| target.streak > 0);
    }

    /// Asks these soon.
    fn inquire(&mut self, now: Moment, whom: impl Fn(&Target) -> bool) {
        self.inquiry.at = Some(now.mono);
        self.inquiry.asked.clear();
        self.inquiry.well = 0;
        let spread = u64::try_from(SUSPICION_SPREAD.as_millis()).unwrap_or(1);
        for server in self.servers.values_mut().filter(|server| server.circuit.state() == CircuitState::Closed) {
            for target in server.targets.values_mut().filter(|target| whom(target)) {
                // Who asked to be left alone is left alone, whatever happens to others.
                let soon = Some(now.mono + Duration::from_millis(target.phase % spread)).max(target.not_before);
                if let Some(soon) = soon
                    && target.due.is_some_and(|due| due > soon)
                {
                    self.schedule.set(Timer::Probe(target.id), &mut target.due, Some(soon));
                }
                let soon = target.busy || target.queued || target.due.is_some_and(|due| due <= now.mono + SUSPICION_SPREAD);
                if soon && target.proven && target.reachable() {
                    self.inquiry.asked.insert(target.id);
                }
            }
        }
    }

    /// Most of the fleet was not asked since this operator began: who fails first says nothing about the others.
    fn knows_little(&self) -> bool {
        let unasked = |server: &&Server| {
            let mut proven = server.targets.values().filter(|target| target.proven);
            proven.next().is_some_and(|first| first.last.kind == Kind::Unknown)
                && proven.all(|target| target.last.kind == Kind::Unknown)
        };
        let counted = self.servers.values().filter(|server| self.panic.has(&server.key));
        counted.filter(unasked).count() * 2 > self.panic.counts().1
    }

    /// Everybody has answered: what waited for that is decided.
    pub(super) fn release(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.inquiry.is_open() || self.inquiry.waiting.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.inquiry.waiting) {
            self.with(&key, now, effects, Server::settle);
        }
    }

    /// A server may wait no longer for the fleet's answers: who is silent, although it is quick as a rule, is taken to fail like it until it
    /// answers. So is who could not be asked yet, where most of those who could are silent.
    pub(super) fn presume(&mut self, key: &Arc<ServerKey>, now: Moment, effects: &mut Vec<Effect>) {
        let waited = self.servers.get(key).and_then(Server::doubt).is_some_and(|until| until <= now.mono);
        let early = self.inquiry.at.is_none_or(|at| at + TOO_EARLY > now.mono);
        if !waited || early {
            return;
        }
        let target = |id: &TargetId| self.servers.get(self.index.get(id)?)?.targets.get(id);
        let open = || self.inquiry.asked.iter().filter_map(target);
        let silent = open().filter(|target| target.is_silent(now.mono)).count();
        let fails = |target: &&Target| target.is_silent(now.mono) || !target.busy && silent > self.inquiry.well;
        let failing: Vec<TargetId> = open().filter(fails).map(|target| target.id).collect();
        let mut keys = BTreeSet::new();
        for id in failing {
            let Some(key) = self.index.get(&id).cloned() else { continue };
            if let Some(target) = self.servers.get_mut(&key).and_then(|server| server.targets.get_mut(&id)) {
                target.presumed = true;
                keys.insert(key);
            }
        }
        for key in keys {
            self.count_for_panic(&key, now);
        }
        self.weigh_panic(true, now, effects);
    }
}

fn standing(server: &Server) -> Option<Standing> {
    let counted: Vec<&Target> = server.targets.values().filter(|target| target.reachable() && target.proven).collect();
    let nodes = counted.iter().filter_map(|target| target.pod.as_ref()?.node.as_ref());
    let number = |node: &String| BuildHasherDefault::<DefaultHasher>::default().hash_one(node);
    // The first failure of a row counts: by the time that it is confirmed, the first ones are to be taken out.
    let well = counted.iter().any(|target| target.is_well());
    (!counted.is_empty()).then(|| Standing { well, nodes: nodes.map(number).collect() })
}

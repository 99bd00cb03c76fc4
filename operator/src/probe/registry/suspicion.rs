//! Is it them, or is it us? What is counted for fleet panic, and what is asked sooner because of it. Pure.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use super::Registry;
use crate::probe::{
    effect::Effect,
    fleet_panic::Standing,
    schedule::Timer,
    server::Server,
    target::Target,
    types::{Moment, ServerKey},
};

/// From this share of the fleet failing on, the rest is asked without waiting for its turn: is it them, or is it us?
const SUSPICIOUS_TENTHS: usize = 1;
/// Over how long those questions are spread, and how long they are not asked again.
const SUSPICION_SPREAD: Duration = Duration::from_secs(2);
const SUSPICION_QUIET: Duration = Duration::from_secs(20);

impl Registry {
    /// Takes up how a server stands now. Whoever has not answered since it started, or is at rest, is no part of the fleet.
    pub(super) fn count_for_panic(&mut self, key: &Arc<ServerKey>, now: Moment) {
        let standing = self.servers.get(key).filter(|server| server.spec.is_some() && !server.rests()).and_then(standing);
        self.panic.set(key, standing, now.mono);
    }

    pub(super) fn weigh_panic(&mut self, acting: bool, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(active) = self.panic.weigh(acting, now.mono) {
            effects.push(Effect::Panic(active));
            self.schedule.set(Timer::Panic, &mut self.panic_ends, self.panic.until());
            if !active {
                // What was held is decided now.
                let keys: Vec<Arc<ServerKey>> = self.servers.keys().cloned().collect();
                for key in keys {
                    self.with(&key, now, effects, Server::settle);
                }
            }
        }
        self.suspect(now);
    }

    /// When a good part of the fleet begins to fail, asks all the others at once: if it is our fault, the sooner it shows the less harm is done.
    fn suspect(&mut self, now: Moment) {
        let (failing, fleet) = self.panic.counts();
        let quiet = self.suspected.is_some_and(|at| at + SUSPICION_QUIET > now.mono);
        if self.panic.active() || quiet || failing < 2 || failing * 10 < fleet * SUSPICIOUS_TENTHS || fleet < 4 {
            return;
        }
        self.suspected = Some(now.mono);
        let spread = u64::try_from(SUSPICION_SPREAD.as_millis()).unwrap_or(1);
        for server in self.servers.values_mut() {
            for target in server.targets.values_mut().filter(|target| target.streak == 0) {
                // Who asked to be left alone is left alone, whatever happens to others.
                let soon = Some(now.mono + Duration::from_millis(target.phase % spread)).max(target.not_before);
                if let Some(soon) = soon
                    && target.due.is_some_and(|due| due > soon)
                {
                    self.schedule.set(Timer::Probe(target.id), &mut target.due, Some(soon));
                }
            }
        }
    }
}

fn standing(server: &Server) -> Option<Standing> {
    let counted: Vec<&Target> = server.targets.values().filter(|target| target.reachable() && target.proven).collect();
    let nodes = counted.iter().filter_map(|target| target.pod.as_ref()?.node.as_ref());
    let number = |node: &String| BuildHasherDefault::<DefaultHasher>::default().hash_one(node);
    // The first failure of a row counts: by the time that it is confirmed, the first ones are to be taken out.
    let well = counted.iter().any(|target| target.streak == 0);
    (!counted.is_empty()).then(|| Standing { well, nodes: nodes.map(number).collect() })
}

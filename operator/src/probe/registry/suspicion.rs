//! Is it them, or is it us? What is counted for fleet panic, and what is asked sooner because of it. Pure.

use std::{sync::Arc, time::Duration};

use super::Registry;
use crate::probe::{
    effect::Effect,
    schedule::{TargetId, Timer},
    server::Server,
    types::{Moment, ServerKey},
};

/// From this share of the fleet failing on, the rest is asked without waiting for its turn: is it them, or is it us?
const SUSPICIOUS_TENTHS: usize = 1;
/// Over how long those questions are spread, and how long they are not asked again.
const SUSPICION_SPREAD: Duration = Duration::from_secs(2);
const SUSPICION_QUIET: Duration = Duration::from_secs(20);

impl Registry {
    pub(super) fn count_for_panic(&mut self, key: &ServerKey, id: TargetId, was_well: bool, now: Moment) {
        let Some(target) = self.servers.get_mut(key).and_then(|server| server.targets.get_mut(&id)) else { return };
        if !target.reachable() {
            return;
        }
        if target.last.is_failed() {
            if was_well && target.proven {
                self.panic.fails(id, now.mono);
                target.failed_at = Some(now.mono);
            }
        } else if target.streak == 0 && target.proven {
            self.panic.well(id, target.failed_at.take());
        }
    }

    pub(super) fn weigh_panic(&mut self, acting: bool, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(active) = self.panic.weigh(acting, now.mono) {
            effects.push(Effect::Panic(active));
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
                let soon = now.mono + Duration::from_millis(target.phase % spread);
                if target.due.is_some_and(|due| due > soon) {
                    self.schedule.set(Timer::Probe(target.id), &mut target.due, Some(soon));
                }
            }
        }
    }
}

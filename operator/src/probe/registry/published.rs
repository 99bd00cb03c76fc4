//! How what the registry decided turned out in the cluster: patches of gates, evictions. Pure.

use std::time::Duration;

use super::Registry;
use crate::probe::{
    effect::{Effect, Evicted, Eviction, Patched},
    schedule::{TargetId, Timer},
    server::Server,
    types::Moment,
};

/// The first wait after a patch that failed; it doubles. The longest is short: calls to servers that sleep wait for it when the API server is back.
const PATCH_RETRY: Duration = Duration::from_millis(500);
const PATCH_RETRY_MAX: Duration = Duration::from_secs(3);

impl Registry {
    /// Takes up how a patch of a gate ended.
    pub fn patched(&mut self, id: TargetId, value: bool, outcome: Patched, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(key) = self.index.get(&id).cloned() else { return effects };
        if let Some(target) = self.servers.get_mut(&key).and_then(|server| server.targets.get_mut(&id)) {
            let gate = &mut target.gate;
            gate.in_flight = false;
            match outcome {
                Patched::Done(version) => gate.patched(value, version),
                // Nobody is left to patch; the watch will say so, too.
                Patched::Gone => gate.actual = Some(gate.decided),
                Patched::Failed => {
                    gate.failures += 1;
                    let wait = PATCH_RETRY.saturating_mul(2_u32.saturating_pow(gate.failures.min(16) - 1)).min(PATCH_RETRY_MAX);
                    self.schedule.set(Timer::Gate(id), &mut gate.retry, Some(now.mono + wait));
                }
            }
        }
        self.with(&key, now, &mut effects, Server::settle);
        effects
    }

    pub(super) fn retry_gate(&mut self, id: TargetId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(key) = self.index.get(&id).cloned() else { return };
        if let Some(target) = self.servers.get_mut(&key).and_then(|server| server.targets.get_mut(&id)) {
            target.gate.retry = None;
        }
        self.with(&key, now, effects, Server::settle);
    }

    /// Takes up how an eviction ended.
    pub fn evicted(&mut self, eviction: &Eviction, outcome: &Evicted, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(key) = self.index.get(&eviction.id).cloned() {
            self.with(&key, now, &mut effects, |server, around| server.evicted(eviction, outcome, around));
        }
        effects
    }
}

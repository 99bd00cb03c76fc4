//! Which pod of a server is evicted and when: one at a time, only after a fresh failure, less often each time. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{Around, Server, notice};
use crate::{
    crd::reason,
    probe::{
        effect::{Effect, Evicted, Eviction},
        schedule::TargetId,
        target::Target,
        types::ServerSpec,
    },
};

/// The longest wait between two evictions of a server.
const EVICTION_QUIET: Duration = Duration::from_hours(1);
/// The first wait after a refused eviction; it doubles.
const EVICTION_RETRY: Duration = Duration::from_secs(10);
const EVICTION_RETRY_MAX: Duration = Duration::from_mins(5);

/// Where a server's evictions stand.
#[derive(Debug, Default)]
pub(super) struct EvictionState {
    in_flight: bool,
    /// Evicted, and not gone yet.
    leaving: Option<TargetId>,
    not_before: Option<Instant>,
    done: u32,
    refused: u32,
}

impl Server {
    /// When a target of an Open circuit is asked whether it still fails.
    pub(super) fn eviction_check(&self, target: &Target, spec: &ServerSpec) -> Option<Instant> {
        let after = Duration::from_secs(spec.health.restart_after_seconds.into());
        let since = self.fails_since(target).filter(|_| !after.is_zero() && self.may_help(target))?;
        // Once: what it said then stands until its trial.
        let unasked = |at: &Instant| target.ended.is_none_or(|ended| ended.mono < *at);
        [Some(since + after), self.eviction.not_before].into_iter().flatten().max().filter(unasked)
    }

    /// Since when it fails. A pod that was out when we came, and has not answered since, fails for as long as the opening lasts that we
    /// found: an operator that starts anew does not begin to count anew.
    fn fails_since(&self, target: &Target) -> Option<Instant> {
        let out_before = || self.found_open.filter(|_| target.gate.actual == Some(false) && !target.proven);
        target.failing_since.or_else(out_before)
    }

    /// Whether another start may mend it. A pod that never answered is no better as another one, and an image that cannot be pulled is
    /// pulled no sooner; and while a rollout is under way a pod that is made anew looks like progress, so that it would never be given up.
    fn may_help(&self, target: &Target) -> bool {
        target.pod.is_some() && target.once_well && !target.is_down() && !self.is_rolling()
    }

    /// The target failed once more: if it did so for long enough it is evicted, one pod of a server at a time.
    pub fn consider_eviction(&mut self, id: TargetId, around: &mut Around<'_>) {
        let (Some(spec), Some(target)) = (self.spec.as_deref(), self.targets.get(&id)) else { return };
        let after = Duration::from_secs(spec.health.restart_after_seconds.into());
        let Some(pod) = target.pod.as_ref().filter(|pod| !pod.deleting && self.may_help(target)) else { return };
        let long = self.fails_since(target).is_some_and(|since| since + after <= around.now.mono);
        let state = &mut self.eviction;
        if state.leaving.is_some_and(|leaving| !self.targets.contains_key(&leaving)) {
            state.leaving = None;
        }
        let waits = state.in_flight || state.leaving.is_some() || state.not_before.is_some_and(|at| at > around.now.mono);
        if after.is_zero() || !long || waits || spec.paused || !spec.enabled || around.panic || self.circuit.forced().is_some() {
            return;
        }
        state.in_flight = true;
        around.effects.push(Effect::Evict(Eviction {
            id,
            namespace: self.key.namespace.clone(),
            server: self.key.name.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            why: target.latest().clone(),
        }));
    }

    /// Takes up how an eviction ended.
    pub fn evicted(&mut self, eviction: &Eviction, outcome: &Evicted, around: &mut Around<'_>) {
        let Some(spec) = self.spec.clone() else { return };
        let state = &mut self.eviction;
        state.in_flight = false;
        match outcome {
            // The watch will say so, too; until it does nobody asks again.
            Evicted::Gone => state.not_before = Some(around.now.mono + EVICTION_RETRY),
            Evicted::Done | Evicted::Restarted => {
                let base = Duration::from_secs(spec.health.restart_after_seconds.into());
                state.not_before = Some(around.now.mono + doubled(base, state.done, EVICTION_QUIET));
                state.done += 1;
                state.refused = 0;
                state.leaving = Some(eviction.id);
                let waits = if *outcome == Evicted::Restarted { "; the next pod starts when it is gone" } else { "" };
                let after = spec.health.restart_after_seconds;
                let note = format!("evicted {}, which failed for {after} s{waits}", eviction.pod);
                around.effects.push(notice(&spec.object, true, reason::POD_EVICTED, "EvictPod", note));
            }
            Evicted::Refused(why) => {
                state.not_before = Some(around.now.mono + doubled(EVICTION_RETRY, state.refused, EVICTION_RETRY_MAX));
                state.refused += 1;
                if state.refused == 1 {
                    let note = format!("{} fails and could not be evicted: {why}", eviction.pod);
                    around.effects.push(notice(&spec.object, true, reason::EVICTION_REFUSED, "EvictPod", note));
                }
            }
        }
        self.reschedule(&spec, around);
    }

    /// Nothing fails: the next eviction, whenever it comes, waits no longer than the first did.
    pub fn calm(&mut self) {
        if !self.eviction.in_flight && self.targets.values().all(|target| !target.failing) {
            self.eviction = EvictionState { leaving: self.eviction.leaving, ..EvictionState::default() };
        }
    }
}

fn doubled(base: Duration, times: u32, most: Duration) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times.min(16))).min(most)
}

//! One thing that is probed: a pod, or a remote endpoint. What its probes said, and what its gate is. Pure.
//!
//! What that means for the server as a whole is `server`'s.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{
    converse::{Known, Observation},
    schedule::{TargetId, slot},
    types::{Moment, PodState, ServerSpec},
    verdict::{Kind, Verdict},
};

/// The pace of a target that has not answered yet, and of a trial.
pub const EAGER: Duration = Duration::from_secs(1);
/// The slowest pace of a target that has not answered long after its start.
const RELUCTANT: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles. A tenth less than a second, so that three failures are within three seconds.
const CONFIRM: Duration = Duration::from_millis(900);

/// A pod's readiness gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// As it should be.
    pub decided: bool,
    /// As the pod has it, as far as we know.
    pub actual: Option<bool>,
    /// As the pod had it when we were last told. Only a change in this is news: what we are told may be older than our patch.
    reported: Option<bool>,
    /// A patch is under way.
    pub in_flight: bool,
    /// Patches that failed in a row.
    pub failures: u32,
    /// When a patch that failed is tried again.
    pub retry: Option<Instant>,
    /// The pod was taken out of service after it had been in it.
    pub taken_out: bool,
}

impl Gate {
    fn new(actual: Option<bool>) -> Self {
        Self { decided: actual == Some(true), actual, reported: actual, ..Self::default() }
    }

    /// What the pod has differs from what was decided, and nobody is at it.
    pub fn wants_patch(&self) -> bool {
        !self.in_flight && self.retry.is_none() && self.decided != self.actual.unwrap_or(false)
    }

    /// The decision holds in the cluster, or is about to.
    pub fn holds(&self) -> bool {
        self.decided && (self.failures == 0 || self.actual == Some(true))
    }

    fn report(&mut self, gate: Option<bool>) {
        if self.reported != gate {
            self.reported = gate;
            self.actual = gate;
        }
    }
}

/// The last latencies of a target.
#[derive(Debug, Default)]
pub struct Latencies {
    ring: Vec<f32>,
    next: usize,
}

impl Latencies {
    const KEPT: usize = 32;

    fn add(&mut self, latency: Duration) {
        let ms = latency.as_secs_f32() * 1_000.0;
        if self.ring.len() < Self::KEPT {
            self.ring.push(ms);
        } else {
            self.ring[self.next] = ms;
            self.next = (self.next + 1) % Self::KEPT;
        }
    }

    /// The value below which a share of the latencies lies, in milliseconds.
    pub fn percentile(&self, percent: usize) -> Option<f32> {
        let mut sorted = self.ring.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
    }
}

/// One thing that is probed.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any mix of them occurs")]
pub struct Target {
    /// Its name within the engine.
    pub id: TargetId,
    /// The pod; none for a remote endpoint.
    pub pod: Option<PodState>,
    /// Grows when what is probed becomes another: results of an older epoch are void.
    pub epoch: u32,
    /// Shifts its slots.
    pub phase: u64,
    /// What helps the next probe.
    pub known: Known,
    /// What it said when it last answered well.
    pub observation: Option<Observation>,
    /// The verdict of the last probe.
    pub last: Verdict,
    /// The last verdict that counts.
    pub settled: Verdict,
    /// Failures in a row.
    pub streak: u32,
    /// Failures in a row with the same reason.
    same: u32,
    /// Answers in a row that say no, while failing.
    answered: u32,
    /// It has answered since it started.
    pub proven: bool,
    /// Failed often enough in a row to count, and past its start.
    pub failing: bool,
    /// Since when.
    pub failing_since: Option<Instant>,
    /// When the first failure of the row was; it counted as well before.
    pub failed_at: Option<Instant>,
    /// It asked not to be bothered before.
    pub not_before: Option<Instant>,
    /// To be probed at once.
    pub urgent: bool,
    /// When it is due.
    pub due: Option<Instant>,
    /// It is in line.
    pub queued: bool,
    /// It is being probed.
    pub busy: bool,
    /// When the last probe ended.
    pub ended: Option<Moment>,
    /// Of its last probes that got an answer.
    pub latencies: Latencies,
    /// Its gate.
    pub gate: Gate,
    started: Instant,
}

impl Target {
    /// A target that was not probed yet. A pod whose gate is True was found good by our predecessor, and is taken for that.
    pub fn new(id: TargetId, name: &str, pod: Option<PodState>, now: Moment) -> Self {
        let gate = Gate::new(pod.as_ref().and_then(|pod| pod.gate));
        Self {
            id,
            epoch: 0,
            phase: BuildHasherDefault::<DefaultHasher>::default().hash_one(name),
            known: Known::default(),
            observation: None,
            last: Verdict::unknown(),
            settled: Verdict::unknown(),
            streak: 0,
            same: 0,
            answered: 0,
            proven: gate.decided,
            failing: false,
            failing_since: None,
            failed_at: None,
            not_before: None,
            urgent: !gate.decided,
            due: None,
            queued: false,
            busy: false,
            ended: None,
            latencies: Latencies::default(),
            started: started(pod.as_ref(), now),
            gate,
            pod,
        }
    }

    /// Takes up what Kubernetes says about the pod. True when it is no longer the same thing that answers.
    pub fn update(&mut self, pod: PodState, now: Moment) -> bool {
        self.gate.report(pod.gate);
        let Some(before) = self.pod.replace(pod) else { return false };
        let pod = self.pod.as_ref();
        let another = pod.is_some_and(|pod| pod.address != before.address || pod.incarnation != before.incarnation);
        if pod.is_some_and(|pod| pod.started_at != before.started_at) {
            self.started = started(pod, now);
        }
        if another {
            self.become_another();
        }
        another
    }

    /// What answers there is another one: void what is under way, and ask it at once.
    pub fn become_another(&mut self) {
        self.epoch += 1;
        self.known = Known::default();
        self.not_before = None;
        self.urgent = true;
    }

    /// Forgets every verdict: the address is another one.
    pub fn forget_verdicts(&mut self) {
        self.last = Verdict::unknown();
        self.settled = Verdict::unknown();
        self.observation = None;
        self.streak = 0;
        self.same = 0;
        self.answered = 0;
        self.proven = false;
        self.recover();
    }

    /// It can be probed.
    pub fn reachable(&self) -> bool {
        self.pod.as_ref().is_none_or(|pod| pod.address.is_some() && !pod.deleting)
    }

    /// It has not answered yet, and may still take its time.
    pub fn starting(&self, spec: &ServerSpec, now: Instant) -> bool {
        let window = Duration::from_secs(spec.health.startup_seconds.into());
        self.pod.is_some() && !self.proven && now.saturating_duration_since(self.started) < window
    }

    /// The pod started after `moment`.
    pub fn younger_than(&self, moment: Option<Timestamp>) -> bool {
        let started = self.pod.as_ref().and_then(|pod| pod.started_at);
        matches!((started, moment), (Some(started), Some(moment)) if started > moment)
    }

    /// Takes up the answer to a trial. What it failed at counts until the circuit closes: a status that says Healthy before
    /// that would be written twice.
    pub fn absorb_trial(&mut self, verdict: Verdict, wait: Option<Duration>, now: Moment) {
        self.ended = Some(now);
        self.not_before = wait.map(|wait| now.mono + wait);
        self.streak = 0;
        self.last = verdict;
    }

    /// Takes up the verdict of a probe. True when it now counts as failing and did not before.
    pub fn absorb(&mut self, verdict: Verdict, wait: Option<Duration>, spec: &ServerSpec, now: Moment) -> bool {
        self.ended = Some(now);
        self.not_before = wait.map(|wait| now.mono + wait);
        let newly = match verdict.kind {
            Kind::Healthy | Kind::Unknown => {
                self.streak = 0;
                self.proven = true;
                self.recover();
                self.settled = verdict.clone();
                false
            }
            Kind::Alive => {
                self.absorb_refusal(&verdict, spec);
                false
            }
            Kind::Failed => self.absorb_failure(&verdict, spec, now),
        };
        self.last = verdict;
        newly
    }

    /// Up, but says no: the last verdict stands. Who failed and now says no often enough answers again.
    fn absorb_refusal(&mut self, verdict: &Verdict, spec: &ServerSpec) {
        if self.failing {
            self.answered += 1;
            if self.answered < spec.breaker.success_threshold {
                return;
            }
            self.recover();
        }
        // It answered: a row of failures ends here.
        self.streak = 0;
        self.proven = true;
        self.settled = verdict.clone();
    }

    fn absorb_failure(&mut self, verdict: &Verdict, spec: &ServerSpec, now: Moment) -> bool {
        let threshold = spec.breaker.failure_threshold;
        self.same = if self.last.is_failed() && self.last.reason == verdict.reason { self.same.saturating_add(1) } else { 1 };
        self.streak = self.streak.saturating_add(1);
        self.answered = 0;
        let newly = self.streak >= threshold && !self.failing && !self.starting(spec, now.mono);
        if newly {
            self.failing = true;
            self.failing_since = Some(now.mono);
            // Whatever spoke there may be replaced: look for the era anew.
            self.known.era = None;
        }
        // Another reason counts once it is as sure as the first one was: a status must not flicker between two.
        if newly || self.streak >= threshold && (self.same >= threshold || !self.settled.is_failed()) {
            self.settled = verdict.clone();
        }
        newly
    }

    /// The circuit closed on its answers: in whatever way, it answers again.
    pub fn passed_trial(&mut self) {
        self.streak = 0;
        self.proven = true;
        self.settled = self.last.clone();
        self.recover();
    }

    /// It is not failing any more.
    pub fn recover(&mut self) {
        self.failing = false;
        self.failing_since = None;
        self.answered = 0;
    }

    /// Remembers how long an answer took.
    pub fn took(&mut self, latency: Duration) {
        self.latencies.add(latency);
    }

    /// When a hang is hedged, of a probe that may take `limit`: later for a target that is known to be slow, early enough that three
    /// hangs are known within 3 s more, and before the probe itself is given up.
    pub fn hedges(&self, limit: Duration) -> [Duration; 2] {
        let slow = self.latencies.percentile(95).map_or(Duration::ZERO, |ms| Duration::from_secs_f32(ms / 500.0));
        let first = slow.clamp(Duration::from_secs(1), Duration::from_millis(2_200)).min(limit / 2);
        [first, (first * 2).min(first + Duration::from_millis(500)).min(Duration::from_millis(2_700)).min(limit * 3 / 4)]
    }

    /// When it is due in a server whose circuit is Closed.
    pub fn pace(&self, spec: &ServerSpec, epoch: Instant, now: Instant) -> Instant {
        let interval = Duration::from_secs(spec.health.interval_seconds.into());
        let ended = self.ended.map_or(now, |ended| ended.mono);
        let at = match self.last.kind {
            // Not asked yet, and nobody found it good before us.
            Kind::Unknown if !self.proven => now,
            Kind::Failed if !self.proven => ended + self.eager(spec, now).min(interval.max(EAGER)),
            Kind::Failed => {
                ended + (CONFIRM * 2_u32.saturating_pow(self.streak.saturating_sub(1).min(16))).min(interval.max(CONFIRM))
            }
            Kind::Unknown | Kind::Healthy | Kind::Alive => slot(epoch, now, interval, self.phase),
        };
        self.not_before.map_or(at, |not_before| at.max(not_before)).max(now)
    }

    fn eager(&self, spec: &ServerSpec, now: Instant) -> Duration {
        if self.starting(spec, now) {
            return EAGER;
        }
        let late = self.streak.saturating_sub(spec.breaker.failure_threshold).min(32);
        EAGER.mul_f64(1.1_f64.powi(i32::try_from(late).unwrap_or(32))).min(RELUCTANT)
    }

    /// When its turn as a trial is due.
    pub fn trial(&self, now: Instant) -> Instant {
        let at = self.ended.map_or(now, |ended| ended.mono + EAGER).max(now);
        self.not_before.map_or(at, |not_before| at.max(not_before))
    }

    /// The tools that it offers, once it said so.
    pub fn tools(&self) -> Option<&Arc<super::tools::ToolsList>> {
        self.observation.as_ref()?.tools.as_ref()
    }
}

fn started(pod: Option<&PodState>, now: Moment) -> Instant {
    let age = pod
        .and_then(|pod| pod.started_at)
        .and_then(|at| Duration::try_from(now.wall.duration_since(at)).ok())
        .unwrap_or_default();
    now.mono.checked_sub(age).unwrap_or(now.mono)
}

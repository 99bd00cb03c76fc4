//! When a target is asked next, and when a hang of it is hedged. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{schedule::slot, target::Target, types::ServerSpec, verdict::Kind};

/// The pace of a target that has not answered yet, and of a trial.
pub const EAGER: Duration = Duration::from_secs(1);
/// For so long after its start a target is asked twice as often.
const EAGERLY: Duration = Duration::from_secs(30);
/// The pace of a target that has just begun to run, of a server that may sleep: somebody waits for its first answer.
const AWAITED: Duration = Duration::from_millis(100);
/// For so long after its start.
const AWAITED_FOR: Duration = Duration::from_secs(10);
/// The slowest pace of a target that has not answered long after its start.
const RELUCTANT: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles. A tenth less than a second, so that three failures are within three seconds.
const CONFIRM: Duration = Duration::from_millis(900);

impl Target {
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
            // A rollout waits for it: as soon as it lets itself be asked.
            Kind::Alive if self.pod.is_some() && !self.admitted && self.not_before.is_some() => ended + EAGER,
            Kind::Unknown | Kind::Healthy | Kind::Alive => slot(epoch, now, interval, self.phase),
        };
        self.not_before.map_or(at, |not_before| at.max(not_before)).max(now)
    }

    fn eager(&self, spec: &ServerSpec, now: Instant) -> Duration {
        if self.starting(spec, now) {
            if spec.may_sleep && !self.is_down() && self.age(now) < AWAITED_FOR {
                return AWAITED;
            }
            // Most servers are up within seconds: those are the ones somebody waits for.
            let soon = self.age(now) < EAGERLY;
            // A container that does not run cannot answer, and the kubelet tells when it does.
            let slow = if self.is_down() { RELUCTANT } else { EAGER };
            return if soon { EAGER / 2 } else { slow };
        }
        let late = self.counted_failures().saturating_sub(spec.breaker.failure_threshold).min(32);
        EAGER.mul_f64(1.1_f64.powi(i32::try_from(late).unwrap_or(32))).min(RELUCTANT)
    }

    /// When its turn as a trial is due.
    pub fn trial(&self, now: Instant) -> Instant {
        let at = self.ended.map_or(now, |ended| ended.mono + EAGER).max(now);
        self.not_before.map_or(at, |not_before| at.max(not_before))
    }
}

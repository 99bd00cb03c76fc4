//! What a server that may sleep is told of. Pure. Whether the activator stands in for it: `asleep::phase`.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    asleep::Phase,
    conditions::{self, Finding, Status},
    crd::{
        McpServerSpec,
        autoscaling::AutoscalingStatus,
        reason::{self, condition},
    },
};

/// How long a wake may take. Past it the server is told like one that does not come up.
const WAKE: Duration = Duration::from_mins(2);

/// Whether there may be none of its pods while nobody calls.
pub fn may_sleep(spec: &McpServerSpec) -> bool {
    spec.enabled && sleeps_when_on(spec)
}

/// Whether it may sleep once it is switched on. What is said for it meanwhile is kept until then: it may be asleep at once.
pub fn sleeps_when_on(spec: &McpServerSpec) -> bool {
    spec.autoscaling.as_ref().is_some_and(|autoscaling| autoscaling.min_replicas == 0)
}

/// What a client of a server meets for which the activator stands in. None: what it would meet of any other.
pub fn met(phase: Phase, activator_is_up: bool, told: Option<&AutoscalingStatus>, now: Timestamp) -> Option<Finding> {
    let woken = told.and_then(|told| told.last_scale.as_ref()).map(|at| now.duration_since(at.0).unsigned_abs());
    match phase {
        Phase::Awake => None,
        _ if !activator_is_up => {
            let message = "it sleeps, and no activator is ready to wake it: see the activator's Deployment beside the operator";
            Some(Finding::new(false, reason::NO_ACTIVATOR, message))
        }
        Phase::Asleep => Some(Finding::new(true, reason::ASLEEP, "nobody calls it, and it has no pods; the next call wakes it")),
        // Calls are held meanwhile, and answered.
        Phase::Waking if woken.is_none_or(|woken| woken < WAKE) => {
            Some(Finding::new(true, reason::WAKING, "it is being woken, and calls wait for its first pod"))
        }
        Phase::Waking => None,
    }
}

/// Whether that is what people are told: the activator answers.
pub fn is_met(told: &[Condition]) -> bool {
    let ready = conditions::find(told, condition::READY);
    ready.is_some_and(|ready| ready.status == Status::True.as_str() && matches!(&*ready.reason, reason::ASLEEP | reason::WAKING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, fixtures};

    #[test]
    fn a_wake_that_takes_too_long_is_told_like_any_server_that_does_not_come_up() {
        let told = AutoscalingStatus { last_scale: Some(clock::time(fixtures::at(0))), ..AutoscalingStatus::default() };
        let met = |phase, up, second| met(phase, up, Some(&told), fixtures::at(second)).map(|finding| finding.reason);
        assert_eq!(met(Phase::Waking, true, 119).as_deref(), Some(reason::WAKING));
        assert_eq!(met(Phase::Waking, true, 120), None);
        assert_eq!(met(Phase::Asleep, true, 5_000).as_deref(), Some(reason::ASLEEP));
        assert_eq!(met(Phase::Asleep, false, 0).as_deref(), Some(reason::NO_ACTIVATOR));
        assert_eq!(met(Phase::Awake, true, 0), None);
    }

    #[test]
    fn the_activator_answers_while_ready_says_so_and_not_without_one() {
        let told = |phase, up| {
            let finding = met(phase, up, None, fixtures::at(0)).unwrap_or_else(|| Finding::new(true, reason::AVAILABLE, "x"));
            is_met(&conditions::merge(&[], vec![(condition::READY, finding)], None, fixtures::at(0)))
        };
        assert_eq!([Phase::Asleep, Phase::Waking, Phase::Awake].map(|phase| told(phase, true)), [true, true, false]);
        assert!(!told(Phase::Asleep, false));
        assert!(!is_met(&[]));
    }
}

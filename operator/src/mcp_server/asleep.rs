//! Whether the activator stands in for a server. Pure.
//!
//! That it does is a fact in the API: an EndpointSlice of ours. It is there before the last pod goes and until the Service leads to a pod
//! again, so that a call is never refused in between, and an operator that starts anew goes on from it.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    autoscale::Decision,
    conditions::{self, Finding, Status},
    crd::{
        Force, McpServerSpec,
        autoscaling::AutoscalingStatus,
        reason::{self, condition},
    },
};

/// How long a wake may take. Past it the server is told like one that does not come up.
const WAKE: Duration = Duration::from_mins(2);

/// Who answers for a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Its pods, or nobody.
    #[default]
    Awake,
    /// The activator: nobody calls.
    Asleep,
    /// The activator still: its first pod is on its way.
    Waking,
}

impl Phase {
    /// `stood_in`: the activator stands in for it now. `leads`: its Service leads to a pod of its own.
    pub fn of(spec: &McpServerSpec, decision: Option<&Decision>, stood_in: bool, leads: bool) -> Self {
        match decision {
            // Who switches it off wants nobody to wake it, and no call to wait for that.
            _ if !spec.enabled || spec.circuit_breaker.force == Some(Force::Open) => Self::Awake,
            Some(decision) if decision.desired == 0 => Self::Asleep,
            _ if stood_in && !leads => Self::Waking,
            _ => Self::Awake,
        }
    }
}

/// Whether there may be none of its pods while nobody calls.
pub fn may_sleep(spec: &McpServerSpec) -> bool {
    spec.enabled && spec.autoscaling.as_ref().is_some_and(|autoscaling| autoscaling.min_replicas == 0)
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
    fn the_activator_stands_in_until_the_service_leads_to_a_pod() {
        let spec = fixtures::server(|_| {}).spec;
        let phase =
            |desired: u32, stood_in, leads| Phase::of(&spec, Some(&Decision { desired, reason: String::new() }), stood_in, leads);
        assert_eq!(phase(0, false, true), Phase::Asleep, "before its last pod has gone");
        assert_eq!(phase(0, true, false), Phase::Asleep);
        assert_eq!(phase(1, true, false), Phase::Waking);
        assert_eq!(phase(1, true, true), Phase::Awake);
        assert_eq!(phase(1, false, false), Phase::Awake, "one that starts for the first time was asleep never");
        assert_eq!(Phase::of(&spec, None, true, false), Phase::Waking, "spec.autoscaling was taken away while it slept");
        let off = fixtures::server(|server| server.spec.enabled = false).spec;
        let asleep = Decision { desired: 0, reason: String::new() };
        let forced = fixtures::server(|server| server.spec.circuit_breaker.force = Some(Force::Open)).spec;
        for spec in [off, forced] {
            assert_eq!(Phase::of(&spec, Some(&asleep), true, false), Phase::Awake, "who switches it off wants nobody to wake it");
        }
    }

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

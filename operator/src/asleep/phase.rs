//! Whether the activator stands in for a server. Pure.
//!
//! That it does is a fact in the API: an EndpointSlice of ours. It is there before the last pod goes and until the Service leads to a pod
//! again, so that a call is never refused in between, and an operator that starts anew goes on from it.

use crate::{
    autoscale::Decision,
    crd::{Force, McpServerSpec},
};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

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
}

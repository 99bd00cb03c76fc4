//! Where a circuit goes from Closed to Open, and where a pod's gate turns. Pure.
//!
//! What failed and how often is `target`'s, what becomes of an Open circuit `breaker`'s.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Around, Server, notice, summary::accepted};
use crate::{
    crd::{CircuitState, Force, ToolsPolicy, reason},
    probe::{
        breaker::Circuit,
        effect::{Effect, GatePatch},
        schedule::{TargetId, Timer},
        target::Target,
        types::{KeptOut, ServerSpec},
        verdict::Kind,
    },
};

impl Server {
    /// Closed, no pod well, one failing at least: open. A new pod that starts neither saves the server nor speaks against it; one that
    /// served before its container restarted saves it, for as long as it may take to start.
    pub(super) fn settle_circuit(&mut self, spec: &ServerSpec, around: &mut Around<'_>) {
        self.held = false;
        if !spec.enabled || self.circuit.state() != CircuitState::Closed || self.circuit.forced().is_some() {
            return;
        }
        let well = self.targets.values().any(|target| target.answers() || target.comes_back(spec, around.now.mono));
        let Some(culprit) = self.culprit().filter(|_| !well) else { return };
        if spec.paused || around.panic {
            self.held = true;
            return;
        }
        if let Some(until) = waits(culprit, spec, around) {
            self.doubt = Some(until);
            return;
        }
        let (reason, failures) = (culprit.settled.reason, culprit.counted_failures());
        let transition = self.circuit.fail(&spec.breaker, reason, failures, around.jitter, around.now);
        self.transitioned(transition, around);
    }

    pub(super) fn settle_gates(&mut self, spec: &ServerSpec, around: &mut Around<'_>) {
        // Its pods go; but nobody takes them away while it is to be left alone, and what is switched off serves nobody.
        if !spec.enabled && !spec.paused {
            return;
        }
        let (state, forced) = (self.circuit.state(), self.circuit.forced());
        let refusing = self.targets.values().filter(|target| self.keeps_out(spec, target).is_some()).map(|target| target.id);
        let kept_out: Vec<TargetId> = self.shut_out(spec).chain(refusing).collect();
        for target in self.targets.values_mut() {
            let Some(pod) = target.pod.as_ref().filter(|pod| !pod.deleting) else { continue };
            let kept_out = kept_out.contains(&target.id);
            let natural = match (forced, state) {
                _ if !spec.enabled => false,
                (Some(Force::Closed), _) => true,
                (Some(Force::Open), _) | (_, CircuitState::Open | CircuitState::HalfOpen) => false,
                (None, CircuitState::Closed) => target.proven && !target.failing && !kept_out,
            };
            // What keeps a pod out may be our own fault, what lets it in is its own answer: only the former is held.
            // What a person switches by hand is no fault.
            let hold = (spec.paused || around.panic) && spec.enabled && forced.is_none();
            let stays = natural || (hold && target.gate.decided);
            self.held |= stays != natural;
            let doubt = waits(target, spec, around).filter(|_| !stays && target.gate.decided && state == CircuitState::Closed);
            self.doubt = [self.doubt, doubt].into_iter().flatten().min();
            let decided = stays || doubt.is_some();
            target.admitted |= decided;
            if decided != target.gate.decided {
                target.gate.decided = decided;
                target.gate.failures = 0;
                around.schedule.set(Timer::Gate(target.id), &mut target.gate.retry, None);
                // The circuit's own Event says it for all pods at once.
                if state == CircuitState::Closed && forced.is_none() && spec.enabled && (!decided || target.gate.taken_out) {
                    around.effects.push(gate_notice(spec, target, &pod.name, decided));
                    target.gate.taken_out = !decided;
                }
            }
            if target.gate.wants_patch() {
                target.gate.in_flight = true;
                let why = gate_reason(&self.circuit, target, decided);
                around.effects.push(Effect::Gate(GatePatch {
                    id: target.id,
                    namespace: self.key.namespace.clone(),
                    pod: pod.name.clone(),
                    uid: pod.uid.clone(),
                    value: decided,
                    reason: why.0,
                    message: why.1,
                }));
            }
        }
    }

    /// The pods that their tools keep out of service.
    pub(super) fn shut_out(&self, spec: &ServerSpec) -> impl Iterator<Item = TargetId> {
        let enforced = spec.tools.policy == ToolsPolicy::Enforce;
        let targets = self.targets.values().filter(move |_| enforced);
        targets.filter(|target| breaks_contract(spec, target) && !self.is_excused(spec, target)).map(|target| target.id)
    }

    /// Why a pod that says no to us is kept out, where it is. Answering is enough for the first version of a server; but what takes over from
    /// pods that are well has to show more, or a version with a wrong token would drive out one that works. None: it is not.
    pub(super) fn keeps_out(&self, spec: &ServerSpec, target: &Target) -> Option<KeptOut> {
        if target.admitted || target.answer != Kind::Alive {
            return None;
        }
        let pod = target.pod.as_ref()?;
        let pinned = pod.asked.as_ref().is_some_and(|asked| asked.digest.is_some());
        if spec.tools.policy == ToolsPolicy::Enforce && target.tools().is_none() && (pinned || spec.tools.accepted.is_some()) {
            return Some(KeptOut::ShowsNoTools);
        }
        let another = |other: &Target| other.pod.as_ref().is_some_and(|of| !of.over && of.origin.template != pod.origin.template);
        let well = || self.targets.values().any(|other| another(other) && other.is_thought_well());
        let as_wanted = target.settled.reason == reason::UNAUTHORIZED && spec.health.accept_unauthorized;
        (!as_wanted && well()).then_some(KeptOut::AnotherVersionIsWell)
    }

    /// The contract is edited: who was in service under the one before stays there.
    pub fn excuse(&mut self, before: &ServerSpec) {
        let shut_out: Vec<TargetId> = self.shut_out(before).collect();
        for target in self.targets.values_mut().filter(|target| target.gate.decided && !shut_out.contains(&target.id)) {
            target.excused = target.tools().map(|list| list.digest.clone());
        }
    }

    /// Whether the pod was let in under another contract, with the tools that it still has. It stays until a pod of its own template that
    /// keeps the new one is in service; pods of an older template are the rollout's to remove.
    fn is_excused(&self, spec: &ServerSpec, target: &Target) -> bool {
        let same_tools = target.excused.is_some() && target.excused.as_ref() == target.tools().map(|list| &list.digest);
        let template = |target: &Target| target.pod.as_ref().and_then(|pod| pod.origin.template.clone());
        let keeps = |other: &Target| other.gate.decided && other.answers() && accepted(spec, other) == Some(true);
        same_tools && !self.targets.values().any(|other| keeps(other) && template(other) == template(target))
    }
}

/// Until when what fails is left in service, because the fleet is being asked whether it fails, too. None: it is not.
fn waits(target: &Target, spec: &ServerSpec, around: &Around<'_>) -> Option<Instant> {
    let until = target.doubted_until(spec).filter(|until| around.inquiry && *until > around.now.mono);
    until.filter(|_| spec.enabled)
}

/// Whether the pod's tools are others than they must be: by its own template where that pins a digest, else by what is accepted.
fn breaks_contract(spec: &ServerSpec, target: &Target) -> bool {
    let asked = target.pod.as_ref().and_then(|pod| pod.asked.as_deref());
    let pinned = asked.and_then(|asked| asked.digest.as_deref());
    match (pinned, target.tools()) {
        (Some(pinned), Some(tools)) => *tools.digest != *pinned,
        (Some(_), None) => false,
        // The pin came after its template: it is for the pods that come with it.
        (None, _) if asked.is_some() && spec.tools.pinned && target.gate.decided => false,
        (None, _) => accepted(spec, target) == Some(false),
    }
}

fn gate_reason(circuit: &Circuit, target: &Target, value: bool) -> (&'static str, Arc<str>) {
    match (value, circuit.state()) {
        (true, _) if circuit.forced().is_some() => (reason::FORCED, "circuitBreaker.force is Closed".into()),
        (false, _) if circuit.forced().is_some() => (reason::FORCED, "circuitBreaker.force is Open".into()),
        (false, CircuitState::Closed) if target.proven && !target.failing => {
            (reason::TOOLS_CHANGED, "its tools are not the accepted ones".into())
        }
        (false, CircuitState::Open | CircuitState::HalfOpen) if !target.failing => {
            (reason::CIRCUIT_OPEN, "the circuit is not Closed".into())
        }
        _ => (target.settled.reason, Arc::clone(&target.settled.message)),
    }
}

fn gate_notice(spec: &ServerSpec, target: &Target, pod: &str, decided: bool) -> Effect {
    if decided {
        return notice(&spec.object, false, reason::POD_IN_SERVICE, "OpenGate", format!("{pod} is back in service"));
    }
    let why = if target.proven && !target.failing { "its tools are not the accepted ones" } else { &*target.settled.message };
    notice(&spec.object, true, reason::POD_OUT_OF_SERVICE, "CloseGate", format!("{pod} is out of service: {why}"))
}

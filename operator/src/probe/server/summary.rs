//! What a server and its targets come to in words: the snapshot that status is made of. Pure, and nothing is decided here.

use std::sync::Arc;

use tokio::time::Instant;

use super::Server;
use crate::{
    crd::{CircuitState, CircuitStatus, ProtocolStatus, ServerInfo, ToolsPolicy, reason},
    probe::{
        schedule::TargetId,
        target::Target,
        tools::{ToolsDiff, ToolsList},
        types::{PodHealth, ServerHealth, ServerSpec},
        verdict::{Kind, Verdict},
    },
};

impl Server {
    /// All that status shows.
    pub fn snapshot(&self, panic: bool, now: Instant) -> ServerHealth {
        let spec = self.spec.as_deref();
        let shut_out: Vec<TargetId> = spec.map(|spec| self.shut_out(spec).collect()).unwrap_or_default();
        let mut pods: Vec<PodHealth> =
            self.targets.values().filter_map(|target| self.pod_health(target, &shut_out, now)).collect();
        pods.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let ending = self.targets.values().filter_map(|target| target.pod.as_ref()).find(|pod| pod.deleting && !pod.over);
        let ending = ending.filter(|_| pods.is_empty()).map(|pod| pod.name.clone());
        let speaker = self.speaker();
        let answers = self.targets.values().any(Target::answers);
        let seen = speaker.and_then(|target| target.observation.as_ref());
        let hello = seen.map(|observation| &observation.hello);
        ServerHealth {
            circuit: spec
                .filter(|spec| !spec.enabled)
                .map_or_else(|| self.circuit.status().clone(), |_| CircuitStatus::default()),
            remote: self.is_remote(),
            stood_in: self.stood_in,
            accepts_unauthorized: spec.is_some_and(|spec| spec.health.accept_unauthorized),
            lacks_credentials: spec.is_some_and(|spec| spec.enabled && spec.lacks_credentials),
            verdict: self.verdict(now),
            protocol: hello.map(|hello| ProtocolStatus { version: hello.version.to_owned(), era: hello.era }),
            server_info: hello.map(|hello| ServerInfo::clone(&hello.server_info)),
            sessions: seen.map(|observation| observation.session),
            tools: self.shown.list.clone(),
            kept: seen.and_then(|observation| observation.kept.clone()),
            tools_diff: spec.and_then(|spec| self.tools_diff(spec)),
            pods,
            ending,
            has_pods: self.targets.values().filter_map(|target| target.pod.as_ref()).any(|pod| !pod.over),
            acceptable: self.acceptable(),
            unaccepted: false,
            panic: panic && self.held && !answers,
        }
    }

    /// Whose word on protocol and name is shown: of those that are not failing the one with the first name.
    fn speaker(&self) -> Option<&Target> {
        let spoke = self.targets.values().filter(|target| target.observation.is_some());
        spoke.min_by_key(|target| (target.failing, target.pod.as_ref().map(|pod| pod.name.as_str())))
    }

    fn tools_diff(&self, spec: &ServerSpec) -> Option<ToolsDiff> {
        let accepted = spec.tools.accepted.as_ref().filter(|_| spec.tools.policy != ToolsPolicy::Ignore)?;
        // A pod that differs is told of even while most do not: with Enforce it is what stalls the rollout.
        self.shown.list.iter().chain(&self.odd.list).find_map(|list| list.diff(accepted))
    }

    /// The list that may be accepted where none is: under Enforce one that was seen twice in a row, because it decides who comes in from then
    /// on. Never that of a server that does not offer tools: it may come to them yet.
    fn acceptable(&self) -> Option<Arc<ToolsList>> {
        let sure = self.shown.steady || self.spec.as_ref().is_some_and(|spec| spec.tools.policy != ToolsPolicy::Enforce);
        self.shown.list.clone().filter(|list| sure && list.count() > 0)
    }

    fn pod_health(&self, target: &Target, shut_out: &[TargetId], now: Instant) -> Option<PodHealth> {
        // A pod that is going away is no part of the server any more: what becomes of it is no news.
        let pod = target.pod.as_ref().filter(|pod| !pod.deleting)?;
        let starting = self.spec.as_ref().is_some_and(|spec| target.starting(spec, now));
        Some(PodHealth {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            verdict: target.settled.clone(),
            failing: target.failing && target.reachable(),
            starting,
            counts_from: self.spec.as_ref().and_then(|spec| target.counts_from(spec, now)),
            latest: target.latest().clone(),
            unready: pod.unready.clone(),
            trouble: pod.trouble.clone(),
            making: pod.making.clone(),
            origin: pod.origin.clone(),
            asked: pod.asked.clone(),
            shut_out: shut_out.contains(&target.id),
            kept_out: self.spec.as_ref().and_then(|spec| self.keeps_out(spec, target)),
            inherited: target.inherited,
            gate: target.gate.decided,
            containers_ready: pod.containers_ready,
            in_service: pod.ready && target.gate.holds(),
            served: target.served,
            tools_accepted: self.spec.as_ref().and_then(|spec| accepted(spec, target)),
        })
    }

    /// The server as a whole.
    fn verdict(&self, now: Instant) -> Verdict {
        if self.is_remote() {
            // What it answered before it was switched off is no word on what a client meets.
            if self.spec.as_ref().is_some_and(|spec| !spec.enabled) {
                return Verdict::unknown();
            }
            return self.targets.values().next().map_or_else(Verdict::unknown, |target| target.last.clone());
        }
        if let Some(failing) = self.culprit() {
            return failing.settled.clone();
        }
        // Of a pod that is kept out clients see nothing, while there are others.
        let others = self.targets.values().any(|target| target.admitted && target.reachable());
        let counts = |target: &Target| !others || self.spec.as_ref().is_none_or(|spec| self.keeps_out(spec, target).is_none());
        let known = |target: &&Target| target.reachable() && target.settled.kind != Kind::Unknown && counts(target);
        let asked = || self.targets.values().filter(known);
        if let Some(alive) = asked().find(|target| target.settled.kind == Kind::Alive) {
            return alive.settled.clone();
        }
        if let Some(well) = asked().find(|target| target.settled.kind == Kind::Healthy) {
            return well.settled.clone();
        }
        match (asked().next(), self.spec.as_deref()) {
            // Out of use, it is no start any more: what a trial found is what is known.
            (Some(target), _) if self.circuit.state() != CircuitState::Closed => target.settled.clone(),
            (Some(target), Some(spec)) if target.starting(spec, now) => {
                Verdict::new(Kind::Unknown, reason::STARTING, format!("not up yet: {}", target.settled.message))
            }
            _ => Verdict::unknown(),
        }
    }
}

/// Whether the target's tools are the accepted ones; none while nothing is accepted, or it has not said.
pub(super) fn accepted(spec: &ServerSpec, target: &Target) -> Option<bool> {
    let accepted = spec.tools.accepted.as_ref().filter(|_| spec.tools.policy != ToolsPolicy::Ignore)?;
    Some(*target.tools()?.digest == *accepted.digest)
}

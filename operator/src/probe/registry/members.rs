//! Who is in the registry: servers and pods come, change and go. Pure.

use std::sync::Arc;

use super::Registry;
use crate::{
    crd::{CircuitState, CircuitStatus},
    probe::{
        breaker::Circuit,
        effect::Effect,
        schedule::TargetId,
        server::{self, Server},
        target::{Recheck, Target},
        template::Template,
        types::{Credentials, Endpoint, Moment, PodState, ServerKey, ServerSpec, ToolsContract},
    },
};

impl Registry {
    /// Takes up a server's spec. What status kept of its circuit counts the first time only.
    pub fn set_server(
        &mut self,
        key: &ServerKey,
        spec: ServerSpec,
        persisted: Option<&CircuitStatus>,
        now: Moment,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let key = self.entry(key);
        let remote = matches!(spec.endpoint, Endpoint::Remote { .. });
        let spec = Arc::new(spec);
        let Some(server) = self.servers.get_mut(&key) else { return effects };
        let before = server.spec.replace(Arc::clone(&spec));
        if let Some(before) = before.as_deref() {
            server.rewire(|template| {
                asks_otherwise(before, &spec, template)
                    || before.credentials != spec.credentials
                    || before.may_sleep != spec.may_sleep
                    || before.mask != spec.mask
                    || (before.health.timeout_seconds, before.health.interval_seconds)
                        != (spec.health.timeout_seconds, spec.health.interval_seconds)
            });
            if before.tools != spec.tools {
                server.excuse(before);
            }
        }
        if before.is_none()
            && spec.enabled
            && let Some(persisted) = persisted
        {
            server.circuit = Circuit::restore(persisted, &spec.breaker, now);
            let since = persisted.since.as_ref().filter(|_| server.circuit.state() != CircuitState::Closed);
            server.found_open = since.and_then(|since| now.ago(since.0));
        }
        // It is one URL, or it is its pods: those that a server of this name left behind are none of a remote one.
        let strangers = server.targets.values().filter(|target| target.pod.is_none() != remote);
        let strangers: Vec<TargetId> = strangers.map(|target| target.id).collect();
        for id in strangers {
            self.drop_target(&key, id, &mut effects);
        }
        if remote && self.servers.get(&key).is_some_and(|server| server.targets.is_empty()) {
            let id = self.add_target(&key, None, now);
            let stood = persisted.is_some_and(|circuit| circuit.state == CircuitState::Closed);
            if before.is_none()
                && stood
                && let Some(target) = self.servers.get_mut(&key).and_then(|server| server.targets.get_mut(&id))
            {
                target.found_good_before();
            }
        }
        let moved = before.as_deref().is_some_and(|before| before.endpoint != spec.endpoint);
        let wanted = before.as_deref().is_some_and(|before| before.recheck != spec.recheck && spec.recheck.is_some());
        let recheck = wanted && spec.is_probed();
        let another = before.is_some_and(|before| self.ask_anew(&key, [&before, &spec], moved && remote, now, &mut effects));
        self.with(&key, now, &mut effects, |server, around| {
            let transition = if spec.enabled { server.circuit.set_policy(&spec.breaker, now) } else { server.circuit.reset(now) };
            server.transitioned(transition, around);
            if (another || recheck) && spec.is_probed() {
                let transition = server.circuit.try_now(now);
                server.transitioned(transition, around);
            }
            if wanted && !(recheck && server.targets.values().any(Target::reachable)) {
                around.effects.push(server::not_rechecked(&spec));
            }
            for target in server.targets.values_mut().filter(|_| recheck) {
                target.urgent = true;
                target.recheck = Recheck::Wanted;
                target.not_before = None;
            }
            server.settle(around);
        });
        effects
    }

    /// Results of before are void for whom the new spec asks something else, or somewhere else. True when there is one.
    fn ask_anew(
        &mut self,
        key: &ServerKey,
        [before, after]: [&ServerSpec; 2],
        forget: bool,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(server) = self.servers.get_mut(key) else { return false };
        let mut another = false;
        for target in server.targets.values_mut() {
            let asked = target.pod.as_ref().and_then(|pod| pod.asked.as_deref());
            // What is switched on again is asked as if it were new: somebody has mended it meanwhile.
            let anew = !before.enabled && after.enabled;
            let otherwise = asks_otherwise(before, after, asked);
            let by_others = gives_others(before, after) && !target.keeps_credentials(&before.credentials, now.mono);
            if !anew && !otherwise && !by_others {
                continue;
            }
            another = true;
            target.become_another();
            target.busy = false;
            effects.push(Effect::Forget(target.id, target.epoch));
            if forget || anew {
                target.forget_verdicts();
            }
        }
        another
    }

    /// Whether the activator answers for a server. While it does, and there is no pod that could prove anything, the circuit is at rest:
    /// apps would not call a server whose circuit waits for a trial, and it is calls that wake it.
    pub fn set_stood_in(&mut self, key: &ServerKey, stood_in: bool, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.with(key, now, &mut effects, |server, around| {
            let changes = server.stood_in != stood_in;
            server.stood_in = stood_in;
            let rests = stood_in && server.circuit.forced().is_none() && !server.targets.values().any(Target::reachable);
            let transition = if rests { server.circuit.reset(now) } else { None };
            server.transitioned(transition, around);
            if changes || transition.is_some() {
                server.settle(around);
            }
        });
        effects
    }

    /// The CR is gone. Its pods need not be: what Kubernetes last said of them is kept for a CR of this name that comes while they are there,
    /// for it says no more of a pod to which nothing happens.
    pub fn remove_server(&mut self, key: &ServerKey, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some((key, server)) = self.servers.get_key_value(key).map(|(key, server)| (Arc::clone(key), server)) else {
            return effects;
        };
        let ids: Vec<TargetId> = server.targets.keys().copied().collect();
        let pods: Vec<PodState> = ids.into_iter().filter_map(|id| self.drop_target(&key, id, &mut effects)).collect();
        if let Some(mut server) = self.servers.remove(&key) {
            server.unset_timer(&mut self.schedule);
        }
        self.panic.forget(&key);
        self.inquiry.note(&key, false);
        for pod in pods {
            let key = self.entry(&key);
            self.add_target(&key, Some(pod), now);
        }
        effects.push(Effect::Gone(key));
        effects
    }

    /// Takes up what Kubernetes says about a pod. It may come before its server does.
    pub fn set_pod(&mut self, key: &ServerKey, pod: PodState, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let key = self.entry(key);
        let known = self.pods.get(&pod.uid).copied();
        // Somebody gave it another label: it is another server's pod from now on.
        if known.is_some_and(|id| self.index.get(&id) != Some(&key)) {
            effects = self.remove_pod(&pod.uid, now);
        }
        let Some(id) = self.pods.get(&pod.uid).copied() else {
            if self.servers.get(&key).is_some_and(Server::is_remote) {
                return effects;
            }
            self.add_target(&key, Some(pod), now);
            self.with(&key, now, &mut effects, Server::settle);
            return effects;
        };
        let left = self.with(&key, now, &mut effects, |server, around| {
            let Some(target) = server.targets.get_mut(&id) else { return false };
            if target.is_told(&pod) {
                return false;
            }
            let leaves = pod.deleting && target.pod.as_ref().is_some_and(|before| !before.deleting);
            if target.update(pod, now) {
                target.busy = false;
                around.effects.push(Effect::Forget(id, target.epoch));
            }
            server.settle(around);
            leaves
        });
        // Whoever is going away counts no longer: neither among those that fail nor among those that do not.
        if left == Some(true) {
            self.weigh_panic(false, now, &mut effects);
        }
        effects
    }

    /// The pod is gone, or is nobody's any more.
    pub fn remove_pod(&mut self, uid: &str, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some((id, key)) = self.pods.get(uid).and_then(|id| Some((*id, self.index.get(id)?.clone()))) else { return effects };
        self.drop_target(&key, id, &mut effects);
        if self.servers.get(&key).is_some_and(|server| server.spec.is_none() && server.targets.is_empty()) {
            self.servers.remove(&key);
            return effects;
        }
        self.with(&key, now, &mut effects, Server::settle);
        self.weigh_panic(false, now, &mut effects);
        effects
    }

    /// Takes up which tools a server must offer.
    pub fn set_contract(&mut self, key: &ServerKey, contract: &ToolsContract, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.with(key, now, &mut effects, |server, around| {
            let Some(before) = server.spec.clone().filter(|spec| spec.tools != *contract) else { return };
            server.spec = Some(Arc::new(ServerSpec { tools: contract.clone(), ..ServerSpec::clone(&before) }));
            server.excuse(&before);
            server.settle(around);
        });
        effects
    }

    /// Which tools a server must offer; none before `set_server`.
    pub fn contract(&self, key: &ServerKey) -> Option<&ToolsContract> {
        Some(&self.servers.get(key)?.spec.as_ref()?.tools)
    }

    /// What probes of a server carry; none before that is known.
    pub fn credentials(&self, key: &ServerKey) -> Option<Credentials> {
        let spec = self.servers.get(key)?.spec.as_ref().filter(|spec| !spec.lacks_credentials)?;
        Some(Credentials { headers: spec.credentials.clone(), ca: spec.ca.clone(), mask: Arc::clone(&spec.mask) })
    }

    /// Where a server is probed; none before `set_server`.
    pub fn endpoint(&self, key: &ServerKey) -> Option<Endpoint> {
        self.servers.get(key)?.spec.as_ref().map(|spec| spec.endpoint.clone())
    }

    /// Which pods are known: their servers and uids. For finding out which of them went away unseen.
    pub fn pods(&self) -> Vec<(Arc<ServerKey>, String)> {
        let targets = |server: &Server| -> Vec<_> {
            let pods = server.targets.values().filter_map(|target| target.pod.as_ref());
            pods.map(|pod| (Arc::clone(&server.key), pod.uid.clone())).collect()
        };
        self.servers.values().flat_map(targets).collect()
    }
}

/// Whether results of probes under the one spec say nothing about the other, of a pod whose template says what it is asked. Beside the
/// credentials: a pod may keep those of before.
fn asks_otherwise(before: &ServerSpec, after: &ServerSpec, asked: Option<&Template>) -> bool {
    let by_spec = asked.is_none() || matches!(after.endpoint, Endpoint::Remote { .. });
    by_spec && (before.endpoint != after.endpoint || before.health.tool_call != after.health.tool_call)
        || before.ca != after.ca && !before.lacks_credentials
        || before.enabled != after.enabled
}

/// Whether requests carry other headers than before. Where it was not known what they carry, nobody was asked.
fn gives_others(before: &ServerSpec, after: &ServerSpec) -> bool {
    before.credentials != after.credentials && !before.lacks_credentials
}

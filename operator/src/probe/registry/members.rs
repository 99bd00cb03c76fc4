//! Who is in the registry: servers and pods come, change and go. Pure.

use std::sync::Arc;

use super::Registry;
use crate::{
    crd::CircuitStatus,
    probe::{
        breaker::Circuit,
        effect::Effect,
        schedule::TargetId,
        server::Server,
        types::{Credentials, Endpoint, Moment, PodState, ServerKey, ServerSpec},
        wire::Wire,
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
        let another = before.as_deref().is_some_and(|before| asks_otherwise(before, &spec));
        // Kept as long as it fits: TLS sessions are resumed through it.
        if another || before.as_deref().is_none_or(|before| before.health != spec.health) {
            server.wire = Some(Arc::new(Wire::new(&spec)));
        }
        if before.is_none()
            && spec.enabled
            && let Some(persisted) = persisted
        {
            server.circuit = Circuit::restore(persisted, &spec.breaker, now);
        }
        let had_endpoint = server.targets.values().find(|target| target.pod.is_none()).map(|target| target.id);
        match had_endpoint {
            None if remote => {
                self.add_target(&key, None, now);
            }
            Some(id) if !remote => self.drop_target(&key, id, &mut effects),
            _ => {}
        }
        let moved = before.as_deref().is_some_and(|before| before.endpoint != spec.endpoint);
        let recheck = before.as_deref().is_some_and(|before| before.recheck != spec.recheck && spec.recheck.is_some());
        if another {
            self.ask_anew(&key, moved && remote, &mut effects);
        }
        // Pods of which no spec was known yet were counted.
        if before.as_deref().is_none_or(|before| before.enabled) != spec.enabled {
            self.count_as_fleet(&key, spec.enabled);
        }
        self.with(&key, now, &mut effects, |server, around| {
            let transition = if spec.enabled { server.circuit.set_policy(&spec.breaker, now) } else { server.circuit.reset(now) };
            server.transitioned(transition, around);
            if another || recheck {
                let transition = server.circuit.try_now(now);
                server.transitioned(transition, around);
                for target in server.targets.values_mut() {
                    target.urgent = true;
                    target.not_before = None;
                }
            }
            server.settle(around);
        });
        effects
    }

    /// What is asked, or who is asked, is another: results of before are void.
    fn ask_anew(&mut self, key: &ServerKey, forget: bool, effects: &mut Vec<Effect>) {
        let Some(server) = self.servers.get_mut(key) else { return };
        for target in server.targets.values_mut() {
            target.become_another();
            target.busy = false;
            effects.push(Effect::Forget(target.id, target.epoch));
            if forget {
                self.panic.forget(target.id, target.failed_at.take());
                target.forget_verdicts();
            }
        }
    }

    /// Who is at rest is no part of the fleet that fleet panic looks at.
    fn count_as_fleet(&mut self, key: &ServerKey, counts: bool) {
        let Some(server) = self.servers.get_mut(key) else { return };
        for target in server.targets.values_mut() {
            self.panic.forget(target.id, target.failed_at.take());
            if counts && target.proven && target.streak == 0 && target.reachable() {
                self.panic.well(target.id, None);
            }
        }
    }

    /// The CR is gone.
    pub fn remove_server(&mut self, key: &ServerKey) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some((key, server)) = self.servers.get_key_value(key).map(|(key, server)| (Arc::clone(key), server)) else {
            return effects;
        };
        let ids: Vec<TargetId> = server.targets.keys().copied().collect();
        for id in ids {
            self.drop_target(&key, id, &mut effects);
        }
        if let Some(mut server) = self.servers.remove(&key) {
            server.unset_timer(&mut self.schedule);
        }
        effects.push(Effect::Gone(key));
        effects
    }

    /// Takes up what Kubernetes says about a pod. It may come before its server does.
    pub fn set_pod(&mut self, key: &ServerKey, pod: PodState, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let key = self.entry(key);
        let known = self.servers.get(&key).and_then(|server| {
            let mut pods = server.targets.values();
            pods.find(|target| target.pod.as_ref().is_some_and(|known| known.uid == pod.uid)).map(|target| target.id)
        });
        let Some(id) = known else {
            self.add_target(&key, Some(pod), now);
            self.with(&key, now, &mut effects, Server::settle);
            return effects;
        };
        let leaves = self.with(&key, now, &mut effects, |server, around| {
            let target = server.targets.get_mut(&id)?;
            if target.pod.as_ref() == Some(&pod) {
                return None;
            }
            let leaves = pod.deleting && target.pod.as_ref().is_some_and(|before| !before.deleting);
            if target.update(pod, now) {
                target.busy = false;
                around.effects.push(Effect::Forget(id, target.epoch));
            }
            let failed_at = leaves.then(|| target.failed_at.take());
            server.settle(around);
            failed_at
        });
        // Whoever is going away counts no longer: neither among those that fail nor among those that do not.
        if let Some(failed_at) = leaves.flatten() {
            self.panic.forget(id, failed_at);
            self.weigh_panic(false, now, &mut effects);
        }
        effects
    }

    /// The pod is gone.
    pub fn remove_pod(&mut self, key: &ServerKey, uid: &str, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(server) = self.servers.get(key) else { return effects };
        let gone = server.targets.values().find(|target| target.pod.as_ref().is_some_and(|pod| pod.uid == uid));
        if let Some(id) = gone.map(|target| target.id) {
            self.drop_target(key, id, &mut effects);
        }
        if self.servers.get(key).is_some_and(|server| server.spec.is_none() && server.targets.is_empty()) {
            self.servers.remove(key);
            return effects;
        }
        self.with(key, now, &mut effects, Server::settle);
        self.weigh_panic(false, now, &mut effects);
        effects
    }

    /// What probes of a server carry; none before `set_server`.
    pub fn credentials(&self, key: &ServerKey) -> Option<Credentials> {
        let spec = self.servers.get(key)?.spec.as_ref()?;
        Some(Credentials { headers: spec.credentials.clone(), ca: spec.ca.clone() })
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

/// Whether results of probes under the one spec say nothing about the other.
fn asks_otherwise(before: &ServerSpec, after: &ServerSpec) -> bool {
    before.endpoint != after.endpoint
        || before.credentials != after.credentials
        || before.ca != after.ca
        || before.health.tool_call != after.health.tool_call
        || before.enabled != after.enabled
}

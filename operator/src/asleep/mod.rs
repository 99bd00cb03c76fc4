//! Servers that sleep: who answers for them meanwhile, and who is wanted.
//!
//! That one is to sleep, or to wake, is decided in `autoscale`; who answers for it then: `phase`; what follows for its status and children is
//! `mcp_server`'s. The rest here is what comes from outside, kept for the passes: where the activator's pods are (`activator`), for which
//! servers it was called (`wanted`), and whose Services lead to pods of their own (`leading`).
//! A pass that finds nothing of it here goes on from what stands in the API.

pub mod activator;
pub mod leading;
mod phase;
pub mod wanted;

pub use phase::Phase;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use crate::probe::ServerKey;

/// Who called longer ago has had an answer, whatever it was. Who starts anew must not wake a server for them.
const HEARD_FOR: Duration = Duration::from_mins(2);

/// Where the activator answers: the addresses of its pods that are ready, by family (`IPv4`, `IPv6`), and their port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// By family.
    pub addresses: BTreeMap<String, BTreeSet<String>>,
    /// The port of all of them.
    pub port: i32,
}

impl Endpoints {
    /// Somebody is there.
    pub fn is_up(&self) -> bool {
        self.addresses.values().any(|addresses| !addresses.is_empty())
    }
}

/// What passes over servers that sleep need to know. No I/O.
#[derive(Debug)]
pub struct Asleep {
    state: Mutex<State>,
    /// Who is to be looked at again.
    changed: mpsc::UnboundedSender<ServerKey>,
}

#[derive(Debug, Default)]
struct State {
    endpoints: Arc<Endpoints>,
    /// Servers that may sleep, or still do.
    phases: HashMap<ServerKey, Phase>,
    wanted: HashMap<ServerKey, Timestamp>,
}

impl Asleep {
    /// Knows of nobody yet.
    pub fn new(changed: mpsc::UnboundedSender<ServerKey>) -> Self {
        Self { state: Mutex::default(), changed }
    }

    /// Where the activator answers.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        Arc::clone(&self.state().endpoints)
    }

    /// How it is with a server; none: it never sleeps.
    pub fn found(&self, key: &ServerKey, phase: Option<Phase>) {
        let mut state = self.state();
        match phase {
            Some(phase) => state.phases.insert(key.clone(), phase),
            None => state.phases.remove(key),
        };
    }

    /// The server is gone.
    pub fn forget(&self, key: &ServerKey) {
        let mut state = self.state();
        state.phases.remove(key);
        state.wanted.remove(key);
    }

    /// Whether somebody has called the server since this was asked last. Each call is told once.
    pub fn takes_call(&self, key: &ServerKey, now: Timestamp) -> bool {
        let called = self.state().wanted.remove(key);
        called.is_some_and(|at| now.duration_since(at).unsigned_abs() <= HEARD_FOR)
    }

    fn move_to(&self, endpoints: Endpoints) {
        let mut state = self.state();
        if *state.endpoints == endpoints {
            return;
        }
        // Without an activator nobody goes to sleep.
        let up = endpoints.is_up();
        let concerns_all = state.endpoints.is_up() != up;
        tracing::info!(activator.up = up, "the activator has other pods");
        state.endpoints = Arc::new(endpoints);
        for (key, _) in state.phases.iter().filter(|(_, phase)| concerns_all || **phase != Phase::Awake) {
            self.wake(key);
        }
    }

    fn called(&self, key: &ServerKey, at: Timestamp) {
        self.state().wanted.insert(key.clone(), at);
        self.wake(key);
    }

    /// Has everybody looked at who is on the way: a wake that takes too long is told when nothing else happens, too.
    fn look_at_waking(&self) {
        for (key, _) in self.state().phases.iter().filter(|(_, phase)| **phase == Phase::Waking) {
            self.wake(key);
        }
    }

    fn wake(&self, key: &ServerKey) {
        // The other end is gone only at the end of the process.
        let _ending = self.changed.send(key.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn asleep() -> (Asleep, mpsc::UnboundedReceiver<ServerKey>) {
        let (changed, woken) = mpsc::unbounded_channel();
        (Asleep::new(changed), woken)
    }

    #[test]
    fn a_call_is_told_once_and_not_when_its_caller_has_long_gone() {
        let (asleep, mut woken) = asleep();
        let key = ServerKey::new("team", "db");
        asleep.called(&key, fixtures::at(0));
        assert_eq!(woken.try_recv().ok(), Some(key.clone()), "it is looked at at once");
        assert!(asleep.takes_call(&key, fixtures::at(1)) && !asleep.takes_call(&key, fixtures::at(1)));
        asleep.called(&key, fixtures::at(0));
        assert!(!asleep.takes_call(&key, fixtures::at(121)));
    }

    #[test]
    fn whoever_is_stood_in_for_hears_of_other_pods_of_the_activator() {
        let (asleep, mut woken) = asleep();
        let endpoints = |address: &str| Endpoints { addresses: [("IPv4".into(), [address.into()].into())].into(), port: 8080 };
        asleep.move_to(endpoints("10.0.0.1"));
        let [sleeper, awake, never] = ["a", "b", "c"].map(|name| ServerKey::new("team", name));
        asleep.found(&sleeper, Some(Phase::Asleep));
        asleep.found(&awake, Some(Phase::Awake));
        asleep.found(&never, Some(Phase::Waking));
        asleep.found(&never, None);
        let mut looked_at = || {
            let mut all: Vec<_> = std::iter::from_fn(|| woken.try_recv().ok()).collect();
            all.sort_unstable();
            all
        };
        asleep.move_to(endpoints("10.0.0.1"));
        asleep.look_at_waking();
        assert_eq!(looked_at(), [], "nothing has changed, and nobody is on the way");
        asleep.move_to(endpoints("10.0.0.2"));
        assert_eq!(looked_at(), std::slice::from_ref(&sleeper));
        asleep.move_to(Endpoints::default());
        assert_eq!(looked_at(), [sleeper, awake.clone()], "without an activator nobody may go to sleep");
        asleep.found(&awake, Some(Phase::Waking));
        asleep.look_at_waking();
        assert_eq!(looked_at(), [awake]);
    }
}

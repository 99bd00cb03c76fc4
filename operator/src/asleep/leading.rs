//! Whose Services lead to pods of their own, as Kubernetes' own EndpointSlices say: of servers that may sleep, and of no others. No I/O.
//!
//! Kubernetes counts a pod as Ready, and its Service leads there, a moment after the pod has shown that it answers. The activator stays in
//! the Service until then.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{ResourceExt, runtime::watcher::Event};

use crate::{
    names::{GROUP, LABEL_SLEEPS, LABEL_SLICE_MANAGED_BY, MANAGED_SELECTOR},
    probe::ServerKey,
    who::whose_label,
};

/// The slices of each server that lead to a pod, by name. Who has none is not in it.
type Slices = HashMap<ServerKey, BTreeSet<String>>;

/// Whose Services lead to pods of their own, in one scope.
#[derive(Debug, Default)]
pub struct Leading(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    slices: Slices,
    listing: Slices,
}

/// Selects the slices that are looked at.
pub fn selector() -> String {
    format!("{MANAGED_SELECTOR},{LABEL_SLEEPS}=true,{LABEL_SLICE_MANAGED_BY}!={GROUP}")
}

impl Leading {
    /// The server's Service leads to a pod of its own.
    pub fn leads(&self, key: &ServerKey) -> bool {
        self.state().slices.contains_key(key)
    }

    /// Takes up what the watch shows. Gives whose Services lead to a pod now that did not, or do not any more.
    pub fn take(&self, event: Event<EndpointSlice>) -> Vec<ServerKey> {
        let mut state = self.state();
        match event {
            Event::Init => state.listing = Slices::new(),
            Event::InitApply(slice) => {
                set(&mut state.listing, &slice, leads_to_a_pod(&slice));
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut state.listing);
                let before = std::mem::replace(&mut state.slices, listed);
                let gone = before.keys().filter(|key| !state.slices.contains_key(key));
                let new = state.slices.keys().filter(|key| !before.contains_key(key));
                return gone.chain(new).cloned().collect();
            }
            Event::Apply(slice) => return set(&mut state.slices, &slice, leads_to_a_pod(&slice)).into_iter().collect(),
            Event::Delete(slice) => return set(&mut state.slices, &slice, false).into_iter().collect(),
        }
        Vec::new()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes whether a slice leads to a pod. Gives whose it is, if that makes a difference to the server.
fn set(slices: &mut Slices, slice: &EndpointSlice, leads: bool) -> Option<ServerKey> {
    let who = whose_label(&slice.metadata)?;
    let key = ServerKey::new(who.namespace, who.name);
    let before = slices.contains_key(&key);
    if leads {
        slices.entry(key.clone()).or_default().insert(slice.name_any());
    } else if let Some(of_server) = slices.get_mut(&key) {
        of_server.remove(&slice.name_any());
        if of_server.is_empty() {
            slices.remove(&key);
        }
    }
    (before != slices.contains_key(&key)).then_some(key)
}

fn leads_to_a_pod(slice: &EndpointSlice) -> bool {
    let ready = |ready: Option<bool>| ready.unwrap_or(true);
    slice.endpoints.iter().any(|endpoint| ready(endpoint.conditions.as_ref().and_then(|conditions| conditions.ready)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::Component;

    fn slice(name: &str, ready: Option<bool>) -> EndpointSlice {
        let endpoints: Vec<_> =
            ready.iter().map(|ready| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}})).collect();
        let metadata = json!({"name": name, "namespace": "team", "labels": Component::Server.labels("db")});
        serde_json::from_value(json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints})).expect("a slice")
    }

    #[test]
    fn a_service_leads_to_a_pod_while_one_of_its_slices_has_one_that_is_ready() {
        let (leading, key) = (Leading::default(), ServerKey::new("team", "db"));
        let turned = vec![key.clone()];
        assert_eq!(leading.take(Event::Apply(slice("a", None))), []);
        assert_eq!(leading.take(Event::Apply(slice("a", Some(false)))), []);
        assert_eq!(leading.take(Event::Apply(slice("a", Some(true)))), turned);
        assert_eq!(leading.take(Event::Apply(slice("b", Some(true)))), [], "that made no difference");
        assert_eq!(leading.take(Event::Delete(slice("a", Some(true)))), []);
        assert!(leading.leads(&key));
        assert_eq!(leading.take(Event::Apply(slice("b", Some(false)))), turned);
        assert!(!leading.leads(&key) && leading.state().slices.is_empty());
    }

    #[test]
    fn what_a_new_list_lacks_went_away_while_nobody_watched() {
        let (leading, key) = (Leading::default(), ServerKey::new("team", "db"));
        let list = |slices: Vec<EndpointSlice>| {
            let events = slices.into_iter().map(Event::InitApply);
            let all = [Event::Init].into_iter().chain(events).chain([Event::InitDone]);
            all.flat_map(|event| leading.take(event)).collect::<Vec<_>>()
        };
        assert_eq!(list(vec![slice("a", Some(true))]), std::slice::from_ref(&key));
        assert_eq!(list(vec![slice("a", Some(true))]), []);
        assert!(leading.leads(&key));
        assert_eq!(list(Vec::new()), std::slice::from_ref(&key));
        assert!(!leading.leads(&key));
    }
}

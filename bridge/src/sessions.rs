//! Which sessions there are, by their ids.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lane::Lane;
use crate::seal::{KeyError, Sealed, Sealer};
use crate::session::Session;
use crate::told::{Audience, Notification};

/// Sessions that were deleted are remembered, so many of them: their ids could be opened for ever.
const DELETED: usize = 16_384;

/// Sessions of a shared child that are held. What one of them is stands in its id, and whoever comes back after it had to go is known again:
/// a client that opens sessions without end costs no more than this.
const HELD: usize = 4096;

/// A session and the child that serves it.
#[derive(Debug, Clone)]
pub struct Held {
    /// What is known of the client.
    pub session: Arc<Session>,
    /// The child.
    pub lane: Arc<Lane>,
}

/// What an id stands for.
#[derive(Debug)]
pub enum Found {
    /// A session of ours.
    Here(Held),
    /// A session that began here and is not here any more.
    Lost(Sealed),
    /// Another bridge's.
    Elsewhere(Sealed),
    /// None, or not this caller's.
    Unknown,
}

/// All sessions.
#[derive(Debug)]
pub struct Registry {
    sealer: Sealer,
    /// Address and port by which others reach us; empty: they do not.
    own: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<Box<str>, Held>,
    deleted: HashSet<u128>,
    deleted_order: VecDeque<u128>,
}

impl State {
    /// The quarter that nobody has used for longest goes, of those that nobody uses now and whose child is everybody's.
    fn make_room(&mut self) {
        let may_go = |held: &&Held| held.lane.owner().is_none() && held.session.is_idle(Duration::ZERO, Instant::now());
        let mut idle: Vec<_> =
            self.held.iter().filter(|(_, held)| may_go(held)).map(|(id, held)| (held.session.last_used(), id.clone())).collect();
        idle.sort_unstable_by_key(|(last_used, _)| *last_used);
        for (_, id) in idle.into_iter().take(HELD / 4) {
            self.held.remove(&id);
        }
    }
}

impl Registry {
    /// None yet.
    pub fn new(sealer: Sealer, own: String) -> Self {
        Self { sealer, own, state: Mutex::default() }
    }

    /// A new id for a session of ours. The other members are the caller's.
    pub fn seal(&self, mut sealed: Sealed) -> Result<Arc<Session>, KeyError> {
        sealed.pod.clone_from(&self.own);
        sealed.session = self.sealer.random()?;
        let id = self.sealer.seal(&sealed)?;
        Ok(Session::new(&id, sealed, Instant::now()))
    }

    /// It can be found from now on.
    pub fn hold(&self, held: Held) {
        let mut state = self.state();
        if state.held.len() >= HELD && !state.held.contains_key(&held.session.id) {
            state.make_room();
        }
        state.held.insert(held.session.id.clone(), held);
    }

    /// A session that began elsewhere, or earlier, goes on here. Two requests may find that at once: it is one session all the same.
    pub fn take_over(&self, id: &str, sealed: Sealed, lane: &Arc<Lane>) -> Held {
        if let Some(held) = self.state().held.get(id) {
            return held.clone();
        }
        let held = Held { session: Session::new(id, sealed, Instant::now()), lane: Arc::clone(lane) };
        self.hold(held.clone());
        held
    }

    /// What an id stands for, to this caller.
    pub fn find(&self, id: &str, caller: &[u8; 16]) -> Found {
        let state = self.state();
        if let Some(held) = state.held.get(id) {
            return if held.session.sealed.caller == *caller { Found::Here(held.clone()) } else { Found::Unknown };
        }
        match self.sealer.open(id) {
            Some(sealed) if sealed.caller != *caller || state.deleted.contains(&sealed.session) => Found::Unknown,
            Some(sealed) if sealed.pod == self.own => Found::Lost(sealed),
            Some(sealed) => Found::Elsewhere(sealed),
            None => Found::Unknown,
        }
    }

    /// Its client has ended it.
    pub fn delete(&self, session: &Session) -> Option<Held> {
        let mut state = self.state();
        let number = session.sealed.session;
        if state.deleted.insert(number) {
            state.deleted_order.push_back(number);
        }
        if state.deleted_order.len() > DELETED
            && let Some(oldest) = state.deleted_order.pop_front()
        {
            state.deleted.remove(&oldest);
        }
        state.held.remove(&session.id)
    }

    /// It is not here any more.
    pub fn forget(&self, session: &Session) -> Option<Held> {
        self.state().held.remove(&session.id)
    }

    /// Takes out those that nobody has used for so long.
    pub fn take_idle(&self, limit: Duration, now: Instant) -> Vec<Held> {
        self.state().held.extract_if(|_, held| held.session.is_idle(limit, now)).map(|(_, held)| held).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state().held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audience for Registry {
    fn resources(&self) -> HashSet<String> {
        self.state().held.values().flat_map(|held| held.session.resources()).collect()
    }

    fn deliver(&self, told: &Notification) {
        let state = self.state();
        let sessions = || state.held.values().map(|held| &held.session);
        match &*told.method {
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                sessions().for_each(|session| session.tell(told.line.clone()));
            }
            "notifications/resources/updated" => {
                let uri = told.uri.as_deref().unwrap_or_default();
                sessions().filter(|session| session.subscribes_to(uri)).for_each(|session| session.tell(told.line.clone()));
            }
            "notifications/message" => {
                let alone = || sessions().next().filter(|_| state.held.len() == 1);
                if let Some(session) = told.only.as_ref().or_else(alone).filter(|session| session.hears(told.level.as_deref())) {
                    session.tell(told.line.clone());
                }
            }
            // It is nobody's in particular, and may say what one client did.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::calls::Limits;
    use crate::handshake::By;
    use crate::metrics::Metrics;

    fn empty() -> (Arc<Registry>, Arc<Lane>) {
        let limits = Limits { in_flight: 1, queue: 1, timeout: Duration::ZERO, longest: Duration::ZERO, silence: Duration::ZERO };
        let registry = Arc::new(Registry::new(Sealer::new(None).unwrap(), String::new()));
        let lane = Lane::new(limits, Metrics::default(), By::Us, Arc::<Registry>::clone(&registry), CancellationToken::new());
        (registry, lane)
    }

    #[tokio::test]
    async fn a_session_that_two_requests_take_over_at_once_is_one() {
        let (registry, lane) = empty();
        let sealed = || Sealed { pod: "elsewhere".to_owned(), session: 1, caller: [0; 16], capabilities: None, info: None };
        let listens = registry.take_over("id", sealed(), &lane);
        let stream = listens.session.listen();
        let calls = registry.take_over("id", sealed(), &lane);
        calls.session.tell("something".into());
        assert!(stream.next().await.is_some() && registry.len() == 1);
    }

    #[tokio::test]
    async fn a_client_that_opens_sessions_without_end_costs_no_more_than_some_and_loses_none() {
        let (registry, lane) = empty();
        let begin = || {
            let sealed = Sealed { pod: String::new(), session: 0, caller: [0; 16], capabilities: None, info: None };
            let session = registry.seal(sealed).unwrap();
            registry.hold(Held { session: Arc::clone(&session), lane: Arc::clone(&lane) });
            session
        };
        let (used, first) = (begin(), begin());
        let in_use = used.in_use();
        for _ in 0..HELD + HELD / 2 {
            begin();
        }
        assert!(registry.len() <= HELD, "{}", registry.len());
        assert!(matches!(registry.find(&used.id, &[0; 16]), Found::Here(_)), "it has a call or a stream");
        assert!(matches!(registry.find(&first.id, &[0; 16]), Found::Lost(_)), "it is known again by its id");
        drop(in_use);
    }
}

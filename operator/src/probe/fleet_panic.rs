//! Fleet panic: when more than half of the servers that were well fail within one window, the fault is probably ours. Pure.
//!
//! Servers are counted, never the pods of one. It only counts: what is held while it lasts is decided in `server::settle` and
//! `server::eviction`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::types::ServerKey;

/// Failures that began within so long count as one event.
pub const WINDOW: Duration = Duration::from_mins(1);
/// It lasts no longer: by then a person has read of it, and servers that nobody can use are to be told as such.
pub const LONGEST: Duration = Duration::from_mins(10);
/// A fleet of fewer servers has no majority to speak of.
const SMALLEST: usize = 4;

/// How a server that answered since it started stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// One of its pods answers at least.
    pub well: bool,
    /// The nodes of those pods, as numbers that tell them apart.
    pub nodes: BTreeSet<u64>,
}

#[derive(Debug)]
struct Member {
    failed_at: Option<Instant>,
    nodes: BTreeSet<u64>,
}

/// Counts who is well and who failed lately.
#[derive(Debug, Default)]
pub struct FleetPanic {
    members: HashMap<Arc<ServerKey>, Member>,
    /// Those that were well and failed within the window, by when. While panic lasts nobody leaves for having failed long ago.
    fell: BTreeSet<(Instant, Arc<ServerKey>)>,
    /// While it lasts: until when at the longest.
    until: Option<Instant>,
}

impl FleetPanic {
    /// True while it lasts.
    pub const fn active(&self) -> bool {
        self.until.is_some()
    }

    /// While it lasts: until when at the longest.
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Takes up how a server stands; none: it is no part of the fleet now. One that was never well does not count as failing.
    pub fn set(&mut self, key: &Arc<ServerKey>, standing: Option<Standing>, now: Instant) {
        let Some(Standing { well, nodes }) = standing else { return self.forget(key) };
        if well {
            self.forget(key);
            self.members.insert(Arc::clone(key), Member { failed_at: None, nodes });
        } else if let Some(member) = self.members.get_mut(key)
            && member.failed_at.is_none()
        {
            member.failed_at = Some(now);
            self.fell.insert((now, Arc::clone(key)));
        }
    }

    /// The server is no part of the fleet any more.
    pub fn forget(&mut self, key: &Arc<ServerKey>) {
        if let Some(at) = self.members.remove(key).and_then(|member| member.failed_at) {
            self.fell.remove(&(at, Arc::clone(key)));
        }
    }

    /// Looks again. Panic begins only when `acting`: somebody is about to be taken out of service. Some(active) when that changed.
    pub fn weigh(&mut self, acting: bool, now: Instant) -> Option<bool> {
        let before = self.active();
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        if !self.active() {
            // Of a panic that lasted too long nobody is left who could begin the next one.
            while let Some((at, key)) = self.fell.first().cloned()
                && (at + WINDOW < now || before)
            {
                self.forget(&key);
            }
        }
        let most = self.members.len() >= SMALLEST && self.fell.len() * 2 > self.members.len();
        match (self.active(), most) {
            (true, false) => self.until = None,
            (false, true) if acting && self.is_spread() => self.until = Some(now + LONGEST),
            _ => {}
        }
        (before != self.active()).then_some(self.active())
    }

    /// The servers of one team on one node may well all fail at once through no fault of ours.
    fn is_spread(&self) -> bool {
        let mut namespaces = self.members.keys().map(|key| key.namespace.as_str());
        let first = namespaces.next();
        let mut nodes = self.members.values().flat_map(|member| &member.nodes);
        let node = nodes.next();
        namespaces.any(|namespace| Some(namespace) != first) || nodes.any(|other| Some(other) != node)
    }

    /// Who is counted, and since when as failing. For tests.
    #[cfg(test)]
    pub fn members(&self) -> impl Iterator<Item = (&Arc<ServerKey>, Option<Instant>)> {
        self.members.iter().map(|(key, member)| (key, member.failed_at))
    }

    /// Who is counted.
    pub fn has(&self, key: &ServerKey) -> bool {
        self.members.contains_key(key)
    }

    /// How many of how many fail.
    pub fn counts(&self) -> (usize, usize) {
        (self.fell.len(), self.members.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u64) -> Arc<ServerKey> {
        Arc::new(ServerKey::new(if id.is_multiple_of(2) { "a" } else { "b" }, format!("s{id}")))
    }

    fn on(well: bool, node: u64) -> Standing {
        Standing { well, nodes: BTreeSet::from([node]) }
    }

    fn fleet(size: u64, now: Instant) -> FleetPanic {
        let mut panic = FleetPanic::default();
        (0..size).for_each(|id| panic.set(&key(id), Some(on(true, 0)), now));
        panic
    }

    #[test]
    fn it_takes_more_than_half_of_at_least_four() {
        let now = Instant::now();
        for (size, failing, expected) in [(3, 3, false), (4, 2, false), (4, 3, true), (10, 5, false), (10, 6, true)] {
            let mut panic = fleet(size, now);
            (0..failing).for_each(|id| panic.set(&key(id), Some(on(false, 0)), now));
            assert_eq!(panic.weigh(true, now), expected.then_some(true), "{failing} of {size}");
        }
    }

    #[test]
    fn one_namespace_on_one_node_is_no_fleet() {
        let now = Instant::now();
        for (namespaces, nodes, expected) in [(1, 1, false), (2, 1, true), (1, 2, true)] {
            let mut panic = FleetPanic::default();
            let key = |id: u64| Arc::new(ServerKey::new(format!("n{}", id % namespaces), format!("s{id}")));
            (0..6).for_each(|id| panic.set(&key(id), Some(on(true, id % nodes)), now));
            (0..6).for_each(|id| panic.set(&key(id), Some(on(false, id % nodes)), now));
            assert_eq!(panic.weigh(true, now), expected.then_some(true), "{namespaces} namespaces, {nodes} nodes");
        }
    }

    #[test]
    fn failures_further_apart_than_the_window_are_no_event() {
        let now = Instant::now();
        let mut panic = fleet(4, now);
        for id in 0..4 {
            let at = now + (WINDOW + Duration::from_secs(1)) * u32::try_from(id).expect("small");
            panic.set(&key(id), Some(on(false, 0)), at);
            assert_eq!(panic.weigh(true, at), None);
        }
    }

    #[test]
    fn it_lasts_until_half_are_well_again() {
        let now = Instant::now();
        let mut panic = fleet(4, now);
        (0..3).for_each(|id| panic.set(&key(id), Some(on(false, 0)), now));
        assert_eq!(panic.weigh(true, now), Some(true));
        assert_eq!(panic.weigh(false, now + WINDOW * 9), None);
        panic.set(&key(0), Some(on(true, 0)), now);
        assert_eq!(panic.weigh(false, now + WINDOW * 9), Some(false));
    }

    #[test]
    fn it_ends_after_its_time_and_those_who_failed_do_not_begin_another() {
        let now = Instant::now();
        let mut panic = fleet(4, now);
        (0..3).for_each(|id| panic.set(&key(id), Some(on(false, 0)), now));
        assert_eq!(panic.weigh(true, now), Some(true));
        assert_eq!(panic.until(), Some(now + LONGEST));
        assert_eq!(panic.weigh(true, now + LONGEST), Some(false));
        (0..3).for_each(|id| panic.set(&key(id), Some(on(false, 0)), now + LONGEST));
        assert_eq!(panic.weigh(true, now + LONGEST), None);
        // Well again, and down again: that is another event.
        (0..3).for_each(|id| panic.set(&key(id), Some(on(true, 0)), now + LONGEST));
        (0..3).for_each(|id| panic.set(&key(id), Some(on(false, 0)), now + LONGEST));
        assert_eq!(panic.weigh(true, now + LONGEST), Some(true));
    }

    #[test]
    fn it_does_not_begin_while_nobody_would_be_taken_out() {
        let now = Instant::now();
        let mut panic = fleet(4, now);
        (0..4).for_each(|id| panic.set(&key(id), Some(on(false, 0)), now));
        assert_eq!(panic.weigh(false, now), None);
    }
}

//! What is due when, and who may start: timers, fair queues, and the caps on probes in flight. Pure.
//!
//! Probes in flight share one cap, in two lanes. A probe starts in the quick lane and moves to the slow one when it has not ended after
//! [`QUICK`]; a target whose last probe hung starts in the slow lane. So whatever hangs, the quick lane is empty again within [`QUICK`].
//! Of the slow lane half is kept for targets that clients are sent to: that one of those hangs is found out, by the next probe and by
//! hedges, however many others are known to hang and are only tried again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::types::ServerKey;

/// After so long in flight a probe no longer counts as quick.
pub const QUICK: Duration = Duration::from_millis(200);

/// A target's name within the engine: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u64);

/// An attempt's name within the engine: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A target's probe.
    Probe(TargetId),
    /// A gate's patch, after it failed.
    Gate(TargetId),
    /// A server: its opening ends, or its tools may be shown.
    Server(Arc<ServerKey>),
    /// Fleet panic, which does not last for ever.
    Panic,
}

/// The two lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// For what answers at once, or did.
    Quick,
    /// For what does not.
    Slow,
    /// Of the slow lane, for what does not and gets no clients: it can wait.
    Trial,
}

/// Round robin between namespaces, first come first served within one.
#[derive(Debug, Default)]
struct FairQueue {
    turn: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<(TargetId, Instant)>>,
}

impl FairQueue {
    fn push(&mut self, namespace: &Arc<str>, id: TargetId, due: Instant) {
        let queue = self.waiting.entry(Arc::clone(namespace)).or_default();
        if queue.is_empty() {
            self.turn.push_back(Arc::clone(namespace));
        }
        queue.push_back((id, due));
    }

    fn pop(&mut self) -> Option<(TargetId, Instant)> {
        let namespace = self.turn.pop_front()?;
        let queue = self.waiting.get_mut(&namespace)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turn.push_back(namespace);
        }
        next
    }

    fn is_empty(&self) -> bool {
        self.turn.is_empty()
    }
}

/// The timers, the queues and the lanes.
#[derive(Debug)]
pub struct Schedule {
    timers: BTreeSet<(Instant, Timer)>,
    quick: FairQueue,
    slow: FairQueue,
    trials: FairQueue,
    quick_cap: usize,
    slow_cap: usize,
    /// Of the slow lane.
    trial_cap: usize,
    /// By start, oldest first: those that have been in flight longest leave the lane first.
    quick_flights: BTreeMap<AttemptId, Instant>,
    slow_flights: BTreeSet<AttemptId>,
    trial_flights: BTreeSet<AttemptId>,
    attempts: u64,
}

impl Schedule {
    /// At most `max_in_flight` probes at a time; a quarter of them is kept for those that answer at once.
    pub fn new(max_in_flight: usize) -> Self {
        let max = max_in_flight.max(4);
        let slow_cap = max - max / 4;
        Self {
            timers: BTreeSet::new(),
            quick: FairQueue::default(),
            slow: FairQueue::default(),
            trials: FairQueue::default(),
            quick_cap: max / 4,
            slow_cap,
            trial_cap: slow_cap - slow_cap / 2,
            quick_flights: BTreeMap::new(),
            slow_flights: BTreeSet::new(),
            trial_flights: BTreeSet::new(),
            attempts: 0,
        }
    }

    /// Moves a timer from `old` to `new`.
    pub fn set(&mut self, timer: Timer, old: &mut Option<Instant>, new: Option<Instant>) {
        if *old == new {
            return;
        }
        if let Some(at) = old.take() {
            self.timers.remove(&(at, timer.clone()));
        }
        if let Some(at) = new {
            self.timers.insert((at, timer));
        }
        *old = new;
    }

    /// The next timer that is due, taken out.
    pub fn due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.timers.first()?.0 > now { None } else { self.timers.pop_first() }
    }

    /// Puts a target in line for `lane`.
    pub fn enqueue(&mut self, lane: Lane, namespace: &Arc<str>, id: TargetId, due: Instant) {
        match lane {
            Lane::Quick => self.quick.push(namespace, id, due),
            Lane::Slow => self.slow.push(namespace, id, due),
            Lane::Trial => self.trials.push(namespace, id, due),
        }
    }

    /// The next target that may start, and since when it was due. Whoever takes it calls `start`, or lets it go.
    pub fn pop(&mut self, now: Instant) -> Option<(TargetId, Instant, Lane)> {
        self.demote(now);
        if self.quick_flights.len() < self.quick_cap
            && let Some((id, due)) = self.quick.pop()
        {
            return Some((id, due, Lane::Quick));
        }
        if self.has_slow_room()
            && let Some((id, due)) = self.slow.pop()
        {
            return Some((id, due, Lane::Slow));
        }
        if self.has_trial_room()
            && let Some((id, due)) = self.trials.pop()
        {
            return Some((id, due, Lane::Trial));
        }
        None
    }

    fn has_slow_room(&self) -> bool {
        self.slow_flights.len() + self.trial_flights.len() < self.slow_cap
    }

    fn has_trial_room(&self) -> bool {
        self.has_slow_room() && self.trial_flights.len() < self.trial_cap
    }

    /// Takes a place in `lane`.
    pub fn start(&mut self, lane: Lane, now: Instant) -> AttemptId {
        self.attempts += 1;
        let id = AttemptId(self.attempts);
        match lane {
            Lane::Quick => {
                self.quick_flights.insert(id, now);
            }
            Lane::Slow => {
                self.slow_flights.insert(id);
            }
            Lane::Trial => {
                self.trial_flights.insert(id);
            }
        }
        id
    }

    /// A place in the slow lane for a hedge, if there is one.
    pub fn hedge(&mut self, now: Instant) -> Option<AttemptId> {
        self.has_slow_room().then(|| self.start(Lane::Slow, now))
    }

    /// Gives the place back. True when somebody waits for one.
    pub fn end(&mut self, id: AttemptId) -> bool {
        if self.quick_flights.remove(&id).is_some() {
            !self.quick.is_empty()
        } else {
            let slow = self.slow_flights.remove(&id) | self.trial_flights.remove(&id);
            slow && !(self.slow.is_empty() && self.trials.is_empty())
        }
    }

    /// How many are in flight, by lane.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.quick_flights.len(), self.slow_flights.len() + self.trial_flights.len())
    }

    /// When something is to be done next, if nothing happens before.
    pub fn wake(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        // Attempts are named in the order in which they start, so the first is the oldest.
        let oldest = self.quick_flights.first_key_value().map(|(_, at)| *at + QUICK);
        let room = oldest.filter(|_| !self.quick.is_empty() && self.has_slow_room());
        [timer, room].into_iter().flatten().min()
    }

    /// Every timer, for tests.
    #[cfg(test)]
    pub fn timers(&self) -> &BTreeSet<(Instant, Timer)> {
        &self.timers
    }

    /// Nobody is in line, for tests.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        [&self.quick, &self.slow, &self.trials].into_iter().all(|queue| queue.is_empty() && queue.waiting.is_empty())
    }

    fn demote(&mut self, now: Instant) {
        while self.has_slow_room() {
            match self.quick_flights.first_key_value() {
                Some((id, started)) if *started + QUICK <= now => {
                    let id = *id;
                    self.quick_flights.remove(&id);
                    self.slow_flights.insert(id);
                }
                _ => break,
            }
        }
    }
}

/// The next of a target's own slots after `now`: a slot comes every `interval`, shifted by `phase` so that targets spread over it.
pub fn slot(epoch: Instant, now: Instant, interval: Duration, phase: u64) -> Instant {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let passed = u64::try_from(now.saturating_duration_since(epoch).as_millis()).unwrap_or(u64::MAX);
    let into = (passed % interval_ms + interval_ms - phase % interval_ms) % interval_ms;
    epoch + Duration::from_millis(passed + interval_ms - into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn slots_are_an_interval_apart_and_strictly_ahead() {
        let epoch = Instant::now();
        let interval = Duration::from_secs(10);
        for phase in [0, 1, 4_321, 9_999, 77_777] {
            let mut at = epoch;
            for _ in 0..5 {
                let next = slot(epoch, at, interval, phase);
                assert!(next > at && next <= at + interval, "phase {phase}");
                at = next;
            }
            assert_eq!(slot(epoch, at, interval, phase), at + interval);
        }
    }

    #[test]
    fn namespaces_take_turns() {
        let now = Instant::now();
        let mut schedule = Schedule::new(64);
        for id in 0..10 {
            schedule.enqueue(Lane::Quick, &ns("big"), TargetId(id), now);
        }
        schedule.enqueue(Lane::Quick, &ns("small"), TargetId(100), now);
        let order: Vec<u64> = std::iter::from_fn(|| schedule.pop(now)).take(4).map(|(id, ..)| id.0).collect();
        assert_eq!(order, [0, 100, 1, 2]);
    }

    #[test]
    fn what_hangs_leaves_the_quick_lane() {
        let now = Instant::now();
        let mut schedule = Schedule::new(16);
        for id in 0..5 {
            schedule.enqueue(Lane::Quick, &ns("a"), TargetId(id), now);
        }
        while let Some((_, _, lane)) = schedule.pop(now) {
            schedule.start(lane, now);
        }
        assert_eq!(schedule.in_flight(), (4, 0));
        assert_eq!(schedule.wake(), Some(now + QUICK));
        assert!(schedule.pop(now + QUICK).is_some());
        assert_eq!(schedule.in_flight(), (0, 4));
    }

    #[test]
    fn what_is_known_to_hang_never_takes_a_quick_place() {
        let now = Instant::now();
        let mut schedule = Schedule::new(16);
        for id in 0..100 {
            schedule.enqueue(Lane::Slow, &ns("a"), TargetId(id), now);
        }
        while let Some((_, _, lane)) = schedule.pop(now) {
            schedule.start(lane, now);
        }
        assert_eq!(schedule.in_flight(), (0, 12));
        schedule.enqueue(Lane::Quick, &ns("a"), TargetId(200), now);
        assert_eq!(schedule.pop(now).map(|(id, ..)| id), Some(TargetId(200)));
        assert_eq!(schedule.hedge(now), None);
    }

    #[test]
    fn what_gets_no_clients_leaves_room_for_what_does() {
        let now = Instant::now();
        let mut schedule = Schedule::new(16);
        let start = |schedule: &mut Schedule| {
            std::iter::from_fn(|| {
                let (id, _, lane) = schedule.pop(now)?;
                schedule.start(lane, now);
                Some((id.0, lane))
            })
            .collect::<Vec<_>>()
        };
        for id in 0..100 {
            schedule.enqueue(Lane::Trial, &ns("a"), TargetId(id), now);
        }
        assert_eq!(start(&mut schedule).len(), 6);
        for id in 200..204 {
            schedule.enqueue(Lane::Slow, &ns("a"), TargetId(id), now);
        }
        assert_eq!(start(&mut schedule), [200, 201, 202, 203].map(|id| (id, Lane::Slow)));
        assert!(schedule.hedge(now).is_some() && schedule.hedge(now).is_some());
        assert_eq!((schedule.hedge(now), schedule.in_flight()), (None, (0, 12)));
        // The first place that is free is not theirs.
        assert!(schedule.end(AttemptId(7)));
        schedule.enqueue(Lane::Slow, &ns("b"), TargetId(300), now);
        assert_eq!(start(&mut schedule), [(300, Lane::Slow)]);
    }

    #[test]
    fn a_timer_can_be_moved_and_taken_back() {
        let now = Instant::now();
        let mut schedule = Schedule::new(4);
        let mut at = None;
        schedule.set(Timer::Probe(TargetId(1)), &mut at, Some(now));
        schedule.set(Timer::Probe(TargetId(1)), &mut at, Some(now + QUICK));
        assert_eq!(schedule.due(now), None);
        schedule.set(Timer::Probe(TargetId(1)), &mut at, None);
        assert_eq!(schedule.wake(), None);
    }
}

//! The decision for one server. Pure: the time is passed in.
//!
//! Up at once, down by one pod at a time when a whole window has not needed it. Three things keep it from swinging: a load counts when two
//! of three looks in a row show it, so that a single look decides nothing; the window counts by its highest need; and a step down that was
//! taken back soon makes the next one wait for twice as long.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::Asked;
use crate::crd::autoscaling::{AutoscalingStatus, IDLE_SECONDS};

/// The time in which no more pods were needed before one goes.
pub const WINDOW: Duration = Duration::from_mins(5);
/// The longest that it becomes, where steps down are taken back.
const LONGEST: Duration = Duration::from_hours(1);
/// One step down takes a tenth of the window at least: a pod drains meanwhile.
const STEPS: u32 = 10;
/// Looks that see nothing for so long are told. What they see last is 15 s old by then at most, so that 30 s are never exceeded.
const STALE: Duration = Duration::from_secs(15);
/// What a reason begins with that keeps the number as it is.
const HELD: &str = "held: ";
/// Why a server that nobody calls stays up.
const NO_ACTIVATOR: &str = "nobody calls, and it stays up: no pod of the activator is ready to wake it";
/// What keeps pods that calls do not need, after their number.
const HOLD: &str = "pods hold sessions that end with them";
/// The same of the last one.
const LAST_HOLDS: &str = "nobody calls, and its pod holds sessions that end with it";

/// What the server's owner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Pods at least.
    pub min: u32,
    /// Pods at most.
    pub max: u32,
    /// Calls that one pod is to have under way.
    pub per_pod: u32,
    /// Without a call for so long, the last pod goes. None: it never does.
    pub idle: Option<Duration>,
    /// A session that ends with its pod may be left unused for so long.
    pub sessions: Duration,
    /// There is an activator, to answer and to wake it.
    pub may_sleep: bool,
    /// The time in which no more pods were needed before one goes.
    pub window: Duration,
}

impl Bounds {
    /// As the spec has it.
    pub fn of(asked: &Asked, window: Duration) -> Self {
        let spec = &asked.autoscaling;
        let idle = spec.idle_seconds.unwrap_or(IDLE_SECONDS);
        Self {
            min: spec.min_replicas,
            max: spec.max_replicas.max(spec.min_replicas),
            per_pod: spec.calls_in_flight.max(1),
            idle: (spec.min_replicas == 0).then(|| Duration::from_secs(idle.into())),
            sessions: asked.sessions.unwrap_or_default(),
            may_sleep: asked.may_sleep,
            window,
        }
    }

    /// The last pod goes only when nobody calls, and not because little is called.
    const fn least(&self) -> u32 {
        if self.min == 0 { 1 } else { self.min }
    }

    const fn need(&self, load: &Load) -> u32 {
        let by_calls = load.in_flight.div_ceil(self.per_pod);
        if by_calls > load.holding { by_calls } else { load.holding }
    }
}

/// What all pods of the server tell together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls under way.
    pub in_flight: u32,
    /// There was a call since the last look, or there is one.
    pub called: bool,
    /// Pods whose sessions end with them.
    pub holding: u32,
}

/// One look at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Every pod in service told.
    Load(Load),
    /// One did not, or there is none; and what is amiss.
    Silent(String),
    /// Most of the fleet fails: the fault is probably the operator's.
    Panic,
}

/// How many pods are wanted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Pods.
    pub desired: u32,
    /// For people.
    pub reason: String,
}

/// The state of one server's decision.
#[derive(Clone, Debug)]
pub struct Scaler {
    bounds: Bounds,
    desired: u32,
    reason: String,
    /// Why nothing is decided.
    held: Option<String>,
    /// More than `max` were needed within the window.
    limited: bool,
    /// So many pods hold sessions that end with them, and calls alone would need fewer pods than there are.
    holding: Option<u32>,
    /// Nobody calls, and it does not fall asleep all the same: why not.
    sleepless: Option<&'static str>,
    /// Since when that is so.
    holds_since: Option<Instant>,
    /// The last looks.
    looks: [Option<Load>; 3],
    /// The needs of the window of which no later one is higher: the first is its highest.
    needs: VecDeque<(Instant, u32)>,
    /// Since when every look was good; None: it is not.
    seen_since: Option<Instant>,
    last_seen: Instant,
    last_called: Instant,
    /// The last step down, until it has proven right.
    stepped_down: Option<Instant>,
    /// How long a step down waits now.
    patience: Duration,
}

impl Scaler {
    /// Goes on from what was told and from the pods that are asked for. The window begins anew: nothing is scaled down early.
    pub fn new(bounds: Bounds, told: Option<&AutoscalingStatus>, pods: Option<u32>, now: Instant) -> Self {
        // More of them than were told: the operator before ended between the two.
        let known = told.map(|told| told.desired).max(pods.filter(|pods| *pods > 0));
        // Without what was said beside it.
        let reason = told.and_then(|told| told.reason.split("; ").next()).filter(|reason| !reason.starts_with(HELD));
        let mut scaler = Self {
            bounds,
            desired: known.unwrap_or_else(|| bounds.least()),
            reason: reason.filter(|reason| !reason.is_empty()).unwrap_or("no more was needed yet").to_owned(),
            held: None,
            limited: false,
            holding: None,
            sleepless: None,
            holds_since: None,
            looks: [None; 3],
            needs: VecDeque::new(),
            seen_since: None,
            last_seen: now,
            last_called: now,
            stepped_down: None,
            patience: bounds.window,
        };
        scaler.keep_within();
        scaler
    }

    /// The spec was edited, perhaps. It is followed at once.
    pub fn set(&mut self, bounds: Bounds) {
        if self.bounds != bounds {
            self.bounds = bounds;
            self.needs.clear();
            self.looks = [None; 3];
            self.seen_since = None;
            self.patience = bounds.window;
            self.keep_within();
        }
    }

    /// What is wanted.
    pub fn decision(&self) -> Decision {
        let limited = || {
            let Bounds { max, per_pod, .. } = self.bounds;
            self.limited
                .then(|| format!("; {max} pods have more than {per_pod} calls in flight each, and maxReplicas allows no more"))
        };
        // Who came for their sessions says so already.
        let holding = self.holding.filter(|_| !self.reason.ends_with(HOLD));
        let holding = || holding.map(|pods| format!("; {pods} {HOLD}")).unwrap_or_default();
        let sleepless = || self.sleepless.map_or_else(holding, |why| format!("; {why}"));
        let reason = match &self.held {
            Some(held) => format!("{HELD}{held}"),
            None => format!("{}{}", self.reason, limited().unwrap_or_else(sleepless)),
        };
        Decision { desired: self.desired, reason }
    }

    /// Somebody waits for an answer of a server without pods.
    pub fn wanted(&mut self, now: Instant) {
        self.last_called = now;
        if self.desired == 0 {
            self.change(self.bounds.least(), "a call woke it".to_owned());
        }
    }

    /// Takes up one look, at so many pods as there are now.
    pub fn look(&mut self, look: Look, pods: u32, now: Instant) {
        let load = match look {
            // Without pods nobody can tell anything: whoever calls is heard of by `wanted`.
            _ if self.desired == 0 && pods == 0 => {
                self.held = None;
                self.last_seen = now;
                return;
            }
            Look::Panic => return self.hold("most of the fleet fails, and the fault is probably the operator's".to_owned(), now),
            Look::Silent(why) => {
                if now.duration_since(self.last_seen) >= STALE {
                    self.hold(why, now);
                }
                return;
            }
            Look::Load(load) => load,
        };
        self.held = None;
        self.last_seen = now;
        if load.called {
            self.last_called = now;
        }
        let since = *self.seen_since.get_or_insert(now);
        self.looks.rotate_left(1);
        self.looks[2] = Some(load);
        let Some(load) = self.level() else { return };
        let need = self.bounds.need(&load);
        self.remember(need, now);
        let highest = self.needs.front().map_or(need, |(_, need)| *need);
        self.limited = highest > self.bounds.max;
        let by_calls = load.in_flight.div_ceil(self.bounds.per_pod).max(self.bounds.least());
        let holds = load.holding >= self.desired && by_calls < self.desired;
        self.holds_since = holds.then(|| self.holds_since.unwrap_or(now));
        // Sessions come and go: those of a moment are no news.
        let long = self.holds_since.is_some_and(|since| now.duration_since(since) >= self.bounds.window / STEPS);
        self.holding = long.then_some(load.holding);
        let uncalled = now.duration_since(self.last_called);
        let is_idle = self.desired == 1 && self.bounds.idle.is_some_and(|idle| uncalled >= idle);
        // Not for as long as they are open: whoever listens, or asks for lists at intervals, would keep it awake for ever.
        let holds_last = load.holding > 0 && uncalled < self.bounds.sessions;
        self.sleepless = match is_idle {
            true if !self.bounds.may_sleep => Some(NO_ACTIVATOR),
            true if holds_last => Some(LAST_HOLDS),
            _ => None,
        };
        if need.min(self.bounds.max) > self.desired {
            self.up(need, &load, now);
        } else if is_idle && self.sleepless.is_none() {
            self.change(0, format!("for {} s nobody called", uncalled.as_secs()));
        } else if now.duration_since(since) >= self.patience {
            self.down(highest, pods, now);
        }
    }

    /// What two of the last three looks show: the middle one.
    fn level(&self) -> Option<Load> {
        let [Some(a), Some(b), Some(c)] = self.looks else { return None };
        let middle = |of: fn(&Load) -> u32| {
            let mut all = [of(&a), of(&b), of(&c)];
            all.sort_unstable();
            all[1]
        };
        Some(Load { in_flight: middle(|load| load.in_flight), called: c.called, holding: middle(|load| load.holding) })
    }

    fn remember(&mut self, need: u32, now: Instant) {
        while self.needs.back().is_some_and(|(_, earlier)| *earlier <= need) {
            self.needs.pop_back();
        }
        self.needs.push_back((now, need));
        while self.needs.front().is_some_and(|(at, _)| now.duration_since(*at) > self.patience) {
            self.needs.pop_front();
        }
    }

    fn up(&mut self, need: u32, load: &Load, now: Instant) {
        if self.stepped_down.take().is_some_and(|at| now.duration_since(at) < self.patience * 2) {
            self.patience = (self.patience * 2).min(LONGEST.max(self.bounds.window));
        }
        let Bounds { max, per_pod, .. } = self.bounds;
        let calls = load.in_flight;
        let reason = if need > calls.div_ceil(per_pod) {
            format!("{} {HOLD}", load.holding)
        } else {
            format!("{calls} calls in flight, and one pod is to have {per_pod}")
        };
        self.change(need.min(max), reason);
    }

    fn down(&mut self, highest: u32, pods: u32, now: Instant) {
        if let Some(at) = self.stepped_down {
            // One after the other: the pod before has gone, and had its time for it.
            if pods > self.desired || now.duration_since(at) < self.patience / STEPS {
                return;
            }
            // Nobody missed the last one: the next need not wait for as long.
            if now.duration_since(at) >= self.patience * 2 {
                self.stepped_down = None;
                self.patience = (self.patience / 2).max(self.bounds.window);
            }
        }
        let (window, per_pod) = (self.patience.as_secs(), self.bounds.per_pod);
        if self.desired > highest.max(self.bounds.least()) {
            let reason = format!("for {window} s no more pods were needed, at {per_pod} calls in flight each");
            self.change(self.desired - 1, reason);
            self.stepped_down = Some(now);
        }
    }

    fn hold(&mut self, why: String, now: Instant) {
        self.held = Some(why);
        // What happened meanwhile nobody knows: the window begins anew.
        self.seen_since = None;
        self.needs.clear();
        self.looks = [None; 3];
        self.last_called = now;
    }

    fn keep_within(&mut self) {
        let Bounds { min, max, .. } = self.bounds;
        if !(min..=max).contains(&self.desired) {
            self.change(self.desired.clamp(min, max), format!("spec.autoscaling allows {min} to {max}"));
        }
    }

    fn change(&mut self, desired: u32, reason: String) {
        (self.desired, self.reason) = (desired, reason);
    }
}

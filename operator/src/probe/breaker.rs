//! The circuit of one server: a pure state machine. It is told what happened and when, and never looks at a clock.
//!
//! What counts as a failure of the server, and so where it goes from Closed to Open, is decided in `server::settle`; what an answer does to a
//! trial in `registry`.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::types::Moment;
use crate::{
    clock,
    crd::{CircuitBreaker, CircuitState, CircuitStatus, Force, reason},
};

/// How far jitter moves the length of an opening, either way: a fleet that opened together does not come back together.
const JITTER: f64 = 0.1;

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: CircuitState,
    /// After.
    pub to: CircuitState,
}

/// The circuit of one server.
#[derive(Clone, Debug)]
pub struct Circuit {
    status: CircuitStatus,
    /// When Open ends, on the clock that does not jump. `status.retry_at` is the same for people and for our successor.
    until: Option<Instant>,
    /// Successes in a row while HalfOpen.
    successes: u32,
    forced: Option<Force>,
}

impl Circuit {
    /// A circuit that never opened.
    pub fn closed() -> Self {
        Self { status: CircuitStatus::default(), until: None, successes: 0, forced: None }
    }

    /// Goes on from what status says. An opening that should have ended meanwhile ends now; none lasts longer than `max_open_seconds`.
    pub fn restore(persisted: &CircuitStatus, policy: &CircuitBreaker, now: Moment) -> Self {
        let mut circuit = Self { status: persisted.clone(), until: None, successes: 0, forced: None };
        if persisted.state == CircuitState::Open {
            if persisted.reason.as_deref() == Some(reason::FORCED) && policy.force == Some(Force::Open) {
                circuit.forced = Some(Force::Open);
            } else {
                let left = persisted.retry_at.as_ref().map_or(Duration::ZERO, |at| between(now.wall, at.0));
                circuit.until = Some(now.mono + left.min(seconds(policy.max_open_seconds)));
            }
        }
        circuit
    }

    /// HalfOpen: somebody else is tried, and answers of the one before count for nothing.
    pub const fn try_another(&mut self) {
        self.successes = 0;
    }

    /// The circuit, as it is to be kept in status.
    pub const fn status(&self) -> &CircuitStatus {
        &self.status
    }

    /// The state.
    pub const fn state(&self) -> CircuitState {
        self.status.state
    }

    /// Held by hand.
    pub const fn forced(&self) -> Option<Force> {
        self.forced
    }

    /// While Open and not forced: when it is tried again.
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Takes up a policy: `force` wins over everything, and a shorter `max_open_seconds` shortens an opening under way.
    pub fn set_policy(&mut self, policy: &CircuitBreaker, now: Moment) -> Option<Transition> {
        let before = std::mem::replace(&mut self.forced, policy.force);
        match policy.force {
            Some(Force::Open) => {
                // Forced anew, or open for another reason until now: hold it, without an end.
                if self.state() == CircuitState::Open && self.status.reason.as_deref() == Some(reason::FORCED) {
                    return None;
                }
                self.until = None;
                self.status.retry_at = None;
                self.status.reason = Some(reason::FORCED.into());
                self.enter(CircuitState::Open, now)
            }
            Some(Force::Closed) => self.close(now),
            // What was held open by hand has to prove itself first.
            None if before == Some(Force::Open) => self.half_open(now),
            None => {
                self.shorten(policy, now);
                None
            }
        }
    }

    /// The server failed: confirmed while Closed, or once while HalfOpen. `jitter` is a number from 0 to 1.
    pub fn fail(&mut self, policy: &CircuitBreaker, reason: &str, failures: u32, jitter: f64, now: Moment) -> Option<Transition> {
        if self.forced.is_some() || self.state() == CircuitState::Open {
            return None;
        }
        self.status.openings = self.status.openings.saturating_add(1);
        self.status.failures = failures;
        self.status.reason = Some(reason.into());
        let length = open_for(policy, self.status.openings, jitter);
        self.until = Some(now.mono + length);
        self.status.retry_at = Some(clock::time(after(now.wall, length)));
        self.enter(CircuitState::Open, now)
    }

    /// The server answered. Counts only while HalfOpen. `last`: it is not to be asked again soon, and so needs no other answer.
    pub fn succeed(&mut self, policy: &CircuitBreaker, last: bool, now: Moment) -> Option<Transition> {
        if self.forced.is_some() || self.state() != CircuitState::HalfOpen {
            return None;
        }
        self.successes = self.successes.saturating_add(1);
        if self.successes < policy.success_threshold && !last { None } else { self.close(now) }
    }

    /// Time went by: an opening that is over becomes HalfOpen. A wall clock that jumped ahead ends it early, one that jumped back never late.
    pub fn tick(&mut self, now: Moment) -> Option<Transition> {
        if self.forced.is_some() || self.state() != CircuitState::Open {
            return None;
        }
        let over = self.until.is_none_or(|until| until <= now.mono);
        let past = self.status.retry_at.as_ref().is_none_or(|at| at.0 <= now.wall);
        if over || past { self.half_open(now) } else { None }
    }

    /// Tries the server before its time: a person asked for it, or a pod answered that should not be able to.
    pub fn try_now(&mut self, now: Moment) -> Option<Transition> {
        if self.forced.is_some() || self.state() != CircuitState::Open { None } else { self.half_open(now) }
    }

    /// Puts the circuit at rest: the server is disabled.
    pub fn reset(&mut self, now: Moment) -> Option<Transition> {
        self.forced = None;
        self.close(now)
    }

    fn half_open(&mut self, now: Moment) -> Option<Transition> {
        self.until = None;
        self.status.retry_at = None;
        self.successes = 0;
        self.enter(CircuitState::HalfOpen, now)
    }

    fn close(&mut self, now: Moment) -> Option<Transition> {
        self.until = None;
        self.successes = 0;
        self.status.retry_at = None;
        self.status.reason = None;
        self.status.openings = 0;
        self.status.failures = 0;
        self.enter(CircuitState::Closed, now)
    }

    fn enter(&mut self, to: CircuitState, now: Moment) -> Option<Transition> {
        let from = std::mem::replace(&mut self.status.state, to);
        if from == to {
            return None;
        }
        self.status.since = Some(clock::time(now.wall));
        Some(Transition { from, to })
    }

    fn shorten(&mut self, policy: &CircuitBreaker, now: Moment) {
        let longest = seconds(policy.max_open_seconds);
        if let Some(until) = self.until
            && until > now.mono + longest
        {
            self.until = Some(now.mono + longest);
            self.status.retry_at = Some(clock::time(after(now.wall, longest)));
        }
    }
}

/// How long the `openings`-th opening in a row lasts: whole seconds, at least one, never more than `max_open_seconds`.
pub fn open_for(policy: &CircuitBreaker, openings: u32, jitter: f64) -> Duration {
    let doublings = openings.saturating_sub(1).min(31);
    let bare = f64::from(policy.open_seconds) * 2_f64.powi(i32::try_from(doublings).unwrap_or(31));
    let bounded = bare.min(f64::from(policy.max_open_seconds));
    let spread = bounded * (1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0));
    Duration::from_secs_f64(spread.round().clamp(1.0, f64::from(policy.max_open_seconds.max(1))))
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn after(wall: Timestamp, length: Duration) -> Timestamp {
    SignedDuration::try_from(length).ok().and_then(|length| wall.checked_add(length).ok()).unwrap_or(Timestamp::MAX)
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What can happen to a circuit.
    #[derive(Clone, Debug)]
    enum Step {
        Fail(f64),
        Succeed(bool),
        TryNow,
        Reset,
        /// Both clocks go on.
        Pass(u64),
        /// The wall clock jumps, by so many seconds.
        Jump(i64),
        Policy {
            open: u32,
            max: u32,
            successes: u32,
            force: Option<Force>,
        },
        /// The operator starts anew, with what status kept.
        Restart,
    }

    fn force() -> impl Strategy<Value = Option<Force>> {
        prop_oneof![4 => Just(None), 1 => Just(Some(Force::Open)), 1 => Just(Some(Force::Closed))]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0.0..=1.0).prop_map(Step::Fail),
            3 => prop::bool::weighted(0.2).prop_map(Step::Succeed),
            1 => Just(Step::TryNow),
            1 => Just(Step::Reset),
            4 => (0_u64..400).prop_map(Step::Pass),
            1 => (-4_000_i64..4_000).prop_map(Step::Jump),
            1 => (1_u32..100, 0_u32..400, 1_u32..4, force())
                .prop_map(|(open, more, successes, force)| Step::Policy { open, max: open + more, successes, force }),
            1 => Just(Step::Restart),
        ]
    }

    struct World {
        circuit: Circuit,
        policy: CircuitBreaker,
        now: Moment,
        longest: u32,
    }

    impl World {
        fn new() -> Self {
            let now = Moment { mono: Instant::now(), wall: Timestamp::from_second(1_800_000_000).expect("a time") };
            let policy = CircuitBreaker::default();
            let longest = policy.max_open_seconds;
            Self { circuit: Circuit::closed(), policy, now, longest }
        }

        fn take(&mut self, step: &Step) -> Vec<Transition> {
            let Self { circuit, policy, now, .. } = self;
            let made = match *step {
                Step::Fail(jitter) => circuit.fail(policy, reason::TIMEOUT, 3, jitter, *now),
                Step::Succeed(last) => circuit.succeed(policy, last, *now),
                Step::TryNow => circuit.try_now(*now),
                Step::Reset => {
                    let reset = circuit.reset(*now);
                    return reset.into_iter().chain(circuit.set_policy(policy, *now)).collect();
                }
                Step::Pass(length) => {
                    now.mono += Duration::from_secs(length);
                    now.wall = after(now.wall, Duration::from_secs(length));
                    None
                }
                Step::Jump(length) => {
                    now.wall = now.wall.checked_add(SignedDuration::from_secs(length)).expect("a time");
                    None
                }
                Step::Policy { open, max, successes, force } => {
                    *policy = CircuitBreaker {
                        open_seconds: open,
                        max_open_seconds: max,
                        success_threshold: successes,
                        force,
                        ..policy.clone()
                    };
                    self.longest = self.longest.max(max);
                    circuit.set_policy(policy, *now)
                }
                Step::Restart => {
                    let kept = serde_json::to_string(circuit.status()).expect("JSON");
                    let kept: CircuitStatus = serde_json::from_str(&kept).expect("what was written");
                    assert_eq!(&kept, circuit.status(), "the persisted form round-trips");
                    *circuit = Circuit::restore(&kept, policy, *now);
                    assert_eq!(circuit.status(), &kept, "and nothing is lost in restoring it");
                    circuit.set_policy(policy, *now)
                }
            };
            made.into_iter().collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn whatever_happens_the_circuit_keeps_its_promises(steps in prop::collection::vec(step(), 1..60)) {
            let mut world = World::new();
            for step in steps {
                let by_hand = matches!(step, Step::Reset) || matches!(&step, Step::Policy { force: Some(_), .. });
                let restarted = matches!(step, Step::Restart);
                let before = world.circuit.state();
                let mut made = world.take(&step);
                made.extend(world.circuit.tick(world.now));
                // Every change is told, in order.
                let mut state = before;
                for transition in &made {
                    prop_assert_eq!(transition.from, state);
                    state = transition.to;
                    if !by_hand && world.policy.force.is_none() {
                        prop_assert!((transition.from, transition.to) != (CircuitState::Open, CircuitState::Closed), "never Open to Closed");
                    }
                }
                prop_assert!(restarted || state == world.circuit.state());
                let status = world.circuit.status();
                match world.policy.force {
                    Some(Force::Open) => prop_assert_eq!(status.state, CircuitState::Open, "force wins"),
                    Some(Force::Closed) => prop_assert_eq!(status.state, CircuitState::Closed, "force wins"),
                    None => {}
                }
                match (status.state, &status.retry_at) {
                    (CircuitState::Open, Some(at)) => {
                        prop_assert!(at.0 > world.now.wall, "retryAt is never in the past");
                        let until = world.circuit.until().expect("an opening with an end");
                        let left = until.saturating_duration_since(world.now.mono);
                        prop_assert!(left > Duration::ZERO && left <= seconds(world.longest), "an opening lasts {left:?}");
                    }
                    (CircuitState::Open, None) => prop_assert_eq!(world.policy.force, Some(Force::Open), "only force has no end"),
                    (_, at) => prop_assert!(at.is_none()),
                }
                prop_assert_eq!(status.reason.is_none(), status.state == CircuitState::Closed, "a reason unless Closed");
                prop_assert!(status.state != CircuitState::Closed || status.openings == 0);
            }
        }

        #[test]
        fn an_opening_is_bounded_and_never_shrinks_by_more_than_the_jitter(open in 1_u32..86_400, more in 0_u32..86_400, openings in 0_u32..200, jitter in 0.0..=1.0) {
            let policy = CircuitBreaker { open_seconds: open, max_open_seconds: open + more, ..CircuitBreaker::default() };
            let length = open_for(&policy, openings, jitter);
            prop_assert!(length >= Duration::from_secs(1) && length <= seconds(policy.max_open_seconds));
            prop_assert!(length.as_secs_f64() >= f64::from(open) * (1.0 - JITTER) - 1.0);
            prop_assert_eq!(length.subsec_nanos(), 0, "whole seconds, as status keeps them");
            prop_assert!(open_for(&policy, openings + 1, jitter) >= length);
        }
    }

    #[test]
    fn a_clock_that_jumps_back_does_not_keep_a_server_out() {
        let mut world = World::new();
        world.take(&Step::Fail(0.5));
        world.take(&Step::Jump(-3_600));
        world.take(&Step::Pass(31));
        assert_eq!(world.circuit.tick(world.now).map(|transition| transition.to), Some(CircuitState::HalfOpen));
    }
}

//! Whether a child that says nothing at all is wedged. Pure: `now` is passed in.
//!
//! That a call had no answer is no proof: whoever is told that an answer is not wanted any more need not give it, and is told so also when the
//! call has waited all of its time. Then we ask ourselves, and what is silent about that, too, is wedged. (Probes give up early, as clients
//! without patience do: of a server that only they call, nothing else is ever seen.)

use std::time::Duration;

use tokio::time::Instant;

/// See the file.
#[derive(Debug)]
pub struct Silence {
    /// So long it may last; zero: for ever.
    limit: Duration,
    /// Since when the child has been asked, and said nothing.
    since: Option<Instant>,
    /// A call waited all of its time.
    expired: bool,
    /// When the first of the calls began that were given up.
    abandoned: Option<Instant>,
    /// When we have asked, too.
    asked: Option<Instant>,
}

/// So long it takes at most to answer that one is there, of a child that can.
const ANSWER: Duration = Duration::from_secs(10);

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// Nothing yet.
    Nothing,
    /// It is to be asked whether it hears.
    Ask,
    /// It does not.
    Wedged,
}

impl Silence {
    /// Nothing has been asked yet.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: None, expired: false, abandoned: None, asked: None }
    }

    /// The child was asked something.
    pub fn asked(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// The child said something, whatever it was. `waiting`: it owes answers still.
    pub fn broken(&mut self, waiting: bool, now: Instant) {
        *self = Self { since: waiting.then_some(now), ..Self::new(self.limit) };
    }

    /// A call has waited all of its time.
    pub fn expired(&mut self) {
        self.expired = true;
    }

    /// A call that began at `began` was given up by its caller.
    pub fn abandoned(&mut self, began: Instant) {
        self.abandoned = Some(self.abandoned.map_or(began, |first| first.min(began)));
    }

    /// `oldest`: when the oldest call began for whose answer somebody waits. Its time is for it to wait out: a child that does one thing at
    /// a time says nothing meanwhile.
    pub fn follows(&mut self, oldest: Option<Instant>, now: Instant) -> Follows {
        let Some(since) = self.since.filter(|_| !self.limit.is_zero()) else { return Follows::Nothing };
        let lasted = now - since;
        let is_doubtful = self.expired || self.abandoned.is_some_and(|first| oldest.is_none_or(|oldest| oldest > first));
        match self.asked {
            _ if !is_doubtful => Follows::Nothing,
            Some(asked) if lasted >= self.limit && now - asked >= ANSWER.min(self.limit / 2) => Follows::Wedged,
            None if lasted >= self.limit / 2 => {
                self.asked = Some(now);
                Follows::Ask
            }
            _ => Follows::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(90);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_child_whose_call_waited_all_of_its_time_is_asked_first() {
        let now = Instant::now();
        let mut silence = Silence::new(LIMIT);
        silence.asked(now);
        assert_eq!(silence.follows(None, at(now, 100)), Follows::Nothing, "it may still answer in time");
        silence.expired();
        assert_eq!(silence.follows(None, at(now, 44)), Follows::Nothing);
        assert_eq!(silence.follows(None, at(now, 45)), Follows::Ask);
        assert_eq!(silence.follows(None, at(now, 89)), Follows::Nothing);
        assert_eq!(silence.follows(None, at(now, 90)), Follows::Wedged);
        // A call may have more time than that.
        let mut late = Silence::new(LIMIT);
        late.asked(now);
        late.expired();
        assert_eq!(late.follows(None, at(now, 300)), Follows::Ask);
        assert_eq!(late.follows(None, at(now, 309)), Follows::Nothing);
        assert_eq!(late.follows(None, at(now, 310)), Follows::Wedged);
        silence.broken(false, at(now, 91));
        assert_eq!(silence.follows(None, at(now, 500)), Follows::Nothing);
    }

    #[test]
    fn a_child_whose_callers_all_gave_up_is_asked_first() {
        let now = Instant::now();
        let mut silence = Silence::new(LIMIT);
        silence.asked(now);
        silence.abandoned(now);
        assert_eq!(silence.follows(None, at(now, 44)), Follows::Nothing);
        assert_eq!(silence.follows(None, at(now, 45)), Follows::Ask);
        assert_eq!(silence.follows(None, at(now, 89)), Follows::Nothing, "once");
        assert_eq!(silence.follows(None, at(now, 90)), Follows::Wedged);
        // One that answered, whatever it was, is asked again only when somebody gives it up again.
        silence.broken(false, at(now, 91));
        silence.asked(at(now, 92));
        assert_eq!(silence.follows(None, at(now, 500)), Follows::Nothing);
    }

    #[test]
    fn a_long_call_that_somebody_waits_for_is_waited_for() {
        let now = Instant::now();
        let mut silence = Silence::new(LIMIT);
        silence.asked(now);
        silence.abandoned(at(now, 10));
        assert_eq!(silence.follows(Some(now), at(now, 200)), Follows::Nothing, "it was called before the one that was given up");
        assert_eq!(silence.follows(Some(at(now, 11)), at(now, 200)), Follows::Ask);
        assert_eq!(silence.follows(Some(at(now, 11)), at(now, 209)), Follows::Nothing, "it may be answering");
        assert_eq!(silence.follows(Some(at(now, 11)), at(now, 210)), Follows::Wedged);
    }

    #[test]
    fn without_a_limit_nothing_ever_follows() {
        let now = Instant::now();
        let mut silence = Silence::new(Duration::ZERO);
        silence.asked(now);
        silence.expired();
        silence.abandoned(now);
        assert_eq!(silence.follows(None, at(now, 10_000)), Follows::Nothing);
    }
}

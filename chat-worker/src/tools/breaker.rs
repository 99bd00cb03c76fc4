//! When a server is left alone: a circuit that opens when it could not be connected, or did not list its tools, some times in a row. Pure: `now` is
//! passed in. An error that a tool reports is no fault; the server has answered.

use std::time::Duration;

use tokio::time::Instant;

/// Faults in a row that open the circuit.
pub const THRESHOLD: u32 = 3;
const OPEN: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(5);

/// The circuit of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    Closed,
    /// No call is made before `until`.
    Open {
        until: Instant,
    },
    /// One probe decides.
    HalfOpen,
}

/// Counts faults.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    failures: u32,
    openings: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { circuit: Circuit::Closed, failures: 0, openings: 0 }
    }
}

impl Breaker {
    /// The circuit as it is at `now`: an open one becomes half open when its time is over.
    pub fn circuit(&mut self, now: Instant) -> Circuit {
        if let Circuit::Open { until } = self.circuit
            && now >= until
        {
            self.circuit = Circuit::HalfOpen;
        }
        self.circuit
    }

    pub fn success(&mut self) {
        *self = Self::default();
    }

    /// Takes a fault; the circuit afterwards.
    pub fn failure(&mut self, now: Instant) -> Circuit {
        self.failures += 1;
        match self.circuit(now) {
            Circuit::HalfOpen => self.open(now),
            Circuit::Closed if self.failures >= THRESHOLD => self.open(now),
            // A fault of a call that began before the circuit opened says nothing new.
            Circuit::Closed | Circuit::Open { .. } => {}
        }
        self.circuit
    }

    /// How long to wait before trying a server again that has just failed.
    pub fn delay(&mut self, now: Instant) -> Duration {
        match self.circuit(now) {
            Circuit::Open { until } => until.saturating_duration_since(now),
            Circuit::Closed | Circuit::HalfOpen => {
                Duration::from_millis(500).saturating_mul(1 << self.failures.saturating_sub(1).min(6))
            }
        }
    }

    fn open(&mut self, now: Instant) {
        let time = OPEN.saturating_mul(1 << self.openings.min(8)).min(LONGEST);
        self.openings += 1;
        self.circuit = Circuit::Open { until: now + time };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_faults_in_a_row_open_and_a_success_between_them_does_not() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failure(now);
        breaker.failure(now);
        breaker.success();
        breaker.failure(now);
        assert_eq!(breaker.failure(now), Circuit::Closed);
        assert_eq!(breaker.failure(now), Circuit::Open { until: now + OPEN });
    }

    #[test]
    fn the_probe_decides_and_each_opening_lasts_longer() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..THRESHOLD {
            breaker.failure(now);
        }
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(breaker.delay(now).as_secs());
            now += breaker.delay(now);
            assert_eq!(breaker.circuit(now), Circuit::HalfOpen);
            breaker.failure(now);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80]);
        breaker.success();
        assert_eq!(breaker.circuit(now), Circuit::Closed);
    }

    #[test]
    fn late_faults_do_not_prolong_an_open_circuit() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            breaker.failure(now);
        }
        assert_eq!(breaker.circuit(now), Circuit::Open { until: now + OPEN });
    }
}

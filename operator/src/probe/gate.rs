//! A pod's readiness gate: what was decided, what the pod shows, and whether a patch is wanted. Where it is decided: `server::settle`. Pure.

use tokio::time::Instant;

/// A pod's readiness gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// As it should be.
    pub decided: bool,
    /// As the pod has it, as far as we know.
    pub actual: Option<bool>,
    /// As the pod had it when we were last told, and in which version of the pod.
    pub(super) reported: (Option<bool>, Option<u64>),
    /// The pod's version that our last patch made: what is told of an older one is no news.
    patched: Option<u64>,
    /// A patch is under way.
    pub in_flight: bool,
    /// Patches that failed in a row.
    pub failures: u32,
    /// When a patch that failed is tried again.
    pub retry: Option<Instant>,
    /// The pod was taken out of service after it had been in it.
    pub taken_out: bool,
}

impl Gate {
    pub(super) fn new(actual: Option<bool>, version: Option<u64>) -> Self {
        Self { decided: actual == Some(true), actual, reported: (actual, version), ..Self::default() }
    }

    /// What the pod has differs from what was decided, and nobody is at it.
    pub fn wants_patch(&self) -> bool {
        !self.in_flight && self.retry.is_none() && self.decided != self.actual.unwrap_or(false)
    }

    /// The decision holds in the cluster, or is about to.
    pub fn holds(&self) -> bool {
        self.decided && (self.failures == 0 || self.actual == Some(true))
    }

    /// Takes up what a version of the pod shows. Where versions cannot be compared, only a change of what is shown is news.
    pub(super) fn report(&mut self, gate: Option<bool>, version: Option<u64>) {
        let before = std::mem::replace(&mut self.reported, (gate, version));
        let news = match (version, self.patched) {
            (Some(version), Some(patched)) => version > patched,
            _ => before.0 != gate,
        };
        if news {
            self.actual = gate;
        }
    }

    /// Our patch went through, and made this version of the pod. Somebody else may have been there since.
    pub fn patched(&mut self, value: bool, version: Option<u64>) {
        self.failures = 0;
        self.patched = version;
        let newer = matches!((self.reported.1, version), (Some(reported), Some(patched)) if reported > patched);
        self.actual = if newer { self.reported.0 } else { Some(value) };
    }
}

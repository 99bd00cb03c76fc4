//! Sees that there is a shared child: one that died is followed by another, until that makes no sense any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::death::Death;
use crate::lane::{End, Lane, Program};
use crate::metrics::Metrics;
use crate::respawn::{Next, Policy, Respawn};

/// How often deadlines are looked at while there is no child.
const TICK: Duration = Duration::from_millis(100);

/// Until the child was stopped (None), or is not to be started again.
pub async fn keep(lane: &Lane, program: &Program, policy: Policy, metrics: &Metrics) -> Option<Arc<Death>> {
    let mut respawn = Respawn::new(policy);
    while !lane.is_stopped() {
        let started = Instant::now();
        let (death, next) = match lane.live(program).await {
            End::Stopped => break,
            End::Died(death) => (Arc::new(death), respawn.died(started, Instant::now())),
            End::Impossible(death) => (Arc::new(death), Next::GiveUp),
        };
        match next {
            Next::StartIn(delay) => {
                tracing::warn!(seconds = delay.as_secs(), "{}; it is started again", death.summary());
                let until = Instant::now() + delay;
                lane.died(&death, Some(until));
                metrics.restarts.inc();
                wait(lane, until).await;
            }
            Next::GiveUp => {
                tracing::error!("{}; it is not started again", death.summary());
                lane.died(&death, None);
                return Some(death);
            }
        }
    }
    lane.died(&Arc::new(Death::new(None, Some("the bridge is being stopped".to_owned()), Vec::new())), None);
    None
}

/// Calls that wait for a child may end while there is none.
async fn wait(lane: &Lane, until: Instant) {
    while Instant::now() < until && !lane.is_stopped() {
        tokio::time::sleep_until(until.min(Instant::now() + TICK)).await;
        lane.with(|calls| calls.tick(Instant::now()));
    }
}

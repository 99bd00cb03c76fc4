//! The scalers of all servers, and what their pods told last. One lock; no I/O.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics_text::{IntGaugeVec, MetricSet};
use tokio::time::Instant;

use super::{
    load::Told,
    scaler::{Bounds, Decision, Load, Look, Scaler},
};
use crate::{
    crd::autoscaling::{Autoscaling, AutoscalingStatus},
    probe::ServerKey,
};

/// What one pod tells counts for so long when it tells nothing.
const COUNTS_FOR: Duration = Duration::from_secs(15);

/// What the autoscaler must know of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The spec's.
    pub autoscaling: Autoscaling,
    /// Its sessions end with their pods, and without that when nobody has used them for so long. None: any pod takes up any session.
    pub sessions: Option<Duration>,
    /// Somebody is there to wake it: without, its last pod stays.
    pub may_sleep: bool,
    /// Where its pods tell their calls.
    pub metrics: &'static str,
    /// The tool that probes call: their calls are nobody's.
    pub probed: Option<String>,
}

/// What came of asking a pod: what it told, or what is amiss with it.
pub type Answer = Result<Told, String>;

/// A pod that was asked.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// What it answered.
    pub answer: Answer,
}

/// What a round of questions changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Fewer pods are wanted: what the end of each would cost, by name.
    pub costs: Option<Vec<(String, u32)>>,
    /// Something else is to be told or done.
    pub changed: bool,
}

#[derive(Debug)]
struct Server {
    asked: Asked,
    scaler: Scaler,
    /// By the pod's uid.
    pods: HashMap<String, (Instant, Told)>,
}

/// The scalers of all servers. Cheap to share.
#[derive(Debug)]
pub struct Autoscaler {
    servers: Mutex<HashMap<ServerKey, Server>>,
    window: Duration,
    desired: IntGaugeVec,
    in_flight: IntGaugeVec,
}

impl Autoscaler {
    /// Registers the metrics. `window`: the time in which no more pods were needed before one goes.
    pub fn new(all: &MetricSet, window: Duration) -> Self {
        let labels = ["namespace", "name"];
        let in_flight = "Calls under way, of servers with spec.autoscaling";
        Self {
            servers: Mutex::default(),
            window,
            desired: all.gauges("mcpfleet_server_desired_replicas", "Pods that spec.autoscaling came to", &labels),
            in_flight: all.gauges("mcpfleet_server_calls_in_flight", in_flight, &labels),
        }
    }

    /// Takes up what a server asks for. The first time it goes on from what was told, or from the pods that `begin` finds.
    pub fn set(
        &self,
        key: &ServerKey,
        asked: Asked,
        begin: impl FnOnce() -> (Option<AutoscalingStatus>, Option<u32>),
        now: Instant,
    ) {
        let bounds = Bounds::of(&asked, self.window);
        let mut servers = self.servers();
        if let Some(server) = servers.get_mut(key) {
            server.scaler.set(bounds);
            server.asked = asked;
        } else {
            let (told, pods) = begin();
            let scaler = Scaler::new(bounds, told.as_ref(), pods, now);
            servers.insert(key.clone(), Server { asked, scaler, pods: HashMap::new() });
        }
        if let Some(server) = servers.get(key) {
            self.show(key, &server.scaler.decision());
        }
    }

    /// The server has no `spec.autoscaling`, or is gone, or rests.
    pub fn forget(&self, key: &ServerKey) {
        if self.servers().remove(key).is_some() {
            let labels = [&*key.namespace, &*key.name];
            // One that was never asked has no calls in flight.
            let _ = self.desired.remove_label_values(&labels);
            let _ = self.in_flight.remove_label_values(&labels);
        }
    }

    /// How many pods a server is to have. None: that is not decided here.
    pub fn decision(&self, key: &ServerKey) -> Option<Decision> {
        self.servers().get(key).map(|server| server.scaler.decision())
    }

    /// Somebody waits for an answer of a server without pods. True: there will be pods now.
    pub fn wanted(&self, key: &ServerKey, now: Instant) -> bool {
        let mut servers = self.servers();
        let Some(server) = servers.get_mut(key) else { return false };
        let before = server.scaler.decision();
        server.scaler.wanted(now);
        let after = server.scaler.decision();
        self.show(key, &after);
        before != after
    }

    /// Whom to ask, and for what.
    pub(super) fn all(&self) -> Vec<(ServerKey, Asked)> {
        self.servers().iter().map(|(key, server)| (key.clone(), server.asked.clone())).collect()
    }

    /// Takes up what a server's pods in service told. `pods`: how many it has. `panic`: most of the fleet fails.
    pub(super) fn heard(&self, key: &ServerKey, heard: Vec<Heard>, pods: u32, panic: bool, now: Instant) -> Changed {
        let mut servers = self.servers();
        let Some(server) = servers.get_mut(key) else { return Changed::default() };
        let before = server.scaler.decision();
        let costs: Vec<_> = heard.iter().map(|pod| (pod.name.clone(), pod.uid.clone())).collect();
        let look = if panic { Look::Panic } else { server.look(heard, now) };
        if let Look::Load(load) = &look {
            self.in_flight.with_label_values(&[&*key.namespace, &*key.name]).set(load.in_flight.into());
        }
        server.scaler.look(look, pods, now);
        let after = server.scaler.decision();
        self.show(key, &after);
        let cost = |uid: &str| server.pods.get(uid).map_or(0, |(_, told)| told.in_flight.saturating_add(told.sessions));
        let costs = || costs.iter().map(|(name, uid)| (name.clone(), cost(uid))).collect();
        Changed { costs: (after.desired < before.desired).then(costs), changed: before != after }
    }

    fn show(&self, key: &ServerKey, decision: &Decision) {
        self.desired.with_label_values(&[&*key.namespace, &*key.name]).set(decision.desired.into());
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<ServerKey, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// What the pods come to. One that tells nothing now is taken by what it told, for a while.
    fn look(&mut self, heard: Vec<Heard>, now: Instant) -> Look {
        let before = std::mem::take(&mut self.pods);
        let mut load = Load::default();
        let mut silent = heard.is_empty().then(|| "no pod is in service".to_owned());
        for Heard { uid, name, answer } in heard {
            let known = before.get(&uid).copied();
            let (at, told) = match (answer, known) {
                (Ok(told), _) => (now, told),
                (Err(_), Some((at, told))) if now.duration_since(at) < COUNTS_FOR => (at, told),
                (Err(why), _) => {
                    silent.get_or_insert_with(|| format!("pod {name} does not tell its calls in flight: {why}"));
                    continue;
                }
            };
            load.in_flight = load.in_flight.saturating_add(told.in_flight);
            load.called |= told.in_flight > 0 || known.is_some_and(|(_, known)| known.calls != told.calls);
            load.holding += u32::from(self.asked.sessions.is_some() && told.sessions > 0);
            self.pods.insert(uid, (at, told));
        }
        silent.map_or(Look::Load(load), Look::Silent)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A server that was told of, and when.
    fn fleet() -> (Autoscaler, ServerKey, Instant) {
        let autoscaler = Autoscaler::new(&MetricSet::default(), Duration::from_mins(5));
        let (key, now) = (ServerKey::new("team", "search"), Instant::now());
        let autoscaling = serde_json::from_value(json!({"maxReplicas": 10})).expect("a spec");
        let sessions = Some(Duration::from_mins(5));
        let asked = Asked { autoscaling, sessions, may_sleep: true, metrics: "/metrics", probed: None };
        autoscaler.set(&key, asked, || (None, None), now);
        (autoscaler, key, now)
    }

    fn heard(name: &str, answer: Result<(u32, u32), &str>) -> Heard {
        let told = |(in_flight, sessions)| Told { in_flight, calls: 0, sessions };
        Heard { uid: name.into(), name: name.into(), answer: answer.map(told).map_err(Into::into) }
    }

    /// So many rounds with these answers, three seconds apart. The last one's news.
    fn rounds(fleet: &(Autoscaler, ServerKey, Instant), seconds: std::ops::Range<u64>, answers: &[Heard]) -> Changed {
        let (autoscaler, key, begun) = fleet;
        let mut last = Changed::default();
        for second in seconds.step_by(3) {
            let pods = autoscaler.decision(key).expect("known").desired;
            last = autoscaler.heard(key, answers.to_vec(), pods, false, *begun + Duration::from_secs(second));
        }
        last
    }

    fn decided(fleet: &(Autoscaler, ServerKey, Instant)) -> (u32, String) {
        let decision = fleet.0.decision(&fleet.1).expect("known");
        (decision.desired, decision.reason)
    }

    #[test]
    fn the_calls_of_all_pods_count_together_and_one_that_is_silent_for_a_moment_by_what_it_told() {
        let fleet = fleet();
        rounds(&fleet, 0..30, &[heard("a", Ok((10, 0))), heard("b", Ok((14, 0)))]);
        assert_eq!(decided(&fleet).0, 3, "24 calls, 8 a pod");
        rounds(&fleet, 30..39, &[heard("a", Ok((26, 0))), heard("b", Err("refused"))]);
        assert_eq!(decided(&fleet).0, 5, "26 and the 14 of before");
        rounds(&fleet, 39..75, &[heard("a", Ok((80, 0))), heard("b", Err("refused"))]);
        let (before, reason) = decided(&fleet);
        assert_eq!(reason, "held: pod b does not tell its calls in flight: refused");
        rounds(&fleet, 75..600, &[heard("a", Ok((0, 0))), heard("b", Err("refused"))]);
        assert_eq!(decided(&fleet).0, before, "nothing is decided without it");
        rounds(&fleet, 600..612, &[]);
        assert_eq!(decided(&fleet).1, "held: no pod is in service");
    }

    #[test]
    fn before_a_pod_goes_it_is_told_what_the_end_of_each_costs() {
        let fleet = fleet();
        let three = [heard("a", Ok((20, 1))), heard("b", Ok((1, 0))), heard("c", Ok((3, 0)))];
        assert_eq!(rounds(&fleet, 0..9, &three).costs, None, "there will be more");
        let fewer = [heard("a", Ok((1, 4))), heard("b", Ok((1, 0))), heard("c", Ok((0, 0)))];
        let costs = (9..400).step_by(3).find_map(|second| rounds(&fleet, second..second + 1, &fewer).costs);
        assert_eq!(costs.expect("one goes"), [("a".to_owned(), 5), ("b".to_owned(), 1), ("c".to_owned(), 0)]);
    }

    #[test]
    fn a_server_that_is_forgotten_leaves_no_series_and_begins_anew() {
        let fleet = fleet();
        rounds(&fleet, 0..9, &[heard("a", Ok((40, 0)))]);
        let (autoscaler, key, now) = &fleet;
        assert_eq!(autoscaler.desired.with_label_values(&["team", "search"]).get(), 5);
        autoscaler.forget(key);
        assert_eq!(autoscaler.decision(key), None);
        let series = |gauges: &IntGaugeVec| {
            metrics_text::Collector::collect(gauges).iter().map(|family| family.get_metric().len()).sum::<usize>()
        };
        assert_eq!((series(&autoscaler.desired), series(&autoscaler.in_flight)), (0, 0));
        assert_eq!(autoscaler.heard(key, vec![heard("a", Ok((80, 0)))], 1, false, *now), Changed::default());
    }
}

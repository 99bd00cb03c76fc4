//! Tests: a property of the whole registry: whatever happens in whatever order, its parts agree with each other, and nothing is left when
//! everything is gone.

use std::{collections::BTreeSet, net::Ipv4Addr};

use k8s_openapi::{
    api::core::v1::ObjectReference,
    jiff::{SignedDuration, Timestamp},
};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    crd::{CircuitBreaker, Era, Force, Health, ServerInfo, ToolsPolicy},
    probe::{
        effect::{Evicted, Eviction, GatePatch, Patched},
        protocol::Hello,
        template::Template,
        types::{Endpoint, ServerSpec, ToolsContract},
        verdict::Status,
    },
    rollout::Origin,
};

const CAP: usize = 6;
const SERVERS: u8 = 3;

/// What can happen.
#[derive(Clone, Debug)]
enum Event {
    /// A CR comes, or changes.
    SetServer {
        server: u8,
        spec: Spec,
    },
    RemoveServer(u8),
    /// A pod comes, or changes. Few addresses for many pods: they are used again.
    SetPod {
        server: u8,
        pod: Pod,
    },
    RemovePod {
        name: u8,
        life: u8,
    },
    /// Both clocks go on, by so many milliseconds.
    Pass(u64),
    /// The wall clock jumps, by so many seconds.
    Jump(i64),
    Poll,
    Hedge(Index),
    /// An attempt ends; with nothing where it was cancelled.
    End(Index, Option<Found>),
    Patched(Index, Patched),
    Evicted(Index, Evicted),
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a field of the spec")]
struct Spec {
    remote: bool,
    path: bool,
    enabled: bool,
    lacks: bool,
    paused: bool,
    recheck: u8,
    interval: u32,
    threshold: u32,
    startup: u32,
    restart: u32,
    force: Option<Force>,
}

#[derive(Clone, Debug)]
struct Pod {
    name: u8,
    life: u8,
    address: Option<u8>,
    incarnation: u8,
    asked: Option<u8>,
    ready: bool,
    gate: Option<bool>,
    deleting: bool,
}

#[derive(Clone, Debug)]
enum Found {
    Well,
    Refused,
    Hung,
    Limited(u64),
}

fn spec() -> impl Strategy<Value = Spec> {
    let on = (prop::bool::weighted(0.85), prop::bool::weighted(0.1));
    let flags = (prop::bool::weighted(0.2), any::<bool>(), on, prop::bool::weighted(0.1));
    let force = prop_oneof![6 => Just(None), 1 => Just(Some(Force::Open)), 1 => Just(Some(Force::Closed))];
    (flags, 0_u8..2, 1_u32..30, 1_u32..4, 0_u32..60, 0_u32..3, force).prop_map(
        |((remote, path, (enabled, lacks), paused), recheck, interval, threshold, startup, restart, force)| Spec {
            remote,
            path,
            enabled,
            lacks,
            paused,
            recheck,
            interval,
            threshold,
            startup,
            restart,
            force,
        },
    )
}

fn pod() -> impl Strategy<Value = Pod> {
    let gate = prop_oneof![2 => Just(None), 1 => Just(Some(false)), 2 => Just(Some(true))];
    let run = (0_u8..4, prop::option::of(1_u8..3));
    (0_u8..3, 0_u8..2, prop::option::weighted(0.9, 0_u8..4), run, any::<bool>(), gate, prop::bool::weighted(0.1)).prop_map(
        |(name, life, address, (incarnation, asked), ready, gate, deleting)| Pod {
            name,
            life,
            address,
            incarnation,
            asked,
            ready,
            gate,
            deleting,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let found = prop_oneof![
        5 => Just(Found::Well),
        4 => Just(Found::Refused),
        2 => Just(Found::Hung),
        1 => (0_u64..900).prop_map(Found::Limited),
    ];
    let patched = prop_oneof![4 => Just(Patched::Done(None)), 1 => Just(Patched::Gone), 2 => Just(Patched::Failed)];
    let evicted = prop_oneof![
        Just(Evicted::Done),
        Just(Evicted::Restarted),
        Just(Evicted::Gone),
        Just(Evicted::Refused("a budget".into()))
    ];
    prop_oneof![
        4 => (0..SERVERS, spec()).prop_map(|(server, spec)| Event::SetServer { server, spec }),
        1 => (0..SERVERS).prop_map(Event::RemoveServer),
        8 => (0..SERVERS, pod()).prop_map(|(server, pod)| Event::SetPod { server, pod }),
        2 => (0_u8..3, 0_u8..2).prop_map(|(name, life)| Event::RemovePod { name, life }),
        6 => (0_u64..3_000).prop_map(Event::Pass),
        1 => (0_u64..400_000).prop_map(Event::Pass),
        1 => (-4_000_i64..4_000).prop_map(Event::Jump),
        10 => Just(Event::Poll),
        2 => any::<Index>().prop_map(Event::Hedge),
        12 => (any::<Index>(), prop::option::weighted(0.9, found)).prop_map(|(index, found)| Event::End(index, found)),
        4 => (any::<Index>(), patched).prop_map(|(index, outcome)| Event::Patched(index, outcome)),
        1 => (any::<Index>(), evicted).prop_map(|(index, outcome)| Event::Evicted(index, outcome)),
    ]
}

/// A probe under way, with its attempts.
#[derive(Debug)]
struct Flight {
    id: TargetId,
    epoch: u32,
    attempts: Vec<AttemptId>,
}

struct World {
    registry: Registry,
    now: Moment,
    flights: Vec<Flight>,
    patches: Vec<GatePatch>,
    evictions: Vec<Eviction>,
    /// Results of an older epoch than this are void.
    voided: HashMap<TargetId, u32>,
    hello: Arc<Hello>,
}

fn key(server: u8) -> ServerKey {
    // Two of them share a namespace.
    ServerKey::new(if server == 0 { "a" } else { "b" }, format!("s{server}"))
}

fn uid(name: u8, life: u8) -> String {
    format!("{name}-{life}")
}

impl World {
    fn new() -> Self {
        let now = Moment { mono: Instant::now(), wall: Timestamp::from_second(1_800_000_000).expect("a time") };
        let server_info = ServerInfo { name: "s".into(), version: "1".into() };
        let hello = Arc::new(Hello { era: Era::Modern, version: "2026-07-28", server_info, tools: false });
        Self {
            registry: Registry::new(CAP, 1, now.mono),
            now,
            flights: Vec::new(),
            patches: Vec::new(),
            evictions: Vec::new(),
            voided: HashMap::new(),
            hello,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), TestCaseError> {
        let now = self.now;
        let effects = match event {
            Event::SetServer { server, spec } => self.registry.set_server(&key(server), server_spec(&spec), None, now),
            Event::RemoveServer(server) => self.registry.remove_server(&key(server), now),
            Event::SetPod { server, pod } => self.registry.set_pod(&key(server), self.pod_state(&pod), now),
            Event::RemovePod { name, life } => self.registry.remove_pod(&uid(name, life), now),
            Event::Pass(length) => {
                self.now.mono += Duration::from_millis(length);
                let length = SignedDuration::from_millis(length.try_into().expect("short"));
                self.now.wall = now.wall.checked_add(length).expect("in range");
                Vec::new()
            }
            Event::Jump(length) => {
                self.now.wall = now.wall.checked_add(SignedDuration::from_secs(length)).expect("in range");
                Vec::new()
            }
            Event::Poll => self.poll()?,
            Event::Hedge(index) => {
                if !self.flights.is_empty() {
                    let flight = index.index(self.flights.len());
                    self.flights[flight].attempts.extend(self.registry.hedge(now));
                }
                Vec::new()
            }
            Event::End(index, found) if !self.flights.is_empty() => self.end(index.index(self.flights.len()), found.as_ref())?,
            Event::Patched(index, outcome) if !self.patches.is_empty() => {
                let patch = self.patches.swap_remove(index.index(self.patches.len()));
                self.registry.patched(patch.id, patch.value, outcome, now)
            }
            Event::Evicted(index, outcome) if !self.evictions.is_empty() => {
                let eviction = self.evictions.swap_remove(index.index(self.evictions.len()));
                self.registry.evicted(&eviction, &outcome, now)
            }
            Event::End(..) | Event::Patched(..) | Event::Evicted(..) => Vec::new(),
        };
        self.follow(effects)
    }

    fn pod_state(&self, pod: &Pod) -> PodState {
        PodState {
            name: format!("pod-{}", pod.name),
            uid: uid(pod.name, pod.life),
            address: pod.address.map(|last| Ipv4Addr::new(10, 0, 0, last).into()),
            // The container runs, for the first time or again, or it is down.
            incarnation: (pod.incarnation > 0).then(|| pod.incarnation.to_string()),
            containers_ready: pod.ready,
            ready: pod.ready && pod.gate == Some(true),
            gate: pod.gate,
            started_at: Some(self.now.wall),
            deleting: pod.deleting,
            asked: pod
                .asked
                .map(|port| Arc::new(Template { port: port.into(), path: "/mcp".into(), tool_call: None, digest: None })),
            origin: Origin { template: Some(pod.asked.unwrap_or_default().to_string()), made: None },
            node: Some(format!("node-{}", pod.name % 2)),
            ..PodState::default()
        }
    }

    fn poll(&mut self) -> Result<Vec<Effect>, TestCaseError> {
        let (jobs, effects) = self.registry.poll(self.now);
        for job in jobs {
            let target = self.target(job.id);
            prop_assert!(target.is_some_and(|target| target.busy && target.epoch == job.epoch), "a job for nobody");
            let ip = target.and_then(|target| target.pod.as_ref()).and_then(|pod| pod.address);
            prop_assert_eq!(ip, job.ip, "a probe of an address that is not the pod's");
            self.flights.push(Flight { id: job.id, epoch: job.epoch, attempts: vec![job.attempt] });
        }
        Ok(effects)
    }

    fn end(&mut self, index: usize, found: Option<&Found>) -> Result<Vec<Effect>, TestCaseError> {
        let flight = &mut self.flights[index];
        let (id, epoch) = (flight.id, flight.epoch);
        let attempt = flight.attempts.pop().expect("a flight has an attempt");
        let last = flight.attempts.is_empty();
        if last {
            self.flights.swap_remove(index);
        }
        let before = format!("{:?}", self.target(id));
        let void = self.target(id).is_none_or(|target| target.epoch != epoch);
        self.registry.end(attempt);
        let result = match found {
            // A hedge that is given up says nothing; a probe that is, is made again.
            None if !last => return Ok(Vec::new()),
            None => {
                self.registry.abandon(id, epoch, Duration::ZERO, self.now);
                prop_assert!(!void || before == format!("{:?}", self.target(id)), "a probe of before was given up for another");
                return Ok(Vec::new());
            }
            Some(Found::Well) => Ok(Observation { hello: Arc::clone(&self.hello), tools: None, session: false, kept: None }),
            Some(Found::Refused) => Err(Problem::Refused),
            Some(Found::Hung) => Err(Problem::Timeout { step: Step::List, after: Duration::from_secs(1) }),
            Some(Found::Limited(wait)) => {
                let retry_after = Some(Duration::from_secs(*wait));
                Err(Problem::Status(Status { step: Step::List, code: 429, path: "/mcp".into(), retry_after, names_host: false }))
            }
        };
        let outcome = Outcome { id, epoch, result, known: Known::default(), latency: Duration::from_millis(1), last };
        let (verdict, effects) = self.registry.record(outcome, self.now);
        if void {
            prop_assert!(verdict.is_none() && effects.is_empty(), "a stale result counts");
            prop_assert_eq!(before, format!("{:?}", self.target(id)), "a stale result changed a target");
        } else {
            prop_assert!(verdict.is_some());
        }
        Ok(effects)
    }

    fn follow(&mut self, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Gate(patch) => {
                    let uid = self.target(patch.id).and_then(|target| target.pod.as_ref()).map(|pod| pod.uid.clone());
                    prop_assert_eq!(uid, Some(patch.uid.clone()), "a gate of another pod is patched");
                    self.patches.push(patch);
                }
                Effect::Evict(eviction) => {
                    let known = self.target(eviction.id).and_then(|target| target.pod.as_ref()).map(|pod| pod.uid.clone());
                    prop_assert_eq!(known, Some(eviction.uid.clone()), "another pod is evicted");
                    self.evictions.push(eviction);
                }
                Effect::Forget(id, epoch) => {
                    self.voided.insert(id, epoch);
                }
                Effect::Changed(_)
                | Effect::Event(_)
                | Effect::Transition(..)
                | Effect::Turned(..)
                | Effect::Gone(_)
                | Effect::Panic(_) => {}
            }
        }
        Ok(())
    }

    fn target(&self, id: TargetId) -> Option<&Target> {
        self.registry.servers.values().find_map(|server| server.targets.get(&id))
    }

    /// All that must hold between any two events.
    fn check(&self) -> Result<(), TestCaseError> {
        let registry = &self.registry;
        let (quick, slow) = registry.in_flight();
        let attempts: usize = self.flights.iter().map(|flight| flight.attempts.len()).sum();
        prop_assert_eq!(quick + slow, attempts, "places taken and attempts under way");
        prop_assert!(attempts <= CAP, "more than the cap");

        let mut timers = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for server in registry.servers.values() {
            timers.extend(server.timer().map(|at| (at, Timer::Server(Arc::clone(&server.key)))));
            for target in server.targets.values() {
                ids.insert(target.id);
                prop_assert_eq!(registry.index.get(&target.id), Some(&server.key));
                timers.extend(target.due.map(|at| (at, Timer::Probe(target.id))));
                timers.extend(target.gate.retry.map(|at| (at, Timer::Gate(target.id))));
                self.check_target(server, target)?;
            }
        }
        timers.extend(registry.panic_ends.map(|at| (at, Timer::Panic)));
        prop_assert_eq!(registry.panic_ends, registry.panic.until(), "a panic that nobody ends");
        prop_assert_eq!(registry.index.len(), ids.len(), "the index and the targets");
        for (uid, id) in &registry.pods {
            let known = self.target(*id).and_then(|target| target.pod.as_ref()).map(|pod| &pod.uid);
            prop_assert_eq!(known, Some(uid), "a pod that is indexed as another");
        }
        let pods = registry.servers.values().flat_map(|server| server.targets.values()).filter(|target| target.pod.is_some());
        prop_assert_eq!(registry.pods.len(), pods.count(), "a pod that is a target twice, or not indexed");
        prop_assert_eq!(registry.schedule.timers(), &timers, "the timers that run and those that somebody knows");
        self.check_asked()?;

        // Fleet panic counts servers that answered since they started, and are probed.
        for (key, failed_at) in registry.panic.members() {
            let server = registry.servers.get(key);
            prop_assert!(server.is_some_and(|server| server.spec.is_some() && !server.rests()), "{key} is at rest, or gone");
            let counted = || {
                server.into_iter().flat_map(|server| server.targets.values()).filter(|target| target.reachable() && target.proven)
            };
            let well = counted().any(Target::is_well);
            prop_assert!(
                counted().next().is_some() && well == failed_at.is_none(),
                "{key} is counted as something else than it is"
            );
        }
        Ok(())
    }

    fn check_target(&self, server: &Server, target: &Target) -> Result<(), TestCaseError> {
        let under_way = self.flights.iter().filter(|flight| flight.id == target.id && flight.epoch == target.epoch).count();
        prop_assert!(under_way <= 1, "probed twice at a time");
        prop_assert_eq!(target.busy, under_way == 1, "busy, and under way: {:?}", server.key);
        let patching = self.patches.iter().any(|patch| patch.id == target.id);
        prop_assert_eq!(target.gate.in_flight, patching, "a patch under way");
        // What began before is told to end.
        let older = self.flights.iter().filter(|flight| flight.id == target.id && flight.epoch < target.epoch);
        for flight in older {
            prop_assert!(self.voided.get(&target.id).is_some_and(|epoch| *epoch > flight.epoch), "nobody gave up a void probe");
        }
        Ok(())
    }

    /// Whoever can be asked will be: at a time, in line, or now.
    fn check_asked(&self) -> Result<(), TestCaseError> {
        for server in self.registry.servers.values() {
            let Some(spec) = server.spec.as_ref() else { continue };
            let reachable = || server.targets.values().filter(|target| target.reachable());
            let asked = |target: &Target| target.busy || target.queued || target.due.is_some();
            match server.circuit.state() {
                _ if !spec.is_probed() => {
                    prop_assert!(server.targets.values().all(|target| target.due.is_none()), "at rest, and to be probed");
                }
                _ if server.circuit.forced().is_some() => prop_assert!(reachable().all(asked), "forgotten under force"),
                CircuitState::Closed => prop_assert!(reachable().all(asked), "forgotten"),
                CircuitState::HalfOpen => {
                    prop_assert!(reachable().next().is_none() || reachable().any(asked), "a trial that nobody makes");
                }
                CircuitState::Open => prop_assert!(server.timer().is_some(), "an opening that never ends"),
            }
        }
        Ok(())
    }
}

fn server_spec(spec: &Spec) -> ServerSpec {
    let path = if spec.path { "/mcp" } else { "/other" };
    ServerSpec {
        object: ObjectReference::default(),
        endpoint: if spec.remote {
            Endpoint::Remote { url: format!("http://example.com{path}").parse().expect("a URL") }
        } else {
            Endpoint::Pods { port: 8080, path: path.into(), host: "s".into() }
        },
        credentials: Vec::new(),
        ca: None,
        lacks_credentials: spec.lacks,
        enabled: spec.enabled,
        paused: spec.paused,
        recheck: Some(spec.recheck.to_string()),
        may_sleep: false,
        health: Health {
            interval_seconds: spec.interval,
            timeout_seconds: 1,
            startup_seconds: spec.startup,
            restart_after_seconds: spec.restart,
            tool_call: None,
            accept_unauthorized: false,
        },
        breaker: CircuitBreaker { failure_threshold: spec.threshold, force: spec.force, ..CircuitBreaker::default() },
        tools: ToolsContract { policy: ToolsPolicy::Ignore, ..ToolsContract::default() },
        mask: std::sync::Arc::default(),
        reach: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_registry_agrees_with_itself_and_leaves_nothing_behind(events in prop::collection::vec(event(), 1..150)) {
        let mut world = World::new();
        for event in events {
            world.take(event)?;
            world.check()?;
        }
        // Everything goes; what is still under way ends after that. A pod outlives its server until Kubernetes says that it went.
        for server in 0..SERVERS {
            world.take(Event::RemoveServer(server))?;
            world.check()?;
        }
        for (name, life) in (0..3).flat_map(|name| [(name, 0), (name, 1)]) {
            world.take(Event::RemovePod { name, life })?;
            world.check()?;
        }
        while !world.flights.is_empty() {
            world.end(0, Some(&Found::Well))?;
            world.check()?;
        }
        world.take(Event::Poll)?;
        prop_assert!(world.registry.servers.is_empty() && world.registry.schedule.is_idle());
        prop_assert!(world.registry.pods.is_empty() && world.registry.panic.members().next().is_none());
        // An end of panic may be due yet.
        world.take(Event::Pass(900_000))?;
        world.take(Event::Poll)?;
        prop_assert_eq!(world.registry.wake(), None);
        prop_assert_eq!(world.registry.panic.counts(), (0, 0));
    }
}

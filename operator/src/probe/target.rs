//! One thing that is probed: a pod, or a remote endpoint. What its probes said, and what its gate is. Pure.
//!
//! What that means for the server as a whole is `server`'s.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    converse::{Known, Observation},
    gate::Gate,
    latencies::Latencies,
    pace::EAGER,
    route::Route,
    schedule::TargetId,
    tools::ToolsList,
    types::{Moment, PodState, ServerSpec},
    verdict::{Kind, Verdict},
};
use crate::crd::reason;

/// After its first failure a server is known to fail within so long.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

/// Who has not answered after so long is silent, unless its answers take longer.
const SILENT: Duration = Duration::from_millis(500);

/// Whether somebody asked by the annotation `mcpfleet.dev/recheck`, and is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// Nobody did.
    No,
    /// The next probe that begins is theirs: one that is under way began before.
    Wanted,
    /// It is under way.
    UnderWay,
}

/// One thing that is probed.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any mix of them occurs")]
pub struct Target {
    /// Its name within the engine.
    pub id: TargetId,
    /// The pod; none for a remote endpoint.
    pub pod: Option<PodState>,
    /// Grows when what is probed becomes another: results of an older epoch are void.
    pub epoch: u32,
    /// Shifts its slots.
    pub phase: u64,
    /// What helps the next probe.
    pub known: Known,
    /// What it said when it last answered well.
    pub observation: Option<Observation>,
    /// The verdict of the last probe.
    pub last: Verdict,
    /// The last verdict, in the words in which it was first met: what a server says of itself may differ at every probe.
    told: Verdict,
    /// The last verdict that counts.
    pub settled: Verdict,
    /// Failures in a row.
    pub streak: u32,
    /// When the first probe of that row began.
    pub row_began: Option<Instant>,
    /// It was asked because others fail, has not answered for so long that it probably will not, and is counted as if it had failed.
    pub presumed: bool,
    /// Those of them that were past its start.
    counted: u32,
    /// Failures in a row with the same reason.
    same: u32,
    /// Failures in a row with the same words.
    same_words: u32,
    /// Answers in a row that say no, while failing.
    answered: u32,
    /// It has answered since this run of it started.
    pub proven: bool,
    /// It has answered in some run: another start may mend what fails now.
    pub once_well: bool,
    /// Of what kind its last answer was that counts; Unknown while there was none.
    pub answer: Kind,
    /// It was in service before: that it says no to us keeps it out no more.
    pub admitted: bool,
    /// Clients were sent to it: it is no pod that is still to come.
    pub served: bool,
    /// What our predecessor found out about it stands: nothing that counts was found out since.
    pub inherited: bool,
    /// Failed often enough in a row to count, and past its start.
    pub failing: bool,
    /// Since when, without an answer in between.
    pub failing_since: Option<Instant>,
    /// It asked not to be bothered before.
    pub not_before: Option<Instant>,
    /// To be probed at once.
    pub urgent: bool,
    /// Whether a person waits for what a probe brings.
    pub recheck: Recheck,
    /// When it is due.
    pub due: Option<Instant>,
    /// It is in line.
    pub queued: bool,
    /// It is being probed.
    pub busy: bool,
    /// When its last probe began.
    pub asked_at: Option<Instant>,
    /// When the last probe ended.
    pub ended: Option<Moment>,
    /// Of its last probes that got an answer.
    pub latencies: Latencies,
    /// Its gate.
    pub gate: Gate,
    /// What it is asked with since the CR gives other credentials.
    pub former: Option<Former>,
    /// The tools with which it was in service when the contract became another one.
    pub excused: Option<Box<str>>,
    /// When this run of it started, as we saw it.
    started: Moment,
}

type Credentials = Vec<(HeaderName, HeaderValue)>;

/// The credentials with which a pod answered before the CR gave others. It started with them, as a rule, and takes no others.
#[derive(Debug)]
pub struct Former {
    /// The headers.
    pub credentials: Credentials,
    /// What its requests carry, made once.
    pub route: Option<Arc<Route>>,
    /// What is still there then is asked with the new ones: whether they are right is to be known.
    pub until: Instant,
}

/// How long a rollout may take that brings pods with other credentials: the usual `progressDeadlineSeconds`.
const ROTATION: Duration = Duration::from_mins(10);

impl Target {
    /// The CR gives other credentials than before. True: it is asked with those before, which it takes.
    pub fn keeps_credentials(&mut self, before: &[(HeaderName, HeaderValue)], now: Instant) -> bool {
        if self.former.is_none() && self.pod.is_some() && self.proven && !self.failing && !before.is_empty() {
            self.former = Some(Former { credentials: before.to_vec(), route: None, until: now + ROTATION });
        }
        self.former.is_some()
    }

    /// A target that was not probed yet. A pod whose gate is True was found good by our predecessor, and is taken for that.
    pub fn new(id: TargetId, name: &str, pod: Option<PodState>, now: Moment) -> Self {
        let gate = Gate::new(pod.as_ref().and_then(|pod| pod.gate), pod.as_ref().and_then(|pod| pod.version));
        let proven = gate.decided && pod.as_ref().is_some_and(|pod| pod.incarnation.is_some());
        Self {
            id,
            epoch: 0,
            phase: BuildHasherDefault::<DefaultHasher>::default().hash_one(name),
            known: Known::default(),
            observation: None,
            last: Verdict::unknown(),
            told: Verdict::unknown(),
            settled: Verdict::unknown(),
            streak: 0,
            row_began: None,
            presumed: false,
            counted: 0,
            same: 0,
            same_words: 0,
            answered: 0,
            proven,
            // A gate is set for the first time when the pod has answered.
            once_well: gate.actual.is_some(),
            answer: Kind::Unknown,
            admitted: gate.actual.is_some(),
            // A gate that was closed was open.
            served: pod.as_ref().is_some_and(|pod| pod.ready) || gate.actual == Some(false),
            inherited: gate.actual.is_some(),
            failing: false,
            failing_since: None,
            not_before: None,
            urgent: !proven,
            recheck: Recheck::No,
            due: None,
            queued: false,
            busy: false,
            asked_at: None,
            ended: None,
            latencies: Latencies::default(),
            started: started(pod.as_ref(), now),
            former: None,
            excused: None,
            gate,
            pod,
        }
    }

    /// Our predecessor left it in use: as a pod whose gate is True it is taken for good, and counts among those who were well.
    pub const fn found_good_before(&mut self) {
        self.proven = true;
        self.once_well = true;
    }

    /// All that the pod says is known. Its version alone is nothing new, but of the gate it says how recent that is.
    pub fn is_told(&mut self, pod: &PodState) -> bool {
        let Some(known) = self.pod.as_mut() else { return false };
        let version = std::mem::replace(&mut known.version, pod.version);
        if known == pod && self.gate.actual == pod.gate {
            self.gate.reported = (pod.gate, pod.version);
            return true;
        }
        known.version = version;
        false
    }

    /// Takes up what Kubernetes says about the pod. True when it is no longer the same thing that answers.
    pub fn update(&mut self, pod: PodState, now: Moment) -> bool {
        self.gate.report(pod.gate, pod.version);
        let (address, incarnation) = (pod.address, pod.incarnation.clone());
        self.served |= pod.ready && pod.gate == Some(true);
        let Some(before) = self.pod.replace(pod) else { return false };
        // The kubelet tells of a run a moment after it began: one that answered meanwhile is the one it tells of.
        let late = before.incarnation.is_none() && self.proven;
        let restarted = incarnation != before.incarnation && !late;
        if restarted {
            self.start_anew(now);
        }
        let asked = self.pod.as_ref().and_then(|pod| pod.asked.as_ref());
        let another = restarted || address != before.address || asked != before.asked.as_ref();
        if another {
            self.become_another();
        } else if before.containers_ready && self.pod.as_ref().is_some_and(|pod| !pod.containers_ready) {
            // The kubelet met something, in a server behind the bridge the end of its child: why is for the prober to find out.
            self.urgent = true;
        }
        another
    }

    /// Another run of the container: whatever the one before answered, this one has to prove itself, and may take its time.
    fn start_anew(&mut self, now: Moment) {
        let asked = self.last.kind != Kind::Unknown;
        self.started = now;
        self.proven = false;
        self.streak = 0;
        self.same = 0;
        self.presumed = false;
        self.inherited = false;
        // It starts with what the Secret holds now.
        self.former = None;
        self.recover();
        let verdict = if asked {
            Verdict::new(Kind::Unknown, reason::STARTING, "its container started anew, and has not answered yet")
        } else {
            Verdict::unknown()
        };
        self.last = verdict.clone();
        self.told = verdict.clone();
        self.settled = verdict;
    }

    /// The container that speaks MCP is not running: nothing can answer, and that is no failure of the server's.
    pub fn is_down(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.incarnation.is_none())
    }

    /// What answers there is another one: void what is under way, and ask it at once.
    pub fn become_another(&mut self) {
        self.epoch += 1;
        self.known = Known::default();
        self.not_before = None;
        self.urgent = true;
    }

    /// Forgets every verdict: the address is another one.
    pub fn forget_verdicts(&mut self) {
        self.last = Verdict::unknown();
        self.told = Verdict::unknown();
        self.settled = Verdict::unknown();
        self.observation = None;
        self.streak = 0;
        self.presumed = false;
        self.same = 0;
        self.answered = 0;
        self.proven = false;
        self.answer = Kind::Unknown;
        self.admitted = false;
        self.inherited = false;
        self.former = None;
        self.recover();
    }

    /// It answers: a client gets what it needs, as far as we know.
    pub fn answers(&self) -> bool {
        self.reachable() && self.proven && !self.failing
    }

    /// It answered when it was last asked, as far as we know.
    pub const fn is_well(&self) -> bool {
        self.streak == 0 && !self.presumed
    }

    /// It is being probed for longer than its answers take, and well beyond.
    pub fn is_silent(&self, now: Instant) -> bool {
        let usual = self.latencies.percentile(95).map_or(Duration::ZERO, |ms| Duration::from_secs_f32(ms / 500.0));
        self.busy && self.asked_at.is_some_and(|at| at + usual.max(SILENT) <= now)
    }

    /// The row of its failures counts from now on: what it said before may have been our own fault.
    pub const fn doubt_anew(&mut self, now: Instant) {
        self.row_began = Some(now);
    }

    /// Until when it may be left in service for finding out whether it is them or us: whoever began to fail right after an answer is still
    /// known within interval + timeout + 3 s.
    pub fn doubted_until(&self, spec: &ServerSpec) -> Option<Instant> {
        let longest = Duration::from_secs(u64::from(spec.health.timeout_seconds)) + CONFIRMED_WITHIN;
        self.row_began.filter(|_| self.failing).map(|began| began + longest)
    }

    /// As far as we know it answers as it should, or will: what fails now did when it last answered, and who was found good before us and
    /// was not asked yet is taken for that.
    pub fn is_thought_well(&self) -> bool {
        match self.answer {
            Kind::Healthy => true,
            Kind::Unknown => self.proven && !self.failing,
            Kind::Alive | Kind::Failed => false,
        }
    }

    /// Failures in a row that count: those of its start do not.
    pub const fn counted_failures(&self) -> u32 {
        self.counted
    }

    /// It can be probed.
    pub fn reachable(&self) -> bool {
        self.pod.as_ref().is_none_or(|pod| pod.address.is_some() && !pod.deleting)
    }

    /// It has not answered since it started, and may still take its time: for so long, or for as long as its container does not run.
    pub fn starting(&self, spec: &ServerSpec, now: Instant) -> bool {
        !self.proven && (self.is_down() || self.has_time(spec, now))
    }

    /// It served until another run of it began, or the one before ended, less than its time to start ago.
    pub fn comes_back(&self, spec: &ServerSpec, now: Instant) -> bool {
        self.reachable() && self.once_well && !self.proven && self.has_time(spec, now)
    }

    fn has_time(&self, spec: &ServerSpec, now: Instant) -> bool {
        let window = Duration::from_secs(spec.health.startup_seconds.into());
        self.pod.is_some() && self.age(now) < window
    }

    /// How long this run of it has been there.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started.mono)
    }

    /// While it is starting and its container runs: when its failures begin to count.
    pub fn counts_from(&self, spec: &ServerSpec, now: Instant) -> Option<Timestamp> {
        if self.is_down() || !self.starting(spec, now) {
            return None;
        }
        self.started.wall.checked_add(SignedDuration::from_secs(spec.health.startup_seconds.into())).ok()
    }

    /// This run of it started after `moment`.
    pub fn younger_than(&self, moment: Option<Instant>) -> bool {
        moment.is_some_and(|moment| self.started.mono > moment)
    }

    /// The verdict that people are told: of one that has not answered since it started the last one, else the one that counts.
    pub fn latest(&self) -> &Verdict {
        if self.proven && self.settled.kind != Kind::Unknown { &self.settled } else { &self.told }
    }

    /// Takes up the answer to a trial. What it failed at counts until the circuit closes: a status that says Healthy before
    /// that would be written twice. But what fails after an answer fails anew: its pod may just have mended itself.
    pub fn absorb_trial(&mut self, verdict: Verdict, wait: Option<Duration>, now: Moment) {
        self.ended = Some(now);
        self.not_before = wait.map(|wait| now.mono + wait);
        self.streak = 0;
        self.failing_since = self.failing_since.map(|_| now.mono);
        self.tell(&verdict);
        self.last = verdict;
    }

    /// A trial failed: where nothing counted yet, because an operator before us opened the circuit, this does.
    pub fn failed_trial(&mut self, verdict: &Verdict) {
        if self.settled.kind == Kind::Unknown {
            self.settle_on(verdict);
        }
    }

    /// Other words for the same count once they were said twice: a status must not follow a server that says something else every time.
    fn tell(&mut self, verdict: &Verdict) {
        let is_other = (self.told.kind, self.told.reason) != (verdict.kind, verdict.reason);
        if (is_other || self.last.says_the_same(verdict)) && !self.told.says_the_same(verdict) {
            self.told = verdict.clone();
        }
    }

    /// Takes up the verdict of a probe. True when it now counts as failing and did not before.
    pub fn absorb(&mut self, verdict: Verdict, wait: Option<Duration>, spec: &ServerSpec, now: Moment) -> bool {
        self.ended = Some(now);
        self.not_before = wait.map(|wait| now.mono + wait);
        let newly = match verdict.kind {
            Kind::Healthy | Kind::Unknown => {
                self.streak = 0;
                self.prove();
                self.recover();
                self.settle_on(&verdict);
                false
            }
            Kind::Alive => {
                self.absorb_refusal(&verdict, spec);
                false
            }
            Kind::Failed => self.absorb_failure(&verdict, spec, now),
        };
        self.tell(&verdict);
        self.last = verdict;
        newly
    }

    const fn prove(&mut self) {
        self.proven = true;
        self.once_well = true;
    }

    /// It asked to be left alone for longer than a trial would: its last answer is all that there is of it until then.
    pub fn wants_rest(&self) -> bool {
        self.not_before.zip(self.ended).is_some_and(|(not_before, ended)| not_before > ended.mono + EAGER)
    }

    /// Up, but says no: the last verdict stands. Who failed and now says no often enough answers again.
    fn absorb_refusal(&mut self, verdict: &Verdict, spec: &ServerSpec) {
        if self.failing {
            self.answered += 1;
            if self.answered < spec.breaker.success_threshold && !self.wants_rest() {
                return;
            }
            self.recover();
        }
        // It answered: a row of failures ends here.
        self.streak = 0;
        self.prove();
        self.settle_on(verdict);
    }

    /// This verdict counts from now on.
    fn settle_on(&mut self, verdict: &Verdict) {
        if matches!(verdict.kind, Kind::Healthy | Kind::Alive) {
            self.answer = verdict.kind;
        }
        // Failures of a start do not count: a pod that was out before is, as far as anybody knows.
        self.inherited &= verdict.is_failed() && !self.failing;
        if !self.settled.says_the_same(verdict) {
            self.settled = verdict.clone();
        }
    }

    fn absorb_failure(&mut self, verdict: &Verdict, spec: &ServerSpec, now: Moment) -> bool {
        let threshold = spec.breaker.failure_threshold;
        let again = self.last.is_failed() && self.last.reason == verdict.reason;
        self.same = if again { self.same.saturating_add(1) } else { 1 };
        self.same_words = if self.last.says_the_same(verdict) { self.same_words.saturating_add(1) } else { 1 };
        self.streak = self.streak.saturating_add(1);
        self.answered = 0;
        let starting = self.starting(spec, now.mono);
        self.counted = if starting { 0 } else { self.counted.min(self.streak - 1).saturating_add(1) };
        let newly = self.counted >= threshold && !self.failing && !starting;
        if newly {
            self.failing = true;
            self.failing_since = Some(now.mono);
            // Whatever spoke there may be replaced: look for the era anew.
            self.known.forget_era();
        }
        // Another reason counts once it is as sure as the first one was, and so do other words: a status must not flicker between two,
        // nor follow a server that says something else every time.
        let sure = if self.settled.reason == verdict.reason { self.same_words } else { self.same } >= threshold;
        if newly || self.streak >= threshold && (sure || !self.settled.is_failed()) {
            self.settle_on(verdict);
        }
        newly
    }

    /// The circuit closed on its answers: in whatever way, it answers again.
    pub fn passed_trial(&mut self) {
        self.streak = 0;
        self.prove();
        self.settle_on(&self.last.clone());
        self.recover();
    }

    /// It is not failing any more.
    pub fn recover(&mut self) {
        self.failing = false;
        self.failing_since = None;
        self.answered = 0;
    }

    /// Remembers how long an answer took.
    pub fn took(&mut self, latency: Duration) {
        self.latencies.add(latency);
    }

    /// The tools that it offers, once it said so. Who does not offer tools offers an empty list: losing them all is a change.
    pub fn tools(&self) -> Option<&Arc<ToolsList>> {
        static NONE: LazyLock<Arc<ToolsList>> = LazyLock::new(|| Arc::new(ToolsList::new(Vec::new())));
        self.observation.as_ref().map(|observation| observation.tools.as_ref().unwrap_or(&NONE))
    }
}

/// When the run of a pod that is met for the first time started. The node's clock is asked only for one that was running before: a few
/// seconds between two clocks must not decide whether a pod came after something.
fn started(pod: Option<&PodState>, now: Moment) -> Moment {
    let known = pod.and_then(|pod| pod.started_at).filter(|at| *at < now.wall);
    let Some(wall) = known else { return now };
    let age = Duration::try_from(now.wall.duration_since(wall)).unwrap_or_default();
    now.mono.checked_sub(age).map_or(now, |mono| Moment { mono, wall })
}

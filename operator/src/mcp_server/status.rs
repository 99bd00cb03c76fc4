//! The server's status: a pure summary of spec, children and health. The one place that decides what people are told.
//!
//! `kubectl get mcpservers` must say what a client would experience: Ready is never True for a server that cannot answer. What keeps
//! a pod from running is told in Kubernetes' own words, before anything that the prober makes of it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use mcp_stdio::package::Registry;

use super::{
    asleep, autoscaling, contract, stdio, url,
    validate::{Source, ValidatedServer},
};
use crate::{
    asleep::Phase,
    autoscale::Decision,
    claims,
    conditions::{self, Finding, Status},
    crd::{
        CircuitState, Force, McpServer, McpServerStatus, ToolsPolicy, ToolsStatus,
        autoscaling::AutoscalingStatus,
        reason::{self, condition},
    },
    kstatus::Inputs,
    names::Component,
    pass,
    pod_trouble::Trouble,
    probe::{KeptOut, LACKS_CREDENTIALS, PodHealth, ServerHealth, Verdict, VerdictKind as Kind},
    problem::Problem,
    rollout::{Latest, Progress, Rollout},
};

/// How many names of tools the status holds.
const NAMES: usize = 64;

/// How a pass over a server ended.
pub type Outcome = pass::Outcome<ValidatedServer>;

/// The status that tells of all this.
pub fn compute(server: &McpServer, outcome: &Outcome, health: Option<&ServerHealth>, now: Timestamp) -> McpServerStatus {
    let before = server.status.clone().unwrap_or_default();
    let generation = server.metadata.generation;
    let autoscaling = autoscaling::status(&server.spec, decision(outcome), before.autoscaling.as_ref(), now);
    let view = View::new(server, outcome, health, stood_in(outcome, autoscaling.as_ref(), now), now);
    let inputs = view.inputs();
    let [reconciling, stalled] = inputs.findings();
    let findings = vec![
        (condition::READY, inputs.ready(view.met())),
        (condition::HEALTHY, view.healthy()),
        (condition::CIRCUIT_CLOSED, view.circuit_closed()),
        (condition::TOOLS_ACCEPTED, view.tools_accepted()),
        reconciling,
        stalled,
    ];
    let pinned = package_pinned(server).map(|finding| (condition::PACKAGE_PINNED, finding));
    let findings = findings
        .into_iter()
        .chain(pinned)
        .map(|(type_, finding)| (type_, view.remember(&before.conditions, type_, finding)))
        .collect();
    // What was found out stays until something else is found out: an operator that starts anew knows nothing yet.
    McpServerStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings, generation, now),
        circuit: health.map(|health| health.circuit.clone()).or(before.circuit),
        protocol: health.and_then(|health| health.protocol.clone()).or(before.protocol),
        server_info: health.and_then(|health| health.server_info.clone()).or(before.server_info),
        tools: health
            .and_then(|health| health.tools.as_ref())
            .map(|tools| ToolsStatus {
                count: u32::try_from(tools.count()).unwrap_or(u32::MAX),
                digest: tools.digest.to_string(),
                names: tools.names().take(NAMES).map(Into::into).collect(),
            })
            .or(before.tools),
        // What comes of backups is put over it by whoever knows.
        backup: before.backup,
        autoscaling,
        replicas: view.rollout.as_ref().map_or(0, |rollout| rollout.replicas),
        ready_replicas: view.in_service,
        selector: (!view.remote).then(|| Component::Server.selector_text(server.metadata.name.as_deref().unwrap_or_default())),
        pods: (!view.remote).then(|| format!("{}/{}", view.in_service, view.wanted)),
        url: outcome.valid.as_ref().map(|valid| url::of(valid, before.url.as_deref(), health)).or(before.url),
    }
}

/// How many pods there are to be, where that is decided.
fn decision(outcome: &Outcome) -> Option<&Decision> {
    outcome.valid.as_ref()?.decision.as_ref()
}

/// What a client meets while the activator stands in.
fn stood_in(outcome: &Outcome, told: Option<&AutoscalingStatus>, now: Timestamp) -> Option<Finding> {
    let valid = outcome.valid.as_ref().filter(|valid| valid.phase != Phase::Awake)?;
    if outcome.paused {
        return Some(Finding::new(false, reason::PAUSED, "it has no pods, and nobody wakes it meanwhile"));
    }
    // Whatever the activator says: no pod will come.
    if let Some(why) = &outcome.no_pods {
        return Some(Finding::new(false, why.reason, &why.message));
    }
    asleep::met(valid.phase, valid.activator.is_up(), told, now)
}

/// What keeps a pod from running: one that never ran first, for that is the newest.
fn in_trouble<'a>(pods: impl Iterator<Item = &'a PodHealth>) -> Option<&'a Trouble> {
    let troubled = pods.filter(|pod| !pod.in_service).filter_map(|pod| pod.trouble.as_ref());
    troubled.min_by_key(|trouble| trouble.ran)
}

/// Everything that the findings look at.
struct View<'a> {
    server: &'a McpServer,
    outcome: &'a Outcome,
    health: Option<&'a ServerHealth>,
    remote: bool,
    wanted: u32,
    in_service: u32,
    /// None: there are no pods to roll.
    rollout: Option<Rollout>,
    /// Which pods are of the latest template.
    latest: Latest,
    /// Why the contract keeps new pods out.
    held: Option<String>,
    /// What keeps a pod from running: one of the latest template, where there are such.
    trouble: Option<Trouble>,
    /// That pod is of a former template, or may be: the spec as it is now has made no other one yet.
    former: bool,
    /// That pod never ran, and has had the time for it.
    overdue: bool,
    /// What a pod met that runs and is not in service.
    unwell: Option<(&'static str, String)>,
    /// What a client meets while the activator stands in.
    stood_in: Option<Finding>,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn new(
        server: &'a McpServer,
        outcome: &'a Outcome,
        health: Option<&'a ServerHealth>,
        stood_in: Option<Finding>,
        now: Timestamp,
    ) -> Self {
        let remote = server.spec.remote.is_some();
        let wanted = if remote { 0 } else { autoscaling::wanted(&server.spec, decision(outcome)) };
        let in_service = health.map_or(0, |health| health.pods.iter().filter(|pod| pod.in_service).count());
        let in_service = u32::try_from(in_service).unwrap_or(u32::MAX);
        let latest = Latest::of(outcome.deployment.as_ref(), pods(health).map(|pod| &pod.origin));
        let rollout = (!remote).then(|| rollout(outcome, health, &latest, wanted, in_service));
        let of_latest = || pods(health).filter(|pod| latest.has(&pod.origin));
        let former = of_latest().next().is_none();
        let (trouble, unwell) = if former {
            (in_trouble(pods(health)), met_by_one(|| pods(health), now))
        } else {
            (in_trouble(of_latest()), met_by_one(of_latest, now))
        };
        let held = health.filter(|health| health.pods.iter().any(|pod| pod.shut_out && !pod.in_service)).map(|health| {
            let diff = health.tools_diff.as_ref().map_or_else(|| "they are other ones".to_owned(), contract::describe);
            format!("new pods do not offer the accepted tools: {diff}")
        });
        let quotes = !former && outcome.may_quote();
        let trouble = trouble.map(|trouble| claims::named(trouble.clone().quoted(quotes), &outcome.claims));
        let overdue = trouble.as_ref().is_some_and(|trouble| trouble.is_overdue(server.spec.pod.progress_deadline(), now));
        Self {
            server,
            outcome,
            health,
            remote,
            wanted,
            in_service,
            rollout,
            latest,
            held,
            trouble,
            former,
            overdue,
            unwell,
            stood_in,
            now,
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            paused: self.outcome.paused,
            problems: &self.outcome.problems,
            rollout: self.rollout.as_ref().filter(|_| self.server.spec.enabled || self.outcome.deployment.is_some()),
            trouble: self.trouble.as_ref().filter(|_| !self.former),
            overdue: self.overdue,
            to_come: self.to_come(),
            unwell: self.unwell.as_ref(),
            held: self.held.as_deref().map(|held| (reason::TOOLS_CHANGED, held)).or_else(|| self.forced_out()),
        }
    }

    /// Pods that come up stay out for as long as a person wants nobody served. What keeps one from running is told before that.
    fn forced_out(&self) -> Option<(&'static str, &'static str)> {
        let forced = self.server.spec.circuit_breaker.force == Some(Force::Open) && self.server.spec.enabled;
        let forced = forced && self.health.is_some_and(|health| health.circuit.state != CircuitState::Closed);
        let told = "spec.circuitBreaker.force holds the circuit Open, and new pods out: the rollout ends when it is released";
        (forced && self.trouble.is_none()).then_some((reason::FORCED, told))
    }

    /// A pod is wanted that is not made yet, or was not in service since it was, and does not fail.
    fn to_come(&self) -> bool {
        let is_new = |pod: &PodHealth| !pod.in_service && !pod.served && pod.trouble.is_none() && !pod.failing;
        self.server.spec.enabled && (self.pods().count() < self.wanted as usize || self.pods().any(is_new))
    }

    /// A finding of probes is kept until who it is about was asked: an operator that starts anew has asked nobody, and must not say so.
    fn remember(&self, before: &[Condition], type_: &str, finding: Finding) -> Finding {
        let Some(told) = conditions::find(before, type_) else { return finding };
        let unasked = self.is_unasked();
        let keeps = match type_ {
            // Nobody will be asked before a person has mended it.
            condition::HEALTHY if self.health.is_some_and(|health| health.lacks_credentials) => false,
            condition::HEALTHY => unasked || self.is_inherited() && is_better(told, &finding),
            // While it sleeps nobody is asked, and nothing changes.
            condition::TOOLS_ACCEPTED => unasked || self.stood_in.is_some() || self.is_inherited() && is_better(told, &finding),
            condition::READY if self.is_inherited() && self.stands(told, &finding) => true,
            // What a pod met that is not in service stands at their end.
            condition::READY | condition::RECONCILING | condition::STALLED
                if self.pods().any(is_unasked)
                    && told.status == finding.status.as_str()
                    && told.message.starts_with(&finding.message) =>
            {
                true
            }
            condition::READY if self.remote && finding.reason == reason::STARTING => {
                unasked && told.observed_generation == self.server.metadata.generation
            }
            // The reason why a circuit opened is in its message.
            _ => unasked && finding.reason == reason::CIRCUIT_OPEN && told.reason == finding.reason,
        };
        if keeps { Finding::of(told) } else { finding }
    }

    /// Of a pod that runs nothing was found out since this operator began that counts: an answer of another pod is not its.
    fn is_inherited(&self) -> bool {
        let same = self.server.metadata.generation == self.server.status.as_ref().and_then(|told| told.observed_generation);
        let waits = |pod: &PodHealth| pod.making.is_none() && pod.trouble.is_none();
        let inherited = self.pods().any(|pod| pod.inherited && waits(pod));
        self.server.spec.enabled && same && (inherited || self.is_unasked())
    }

    /// Whether what the prober had found out about those whom a client meets stands against a finding that nothing but what Kubernetes says
    /// speaks for: that a gate is as it was left. That no pod is in service is Kubernetes' to say, and is told at once.
    fn stands(&self, told: &Condition, finding: &Finding) -> bool {
        let (of_told, of_finding) = (told.reason.as_str(), finding.reason.as_str());
        let by_prober = reason::BY_PROBER.contains(&of_told);
        match (told.status.as_str(), finding.status) {
            (_, Status::True) if of_told == reason::PAUSED => of_finding == reason::PAUSED && told.status != "True",
            (_, Status::True) if of_finding == reason::DEGRADED => by_prober && told.status != "True",
            (_, Status::True) => by_prober && of_finding == reason::AVAILABLE,
            // What a pod met went with it, and who came after it was not asked; that its tools are others is its version's.
            ("False", Status::False) if of_finding == reason::STARTING => {
                of_told == reason::TOOLS_CHANGED || by_prober && self.pods().any(|pod| pod.inherited)
            }
            _ => false,
        }
    }

    /// Nobody of the server was asked yet, and somebody will be. Pods are known before anything else is: where there are none, nobody is.
    fn is_unasked(&self) -> bool {
        let asked = self.health.is_some_and(|health| health.protocol.is_some() || health.verdict.kind != Kind::Unknown);
        let to_come = self.remote || self.pods().any(|pod| pod.latest.kind == Kind::Unknown && pod.trouble.is_none());
        !asked && to_come && self.server.spec.enabled
    }

    /// What a client meets.
    fn met(&self) -> Finding {
        if !self.server.spec.enabled {
            return Finding::new(false, reason::DISABLED, "spec.enabled is false");
        }
        let forced = self.server.spec.circuit_breaker.force == Some(Force::Open);
        // A pod that cannot run is told of at once: nobody will be answered.
        if let Some(stood_in) = self.stood_in.as_ref().filter(|_| !forced && self.trouble.is_none() && !self.is_refused()) {
            return self.so_far(stood_in);
        }
        let Some(health) = self.health else { return self.not_serving(None) };
        let closed = health.circuit.state == CircuitState::Closed;
        if !closed && forced {
            return Finding::new(false, reason::FORCED, "spec.circuitBreaker.force holds the circuit Open");
        }
        if health.panic {
            return Finding::new(
                Status::Unknown,
                reason::FLEET_PANIC,
                "no pod answers, and neither does most of the fleet: the fault is probably the operator's, and nothing is changed",
            );
        }
        let verdict = &health.verdict;
        let alive = matches!(verdict.kind, Kind::Healthy | Kind::Alive);
        // Nothing stands between a client and a remote server: once it answers, it does.
        if self.remote && alive && health.circuit.state == CircuitState::HalfOpen {
            return Finding::new(true, reason::CIRCUIT_HALF_OPEN, "the server answers, and is on trial");
        }
        // Whatever holds the gates open: of pods that all fail nobody gets an answer.
        let serves = || self.pods().any(|pod| pod.in_service && !pod.failing);
        let answers = closed && if self.remote { alive } else { serves() };
        match &self.outcome.no_service {
            _ if !answers => self.not_serving(Some(health)),
            Some(problem) => Finding::new(false, problem.reason, &problem.message),
            None => self.serving(verdict),
        }
    }

    /// What is waited for, with what the pod that is waited for met.
    fn so_far(&self, stood_in: &Finding) -> Finding {
        let failed = self.pods().find(|pod| !pod.in_service && pod.making.is_none() && pod.latest.is_failed());
        match failed.filter(|_| stood_in.reason == reason::WAKING) {
            Some(pod) => {
                let message = format!("{}; pod {}: {}", stood_in.message, pod.name, pod.latest.message);
                Finding::new(stood_in.status, &stood_in.reason, message)
            }
            None => stood_in.clone(),
        }
    }

    /// A pod is wanted, there is none, and Kubernetes lets none be made.
    fn is_refused(&self) -> bool {
        let refused = self.rollout.as_ref().is_some_and(|rollout| rollout.refused.is_some());
        refused && self.wanted > 0 && self.pods().next().is_none() && !self.sleeps()
    }

    /// It is not to have a pod now.
    fn sleeps(&self) -> bool {
        self.outcome.valid.as_ref().is_some_and(|valid| valid.phase == Phase::Asleep)
    }

    fn serving(&self, verdict: &Verdict) -> Finding {
        if let Some(worst) = self.failing().next() {
            let message = format!("{}/{} pods in service; {}", self.in_service, self.wanted, self.why(worst));
            return Finding::new(true, reason::DEGRADED, message);
        }
        match verdict.kind {
            Kind::Alive if verdict.reason == reason::UNAUTHORIZED && !self.server.spec.health.accept_unauthorized => {
                let hint = "give credentials in headersFrom, or set health.acceptUnauthorized if its clients bring their own";
                Finding::new(Status::Unknown, verdict.reason, format!("{}: {hint}", verdict.message))
            }
            Kind::Alive => Finding::new(true, verdict.reason, &*verdict.message),
            _ => Finding::new(true, reason::AVAILABLE, "answers MCP clients"),
        }
    }

    /// Why nobody is served: Kubernetes' reasons first, then what stands in the way of there being pods, then the prober's.
    fn not_serving(&self, health: Option<&ServerHealth>) -> Finding {
        if let Some(trouble) = &self.trouble {
            return Finding::new(false, &trouble.reason, &trouble.message);
        }
        if self.pods().next().is_none() && health.is_none_or(|health| !self.remote || health.verdict.kind == Kind::Unknown) {
            if let Some(none) = self.scaled_to_zero().filter(|_| self.server.spec.autoscaling.is_none()) {
                return none;
            }
            if let Some((reason, message)) = self.rollout.as_ref().and_then(|rollout| rollout.refused.as_ref()) {
                return Finding::new(false, reason, message);
            }
            if let Some(obstacle) = Problem::obstacle(&self.outcome.problems) {
                return Finding::new(false, obstacle.reason, obstacle.message);
            }
        }
        let Some(health) = health else { return Finding::new(false, reason::STARTING, "not probed yet") };
        match health.circuit.state {
            CircuitState::Closed => {}
            CircuitState::Open => return Finding::new(false, reason::CIRCUIT_OPEN, circuit_message(health)),
            CircuitState::HalfOpen => {
                let answers = matches!(health.verdict.kind, Kind::Healthy | Kind::Alive);
                let message = match &health.verdict {
                    _ if answers => "the server answers, and is on trial".to_owned(),
                    failed if failed.is_failed() => format!("the server is on trial; it met {}", failed.message),
                    _ => "the server is on trial".to_owned(),
                };
                return Finding::new(false, reason::CIRCUIT_HALF_OPEN, message);
            }
        }
        if health.verdict.is_failed() {
            return Finding::new(false, health.verdict.reason, &*health.verdict.message);
        }
        if self.pods().any(|pod| pod.tools_accepted == Some(false)) {
            return Finding::new(false, reason::TOOLS_CHANGED, "no pod offers the accepted tools");
        }
        if let Some((reason, told)) = self.pods().find_map(kept_out) {
            return Finding::new(false, reason, told);
        }
        if let Some(told) = self.not_up_yet() {
            return Finding::new(false, reason::STARTING, told);
        }
        match health.verdict.kind {
            Kind::Healthy | Kind::Alive => {
                let kept_out = self.pods().find(|pod| pod.gate && !pod.containers_ready);
                let why = kept_out.map_or_else(
                    || "Kubernetes is putting it into its Service".to_owned(),
                    |pod| {
                        let whose =
                            pod.unready.as_ref().map_or_else(|| "its containers".to_owned(), |name| format!("container {name}"));
                        format!("Kubernetes waits for the readiness probe of {whose}: kubectl describe pod {}", pod.name)
                    },
                );
                Finding::new(false, reason::STARTING, format!("the server answers; {why}"))
            }
            _ if waits_for_the_last(self.outcome, self.wanted) => {
                Finding::new(false, reason::STARTING, "its last pod is still on its way out, and one may write at a time")
            }
            _ => self.scaled_to_zero().unwrap_or_else(|| Finding::new(false, reason::STARTING, self.waited_for())),
        }
    }

    /// No pod is wanted.
    fn scaled_to_zero(&self) -> Option<Finding> {
        let none = !self.remote && self.wanted == 0;
        let message = "spec.replicas is 0: there is no pod, and nobody is answered";
        none.then(|| Finding::new(false, reason::SCALED_TO_ZERO, message))
    }

    /// What comes next for a server that nothing is known of.
    fn waited_for(&self) -> String {
        if self.remote {
            return "not probed yet".to_owned();
        }
        let ending = self.health.and_then(|health| health.ending.as_ref()).filter(|_| self.pods().next().is_none());
        // One sentence until something is known: that a pod was made, and scheduled, is worth no write.
        let Some(ending) = ending else { return "waiting for the first pod to answer".to_owned() };
        let strategy = self.outcome.deployment.as_ref().and_then(|deployment| deployment.spec.as_ref()?.strategy.as_ref());
        if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
            return format!("pod {ending} is still ending: one may write at a time, so the next one is made when it is gone");
        }
        format!("pod {ending} is still ending, and no other one is there yet")
    }

    /// The last answer of a pod that has not come up, and until when that counts for nothing. When its time is over that is told until its
    /// failures are enough to count.
    fn not_up_yet(&self) -> Option<String> {
        let is_new = |pod: &PodHealth| pod.starting || !pod.served && !pod.failing;
        let runs = self.pods().find(|pod| is_new(pod) && pod.making.is_none() && pod.latest.is_failed());
        let Some(pod) = runs else { return is_made(self.pods(), self.now) };
        let from = pod.counts_from.map(|from| format!("; failures count from {from}"));
        Some(format!("not up yet: {}{}", pod.latest.message, from.unwrap_or_default()))
    }

    fn healthy(&self) -> Finding {
        if !self.server.spec.enabled {
            return Finding::new(Status::Unknown, reason::DISABLED, "spec.enabled is false: not probed");
        }
        if self.stood_in.is_some() && self.pods().next().is_none() {
            return Finding::new(Status::Unknown, reason::ASLEEP, "it sleeps: there is no pod to ask");
        }
        let Some(health) = self.health else {
            return Finding::new(Status::Unknown, reason::UNKNOWN, "not probed yet");
        };
        let failing: Vec<_> = self.failing().collect();
        if let Some(first) = failing.first() {
            let told = format!("{} of {} pods fail; {}", failing.len(), health.pods.len(), self.why(first));
            let own = first.trouble.as_ref().map_or(first.verdict.reason, |trouble| &trouble.reason);
            let reason = if failing.len() < health.pods.len() { reason::DEGRADED } else { own };
            return Finding::new(false, reason, told);
        }
        if health.lacks_credentials {
            return Finding::new(Status::Unknown, reason::UNKNOWN, format!("not probed: {LACKS_CREDENTIALS}"));
        }
        let verdict = &health.verdict;
        match verdict.kind {
            Kind::Healthy => Finding::new(true, verdict.reason, &*verdict.message),
            Kind::Failed => Finding::new(false, verdict.reason, &*verdict.message),
            Kind::Alive => Finding::new(Status::Unknown, verdict.reason, &*verdict.message),
            Kind::Unknown => {
                let nobody = if self.remote || !health.pods.is_empty() { "not probed yet" } else { "there is no pod to ask" };
                let told = self.not_up_yet();
                let reason = if told.is_some() { reason::STARTING } else { reason::UNKNOWN };
                Finding::new(Status::Unknown, reason, told.unwrap_or_else(|| nobody.to_owned()))
            }
        }
    }

    fn tools_accepted(&self) -> Finding {
        if self.server.spec.tools.policy == ToolsPolicy::Ignore {
            return Finding::new(true, reason::TOOLS_IGNORED, "spec.tools.policy is Ignore");
        }
        let (diff, tools) = self.health.map(|health| (&health.tools_diff, &health.tools)).unzip();
        let left_out = tools.and_then(|tools| contract::left_out(tools.as_deref()?)).map(|told| format!("; {told}"));
        let left_out = left_out.unwrap_or_default();
        match (diff.and_then(Option::as_ref), tools.and_then(Option::as_ref)) {
            (Some(diff), _) => Finding::new(false, reason::TOOLS_CHANGED, format!("{}{left_out}", contract::describe(diff))),
            // One that offers nothing yet is measured by nothing, and is not waited for.
            (None, Some(tools)) if tools.count() > 0 && self.health.is_some_and(|health| health.unaccepted) => {
                Finding::new(Status::Unknown, reason::UNKNOWN, format!("no list of tools is accepted yet{left_out}"))
            }
            (None, Some(_)) => Finding::new(true, reason::TOOLS_UNCHANGED, format!("the tools are the accepted ones{left_out}")),
            (None, None) => Finding::new(Status::Unknown, reason::UNKNOWN, "no list of tools is known yet"),
        }
    }

    fn circuit_closed(&self) -> Finding {
        let Some(health) = self.health else {
            return Finding::new(Status::Unknown, reason::UNKNOWN, "not probed yet");
        };
        let forced = self.server.spec.circuit_breaker.force;
        match health.circuit.state {
            CircuitState::Closed if !self.server.spec.enabled => {
                Finding::new(true, reason::DISABLED, "spec.enabled is false: the circuit is at rest")
            }
            CircuitState::Closed if forced == Some(Force::Closed) => {
                Finding::new(true, reason::FORCED, "spec.circuitBreaker.force holds the circuit Closed")
            }
            CircuitState::Closed => Finding::new(true, reason::CIRCUIT_CLOSED, "in use"),
            _ if forced.is_some() => Finding::new(false, reason::FORCED, "spec.circuitBreaker.force holds the circuit Open"),
            CircuitState::Open => Finding::new(false, reason::CIRCUIT_OPEN, circuit_message(health)),
            CircuitState::HalfOpen => Finding::new(false, reason::CIRCUIT_HALF_OPEN, "on trial"),
        }
    }

    fn pods(&self) -> impl Iterator<Item = &'a PodHealth> + use<'a> {
        pods(self.health)
    }

    /// Why a pod fails, with its name.
    fn why(&self, pod: &PodHealth) -> String {
        match &pod.trouble {
            Some(trouble) => trouble.clone().quoted(self.latest.has(&pod.origin) && self.outcome.may_quote()).message,
            None => format!("{}: {}", pod.name, pod.verdict.message),
        }
    }

    /// Pods that a client would not be served by: those that Kubernetes cannot run, and those that the prober confirmed to fail.
    fn failing(&self) -> impl Iterator<Item = &'a PodHealth> + use<'a> {
        self.pods().filter(|pod| pod.failing || pod.trouble.is_some() && !pod.in_service)
    }
}

/// Whether a finding is better news than what was told.
fn is_better(told: &Condition, finding: &Finding) -> bool {
    match finding.status {
        Status::True => told.status != "True",
        Status::Unknown => told.status == "False",
        Status::False => false,
    }
}

fn pods(health: Option<&ServerHealth>) -> impl Iterator<Item = &PodHealth> {
    health.into_iter().flat_map(|health| &health.pods)
}

/// It runs, and nobody has asked it.
fn is_unasked(pod: &PodHealth) -> bool {
    !pod.in_service && pod.making.is_none() && pod.trouble.is_none() && pod.latest.kind == Kind::Unknown
}

/// What a pod met that is not in service, of which Kubernetes has nothing to say.
fn met_by_one<'a, I: Iterator<Item = &'a PodHealth>>(pods: impl Fn() -> I, now: Timestamp) -> Option<(&'static str, String)> {
    let met = |pod: &PodHealth| (pod.latest.reason, format!("pod {}: {}", pod.name, pod.latest.message));
    let pod = pods().find(|pod| !pod.in_service && pod.making.is_none() && pod.latest.is_failed());
    pod.map(met).or_else(|| pods().find_map(kept_out)).or_else(|| is_made(pods(), now).map(|told| (reason::STARTING, told)))
}

/// Of a pod that says no to the prober: why that does not let it in.
fn kept_out(pod: &PodHealth) -> Option<(&'static str, String)> {
    let why = match pod.kept_out? {
        KeptOut::ShowsNoTools => "it is kept out until it shows the accepted tools (tools.policy is Enforce)",
        KeptOut::AnotherVersionIsWell => "it is kept out, because pods of another version answer",
    };
    Some((pod.latest.reason, format!("pod {}: {}: {why}", pod.name, pod.latest.message)))
}

/// What has not started cannot answer: how far it is.
fn is_made<'a>(mut pods: impl Iterator<Item = &'a PodHealth>, now: Timestamp) -> Option<String> {
    pods.find_map(|pod| pod.making.as_ref()?.told(&pod.name, now))
}

/// Whether what is installed is the same each time. None: nothing is installed.
fn package_pinned(server: &McpServer) -> Option<Finding> {
    let wanted = stdio::package(&server.spec)?.ok()?;
    let named = wanted.packages().collect::<Vec<_>>().join(", ");
    if wanted.is_pinned() {
        return Some(Finding::new(true, reason::PINNED, format!("{named} is one version")));
    }
    let kept = server.spec.stdio.as_ref().is_some_and(|stdio| stdio.cache.is_some());
    let when = if kept { "and stays in the cache" } else { "by each pod anew, so that two pods may differ" };
    let example = match wanted.registry {
        Registry::Npm => "name@1.2.3",
        Registry::Pypi => "name==1.2.3",
    };
    let message = format!("{named} names no one version: the newest is installed, {when}; pin it as {example}");
    Some(Finding::new(false, reason::UNPINNED, message))
}

/// How far the pods are, to the best of our knowledge: that they are in service we know before the Deployment says so.
fn rollout(outcome: &Outcome, health: Option<&ServerHealth>, latest: &Latest, wanted: u32, in_service: u32) -> Rollout {
    let mut rollout = Rollout::of(outcome.deployment.as_ref(), latest);
    let all_there = health.is_some_and(|health| health.pods.len() == wanted as usize) && in_service == wanted;
    let of_the_latest = |deployment| Rollout::is_first(deployment) || Rollout::is_replaced(deployment);
    if all_there && rollout.progress == Progress::UnderWay && outcome.deployment.as_ref().is_some_and(of_the_latest) {
        rollout.progress = Progress::Done;
        rollout.replicas = rollout.replicas.max(wanted);
    }
    if waits_for_the_last(outcome, wanted) {
        rollout.progress = Progress::UnderWay;
    }
    rollout
}

/// No pod is made yet, because the last one is still there and one may write.
fn waits_for_the_last(outcome: &Outcome, wanted: u32) -> bool {
    let none_yet = |valid: &ValidatedServer| matches!(&valid.source, Source::Container(container) if container.replicas == 0);
    wanted > 0 && outcome.valid.as_ref().is_some_and(none_yet)
}

fn in_a_row(failures: u32) -> String {
    if failures == 1 { "1 failure".to_owned() } else { format!("{failures} failures in a row") }
}

fn circuit_message(health: &ServerHealth) -> String {
    let retry = health.circuit.retry_at.as_ref().map(|at| format!("; tried again at {}", at.0));
    let why = match health.verdict.kind {
        Kind::Failed => health.verdict.message.to_string(),
        // An operator that starts anew knows the reason, and not the sentence.
        _ => match &health.circuit.reason {
            Some(reason) => format!("{reason}, {}", in_a_row(health.circuit.failures)),
            None => in_a_row(health.circuit.failures),
        },
    };
    format!("{why}{}", retry.unwrap_or_default())
}

#[cfg(test)]
mod sentences;

#[cfg(test)]
mod tests;

//! The server's status: a pure summary of spec, children and health. The one place that decides what people are told.
//!
//! `kubectl get mcpservers` must say what a client would experience: Ready is never True for a server that cannot answer.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    apply::Applied,
    contract,
    validate::{Source, ValidatedServer},
};
use crate::{
    conditions::{self, Finding, Status},
    crd::{
        CircuitState, Force, McpServer, McpServerStatus, ToolsPolicy, ToolsStatus,
        reason::{self, condition},
    },
    mcp_app::status::rolled_out,
    probe::{PodHealth, ServerHealth, VerdictKind as Kind},
    problem::Problem,
    requeue::Class,
};

/// How many names of tools the status holds.
const NAMES: usize = 64;

/// How a pass ended: the server as far as it is known, and what stood in the way.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The server, when it was valid.
    pub server: Option<ValidatedServer>,
    /// The children, when they were applied.
    pub applied: Option<Applied>,
    /// What stood in the way.
    pub problem: Option<Problem>,
}

/// The status that tells of all this.
pub fn compute(server: &McpServer, outcome: &Outcome, health: Option<&ServerHealth>, now: Timestamp) -> McpServerStatus {
    let before = server.status.clone().unwrap_or_default();
    let generation = server.metadata.generation;
    let view = View::new(server, outcome, health);
    let findings = [
        (condition::READY, view.ready()),
        (condition::HEALTHY, view.healthy()),
        (condition::CIRCUIT_CLOSED, view.circuit_closed()),
        (condition::TOOLS_ACCEPTED, view.tools_accepted()),
        (condition::PROGRESSING, view.progressing()),
        (condition::STALLED, view.stalled()),
    ];
    let findings =
        findings.into_iter().map(|(type_, finding)| (type_, view.remember(&before.conditions, type_, finding))).collect();
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
        replicas: view.wanted,
        ready_replicas: view.in_service,
        pods: (!view.remote).then(|| format!("{}/{}", view.in_service, view.wanted)),
        url: outcome.server.as_ref().map(ValidatedServer::url).or(before.url),
    }
}

/// Everything that the findings look at.
struct View<'a> {
    server: &'a McpServer,
    outcome: &'a Outcome,
    health: Option<&'a ServerHealth>,
    remote: bool,
    wanted: u32,
    in_service: u32,
}

impl<'a> View<'a> {
    fn new(server: &'a McpServer, outcome: &'a Outcome, health: Option<&'a ServerHealth>) -> Self {
        let remote = server.spec.remote.is_some();
        let wanted = if remote || !server.spec.enabled { 0 } else { server.spec.replicas };
        let in_service = health.map_or(0, |health| health.pods.iter().filter(|pod| pod.in_service).count());
        Self { server, outcome, health, remote, wanted, in_service: u32::try_from(in_service).unwrap_or(u32::MAX) }
    }

    /// An operator that starts anew has not asked yet, and must not say so: what was found out stands until it has.
    fn remember(&self, before: &[Condition], type_: &str, finding: Finding) -> Finding {
        let asked = self.health.is_some_and(|health| health.protocol.is_some() || health.verdict.kind != Kind::Unknown);
        let Some(told) = conditions::find(before, type_).filter(|_| !asked && self.server.spec.enabled) else { return finding };
        let of_probes = matches!(type_, condition::HEALTHY | condition::TOOLS_ACCEPTED);
        // The reason why a circuit opened is in its message.
        let of_circuit = finding.reason == reason::CIRCUIT_OPEN && told.reason == finding.reason;
        if of_probes || of_circuit {
            return Finding::of(told);
        }
        finding
    }

    /// What a person must do something about: it stands above whatever the probes say.
    fn obstacle(&self) -> Option<Finding> {
        let problem = self.outcome.problem.as_ref().filter(|problem| problem.class != Class::Transient)?;
        Some(Finding::new(false, problem.reason, problem.message.clone()))
    }

    fn ready(&self) -> Finding {
        if let Some(obstacle) = self.obstacle() {
            return obstacle;
        }
        if !self.server.spec.enabled {
            return Finding::new(false, reason::DISABLED, "spec.enabled is false");
        }
        let Some(health) = self.health else {
            return Finding::new(false, reason::STARTING, "not probed yet");
        };
        let forced = self.server.spec.circuit_breaker.force;
        match health.circuit.state {
            CircuitState::Closed => {}
            _ if forced == Some(Force::Open) => {
                return Finding::new(false, reason::FORCED, "spec.circuitBreaker.force holds the circuit Open");
            }
            CircuitState::Open => return Finding::new(false, reason::CIRCUIT_OPEN, circuit_message(health)),
            // Nothing stands between a client and a remote server: once it answers, it does.
            CircuitState::HalfOpen if self.remote && matches!(health.verdict.kind, Kind::Healthy | Kind::Alive) => {
                return Finding::new(true, reason::CIRCUIT_HALF_OPEN, "the server answers again, and is on trial");
            }
            CircuitState::HalfOpen => {
                return Finding::new(
                    false,
                    reason::CIRCUIT_HALF_OPEN,
                    "the server is asked again, and is out of use until it answers",
                );
            }
        }
        let verdict = &health.verdict;
        let answers = if self.remote { matches!(verdict.kind, Kind::Healthy | Kind::Alive) } else { self.in_service > 0 };
        match verdict.kind {
            _ if answers && self.failing().next().is_some() => {
                Finding::new(true, reason::DEGRADED, format!("{}/{} pods in service", self.in_service, self.wanted))
            }
            Kind::Alive if answers => Finding::new(true, verdict.reason, &*verdict.message),
            _ if answers => Finding::new(true, reason::AVAILABLE, "answers MCP clients"),
            Kind::Failed => Finding::new(false, verdict.reason, &*verdict.message),
            _ if health.pods.iter().any(|pod| pod.tools_accepted == Some(false)) => {
                Finding::new(false, reason::TOOLS_CHANGED, "no pod offers the accepted tools")
            }
            _ if !self.remote && health.pods.is_empty() => Finding::new(false, reason::STARTING, "no pod has started yet"),
            Kind::Healthy | Kind::Alive => {
                Finding::new(false, reason::STARTING, "the server answers; Kubernetes is putting it into its Service")
            }
            Kind::Unknown => Finding::new(false, reason::STARTING, "not probed yet"),
        }
    }

    fn healthy(&self) -> Finding {
        if !self.server.spec.enabled {
            return Finding::new(Status::Unknown, reason::DISABLED, "spec.enabled is false: not probed");
        }
        let Some(health) = self.health else {
            return Finding::new(Status::Unknown, reason::UNKNOWN, "not probed yet");
        };
        let failing: Vec<_> = self.failing().collect();
        if let Some(first) = failing.first() {
            let told = format!("{} of {} pods fail; {}: {}", failing.len(), health.pods.len(), first.name, first.verdict.message);
            let reason = if failing.len() < health.pods.len() { reason::DEGRADED } else { first.verdict.reason };
            return Finding::new(false, reason, told);
        }
        let verdict = &health.verdict;
        let status = match verdict.kind {
            Kind::Healthy => Status::True,
            Kind::Failed => Status::False,
            Kind::Unknown | Kind::Alive => Status::Unknown,
        };
        Finding::new(status, verdict.reason, &*verdict.message)
    }

    fn tools_accepted(&self) -> Finding {
        if self.server.spec.tools.policy == ToolsPolicy::Ignore {
            return Finding::new(true, reason::TOOLS_IGNORED, "spec.tools.policy is Ignore");
        }
        match self.health.map(|health| (&health.tools_diff, &health.tools)) {
            Some((Some(diff), _)) => Finding::new(false, reason::TOOLS_CHANGED, contract::describe(diff)),
            Some((None, Some(_))) => Finding::new(true, reason::TOOLS_UNCHANGED, "the tools are the accepted ones"),
            _ => Finding::new(Status::Unknown, reason::UNKNOWN, "no list of tools is known yet"),
        }
    }

    fn circuit_closed(&self) -> Finding {
        let Some(health) = self.health else {
            return Finding::new(Status::Unknown, reason::UNKNOWN, "not probed yet");
        };
        let forced = self.server.spec.circuit_breaker.force.is_some();
        match health.circuit.state {
            CircuitState::Closed if forced => {
                Finding::new(true, reason::FORCED, "spec.circuitBreaker.force holds the circuit Closed")
            }
            CircuitState::Closed => Finding::new(true, reason::CIRCUIT_CLOSED, "in use"),
            _ if forced => Finding::new(false, reason::FORCED, "spec.circuitBreaker.force holds the circuit Open"),
            CircuitState::Open => Finding::new(false, reason::CIRCUIT_OPEN, circuit_message(health)),
            CircuitState::HalfOpen => Finding::new(false, reason::CIRCUIT_HALF_OPEN, "on trial"),
        }
    }

    fn progressing(&self) -> Finding {
        if let Some(problem) = self.outcome.problem.as_ref().filter(|problem| problem.class == Class::Transient) {
            return Finding::new(true, problem.reason, problem.message.clone());
        }
        let rolled_out = match (&self.outcome.server, &self.outcome.applied) {
            (Some(server), _) if matches!(server.source, Source::Remote(_)) => true,
            (_, Some(applied)) => applied.deployment.as_ref().is_some_and(|deployment| rolled_out(deployment)),
            _ => return Finding::new(false, reason::UNKNOWN, "waiting for what Stalled says"),
        };
        if rolled_out {
            Finding::new(false, reason::AVAILABLE, "the pods are those of the spec")
        } else {
            Finding::new(true, reason::STARTING, "pods are being created or rolled")
        }
    }

    fn stalled(&self) -> Finding {
        self.obstacle().map_or_else(
            || Finding::new(false, reason::AVAILABLE, "nothing stands in the way"),
            |obstacle| Finding { status: Status::True, ..obstacle },
        )
    }

    fn failing(&self) -> impl Iterator<Item = &'a PodHealth> {
        self.health.into_iter().flat_map(|health| &health.pods).filter(|pod| pod.failing)
    }
}

fn circuit_message(health: &ServerHealth) -> String {
    let retry = health.circuit.retry_at.as_ref().map(|at| format!("; tried again at {}", at.0));
    let why = match health.verdict.kind {
        Kind::Failed => health.verdict.message.to_string(),
        _ => format!("{} failures in a row", health.circuit.failures),
    };
    format!("{why}{}", retry.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crd::CircuitStatus,
        fixtures,
        mcp_server::{observe::Observed, validate::validate},
        probe::Verdict,
    };

    fn outcome(server: &McpServer) -> Outcome {
        Outcome { server: Some(validate(server, &Observed::default()).expect("valid")), ..Outcome::default() }
    }

    fn condition(status: &McpServerStatus, type_: &str) -> (String, String) {
        let found = conditions::find(&status.conditions, type_).expect("the condition is there");
        (found.status.clone(), found.reason.clone())
    }

    #[test]
    fn a_server_that_was_never_probed_is_not_ready_and_its_health_is_unknown() {
        let server = fixtures::server(|_| {});
        let status = compute(&server, &outcome(&server), None, fixtures::at(0));
        assert_eq!(condition(&status, "Ready"), ("False".into(), reason::STARTING.into()));
        assert_eq!(condition(&status, "Healthy"), ("Unknown".into(), reason::UNKNOWN.into()));
        assert_eq!(condition(&status, "Stalled"), ("False".into(), reason::AVAILABLE.into()));
        assert_eq!(status.url.as_deref(), Some("http://db-mcp.team.svc:8080/mcp"));
        assert_eq!(status.pods.as_deref(), Some("0/1"));
    }

    #[test]
    fn what_stands_in_the_way_is_told_by_ready_and_by_stalled() {
        let server = fixtures::server(|_| {});
        let problem = Problem { class: Class::Waiting, reason: reason::SECRET_NOT_FOUND, message: "create it".into() };
        let status = compute(&server, &Outcome { problem: Some(problem), ..Outcome::default() }, None, fixtures::at(0));
        assert_eq!(condition(&status, "Ready"), ("False".into(), reason::SECRET_NOT_FOUND.into()));
        assert_eq!(condition(&status, "Stalled"), ("True".into(), reason::SECRET_NOT_FOUND.into()));
        assert_eq!(condition(&status, "Progressing"), ("False".into(), reason::UNKNOWN.into()));
    }

    #[test]
    fn a_pass_over_an_unchanged_world_gives_an_equal_status_later_too() {
        let mut server = fixtures::server(|_| {});
        let first = compute(&server, &outcome(&server), None, fixtures::at(0));
        server.status = Some(first.clone());
        assert_eq!(compute(&server, &outcome(&server), None, fixtures::at(1_000)), first);
    }

    #[test]
    fn a_new_operator_that_has_not_asked_yet_says_what_was_said() {
        let told = |type_, status: bool, reason, message| (type_, Finding::new(status, reason, message));
        let before = vec![
            told(condition::READY, false, reason::CIRCUIT_OPEN, "HTTP 500"),
            told(condition::HEALTHY, false, reason::HTTP_STATUS, "HTTP 500"),
        ];
        let server = fixtures::server(|server| {
            let conditions = conditions::merge(&[], before, Some(1), fixtures::at(0));
            server.status = Some(McpServerStatus { conditions, ..McpServerStatus::default() });
        });
        let circuit = CircuitStatus { state: CircuitState::Open, failures: 3, ..CircuitStatus::default() };
        let health = ServerHealth { circuit, ..unasked() };
        let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(9));
        assert_eq!(conditions::find(&status.conditions, "Ready").expect("Ready").message, "HTTP 500");
        assert_eq!(condition(&status, "Healthy"), ("False".into(), reason::HTTP_STATUS.into()));
    }

    fn unasked() -> ServerHealth {
        ServerHealth {
            circuit: CircuitStatus::default(),
            verdict: Verdict::unknown(),
            protocol: None,
            server_info: None,
            tools: None,
            tools_diff: None,
            pods: Vec::new(),
            ..ServerHealth::default()
        }
    }

    #[test]
    fn a_new_operator_that_knows_nothing_yet_keeps_what_was_found_out() {
        let tools = ToolsStatus { count: 1, digest: "d".into(), names: vec!["t".into()] };
        let server = fixtures::server(|server| {
            server.status = Some(McpServerStatus { tools: Some(tools.clone()), ..McpServerStatus::default() });
        });
        assert_eq!(compute(&server, &outcome(&server), None, fixtures::at(0)).tools, Some(tools));
    }

    fn pod(name: &str, in_service: bool, failing: bool) -> PodHealth {
        PodHealth {
            name: name.into(),
            uid: name.into(),
            verdict: if failing { Verdict::unknown() } else { Verdict::healthy() },
            failing,
            starting: false,
            gate: in_service,
            containers_ready: in_service,
            in_service,
            tools_accepted: None,
            ..PodHealth::default()
        }
    }

    /// Every state that a server can be told in: what people read must never contradict itself.
    #[test]
    fn conditions_agree_with_each_other_in_every_state() {
        let verdicts = [Kind::Unknown, Kind::Healthy, Kind::Alive, Kind::Failed];
        let circuits = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];
        let pods = [
            vec![],
            vec![pod("a", true, false)],
            vec![pod("a", false, true)],
            vec![pod("a", true, false), pod("b", false, true)],
            vec![pod("a", false, false), pod("b", false, false)],
        ];
        let problems = [None, Some(Class::Rejected), Some(Class::Waiting), Some(Class::Transient)];
        let mut told = 0;
        for remote in [false, true] {
            for enabled in [true, false] {
                for force in [None, Some(Force::Open), Some(Force::Closed)] {
                    for state in circuits {
                        for kind in verdicts {
                            for pods in &pods {
                                for problem in problems {
                                    let change = |server: &mut McpServer| {
                                        server.spec.enabled = enabled;
                                        server.spec.circuit_breaker.force = force;
                                    };
                                    let server = if remote { fixtures::remote(change) } else { fixtures::server(change) };
                                    let health = ServerHealth {
                                        circuit: CircuitStatus { state, ..CircuitStatus::default() },
                                        verdict: Verdict { kind, ..Verdict::healthy() },
                                        pods: if remote { vec![] } else { pods.clone() },
                                        ..unasked()
                                    };
                                    let problem =
                                        problem.map(|class| Problem { class, reason: reason::APPLY_FAILED, message: "x".into() });
                                    let outcome = Outcome { problem, ..outcome(&server) };
                                    let status = compute(&server, &outcome, Some(&health), fixtures::at(0));
                                    assert_consistent(&server, &outcome, &health, &status);
                                    told += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(told, 2 * 2 * 3 * 3 * 4 * 5 * 4);
    }

    fn assert_consistent(server: &McpServer, outcome: &Outcome, health: &ServerHealth, status: &McpServerStatus) {
        let is = |type_: &str, value: &str| condition(status, type_).0 == value;
        let context = || format!("{health:?} {:?} -> {:?}", outcome.problem, status.conditions);
        let serving = health.pods.iter().any(|pod| pod.in_service);
        let answers =
            if server.spec.remote.is_some() { matches!(health.verdict.kind, Kind::Healthy | Kind::Alive) } else { serving };
        if is("Ready", "True") {
            let usable = match health.circuit.state {
                CircuitState::Closed => true,
                CircuitState::HalfOpen => server.spec.remote.is_some(),
                CircuitState::Open => false,
            };
            assert!(answers && server.spec.enabled && usable && is("Stalled", "False"), "{}", context());
        }
        if is("Healthy", "True") {
            assert!(health.verdict.kind == Kind::Healthy && !health.pods.iter().any(|pod| pod.failing), "{}", context());
        }
        if is("Stalled", "True") {
            assert!(is("Ready", "False") && is("Progressing", "False"), "{}", context());
        }
        assert_eq!(is("CircuitClosed", "True"), health.circuit.state == CircuitState::Closed, "{}", context());
        assert!(!is("Ready", "Unknown") && !is("Stalled", "Unknown") && !is("Progressing", "Unknown"), "{}", context());
        for found in &status.conditions {
            let reason = &found.reason;
            assert!(!reason.is_empty() && reason.chars().all(|c| c.is_ascii_alphanumeric()), "{reason:?} is no machine word");
            assert!(!found.message.is_empty(), "{} says nothing", found.type_);
        }
    }
}

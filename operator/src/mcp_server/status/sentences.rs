//! Tests: what people read of a server, sentence by sentence.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::json;

use super::{
    tests::{deployment, health, outcome, pod, troubled, unasked},
    *,
};
use crate::{
    asleep::Endpoints,
    asleep::Phase,
    clock,
    crd::{CircuitStatus, ProtocolStatus},
    fixtures,
    probe::{Tool, ToolsList},
    requeue::Class,
};

/// A condition as "Status/Reason: message".
fn read(status: &McpServerStatus, type_: &str) -> String {
    let found = conditions::find(&status.conditions, type_).expect("the condition is there");
    format!("{}/{}: {}", found.status, found.reason, found.message)
}

/// The same of a server whose children are as they should be.
fn told(server: &McpServer, health: &ServerHealth, type_: &str) -> String {
    read(&compute(server, &outcome(server), Some(health), fixtures::at(0)), type_)
}

fn in_state(state: CircuitState, health: ServerHealth) -> ServerHealth {
    ServerHealth { circuit: CircuitStatus { state, ..CircuitStatus::default() }, ..health }
}

fn of_verdict(verdict: &Verdict) -> ServerHealth {
    ServerHealth { verdict: verdict.clone(), ..unasked() }
}

fn failed() -> Verdict {
    Verdict { kind: Kind::Failed, reason: reason::HTTP_STATUS, message: "HTTP 500".into() }
}

fn limited() -> Verdict {
    Verdict { kind: Kind::Alive, reason: reason::RATE_LIMITED, message: "HTTP 429".into() }
}

/// A pod that failed, as the prober confirmed.
fn failing(name: &str) -> PodHealth {
    PodHealth { verdict: failed(), latest: failed(), ..pod(name, false, true) }
}

fn serving() -> ServerHealth {
    health(vec![pod("a", true, false)])
}

#[test]
fn a_trial_is_told_by_whether_the_server_answers() {
    let (server, remote) = (fixtures::server(|_| {}), fixtures::remote(|_| {}));
    let half_open = |health| in_state(CircuitState::HalfOpen, health);
    let answers = "CircuitHalfOpen: the server answers, and is on trial";
    assert_eq!(told(&remote, &half_open(of_verdict(&Verdict::healthy())), "Ready"), format!("True/{answers}"));
    assert_eq!(told(&remote, &half_open(of_verdict(&limited())), "Ready"), format!("True/{answers}"));
    assert_eq!(told(&server, &half_open(serving()), "Ready"), format!("False/{answers}"));
    let silent = "False/CircuitHalfOpen: the server is on trial";
    assert_eq!(told(&remote, &half_open(of_verdict(&failed())), "Ready"), format!("{silent}; it met HTTP 500"));
    assert_eq!(told(&server, &half_open(unasked()), "Ready"), silent);
    assert_eq!(told(&server, &half_open(serving()), "CircuitClosed"), "False/CircuitHalfOpen: on trial");
}

#[test]
fn an_open_circuit_says_why_and_when_the_server_is_tried_again() {
    for server in [fixtures::server(|_| {}), fixtures::remote(|_| {})] {
        let retry_at = Some(clock::time(fixtures::at(30)));
        let circuit = CircuitStatus { state: CircuitState::Open, retry_at, ..CircuitStatus::default() };
        let health = ServerHealth { circuit, ..of_verdict(&failed()) };
        for type_ in ["Ready", "CircuitClosed"] {
            assert_eq!(told(&server, &health, type_), "False/CircuitOpen: HTTP 500; tried again at 2026-01-01T00:00:30Z");
        }
        let circuit = CircuitStatus { state: CircuitState::Open, failures: 3, ..CircuitStatus::default() };
        let health = ServerHealth { circuit, ..of_verdict(&Verdict::healthy()) };
        assert_eq!(told(&server, &health, "Ready"), "False/CircuitOpen: 3 failures in a row");
    }
}

#[test]
fn what_is_waited_for_is_told_before_anybody_is_served() {
    let (server, remote) = (fixtures::server(|_| {}), fixtures::remote(|_| {}));
    assert_eq!(told(&remote, &unasked(), "Ready"), "False/Starting: not probed yet");
    assert_eq!(told(&server, &unasked(), "Ready"), "False/Starting: waiting for the first pod to answer");
    let answers = ServerHealth { verdict: Verdict::healthy(), ..health(vec![pod("a", false, false)]) };
    let carried = "False/Starting: the server answers; Kubernetes is putting it into its Service";
    assert_eq!(told(&server, &answers, "Ready"), carried);
    assert_eq!(told(&server, &ServerHealth { verdict: limited(), ..answers }, "Ready"), carried);
    for server in [&server, &remote] {
        assert_eq!(told(server, &of_verdict(&failed()), "Ready"), "False/HttpStatus: HTTP 500");
    }
    let others = PodHealth { tools_accepted: Some(false), ..pod("a", false, false) };
    assert_eq!(told(&server, &health(vec![others.clone()]), "Ready"), "False/ToolsChanged: no pod offers the accepted tools");
    let accepted = PodHealth { tools_accepted: Some(true), ..others };
    assert_eq!(told(&server, &health(vec![accepted]), "Ready"), "False/Starting: waiting for the first pod to answer");
}

#[test]
fn a_pod_that_never_answered_is_told_by_the_last_it_met_until_that_counts() {
    let server = fixtures::server(|_| {});
    let starting =
        |starting, latest| health(vec![PodHealth { starting, latest, verdict: Verdict::unknown(), ..pod("a", false, false) }]);
    let ready = |pods| told(&server, &ServerHealth { verdict: Verdict::unknown(), ..pods }, "Ready");
    for its_time_is_over in [false, true] {
        assert_eq!(ready(starting(!its_time_is_over, failed())), "False/Starting: not up yet: HTTP 500");
    }
    // It failed often enough for that, and its time was not over.
    let settled = health(vec![PodHealth { latest: failed(), verdict: failed(), ..pod("a", false, false) }]);
    assert_eq!(ready(settled), "False/Starting: not up yet: HTTP 500");
    let was_up = health(vec![PodHealth { latest: failed(), served: true, ..pod("a", false, false) }]);
    assert_eq!(ready(was_up), "False/Starting: waiting for the first pod to answer", "it was up");
    assert_eq!(ready(starting(true, Verdict::unknown())), "False/Starting: waiting for the first pod to answer");
}

#[test]
fn health_is_told_of_every_pod() {
    let (server, remote) = (fixtures::server(|_| {}), fixtures::remote(|_| {}));
    let healthy = |pods| told(&server, &health(pods), "Healthy");
    let well = || pod("a", true, false);
    assert_eq!(healthy(vec![well()]), "True/ProbeSucceeded: the server answered over MCP");
    assert_eq!(healthy(vec![well(), failing("b")]), "False/Degraded: 1 of 2 pods fail; b: HTTP 500");
    assert_eq!(healthy(vec![failing("a"), failing("b")]), "False/HttpStatus: 2 of 2 pods fail; a: HTTP 500");
    assert_eq!(healthy(vec![troubled("a", "OOMKilled")]), "False/OOMKilled: 1 of 1 pods fail; pod a: why");
    let restarted = PodHealth { trouble: troubled("a", "OOMKilled").trouble, ..well() };
    assert_eq!(healthy(vec![restarted]), "True/ProbeSucceeded: the server answered over MCP", "it serves");
    assert_eq!(healthy(vec![]), "Unknown/Unknown: there is no pod to ask");
    assert_eq!(healthy(vec![pod("a", false, false)]), "Unknown/Unknown: not probed yet");
    assert_eq!(told(&remote, &unasked(), "Healthy"), "Unknown/Unknown: not probed yet");
    assert_eq!(told(&remote, &of_verdict(&limited()), "Healthy"), "Unknown/RateLimited: HTTP 429");
    assert_eq!(told(&remote, &of_verdict(&failed()), "Healthy"), "False/HttpStatus: HTTP 500");
}

/// An operator that starts anew while the Secret is missing has nothing to ask with; what was told of health before is no word on that.
#[test]
fn a_server_that_cannot_be_asked_is_told_by_its_pods_and_says_what_is_missing() {
    let healthy = vec![(condition::HEALTHY, Finding::new(true, reason::PROBE_SUCCEEDED, "before"))];
    let conditions = conditions::merge(&[], healthy, Some(1), fixtures::at(0));
    let server = fixtures::server(|server| server.status = Some(McpServerStatus { conditions, ..McpServerStatus::default() }));
    let problems = vec![Problem { class: Class::Waiting, reason: reason::SECRET_NOT_FOUND, message: "create it".into() }];
    let outcome = Outcome { problems, ..outcome(&server) };
    let told = |health: &ServerHealth| {
        let status = compute(&server, &outcome, Some(health), fixtures::at(0));
        ["Ready", "Healthy", "Stalled"].map(|type_| read(&status, type_))
    };
    let lacking = ServerHealth { lacks_credentials: true, verdict: Verdict::unknown(), ..serving() };
    let not_probed = "Unknown/Unknown: not probed: what headersFrom or caSecretRef names is missing, or cannot be read";
    let stalled = "True/SecretNotFound: create it";
    assert_eq!(told(&lacking), ["True/Available: answers MCP clients; create it", not_probed, stalled]);
    let open = told(&in_state(CircuitState::Open, lacking));
    assert!(open[0].starts_with("False/CircuitOpen") && open[0].ends_with("; create it"), "{open:?}");
}

#[test]
fn a_server_that_serves_says_who_of_its_pods_does_not_and_that_it_says_no() {
    let server = fixtures::server(|server| server.spec.replicas = 2);
    let ready = |health| told(&server, &health, "Ready");
    assert_eq!(ready(serving()), "True/Available: answers MCP clients");
    let one = health(vec![pod("a", true, false), failing("b")]);
    assert_eq!(ready(one), "True/Degraded: 1/2 pods in service; b: HTTP 500");
    assert_eq!(ready(ServerHealth { verdict: limited(), ..serving() }), "True/RateLimited: HTTP 429");
}

#[test]
fn of_several_pods_that_cannot_run_the_one_that_never_ran_is_told() {
    let server = fixtures::server(|_| {});
    let crashed = || {
        let mut pod = troubled("a", "CrashLoopBackOff");
        pod.trouble.as_mut().expect("in trouble").ran = true;
        pod
    };
    let pulling = || troubled("b", "ImagePullBackOff");
    for pods in [vec![crashed(), pulling()], vec![pulling(), crashed()]] {
        assert_eq!(told(&server, &health(pods), "Ready"), "False/ImagePullBackOff: pod b: why");
    }
    assert_eq!(told(&server, &health(vec![crashed()]), "Ready"), "False/CrashLoopBackOff: pod a: why");
    let restarted = PodHealth { in_service: true, ..crashed() };
    assert_eq!(told(&server, &health(vec![restarted]), "Reconciling"), "True/RollingOut: pods are being made or replaced");
}

fn stood_in(server: &McpServer, phase: Phase) -> Outcome {
    let mut outcome = outcome(server);
    let valid = outcome.valid.as_mut().expect("valid");
    valid.phase = phase;
    let addresses = BTreeMap::from([("IPv4".to_owned(), BTreeSet::from(["10.0.0.1".to_owned()]))]);
    valid.activator = Arc::new(Endpoints { addresses, port: 8080 });
    outcome
}

#[test]
fn a_server_that_sleeps_is_ready_has_nobody_to_ask_and_keeps_its_tools() {
    let before = vec![(condition::TOOLS_ACCEPTED, Finding::new(true, reason::TOOLS_UNCHANGED, "as they were"))];
    let told_before =
        McpServerStatus { conditions: conditions::merge(&[], before, Some(1), fixtures::at(0)), ..McpServerStatus::default() };
    let mut server = fixtures::server(|server| server.status = Some(told_before));
    let of = |server: &McpServer, phase, health: &ServerHealth| {
        let status = compute(server, &stood_in(server, phase), Some(health), fixtures::at(9));
        ["Ready", "Healthy", "ToolsAccepted"].map(|type_| {
            let found = conditions::find(&status.conditions, type_).expect("the condition is there");
            format!("{}/{}", found.status, found.reason)
        })
    };
    assert_eq!(of(&server, Phase::Asleep, &unasked()), ["True/Asleep", "Unknown/Asleep", "True/Unchanged"]);
    let last_pod = [serving(), health(vec![troubled("a", "OOMKilled")])];
    assert_eq!(of(&server, Phase::Asleep, &last_pod[0]), ["True/Asleep", "True/ProbeSucceeded", "True/Unchanged"]);
    assert_eq!(of(&server, Phase::Waking, &last_pod[1]), ["False/OOMKilled", "False/OOMKilled", "True/Unchanged"]);
    assert_eq!(of(&server, Phase::Awake, &unasked()), ["False/Starting", "Unknown/Unknown", "Unknown/Unknown"]);
    server.spec.circuit_breaker.force = Some(Force::Open);
    let open = in_state(CircuitState::Open, unasked());
    assert_eq!(of(&server, Phase::Asleep, &open)[0], "False/Forced");
}

#[test]
fn a_wake_tells_what_the_pod_met_that_it_waits_for() {
    let server = fixtures::server(|_| {});
    let told = |pods| read(&compute(&server, &stood_in(&server, Phase::Waking), Some(&health(pods)), fixtures::at(9)), "Ready");
    let waiting = "True/Waking: it is being woken, and calls wait for its first pod";
    assert_eq!(told(vec![]), waiting);
    assert_eq!(told(vec![failing("a")]), format!("{waiting}; pod a: HTTP 500"));
}

/// Calls wait for a pod that Kubernetes does not let be made: that is no wake under way.
#[test]
fn a_wake_that_a_quota_refuses_is_told_at_once() {
    let server = fixtures::server(|_| {});
    let refused = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]);
    let deployment = json!({
        "metadata": {"generation": 1}, "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": {"observedGeneration": 1, "conditions": refused},
    });
    let told = |phase| {
        let deployment = serde_json::from_value(deployment.clone()).ok();
        let outcome = Outcome { deployment, ..stood_in(&server, phase) };
        read(&compute(&server, &outcome, Some(&unasked()), fixtures::at(9)), "Ready")
    };
    assert!(told(Phase::Waking).starts_with("False/FailedCreate: exceeded quota"), "{}", told(Phase::Waking));
    assert!(told(Phase::Asleep).starts_with("True/Asleep"), "no pod is wanted now: {}", told(Phase::Asleep));
}

#[test]
fn the_pods_wanted_are_those_of_the_decision_where_there_is_one() {
    let server = fixtures::server(|server| server.spec.autoscaling = serde_json::from_value(json!({"maxReplicas": 5})).ok());
    let mut outcome = outcome(&server);
    outcome.valid.as_mut().expect("valid").decision = Some(Decision { desired: 3, reason: "calls".into() });
    let status = compute(&server, &outcome, None, fixtures::at(0));
    assert_eq!((status.pods.as_deref(), status.autoscaling.map(|told| told.desired)), (Some("0/3"), Some(3)));
}

#[test]
fn a_new_operator_keeps_a_word_only_until_somebody_was_asked_or_nobody_will_be() {
    let told = |type_, status: bool, reason, message| (type_, Finding::new(status, reason, message));
    let before = vec![
        told(condition::READY, false, reason::STARTING, "before"),
        told(condition::HEALTHY, false, reason::TIMEOUT, "before"),
        told(condition::TOOLS_ACCEPTED, true, reason::TOOLS_UNCHANGED, "before"),
        told(condition::CIRCUIT_CLOSED, true, reason::CIRCUIT_CLOSED, "before"),
    ];
    let conditions = conditions::merge(&[], before, Some(1), fixtures::at(0));
    let with = |mut server: McpServer| {
        server.status = Some(McpServerStatus { conditions: conditions.clone(), ..McpServerStatus::default() });
        server
    };
    let (server, remote) = (with(fixtures::server(|_| {})), with(fixtures::remote(|_| {})));
    let off = with(fixtures::server(|server| server.spec.enabled = false));
    let kept = |server: &McpServer, health: &ServerHealth| {
        let status = compute(server, &outcome(server), Some(health), fixtures::at(9));
        let is_kept = |type_: &&str| conditions::find(&status.conditions, type_).is_some_and(|found| found.message == "before");
        ["Ready", "Healthy", "ToolsAccepted", "CircuitClosed"].into_iter().filter(is_kept).collect::<Vec<_>>()
    };
    let of_probes = vec!["Healthy", "ToolsAccepted"];
    let waiting = || health(vec![pod("a", false, false)]);
    assert_eq!(kept(&server, &waiting()), of_probes);
    // What a client of a remote server meets does not pass by us.
    assert_eq!(kept(&remote, &unasked()), [vec!["Ready"], of_probes.clone()].concat());
    assert!(kept(&off, &waiting()).is_empty(), "it is switched off");
    assert!(kept(&server, &health(vec![])).is_empty(), "nobody will be asked");
    assert!(kept(&server, &health(vec![troubled("a", "OOMKilled")])).is_empty(), "this one cannot be asked");
    let asked = PodHealth { latest: failed(), ..pod("a", false, false) };
    assert!(kept(&server, &health(vec![asked])).is_empty(), "this one was");
    let protocol = Some(ProtocolStatus { version: "2026-07-28".into(), era: crate::crd::Era::Modern });
    assert!(kept(&server, &ServerHealth { protocol, ..waiting() }).is_empty(), "it has spoken");
    assert!(kept(&server, &ServerHealth { verdict: failed(), ..waiting() }).is_empty(), "it has failed");
    // An open circuit is news where something else was told.
    assert_eq!(kept(&server, &in_state(CircuitState::Open, waiting())), of_probes);
}

#[test]
fn what_is_amiss_with_the_spec_stands_once_in_the_message_of_ready() {
    let server = fixtures::server(|_| {});
    let ready = |class, reason, health: &ServerHealth| {
        let problems = vec![Problem { class, reason, message: "look here".into() }];
        read(&compute(&server, &Outcome { problems, ..outcome(&server) }, Some(health), fixtures::at(0)), "Ready")
    };
    let answers = "True/Available: answers MCP clients";
    assert_eq!(ready(Class::Waiting, reason::SECRET_NOT_FOUND, &serving()), format!("{answers}; look here"));
    assert_eq!(ready(Class::Contested, reason::CONTESTED, &serving()), format!("{answers}; look here"));
    assert_eq!(ready(Class::Transient, reason::APPLY_FAILED, &serving()), answers, "it is tried again");
    for (class, reason) in [(Class::Waiting, reason::SECRET_NOT_FOUND), (Class::Waiting, reason::CONTESTED)] {
        assert_eq!(ready(class, reason, &unasked()), format!("False/{reason}: look here"));
    }
    // Where there is a pod, its own word goes before that.
    assert_eq!(
        ready(Class::Waiting, reason::SECRET_NOT_FOUND, &health(vec![pod("a", false, false)])),
        "False/Starting: waiting for the first pod to answer; look here"
    );
}

#[test]
fn what_kubernetes_refuses_is_told_where_there_is_no_pod() {
    let server = fixtures::server(|_| {});
    let mut refused = deployment(&server, 0, "ReplicaSetUpdated");
    let conditions = refused.status.as_mut().and_then(|status| status.conditions.as_mut()).expect("conditions");
    conditions.push(
        serde_json::from_value(
            json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "failed quota"}),
        )
        .expect("a condition"),
    );
    let outcome = Outcome { deployment: Some(refused), ..outcome(&server) };
    let ready = |health: Option<&ServerHealth>| read(&compute(&server, &outcome, health, fixtures::at(0)), "Ready");
    let told = "False/FailedCreate: failed quota";
    assert_eq!([ready(None), ready(Some(&unasked()))], [told, told]);
    let of_pod = "False/Starting: waiting for the first pod to answer; failed quota";
    assert_eq!(ready(Some(&health(vec![pod("a", false, false)]))), of_pod);
}

#[test]
fn a_rollout_is_over_when_every_pod_of_the_new_template_well() {
    let reconciling = |server: &McpServer, updated, pods| {
        let mut deployment = deployment(server, updated, "ReplicaSetUpdated");
        // As far as the Deployment has heard.
        deployment.status.as_mut().expect("a status").available_replicas = Some(0);
        let outcome = Outcome { deployment: Some(deployment), ..outcome(server) };
        let status = compute(server, &outcome, Some(&health(pods)), fixtures::at(0));
        assert_eq!(status.replicas, server.spec.replicas);
        conditions::find(&status.conditions, "Reconciling").expect("told").status == "True"
    };
    let server = fixtures::server(|_| {});
    let well = || pod("a", true, false);
    assert!(!reconciling(&server, 1, vec![well()]), "before the Deployment says so");
    assert!(reconciling(&server, 0, vec![well()]), "this is the old one");
    assert!(reconciling(&server, 1, vec![pod("a", false, false)]), "it does not serve yet");
    assert!(reconciling(&server, 1, vec![well(), pod("b", false, false)]), "an old one is going");
    let off = fixtures::server(|server| server.spec.enabled = false);
    assert!(reconciling(&off, 1, vec![well()]), "its pods are going");
    let of_none = |server: &McpServer| told(server, &unasked(), "Reconciling");
    assert_eq!(of_none(&off), "False/Available: there is nothing to roll out");
    assert_eq!(of_none(&server), "True/RollingOut: pods are being made or replaced");
}

#[test]
fn tools_are_told_by_what_differs_and_what_is_left_out() {
    let list = |names: &[&str]| ToolsList::new(names.iter().map(|&name| Tool { name: name.into(), hash: name.into() }).collect());
    let server = fixtures::server(|_| {});
    let health = |tools: ToolsList, tools_diff| ServerHealth { tools: Some(Arc::new(tools)), tools_diff, ..serving() };
    let accepted = |health: &ServerHealth| told(&server, health, "ToolsAccepted");
    assert_eq!(accepted(&serving()), "Unknown/Unknown: no list of tools is known yet");
    let same = health(list(&["a"]), None);
    assert_eq!(accepted(&same), "True/Unchanged: the tools are the accepted ones");
    let less = health(list(&["a"]).without(vec!["b".into()]), None);
    assert_eq!(accepted(&less), "True/Unchanged: the tools are the accepted ones; left out, because nobody can call them: b");
    let other = health(list(&["b"]), list(&["b"]).diff(&list(&["a"]).accept()));
    assert!(accepted(&other).starts_with("False/ToolsChanged: added: b; removed: a. "), "{}", accepted(&other));
    let ignoring = fixtures::server(|server| server.spec.tools.policy = ToolsPolicy::Ignore);
    assert_eq!(told(&ignoring, &other, "ToolsAccepted"), "True/Ignored: spec.tools.policy is Ignore");
    let status = compute(&server, &outcome(&server), Some(&other), fixtures::at(0)).tools.expect("tools");
    assert_eq!((status.count, status.names), (1, vec!["b".to_owned()]));
}

#[test]
fn how_an_unpinned_package_is_pinned_is_told_in_its_registrys_way() {
    let told = |stdio: serde_json::Value| {
        let server = fixtures::stdio(|server| server.spec.stdio = serde_json::from_value(stdio).expect("stdio"));
        read(&compute(&server, &Outcome::default(), None, fixtures::at(0)), "PackagePinned")
    };
    let kept = told(json!({"command": "uvx", "args": ["a"], "cache": {"size": "1Gi"}}));
    assert!(kept.contains("and stays in the cache; pin it as name==1.2.3"), "{kept}");
    let anew = told(json!({"command": "npx", "args": ["-y", "a"]}));
    assert!(anew.contains("by each pod anew") && anew.contains("pin it as name@1.2.3"), "{anew}");
}

#[test]
fn a_pod_that_is_to_come_is_waited_for_until_clients_are_sent_to_it() {
    let server = fixtures::server(|server| server.spec.replicas = 2);
    let deployment = deployment(&server, 2, "NewReplicaSetAvailable");
    let outcome = Outcome { deployment: Some(deployment), ..outcome(&server) };
    let reconciling = |second: Option<PodHealth>| {
        let pods = [Some(pod("a", true, false)), second].into_iter().flatten().collect();
        let status = compute(&server, &outcome, Some(&health(pods)), fixtures::at(0));
        conditions::find(&status.conditions, "Reconciling").expect("it is told").status.clone()
    };
    let new = || pod("b", false, false);
    assert_eq!(reconciling(None), "True", "it is not made");
    assert_eq!(reconciling(Some(PodHealth { starting: true, ..new() })), "True", "it starts");
    assert_eq!(reconciling(Some(PodHealth { gate: true, containers_ready: true, ..new() })), "True", "it has answered");
    assert_eq!(reconciling(Some(pod("b", true, false))), "False", "it serves");
    assert_eq!(reconciling(Some(PodHealth { served: true, ..new() })), "False", "it did");
    assert_eq!(reconciling(Some(failing("b"))), "False", "it had its time, and fails");
}

#[test]
fn last_words_are_quoted_only_while_what_they_may_hold_is_known() {
    let server = fixtures::server(|_| {});
    let message = "pod a: Error; it ended last with exit code 1: a password";
    let trouble = Trouble { words: message.find(": a password"), ..fixtures::trouble("Error", message) };
    let deployment = Some(deployment(&server, 1, "ReplicaSetUpdated"));
    let told = |outcome: &Outcome| {
        let pods = vec![PodHealth { trouble: Some(trouble.clone()), ..pod("a", false, false) }];
        let status = compute(&server, outcome, Some(&health(pods)), fixtures::at(0));
        ["Ready", "Healthy", "Reconciling"]
            .map(|type_| conditions::find(&status.conditions, type_).expect("it is told").message.contains("a password"))
    };
    let known = Outcome { deployment, ..outcome(&server) };
    assert_eq!(told(&known), [true; 3]);
    let problem = Problem { class: Class::Waiting, reason: reason::SECRET_NOT_FOUND, message: "it is gone".into() };
    assert_eq!(told(&Outcome { problems: vec![problem], ..outcome(&server) }), [false; 3], "it is gone");
    assert_eq!(told(&Outcome { valid: None, ..known }), [false; 3], "it cannot be read");
}

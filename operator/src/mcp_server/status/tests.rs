use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::*;
use crate::{
    asleep::Endpoints,
    crd::CircuitStatus,
    fixtures,
    mcp_server::{observe::Observed, validate::validate},
    pod_trouble::Making,
    probe::Verdict,
    requeue::Class,
    rollout::Origin,
};

pub(super) fn outcome(server: &McpServer) -> Outcome {
    Outcome { valid: Some(validate(server, &Observed::default()).expect("valid")), ..Outcome::default() }
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
fn whether_a_package_is_pinned_is_told_where_one_is_installed() {
    let told = |stdio: serde_json::Value| {
        let server = fixtures::stdio(|server| server.spec.stdio = serde_json::from_value(stdio).expect("stdio"));
        let status = compute(&server, &Outcome::default(), None, fixtures::at(0));
        let found = conditions::find(&status.conditions, "PackagePinned");
        found.map(|found| (found.status.clone(), found.reason.clone(), found.message.clone()))
    };
    let (status, reason, _) = told(json!({"command": "uvx", "args": ["a==1.2"]})).expect("told");
    assert_eq!((status.as_str(), reason.as_str()), ("True", reason::PINNED));
    let (status, reason, message) = told(json!({"command": "npx", "args": ["-y", "a@latest"]})).expect("told");
    assert_eq!((status.as_str(), reason.as_str()), ("False", reason::UNPINNED));
    assert!(message.contains("a@latest") && message.contains("name@1.2.3"), "{message}");
    assert_eq!(told(json!({"command": "/app/own", "image": "own:1"})), None);
}

fn problem(class: Class, reason: &'static str) -> Vec<Problem> {
    vec![Problem { class, reason, message: "create it".into() }]
}

#[test]
fn what_stands_in_the_way_of_any_pod_is_told_by_ready_and_by_stalled() {
    let server = fixtures::server(|_| {});
    let problems = problem(Class::Waiting, reason::SECRET_NOT_FOUND);
    let status = compute(&server, &Outcome { problems, ..Outcome::default() }, None, fixtures::at(0));
    assert_eq!(condition(&status, "Ready"), ("False".into(), reason::SECRET_NOT_FOUND.into()));
    assert_eq!(condition(&status, "Stalled"), ("True".into(), reason::SECRET_NOT_FOUND.into()));
    assert_eq!(condition(&status, "Reconciling").0, "False");
}

fn message(status: &McpServerStatus, type_: &str) -> String {
    conditions::find(&status.conditions, type_).expect("the condition is there").message.clone()
}

pub(super) fn deployment(server: &McpServer, updated: i32, reason: &str) -> Deployment {
    let replicas = server.spec.replicas;
    serde_json::from_value(json!({
        "metadata": {"generation": 1}, "spec": {"replicas": replicas, "selector": {}, "template": {}},
        "status": {
            "observedGeneration": 1, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": 1,
            "conditions": [{"type": "Progressing", "status": "True", "reason": reason, "message": "late"}],
        },
    }))
    .expect("a Deployment")
}

pub(super) fn health(pods: Vec<PodHealth>) -> ServerHealth {
    let verdict = if pods.iter().any(|pod| pod.in_service) { Verdict::healthy() } else { Verdict::unknown() };
    ServerHealth { verdict, pods, ..unasked() }
}

pub(super) fn troubled(name: &str, reason: &str) -> PodHealth {
    PodHealth { trouble: Some(fixtures::trouble(reason, &format!("pod {name}: why"))), ..pod(name, false, false) }
}

#[test]
fn an_obstacle_is_told_by_stalled_and_by_the_message_of_ready_which_stays_true_while_pods_serve() {
    let server = fixtures::server(|_| {});
    let outcome = Outcome { problems: problem(Class::Waiting, reason::SECRET_NOT_FOUND), ..outcome(&server) };
    let status = compute(&server, &outcome, Some(&health(vec![pod("a", true, false)])), fixtures::at(0));
    assert_eq!(condition(&status, "Ready"), ("True".into(), reason::AVAILABLE.into()));
    assert!(message(&status, "Ready").contains("create it"));
    assert_eq!(condition(&status, "Stalled"), ("True".into(), reason::SECRET_NOT_FOUND.into()));
}

fn of_template(template: &str, made: i64, pod: PodHealth) -> PodHealth {
    PodHealth { origin: Origin { template: Some(template.into()), made: Some(fixtures::at(made)) }, ..pod }
}

/// (Ready, Reconciling, Stalled) as "True/Reason" of a server with an old pod that serves, or none, beside a new one.
fn of_a_rollout(old_serves: bool, progress: &str, new: PodHealth) -> [String; 3] {
    let server = fixtures::server(|_| {});
    let old = old_serves.then(|| of_template("1", 1, pod("old", true, false)));
    let health = health(old.into_iter().chain([of_template("2", 2, new)]).collect());
    let mut deployment = deployment(&server, 1, progress);
    deployment.metadata.generation = Some(2);
    let status = deployment.status.as_mut().expect("it has one");
    (status.observed_generation, status.replicas) = (Some(2), i32::try_from(health.pods.len()).ok());
    status.available_replicas = Some(i32::from(old_serves));
    let deployment = Some(deployment);
    let status = compute(&server, &Outcome { deployment, ..outcome(&server) }, Some(&health), fixtures::at(0));
    ["Ready", "Reconciling", "Stalled"].map(|type_| {
        let (status, reason) = condition(&status, type_);
        format!("{status}/{reason}")
    })
}

#[test]
fn a_rollout_is_told_in_kubernetes_words_while_the_old_version_serves() {
    let starting = || pod("new", false, false);
    assert_eq!(of_a_rollout(true, "ReplicaSetUpdated", starting()), ["True/Available", "True/RollingOut", "False/Available"]);
    let pulling = || troubled("new", "ImagePullBackOff");
    assert_eq!(
        of_a_rollout(true, "ReplicaSetUpdated", pulling()),
        ["True/Degraded", "True/ImagePullBackOff", "False/ImagePullBackOff"]
    );
    assert_eq!(
        of_a_rollout(true, "ProgressDeadlineExceeded", pulling()),
        ["True/Degraded", "False/ImagePullBackOff", "True/ImagePullBackOff"]
    );
    assert_eq!(
        of_a_rollout(false, "ReplicaSetUpdated", pulling()),
        ["False/ImagePullBackOff", "True/ImagePullBackOff", "False/ImagePullBackOff"]
    );
    let refused = PodHealth { tools_accepted: Some(false), shut_out: true, ..starting() };
    assert_eq!(of_a_rollout(true, "ReplicaSetUpdated", refused), ["True/Available", "False/ToolsChanged", "True/ToolsChanged"]);
}

/// A pod that cannot come up was made from the former template, and a person has edited the spec since.
#[test]
fn what_befell_a_former_template_does_not_stall_the_one_that_mends_it() {
    let server = fixtures::server(|_| {});
    let told = |observed: i64, updated: usize, pods: Vec<PodHealth>| {
        let status = json!({"observedGeneration": observed, "replicas": pods.len(), "updatedReplicas": updated});
        let mut outcome = outcome(&server);
        let deployment =
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 1, "selector": {}, "template": {}}, "status": status});
        outcome.deployment = Some(serde_json::from_value(deployment).expect("a Deployment"));
        let status = compute(&server, &outcome, Some(&health(pods)), fixtures::at(0));
        [condition(&status, "Stalled").0, condition(&status, "Reconciling").0, condition(&status, "Ready").1]
    };
    let old = || of_template("1", 1, troubled("old", "ErrImageNeverPull"));
    assert_eq!(told(2, 1, vec![old()]), ["True", "False", "ErrImageNeverPull"], "before the edit");
    assert_eq!(told(1, 1, vec![old()]), ["False", "True", "ErrImageNeverPull"], "Kubernetes has not looked at it");
    assert_eq!(told(2, 0, vec![old()]), ["False", "True", "ErrImageNeverPull"], "no pod of it is made yet");
    let new = || of_template("2", 2, pod("new", false, false));
    assert_eq!(told(2, 1, vec![old(), new()]), ["False", "True", "Starting"], "its pod comes up");
    let worse = of_template("2", 2, troubled("new", "InvalidImageName"));
    assert_eq!(told(2, 1, vec![old(), worse]), ["True", "False", "InvalidImageName"], "it is no better");
}

#[test]
fn the_first_pods_are_those_of_the_spec_before_their_deployment_says_so() {
    let server = fixtures::server(|_| {});
    let told = |generation: i64| {
        let deployment = serde_json::from_value(json!({
            "metadata": {"generation": generation}, "spec": {"replicas": 1, "selector": {}, "template": {}},
        }));
        let outcome = Outcome { deployment: Some(deployment.expect("a Deployment")), ..outcome(&server) };
        let status = compute(&server, &outcome, Some(&health(vec![pod("a", true, false)])), fixtures::at(0));
        (condition(&status, "Ready").0, condition(&status, "Reconciling").0, status.replicas)
    };
    assert_eq!(told(1), ("True".into(), "False".into(), 1));
    // Of another one nobody knows yet of which template they are.
    assert_eq!(told(2), ("True".into(), "True".into(), 0));
}

#[test]
fn what_keeps_every_pod_from_running_stands_above_the_circuit_but_not_above_the_switch() {
    let mut server = fixtures::server(|_| {});
    let circuit = CircuitStatus { state: CircuitState::Open, ..CircuitStatus::default() };
    let health = ServerHealth { circuit, ..health(vec![troubled("a", "CrashLoopBackOff")]) };
    let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(0));
    assert_eq!(condition(&status, "Ready"), ("False".into(), "CrashLoopBackOff".into()));
    assert_eq!(condition(&status, "Healthy"), ("False".into(), "CrashLoopBackOff".into()));
    server.spec.circuit_breaker.force = Some(Force::Open);
    let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(0));
    assert_eq!(condition(&status, "Ready"), ("False".into(), reason::FORCED.into()));
}

#[test]
fn a_pull_that_is_tried_again_and_again_has_one_reason() {
    let mut server = fixtures::server(|_| {});
    let mut tell = |pod: &str, reason: &str| {
        let trouble = fixtures::trouble(reason, &format!("pod {pod}, container mcp: {reason}: why"));
        let health = health(vec![PodHealth { trouble: Some(trouble), ..self::pod(pod, false, false) }]);
        server.status = Some(compute(&server, &outcome(&server), Some(&health), fixtures::at(0)));
        condition(server.status.as_ref().expect("told"), "Ready").1
    };
    assert_eq!(tell("a", "ErrImagePull"), "ErrImagePull");
    assert_eq!(tell("a", "ImagePullBackOff"), "ImagePullBackOff");
    assert_eq!(tell("a", "ErrImagePull"), "ImagePullBackOff", "the same, said otherwise");
    assert_eq!(tell("b", "ErrImagePull"), "ErrImagePull", "another pod");
    assert_eq!(tell("b", "CreateContainerConfigError"), "CreateContainerConfigError");
}

#[test]
fn a_claim_that_is_not_bound_is_named_where_the_scheduler_waits_for_it() {
    let server = fixtures::server(|_| {});
    let said = "pod has unbound immediate PersistentVolumeClaims.";
    let claim = serde_json::json!({"metadata": {"name": "own"}, "status": {"phase": "Pending"}});
    let outcome = Outcome { claims: vec![serde_json::from_value(claim).expect("a claim")], ..outcome(&server) };
    let health = health(vec![PodHealth { trouble: Some(fixtures::trouble("Unschedulable", said)), ..pod("a", false, false) }]);
    let told = message(&compute(&server, &outcome, Some(&health), fixtures::at(0)), "Ready");
    assert!(told.contains("the claim own ("), "{told}");
}

#[test]
fn the_last_answer_of_a_pod_that_has_not_come_up_is_told() {
    let server = fixtures::server(|_| {});
    let latest = Verdict { kind: Kind::Failed, reason: reason::HTTP_STATUS, message: "HTTP 404 at /sse".into() };
    let starting = PodHealth { starting: true, latest, counts_from: Some(fixtures::at(60)), ..pod("a", false, false) };
    let health = ServerHealth { verdict: Verdict::unknown(), ..health(vec![starting]) };
    let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(0));
    assert_eq!(condition(&status, "Ready"), ("False".into(), reason::STARTING.into()));
    let told = "not up yet: HTTP 404 at /sse; failures count from 2026-01-01T00:01:00Z";
    assert_eq!([message(&status, "Ready"), message(&status, "Healthy")], [told, told]);
}

#[test]
fn a_server_that_wants_credentials_is_ready_only_where_its_clients_bring_their_own() {
    let verdict = Verdict { kind: Kind::Alive, reason: reason::UNAUTHORIZED, message: "HTTP 401".into() };
    let ready = |accept| {
        let server = fixtures::server(|server| server.spec.health.accept_unauthorized = accept);
        let health = ServerHealth { verdict: verdict.clone(), ..health(vec![pod("a", true, false)]) };
        condition(&compute(&server, &outcome(&server), Some(&health), fixtures::at(0)), "Ready").0
    };
    assert_eq!([ready(false), ready(true)], ["Unknown", "True"]);
}

/// Pods that come up stay out until a person lets them in, also when Kubernetes calls that late; what keeps one from running is told first.
#[test]
fn a_rollout_that_force_holds_stalls_and_says_so() {
    let server = fixtures::server(|server| server.spec.circuit_breaker.force = Some(Force::Open));
    let stalled = |progress, pods| {
        let outcome = Outcome { deployment: Some(deployment(&server, 1, progress)), ..outcome(&server) };
        let open = CircuitStatus { state: CircuitState::Open, ..CircuitStatus::default() };
        let health = ServerHealth { circuit: open, ..health(pods) };
        condition(&compute(&server, &outcome, Some(&health), fixtures::at(0)), "Stalled")
    };
    let forced = ("True".to_owned(), reason::FORCED.to_owned());
    for progress in ["ReplicaSetUpdated", "ProgressDeadlineExceeded"] {
        assert_eq!(stalled(progress, vec![pod("a", false, false)]), forced, "{progress}");
    }
    assert_eq!(stalled("ProgressDeadlineExceeded", vec![troubled("a", "ImagePullBackOff")]).1, "ImagePullBackOff");
    let former = PodHealth { served: true, ..pod("a", false, false) };
    assert_eq!(stalled("NewReplicaSetAvailable", vec![former]).0, "False", "nothing rolls out");
}

/// A Deployment that was done once says so for ever, also of pods that it was scaled up to.
#[test]
fn pods_that_a_server_was_scaled_up_to_stall_once_they_have_had_their_time() {
    let server = fixtures::server(|server| {
        server.spec.replicas = 2;
        server.spec.pod.progress_deadline_seconds = Some(60);
    });
    let trouble = Trouble { made: Some(fixtures::at(0)), ..fixtures::trouble(reason::UNSCHEDULABLE, "no room") };
    let health = health(vec![pod("a", true, false), PodHealth { trouble: Some(trouble), ..pod("b", false, false) }]);
    let outcome = Outcome { deployment: Some(deployment(&server, 2, "NewReplicaSetAvailable")), ..outcome(&server) };
    let told = |second| {
        let status = compute(&server, &outcome, Some(&health), fixtures::at(second));
        assert_eq!(condition(&status, "Ready").0, "True", "the first one serves");
        ["Reconciling", "Stalled"].map(|type_| condition(&status, type_))
    };
    let said = |status: &str| (status.to_owned(), reason::UNSCHEDULABLE.to_owned());
    assert_eq!(told(59), [said("True"), said("False")]);
    assert_eq!(told(60), [said("False"), said("True")]);
}

#[test]
fn a_server_without_pods_says_so_before_it_says_what_they_would_lack() {
    let server = fixtures::server(|server| server.spec.replicas = 0);
    let problems = problem(Class::Waiting, reason::SECRET_NOT_FOUND);
    let status = compute(&server, &Outcome { problems, ..Outcome::default() }, None, fixtures::at(0));
    assert_eq!(condition(&status, "Ready"), ("False".into(), reason::SCALED_TO_ZERO.into()));
    assert!(message(&status, "Ready").ends_with("; create it"), "{}", message(&status, "Ready"));
    assert_eq!(condition(&status, "Stalled"), ("True".into(), reason::SECRET_NOT_FOUND.into()));
}

#[test]
fn the_pod_that_is_waited_for_is_named_while_it_ends() {
    let server = fixtures::server(|_| {});
    let told = |strategy: &str| {
        let mut deployment = deployment(&server, 0, "ReplicaSetUpdated");
        deployment.spec.as_mut().expect("it has one").strategy = serde_json::from_value(json!({"type": strategy})).ok();
        let outcome = Outcome { deployment: Some(deployment), ..outcome(&server) };
        let health = ServerHealth { ending: Some("db-mcp-1".into()), ..health(vec![]) };
        message(&compute(&server, &outcome, Some(&health), fixtures::at(0)), "Ready")
    };
    assert_eq!(
        told("Recreate"),
        "pod db-mcp-1 is still ending: one may write at a time, so the next one is made when it is gone"
    );
    assert_eq!(told("RollingUpdate"), "pod db-mcp-1 is still ending, and no other one is there yet");
}

#[test]
fn the_container_that_kubernetes_does_not_find_ready_is_named() {
    let server = fixtures::server(|_| {});
    let answers = PodHealth { gate: true, unready: Some("proxy".into()), ..pod("a", false, false) };
    let health = ServerHealth { verdict: Verdict::healthy(), ..health(vec![answers]) };
    let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(0));
    let expected = "the server answers; Kubernetes waits for the readiness probe of container proxy: kubectl describe pod a";
    assert_eq!(message(&status, "Ready"), expected);
}

#[test]
fn nobody_says_ready_in_a_panic_of_a_server_of_which_no_pod_answers() {
    let server = fixtures::server(|_| {});
    let health = ServerHealth { panic: true, ..health(vec![pod("a", true, false)]) };
    let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(0));
    assert_eq!(condition(&status, "Ready"), ("Unknown".into(), reason::FLEET_PANIC.into()));
}

#[test]
fn a_paused_server_says_so_and_what_a_client_meets() {
    let server = fixtures::server(|_| {});
    let told = |pods| {
        let outcome = Outcome { paused: true, ..outcome(&server) };
        compute(&server, &outcome, Some(&health(pods)), fixtures::at(0))
    };
    assert_eq!(condition(&told(vec![pod("a", true, false)]), "Ready"), ("True".into(), reason::PAUSED.into()));
    assert_eq!(condition(&told(vec![]), "Ready"), ("False".into(), reason::PAUSED.into()));
    assert_eq!(told(vec![]).observed_generation, Some(1));
}

#[test]
fn without_a_service_no_client_gets_in_however_well_the_pods_are() {
    let outcome = Outcome { no_service: Some(Problem::no_service()), ..Outcome::default() };
    let told = compute(&fixtures::server(|_| {}), &outcome, Some(&health(vec![pod("a", true, false)])), fixtures::at(0));
    let ready = conditions::find(&told.conditions, condition::READY).expect("it is told");
    assert_eq!((ready.status.as_str(), ready.message.as_str()), ("False", "its Service is not there: no client finds it"));
}

#[test]
fn what_has_not_started_refuses_no_connection() {
    let refused = Verdict { kind: Kind::Failed, message: "connection refused".into(), ..Verdict::healthy() };
    let ready = |init: Option<&str>, second| {
        let making =
            Making { init: init.map(Into::into), sidecar: false, prepared: true, made: None, since: Some(fixtures::at(0)) };
        let pod = PodHealth { starting: true, latest: refused.clone(), making: Some(making), ..pod("a", false, false) };
        message(&compute(&fixtures::server(|_| {}), &Outcome::default(), Some(&health(vec![pod])), fixtures::at(second)), "Ready")
    };
    assert_eq!(ready(Some("download"), 0), "not up yet: pod a: its init container download is running");
    assert_eq!(ready(None, 29), "waiting for the first pod to answer");
    assert_eq!(ready(None, 30), "not up yet: pod a: its containers are still being created: kubectl describe pod a");
}

#[test]
fn a_gate_that_is_held_open_over_a_pod_that_fails_makes_nobody_ready() {
    let server = fixtures::server(|server| server.spec.circuit_breaker.force = Some(Force::Closed));
    let verdict = Verdict { kind: Kind::Failed, reason: reason::TIMEOUT, message: "no answer".into() };
    let fails = |name| PodHealth { failing: true, verdict: verdict.clone(), ..pod(name, true, true) };
    let told = |pods| {
        let health = ServerHealth { verdict: verdict.clone(), ..health(pods) };
        condition(&compute(&server, &Outcome::default(), Some(&health), fixtures::at(0)), "Ready")
    };
    assert_eq!(told(vec![fails("a")]), ("False".into(), reason::TIMEOUT.into()));
    assert_eq!(told(vec![fails("a"), pod("b", true, false)]), ("True".into(), reason::DEGRADED.into()));
}

#[test]
fn who_sleeps_and_cannot_wake_is_not_ready() {
    let server = fixtures::server(|_| {});
    let ready = |change: fn(&mut Outcome)| {
        let mut outcome = outcome(&server);
        outcome.valid.iter_mut().for_each(|valid| {
            valid.phase = Phase::Asleep;
            let addresses = [("IPv4".to_owned(), ["10.0.0.1".to_owned()].into())].into();
            valid.activator = std::sync::Arc::new(Endpoints { addresses, port: 8080 });
        });
        change(&mut outcome);
        let told = compute(&server, &outcome, Some(&health(vec![])), fixtures::at(0));
        let ready = conditions::find(&told.conditions, condition::READY).expect("it is told");
        (ready.status.clone(), ready.reason.clone())
    };
    assert_eq!(ready(|_| {}), ("True".into(), reason::ASLEEP.into()));
    let lacks = |outcome: &mut Outcome| {
        let message = "the Secret x does not exist".into();
        outcome.no_pods = Some(Problem { class: Class::Waiting, reason: reason::SECRET_NOT_FOUND, message });
    };
    assert_eq!(ready(lacks), ("False".into(), reason::SECRET_NOT_FOUND.into()));
    assert_eq!(ready(|outcome| outcome.paused = true), ("False".into(), reason::PAUSED.into()));
}

#[test]
fn who_is_scaled_to_zero_does_not_start() {
    let told = compute(
        &fixtures::server(|server| server.spec.replicas = 0),
        &Outcome::default(),
        Some(&health(vec![])),
        fixtures::at(0),
    );
    let ready = conditions::find(&told.conditions, condition::READY).expect("it is told");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", reason::SCALED_TO_ZERO));
}

#[test]
fn a_circuit_of_a_server_that_is_switched_off_is_at_rest_whatever_holds_it() {
    let server = fixtures::server(|server| {
        server.spec.enabled = false;
        server.spec.circuit_breaker.force = Some(Force::Open);
    });
    let status = compute(&server, &outcome(&server), Some(&unasked()), fixtures::at(0));
    assert_eq!(condition(&status, "CircuitClosed"), ("True".into(), reason::DISABLED.into()));
}

#[test]
fn a_server_that_lost_its_last_pod_is_not_healthy_any_more() {
    let before = vec![(condition::HEALTHY, Finding::new(true, reason::PROBE_SUCCEEDED, "it answered"))];
    let server = fixtures::server(|server| {
        let conditions = conditions::merge(&[], before, Some(1), fixtures::at(0));
        server.status = Some(McpServerStatus { conditions, ..McpServerStatus::default() });
    });
    let healthy = |pods| condition(&compute(&server, &outcome(&server), Some(&health(pods)), fixtures::at(9)), "Healthy").0;
    assert_eq!(healthy(vec![]), "Unknown");
    assert_eq!(healthy(vec![pod("a", false, false)]), "True", "nobody has asked this one yet: what was found out stands");
}

#[test]
fn whoever_scales_the_server_finds_its_pods() {
    let server = fixtures::server(|_| {});
    let status = compute(&server, &outcome(&server), None, fixtures::at(0));
    let selector = "app.kubernetes.io/component=mcp-server,app.kubernetes.io/instance=db,app.kubernetes.io/managed-by=mcpfleet";
    assert_eq!(status.selector.as_deref(), Some(selector));
    assert_eq!(compute(&fixtures::remote(|_| {}), &Outcome::default(), None, fixtures::at(0)).selector, None);
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
    // Its pod is known, and was not asked yet.
    let health = ServerHealth { circuit, pods: vec![PodHealth { name: "a".into(), ..PodHealth::default() }], ..unasked() };
    let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(9));
    assert_eq!(conditions::find(&status.conditions, "Ready").expect("Ready").message, "HTTP 500");
    assert_eq!(condition(&status, "Healthy"), ("False".into(), reason::HTTP_STATUS.into()));
}

pub(super) fn unasked() -> ServerHealth {
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

#[test]
fn a_new_operator_keeps_a_remote_server_ready_until_it_has_asked_it() {
    let mut server = fixtures::remote(|_| {});
    let ready = |server: &McpServer, verdict| {
        let health = ServerHealth { verdict, remote: true, ..unasked() };
        compute(server, &Outcome::default(), Some(&health), fixtures::at(0))
    };
    let told = ready(&server, Verdict::healthy());
    assert_eq!(condition(&told, "Ready").0, "True");
    server.status = Some(told);
    assert_eq!(condition(&ready(&server, Verdict::unknown()), "Ready").0, "True");
    server.metadata.generation = Some(server.metadata.generation.unwrap_or_default() + 1);
    assert_eq!(condition(&ready(&server, Verdict::unknown()), "Ready").1, reason::STARTING, "another address, perhaps");
}

#[test]
fn a_new_operator_keeps_what_a_pod_met_until_it_has_asked_it() {
    let mut server = fixtures::server(|_| {});
    let outcome = Outcome { deployment: Some(deployment(&server, 1, "ProgressDeadlineExceeded")), ..outcome(&server) };
    let refused = Verdict { kind: Kind::Failed, reason: reason::CONNECTION_REFUSED, message: "refused".into() };
    let of_new = |latest: Verdict| {
        let new = PodHealth { latest, starting: true, verdict: Verdict::unknown(), ..pod("new", false, false) };
        health(vec![pod("old", true, false), new])
    };
    let told = compute(&server, &outcome, Some(&of_new(refused)), fixtures::at(0));
    let stalled = |status: &McpServerStatus| (condition(status, "Stalled"), message(status, "Stalled"), message(status, "Ready"));
    assert_eq!(condition(&told, "Stalled").1, reason::CONNECTION_REFUSED);
    server.status = Some(told.clone());
    let anew = compute(&server, &outcome, Some(&of_new(Verdict::unknown())), fixtures::at(9));
    assert_eq!(stalled(&anew), stalled(&told));
    let mended = compute(&server, &outcome, Some(&of_new(Verdict::healthy())), fixtures::at(9));
    assert_eq!(condition(&mended, "Stalled").1, reason::PROGRESS_DEADLINE_EXCEEDED);
}

pub(super) fn pod(name: &str, in_service: bool, failing: bool) -> PodHealth {
    PodHealth {
        name: name.into(),
        uid: name.into(),
        verdict: if failing { Verdict::unknown() } else { Verdict::healthy() },
        failing,
        gate: in_service,
        containers_ready: in_service,
        in_service,
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
                                let outcome = Outcome { problems: problem.into_iter().collect(), ..outcome(&server) };
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
    let context = || format!("{health:?} {:?} -> {:?}", outcome.problems, status.conditions);
    let serving = health.pods.iter().any(|pod| pod.in_service);
    let answers = if server.spec.remote.is_some() { matches!(health.verdict.kind, Kind::Healthy | Kind::Alive) } else { serving };
    if is("Ready", "True") {
        let usable = match health.circuit.state {
            CircuitState::Closed => true,
            CircuitState::HalfOpen => server.spec.remote.is_some(),
            CircuitState::Open => false,
        };
        assert!(answers && server.spec.enabled && usable, "{}", context());
    }
    if is("Healthy", "True") {
        assert!(health.verdict.kind == Kind::Healthy && !health.pods.iter().any(|pod| pod.failing), "{}", context());
    }
    let obstacle = outcome.problems.iter().any(|problem| problem.class.is_obstacle());
    let forced = server.spec.circuit_breaker.force == Some(Force::Open) && health.circuit.state != CircuitState::Closed;
    // There is no Deployment that would say that its pods are there.
    let held = forced && server.spec.enabled && server.spec.remote.is_none();
    assert_eq!(is("Stalled", "True"), obstacle || held, "{}", context());
    assert!(!(is("Stalled", "True") && is("Reconciling", "True")), "{}", context());
    assert_eq!(is("CircuitClosed", "True"), health.circuit.state == CircuitState::Closed, "{}", context());
    assert!(!is("Ready", "Unknown") && !is("Stalled", "Unknown") && !is("Reconciling", "Unknown"), "{}", context());
    for found in &status.conditions {
        let reason = &found.reason;
        assert!(!reason.is_empty() && reason.chars().all(|c| c.is_ascii_alphanumeric()), "{reason:?} is no machine word");
        assert!(!found.message.is_empty(), "{} says nothing", found.type_);
    }
}

/// What is told of a server by an operator that starts anew, of which this was told before.
fn told_anew(told: [(&'static str, Status, &str); 2], pods: Vec<PodHealth>, verdict: Verdict) -> [String; 2] {
    let before = told.map(|(type_, status, reason)| (type_, Finding::new(status, reason, "what was found out")));
    let server = fixtures::server(|server| {
        let observed_generation = server.metadata.generation;
        let conditions = conditions::merge(&[], before.to_vec(), observed_generation, fixtures::at(0));
        server.status = Some(McpServerStatus { observed_generation, conditions, ..McpServerStatus::default() });
    });
    let health = ServerHealth { verdict, pods, ..unasked() };
    let status = compute(&server, &outcome(&server), Some(&health), fixtures::at(9));
    ["Ready", "Healthy"].map(|type_| {
        let (status, reason) = condition(&status, type_);
        format!("{status}/{reason}")
    })
}

/// In service or not, and nothing that counts was found out about it by this operator.
fn inherited(name: &str, in_service: bool) -> PodHealth {
    PodHealth { verdict: Verdict::unknown(), latest: Verdict::unknown(), inherited: true, ..pod(name, in_service, false) }
}

#[test]
fn a_new_operator_tells_nobody_as_well_of_whom_something_else_was_told_before_it_has_asked() {
    let (ready, healthy) = (condition::READY, condition::HEALTHY);
    let panics = [(ready, Status::Unknown, reason::FLEET_PANIC), (healthy, Status::False, reason::HTTP_STATUS)];
    let refuses = [(ready, Status::Unknown, reason::UNAUTHORIZED), (healthy, Status::Unknown, reason::UNAUTHORIZED)];
    let degraded = [(ready, Status::True, reason::DEGRADED), (healthy, Status::False, reason::DEGRADED)];
    let others = [(ready, Status::False, reason::TOOLS_CHANGED), (healthy, Status::True, reason::PROBE_SUCCEEDED)];
    let failed_once = || PodHealth {
        latest: Verdict { kind: Kind::Failed, reason: reason::HTTP_STATUS, message: "500".into() },
        ..inherited("a", true)
    };
    for (told, pods, verdict) in [
        (panics, vec![inherited("a", true)], Verdict::unknown()),
        (panics, vec![failed_once()], Verdict::unknown()),
        (panics, vec![inherited("a", true), pod("b", true, false)], Verdict::healthy()),
        (refuses, vec![inherited("a", true)], Verdict::unknown()),
        (degraded, vec![pod("a", true, false), inherited("b", false)], Verdict::healthy()),
        (others, vec![pod("a", false, false)], Verdict::unknown()),
    ] {
        let expected = told.map(|(_, status, reason)| format!("{}/{reason}", status.as_str()));
        assert_eq!(told_anew(told, pods.clone(), verdict), expected, "{pods:?}");
    }
}

#[test]
fn what_kubernetes_tells_and_what_was_asked_since_is_told_at_once() {
    let told =
        [(condition::READY, Status::Unknown, reason::FLEET_PANIC), (condition::HEALTHY, Status::False, reason::HTTP_STATUS)];
    let anew = |pods, verdict| told_anew(told, pods, verdict)[0].clone();
    assert_eq!(anew(vec![inherited("a", false)], Verdict::unknown()), "False/Starting", "it is out of service");
    assert_eq!(anew(vec![], Verdict::unknown()), "False/Starting");
    let crashes = PodHealth { inherited: true, ..troubled("a", "CrashLoopBackOff") };
    assert_eq!(anew(vec![crashes], Verdict::unknown()), "False/CrashLoopBackOff");
    assert_eq!(anew(vec![pod("a", true, false)], Verdict::healthy()), "True/Available");
    let starting = [(condition::READY, Status::False, reason::STARTING), (condition::HEALTHY, Status::Unknown, reason::UNKNOWN)];
    assert_eq!(told_anew(starting, vec![inherited("a", true)], Verdict::unknown())[0], "True/Available", "it came in meanwhile");
}

#[test]
fn a_pod_that_is_kept_out_for_saying_no_is_told_of_and_stalls_its_rollout() {
    let no = Verdict { kind: Kind::Alive, reason: reason::UNAUTHORIZED, message: "HTTP 401".into() };
    let kept_out = |why| PodHealth { latest: no.clone(), verdict: no.clone(), kept_out: Some(why), ..pod("new", false, false) };
    let beside = || kept_out(KeptOut::AnotherVersionIsWell);
    assert_eq!(of_a_rollout(true, "ReplicaSetUpdated", beside()), ["True/Available", "True/RollingOut", "False/Available"]);
    assert_eq!(
        of_a_rollout(true, "ProgressDeadlineExceeded", beside()),
        ["True/Available", "False/Unauthorized", "True/Unauthorized"]
    );
    let alone = of_a_rollout(false, "ReplicaSetUpdated", kept_out(KeptOut::ShowsNoTools));
    assert_eq!(alone, ["False/Unauthorized", "True/RollingOut", "False/Available"]);
}

#[test]
fn a_list_is_told_as_accepted_when_it_is_kept() {
    let server = fixtures::server(|_| {});
    let told = |unaccepted: bool, names: &[&str]| {
        let tools = names.iter().map(|&name| crate::probe::Tool { name: name.into(), hash: name.into() }).collect();
        let tools = Some(std::sync::Arc::new(crate::probe::ToolsList::new(tools)));
        let health = ServerHealth { tools, unaccepted, ..health(vec![pod("a", true, false)]) };
        condition(&compute(&server, &outcome(&server), Some(&health), fixtures::at(0)), "ToolsAccepted")
    };
    assert_eq!(told(true, &["a"]), ("Unknown".into(), reason::UNKNOWN.into()));
    assert_eq!(told(false, &["a"]), ("True".into(), reason::TOOLS_UNCHANGED.into()));
    assert_eq!(told(true, &[]), ("True".into(), reason::TOOLS_UNCHANGED.into()), "who offers nothing is waited for by nobody");
}

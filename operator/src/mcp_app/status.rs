//! The app's status: a pure summary of spec, children, pods and servers.

use k8s_openapi::jiff::Timestamp;

use super::validate::{AppServer as Server, ValidatedApp};
use crate::{
    app_pods::HeldUp,
    app_reports::{AppReport, ModelReport},
    conditions::{self, Finding, Status},
    crd::{
        McpApp, McpAppStatus,
        mcp_app::{AppServer, AppServerState, Budget},
        reason::{self, condition},
    },
    kstatus::Inputs,
    pass,
    problem::Problem,
    requeue::Class,
    rollout::Rollout,
};

/// How a pass over an app ended.
pub type Outcome = pass::Outcome<ValidatedApp>;

/// The status that tells of all this.
pub fn compute(app: &McpApp, outcome: &Outcome, held_up: &HeldUp, report: &AppReport, now: Timestamp) -> McpAppStatus {
    let before = app.status.clone().unwrap_or_default();
    // Without a model there is nothing to reach, and nothing that costs.
    let model = report.model.as_ref().filter(|_| app.spec.model.is_some());
    let budget = app.spec.budget.as_ref().zip(report.budget_percent).filter(|_| app.spec.model.is_some());
    let generation = app.metadata.generation;
    let servers = outcome.valid.as_ref().map_or_else(|| before.servers.clone(), servers);
    let rollout = Rollout::of(outcome.deployment.as_ref(), &held_up.latest);
    let offered = servers.iter().filter(|server| server.state == AppServerState::Offered).count();
    let making = held_up.making.as_ref().map(|told| (reason::STARTING, told.clone()));
    let problems: Vec<_> =
        outcome.problems.iter().cloned().chain(outcome.valid.as_ref().and_then(|_| no_servers(&servers))).collect();
    let inputs = Inputs {
        paused: outcome.paused,
        problems: &problems,
        rollout: Some(&rollout),
        trouble: held_up.trouble.as_ref().filter(|_| !held_up.former),
        overdue: held_up.trouble.as_ref().is_some_and(|trouble| trouble.is_overdue(app.spec.pod.progress_deadline(), now)),
        // One whose container started anew is told as trouble.
        to_come: held_up.trouble.is_none() && rollout.ready < app.spec.replicas,
        unwell: making.as_ref(),
        held: None,
    };
    let [reconciling, stalled] = inputs.findings();
    let gateway = app.spec.model.is_none();
    let view = View { outcome, rollout: &rollout, held_up, gateway, model, servers: &servers };
    let mut findings = vec![(condition::READY, inputs.ready(view.met()))];
    findings.extend(model.map(|model| (condition::MODEL_REACHABLE, model_reachable(model))));
    findings.extend(budget.map(|(budget, percent)| (condition::WITHIN_BUDGET, within_budget(budget, percent))));
    findings.extend([reconciling, stalled]);
    McpAppStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings, generation, now),
        // Of a spec that was never accepted nobody knows.
        servers_offered: (outcome.valid.is_some() || !servers.is_empty()).then(|| format!("{offered}/{}", servers.len())),
        servers,
        replicas: rollout.replicas,
        ready_replicas: rollout.ready,
        pods: Some(format!("{}/{}", rollout.ready, app.spec.replicas)),
        url: outcome.valid.as_ref().map(ValidatedApp::url).or(before.url),
    }
}

fn servers(app: &ValidatedApp) -> Vec<AppServer> {
    app.servers.iter().map(|(name, server)| AppServer { name: name.clone(), state: server.state }).collect()
}

/// Everything that Ready looks at.
struct View<'a> {
    outcome: &'a Outcome,
    rollout: &'a Rollout,
    held_up: &'a HeldUp,
    /// It has no model, and no chat.
    gateway: bool,
    model: Option<&'a ModelReport>,
    servers: &'a [AppServer],
}

impl View<'_> {
    /// What a person meets who opens the app.
    fn met(&self) -> Finding {
        match &self.outcome.no_service {
            _ if self.rollout.ready == 0 => self.not_serving(),
            Some(problem) => Finding::new(false, problem.reason, &problem.message),
            None => self.serving(),
        }
    }

    /// Kubernetes' reasons first, then what stands in the way of there being pods.
    fn not_serving(&self) -> Finding {
        if let Some(trouble) = &self.held_up.trouble {
            return Finding::new(false, &trouble.reason, &trouble.message);
        }
        if let Some((reason, message)) = &self.rollout.refused {
            return Finding::new(false, reason, message);
        }
        match Problem::obstacle(&self.outcome.problems) {
            Some(obstacle) => Finding::new(false, obstacle.reason, obstacle.message),
            None => Finding::new(false, reason::STARTING, self.held_up.making.as_deref().unwrap_or("no pod is ready yet")),
        }
    }

    fn serving(&self) -> Finding {
        // With an empty key every question fails, whatever the pods say of themselves.
        if let Some(empty) = self.outcome.problems.iter().find(|problem| problem.reason == reason::SECRET_EMPTY) {
            return Finding::new(false, empty.reason, &empty.message);
        }
        if let Some(model) = self.model.filter(|model| model.reachable == Some(false)) {
            return Finding::new(false, &model.reason, &model.message);
        }
        if let Some(none) = no_servers(self.servers) {
            return Finding::new(false, none.reason, none.message);
        }
        let (missing, offered) = (self.missing(), self.servers.len());
        let (reason, told) = if missing.is_empty() {
            (reason::ALL_SERVERS_OFFERED, format!("serving with {offered} of {offered} servers"))
        } else {
            (reason::SERVERS_MISSING, format!("serving without the tools of {}", missing.join(", ")))
        };
        let gateway = if self.gateway { ", as a gateway without a model" } else { "" };
        Finding::new(true, reason, format!("{told}{gateway}"))
    }

    /// Each server that is not offered, and why.
    fn missing(&self) -> Vec<String> {
        let missing = self.servers.iter().filter(|server| server.state != AppServerState::Offered);
        let why = |server: &AppServer| {
            let known = self.outcome.valid.as_ref().and_then(|app| app.servers.get(&server.name));
            known.and_then(Server::why).unwrap_or(server.state.as_str())
        };
        missing.map(|server| format!("{} ({})", server.name, why(server))).collect()
    }
}

/// It has no server that exists: somebody has to make one, or to name others.
fn no_servers(servers: &[AppServer]) -> Option<Problem> {
    let missing = servers.iter().all(|server| server.state == AppServerState::NotFound);
    let names: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
    let message = match names.len() {
        0 => "no McpServer matches spec.servers: correct the labels, or create one".to_owned(),
        1 => format!("the server {} does not exist: create it, or correct spec.servers", names[0]),
        _ => format!("none of the servers exists: create {}, or correct spec.servers", names.join(", ")),
    };
    missing.then_some(Problem { class: Class::Waiting, reason: reason::NO_SERVERS, message })
}

fn model_reachable(model: &ModelReport) -> Finding {
    match model.reachable {
        Some(true) => Finding::new(true, reason::MODEL_ANSWERS, "the model answers"),
        Some(false) => Finding::new(false, &model.reason, &model.message),
        None => Finding::new(Status::Unknown, reason::UNKNOWN, "the model has not been asked yet"),
    }
}

/// Without the percentage, which would be a write for every question: that is in the metrics.
fn within_budget(budget: &Budget, percent: u32) -> Finding {
    let day = format!("spec.budget.tokensPerDay ({}), which is shared out among the pods", budget.tokens_per_day);
    if percent >= 100 {
        let told = format!("a pod has used up its share of {day}: its questions are refused until midnight UTC");
        return Finding::new(false, reason::BUDGET_USED_UP, told);
    }
    if percent >= budget.alert_percent {
        let told = format!("a pod has used {} % or more of its share of {day}", budget.alert_percent);
        return Finding::new(true, reason::BUDGET_NEARLY_USED_UP, told);
    }
    Finding::new(true, reason::WITHIN_BUDGET, format!("less than {} % of {day} is used", budget.alert_percent))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        fixtures,
        mcp_app::{observe::Observed, validate::validate},
    };

    fn deployment(ready: i32) -> k8s_openapi::api::apps::v1::Deployment {
        serde_json::from_value(json!({
            "metadata": {"generation": 1}, "spec": {"replicas": 1, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": ready, "availableReplicas": ready},
        }))
        .expect("a Deployment")
    }

    /// An app over these servers with so many pods ready.
    fn serving(servers: &[(&str, AppServerState)], ready: i32) -> (McpApp, Outcome) {
        let app = fixtures::app(|_| {});
        let mut valid = validate(&app, &Observed::default(), "i", "t".into()).expect("valid");
        valid.servers =
            servers.iter().map(|(name, state)| ((*name).to_owned(), Server { state: *state, ..Server::not_found() })).collect();
        let outcome = Outcome { valid: Some(valid), deployment: Some(deployment(ready)), ..Outcome::default() };
        (app, outcome)
    }

    fn condition(status: &McpAppStatus, type_: &str) -> (String, String) {
        let found = conditions::find(&status.conditions, type_).expect("the condition is there");
        (found.status.clone(), found.reason.clone())
    }

    const OFFERED: AppServerState = AppServerState::Offered;
    const NOT_FOUND: AppServerState = AppServerState::NotFound;

    #[rstest]
    #[case::all(&[("a", OFFERED), ("b", OFFERED)], "True", reason::ALL_SERVERS_OFFERED)]
    #[case::one_is_missing(&[("a", OFFERED), ("b", NOT_FOUND)], "True", reason::SERVERS_MISSING)]
    #[case::one_is_down(&[("a", AppServerState::CircuitOpen)], "True", reason::SERVERS_MISSING)]
    #[case::no_server(&[], "False", reason::NO_SERVERS)]
    #[case::none_exists(&[("a", NOT_FOUND), ("b", NOT_FOUND)], "False", reason::NO_SERVERS)]
    fn an_app_is_ready_while_it_has_servers(
        #[case] servers: &[(&str, AppServerState)],
        #[case] status: &str,
        #[case] reason: &str,
    ) {
        let (app, outcome) = serving(servers, 1);
        let told = compute(&app, &outcome, &HeldUp::default(), &AppReport::default(), fixtures::at(0));
        assert_eq!(condition(&told, "Ready"), (status.into(), reason.into()));
        assert_eq!(condition(&told, "Reconciling").0, "False");
    }

    #[test]
    fn what_keeps_the_pods_from_running_is_told_in_kubernetes_words() {
        let (app, outcome) = serving(&[("a", OFFERED)], 0);
        let trouble = Some(fixtures::trouble("ImagePullBackOff", "pod x: no such tag"));
        let held_up = HeldUp { trouble, ..HeldUp::default() };
        let told = compute(&app, &outcome, &held_up, &AppReport::default(), fixtures::at(0));
        assert_eq!(condition(&told, "Ready"), ("False".into(), "ImagePullBackOff".into()));
        assert_eq!(condition(&told, "Reconciling"), ("True".into(), "ImagePullBackOff".into()));
    }

    #[test]
    fn an_app_whose_pod_is_being_made_says_how_far_it_is() {
        let (app, outcome) = serving(&[("a", OFFERED)], 0);
        let held_up = HeldUp { making: Some("not up yet: its init container".into()), ..HeldUp::default() };
        let told = compute(&app, &outcome, &held_up, &AppReport::default(), fixtures::at(0));
        assert_eq!(condition(&told, "Ready"), ("False".into(), reason::STARTING.into()));
        let says = |type_| conditions::find(&told.conditions, type_).expect("it is there").message.clone();
        assert_eq!(says("Ready"), "not up yet: its init container");
        assert!(says("Reconciling").ends_with("not up yet: its init container"));
    }

    #[test]
    fn an_app_whose_model_does_not_answer_is_not_ready() {
        let (app, outcome) = serving(&[("a", OFFERED)], 1);
        let report = |reachable| {
            let model = ModelReport { reachable, reason: "ModelRefused".into(), message: "401".into() };
            AppReport { model: Some(model), ..AppReport::default() }
        };
        let ready =
            |reachable| condition(&compute(&app, &outcome, &HeldUp::default(), &report(reachable), fixtures::at(0)), "Ready").0;
        assert_eq!([ready(Some(true)), ready(Some(false)), ready(None)], ["True", "False", "True"]);
        let told = compute(&app, &outcome, &HeldUp::default(), &report(Some(false)), fixtures::at(0));
        assert_eq!(condition(&told, "ModelReachable"), ("False".into(), "ModelRefused".into()));
        assert!(
            conditions::find(
                &compute(&app, &outcome, &HeldUp::default(), &AppReport::default(), fixtures::at(0)).conditions,
                "ModelReachable"
            )
            .is_none()
        );
    }

    #[test]
    fn a_budget_that_is_used_up_is_told_and_its_percentages_are_not() {
        let (mut app, outcome) = serving(&[("a", OFFERED)], 1);
        let told = |app: &McpApp, budget_percent| {
            let report = AppReport { budget_percent, ..AppReport::default() };
            compute(app, &outcome, &HeldUp::default(), &report, fixtures::at(0)).conditions
        };
        let is = |conditions: &[_]| {
            conditions::find(conditions, "WithinBudget").map(|found| (found.status.clone(), found.reason.clone()))
        };
        assert_eq!(is(&told(&app, Some(50))), None, "there is no budget in the spec");
        app.spec.budget = serde_json::from_value(json!({"tokensPerDay": 1_000})).ok();
        assert_eq!(is(&told(&app, None)), None, "no pod has told of it");
        assert_eq!(told(&app, Some(0)), told(&app, Some(79)), "what is used is worth no write");
        let [within, nearly, used_up] = [79, 80, 100].map(|percent| is(&told(&app, Some(percent))).expect("it is there"));
        assert_eq!(within, ("True".into(), reason::WITHIN_BUDGET.into()));
        assert_eq!(nearly, ("True".into(), reason::BUDGET_NEARLY_USED_UP.into()));
        assert_eq!(used_up, ("False".into(), reason::BUDGET_USED_UP.into()));
    }

    #[test]
    fn an_obstacle_stalls_and_is_told_by_ready_which_stays_true_while_pods_serve() {
        let (app, mut outcome) = serving(&[("a", OFFERED)], 1);
        let problem = Problem { class: Class::Waiting, reason: reason::SECRET_NOT_FOUND, message: "create it".into() };
        outcome.problems = vec![problem];
        let told = compute(&app, &outcome, &HeldUp::default(), &AppReport::default(), fixtures::at(0));
        assert_eq!(condition(&told, "Ready"), ("True".into(), reason::ALL_SERVERS_OFFERED.into()));
        assert!(conditions::find(&told.conditions, "Ready").expect("Ready").message.contains("create it"));
        assert_eq!(condition(&told, "Stalled"), ("True".into(), reason::SECRET_NOT_FOUND.into()));
        outcome.problems[0].reason = reason::SECRET_EMPTY;
        let told = compute(&app, &outcome, &HeldUp::default(), &AppReport::default(), fixtures::at(0));
        assert_eq!(condition(&told, "Ready"), ("False".into(), reason::SECRET_EMPTY.into()), "every question fails");
    }

    #[test]
    fn a_gateway_says_that_it_has_no_model_and_what_is_missing_is_told_in_words() {
        let ready = |servers: &[(&str, AppServerState)], model: bool| {
            let (mut app, outcome) = serving(servers, 1);
            app.spec.model = app.spec.model.filter(|_| model);
            let told = compute(&app, &outcome, &HeldUp::default(), &AppReport::default(), fixtures::at(0));
            conditions::find(&told.conditions, "Ready").expect("Ready").message.clone()
        };
        assert_eq!(ready(&[("a", OFFERED)], true), "serving with 1 of 1 servers");
        assert_eq!(ready(&[("a", OFFERED)], false), "serving with 1 of 1 servers, as a gateway without a model");
        let without = "serving without the tools of b (NotFound), as a gateway without a model";
        assert_eq!(ready(&[("a", OFFERED), ("b", NOT_FOUND)], false), without);
    }

    #[test]
    fn what_others_change_as_we_write_it_is_told_by_ready() {
        let (app, mut outcome) = serving(&[("a", OFFERED)], 1);
        outcome.problems = vec![Problem { class: Class::Contested, reason: reason::CONTESTED, message: "look here".into() }];
        let told = compute(&app, &outcome, &HeldUp::default(), &AppReport::default(), fixtures::at(0));
        let ready = conditions::find(&told.conditions, "Ready").expect("Ready");
        assert_eq!((&*ready.status, &*ready.message), ("True", "serving with 1 of 1 servers; look here"));
    }

    #[test]
    fn a_paused_app_says_so_and_what_is_met() {
        let (app, outcome) = serving(&[("a", OFFERED)], 1);
        let outcome = Outcome { paused: true, ..outcome };
        let told = compute(&app, &outcome, &HeldUp::default(), &AppReport::default(), fixtures::at(0));
        assert_eq!(condition(&told, "Ready"), ("True".into(), reason::PAUSED.into()));
        assert_eq!(told.observed_generation, app.metadata.generation);
    }
}

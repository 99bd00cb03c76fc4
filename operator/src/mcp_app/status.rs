//! The app's status: a pure summary of spec, children and servers.

use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};

use super::{apply::Applied, validate::ValidatedApp};
use crate::{
    conditions::{self, Finding, Status},
    crd::{
        McpApp, McpAppStatus,
        mcp_app::{AppServer, AppServerState},
        reason::{self, condition},
    },
    problem::Problem,
    requeue::Class,
};

/// How a pass ended: the app as far as it is known, and what stood in the way.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The app, when it was valid.
    pub app: Option<ValidatedApp>,
    /// The children, when they were applied.
    pub applied: Option<Applied>,
    /// What stood in the way.
    pub problem: Option<Problem>,
}

/// The status that tells of all this.
pub fn compute(app: &McpApp, outcome: &Outcome, now: Timestamp) -> McpAppStatus {
    let before = app.status.clone().unwrap_or_default();
    let generation = app.metadata.generation;
    let servers = outcome.app.as_ref().map_or_else(|| before.servers.clone(), servers);
    let ready_replicas = outcome.applied.as_ref().map_or(before.ready_replicas, |applied| ready(&applied.deployment));
    let offered = servers.iter().filter(|server| server.state == AppServerState::Offered).count();
    let findings = vec![
        (condition::READY, ready_finding(outcome, ready_replicas, offered, &servers)),
        (condition::PROGRESSING, progressing(outcome)),
        (condition::STALLED, stalled(outcome)),
    ];
    McpAppStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings, generation, now),
        servers_offered: Some(format!("{offered}/{}", servers.len())),
        servers,
        replicas: app.spec.replicas,
        ready_replicas,
        pods: Some(format!("{ready_replicas}/{}", app.spec.replicas)),
        url: outcome.app.as_ref().map(ValidatedApp::url).or(before.url),
    }
}

fn servers(app: &ValidatedApp) -> Vec<AppServer> {
    app.servers.iter().map(|(name, server)| AppServer { name: name.clone(), state: server.state }).collect()
}

fn ready(deployment: &Deployment) -> u32 {
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas);
    u32::try_from(ready.unwrap_or(0)).unwrap_or(0)
}

fn ready_finding(outcome: &Outcome, ready_replicas: u32, offered: usize, servers: &[AppServer]) -> Finding {
    match &outcome.problem {
        Some(problem) if problem.class != Class::Transient => {
            return Finding::new(false, problem.reason, problem.message.clone());
        }
        _ => {}
    }
    if ready_replicas == 0 {
        return Finding::new(false, reason::STARTING, "no pod is ready yet");
    }
    let missing: Vec<_> = servers
        .iter()
        .filter(|server| server.state != AppServerState::Offered)
        .map(|server| format!("{} ({:?})", server.name, server.state))
        .collect();
    if missing.is_empty() {
        return Finding::new(true, reason::ALL_SERVERS_OFFERED, format!("serving with {offered} of {offered} servers"));
    }
    Finding::new(true, reason::SERVERS_MISSING, format!("serving without the tools of {}", missing.join(", ")))
}

fn progressing(outcome: &Outcome) -> Finding {
    if let Some(problem) = outcome.problem.as_ref().filter(|problem| problem.class == Class::Transient) {
        return Finding::new(true, problem.reason, problem.message.clone());
    }
    match outcome.applied.as_ref().map(|applied| rolled_out(&applied.deployment)) {
        Some(false) => Finding::new(true, reason::STARTING, "pods are being created or rolled"),
        Some(true) => Finding::new(false, reason::AVAILABLE, "the pods are those of the spec"),
        None => Finding::new(Status::False, reason::UNKNOWN, "waiting for what Stalled says"),
    }
}

fn stalled(outcome: &Outcome) -> Finding {
    match outcome.problem.as_ref().filter(|problem| problem.class != Class::Transient) {
        Some(problem) => Finding::new(true, problem.reason, problem.message.clone()),
        None => Finding::new(false, reason::AVAILABLE, "nothing stands in the way"),
    }
}

/// Whether every pod of the Deployment is of its latest template.
pub fn rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
    })
}

//! One reconcile of an McpApp, in one direction: observe → validate → build → apply → status.

pub mod apply;
pub mod build;
pub mod observe;
pub mod status;
pub mod validate;

use std::{convert::Infallible, sync::Arc};

use kube::{
    Client, ResourceExt,
    runtime::{controller::Action, events::Recorder},
};
use rand::Rng;

use self::status::Outcome;
use crate::{
    backoff::Attempts,
    cache::Cache,
    clock,
    crd::{McpApp, McpServer},
    inputs::Reader,
    mcp_server::is_paused,
    metrics::ReconcileMetrics,
    problem::{self, Problem},
    requeue::{self, Class},
    ssa,
};

/// What a pass needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// All McpApps, with what we wrote last in front.
    pub apps: Arc<Cache<McpApp>>,
    /// All McpServers, with what we wrote last in front.
    pub servers: Arc<Cache<McpServer>>,
    /// The children.
    pub caches: apply::Caches,
    /// What specs point at.
    pub reader: Arc<Reader>,
    /// Events.
    pub recorder: Recorder,
    /// Failed passes in a row, by object.
    pub attempts: Attempts,
    /// Counts and times passes.
    pub metrics: ReconcileMetrics,
    /// The chat worker of this operator's version.
    pub default_image: String,
}

/// One pass. It never fails: what goes wrong is in the status, and decides when the next one is.
pub async fn reconcile(app: Arc<McpApp>, context: Arc<Context>) -> Result<Action, Infallible> {
    let timer = context.metrics.start("McpApp");
    let (namespace, name) = (app.namespace().unwrap_or_default(), app.name_any());
    let app = context.apps.get(&namespace, &name).unwrap_or(app);
    if app.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if is_paused(&*app) {
        timer.done("paused");
        return Ok(Action::await_change());
    }

    let outcome = Box::pin(pass(&app, &context)).await;
    let status = status::compute(&app, &outcome, clock::now());
    let written = if app.status.as_ref() == Some(&status) {
        Ok(())
    } else {
        problem::tell(outcome.problem.as_ref(), app.status.as_ref().map(|status| &*status.conditions), &*app, &context.recorder)
            .await;
        ssa::apply_status(&context.client, &context.apps, &*app, &status).await
    };
    if let Err(error) = &written {
        tracing::warn!(app.namespace = namespace, app.name = name, error = error.describe(), "status not written");
    }

    let class = outcome.problem.as_ref().map(|problem| problem.class).or_else(|| written.err().map(|_| Class::Transient));
    timer.done(class.map_or("ok", Class::as_str));
    let attempts = context.attempts.count(&format!("{namespace}/{name}"), class == Some(Class::Transient));
    Ok(requeue::decide(class, attempts).map_or_else(Action::await_change, Action::requeue))
}

async fn pass(app: &McpApp, context: &Context) -> Outcome {
    let mut outcome = Outcome::default();
    let observed = match observe::observe(app, &context.reader, &context.servers, &context.caches.secrets).await {
        Ok(observed) => observed,
        Err(error) => {
            outcome.problem = Some(Problem::unreadable(&error));
            return outcome;
        }
    };
    let validated = match validate::validate(app, &observed, &context.default_image, new_token()) {
        Ok(validated) => validated,
        Err(problems) => {
            outcome.problem = Problem::all(problems);
            return outcome;
        }
    };
    let children = build::build(&validated);
    match Box::pin(apply::apply(&context.client, &context.caches, &validated, children)).await {
        Ok(applied) => outcome.applied = Some(applied),
        Err(error) => outcome.problem = Some(Problem::not_applied(&error)),
    }
    outcome.app = Some(validated);
    outcome
}

/// A token that nobody guesses: 192 bits from the operating system's generator.
fn new_token() -> String {
    let mut bytes = [0_u8; 24];
    rand::rng().fill(&mut bytes);
    ssa::hex(&bytes)
}

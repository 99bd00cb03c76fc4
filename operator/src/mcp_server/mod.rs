//! One reconcile of an McpServer, in one direction: observe → validate → build → apply → status.
//!
//! No step looks back, and none asks what an earlier pass did: every pass computes the whole desired state. The prober owns who is
//! alive; this controller alone writes the CR's status.

pub mod apply;
pub mod build;
pub mod contract;
pub mod hold;
pub mod observe;
pub mod status;
pub mod validate;

use std::{convert::Infallible, sync::Arc};

use kube::{
    Client, Resource, ResourceExt,
    runtime::{controller::Action, events::Recorder},
};

use self::{
    status::Outcome,
    validate::{Source, ValidatedServer},
};
use crate::{
    backoff::Attempts,
    cache::Cache,
    clock,
    crd::McpServer,
    inputs::Reader,
    metrics::ReconcileMetrics,
    names,
    probe::{Endpoint, HealthEngine, ServerKey, ServerSpec},
    problem::{self, Problem},
    requeue::{self, Class},
    ssa,
};

/// What a pass needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// All McpServers, with what we wrote last in front.
    pub servers: Arc<Cache<McpServer>>,
    /// The children.
    pub caches: apply::Caches,
    /// What specs point at.
    pub reader: Arc<Reader>,
    /// Who is alive.
    pub engine: HealthEngine,
    /// Events.
    pub recorder: Recorder,
    /// Failed passes in a row, by object.
    pub attempts: Attempts,
    /// Counts and times passes.
    pub metrics: ReconcileMetrics,
}

/// One pass. It never fails: what goes wrong is in the status, and decides when the next one is.
pub async fn reconcile(server: Arc<McpServer>, context: Arc<Context>) -> Result<Action, Infallible> {
    let timer = context.metrics.start("McpServer");
    let namespace = server.namespace().unwrap_or_default();
    let key = ServerKey { namespace: namespace.clone(), name: server.name_any() };
    // What we wrote last may be newer than what the watch has shown.
    let server = context.servers.get(&namespace, &key.name).unwrap_or(server);
    if server.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let outcome = Box::pin(pass(&server, &context)).await;
    if let Some(validated) = &outcome.server {
        let persisted = server.status.as_ref().and_then(|status| status.circuit.as_ref());
        context.engine.set_server(&key, probe_spec(&server, validated), persisted);
    }
    if is_paused(&*server) {
        timer.done("paused");
        return Ok(Action::await_change());
    }
    let health = context.engine.snapshot(&key);
    let now = clock::now();
    if let Some(wait) = hold::hold(&server, &outcome, health.as_ref(), now) {
        // The pod's own Ready condition wakes us before that, usually.
        timer.done("ok");
        return Ok(Action::requeue(wait));
    }
    let status = status::compute(&server, &outcome, health.as_ref(), now);
    let written = if server.status.as_ref() == Some(&status) {
        Ok(())
    } else {
        problem::tell(
            outcome.problem.as_ref(),
            server.status.as_ref().map(|status| &*status.conditions),
            &*server,
            &context.recorder,
        )
        .await;
        ssa::apply_status(&context.client, &context.servers, &*server, &status).await
    };
    if let Err(error) = &written {
        tracing::warn!(server.namespace = namespace, server.name = key.name, error = error.describe(), "status not written");
    }

    let class = outcome.problem.as_ref().map(|problem| problem.class).or_else(|| written.err().map(|_| Class::Transient));
    timer.done(class.map_or("ok", Class::as_str));
    let attempts = context.attempts.count(&key.to_string(), class == Some(Class::Transient));
    Ok(requeue::decide(class, attempts).map_or_else(Action::await_change, Action::requeue))
}

/// Observe, validate, build, apply; the first that cannot go on says why.
async fn pass(server: &McpServer, context: &Context) -> Outcome {
    let mut outcome = Outcome::default();
    let observed = match observe::observe(server, &context.reader, &context.caches.config_maps, &context.engine).await {
        Ok(observed) => observed,
        Err(error) => {
            outcome.problem = Some(Problem::unreadable(&error));
            return outcome;
        }
    };
    let validated = match validate::validate(server, &observed) {
        Ok(validated) => validated,
        Err(problems) => {
            outcome.problem = Problem::all(problems);
            return outcome;
        }
    };
    if !is_paused(server) {
        let children = build::build(&validated);
        match Box::pin(apply::apply(&context.client, &context.caches, &validated, children)).await {
            Ok(applied) => outcome.applied = Some(applied),
            Err(error) => outcome.problem = Some(Problem::not_applied(&error)),
        }
    }
    outcome.server = Some(validated);
    outcome
}

/// What the prober needs to know of the server.
fn probe_spec(server: &McpServer, validated: &ValidatedServer) -> ServerSpec {
    let spec = &server.spec;
    let (endpoint, credentials, ca) = match &validated.source {
        Source::Container(container) => {
            let endpoint = Endpoint::Pods {
                port: container.source.port,
                path: container.source.path.clone(),
                host: validated.host(container),
            };
            (endpoint, container.headers.clone(), None)
        }
        Source::Remote(remote) => {
            let endpoint = Endpoint::Remote { url: remote.url.clone() };
            (endpoint, remote.headers.clone(), remote.ca.clone())
        }
    };
    ServerSpec {
        object: server.object_ref(&()),
        endpoint,
        credentials,
        ca,
        enabled: spec.enabled,
        paused: is_paused(server),
        recheck: server.annotations().get(names::ANNOTATION_RECHECK).cloned(),
        health: spec.health.clone(),
        breaker: spec.circuit_breaker.clone(),
        tools: validated.tools.clone(),
        reach: None,
    }
}

/// Whether the object is to be left alone.
pub fn is_paused(object: &impl ResourceExt) -> bool {
    object.annotations().get(names::ANNOTATION_PAUSED).is_some_and(|value| value == "true")
}

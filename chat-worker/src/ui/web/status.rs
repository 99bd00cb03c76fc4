//! How things are: /health, /readyz, /metrics, and the lists of servers, tools and usage.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse},
};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::Web;

/// Bursts of changes are told together.
const CALM: Duration = Duration::from_millis(200);

/// As the guide describes it. Degraded is an answer and no failure: the status is 200 for both.
pub async fn health(State(web): State<Arc<Web>>) -> Json<Value> {
    let servers = web.app.engine.hub.status();
    let problem = web.app.config.borrow().problem.clone();
    let degraded = problem.is_some() || servers.iter().any(|server| server.degraded);
    let mut metrics = json!(web.app.engine.metrics.summary());
    metrics["servers"] = json!(servers);
    metrics["configuration"] = json!({"in_force": problem.is_none(), "problem": problem});
    metrics["usage"] = json!(web.app.engine.ledger.today());
    Json(json!({"status": if degraded { "degraded" } else { "healthy" }, "metrics": metrics}))
}

/// Ready to take requests; also without any server, since the model can still answer.
pub async fn ready(State(web): State<Arc<Web>>) -> (StatusCode, &'static str) {
    if web.draining.is_cancelled() { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") } else { (StatusCode::OK, "ok\n") }
}

pub async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let text = web.app.engine.metrics.text(&web.app.engine.hub.status(), &web.app.engine.ledger.today());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// The servers as they are; as a stream of events, again at every change.
pub async fn servers(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let wants_events = headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream");
    if wants_events {
        Sse::new(changes(web)).keep_alive(sse::KeepAlive::default()).into_response()
    } else {
        Json(snapshot(&web)).into_response()
    }
}

fn snapshot(web: &Web) -> Value {
    json!({"servers": web.app.engine.hub.status(), "model": web.app.engine.model.name()})
}

fn changes(web: Arc<Web>) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let mut versions = web.app.engine.hub.subscribe();
    // The first is told at once.
    versions.mark_changed();
    stream::unfold((web, versions), |(web, mut versions)| async move {
        tokio::select! {
            changed = versions.changed() => changed.ok()?,
            () = web.draining.cancelled() => return None,
        }
        let event = sse::Event::default().event("servers").data(snapshot(&web).to_string());
        Some((Ok(event), (web, versions)))
    })
    .then(|event| async {
        tokio::time::sleep(CALM).await;
        event
    })
}

pub async fn tools(State(web): State<Arc<Web>>) -> Json<Value> {
    let catalogue = web.app.engine.hub.catalogue();
    let tools: Vec<_> = catalogue.iter().collect();
    Json(json!({"tools": tools}))
}

pub async fn usage(State(web): State<Arc<Web>>) -> Json<Value> {
    Json(json!({"today": web.app.engine.ledger.today()}))
}

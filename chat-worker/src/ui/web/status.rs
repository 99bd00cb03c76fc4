//! How things are: /health, /readyz, /metrics, and the lists of servers, tools and usage.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use http_server::forwarded::Caller;
use serde::Serialize;
use serde_json::{Value, json};

use super::{problem::Problem, state::Web};
use crate::{
    llm::offer::LeftOut,
    metrics::Server,
    tools::{hub::ServerStatus, spec::ToolSpec},
};

/// As the guide describes it. Degraded is an answer and no failure: the status is 200 for both. Who has no token is told no more than that:
/// which servers there are, what they last said and what the day cost is nobody's who cannot use them.
pub async fn health(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Json<Value> {
    let servers = web.app.engine.hub.status();
    let problem = web.app.config.borrow().problem.clone();
    let degraded = problem.is_some() || servers.iter().any(|server| server.degraded);
    let status = if degraded { "degraded" } else { "healthy" };
    if !web.access.proves(&headers, caller) || !web.access.tells(&uri, &headers, caller) {
        return Json(json!({"status": status}));
    }
    let mut metrics = json!(web.app.engine.metrics.summary());
    metrics["servers"] = json!(servers);
    metrics["configuration"] = json!({"in_force": problem.is_none(), "problem": problem});
    metrics["usage"] = json!(web.app.engine.ledger.today());
    Json(json!({"status": status, "metrics": metrics}))
}

/// Ready to take requests; also without any server, since the model can still answer, once each was tried.
/// It says besides how the model was met, and how much of the budget is used: the operator reads both.
pub async fn ready(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if web.draining.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining: this replica is being stopped"));
    }
    if !web.tried.load(Ordering::Relaxed) {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting: the servers are being connected, for 10 s at most"));
    }
    if !web.access.tells(&uri, &headers, caller) {
        return Ok(StatusCode::OK.into_response());
    }
    let percent = web.app.engine.ledger.today().budget_percent;
    let budget = percent.map(|percent| json!({"percent": percent, "usedUp": percent >= 100}));
    let model = (!web.app.is_gateway).then(|| web.app.engine.metrics.model.now());
    Ok(Json(json!({"status": "ok", "model": model, "budget": budget})).into_response())
}

pub async fn metrics(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !web.access.tells(&uri, &headers, caller) {
        let detail =
            "figures are told by an address, a name of the cluster or one of CHAT_ALLOWED_HOSTS, or with the access token";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let servers = web.app.engine.hub.status();
    let servers = servers.iter().map(|ServerStatus { name, state, openings, .. }| Server {
        name,
        is_up: state.is_up(),
        is_circuit_open: state.is_circuit_open(),
        openings: *openings,
    });
    Ok(web.app.engine.metrics.answer(servers, &web.app.engine.ledger.today()).into_response())
}

/// Every server, and the model that answers.
pub fn servers_now(web: &Web) -> Value {
    let model = (!web.app.is_gateway).then(|| web.app.engine.model.name());
    json!({"servers": web.app.engine.hub.status(), "model": model})
}

/// What was used today.
pub fn usage_now(web: &Web) -> Value {
    json!({"today": web.app.engine.ledger.today()})
}

/// All tools, and those that the model is not told of, each with the reason.
pub async fn tools(State(web): State<Arc<Web>>) -> Response {
    /// Schemas pass as they are written: a tree of values has a limit of depth, which servers do not have.
    #[derive(Serialize)]
    struct Tools<'t> {
        tools: Vec<&'t Arc<ToolSpec>>,
        left_out: &'t [LeftOut],
    }
    let catalogue = web.app.engine.hub.catalogue();
    let offer = web.app.engine.model.offer(catalogue.tools());
    Json(Tools { tools: catalogue.iter().collect(), left_out: &offer.left_out }).into_response()
}

pub async fn usage(State(web): State<Arc<Web>>) -> Json<Value> {
    Json(usage_now(&web))
}

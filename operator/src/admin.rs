//! The operator's read-only HTTP: /livez, /healthz, /readyz, /metrics, /fleet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::probe::HealthEngine;

/// What the endpoints tell of.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Every metric.
    pub registry: Registry,
    /// Who is alive.
    pub engine: HealthEngine,
    /// Whether this process does its work: it waits for the Lease, or it leads and knows the cluster.
    pub ready: Arc<AtomicBool>,
}

/// Serves until shutdown.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/fleet", get(fleet))
        .with_state(admin);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.ready.load(Ordering::Relaxed) {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first lists from the API server are not in yet").into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics not encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn fleet(State(admin): State<Admin>) -> Response {
    Json(admin.engine.fleet()).into_response()
}

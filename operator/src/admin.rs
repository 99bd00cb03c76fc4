//! The operator's read-only HTTP: /livez, /healthz, /readyz, /metrics, /fleet.
//!
//! /fleet names every tenant's servers and their errors, so who asks for it must say who they are (`admin::access`). /metrics stays
//! plain for Prometheus unless it is switched.

mod access;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_text::{Exposition, MetricSet};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::access::{Access, Authenticate};
use crate::probe::HealthEngine;

/// How old the document of /fleet may be: however many ask, the engine is asked once in this time.
const FLEET_AGE: Duration = Duration::from_secs(1);

/// What the process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits to take over.
    Standby {
        /// Who leads, as far as it is known.
        leader: Option<String>,
    },
    /// It leads.
    Leading {
        /// Scopes whose first lists are not in yet.
        waits_for: BTreeSet<String>,
        /// Scopes that are not looked after, and why.
        without: BTreeMap<String, String>,
    },
}

impl Standing {
    /// The scope is looked after.
    pub fn knows(&mut self, scope: &str) {
        if let Self::Leading { waits_for, without } = self {
            waits_for.remove(scope);
            without.remove(scope);
        }
    }

    /// The scope is no longer waited for.
    pub fn gives_up(&mut self, scope: &str, reason: &str) {
        if let Self::Leading { waits_for, without } = self {
            waits_for.remove(scope);
            without.insert(scope.to_owned(), reason.to_owned());
        }
    }
}

/// What the endpoints tell of.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Every metric.
    pub metrics: MetricSet,
    /// Who is alive.
    pub engine: HealthEngine,
    /// What the process does.
    pub standing: watch::Receiver<Standing>,
    /// Who may read what.
    pub access: Access,
    /// The document of /fleet, and when it was made.
    pub fleet: FleetDocument,
}

/// The document of /fleet, and when it was made.
pub type FleetDocument = Arc<Mutex<Option<(Instant, Bytes)>>>;

/// Serves until shutdown.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) -> std::io::Result<()> {
    let guarded =
        |path| middleware::from_fn_with_state(admin.clone(), move |state, request, next| guard(path, state, request, next));
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics).layer(guarded("/metrics")))
        .route("/fleet", get(fleet).layer(guarded("/fleet")))
        .with_state(admin.clone());
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Lets in who may read the path.
async fn guard(path: &'static str, State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match admin.access.may_get(path, request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match &*admin.standing.borrow() {
        Standing::Standby { leader: Some(leader) } => format!("standby: {leader} leads").into_response(),
        Standing::Standby { leader: None } => "standby: it is not known who leads".into_response(),
        Standing::Leading { waits_for, .. } if !waits_for.is_empty() => {
            let scopes: Vec<_> = waits_for.iter().map(String::as_str).collect();
            let text = format!("the first lists from the API server are not in yet: {}", scopes.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
        Standing::Leading { without, .. } if !without.is_empty() => {
            let lines: Vec<_> = without.iter().map(|(scope, reason)| format!("{scope} ({reason})")).collect();
            format!("ok, but not looked after: {}", lines.join(", ")).into_response()
        }
        Standing::Leading { .. } => "ok".into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Exposition {
    admin.metrics.answer()
}

async fn fleet(State(admin): State<Admin>) -> Response {
    if let Standing::Standby { leader } = &*admin.standing.borrow() {
        let leader = leader.as_deref().unwrap_or("it is not known which");
        return (StatusCode::SERVICE_UNAVAILABLE, format!("another replica leads: {leader}")).into_response();
    }
    let mut kept = admin.fleet.lock().await;
    let body = match &*kept {
        Some((made, body)) if made.elapsed() < FLEET_AGE => body.clone(),
        _ => match serde_json::to_vec(&admin.engine.fleet()) {
            Ok(json) => {
                let body = Bytes::from(json);
                *kept = Some((Instant::now(), body.clone()));
                body
            }
            Err(error) => {
                tracing::error!(%error, "the fleet was not encoded");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        },
    };
    drop(kept);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

//! The door: paths, and the checks that a request passes before MCP sees it. Names and tokens are decided in host.rs and auth.rs.

pub mod auth;
pub mod direct;
pub mod host;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{HttpBody as _, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use http_body_util::LengthLimitError;
use http_server::json_rpc;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::db::Database;
use crate::mcp::SqliteMcp;
use crate::metrics::Metrics;
use auth::Tokens;
use direct::DirectCall;
use host::{AllowedOrigin, HostPattern};

/// A body that trickles in slower than this is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the door checks.
#[derive(Debug)]
pub struct DoorSettings {
    /// Names besides the defaults.
    pub hosts: Vec<HostPattern>,
    /// Origins besides those of this machine.
    pub origins: Vec<AllowedOrigin>,
    /// Absent: nobody is asked.
    pub tokens: Option<Tokens>,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// MCP requests that are worked on at once.
    pub max_requests: usize,
    /// MCP requests a second from one address; None: as many as it likes.
    pub rate: Option<NonZeroU32>,
    /// Keep sessions for clients of the eras before 2026-07-28.
    pub legacy_sessions: bool,
}

/// Requests of one address, counted by the second, with a burst of as many.
struct Pace {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    asked: AtomicU32,
}

impl Pace {
    /// After so many requests the addresses that have been quiet are forgotten.
    const FORGET_EVERY: u32 = 4096;

    fn new(rate: NonZeroU32) -> Self {
        Self { limiter: RateLimiter::keyed(Quota::per_second(rate)), asked: AtomicU32::new(0) }
    }

    fn allows(&self, caller: IpAddr) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(Self::FORGET_EVERY) {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&caller).is_ok()
    }
}

struct Door {
    settings: DoorSettings,
    pace: Option<Pace>,
    running: Semaphore,
    metrics: Metrics,
    db: Database,
    ready: Arc<AtomicBool>,
    direct: Option<SqliteMcp>,
}

/// All paths over the handlers that `handler` makes, one a request or, with legacy sessions, one a session. `ready` turns false when the server begins to drain; `stop` ends what is open then.
/// `direct` answers the calls that need nothing of the SDK; None: the SDK answers all.
pub fn router<H: ServerHandler>(
    handler: impl Fn() -> H + Send + Sync + 'static,
    direct: Option<SqliteMcp>,
    settings: DoorSettings,
    db: Database,
    metrics: Metrics,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
) -> Router {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(settings.legacy_sessions)
        .with_json_response(true)
        .with_max_request_body_bytes(settings.max_request_bytes)
        .with_cancellation_token(stop)
        // Host and Origin have been checked by then, by rules that know a cluster's names.
        .disable_allowed_hosts()
        .disable_allowed_origins();
    let mcp = StreamableHttpService::new(move || Ok(handler()), Arc::new(LocalSessionManager::default()), config);
    let door = Arc::new(Door {
        running: Semaphore::new(settings.max_requests),
        pace: settings.rate.map(Pace::new),
        settings,
        metrics,
        db,
        ready,
        direct,
    });
    Router::new()
        .route_service("/mcp", mcp)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&door), admit))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .layer(middleware::from_fn_with_state(Arc::clone(&door), check_names))
        .with_state(door)
}

impl Door {
    fn refuse(&self, status: StatusCode, reason: &str, text: &'static str) -> Response {
        self.metrics.refused.with_label_values(&[reason]).inc();
        (status, text).into_response()
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// One value, readable as text; None also when there are two.
fn only<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

async fn check_names(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let Some(host) = only(headers, &HOST) else {
        return door.refuse(StatusCode::BAD_REQUEST, "host", "Bad Request: exactly one Host header is needed\n");
    };
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    if !host::host_allowed(host, &door.settings.hosts)
        || target.is_some_and(|target| !host::host_allowed(target, &door.settings.hosts))
    {
        return door.refuse(
            StatusCode::FORBIDDEN,
            "host",
            "Forbidden: Host header is not allowed; start the server with --allowed-host for this name\n",
        );
    }
    if headers.contains_key(ORIGIN)
        && !only(headers, &ORIGIN).is_some_and(|origin| host::origin_allowed(origin, &door.settings.origins))
    {
        return door.refuse(
            StatusCode::FORBIDDEN,
            "origin",
            "Forbidden: Origin header is not allowed; start the server with --allowed-origin for this page\n",
        );
    }
    next.run(request).await
}

async fn admit(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    if let Some(tokens) = &door.settings.tokens
        && !tokens.accept(only(request.headers(), &AUTHORIZATION))
    {
        let mut response = door.refuse(StatusCode::UNAUTHORIZED, "token", "Unauthorized: a bearer token is needed\n");
        response.headers_mut().insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        return response;
    }
    let caller = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    if let (Some(pace), Some(caller)) = (&door.pace, caller)
        && !pace.allows(caller)
    {
        let mut response = door.refuse(StatusCode::TOO_MANY_REQUESTS, "rate", "Too Many Requests: wait a second\n");
        response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
        return response;
    }
    let Ok(_permit) = door.running.try_acquire() else {
        let mut response =
            door.refuse(StatusCode::SERVICE_UNAVAILABLE, "busy", "Service Unavailable: too many requests at once\n");
        response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
        return response;
    };
    let (parts, body) = request.into_parts();
    let limit = door.settings.max_request_bytes;
    let too_large =
        || door.refuse(StatusCode::PAYLOAD_TOO_LARGE, "size", "Payload Too Large: send less, or raise --max-request-bytes\n");
    // What says that it will be too large is not waited for.
    if body.size_hint().lower() > limit as u64 {
        return too_large();
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if is_length_limit(&error) => return too_large(),
        Ok(Err(_)) => return door.refuse(StatusCode::BAD_REQUEST, "body", "Bad Request: the body is broken or ended early\n"),
        Err(_) => return door.refuse(StatusCode::REQUEST_TIMEOUT, "slow", "Request Timeout: the body did not arrive in time\n"),
    };
    if let Some(handler) = &door.direct
        && let Some(call) = DirectCall::read(&parts.method, &parts.headers, &body, !door.settings.legacy_sessions)
    {
        return call.answer(handler, parts.headers).await.unwrap_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    }
    json_rpc::run(parts, body, next).await
}

/// Ready is who can answer: a real query through a reading thread, and for a server that writes, a living writer.
async fn readyz(State(door): State<Arc<Door>>) -> Response {
    if !door.ready.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    match door.db.check().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics_text(State(door): State<Arc<Door>>) -> Response {
    match door.metrics.render(&door.db) {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

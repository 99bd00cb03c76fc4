//! The door: paths, and the checks that a request passes before MCP sees it. Names and tokens are decided in
//! the crate `http-server`.

pub mod auth;
pub mod direct;
pub mod host;
mod places;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Bytes, HttpBody as _, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::LengthLimitError;
use http_server::guesses::Guesses;
use http_server::host::{Names, only};
use http_server::pace::Pace;
use http_server::{forwarded, json_rpc, request_id};
use ipnet::IpNet;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _, service_fn};

use crate::db::Database;
use crate::db::turns::Caller;
use crate::direct::Answers;
use crate::mcp::arguments;
use crate::metrics::Metrics;
use auth::Tokens;
use host::{AllowedOrigin, HostPattern};
use places::Places;

/// Where MCP is.
const MCP: &str = "/mcp";

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
    /// MCP requests that are worked on at once; of one caller half as many, or half of what others leave.
    pub max_requests: usize,
    /// MCP requests a second from one address; None: as many as it likes.
    pub rate: Option<NonZeroU32>,
    /// Proxies whose word on whom they speak for is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Keep sessions for clients of the eras before 2026-07-28.
    pub legacy_sessions: bool,
}

struct Door<A> {
    settings: DoorSettings,
    pace: Option<Pace>,
    guesses: Guesses,
    running: Places,
    metrics: Metrics,
    sessions: Arc<LocalSessionManager>,
    db: Database,
    ready: Arc<AtomicBool>,
    direct: A,
    names: Names,
}

/// Everything that is served: all paths over the handlers that `handler` makes, one a request or, with legacy sessions, one a session.
/// `ready` turns false when the server begins to drain; `stop` ends what is open then. `direct` answers the calls that need nothing of the
/// SDK.
pub fn service<H: ServerHandler, A: Answers>(
    handler: impl Fn() -> H + Send + Sync + 'static,
    direct: A,
    mut settings: DoorSettings,
    db: Database,
    metrics: Metrics,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(settings.legacy_sessions)
        .with_json_response(true)
        .with_max_request_body_bytes(arguments::wrapped_bytes(settings.max_request_bytes))
        .with_cancellation_token(stop)
        // Host and Origin have been checked by then, by rules that know a cluster's names.
        .disable_allowed_hosts()
        .disable_allowed_origins();
    let sessions = Arc::new(LocalSessionManager::default());
    let mcp = StreamableHttpService::new(move || Ok(handler()), Arc::clone(&sessions), config);
    let door = Arc::new(Door {
        running: Places::new(settings.max_requests),
        pace: settings.rate.and_then(|requests| Pace::new(requests, Duration::from_secs(1))),
        guesses: Guesses::default(),
        names: Names::new(std::mem::take(&mut settings.hosts), std::mem::take(&mut settings.origins)),
        settings,
        metrics,
        sessions,
        db,
        ready,
        direct,
    });
    let paths = Router::new()
        .route_service(MCP, mcp)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz::<A>))
        .route("/metrics", get(measured::<A>))
        .with_state(Arc::clone(&door));
    // The checks stand before the paths, and not in layers around them: each layer would cost every call its own part of a way.
    service_fn(move |request: Request| {
        let (door, paths) = (Arc::clone(&door), paths.clone());
        async move { Ok(request_id::with(request, |request| door.answer(request, paths)).await) }
    })
}

impl<A: Answers> Door<A> {
    fn refuse(&self, status: StatusCode, reason: &str, text: impl IntoResponse) -> Response {
        self.metrics.refused.with_label_values(&[reason]).inc();
        (status, text).into_response()
    }

    /// The answer to any request.
    async fn answer(&self, request: Request, paths: Router) -> Response {
        match self.refuses_names(&request) {
            Some(refusal) => refusal,
            None if request.uri().path() == MCP => self.admit(request, paths).await,
            None => paths.oneshot(request).await.into_response(),
        }
    }

    /// The refusal, when a request must not ask for whom it asks, or not from the page that it comes from.
    fn refuses_names(&self, request: &Request) -> Option<Response> {
        let foreign = self.names.judge(request.uri(), request.headers()).err()?;
        let (status, reason, text) = foreign.refusal("the server");
        Some(self.refuse(status, reason, text))
    }

    fn refuse_for(&self, wait: Duration, reason: &str, text: &'static str) -> Response {
        let mut response = self.refuse(StatusCode::TOO_MANY_REQUESTS, reason, text);
        response.headers_mut().insert(RETRY_AFTER, wait.as_secs().saturating_add(1).into());
        response
    }

    /// The refusal of a caller without a token that is in force. One that has guessed too often is not listened to for a while.
    fn refuses_token(&self, presented: Option<&str>, address: Option<IpAddr>) -> Option<Response> {
        let tokens = self.settings.tokens.as_ref()?;
        let now = Instant::now();
        if presented.is_some()
            && let Some(wait) = address.and_then(|address| self.guesses.wait(address, now))
        {
            return Some(self.refuse_for(wait, "guesses", "Too Many Requests: too many wrong tokens\n"));
        }
        if tokens.accept(presented) {
            return None;
        }
        if let (Some(_), Some(address)) = (presented, address) {
            self.guesses.wrong(address, now);
        }
        let mut response = self.refuse(StatusCode::UNAUTHORIZED, "token", "Unauthorized: a bearer token is needed\n");
        response.headers_mut().insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        Some(response)
    }

    /// The address that a request is counted for; None: it came over no connection.
    fn address(&self, request: &Request) -> Option<IpAddr> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        Some(forwarded::caller(peer.ip(), request.headers(), &self.settings.trusted_proxies).counted_as())
    }

    /// Whose share of the server a request uses: that of its token, which has been accepted, or else of its address.
    fn who(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Caller {
        match (&self.settings.tokens, only(headers, &AUTHORIZATION)) {
            (Some(_), Some(token)) => Caller::known_by(token.split_once(' ').map_or(token, |(_, token)| token.trim())),
            _ => address.map_or(Caller::OWN, Caller::known_by),
        }
    }

    /// A request to MCP, if it may come in. What is not answered the short way is the SDK's, behind `paths`.
    async fn admit(&self, request: Request, paths: Router) -> Response {
        let address = self.address(&request);
        if let Some(refusal) = self.refuses_pace(address) {
            return refusal;
        }
        // After the pace, which bounds guessing.
        if let Some(refusal) = self.refuses_token(only(request.headers(), &AUTHORIZATION), address) {
            return refusal;
        }
        let who = self.who(request.headers(), address);
        let Some(_place) = self.running.take(who) else {
            let mut response =
                self.refuse(StatusCode::SERVICE_UNAVAILABLE, "busy", "Service Unavailable: too many requests at once\n");
            response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
            return response;
        };
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(who);
        let limit = self.settings.max_request_bytes;
        let too_large =
            || self.refuse(StatusCode::PAYLOAD_TOO_LARGE, "size", "Payload Too Large: send less, or raise --max-request-bytes\n");
        // What says that it will be too large is not waited for.
        if body.size_hint().lower() > limit as u64 {
            return too_large();
        }
        let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) if is_length_limit(&error) => return too_large(),
            Ok(Err(_)) => {
                return self.refuse(StatusCode::BAD_REQUEST, "body", "Bad Request: the body is broken or ended early\n");
            }
            Err(_) => {
                return self.refuse(StatusCode::REQUEST_TIMEOUT, "slow", "Request Timeout: the body did not arrive in time\n");
            }
        };
        if let Some(messages) = json_rpc::batch(&parts.headers, &body) {
            return json_rpc::several(parts, messages, |place, parts, body| {
                let paths = paths.clone();
                async move {
                    // The first one has been counted.
                    match if place > 0 { self.refuses_pace(address) } else { None } {
                        Some(refusal) => refusal,
                        None => self.message(parts, body, who, paths).await,
                    }
                }
            })
            .await;
        }
        self.message(parts, body, who, paths).await
    }

    /// The refusal of one message too many from an address.
    fn refuses_pace(&self, address: Option<IpAddr>) -> Option<Response> {
        let wait = self.pace.as_ref()?.take(address?).err()?;
        Some(self.refuse_for(wait, "rate", "Too Many Requests: wait a second\n"))
    }

    /// The answer to one message.
    async fn message(&self, parts: Parts, body: Bytes, who: Caller, paths: Router) -> Response {
        if let Some((call, era)) = direct::read::<A>(&parts.method, &parts.headers, &body, !self.settings.legacy_sessions) {
            let answer = match call.answer(era, &self.direct, parts.headers, who) {
                Some(answer) => answer.await,
                None => None,
            };
            return match answer {
                Some(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
                None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            };
        }
        let wrapped = if A::WRAPPED { arguments::wrapped(&body) } else { None };
        let body = wrapped.map_or(body, Into::into);
        json_rpc::run(parts, body, async |request| paths.oneshot(request).await.into_response()).await
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// Ready is who can answer: a real query through a reading thread, and for a server that writes, a living writer.
async fn readyz<A: Answers>(State(door): State<Arc<Door<A>>>) -> Response {
    if !door.ready.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    match door.db.check().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn measured<A: Answers>(State(door): State<Arc<Door<A>>>) -> Response {
    door.metrics.answer(&door.db, door.sessions.sessions.read().await.len()).into_response()
}

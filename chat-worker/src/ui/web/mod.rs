//! The web server: which path is whose, and how it starts and ends. `chat` runs turns and `told` streams them, `beyond` is what they
//! can be asked with, `mcp` lends out
//! the tools, `status` tells how things are and `live` goes on telling, `access` decides who may, which `signin` asks of each request,
//! `page` is what a browser gets, `headers` what it may do with it, `line` is where those wait who ask too often, `problem` is every error,
//! and `state` is what all of them may need.

pub mod access;
pub mod chat;
pub mod headers;
pub mod line;
pub mod live;
pub mod mcp;
pub mod page;
pub mod problem;
pub mod resources_prompts;
pub mod signin;
pub mod state;
pub mod status;
pub mod told;

use std::{
    future::Future,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    extract::{ConnectInfo, DefaultBodyLimit, Extension, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http_server::{
    Connections, LameDuck,
    body::{self, BodyError},
    forwarded::{Caller, caller},
    pace::Pace,
    request_id,
    token::Tokens,
};
use mcp_wire::json::{MAX_DEPTH, weight};
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    access::Access,
    line::Line,
    problem::Problem,
    state::{MAX_BODY, Web},
};
use crate::{app::App, heavy, limits};

/// A body that takes longer to arrive is not waited for.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// What the parsed body of a question, and of a call over /mcp, may take in memory, in bytes.
const MAX_CHAT_WEIGHT: usize = 96 << 20;
const MAX_CALL_WEIGHT: usize = 32 << 20;
/// A conversation that takes no more than this never waits for room.
const FREE_CHAT_WEIGHT: usize = 8 << 20;
const MCP: &str = "/mcp";
const CHAT: &str = "/v1/chat";
/// After SIGTERM, requests still come until everybody knows.
const LINGER: Duration = Duration::from_secs(2);
/// How long servers are waited for before a replica says that it is ready.
const FIRST_TRY: Duration = Duration::from_secs(10);

/// The refusal of a request of this caller that is one too many: it says when to come back. Who has the token and prefers to wait, does
/// (`Prefer: wait=10`, RFC 7240), where that is no longer than it said, and there is a place in the line.
async fn too_many(web: &Web, caller: Caller, headers: &HeaderMap) -> Option<Problem> {
    let (pace, who) = (web.pace.as_ref()?, caller.counted_as());
    let mut wait = pace.take(who).err()?;
    let until = Instant::now() + limits::patience(headers);
    let is_in_time = |wait: Duration| Instant::now() + wait <= until;
    // A stranger holds no connection here, and finds out about no token any faster.
    let queued = if is_in_time(wait) && web.access.proves(headers, caller) { web.line.place(who) } else { None };
    while queued.is_some() && is_in_time(wait) {
        tokio::time::sleep(wait).await;
        wait = pace.take(who).err()?;
    }
    web.app.engine.metrics.rate_limited.inc();
    let seconds = wait.as_secs() + 1;
    let detail = format!("too many requests; try again in {seconds} s, or wait in line with Prefer: wait={seconds}");
    Some(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds))
}

/// Takes the whole body of a request, within bounds: of bytes, of time, and of what it would become in memory. A conversation of long
/// texts becomes little more than itself; millions of small values become a hundred times as much. What a large one takes goes along with
/// it, to be kept for as long as it is.
async fn arrived(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_chat = request.uri().path() == CHAT;
    // A conversation is of long texts, and stays for as long as its turn; arguments are values, and gone with their call.
    let (most_weight, free, memory) =
        if is_chat { (MAX_CHAT_WEIGHT, FREE_CHAT_WEIGHT, &heavy::CONVERSATIONS) } else { (MAX_CALL_WEIGHT, 0, &heavy::REQUESTS) };
    let (mut parts, body) = request.into_parts();
    let body = match body::whole(body, MAX_BODY, BODY_PATIENCE).await {
        Ok(body) => body,
        Err(error) => return closing(unread(error, MAX_BODY)),
    };
    // Most calls are so short that they are nested no deeper than is taken, and weigh next to nothing, whatever they hold.
    let (weight, body) = match body.len() {
        short @ ..=MAX_DEPTH => (Some(short), body),
        size => heavy::work(size, move || (weight(&body), body)).await,
    };
    let Some(weight) = weight else {
        let detail = format!("the request is nested deeper than {MAX_DEPTH} levels");
        return closing(Problem::new(StatusCode::BAD_REQUEST, detail));
    };
    if weight > most_weight {
        let detail = "the request holds too many values; send less at once";
        return closing(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let Ok(room) = timeout(BODY_PATIENCE, memory.room(if weight > free { weight } else { 0 })).await else {
        let detail = "too many large requests are under way; try again later";
        return closing(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let room = room.map(Arc::new);
    if let Some(room) = &room {
        parts.extensions.insert(Arc::clone(room));
        parts.extensions.insert(heavy::Weight(weight));
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// Why the body of a request was not taken.
fn unread(error: BodyError, most: usize) -> Problem {
    let (status, detail) = match error {
        BodyError::TooLarge if most < 1 << 20 => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {} KiB", most >> 10))
        }
        BodyError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {} MiB", most >> 20)),
        BodyError::Slow => (StatusCode::REQUEST_TIMEOUT, error.to_string()),
        BodyError::Broken => (StatusCode::BAD_REQUEST, error.to_string()),
    };
    Problem::new(status, detail)
}

/// The refusal of a request whose body may not have been read to its end: what is left of it is not read.
fn closing(refusal: impl IntoResponse) -> Response {
    let mut response = refusal.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Serves until `shutdown` completes and the running answers have ended, or their time is over.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let settings = &app.settings;
    let drain = Duration::from_secs(settings.drain_seconds);
    let window = Duration::from_secs(settings.rate_limit_window_seconds);
    let tokens = settings.access_token_file().map(|file| Tokens::load(&file)).transpose()?;
    let web = Arc::new(Web {
        access: Access::new(tokens, settings.allowed_hosts.clone()),
        pace: NonZeroU32::new(settings.rate_limit_requests).and_then(|requests| Pace::new(requests, window)),
        line: Line::default(),
        calls: Arc::default(),
        tried: AtomicBool::new(false),
        draining: CancellationToken::new(),
        stopped: CancellationToken::new(),
        app: Arc::clone(&app),
    });
    tracing::info!("chat worker listens on http://{address}; questions go to {}", app.who_answers());
    http_server::warn_when_open(address, web.access.is_closed(), &settings.allowed_hosts, what_everybody_can(app.is_gateway));
    tokio::spawn(forget_idle_callers(Arc::downgrade(&web)));
    tokio::spawn(try_servers(Arc::clone(&web)));
    let (draining, stopped) = (web.draining.clone(), web.stopped.clone());
    let connections = Connections {
        idle: Duration::from_secs(settings.idle_timeout_seconds),
        ..Connections::most(usize::from(settings.max_connections))
    };
    let mut left = http_server::serve_kept(listener, router(web), connections, async move {
        shutdown.await;
        tracing::info!("stopping: running answers get {} s", drain.as_secs());
        draining.cancel();
        LameDuck { least: LINGER, most: LINGER }.within(drain)
    })
    .await;
    if !left.within(drain).await {
        stopped.cancel();
        // They end with an error event, which takes no time.
        left.closed(Duration::from_secs(3)).await;
    }
    Ok(())
}

/// What everybody can who reaches this server where it asks for no token, and how to change that.
fn what_everybody_can(is_gateway: bool) -> &'static str {
    if is_gateway {
        "can call the tools: set CHAT_ACCESS_TOKEN_FILE to a file with a token"
    } else {
        "can ask the model and call the tools: set CHAT_ACCESS_TOKEN_FILE to a file with a token"
    }
}

/// A new replica says that it is ready when it has what the others have: who is asked for tools before that would answer with an empty list.
async fn try_servers(web: Arc<Web>) {
    web.app.engine.hub.settle(FIRST_TRY).await;
    web.tried.store(true, Ordering::Relaxed);
}

fn router(web: Arc<Web>) -> Router {
    let with = || Arc::clone(&web);
    let sdk = Arc::new(mcp::service(&web));
    let limited = Router::new()
        .route(MCP, any(move |State(web), request| async move { mcp::answer(web, &sdk, request).await }))
        .route(CHAT, post(chat::chat))
        .route("/v1/prompt", post(resources_prompts::prompt))
        .route("/v1/resource", post(resources_prompts::resource))
        .route_layer(middleware::from_fn_with_state(with(), limited));
    let unlimited = Router::new()
        .route("/v1/servers", get(live::servers))
        .route("/v1/tools", get(status::tools))
        .route("/v1/usage", get(status::usage))
        .route("/", get(page::index))
        .route_layer(middleware::from_fn_with_state(with(), unlimited));
    // Whoever looks after this server asks for them without a token.
    let watched = Router::new()
        .route("/health", get(status::health))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/assets/{name}", get(page::asset))
        .route("/openapi.json", get(page::openapi))
        .route_layer(middleware::from_fn_with_state(with(), watched));
    let all = Router::new()
        .merge(limited)
        .merge(unlimited)
        .merge(watched)
        .route("/signin", post(signin::sign_in))
        .route("/signout", post(signin::sign_out))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::clone(&web));
    // Around the whole of it: what the routing itself answers, with its headers, passes through it, too.
    Router::new().fallback_service(all).layer(middleware::from_fn_with_state(web, around))
}

/// Around every request: who asks, by which id, and what every answer carries.
async fn around(
    State(web): State<Arc<Web>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let answered = request_id::with(request, |mut request: Request| async move {
        let caller = caller(peer.ip(), request.headers(), &web.app.settings.trusted_proxies);
        request.extensions_mut().insert(caller);
        let asks = request.method() == Method::OPTIONS;
        let response = problem::for_bare_errors(next.run(request).await).await;
        asks.then(|| headers::options(&response)).flatten().unwrap_or(response)
    });
    headers::add(answered.await)
}

/// Who asks is first made to keep the pace, whatever it brings, and then asked for the token; then its body is waited for.
async fn limited(State(web): State<Arc<Web>>, Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    if let Some(refusal) = signin::foreign(&web, caller, &request) {
        return refusal;
    }
    if let Some(refusal) = too_many(&web, caller, request.headers()).await {
        return refusal.into_response();
    }
    match signin::unknown(&web, caller, &request) {
        Some(refusal) => refusal,
        None => arrived(request, next).await,
    }
}

async fn unlimited(State(web): State<Arc<Web>>, Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    match signin::foreign(&web, caller, &request).or_else(|| signin::unknown(&web, caller, &request)) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// How this server is, is nothing for a page either. A balancer that asks without any Host is no browser: it gets a bare status.
async fn watched(State(web): State<Arc<Web>>, Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    let has_host = request.headers().contains_key(header::HOST);
    match signin::foreign(&web, caller, &request).filter(|_| has_host) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// Looks once a minute for what nobody comes back for.
async fn forget_idle_callers(web: Weak<Web>) {
    let mut ticks = tokio::time::interval(Duration::from_mins(1));
    loop {
        ticks.tick().await;
        let Some(web) = web.upgrade() else { return };
        web.calls.forget();
        web.app.engine.hub.watches.forget_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_can_fits_a_gateway_too() {
        let [chat, gateway] = [false, true].map(what_everybody_can);
        assert!(chat.contains("ask the model") && !gateway.contains("model"), "{gateway}");
        for told in [chat, gateway] {
            assert!(told.contains("call the tools: set CHAT_ACCESS_TOKEN_FILE"), "{told}");
        }
    }
}

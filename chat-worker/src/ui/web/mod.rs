//! The web server: which path is whose, and how it starts and ends. `chat` runs turns and `told` streams them, `mcp` lends out
//! the tools, `status` tells how things are and `live` goes on telling, `access` decides who may, which `signin` asks of each request,
//! `forwarded` who asks, `page` is what a browser gets, `headers` what it may do with it, `problem` is every error, and `state` is what all
//! of them may need.

pub mod access;
pub mod chat;
pub mod forwarded;
pub mod headers;
pub mod live;
pub mod mcp;
pub mod page;
pub mod problem;
pub mod signin;
pub mod state;
pub mod status;
pub mod told;

use std::{
    future::Future,
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Extension, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_server::{
    Connections, LameDuck,
    body::{self, BodyError},
    forwarded::Caller,
    pace::Pace,
    token::Tokens,
};
use mcp_wire::json::weight;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    access::Access,
    problem::Problem,
    state::{MAX_BODY, Web},
};
use crate::{app::App, heavy, limits};

/// A body that takes longer to arrive is not waited for.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// What the parsed body of a question, and of a call over /mcp, may take in memory, in bytes.
const MAX_CHAT_WEIGHT: usize = 96 << 20;
const MAX_CALL_WEIGHT: usize = 32 << 20;
const MCP: &str = "/mcp";
/// After SIGTERM, requests still come until everybody knows.
const LINGER: Duration = Duration::from_secs(2);

/// Takes one request of this caller, or says when to come back. Who prefers to wait, does (`Prefer: wait=10`, RFC 7240), where that is
/// no longer than it said.
pub async fn admit(State(web): State<Arc<Web>>, Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    let Some(pace) = &web.pace else { return next.run(request).await };
    let until = Instant::now() + limits::patience(request.headers());
    while let Err(wait) = pace.take(caller.counted_as()) {
        if Instant::now() + wait > until {
            web.app.engine.metrics.rate_limited.inc();
            let seconds = wait.as_secs() + 1;
            let detail = format!("too many requests; try again in {seconds} s, or wait in line with Prefer: wait={seconds}");
            return Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds).into_response();
        }
        tokio::time::sleep(wait).await;
    }
    next.run(request).await
}

/// Takes the whole body of a request, within bounds: of bytes, of time, and of what it would become in memory. A conversation of long
/// texts becomes little more than itself; millions of small values become a hundred times as much.
async fn arrived(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let is_call = request.uri().path() == MCP;
    let most_weight = if is_call { MAX_CALL_WEIGHT } else { MAX_CHAT_WEIGHT };
    let (parts, body) = request.into_parts();
    let (status, detail) = match body::whole(body, MAX_BODY, BODY_PATIENCE).await {
        Ok(body) => {
            let weighed = heavy::work(body.len(), move || (weight(&body).unwrap_or_default(), body));
            let (weight, body) = weighed.await;
            // A conversation is of long texts, and stays for as long as its turn; arguments are values, and gone with their call.
            let counts = is_call && weight <= most_weight;
            let room = timeout(BODY_PATIENCE, heavy::REQUESTS.room(if counts { weight } else { 0 }));
            match room.await {
                Ok(_room) if weight <= most_weight => {
                    return next.run(Request::from_parts(parts, Body::from(body))).await;
                }
                Ok(_) => (StatusCode::PAYLOAD_TOO_LARGE, "the request holds too many values; send less at once".to_owned()),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many large requests are under way; try again later".to_owned()),
            }
        }
        Err(BodyError::TooLarge) => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {} MiB", MAX_BODY / 1024 / 1024))
        }
        Err(error @ BodyError::Slow) => (StatusCode::REQUEST_TIMEOUT, error.to_string()),
        Err(error @ BodyError::Broken) => (StatusCode::BAD_REQUEST, error.to_string()),
    };
    let mut response = Problem::new(status, detail).into_response();
    // What is left of the body is not read.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Completes at SIGTERM and at Ctrl-C.
pub async fn terminated() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::error!("cannot listen for SIGTERM: {error}");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
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
        calls: Arc::default(),
        draining: CancellationToken::new(),
        stopped: CancellationToken::new(),
        app: Arc::clone(&app),
    });
    tracing::info!("chat worker listens on http://{address}; questions go to {}", app.who_answers());
    let open = "can chat, call tools and spend the key: set CHAT_ACCESS_TOKEN_FILE to a file with a token";
    http_server::warn_when_open(address, web.access.is_closed(), open);
    tokio::spawn(forget_idle_callers(Arc::downgrade(&web)));
    let (draining, stopped) = (web.draining.clone(), web.stopped.clone());
    let connections =
        Connections { most: usize::from(settings.max_connections), idle: Duration::from_secs(settings.idle_timeout_seconds) };
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
        left.within(Duration::from_secs(3)).await;
    }
    Ok(())
}

fn router(web: Arc<Web>) -> Router {
    let with = || Arc::clone(&web);
    // From the inside outwards: who asks is first made to keep the pace, whatever it brings, and then asked for the token.
    let limited = Router::new()
        .route_service(MCP, mcp::service(&web))
        .route_layer(middleware::from_fn_with_state(with(), mcp::whole))
        .route("/v1/chat", post(chat::chat))
        .route_layer(middleware::from_fn(arrived))
        .route_layer(middleware::from_fn_with_state(with(), signin::require))
        .route_layer(middleware::from_fn_with_state(with(), admit))
        .route_layer(middleware::from_fn_with_state(with(), signin::same_site));
    let unlimited = Router::new()
        .route("/v1/servers", get(live::servers))
        .route("/v1/tools", get(status::tools))
        .route("/v1/usage", get(status::usage))
        .route("/", get(page::index))
        .route_layer(middleware::from_fn_with_state(with(), signin::require))
        .route_layer(middleware::from_fn_with_state(with(), signin::same_site));
    let protected = limited.merge(unlimited);
    let all = Router::new()
        .merge(protected)
        .route("/signin", post(signin::sign_in))
        .route("/signout", post(signin::sign_out))
        .route("/assets/{name}", get(page::asset))
        .route("/health", get(status::health))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(page::openapi))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::clone(&web));
    // Around the whole of it: what the routing itself answers, with its headers, passes through them, too.
    Router::new()
        .fallback_service(all)
        .layer(middleware::from_fn(problem::for_bare_errors))
        .layer(middleware::from_fn(headers::options))
        .layer(middleware::from_fn_with_state(web, forwarded::note))
        .layer(middleware::from_fn(problem::with_request_id))
        .layer(middleware::from_fn(headers::add))
}

/// Looks once a minute for what nobody comes back for.
async fn forget_idle_callers(web: Weak<Web>) {
    let mut ticks = tokio::time::interval(Duration::from_mins(1));
    loop {
        ticks.tick().await;
        let Some(web) = web.upgrade() else { return };
        web.calls.forget();
    }
}

//! Beside a server that speaks HTTP itself, in the same pod: every request is handed on as it is and answered as it is, and what is under
//! way is counted. For servers that do not tell how many calls they have.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri};
use http_body_util::BodyExt as _;
use http_server::{Connections, LameDuck, request_id, stop};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tower::service_fn;

use crate::config::{RunArgs, seconds};
use crate::forward;
use crate::metrics::{Metrics, Outcome};

mod sessions;

use sessions::Sessions;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// What is answered here and not handed on, below this.
const OWN: &str = "/mcpfleet/";
const CALL: &str = "tools/call";
/// So much of a body is looked at, and for so long, to know what it asks for. What is larger or slower is a call of a tool for certain, and
/// goes on as it comes: how much is too much, and how slow too slow, is the server's to say.
const LOOKED_AT: usize = 1 << 20;
const LOOKING: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub async fn run(args: RunArgs, upstream: Uri) -> anyhow::Result<ExitCode> {
    let listener = http_server::listen(args.listen).await?;
    let beside = Arc::new(Beside {
        client: forward::client(),
        upstream,
        metrics: Metrics::new()?,
        sessions: Sessions::new(seconds(args.session_idle_seconds)),
    });
    tracing::info!(address = %listener.local_addr()?, upstream = %beside.upstream, "handing on");
    let service = service_fn(move |request: Request| {
        let beside = Arc::clone(&beside);
        async move { Ok(request_id::with(request, |request| beside.answer(request)).await) }
    });
    let stop = async {
        stop::asked().await;
        tracing::info!("draining");
        LameDuck { most: seconds(args.lame_duck_seconds), ..LameDuck::NONE }
    };
    let connections = Connections { most: usize::from(args.max_connections), idle: seconds(args.idle_timeout_seconds) };
    let mut left = http_server::serve_kept(listener, service, connections, stop).await;
    if !left.within(seconds(args.drain_seconds)).await {
        tracing::warn!(seconds = args.drain_seconds, "some requests did not finish in time");
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug)]
struct Beside {
    client: Client<HttpConnector, Body>,
    upstream: Uri,
    metrics: Metrics,
    sessions: Sessions,
}

/// What a request is about.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    method: String,
    #[serde(default)]
    id: Option<IgnoredAny>,
    #[serde(default)]
    params: Params,
}

#[derive(Debug, Default, Deserialize)]
struct Params {
    #[serde(default)]
    name: Option<String>,
}

impl Asked {
    /// What is answered, and does not stand for as long as its client wants it to. Several at once, as an older revision has them, are
    /// one; and what cannot be read is the server's to refuse.
    fn read(body: &[u8]) -> Option<Self> {
        let asked: Self = serde_json::from_slice(body).ok()?;
        (asked.id.is_some() && !asked.method.is_empty() && asked.method != "subscriptions/listen").then_some(asked)
    }
}

/// A body, as far as it was looked at.
enum Looked {
    Whole(Bytes),
    Begun(Body),
}

/// Reads the beginning of a body, which is all of it as a rule. The error: it broke off.
async fn look(mut body: Body) -> Result<Looked, axum::Error> {
    let mut begun = BytesMut::new();
    let until = tokio::time::Instant::now() + LOOKING;
    while begun.len() <= LOOKED_AT {
        match tokio::time::timeout_at(until, body.frame()).await {
            Ok(Some(frame)) => {
                if let Ok(data) = frame?.into_data() {
                    begun.extend_from_slice(&data);
                }
            }
            Ok(None) => return Ok(Looked::Whole(begun.freeze())),
            Err(_) => break,
        }
    }
    let begun = stream::once(async { Ok(begun.freeze()) });
    Ok(Looked::Begun(Body::from_stream(begun.chain(body.into_data_stream()))))
}

impl Beside {
    async fn answer(&self, request: Request) -> Response {
        if let Some(own) = request.uri().path().strip_prefix(OWN) {
            return self.own(own);
        }
        let (parts, body) = request.into_parts();
        let (asked, body) = match look(body).await {
            Ok(Looked::Whole(body)) => (Asked::read(&body), Body::from(body)),
            Ok(Looked::Begun(body)) => (Some(Asked { method: CALL.into(), ..Asked::default() }), body),
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "Bad Request: the body did not arrive whole\n"),
        };
        let call = asked.filter(|_| parts.method == Method::POST).map(|asked| Call::begin(&self.metrics, asked));
        let session = parts.headers.get(&SESSION).cloned();
        match self.hand_on(&parts, body).await {
            Ok(response) => {
                self.sessions.saw(&parts.method, session.as_ref(), response.status(), response.headers().get(&SESSION));
                counted(response, call)
            }
            Err(error) => {
                tracing::debug!(%error, request_id = request_id::of(&parts.headers), "the server did not answer");
                refuse(StatusCode::BAD_GATEWAY, "Bad Gateway: the server in this pod did not answer\n")
            }
        }
    }

    fn own(&self, path: &str) -> Response {
        match path {
            "healthz" => "ok\n".into_response(),
            "metrics" => {
                self.metrics.sessions.set(i64::try_from(self.sessions.count(Instant::now())).unwrap_or(i64::MAX));
                match self.metrics.render() {
                    Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
                }
            }
            _ => refuse(StatusCode::NOT_FOUND, "Not Found: /mcpfleet/ has healthz and metrics\n"),
        }
    }

    /// The server's answer, as it comes. It sees the name that its client asked for, and by whom.
    async fn hand_on(&self, parts: &Parts, body: Body) -> anyhow::Result<Response> {
        let mut uri = self.upstream.clone().into_parts();
        uri.path_and_query = parts.uri.path_and_query().cloned();
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = Uri::from_parts(uri)?;
        *request.headers_mut() = forward::end_to_end(&parts.headers);
        let kept = [HOST, CONTENT_LENGTH].into_iter().filter_map(|name| Some((parts.headers.get(&name)?.clone(), name)));
        request.headers_mut().extend(kept.map(|(value, name)| (name, value)));
        if let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            request.headers_mut().append(FORWARDED_FOR, HeaderValue::from_str(&peer.ip().to_canonical().to_string())?);
        }
        let mut response = self.client.request(request).await?.map(Body::new);
        *response.headers_mut() = forward::end_to_end(response.headers());
        Ok(response)
    }
}

fn refuse(status: StatusCode, words: &'static str) -> Response {
    (status, words).into_response()
}

/// A call under way: from its request until its answer is whole, or given up.
#[derive(Debug)]
struct Call {
    metrics: Metrics,
    asked: Asked,
    begun: Instant,
    outcome: Outcome,
}

impl Call {
    fn begin(metrics: &Metrics, asked: Asked) -> Self {
        metrics.in_flight.inc();
        Self { metrics: metrics.clone(), asked, begun: Instant::now(), outcome: Outcome::Cancelled }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.finished(&self.asked.method, self.asked.params.name.as_deref(), self.outcome, self.begun.elapsed());
    }
}

/// The answer, whose end is the end of the call.
fn counted(response: Response, call: Option<Call>) -> Response {
    let Some(mut call) = call else { return response };
    call.outcome = if response.status().is_success() { Outcome::Ok } else { Outcome::Error };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // It lives as long as there may be another frame.
            let _call = &call;
            frame
        }))
    })
}

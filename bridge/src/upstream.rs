//! Beside a server that speaks HTTP itself, in the same pod: every request is handed on as it is and answered as it is, and what is under
//! way is counted. For servers that do not tell how many calls they have.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, HOST, HeaderName, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::BodyExt as _;
use http_server::{Connections, LameDuck, Leaving, request_id, stop};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio_util::task::AbortOnDropHandle;
use tower::service_fn;

use crate::config::{RunArgs, seconds};
use crate::forward;
use crate::metrics::{Metrics, Outcome};

mod sessions;

use sessions::{InUse, Sessions};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// How the operator's prober calls itself (`operator/src/probe/route.rs`). What it asks is no call of a client's, and its sessions hold no pod:
/// it opens one a probe, and there are servers that let nobody end one.
const PROBER: &[u8] = b"mcpfleet-prober/";
/// What is answered here and not handed on, below this.
const OWN: &str = "/mcpfleet/";
const CALL: &str = "tools/call";
/// A pod that is to go serves on for so long at least, while others learn of it (the operator's `mcp_server/build/deployment.rs`); and so much of
/// its time is left to the server, to stop in.
const HANDOVER: Duration = Duration::from_secs(5);
/// How often it is looked whether the last call is over.
const LOOK: Duration = Duration::from_millis(100);
/// So much of a body is looked at, and for so long, to know what it asks for. What is larger or slower is a call of a tool for certain, and
/// goes on as it comes: how much is too much, and how slow too slow, is the server's to say.
const LOOKED_AT: usize = 1 << 20;
const LOOKING: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub async fn run(args: RunArgs, upstream: Uri) -> anyhow::Result<ExitCode> {
    let listener = http_server::listen(args.listen).await?;
    let leaving = Leaving::default();
    let beside = Arc::new(Beside {
        leaving: leaving.clone(),
        stays: Mutex::default(),
        client: forward::client(),
        upstream,
        metrics: Metrics::default(),
        sessions: Arc::new(Sessions::new(seconds(args.session_idle_seconds))),
        grace: seconds(args.drain_seconds),
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
    let connections =
        Connections { idle: seconds(args.idle_timeout_seconds), leaving, ..Connections::most(usize::from(args.max_connections)) };
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
    sessions: Arc<Sessions>,
    /// What the pod has for its end.
    grace: Duration,
    /// Whether clients are to go to another pod, and what takes that back.
    leaving: Leaving,
    stays: Mutex<Option<AbortOnDropHandle<()>>>,
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
            return self.own(own).await;
        }
        let (parts, body) = request.into_parts();
        let (asked, body) = match look(body).await {
            Ok(Looked::Whole(body)) => (Asked::read(&body), Body::from(body)),
            Ok(Looked::Begun(body)) => (Some(Asked { method: CALL.into(), ..Asked::default() }), body),
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "Bad Request: the body did not arrive whole\n"),
        };
        let counts = !is_of_prober(&parts.headers);
        let call = asked.filter(|_| counts && parts.method == Method::POST).map(|asked| Call::begin(&self.metrics, asked));
        match self.hand_on(&parts, body).await {
            Ok(response) if counts => {
                let (asked, given) = (parts.headers.get(&SESSION), response.headers().get(&SESSION));
                let in_use = self.sessions.saw(&parts.method, asked, response.status(), given);
                counted(response, call, in_use)
            }
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, request_id = request_id::of(&parts.headers), "the server did not answer");
                refuse(StatusCode::BAD_GATEWAY, "Bad Gateway: the server in this pod did not answer\n")
            }
        }
    }

    async fn own(&self, path: &str) -> Response {
        match path {
            "healthz" => "ok\n".into_response(),
            // Asked by the kubelet before it tells the server to stop.
            "drained" => {
                // The server is gone before this is: a client that keeps its connection would find nobody behind it.
                self.leaving.set(true);
                *self.stays.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.stays());
                drained(&self.metrics, self.grace).await;
                "ok\n".into_response()
            }
            "metrics" => {
                self.metrics.sessions.set(i64::try_from(self.sessions.count(Instant::now())).unwrap_or(i64::MAX));
                self.metrics.answer().into_response()
            }
            _ => refuse(StatusCode::NOT_FOUND, "Not Found: /mcpfleet/ has healthz, metrics and drained\n"),
        }
    }

    /// A pod that is still there when its time is over stays: the server alone was begun anew.
    fn stays(&self) -> AbortOnDropHandle<()> {
        let (leaving, grace) = (self.leaving.clone(), self.grace);
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            leaving.set(false);
        }))
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

/// Waits until a pod that goes may: its calls are over, and whoever called it has learnt that it goes; or the time is.
async fn drained(metrics: &Metrics, grace: Duration) {
    let least = HANDOVER.min(grace.saturating_sub(Duration::from_secs(1)));
    let until = tokio::time::Instant::now() + least.max(grace.saturating_sub(HANDOVER));
    tokio::time::sleep(least).await;
    while metrics.in_flight.get() > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}

fn is_of_prober(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(PROBER))
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

/// The answer, whose end is the end of the call, and for how long its session is in use.
fn counted(response: Response, mut call: Option<Call>, in_use: Option<InUse>) -> Response {
    if call.is_none() && in_use.is_none() {
        return response;
    }
    if let Some(call) = &mut call {
        call.outcome = if response.status().is_success() { Outcome::Ok } else { Outcome::Error };
    }
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // They live as long as there may be another frame.
            let _counted = (&call, &in_use);
            frame
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_goes_when_its_calls_are_over_and_early_enough_for_the_server_to_stop() {
        for (grace, lasts, waited) in [(30, 0, 5), (30, 12, 12), (30, 60, 25), (7, 60, 5), (3, 0, 2), (3, 60, 2), (1, 60, 0)] {
            let metrics = Metrics::default();
            let begun = tokio::time::Instant::now();
            let asked = Asked { method: CALL.into(), ..Asked::default() };
            let call = Call::begin(&metrics, asked);
            let calls = async {
                tokio::time::sleep(Duration::from_secs(lasts)).await;
                drop(call);
            };
            let drained = async {
                drained(&metrics, Duration::from_secs(grace)).await;
                begun.elapsed().as_secs()
            };
            let (drained, ()) = tokio::join!(drained, calls);
            assert_eq!(drained, waited, "{lasts} s of a call, of {grace} s");
        }
    }
}

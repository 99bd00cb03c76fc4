//! HTTP: what comes for a server that sleeps, and what becomes of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CONNECTION, HOST, RETRY_AFTER};
use http::request::Parts as Head;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_server::body::{self, BodyError};
use http_server::host::{Names, asked, only};
use http_server::request_id;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tower::{Service, service_fn};

use crate::flight::Flights;
use crate::host::{self, Named};
use crate::kept::Reply;
use crate::metrics::Metrics;
use crate::sleepers::{Found, Key, Sleeper, Sleepers};
use bridge::bridge::own_error;
use bridge::era::MODERN;
use bridge::forward::{Failed, Forward, end_to_end};
use bridge::post::{Malformed, Post};
use bridge::wire;

/// A body that trickles in slower than this is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// When a caller who waited in vain may try again, in seconds.
const AGAIN: &str = "5";

/// Says that a request was carried once: one that comes back goes round in a circle.
const CARRIED: HeaderName = HeaderName::from_static("mcpfleet-carried");

/// The JSON-RPC code for what is wrong with the server and not with the request.
const UNAVAILABLE: i64 = -32000;

/// What the activator is made of.
pub struct Parts {
    /// Which servers may sleep.
    pub sleepers: Arc<Sleepers>,
    /// Which of them are on their way.
    pub flights: Flights,
    /// Counts.
    pub metrics: Metrics,
    /// How long a call is held.
    pub hold: Duration,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Bytes of all requests that are held.
    pub max_held_bytes: usize,
}

/// See the file.
pub struct Activator {
    parts: Parts,
    forward: Forward,
    room: Semaphore,
    draining: AtomicBool,
    /// Those that no web page can take.
    names: Names,
}

impl Activator {
    /// Out of its parts.
    pub fn new(parts: Parts) -> Self {
        let room = Semaphore::new(parts.max_held_bytes.min(Semaphore::MAX_PERMITS));
        let names = Names::new(Vec::new(), Vec::new());
        Self { parts, forward: Forward::default(), room, draining: AtomicBool::new(false), names }
    }

    /// New requests go elsewhere from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.parts.sleepers.is_known() && !self.draining.load(Ordering::Relaxed)
    }
}

/// Everything that is served.
pub fn service(
    activator: Arc<Activator>,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
    service_fn(move |request: Request| {
        let activator = Arc::clone(&activator);
        async move { Ok(request_id::with(request, |request| activator.answer(request)).await) }
    })
}

impl Activator {
    async fn answer(&self, request: Request) -> Response {
        let asked = asked(request.uri(), request.headers()).unwrap_or_default();
        let Some(named) = host::named(asked) else { return self.own(&request) };
        let mut response = self.of_server(&named, request).await;
        // The next request is for the Service to lead: a connection that is kept would lead here when the server is long awake.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    async fn of_server(&self, named: &Named, request: Request) -> Response {
        let (key, sleeper) = match self.parts.sleepers.find(named) {
            Found::One(key, sleeper) => (key, sleeper),
            Found::Nobody => {
                return self.refuse(StatusCode::MISDIRECTED_REQUEST, "Misdirected Request: no server of this name sleeps\n");
            }
            Found::Several => {
                let words =
                    "Misdirected Request: servers of several namespaces have this name; call it as NAME-mcp.NAMESPACE.svc\n";
                return self.refuse(StatusCode::MISDIRECTED_REQUEST, words);
            }
        };
        if request.headers().contains_key(&CARRIED) {
            return self.refuse(StatusCode::LOOP_DETECTED, "Loop Detected: this request was carried already\n");
        }
        let (head, body) = request.into_parts();
        let sleeps = sleeper.is_asleep() && self.parts.flights.landed(&key).is_none();
        match head.method {
            Method::POST => match self.read(body).await {
                Ok(body) => self.post(&key, &sleeper, &head, body).await,
                Err((status, words)) => self.refuse(status, words),
            },
            // On its way or up, and the Service leads here for a moment longer: what is asked of a session is the server's to answer.
            _ if !sleeps && sleeper.enabled => match self.read(body).await {
                Ok(body) => self.carry(&key, &head, body, "null").await,
                Err((status, words)) => self.refuse(status, words),
            },
            // The session's pod is gone, and the session with it.
            Method::DELETE => StatusCode::NO_CONTENT.into_response(),
            // A stream that nobody would write to; a scrape of what does not run. Neither wakes anybody.
            _ => {
                let mut response =
                    (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed: the server sleeps, and a call wakes it\n")
                        .into_response();
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, DELETE"));
                response
            }
        }
    }

    /// What is asked of the activator itself.
    fn own(&self, request: &Request) -> Response {
        let path = request.uri().path();
        // Who came for a server, by another name than its Service's, is told which; whatever name it was.
        if !["/healthz", "/readyz", "/metrics"].contains(&path) {
            return self.refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "Misdirected Request: a server that sleeps is found by its Service's name in Host, NAME-mcp.NAMESPACE.svc\n",
            );
        }
        if self.names.judge(request.uri(), request.headers()).is_err() {
            return self
                .refuse(StatusCode::FORBIDDEN, "Forbidden: ask the activator by its address, or by its name in the cluster\n");
        }
        match path {
            "/healthz" => "ok\n".into_response(),
            "/readyz" if self.is_ready() => "ok\n".into_response(),
            "/readyz" => {
                (StatusCode::SERVICE_UNAVAILABLE, "the servers are not known yet, or it is shutting down\n").into_response()
            }
            _ => self.parts.metrics.answer().into_response(),
        }
    }

    fn refuse(&self, status: StatusCode, words: &'static str) -> Response {
        self.parts.metrics.request("refused");
        (status, words).into_response()
    }

    async fn read(&self, body: Body) -> Result<Bytes, (StatusCode, &'static str)> {
        body::whole(body, self.parts.max_request_bytes, BODY_TIMEOUT).await.map_err(|error| match error {
            BodyError::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large: send less, or raise --max-request-bytes of the activator\n")
            }
            BodyError::Slow => (StatusCode::REQUEST_TIMEOUT, "Request Timeout: the body did not arrive in time\n"),
            BodyError::Broken => (StatusCode::BAD_REQUEST, "Bad Request: the body is broken or ended early\n"),
        })
    }

    async fn post(&self, key: &Key, sleeper: &Sleeper, head: &Head, body: Bytes) -> Response {
        let post = match Post::read(&body) {
            Ok(post) => Some(post),
            // Several messages at once: only the server knows whether it takes them.
            Err(Malformed::Invalid) if body.trim_ascii_start().first() == Some(&b'[') => None,
            Err(malformed) => {
                self.parts.metrics.request("refused");
                let (code, words) = match malformed {
                    Malformed::Parse(error) => (-32700, format!("Parse error: {error}")),
                    Malformed::Invalid => (-32600, "Invalid Request: the body must be one JSON-RPC 2.0 message".to_owned()),
                };
                return own_error(StatusCode::BAD_REQUEST, "null", code, &words);
            }
        };
        let id = match &post {
            Some(Post::Request(request)) => request.id().to_owned(),
            _ => "null".to_owned(),
        };
        // Once it is up, it answers everything itself; and what is at its other paths it alone knows.
        if self.parts.flights.landed(key).is_none()
            && sleeper.speaks_at(head.uri.path())
            && let Some(post) = &post
        {
            let modern = only(&head.headers, &HeaderName::from_static("mcp-protocol-version")) == Some(MODERN);
            // As the server would: others on the way decide by the headers.
            if let Post::Request(request) = post
                && let Some(refusal) = bridge::door::belied(&head.headers, request)
            {
                self.parts.metrics.request("refused");
                return refusal;
            }
            let answer = match self.parts.sleepers.kept(key).await.reply(post, modern) {
                Reply::Result(result) => Some(bridge::stream::json(StatusCode::OK, wire::result(&id, &result))),
                Reply::None => Some(own_error(StatusCode::NOT_FOUND, &id, -32601, "Method not found: the server sleeps")),
                Reply::Taken => Some(StatusCode::ACCEPTED.into_response()),
                Reply::Wake => None,
            };
            if let Some(answer) = answer {
                self.parts.metrics.request("answered");
                return answer;
            }
        }
        if !sleeper.enabled {
            self.parts.metrics.request("refused");
            let words = format!("{key} is switched off: spec.enabled is false, or spec.circuitBreaker.force is Open");
            return own_error(StatusCode::SERVICE_UNAVAILABLE, &id, UNAVAILABLE, &words);
        }
        self.carry(key, head, body, &id).await
    }

    /// Holds a call until a pod is in service, and hands it on.
    async fn carry(&self, key: &Key, head: &Head, body: Bytes, id: &str) -> Response {
        let until = Instant::now() + self.parts.hold;
        let Some(_room) = self.room(body.len()) else {
            return self
                .late(id, "too many calls wait for servers to wake; raise --max-held-bytes of the activator, or its replicas");
        };
        let flight = self.parts.flights.join(key);
        let mut headers = end_to_end(&head.headers);
        // Servers judge by which name they are called.
        headers.extend(head.headers.get(HOST).map(|host| (HOST, host.clone())));
        headers.insert(CARRIED, HeaderValue::from_static("1"));
        let mut last = None;
        loop {
            let waiting = Held::new(&self.parts.metrics);
            let landing = flight.landing(last, until).await;
            drop(waiting);
            let Some(pod) = landing else { break };
            match self.forward.pass(&pod.to_string(), head, headers.clone(), body.clone()).await {
                Ok(response) => {
                    self.parts.metrics.request("forwarded");
                    flight.linger();
                    return response;
                }
                // Nothing arrived: another one will do, or this one a little later.
                Err(Failed::Unreachable) => last = Some(pod),
                Err(Failed::Lost | Failed::Silent) => {
                    self.parts.metrics.request("lost");
                    let words =
                        format!("{key} did not answer: the connection to its pod was lost, and the call may have been made");
                    return own_error(StatusCode::BAD_GATEWAY, id, UNAVAILABLE, &words);
                }
            }
        }
        if flight.is_over() {
            self.parts.metrics.request("refused");
            let words = format!("{key} was deleted or switched off while the call waited for it");
            return own_error(StatusCode::SERVICE_UNAVAILABLE, id, UNAVAILABLE, &words);
        }
        let reason = self.reason(key);
        let (Key { namespace, name }, seconds) = (key, self.parts.hold.as_secs());
        let words = format!(
            "{key} sleeps, and was not awake within {seconds} s{reason}; `kubectl describe mcpserver -n {namespace} {name}` says why"
        );
        self.late(id, &words)
    }

    /// What its condition Ready says now. The reason alone: its message may quote what the server wrote into its log.
    fn reason(&self, key: &Key) -> String {
        let named = Named { namespace: Some(key.namespace.clone()), name: key.name.clone() };
        match self.parts.sleepers.find(&named) {
            Found::One(_, sleeper) if !sleeper.reason.is_empty() => format!(" ({})", sleeper.reason),
            _ => String::new(),
        }
    }

    fn late(&self, id: &str, words: &str) -> Response {
        self.parts.metrics.request("late");
        let mut response = own_error(StatusCode::SERVICE_UNAVAILABLE, id, UNAVAILABLE, words);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(AGAIN));
        response
    }

    fn room(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        self.room.try_acquire_many(u32::try_from(bytes).ok()?).ok()
    }
}

/// A request that waits, counted.
struct Held<'a>(&'a Metrics);

impl<'a> Held<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.held.inc();
        Self(metrics)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.dec();
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::wanted::Wanted;

    #[tokio::test]
    async fn the_activators_own_paths_are_told_to_names_that_no_page_can_take() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Nobody listens there, and nobody is asked.
        let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let metrics = Metrics::default();
        let stop = CancellationToken::new();
        let sleepers = Sleepers::watch(&client, &[], &stop);
        let activator = Activator::new(Parts {
            sleepers: Arc::clone(&sleepers),
            flights: Flights::new(client.clone(), sleepers, Wanted::new(client, "mcpfleet", "wanted"), metrics.clone()),
            metrics,
            hold: Duration::ZERO,
            max_request_bytes: 1,
            max_held_bytes: 1,
        });
        for (target, host, status) in [
            ("/metrics", "10.244.0.7:8080", 200),
            ("/healthz", "activator.mcpfleet.svc:8080", 200),
            ("/metrics", "evil.example", 403),
            ("/healthz", "evil.example:8080", 403),
            ("http://evil.example/metrics", "10.244.0.7:8080", 403),
            ("http://search-mcp.team.svc/mcp", "10.244.0.7:8080", 421),
            ("/mcp", "tools.example.com", 421),
        ] {
            let request = Request::builder().uri(target).header(HOST, host).body(Body::empty()).unwrap();
            assert_eq!(activator.answer(request).await.status().as_u16(), status, "{target} of {host}");
        }
        stop.cancel();
    }
}

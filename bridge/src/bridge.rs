//! What a request may need, whatever its era: the children, the sessions, the way to other replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use http_server::host::{AllowedOrigin, HostPattern, Names};
use mcp_wire::question::THINKING;
use ring::digest::{SHA256, digest};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use traces::Traces;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};

use crate::calls::{Ask, Refusal};
use crate::era::{Era, Hello};
use crate::forward::{FORWARDED, Forward, Patience};
use crate::lane::{Absent, Lane};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::pool::Pool;
use crate::post::Envelope;
use crate::session::Session;
use crate::sessions::{Held, Registry};
use crate::stream::{self, Form, Waits};
use crate::trail::Trail;
use crate::wire;

/// What another replica gets beyond its limits: it is for it to say that they are over.
const GRACE: Duration = Duration::from_secs(2);

/// What a child gets at least that is started for whoever asks what it is, to say so or something else.
const BEGINS: Duration = Duration::from_secs(1);

/// See the file.
#[derive(Debug)]
pub struct Bridge {
    /// The child that all share; with a child a session, the one of clients that have none.
    pub shared: Arc<Lane>,
    /// Children of single sessions; None: all share one.
    pub pool: Option<Arc<Pool>>,
    /// The sessions of legacy clients.
    pub sessions: Arc<Registry>,
    /// To other replicas.
    pub forward: Forward,
    /// Everything that is counted.
    pub metrics: Metrics,
    /// Time for a call.
    pub timeout: Duration,
    /// Time for a call however much progress it makes.
    pub longest: Duration,
    /// How long whoever comes before the server has ever said what it is is kept waiting; one that is started for whoever asks gets a second.
    pub hold: Duration,
    /// A session that nobody uses for so long is over.
    pub idle: Duration,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// For whom it answers.
    pub names: Names,
    /// None: nobody wants any.
    pub traces: Option<Traces>,
    draining: AtomicBool,
    /// Streams that stand until somebody ends them are at their end.
    over: CancellationToken,
    shared_is_wanted: Notify,
}

/// What a bridge is made of.
#[derive(Debug)]
pub struct Parts {
    /// See [`Bridge`].
    pub shared: Arc<Lane>,
    /// See [`Bridge`].
    pub pool: Option<Arc<Pool>>,
    /// See [`Bridge`].
    pub sessions: Arc<Registry>,
    /// See [`Bridge`].
    pub metrics: Metrics,
    /// See [`Bridge`].
    pub timeout: Duration,
    /// See [`Bridge`].
    pub longest: Duration,
    /// See [`Bridge`].
    pub hold: Duration,
    /// See [`Bridge`].
    pub idle: Duration,
    /// See [`Bridge`].
    pub max_request_bytes: usize,
    /// See [`Bridge`].
    pub hosts: Vec<HostPattern>,
    /// See [`Bridge`].
    pub origins: Vec<AllowedOrigin>,
    /// See [`Bridge`].
    pub traces: Option<Traces>,
}

impl Bridge {
    /// With its parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { shared, pool, sessions, metrics, timeout, longest, hold, idle, max_request_bytes, hosts, origins, traces } =
            parts;
        let draining = AtomicBool::new(false);
        let (forward, over, shared_is_wanted) = (Forward::default(), CancellationToken::new(), Notify::new());
        Arc::new(Self {
            shared,
            pool,
            sessions,
            forward,
            metrics,
            timeout,
            longest,
            hold,
            idle,
            max_request_bytes,
            names: Names::new(hosts, origins),
            traces,
            draining,
            over,
            shared_is_wanted,
        })
    }

    /// Whether a client would be served.
    pub fn is_ready(&self) -> bool {
        let can_be_called = |lane: &Lane| lane.hello_now().is_some();
        let child = match &self.pool {
            None => can_be_called(&self.shared),
            // All children may be taken: those who have one are served. Or the first one of all is on its way.
            Some(pool) => pool.next().map_or_else(|| pool.is_proven(), |next| can_be_called(&next)),
        };
        child && !self.is_draining()
    }

    /// No new sessions from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the end is near.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether a request that another replica handed on is to go back to it: the end is near, and it may as well take the session over.
    pub fn gives_back(&self, headers: &HeaderMap) -> bool {
        self.is_draining() && self.pool.is_none() && headers.contains_key(FORWARDED)
    }

    /// How long the replica that has a session is waited for: it has the same limits as this one. None: what it is handed is no call.
    pub fn patience(&self, call: Option<&Envelope>, headers: &HeaderMap) -> Patience {
        // Progress that this client wants, and cannot be told, gives a call more time all the same.
        let unheard = call.is_some_and(|call| call.token().is_some()) && !stream::reads_events(headers);
        Patience {
            begins: GRACE + if unheard { self.longest } else { self.timeout },
            quiet: GRACE + self.timeout.max(stream::ALIVE),
            // Its client may be asked something, and think.
            ends: call.map(|_| GRACE + self.longest + THINKING),
        }
    }

    /// Streams that stand until somebody ends them end from now on: they would hold up the end.
    pub fn end_streams(&self) {
        self.over.cancel();
    }

    /// The answer to a request for such a stream, whoever fills it. `last`: what is said where the stream ends because the bridge does.
    pub async fn standing(&self, answer: impl Future<Output = Response>, last: Option<Bytes>) -> Response {
        let Some(response) = self.over.run_until_cancelled(answer).await else {
            return (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable: shutting down\n").into_response();
        };
        if !stream::is_events(&response) {
            return response;
        }
        let over = self.over.clone();
        response.map(|body| {
            let until_then = body.into_data_stream().take_until(over.clone().cancelled_owned());
            let last = futures::stream::once(async move { last.filter(|_| over.is_cancelled()) });
            Body::from_stream(until_then.chain(last.filter_map(async |last| last.map(|last| Ok(stream::event(&last))))))
        })
    }

    /// What the child that all share says of itself.
    pub async fn hello(&self) -> Result<Arc<Hello>, Absent> {
        self.shared_is_wanted.notify_one();
        self.hello_of(&self.shared).await
    }

    /// What a child says of itself. As long as none could ever be called, whoever asks is told soon what is said instead: that none comes up is
    /// to be known, and a probe has no time to wait.
    pub async fn hello_of(&self, lane: &Lane) -> Result<Arc<Hello>, Absent> {
        let proven = self.shared.was_ready() || self.pool.as_ref().is_some_and(|pool| pool.is_proven());
        // With a child a session, the one of clients that have none is started because somebody asks for it.
        let begins = self.pool.is_some() && std::ptr::eq(lane, Arc::as_ptr(&self.shared));
        let first = if begins { self.hold.max(BEGINS) } else { self.hold };
        lane.hello(if proven { self.timeout } else { first }).await
    }

    /// Until a client needs the child that all share.
    pub async fn shared_is_wanted(&self) {
        self.shared_is_wanted.notified().await;
    }

    /// Sessions that nobody uses end, for as long as this is polled.
    pub async fn end_idle_sessions(&self) {
        let mut tick = tokio::time::interval((self.idle / 10).clamp(Duration::from_millis(100), Duration::from_secs(10)));
        loop {
            let now = tick.tick().await;
            for held in self.sessions.take_idle(self.idle, now) {
                self.end_session(&held);
            }
        }
    }

    /// What is measured, as Prometheus reads it.
    pub fn measured(&self) -> metrics_text::Exposition {
        self.metrics.sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
        self.metrics.answer()
    }

    /// After it was taken out of the registry.
    pub fn end_session(&self, held: &Held) {
        held.session.end();
        if let Some(pool) = self.pool.as_ref().filter(|_| held.lane.owner().is_some()) {
            pool.give_back(&held.lane);
            pool.prepare();
        } else if !held.session.resources().is_empty() {
            held.lane.follow_resources();
        }
    }

    /// Calls a child, and answers with what it says.
    pub async fn call(
        &self,
        lane: &Arc<Lane>,
        envelope: Envelope,
        session: Option<Arc<Session>>,
        headers: &HeaderMap,
    ) -> Response {
        let (era, id) = (envelope.era, envelope.id().to_owned());
        let stands = &*envelope.method == "subscriptions/listen";
        if self.pool.is_some() && session.is_none() {
            self.shared_is_wanted.notify_one();
        }
        let (out, form) = (Outbox::default(), Form::of(headers).unwrap_or(Form::Json));
        let in_use = session.as_ref().map(Session::in_use);
        let trail = Trail::begin(self.traces.as_ref(), headers, &envelope);
        let trace = trail.members(headers, envelope.meta());
        let hears = form != Form::Json;
        match lane.admit(Ask { envelope, session, out: out.clone(), trace, trail, stands, hears }) {
            Ok(number) => {
                let waits = Waits::new(Arc::clone(lane), number, in_use);
                stream::respond(out, waits, era, form).await
            }
            Err(Refusal::Busy(words)) => self.busy(&id, words),
            Err(Refusal::Down(death, next)) => {
                self.metrics.refuse("down");
                later(&id, &death.unsent(), &death.data(false), next.unwrap_or_default())
            }
        }
    }

    /// 503: the same request may do better in a second.
    pub fn busy(&self, id: &str, words: &str) -> Response {
        self.metrics.refuse("busy");
        later(id, &format!("the bridge is busy: {words}"), r#"{"reason":"Busy"}"#, Duration::ZERO)
    }
}

/// 503: nothing was done, and the same request may do better after so long, or a second. `id` and `data` are JSON.
fn later(id: &str, words: &str, data: &str, wait: Duration) -> Response {
    let mut response = stream::error(StatusCode::SERVICE_UNAVAILABLE, id, -32000, words, Some(data));
    // Rather too late than too early.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0 || wait.is_zero());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// There is no child. `id` is JSON.
pub fn down(id: &str, absent: &Absent) -> Response {
    match absent {
        Absent::Dead(death) => stream::error(StatusCode::OK, id, -32000, &death.summary(), Some(&death.data(true))),
        Absent::Starting { instead, before } => {
            // The same words as long as nothing changes: whoever asks again and again may write them down.
            let said =
                instead.as_ref().map(|line| format!("; on its standard output stands what is no message of MCP, first: {line}"));
            let ended = before.as_ref().map(|death| format!("; the last time that it was started, {}", death.summary()));
            let words = format!("the server has not said what it is{}{}", ended.unwrap_or_default(), said.unwrap_or_default());
            stream::error(StatusCode::OK, id, -32001, &words, Some(r#"{"reason":"Starting"}"#))
        }
    }
}

/// An answer of our own. `id` and `result` are JSON.
pub fn own_result(id: &str, result: &str) -> Response {
    stream::json(StatusCode::OK, Bytes::from(wire::result(id, result)))
}

/// An error of our own. `id` is JSON.
pub fn own_error(status: StatusCode, id: &str, code: i64, words: &str) -> Response {
    stream::error(status, id, code, words, None)
}

/// Whose a request is: a digest of how its caller proves who it is, because sessions outlive what is logged.
pub fn caller(headers: &HeaderMap) -> [u8; 16] {
    let mut caller = [0; 16];
    if let Some(proof) = headers.get(AUTHORIZATION) {
        caller.copy_from_slice(&digest(&SHA256, proof.as_bytes()).as_ref()[..16]);
    }
    caller
}

/// Which era the child speaks, if there is one.
pub fn child_era(lane: &Lane) -> Option<Era> {
    lane.hello_now().map(|hello| hello.era)
}

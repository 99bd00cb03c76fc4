//! A stand-in for the model: a server that speaks the Messages API and Chat Completions from a script, for demos and tests
//! without a key.
//! It says what it is in every answer (model `stand-in`, header `x-model-standin`) and in its log.
//!
//! Where things happen: `script` (what is said) → `request` (what was asked, checked as strictly as the real API; `rules`: its tools) →
//! `answer` (a message) → `stream` (its events) → this file (HTTP). `openai` translates on both ends.

pub mod answer;
pub mod openai;
pub mod request;
pub mod rules;
pub mod script;
pub mod stream;

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use futures::{StreamExt, stream as streams};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

use crate::{
    request::Conversation,
    script::{Fault, Script, StreamFault},
    stream::End,
};

/// Requests larger than this are refused, as the real API does.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// How many requests are remembered for tests to look at.
const REMEMBERED: usize = 1_000;

/// A request as it came, for tests to look at.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: &'static str,
    pub headers: HeaderMap,
    pub body: Value,
    /// The status that was answered.
    pub status: u16,
}

/// The server's state: the script, how often each fault has happened, and the requests seen.
#[derive(Debug)]
pub struct Standin {
    script: Script,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: usize,
    faults: HashMap<(String, usize), usize>,
    key: Option<String>,
    seen: Vec<Seen>,
}

impl Standin {
    pub fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { script, counts: Mutex::default() })
    }

    /// The requests that came so far, the oldest first (the first 1,000).
    pub fn seen(&self) -> Vec<Seen> {
        self.counts().seen.clone()
    }

    /// From now on, only requests with this key are answered; others get 401.
    pub fn require_key(&self, key: &str) {
        self.counts().key = Some(key.to_owned());
    }

    fn key_fits(&self, headers: &HeaderMap) -> bool {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let given = header("x-api-key").or_else(|| header("authorization")?.strip_prefix("Bearer "));
        self.counts().key.as_deref().is_none_or(|key| Some(key) == given)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, path: &'static str, headers: HeaderMap, body: Value, status: StatusCode) {
        let mut counts = self.counts();
        if counts.seen.len() < REMEMBERED {
            counts.seen.push(Seen { path, headers, body, status: status.as_u16() });
        }
    }

    /// The fault that this request meets, if it has not happened often enough.
    fn fault<'a>(&self, rule: &str, index: usize, fault: Option<&'a Fault>) -> Option<&'a Fault> {
        let fault = fault?;
        let mut counts = self.counts();
        let happened = counts.faults.entry((rule.to_owned(), index)).or_default();
        let due = fault.times == 0 || *happened < fault.times;
        *happened += usize::from(due);
        due.then_some(fault)
    }
}

/// Serves until `shutdown` completes.
pub async fn serve(
    standin: Arc<Standin>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Without it, an event waits for the acknowledgement of the one before it, and the script's times are not kept.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router(standin)).with_graceful_shutdown(shutdown).await
}

/// A stand-in on a free port of this machine, for tests; it ends when this value is dropped.
#[derive(Debug)]
pub struct Running {
    pub standin: Arc<Standin>,
    pub address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Starts one with this script.
    pub async fn start(script: &str) -> anyhow::Result<Self> {
        let standin = Standin::new(Script::parse(script)?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(Arc::clone(&standin), listener, std::future::pending()));
        Ok(Self { standin, address, task })
    }

    /// What ANTHROPIC_BASE_URL is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn router(standin: Arc<Standin>) -> Router {
    Router::new()
        .route("/v1/messages", post(messages))
        .route("/v1/chat/completions", post(completions))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/", get(|| async { "This is model-standin: it answers from a script and is no model.\n" }))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(standin)
}

/// Which API a request came by.
#[derive(Debug, Clone, Copy)]
enum Api {
    Messages,
    Completions,
}

impl Api {
    fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::Completions => "/v1/chat/completions",
        }
    }

    fn error(self, status: StatusCode, kind: &str, message: &str) -> Response {
        match self {
            Self::Messages => error(status, kind, message),
            Self::Completions => (status, said_by(), Json(openai::error(kind, message))).into_response(),
        }
    }
}

async fn messages(State(standin): State<Arc<Standin>>, headers: HeaderMap, body: Bytes) -> Response {
    respond(&standin, headers, &body, Api::Messages).await
}

async fn completions(State(standin): State<Arc<Standin>>, headers: HeaderMap, body: Bytes) -> Response {
    respond(&standin, headers, &body, Api::Completions).await
}

async fn respond(standin: &Standin, headers: HeaderMap, body: &[u8], api: Api) -> Response {
    let (conversation, body) = match read(&headers, body, api) {
        Ok(read) => read,
        Err(sentence) => {
            tracing::warn!("refused a request: {sentence}");
            standin.remember(api.path(), headers, Value::Null, StatusCode::BAD_REQUEST);
            return api.error(StatusCode::BAD_REQUEST, "invalid_request_error", &sentence);
        }
    };
    if !standin.key_fits(&headers) {
        standin.remember(api.path(), headers, body, StatusCode::UNAUTHORIZED);
        return api.error(StatusCode::UNAUTHORIZED, "authentication_error", "invalid x-api-key");
    }
    if let Some(limit) = standin.script.context_tokens.filter(|limit| conversation.input_tokens > *limit) {
        standin.remember(api.path(), headers, body, StatusCode::BAD_REQUEST);
        let sentence = match api {
            Api::Messages => format!("prompt is too long: {} tokens > {limit} maximum", conversation.input_tokens),
            Api::Completions => format!("This model's maximum context length is {limit} tokens."),
        };
        return api.error(StatusCode::BAD_REQUEST, "invalid_request_error", &sentence);
    }
    let chosen = standin.script.choose(&conversation.question, conversation.rounds);
    let fault = standin.fault(chosen.rule, chosen.index, chosen.step.fault.as_ref());
    let status = fault.and_then(|fault| fault.status).and_then(|code| StatusCode::from_u16(code).ok());
    let number = {
        let mut counts = standin.counts();
        counts.requests += 1;
        counts.requests
    };
    tracing::info!(
        "stand-in answers request {number} by step {} of rule {}{}",
        chosen.index + 1,
        chosen.rule,
        if fault.is_some() { ", with its fault" } else { "" }
    );
    let with_usage = body["stream_options"]["include_usage"] == true;
    standin.remember(api.path(), headers, body, status.unwrap_or(StatusCode::OK));
    tokio::time::sleep(Duration::from_millis(chosen.step.delay_ms)).await;
    if let (Some(status), Some(fault)) = (status, fault) {
        return faulty(api, status, fault);
    }
    let message = answer::message(chosen.step, &conversation, &format!("{number:06}"));
    if fault.and_then(|fault| fault.stream) == Some(StreamFault::Html) {
        return (said_by(), axum::response::Html("<html><body>Welcome to the proxy</body></html>")).into_response();
    }
    if !conversation.stream {
        let message = if let Api::Completions = api { openai::completion(&message) } else { message };
        return (said_by(), Json(message)).into_response();
    }
    let (chunks, end) = match api {
        Api::Messages => stream::chunks(&message, chosen.step, fault),
        Api::Completions => openai::chunks(&message, chosen.step, fault, with_usage),
    };
    let mut due = Instant::now();
    let events = streams::iter(chunks).then(move |chunk| {
        due += chunk.after;
        async move {
            if !chunk.after.is_zero() {
                tokio::time::sleep_until(due).await;
            }
            Ok::<_, std::io::Error>(Bytes::from(chunk.bytes))
        }
    });
    let body = match end {
        End::Close => Body::from_stream(events),
        End::Hang => Body::from_stream(events.chain(streams::pending())),
    };
    (said_by(), [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")], body).into_response()
}

async fn count_tokens(State(standin): State<Arc<Standin>>, headers: HeaderMap, body: Bytes) -> Response {
    let parsed = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let tokens = body.len() / 4;
    standin.remember("/v1/messages/count_tokens", headers, parsed, StatusCode::OK);
    (said_by(), Json(json!({"input_tokens": tokens}))).into_response()
}

fn read(headers: &HeaderMap, body: &[u8], api: Api) -> Result<(Conversation, Value), String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let conversation = match api {
        Api::Messages if !headers.contains_key("anthropic-version") => {
            return Err("anthropic-version: header is required".into());
        }
        Api::Messages => Conversation::read(&body)?,
        Api::Completions => Conversation::of(&openai::translated(&body)?)?,
    };
    Ok((conversation, body))
}

fn faulty(api: Api, status: StatusCode, fault: &Fault) -> Response {
    let mut response = api.error(status, fault.kind.as_deref().unwrap_or("api_error"), "on demand");
    let headers = response.headers_mut();
    if let Some(seconds) = fault.retry_after {
        headers.insert("retry-after", HeaderValue::from(seconds));
    }
    for (name, value) in &fault.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<axum::http::HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    response
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}});
    (status, said_by(), Json(body)).into_response()
}

fn said_by() -> [(&'static str, &'static str); 2] {
    [("x-model-standin", "answers from a script; no model"), ("request-id", "req_standin")]
}

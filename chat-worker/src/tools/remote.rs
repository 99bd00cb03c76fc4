//! Streamable HTTP to one server: as a client of the SDK's transport, and for requests that go past the SDK (`past`). What is an
//! answer is decided by `asked`; here are its ways: statuses, redirects, content types, encodings, streams of events, and sessions that the
//! server has forgotten.

mod past;

use std::{
    collections::{HashMap, HashSet},
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use mcp_wire::{json, message, redirect};
use reqwest::Response;
use rmcp::{
    model::{ClientJsonRpcMessage, RequestId, ServerJsonRpcMessage},
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
    },
};
use sse_stream::{Sse, SseStream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use url::Url;

use super::{
    MAX_MESSAGE,
    asked::{Answer, Asked, Came},
    credentials::Credentials,
    fields::Known,
    pace::Pace,
    relay::Calls,
    sanitize::{cap, clean_line},
};
use crate::{heavy, met, numbers};

/// Events of one stream in a second. Progress that a person can follow is far below.
const EVENTS_A_SECOND: usize = 1_000;
/// A longer event counts as one more for each further piece of this size: 16 MiB a second, as of a child.
const EVENT_PIECE: usize = 16 * 1024;
/// What is read of the body of a refusal.
const MAX_REFUSAL: usize = 64 * 1024;
/// And how long it is waited for: it only explains.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);
/// What is told of it.
const MAX_SAID: usize = 200;
/// The rest of a stream is read for so long after its answer, so that its connection can be used again.
const DRAIN: Duration = Duration::from_millis(50);
/// Where nobody takes the connection, another attempt follows after each of these: a Service leads to a pod that has gone for up to a second
/// or two.
const CONNECT_AGAIN: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];
/// And none after this: an attempt may take its time to fail.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// Requests that a forgotten session cost, and that are not answered yet.
const MAX_EXPIRED: usize = 1_024;
/// Bodies and events of one server beyond this size, in bytes, and how many of them come at the same time: the others wait on their way.
const LARGE: usize = 1 << 20;
const MAX_LARGE: usize = 4;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const REVISION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TAKEN: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// Why a request had no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There was no connection: nothing was sent.
    #[error("{0}")]
    Unreached(String),
    /// It may have got there, and what came back broke off.
    #[error("{0}")]
    Transport(String),
    /// It was refused where an answer of the protocol would be no help: by whoever stands in front, or before there is a session.
    #[error("{0}")]
    Status(Refusal),
    #[error("{0}")]
    Redirected(String),
    #[error("{0}")]
    Credentials(String),
    #[error("{0}")]
    Url(String),
    #[error("the answer is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
}

/// A refusal by HTTP status, with what was said.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    said: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if self.said.is_empty() { Ok(()) } else { write!(f, ": {}", self.said) }
    }
}

type Failure = StreamableHttpError<RemoteError>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

/// The client.
#[derive(Debug, Clone)]
pub struct Remote {
    http: reqwest::Client,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    credentials: Credentials,
    /// Where the server is: as configured, or where redirects led to.
    found: Mutex<Option<Url>>,
    /// Requests that met a forgotten session: the same again is not worth another one.
    expired: Mutex<HashSet<RequestId>>,
    calls: Calls,
    large: Arc<Semaphore>,
    places: Semaphore,
    /// As the SDK opened it.
    door: Mutex<Door>,
    /// What comes for the SDK on streams of requests that went past it.
    aside: mpsc::Sender<ServerJsonRpcMessage>,
}

/// Where the server is, in which session, and by which revision.
#[derive(Debug, Clone, Default)]
struct Door {
    uri: Arc<str>,
    session: Option<Arc<str>>,
    revision: Option<HeaderValue>,
}

impl Door {
    fn revision(&self) -> Option<&str> {
        self.revision.as_ref().and_then(|revision| revision.to_str().ok())
    }
}

impl Remote {
    /// `most`: requests at once that go past the SDK; `aside`: what else comes on their streams.
    pub fn new(
        http: reqwest::Client,
        credentials: Credentials,
        calls: Calls,
        most: usize,
        aside: mpsc::Sender<ServerJsonRpcMessage>,
    ) -> Self {
        let shared = Shared {
            credentials,
            found: Mutex::default(),
            expired: Mutex::default(),
            calls,
            large: Arc::new(Semaphore::new(MAX_LARGE)),
            places: Semaphore::new(most),
            door: Mutex::default(),
            aside,
        };
        Self { http, shared: Arc::new(shared) }
    }

    /// The session in use.
    pub fn session(&self) -> Option<Arc<str>> {
        self.door().session
    }

    fn door(&self) -> Door {
        self.shared.door.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer that is not on a stream.
    async fn single(
        &self,
        asked: &Asked,
        reply: Response,
        content: Content,
        revision: Option<&str>,
    ) -> Result<Box<Answer>, Failure> {
        let status = reply.status().as_u16();
        Ok(match content {
            Content::Other(kind) => Box::new(asked.failed(&format!("HTTP {status} of the content type {kind}"))),
            Content::None => Box::new(asked.failed(&format!("HTTP {status} to a request, without an answer"))),
            Content::Json | Content::Events => {
                let body = whole(reply, MAX_MESSAGE, &self.shared.large).await;
                let (bytes, _large) = body.map_err(StreamableHttpError::Client)?;
                match read(asked, bytes, revision, &self.shared.calls).await {
                    Came::Answer(answer) => answer,
                    Came::Other => Box::new(asked.failed("the server answered something else than what it was asked")),
                }
            }
        })
    }

    /// Sends a request, and follows redirects within the server.
    async fn send(&self, method: Method, uri: &str, headers: HeaderMap, body: Option<Vec<u8>>) -> Result<Response, RemoteError> {
        let mut url = {
            let mut found = self.shared.found.lock().unwrap_or_else(PoisonError::into_inner);
            match &*found {
                Some(url) => url.clone(),
                None => found.insert(Url::parse(uri).map_err(|error| RemoteError::Url(error.to_string()))?).clone(),
            }
        };
        let mut all = self.shared.credentials.now().map_err(|error| RemoteError::Credentials(error.to_string()))?;
        // After the credentials: these are the protocol's, and not for a file to change.
        all.extend(headers);
        let body = body.map(bytes::Bytes::from);
        all.extend(body.as_ref().map(|_| (header::CONTENT_TYPE, JSON)));
        for _ in 0..=redirect::MOST {
            let request = || {
                let mut request = reqwest::Request::new(method.clone(), url.clone());
                request.headers_mut().clone_from(&all);
                *request.body_mut() = body.clone().map(Into::into);
                request
            };
            let reply = self.connected(request).await.map_err(|error| lost(&error, &url))?;
            if !redirect::is_one(reply.status().as_u16()) {
                return Ok(reply);
            }
            let location = reply.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            url = redirect::target(&url, reply.status().as_u16(), location).map_err(RemoteError::Redirected)?;
            *self.shared.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.clone());
        }
        Err(RemoteError::Redirected(format!("redirected more than {} times in a row", redirect::MOST)))
    }

    /// Sends a request, and again while nobody takes the connection: it was not sent then. A connection that breaks is not tried again here,
    /// because the request may have been made.
    async fn connected(&self, request: impl Fn() -> reqwest::Request) -> reqwest::Result<Response> {
        let began = Instant::now();
        for pause in CONNECT_AGAIN {
            match self.http.execute(request()).await {
                Err(error) if met::found_nobody(&error) && began.elapsed() < CONNECT_PATIENCE => {
                    tracing::debug!("no connection, another attempt follows: {}", met::cause(&error));
                    sleep(pause.mul_f64(1.0 - 0.25 * rand::random::<f64>())).await;
                }
                answered => return answered,
            }
        }
        self.http.execute(request()).await
    }

    /// What a refusal means to a request.
    async fn refused(&self, asked: &Asked, reply: Response, in_session: bool) -> Result<Box<Answer>, Failure> {
        let status = reply.status();
        let body = timeout(REFUSAL_PATIENCE, beginning(reply)).await.unwrap_or_default();
        let text = json::tidy(&body, 16 * MAX_REFUSAL).unwrap_or_default();
        let error = message::refusal(&text, asked.number());
        let about_session = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => true,
            // An error that names the request is about the request.
            StatusCode::BAD_REQUEST => !error.as_ref().is_some_and(|error| error.has_id),
            _ => false,
        };
        if in_session && about_session && !asked.opens() && self.expires(&asked.id) {
            return Err(StreamableHttpError::SessionExpired);
        }
        let said = error.as_ref().map_or_else(|| words(&text), |error| error.message.clone());
        let refusal = Refusal { status, said: cap(clean_line(&said), MAX_SAID).0 };
        let in_front = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
        let no_entry = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
        match error {
            // In its own words, unless they are about who may and how often: then the status says it.
            Some(error) if !no_entry && error.code != 0 => Ok(Box::new(asked.error(error))),
            // Whoever limits us is not asked again at once, in another era.
            _ if (in_front && !asked.is_discover()) || (no_entry && asked.is_discover()) => {
                Err(StreamableHttpError::Client(RemoteError::Status(refusal)))
            }
            _ => Ok(Box::new(asked.failed(&refusal.to_string()))),
        }
    }

    /// Whether a request meets a forgotten session for the first time.
    fn expires(&self, id: &RequestId) -> bool {
        let mut expired = self.shared.expired.lock().unwrap_or_else(PoisonError::into_inner);
        if expired.len() >= MAX_EXPIRED {
            expired.clear();
        }
        let first = expired.insert(id.clone());
        if !first {
            expired.remove(id);
        }
        first
    }

    /// The SDK's answer out of a stream: at once where it comes first, else with what comes before it.
    async fn events(
        &self,
        asked: Asked,
        mut events: Events,
        session: Option<String>,
        revision: Option<String>,
    ) -> StreamableHttpPostResponse {
        let first = match events.next().await {
            Some(Ok(first)) => first,
            None => {
                let answer = asked.failed("the stream of events ended without the answer");
                return StreamableHttpPostResponse::Json(answer.message(), session);
            }
            Some(Err(error)) => {
                let answer = asked.failed(&format!("the stream of events broke off: {error}"));
                return StreamableHttpPostResponse::Json(answer.message(), session);
            }
        };
        let (first, came) = read_event(&asked, first, revision.as_deref(), &self.shared.calls).await;
        if let Some(Came::Answer(answer)) = came {
            tokio::spawn(timeout(DRAIN, async move { while events.next().await.is_some() {} }));
            return StreamableHttpPostResponse::Json(answer.message(), session);
        }
        let calls = self.shared.calls.clone();
        heard(&first, &asked.id, &calls);
        let first = stream::once(async { Ok(first) });
        let rest = events.then(move |event| {
            let (asked, revision, calls) = (asked.clone(), revision.clone(), calls.clone());
            async move {
                match event {
                    Ok(event) => Ok(as_read(&asked, event, revision.as_deref(), &calls).await),
                    Err(error) => Err(error),
                }
            }
        });
        StreamableHttpPostResponse::Sse(first.chain(rest).boxed(), session)
    }
}

async fn make_room(of: &RequestId, weight: usize, calls: &Calls) {
    if weight > 0 {
        calls.keep(of, heavy::ANSWERS.room(weight).await);
    }
}

/// What a body is to the request that it came for. What will be large in memory waits until there is room.
async fn read(asked: &Asked, body: Vec<u8>, revision: Option<&str>, calls: &Calls) -> Came {
    let size = body.len();
    if size < heavy::LIGHT {
        return asked.read(&body, revision);
    }
    let (asked, revision) = (asked.clone(), revision.map(str::to_owned));
    let (asked, body, weight) = heavy::work(size, move || {
        let weight = asked.weight(&body);
        (asked, body, weight)
    })
    .await;
    make_room(&asked.id, weight, calls).await;
    heavy::work(size, move || asked.read(&body, revision.as_deref())).await
}

/// An event, and what it is to the request on whose stream it came; nothing where it holds nothing.
async fn read_event(asked: &Asked, event: Sse, revision: Option<&str>, calls: &Calls) -> (Sse, Option<Came>) {
    fn came(asked: &Asked, event: &Sse, revision: Option<&str>) -> Option<Came> {
        let data = event.data.as_deref().filter(|data| !data.trim().is_empty());
        data.map(|data| asked.read(data.as_bytes(), revision))
    }
    let size = event.data.as_ref().map_or(0, String::len);
    if size < heavy::LIGHT {
        let came = came(asked, &event, revision);
        return (event, came);
    }
    let (asked, revision) = (asked.clone(), revision.map(str::to_owned));
    let (asked, event, weight) = heavy::work(size, move || {
        let weight = event.data.as_deref().map_or(0, |data| asked.weight(data.as_bytes()));
        (asked, event, weight)
    })
    .await;
    make_room(&asked.id, weight, calls).await;
    heavy::work(size, move || {
        let came = came(&asked, &event, revision.as_deref());
        (event, came)
    })
    .await
}

/// An event as the SDK is to read it: of answers, what `asked` makes of them. What comes before the answer is heard, too.
async fn as_read(asked: &Asked, event: Sse, revision: Option<&str>, calls: &Calls) -> Sse {
    let (mut event, came) = read_event(asked, event, revision, calls).await;
    match came {
        Some(Came::Answer(answer)) => {
            let size = event.data.as_ref().map_or(0, String::len);
            if let Ok(text) = heavy::work(size, move || serde_json::to_string(&answer.message())).await {
                event.data = Some(text);
            }
        }
        Some(Came::Other) => heard(&event, &asked.id, calls),
        None => {}
    }
    event
}

fn heard(event: &Sse, of: &RequestId, calls: &Calls) {
    if let Some(data) = &event.data {
        calls.hear(Some(of), data.as_bytes());
    }
}

impl StreamableHttpClient for Remote {
    type Error = RemoteError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let body = numbers::release_bytes(serde_json::to_vec(&message)?);
        let asked = Asked::of(&message);
        // Only in the answer to what opens the connection is it not known yet.
        let revision = custom_headers.get(&REVISION).filter(|_| !asked.as_ref().is_some_and(Asked::opens)).cloned();
        let door = Door { uri: Arc::clone(&uri), session: session_id, revision };
        let in_session = door.session.is_some();
        let headers = headers(door.session.as_deref(), custom_headers);
        if door.revision.is_some() {
            *self.shared.door.lock().unwrap_or_else(PoisonError::into_inner) = door.clone();
        }
        let reply = self.send(Method::POST, &uri, headers, Some(body)).await.map_err(StreamableHttpError::Client)?;
        let Some(asked) = asked else { return acknowledged(reply, in_session).await };
        if !reply.status().is_success() {
            return Ok(StreamableHttpPostResponse::Json(self.refused(&asked, reply, in_session).await?.message(), None));
        }
        let session = reply.headers().get(SESSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match content_type(&reply) {
            Content::Events => {
                let events = events(reply, limits.max_sse_event_size, Arc::clone(&self.shared.large));
                Ok(self.events(asked, events, session, door.revision().map(str::to_owned)).await)
            }
            content => {
                let answer = self.single(&asked, reply, content, door.revision()).await?;
                Ok(StreamableHttpPostResponse::Json(answer.message(), session))
            }
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        // However it ends: we are gone.
        let sent = self.send(Method::DELETE, &uri, headers(Some(&session_id), custom_headers), None).await;
        sent.map(|_| ()).map_err(StreamableHttpError::Client)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Events, Failure> {
        let size = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, custom_headers, size).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<Events, Failure> {
        let mut headers = headers(session_id.as_deref(), custom_headers);
        if let Some(id) = last_event_id.and_then(|id| HeaderValue::try_from(id).ok()) {
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        let reply = self.send(Method::GET, &uri, headers, None).await.map_err(StreamableHttpError::Client)?;
        // Most servers have none, and say so in one way or another.
        if !reply.status().is_success() || !matches!(content_type(&reply), Content::Events) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        let calls = self.shared.calls.clone();
        let heard = move |event: &Result<Sse, SseError>| {
            if let Some(data) = event.as_ref().ok().and_then(|event| event.data.as_deref()) {
                calls.hear(None, data.as_bytes());
            }
        };
        Ok(events(reply, max_sse_event_size, Arc::clone(&self.shared.large)).inspect(heard).boxed())
    }
}

/// Why a request has no reply.
fn lost(error: &reqwest::Error, url: &Url) -> RemoteError {
    let told = met(error, url);
    if error.is_connect() { RemoteError::Unreached(told) } else { RemoteError::Transport(told) }
}

/// What went wrong on the way. Where the server is, is for the log.
fn met(error: &reqwest::Error, url: &Url) -> String {
    tracing::debug!("no connection to {}: {}", url.host_str().unwrap_or_default(), met::cause(error));
    met::in_words(error, url)
}

fn headers(session: Option<&str>, custom: HashMap<HeaderName, HeaderValue>) -> HeaderMap {
    let mut headers: HeaderMap = custom.into_iter().collect();
    headers.insert(header::ACCEPT, TAKEN);
    if let Some(session) = session.and_then(|session| HeaderValue::from_str(session).ok()) {
        headers.insert(SESSION, session);
    }
    headers
}

/// What came for a notification: any success will do. That its session is forgotten is told by the next request.
async fn acknowledged(reply: Response, in_session: bool) -> Result<StreamableHttpPostResponse, Failure> {
    let status = reply.status();
    let forgotten = in_session && matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::GONE);
    if status.is_success() || forgotten {
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    let body = timeout(REFUSAL_PATIENCE, beginning(reply)).await.unwrap_or_default();
    let said = cap(clean_line(&words(&String::from_utf8_lossy(&body))), MAX_SAID).0;
    Err(StreamableHttpError::Client(RemoteError::Status(Refusal { status, said })))
}

/// What a plain text says; a page says nothing.
fn words(text: &str) -> String {
    let text = text.trim();
    if text.starts_with(['<', '{', '[']) { String::new() } else { text.chars().take(4 * MAX_SAID).collect() }
}

enum Content {
    Json,
    Events,
    Other(String),
    None,
}

fn content_type(reply: &Response) -> Content {
    let Some(value) = reply.headers().get(header::CONTENT_TYPE) else { return Content::None };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        _ if matches!(reply.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT) && reply.content_length() == Some(0) => {
            Content::None
        }
        "application/json" => Content::Json,
        "text/event-stream" => Content::Events,
        other => Content::Other(clean_line(other)),
    }
}

/// As much as is worth reading of a body that only explains; what breaks takes nothing away.
async fn beginning(mut reply: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = reply.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > MAX_REFUSAL {
            return Vec::new();
        }
    }
    body
}

/// Waits for one of the places for what is large; whoever has one keeps it.
async fn place_for(size: usize, place: &mut Option<OwnedSemaphorePermit>, large: &Arc<Semaphore>) {
    if size > LARGE && place.is_none() {
        // It is never closed.
        *place = Arc::clone(large).acquire_owned().await.ok();
    }
}

/// A whole body, decoded, of at most so many bytes, with the place that it takes.
async fn whole(
    mut reply: Response,
    most: usize,
    large: &Arc<Semaphore>,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), RemoteError> {
    let coding = reply.headers().get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let gzip = matches!(coding.trim().to_ascii_lowercase().as_str(), "gzip" | "x-gzip");
    let (mut body, mut place) = (Vec::new(), None);
    while let Some(piece) = reply.chunk().await.map_err(|error| RemoteError::Transport(met(&error, reply.url())))? {
        if body.len() + piece.len() > most {
            return Err(RemoteError::TooLarge(most));
        }
        place_for(body.len() + piece.len(), &mut place, large).await;
        body.extend_from_slice(&piece);
    }
    if gzip {
        // Little may become much.
        place_for(most, &mut place, large).await;
        body = heavy::work(most, move || decoded(body, most)).await?;
    }
    Ok((body, place))
}

fn decoded(body: Vec<u8>, most: usize) -> Result<Vec<u8>, RemoteError> {
    let mut decoded = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = flate2::read::MultiGzDecoder::new(&body[..]).take(limit).read_to_end(&mut decoded);
    match read {
        Ok(_) if decoded.len() > most => Err(RemoteError::TooLarge(most)),
        Ok(_) => Ok(decoded),
        // It is read as what it is, which is no JSON.
        Err(_) => Ok(body),
    }
}

/// A stream of events that is being read.
struct Reading {
    reply: Response,
    known: Known,
    begun: bool,
    place: Option<OwnedSemaphorePermit>,
}

impl Reading {
    /// The next piece, without what means nothing; `None` at the end.
    async fn next(&mut self, most: usize, large: &Arc<Semaphore>) -> Option<std::io::Result<bytes::Bytes>> {
        let piece = match self.reply.chunk().await {
            Ok(piece) => piece?,
            Err(error) => return Some(Err(std::io::Error::other(error.without_url()))),
        };
        let begins = !std::mem::replace(&mut self.begun, true);
        let mark: &[u8] = if begins { b"\xef\xbb\xbf" } else { b"" };
        let kept = self.known.of(piece.strip_prefix(mark).unwrap_or(&piece));
        if self.known.event() > most {
            return Some(Err(std::io::Error::other(format!("an event is larger than {} MiB", most >> 20))));
        }
        if self.known.event() <= LARGE {
            self.place = None;
        }
        place_for(self.known.event(), &mut self.place, large).await;
        Some(Ok(kept.into()))
    }
}

/// The events of a body, none larger than `most`, and no more in a second than is bearable.
fn events(reply: Response, most: usize, large: Arc<Semaphore>) -> Events {
    let reading = Reading { reply, known: Known::default(), begun: false, place: None };
    let bytes = stream::unfold((reading, large), move |(mut reading, large)| async move {
        let piece = reading.next(most, &large).await?;
        Some((piece, (reading, large)))
    });
    let mut broken = false;
    let bytes = bytes.take_while(move |piece| {
        let goes_on = !broken;
        broken = piece.is_err();
        futures::future::ready(goes_on)
    });
    paced(SseStream::from_bytes_stream(bytes.boxed()).boxed())
}

fn paced(events: Events) -> Events {
    let pace = Pace::new(EVENTS_A_SECOND, Instant::now());
    stream::unfold((events, pace), |(mut events, mut pace)| async move {
        if let Some(until) = pace.pause(Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        let event = events.next().await?;
        let size = event.as_ref().ok().and_then(|event| event.data.as_ref()).map_or(0, String::len);
        pace.spend(1 + size / EVENT_PIECE, Instant::now());
        Some((event, (events, pace)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_of_events_is_taken_slowly() {
        let began = Instant::now();
        let flood = stream::repeat_with(|| Ok(Sse::default())).take(2 * EVENTS_A_SECOND).boxed();
        assert_eq!(paced(flood).count().await, 2 * EVENTS_A_SECOND);
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

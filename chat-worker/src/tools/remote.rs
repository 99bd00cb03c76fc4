//! Streamable HTTP to one server: as a client of the SDK's transport, and for requests that go past the SDK (`past`). What is an
//! answer is decided by `asked`; here are its ways: statuses, redirects, content types, and sessions that the server has forgotten. Bodies
//! and streams of events are read in `incoming`.

mod incoming;
mod past;
mod refusal;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use past::Outcome;

use futures::{StreamExt as _, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use mcp_wire::{body::Content, hello::SILENCE, redirect, sse::Event};
use reqwest::Response;
use rmcp::{
    model::{ClientJsonRpcMessage, ClientNotification, ErrorCode, RequestId, ServerJsonRpcMessage},
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
    },
};
use sse_stream::Sse;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use url::Url;

use super::{
    MAX_MESSAGE,
    asked::{Answer, Asked, Came},
    credentials::Credentials,
    question::in_a_request,
    relay::Calls,
    sanitize::clean_line,
};
use crate::{connection_error, heavy, numbers};
use incoming::{Events, events, whole};
use refusal::Refusal;

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
/// How many large bodies and events of one server come at the same time: the others wait on their way.
const MAX_LARGE: usize = 4;

const METHOD_NOT_FOUND: i64 = ErrorCode::METHOD_NOT_FOUND.0 as i64;
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
    /// It cannot be decoded.
    #[error("{0}")]
    Coding(String),
}

type Failure = StreamableHttpError<RemoteError>;
/// As the SDK takes them.
type Listened = BoxStream<'static, Result<Sse, SseError>>;

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
    /// How often the server was opened by initialize.
    opened: AtomicU64,
    /// As the SDK opened it.
    door: Mutex<Door>,
    /// Which session it has begun last, when that has been told so.
    begun: watch::Sender<u64>,
    /// What comes for the SDK on streams of requests that went past it.
    aside: mpsc::Sender<ServerJsonRpcMessage>,
    /// Whether silence to discover is an answer to it.
    takes_silence: bool,
}

/// Where the server is, in which session, and by which revision.
#[derive(Debug, Clone, Default)]
struct Door {
    uri: Arc<str>,
    session: Option<Arc<str>>,
    revision: Option<HeaderValue>,
    /// Which one it is, counted from the first.
    number: u64,
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
        takes_silence: bool,
    ) -> Self {
        let shared = Shared {
            credentials,
            found: Mutex::default(),
            expired: Mutex::default(),
            calls,
            large: Arc::new(Semaphore::new(MAX_LARGE)),
            places: Semaphore::new(most),
            opened: AtomicU64::new(0),
            door: Mutex::default(),
            begun: watch::Sender::new(1),
            aside,
            takes_silence,
        };
        Self { http, shared: Arc::new(shared) }
    }

    /// How often it was opened: a new session is a new one also where it has the name of the last.
    pub fn opened(&self) -> u64 {
        self.door().number
    }

    /// Changes when another session has begun.
    pub fn sessions(&self) -> watch::Receiver<u64> {
        self.shared.begun.subscribe()
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
            Content::Other(kind) => Box::new(asked.failed(&format!("HTTP {status} of the content type {}", clean_line(&kind)))),
            Content::None => Box::new(asked.failed(&format!("HTTP {status} to a request, without an answer"))),
            Content::Json | Content::Events => {
                let (bytes, _large) = match whole(reply, MAX_MESSAGE, &self.shared.large).await {
                    Ok(body) => body,
                    Err(RemoteError::Coding(problem)) => {
                        return Ok(Box::new(asked.failed(&format!("the server's answer cannot be read: {problem}"))));
                    }
                    Err(error) => return Err(StreamableHttpError::Client(error)),
                };
                match read(asked, bytes, revision, &self.shared.calls).await {
                    Came::Answer(answer) | Came::Odd(answer) => answer,
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
        let mut lasts = true;
        if body.is_some() {
            all.insert(header::CONTENT_TYPE, JSON);
        }
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
            let status = reply.status().as_u16();
            let target = redirect::target(&url, status, location).map_err(RemoteError::Redirected)?;
            lasts &= redirect::lasts(status, &url, &target);
            url = target;
            if lasts {
                *self.shared.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.clone());
            }
        }
        Err(RemoteError::Redirected(format!("redirected more than {} times in a row", redirect::MOST)))
    }

    /// Sends a request, and again while nobody takes the connection: it was not sent then. A connection that breaks is not tried again here,
    /// because the request may have been made.
    async fn connected(&self, request: impl Fn() -> reqwest::Request) -> reqwest::Result<Response> {
        let began = Instant::now();
        for pause in CONNECT_AGAIN {
            match self.http.execute(request()).await {
                Err(error) if connection_error::found_nobody(&error) && began.elapsed() < CONNECT_PATIENCE => {
                    tracing::debug!("no connection, another attempt follows: {}", connection_error::cause(&error));
                    sleep(pause.mul_f64(1.0 - 0.25 * rand::random::<f64>())).await;
                }
                answered => return answered,
            }
        }
        self.http.execute(request()).await
    }

    /// A stream that is asked for by itself: what a server says unasked, or the rest of one that ended at an event of this id.
    async fn opened_stream(
        &self,
        uri: &str,
        session: Option<&str>,
        last: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
        most: usize,
    ) -> Result<Events, Failure> {
        let mut headers = headers(session, custom);
        if let Some(id) = last.and_then(|id| HeaderValue::try_from(id).ok()) {
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        let reply = self.send(Method::GET, uri, headers, None).await.map_err(StreamableHttpError::Client)?;
        // Most servers have none, and say so in one way or another.
        if !reply.status().is_success() || !matches!(content_type(&reply), Content::Events) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        Ok(events(reply, most, Arc::clone(&self.shared.large)))
    }

    /// What a refusal means to a request; and whether it may mean, where there is a session, that it is forgotten.
    async fn refused(&self, asked: &Asked, reply: Response) -> (bool, Result<Box<Answer>, Failure>) {
        let status = reply.status();
        let (refusal, error) = Refusal::of(reply, Some(asked)).await;
        // Whoever knows the request well enough to miss its method knows its session. All else may be said of either, also by its id: whether
        // the session lives is for a ping to find out.
        let misses_method = error.as_ref().is_some_and(|error| error.has_id && error.code == METHOD_NOT_FOUND);
        let of_session = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::GONE) && !misses_method;
        let in_front = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
        let no_entry = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
        let answer = match error {
            // In its own words, unless they are about who may and how often: then the status says it.
            Some(error) if !no_entry && error.code != 0 => Ok(Box::new(asked.error(error))),
            // Whoever limits us is not asked again at once: neither in another era, nor for its tools.
            _ if (in_front && !asked.is_discover()) || (status == StatusCode::TOO_MANY_REQUESTS && asked.is_of_ours()) => {
                Err(StreamableHttpError::Client(RemoteError::Status(refusal)))
            }
            _ => Ok(Box::new(asked.failed(&refusal.to_string()))),
        };
        (of_session && !asked.opens(), answer)
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

    /// What comes of a message of the SDK's.
    async fn posted(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let body = numbers::release_bytes(serde_json::to_vec(&message)?);
        let asked = Asked::of(&message);
        // Only in the answer to what opens the connection is it not known yet.
        let revision = custom_headers.get(&REVISION).filter(|_| !asked.as_ref().is_some_and(Asked::opens)).cloned();
        let number = self.shared.opened.load(Ordering::Relaxed);
        let mut door = Door { uri: Arc::clone(&uri), session: session_id, revision, number };
        let in_session = door.session.is_some();
        let headers = headers(door.session.as_deref(), custom_headers);
        if door.revision.is_some() {
            *self.shared.door.lock().unwrap_or_else(PoisonError::into_inner) = door.clone();
        }
        let reply = self.send(Method::POST, &uri, headers, Some(body)).await.map_err(StreamableHttpError::Client)?;
        if door.revision.is_some() {
            self.shared.begun.send_if_modified(|begun| {
                let is_another = *begun < door.number;
                *begun = door.number.max(*begun);
                is_another
            });
        }
        let Some(asked) = asked else {
            // To what opens a session there is none yet that could be forgotten.
            return acknowledged(reply, in_session && !opens(&message)).await;
        };
        if !reply.status().is_success() {
            let (of_session, answer) = self.refused(&asked, reply).await;
            if of_session && in_session && self.expires(&asked.id) {
                return Err(StreamableHttpError::SessionExpired);
            }
            return Ok(StreamableHttpPostResponse::Json(answer?.message(), None));
        }
        let session = reply.headers().get(SESSION).and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty());
        let session = session.map(str::to_owned);
        let answer = match content_type(&reply) {
            Content::Events => {
                let events = events(reply, limits.max_sse_event_size, Arc::clone(&self.shared.large));
                if asked.listens() {
                    let events = self.listened(asked, events, door.revision().map(str::to_owned));
                    return Ok(StreamableHttpPostResponse::Sse(events, session));
                }
                if asked.is_initialize() {
                    door.session = session.as_deref().map(Arc::from);
                }
                self.follow(&asked, events, &door).await
            }
            content => self.single(&asked, reply, content, door.revision()).await?,
        };
        if asked.is_initialize() && answer.result.is_ok() {
            self.shared.opened.fetch_add(1, Ordering::Relaxed);
        }
        Ok(StreamableHttpPostResponse::Json(answer.message(), session))
    }

    /// A stream that goes on, as the SDK is to read it: what is no message is none there, either.
    fn listened(&self, asked: Asked, events: Events, revision: Option<String>) -> Listened {
        let calls = self.shared.calls.clone();
        let read = move |event: io::Result<Event>| {
            let (asked, revision, calls) = (asked.clone(), revision.clone(), calls.clone());
            async move {
                match event {
                    Ok(event) => Ok(as_read(&asked, event, revision.as_deref(), &calls).await),
                    Err(error) => Err(broke_off(error)),
                }
            }
        };
        events.then(read).boxed()
    }
}

fn broke_off(error: io::Error) -> SseError {
    SseError::Body(Box::new(error))
}

/// An event as the SDK takes it, with this to read in it. Its id may be where the stream goes on, whatever else it is.
fn sse(event: Event, data: Option<String>) -> Sse {
    Sse { event: None, data, id: event.id, retry: event.retry }
}

/// The message of an event, with all that is in it.
fn for_the_sdk(event: &mut Event) -> Option<String> {
    let data = String::from_utf8(std::mem::take(&mut event.data)).ok()?;
    Some(match in_a_request(&data) {
        Cow::Owned(carried) => carried,
        Cow::Borrowed(_) => data,
    })
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

/// An event, and what it is to the request on whose stream it came; nothing where it is no message.
async fn read_event(asked: &Asked, event: Event, revision: Option<&str>, calls: &Calls) -> (Event, Option<Came>) {
    fn came(asked: &Asked, event: &Event, revision: Option<&str>) -> Option<Came> {
        event.message().map(|data| asked.read(data, revision))
    }
    let size = event.data.len();
    if size < heavy::LIGHT {
        let came = came(asked, &event, revision);
        return (event, came);
    }
    let (asked, revision) = (asked.clone(), revision.map(str::to_owned));
    let (asked, event, weight) = heavy::work(size, move || {
        let weight = event.message().map_or(0, |data| asked.weight(data));
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
async fn as_read(asked: &Asked, event: Event, revision: Option<&str>, calls: &Calls) -> Sse {
    let (mut event, came) = read_event(asked, event, revision, calls).await;
    match came {
        Some(Came::Answer(answer)) => {
            let written = heavy::work(event.data.len(), move || serde_json::to_string(&answer.message())).await;
            sse(event, written.ok())
        }
        Some(Came::Other) => {
            calls.hear(Some(&asked.id), &event.data);
            let data = for_the_sdk(&mut event);
            sse(event, data)
        }
        Some(Came::Odd(_)) | None => sse(event, None),
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
        let discover = Asked::of(&message).filter(|asked| self.shared.takes_silence && asked.is_discover());
        let posted = self.posted(uri, message, session_id, custom_headers, limits);
        let Some(discover) = discover else { return posted.await };
        let instead = match timeout(SILENCE, posted).await {
            // Some servers die of what they do not know.
            Ok(Err(StreamableHttpError::Client(RemoteError::Transport(broken)))) => discover.failed(&broken),
            Ok(posted) => return posted,
            Err(_) => discover.silent(),
        };
        Ok(StreamableHttpPostResponse::Json(instead.message(), None))
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
    ) -> Result<Listened, Failure> {
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
    ) -> Result<Listened, Failure> {
        let events = self.opened_stream(&uri, session_id.as_deref(), last_event_id, custom_headers, max_sse_event_size).await?;
        let calls = self.shared.calls.clone();
        let read = move |event: io::Result<Event>| {
            let mut event = event.map_err(broke_off)?;
            if event.message().is_none() {
                return Ok(sse(event, None));
            }
            calls.hear(None, &event.data);
            let data = for_the_sdk(&mut event);
            Ok(sse(event, data))
        };
        Ok(events.map(read).boxed())
    }
}

/// Why a request has no reply.
fn lost(error: &reqwest::Error, url: &Url) -> RemoteError {
    let told = met(error, url);
    if error.is_connect() { RemoteError::Unreached(told) } else { RemoteError::Transport(told) }
}

/// What went wrong on the way. Where the server is, is for the log.
fn met(error: &reqwest::Error, url: &Url) -> String {
    tracing::debug!("no connection to {}: {}", url.host_str().unwrap_or_default(), connection_error::cause(error));
    connection_error::in_words(error, url)
}

fn headers(session: Option<&str>, custom: HashMap<HeaderName, HeaderValue>) -> HeaderMap {
    let mut headers: HeaderMap = custom.into_iter().collect();
    headers.insert(header::ACCEPT, TAKEN);
    if let Some(session) = session.and_then(|session| HeaderValue::from_str(session).ok()) {
        headers.insert(SESSION, session);
    }
    headers
}

fn opens(message: &ClientJsonRpcMessage) -> bool {
    let ClientJsonRpcMessage::Notification(notification) = message else { return false };
    matches!(notification.notification, ClientNotification::InitializedNotification(_))
}

/// What came for a notification: any success will do. That its session is forgotten is told by the next request.
async fn acknowledged(reply: Response, in_session: bool) -> Result<StreamableHttpPostResponse, Failure> {
    let status = reply.status();
    let forgotten = in_session && matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::GONE);
    if status.is_success() || forgotten {
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    let (refusal, _) = Refusal::of(reply, None).await;
    Err(StreamableHttpError::Client(RemoteError::Status(refusal)))
}

fn content_type(reply: &Response) -> Content {
    let is_nothing = matches!(reply.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT) && reply.content_length() == Some(0);
    if is_nothing {
        return Content::None;
    }
    Content::of(reply.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes))
}

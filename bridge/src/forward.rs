//! The way to another pod: any replica takes a request and hands it on to the one that owns its session, and the activator hands calls on
//! to servers that woke.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use http_server::request_id;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mcp_wire::headers;
use tokio::time::{Instant, timeout, timeout_at};

use crate::stream::{event, is_events};

/// Says that a request was handed on once, and must not be again. In an answer it says that nothing was done: whoever handed the request on
/// is to answer it, because the one that it was for is about to end.
pub const FORWARDED: HeaderName = HeaderName::from_static("mcpfleet-forwarded");

/// A pod that is gone does not refuse a connection, it says nothing.
const CONNECT: Duration = Duration::from_secs(1);

/// Connections that are kept for the next request: for less time than a pod serves on that was told to end, and that says in each answer of
/// that time that it is the last of its connection. So none is used while the other end closes it.
const IDLE: Duration = Duration::from_secs(1);

/// Why a request did not come back answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// It never arrived.
    Unreachable,
    /// It may have arrived.
    Lost,
    /// It may have arrived, and the other end is silent: it hangs, or is cut off.
    Silent,
}

/// How long the other end is waited for. One that lives keeps to the limits of calls by itself.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the answer is there, or a stream of events begins.
    pub begins: Duration,
    /// Between two pieces of that stream.
    pub quiet: Duration,
    /// For all of it; None: it stands until somebody ends it.
    pub ends: Option<Duration>,
}

/// See the file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Forward(Client<HttpConnector, Full<Bytes>>);

impl Default for Forward {
    fn default() -> Self {
        Self(client())
    }
}

/// A client that keeps connections for a while.
pub fn client<B>() -> Client<HttpConnector, B>
where
    B: HttpBody<Data: Send> + Send,
{
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_headers(headers::MOST)
        // As clients read it who ask the server themselves (RFC 9112, 5.2).
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .build(connector)
}

impl Forward {
    /// The owner's answer: whole, or a stream of events as they come. `last`: the message that ends a stream that its owner did not end.
    pub async fn send(
        &self,
        pod: &str,
        parts: &Parts,
        body: Bytes,
        patience: Patience,
        last: Option<Bytes>,
    ) -> Result<Response, Failed> {
        let mut headers = end_to_end(&parts.headers);
        headers.insert(FORWARDED, HeaderValue::from_static("1"));
        // Its span there is a part of ours.
        let members = traces::members(&opentelemetry::Context::current()).into_iter();
        headers.extend(members.filter_map(|(name, value)| Some((HeaderName::from_static(name), value.try_into().ok()?))));
        let until = patience.ends.map(|ends| Instant::now() + ends);
        let answered = async {
            let response = self.pass(pod, parts, headers, body).await?;
            if is_events(&response) {
                return Ok(watched(response, patience.quiet, until, last));
            }
            let (head, body) = response.into_parts();
            let whole = to_bytes(body, usize::MAX).await.map_err(|_| Failed::Lost)?;
            Ok(Response::from_parts(head, Body::from(whole)))
        };
        timeout(patience.begins, answered).await.unwrap_or(Err(Failed::Silent))
    }

    /// The answer to a request with these headers and no others, as it comes. Where they name no `Host`, the pod is it.
    pub async fn pass(&self, pod: &str, parts: &Parts, headers: HeaderMap, body: Bytes) -> Result<Response, Failed> {
        let path = parts.uri.path_and_query().map_or("/mcp", http::uri::PathAndQuery::as_str);
        let uri: Uri = format!("http://{pod}{path}").parse().map_err(|_| Failed::Unreachable)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        match self.0.request(request).await {
            Ok(response) => {
                let mut response = response.map(Body::new);
                *response.headers_mut() = end_to_end(response.headers());
                Ok(response)
            }
            Err(error) if error.is_connect() => Err(Failed::Unreachable),
            Err(error) => {
                tracing::debug!(%error, pod, request_id = request_id::of(&parts.headers), "a request to a pod was lost");
                Err(Failed::Lost)
            }
        }
    }
}

/// A stream of events that does not outlast the one that it comes from: one that lives says so in it from time to time.
fn watched(response: Response, quiet: Duration, until: Option<Instant>, last: Option<Bytes>) -> Response {
    response.map(|body| {
        let pieces = stream::unfold(Some((body.into_data_stream(), last)), move |state| async move {
            let (mut pieces, last) = state?;
            let quiet = Instant::now() + quiet;
            match timeout_at(until.map_or(quiet, |until| until.min(quiet)), pieces.next()).await {
                Ok(Some(Ok(piece))) => Some((piece, Some((pieces, last)))),
                Ok(None) => None,
                // It may have stopped in the middle of an event.
                Ok(Some(Err(_))) | Err(_) => last.map(|last| ([&b"\n\n"[..], &event(&last)].concat().into(), None)),
            }
        });
        Body::from_stream(pieces.map(Ok::<Bytes, Infallible>))
    })
}

/// The answer of one that is about to end to what it was handed.
pub fn back() -> Response {
    let mut response = StatusCode::MISDIRECTED_REQUEST.into_response();
    response.headers_mut().insert(FORWARDED, HeaderValue::from_static("back"));
    response
}

/// Whether it is such an answer.
pub fn is_back(response: &Response) -> bool {
    response.status() == StatusCode::MISDIRECTED_REQUEST && response.headers().contains_key(FORWARDED)
}

/// Without what belongs to one connection.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const HOP: [HeaderName; 6] = [
        CONNECTION,
        HOST,
        TRANSFER_ENCODING,
        http::header::CONTENT_LENGTH,
        http::header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ];
    headers.iter().filter(|(name, _)| !HOP.contains(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a pod that says this, and then nothing any more.
    async fn sent(says: &str, begins: Duration) -> Result<Bytes, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pod = listener.local_addr().unwrap().to_string();
        let says = says.to_owned();
        let owner = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 1024]).await.unwrap();
            connection.write_all(says.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let (parts, ()) = Request::post("/mcp").body(()).unwrap().into_parts();
        let patience = Patience { begins, quiet: begins, ends: None };
        let response = Forward::default().send(&pod, &parts, Bytes::new(), patience, None).await;
        owner.abort();
        Ok(to_bytes(response?.into_body(), usize::MAX).await.unwrap())
    }

    #[tokio::test]
    async fn one_that_hangs_is_given_up_and_not_in_the_middle_of_an_answer() {
        let (brief, long) = (Duration::from_millis(200), Duration::from_mins(1));
        assert_eq!(sent("", brief).await, Err(Failed::Silent));
        assert_eq!(sent("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", brief).await, Err(Failed::Silent));
        assert_eq!(sent("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfull", long).await, Ok("full".into()));
    }

    #[tokio::test]
    async fn an_answer_of_many_headers_and_one_on_two_lines_is_handed_on() {
        let many: Vec<String> = (0..150).map(|number| format!("x-number-{number}: x\r\n")).collect();
        let many = many.concat();
        let says = format!("HTTP/1.1 200 OK\r\n{many}x-long: a\r\n  b\r\ncontent-length: 4\r\n\r\nfull");
        assert_eq!(sent(&says, Duration::from_mins(1)).await, Ok("full".into()));
    }

    /// What a client hears of a stream with this in it every two seconds, so often, and when that ends.
    async fn heard(times: usize, hangs: bool) -> (String, u64) {
        let beat = move |number| async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            (number < times).then_some((Ok::<_, io::Error>(":"), number + 1))
        };
        let pieces = stream::unfold(0, beat).chain(stream::once(std::future::pending()).take(usize::from(hangs)));
        let (began, quiet, until) = (Instant::now(), Duration::from_secs(3), Instant::now() + Duration::from_secs(11));
        let response = watched(Response::new(Body::from_stream(pieces)), quiet, Some(until), Some("lost".into()));
        let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (String::from_utf8(text.to_vec()).unwrap(), began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_goes_on_while_its_owner_lives_and_no_longer_than_a_call_may_take() {
        let last = "\n\nevent: message\ndata: lost\n\n";
        assert_eq!(heard(2, false).await, ("::".to_owned(), 6));
        // Two beats, a third that says that there is none, and the patience.
        assert_eq!(heard(2, true).await, (format!("::{last}"), 7));
        assert_eq!(heard(100, true).await, (format!(":::::{last}"), 11));
    }
}

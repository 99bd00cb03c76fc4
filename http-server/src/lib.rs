//! Serves requests on a listener until it is told to stop, then lets those that run finish. What answers them is the programs' own: a connection costs nobody else theirs here, whether it sends nothing, sends slowly, or only stands there.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod body;
mod flow;
pub mod forwarded;
pub mod guesses;
pub mod host;
pub mod json_rpc;
pub mod pace;
mod places;
pub mod request_id;
pub mod stop;
pub mod token;

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use http::HeaderValue;
use http::header::CONNECTION;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::flow::Flow;
use crate::host::HostPattern;
use crate::places::{Place, Places};

/// A connection that has not sent its first request in this time is closed, give or take a second.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may stand there after a request. Longer than what balancers and the pools of clients keep theirs for (60 s), so
/// that it is they who close it: a request that meets a closing connection fails for nothing.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The same of one that came while the server was ending already.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are still taken from the listener's queue at the very end: no queue is longer by default.
const MAX_QUEUE: usize = 4096;

/// How many bytes a request's head may have.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How connections are kept.
#[derive(Debug, Clone)]
pub struct Connections {
    /// At once, and at least one. When all places are taken, whoever has been without a request for longest leaves for the next.
    pub most: usize,
    /// How long one may be without a request after it had one.
    pub idle: Duration,
    /// Whether they are to change over to another server.
    pub leaving: Leaving,
}

impl Connections {
    /// So many at once, the rest as usual.
    pub fn most(most: usize) -> Self {
        Self { most, idle: IDLE_TIMEOUT, leaving: Leaving::default() }
    }
}

/// Whether clients are to change over, though this server serves on: each answer says that it is the last of its connection, and a connection
/// that has been without a request for a second is closed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// From now on, or not any more.
    pub fn set(&self, leaving: bool) {
        self.0.store(leaving, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a server serves on that was told to stop. Each answer says that it is the last of its connection, so that clients change over
/// between two requests: one whose connection is closed without a word may have sent the next already.
#[derive(Debug, Clone, Copy)]
pub struct LameDuck {
    /// In any case: for new connections of those who have not learnt of it.
    pub least: Duration,
    /// While somebody is connected.
    pub most: Duration,
}

impl LameDuck {
    /// For those who are connected: two requests of one client are seldom further apart.
    pub const USUAL: Self = Self { least: Duration::ZERO, most: Duration::from_secs(2) };
    /// Not at all.
    pub const NONE: Self = Self { least: Duration::ZERO, most: Duration::ZERO };

    /// It is part of the time that a server has to end.
    pub fn within(self, limit: Duration) -> Self {
        Self { least: self.least.min(limit), most: self.most.min(limit) }
    }
}

/// Listens. Where an address of all families is meant and the machine has only IPv4, it is that. An error names the address.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| std::io::Error::new(error.kind(), format!("failed to listen on {address}: {error}")))
}

/// Says in the log that a door is open to all, where it is: to everybody who reaches it, or to every web page, where every name is answered
/// to. `what` is what they can do, and how to change that.
pub fn warn_when_open(address: SocketAddr, is_closed: bool, hosts: &[HostPattern], what: &str) {
    for warning in open_to_all(address, is_closed, hosts, what) {
        tracing::warn!("{warning}");
    }
}

fn open_to_all(address: SocketAddr, is_closed: bool, hosts: &[HostPattern], what: &str) -> impl Iterator<Item = String> {
    let others = (!address.ip().to_canonical().is_loopback()).then(|| format!("everybody who reaches {address} {what}"));
    let any_name = hosts.contains(&HostPattern::Any);
    let pages = any_name
        .then(|| format!("every web page that is opened where {address} is reached {what}; or name the hosts instead of *"));
    others.into_iter().chain(pages).filter(move |_| !is_closed)
}

/// Serves until `shutdown`, with at most so many connections at once, and at least one. Requests find the other end's address in their
/// extensions, as axum's `ConnectInfo<SocketAddr>`.
pub async fn serve<S>(listener: TcpListener, service: S, max_connections: usize, shutdown: impl Future<Output = ()>) -> Draining
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let shutdown = async {
        shutdown.await;
        LameDuck::USUAL
    };
    serve_kept(listener, service, Connections::most(max_connections), shutdown).await
}

/// The same, with connections that are kept as `connections` says, and an end as `shutdown` says.
pub async fn serve_kept<S>(
    listener: TcpListener,
    service: S,
    connections: Connections,
    shutdown: impl Future<Output = LameDuck>,
) -> Draining
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let places = Places::new(connections.most);
    // Its own: who told clients to leave may take that back.
    let (open, closing) = (TaskTracker::new(), Leaving::default());
    let last = Last { closing: closing.clone(), leaving: connections.leaving.clone() };
    // In a flood of connections this comes to its turn only when the runtime makes `accept` pause, and must not pause with it.
    let mut over = pin!(tokio::task::unconstrained(async {
        let LameDuck { least, most } = shutdown.await;
        closing.set(true);
        // Whoever is connected now comes back on a new connection, for as long as it has not learnt of another server.
        tokio::select! {
            () = tokio::time::sleep(if open.is_empty() { least } else { most.max(least) }) => {}
            () = stop::asked_again() => {}
        }
    }));
    let mut looking = pin!(look_for_idle(&places, connections.idle, &connections.leaving));
    let mut accepted = None;
    loop {
        // The place comes second: nobody leaves for a connection that is not there.
        let next = async {
            if accepted.is_none() {
                accepted = Some(listener.accept().await);
            }
            places.take().await
        };
        tokio::select! {
            // Whoever has connected comes before the end.
            biased;
            place = next => match accepted.take() {
                Some(Ok((stream, peer))) => {
                    // How a connection ends is the client's affair.
                    open.spawn(connection(stream, service.clone(), peer, place, last.clone()));
                }
                // Out of file descriptors, or a connection gone before it was taken: the next may do better, but not at once.
                Some(Err(error)) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                None => {}
            },
            () = &mut looking => {}
            () = &mut over => break,
        }
    }
    for (stream, peer) in accepted.and_then(Result::ok).into_iter().chain(queued(listener)) {
        let (places, service, last) = (Arc::clone(&places), service.clone(), last.clone());
        open.spawn(async move { connection(stream, service, peer, places.take().await, last).await });
    }
    Draining(Box::pin(leave(Arc::clone(&places), open.clone())))
}

/// Whether an answer is the last of its connection.
#[derive(Clone)]
struct Last {
    /// This server ends.
    closing: Leaving,
    leaving: Leaving,
}

impl Last {
    fn is_due(&self) -> bool {
        self.closing.is_set() || self.leaving.is_set()
    }
}

async fn look_for_idle(places: &Places, idle: Duration, leaving: &Leaving) {
    const SECOND: Duration = Duration::from_secs(1);
    let mut second = tokio::time::interval(SECOND);
    loop {
        second.tick().await;
        places.ask_idle(HEAD_TIMEOUT, if leaving.is_set() { idle.min(SECOND) } else { idle });
    }
}

/// Takes what has connected and was not accepted yet: with the listener it would be reset. Asked of the system itself, because the runtime
/// learns of connections a little later.
fn queued(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accept = || match listener.accept() {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        accepted => Some(accepted),
    };
    let runs = |(stream, peer): (std::net::TcpStream, _)| {
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    };
    std::iter::from_fn(accept).take(MAX_QUEUE).filter_map(|accepted| runs(accepted.ok()?)).collect()
}

/// The connections that are left when the listener is gone. Those without a request are closed, the others after the one they have.
pub struct Draining(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Draining {
    /// Waits until all of them are closed, and says whether that took no longer than `limit`, nor than the patience of whoever asked twice
    /// (`stop`).
    pub async fn within(&mut self, limit: Duration) -> bool {
        tokio::select! {
            closed = self.closed(limit) => closed,
            () = stop::asked_again() => false,
        }
    }

    /// The same, however often it was asked: for what has been told to end, and takes no time.
    pub async fn closed(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, &mut self.0).await.is_ok()
    }
}

async fn leave(places: Arc<Places>, open: TaskTracker) {
    open.close();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let asking = async {
        loop {
            tick.tick().await;
            places.ask_idle(LAST_HEAD_TIMEOUT, Duration::ZERO);
        }
    };
    tokio::select! {
        () = open.wait() => {}
        () = asking => {}
    }
}

/// Answers what comes over a connection, until it ends or its place is needed.
async fn connection<S>(stream: TcpStream, service: S, peer: SocketAddr, place: Place, last: Last)
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    // Without it a small answer waits for the acknowledgement of the one before: 40 ms on an idle connection.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let (place, last) = (&place, &last);
    let mut service = service_fn(move |request: http::Request<Incoming>| {
        let busy = place.busy();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = service.clone().oneshot(request);
        async move {
            let mut response = answer.await?;
            if last.is_due() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // An answer that is there whole is being written from here on, and the place knows of that by itself.
            Ok::<_, Infallible>(if response.body().size_hint().exact().is_some() {
                response
            } else {
                response.map(|body| Body::new(body.map_frame(move |frame| (&busy, frame).1)))
            })
        }
    });
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
    let mut open = Some(stream);
    while let Some(stream) = open {
        let stream = TokioIo::new(Flow::new(stream, place.pace()));
        let Some(leaves) = place.hold(builder.serve_connection(stream, service)).await else { return };
        let Parts { io, read_buf, service: same, .. } = leaves.into_parts();
        // Neither half an answer nor half a request is begun anew.
        open = if read_buf.is_empty() && !place.is_stuck() { has_more(io.into_inner().into_inner()) } else { None };
        service = same;
    }
}

/// A connection that is to leave, where something has arrived on it that the runtime has not learnt of yet: a request would be lost with the
/// connection, and nobody would know whether it was made. Asked of the system itself.
fn has_more(stream: TcpStream) -> Option<TcpStream> {
    let stream = stream.into_std().ok()?;
    let has_more = stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
    has_more.then(|| TcpStream::from_std(stream).ok())?
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_door_is_open_to_all_without_a_token_where_others_reach_it() {
        let any = [HostPattern::Any];
        let opens = |address: &str, hosts: &[HostPattern]| {
            open_to_all(address.parse().unwrap(), false, hosts, "can call the tools").collect::<Vec<_>>()
        };
        assert!(
            opens("127.0.0.1:80", &any)[0]
                .starts_with("every web page that is opened where 127.0.0.1:80 is reached can call the tools")
        );
        assert_eq!((opens("[::]:80", &any).len(), opens("127.0.0.1:80", &[]).len()), (2, 0));
        let open = |address: &str, is_closed| open_to_all(address.parse().unwrap(), is_closed, &[], "can call the tools").next();
        assert_eq!(open("[::]:8080", false).as_deref(), Some("everybody who reaches [::]:8080 can call the tools"));
        assert!(open("0.0.0.0:8080", false).is_some() && open("10.0.0.7:8080", false).is_some());
        for address in ["127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(open(address, false), None, "{address}");
        }
        assert_eq!(open("[::]:8080", true), None);
    }

    /// The runtime of these tests learns of nothing while they do not wait.
    #[tokio::test]
    async fn a_request_that_arrives_while_its_connection_is_closed_keeps_it_open() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let connect = async || {
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().await.unwrap().0)
        };
        let ((mut asks, asked), (_silent, idle), (gone, left)) = (connect().await, connect().await, connect().await);
        assert!(asked.try_read(&mut [0]).is_err(), "nothing is there yet");
        asks.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        drop(gone);
        assert!(asked.try_read(&mut [0]).is_err(), "something is there, and the runtime does not know");
        assert!(has_more(asked).is_some());
        assert!(has_more(idle).is_none() && has_more(left).is_none());
    }
}

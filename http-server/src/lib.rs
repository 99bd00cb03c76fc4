//! Serves requests on a listener until it is told to stop, then lets those that run finish. What answers them is the programs' own: a connection costs nobody else theirs here, whether it sends nothing, sends slowly, or only stands there.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod body;
pub mod forwarded;
pub mod guesses;
pub mod host;
pub mod json_rpc;
mod places;
pub mod token;

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceExt as _};

use crate::places::{Place, Places};

/// A connection that has not sent its first request in this time is closed, give or take a second.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may stand there after a request. Longer than what balancers and the pools of clients keep theirs for (60 s), so
/// that it is they who close it: a request that meets a closing connection fails for nothing.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How many bytes a request's head may have.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How connections are kept.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// At once, and at least one. When all places are taken, whoever has been without a request for longest leaves for the next.
    pub most: usize,
    /// How long one may be without a request after it had one.
    pub idle: Duration,
}

/// Listens. Where an address of all families is meant and the machine has only IPv4, it is that.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Serves until `shutdown`, with at most so many connections at once, and at least one. Requests find the other end's address in their
/// extensions, as axum's `ConnectInfo<SocketAddr>`.
pub async fn serve<S>(listener: TcpListener, service: S, max_connections: usize, shutdown: impl Future<Output = ()>) -> Draining
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    serve_kept(listener, service, Connections { most: max_connections, idle: IDLE_TIMEOUT }, shutdown).await
}

/// The same, with connections that are kept as `connections` says.
pub async fn serve_kept<S>(
    listener: TcpListener,
    service: S,
    connections: Connections,
    shutdown: impl Future<Output = ()>,
) -> Draining
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let places = Places::new(connections.most);
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    let mut looking = pin!(look_for_idle(&places, connections.idle));
    loop {
        // The place comes second: nobody leaves for a connection that is not there.
        let next = async {
            let accepted = listener.accept().await;
            (accepted, places.take().await)
        };
        tokio::select! {
            (accepted, place) = next => match accepted {
                Ok((stream, peer)) => {
                    let place = Arc::new(place);
                    let connection = graceful.watch(connection(stream, service.clone(), peer, Arc::clone(&place)));
                    // How a connection ends is the client's affair.
                    tokio::spawn(async move { place.hold(connection).await });
                }
                // Out of file descriptors, or a connection gone before it was taken: the next may do better, but not at once.
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            // Never completes: `next` may be in the middle of its two steps.
            () = &mut looking => {}
            () = &mut shutdown => break,
        }
    }
    Draining(Box::pin(graceful.shutdown()))
}

async fn look_for_idle(places: &Places, idle: Duration) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        places.ask_idle(HEAD_TIMEOUT, idle);
    }
}

/// The connections that are left when the listener is gone. Those without a request are closed, the others after the one they have.
pub struct Draining(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Draining {
    /// Waits until all of them are closed, and says whether that took no longer than `limit`.
    pub async fn within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, &mut self.0).await.is_ok()
    }
}

fn connection<S>(
    stream: TcpStream,
    service: S,
    peer: SocketAddr,
    place: Arc<Place>,
) -> http1::Connection<TokioIo<TcpStream>, impl HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send> + use<S>>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    // Without it a small answer waits for the acknowledgement of the one before: 40 ms on an idle connection.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let service = service_fn(move |request: http::Request<Incoming>| {
        let busy = place.busy();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = service.clone().oneshot(request);
        async move {
            let response = answer.await?;
            // An answer that is there is written at once; whoever does not read it holds no place by that.
            Ok(if response.body().size_hint().exact().is_some() {
                response
            } else {
                response.map(|body| Body::new(body.map_frame(move |frame| (&busy, frame).1)))
            })
        }
    });
    http1::Builder::new().header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES).serve_connection(TokioIo::new(stream), service)
}

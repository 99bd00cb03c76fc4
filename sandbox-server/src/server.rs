//! Serves a router on a listener until it is told to stop, then lets running requests finish. Knows nothing of MCP or SQLite.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use crate::http::Caller;
use crate::places::{Place, Places};

/// A connection that sends no complete head in this time is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How many bytes a request's head may have.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Serves until `shutdown`, then for at most `drain`. Returns whether everything finished in time.
pub async fn run(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) -> bool {
    let places = Places::new(max_connections);
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // The place comes second: nobody leaves for a connection that is not there.
        let next = async {
            let accepted = listener.accept().await;
            (accepted, places.take().await)
        };
        tokio::select! {
            (accepted, place) = next => match accepted {
                Ok((stream, caller)) => {
                    let place = Arc::new(place);
                    let connection = graceful.watch(connection(stream, router.clone(), Caller(caller.ip()), Arc::clone(&place)));
                    // How a connection ends is the client's affair.
                    tokio::spawn(async move { place.hold(connection).await });
                }
                // Out of file descriptors, or a connection gone before it was taken: the next may do better, but not at once.
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    tokio::time::timeout(drain, graceful.shutdown()).await.is_ok()
}

fn connection(
    stream: TcpStream,
    router: Router,
    caller: Caller,
    place: Arc<Place>,
) -> http1::Connection<TokioIo<TcpStream>, impl HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send> + use<>> {
    // Without it a small answer waits for the acknowledgement of the one before: 40 ms on an idle connection.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = place.busy();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller);
        let answer = router.clone().oneshot(request);
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
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

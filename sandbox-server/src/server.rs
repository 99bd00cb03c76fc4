//! Serves a router on a listener until it is told to stop, then lets running requests finish. Knows nothing of MCP or SQLite.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::http::Caller;

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
    let slots = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        tokio::select! {
            (accepted, slot) = accepted => match accepted {
                Ok((stream, caller)) => {
                    let connection = graceful.watch(connection(stream, router.clone().layer(Extension(Caller(caller.ip())))));
                    tokio::spawn(async move {
                        // How a connection ends is the client's affair.
                        let _ = connection.await;
                        drop(slot);
                    });
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

fn connection(stream: TcpStream, router: Router) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    // Without it a small answer waits for the acknowledgement of the one before: 40 ms on an idle connection.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

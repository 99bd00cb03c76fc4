//! What a pod says to a GET: on a connection of its own, within bounds. I/O.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// The status and the body, of which `most` bytes are read. None: there is no answer, or it is longer. Whoever asks sets the time limit.
pub async fn get(address: SocketAddr, path: &str, host: &str, most: usize) -> Option<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new()).ok()?;
    // It drives what is asked on it, and ends with it.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let reply = sender.send_request(request).await.ok()?;
    let status = reply.status();
    Some((status, Limited::new(reply.into_body(), most).collect().await.ok()?.to_bytes()))
}

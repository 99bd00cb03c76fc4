//! The server as clients meet it: raw sockets against a small router.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use http_server::Draining;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Long enough for anything here that happens at all.
const SOON: Duration = Duration::from_secs(10);

struct Served {
    address: SocketAddr,
    /// Lets `/slow` answer.
    go: Arc<Notify>,
    /// `/slow` has the request.
    asked: Arc<Notify>,
    stop: Arc<Notify>,
    task: JoinHandle<Draining>,
}

async fn serve(max_connections: usize) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (go, asked, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (go, asked) = (Arc::clone(&go), Arc::clone(&asked));
        move || async move {
            asked.notify_one();
            go.notified().await;
            "slowly"
        }
    };
    let whoami = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
    let router = Router::new().route("/whoami", get(whoami)).route("/slow", get(slow));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move { http_server::serve(listener, router, max_connections, stopped.notified()).await });
    Served { address, go, asked, stop, task }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes()).await.unwrap();
}

/// What comes until there is `end` in it, or until the connection ends.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while end.is_empty() || !text.contains(end) {
        match tokio::time::timeout(SOON, stream.read(&mut buffer)).await.unwrap() {
            Ok(0) | Err(_) => break,
            Ok(length) => text += std::str::from_utf8(&buffer[..length]).unwrap(),
        }
    }
    text
}

#[tokio::test]
async fn a_request_knows_who_sent_it() {
    let served = serve(10).await;
    let mut stream = served.connect().await;
    ask(&mut stream, "/whoami").await;
    let own = stream.local_addr().unwrap().to_string();
    assert!(read_until(&mut stream, &own).await.contains(&own));
}

#[tokio::test]
async fn connections_that_only_stand_there_keep_nobody_out() {
    let served = serve(2).await;
    let mut longest = served.connect().await;
    ask(&mut longest, "/whoami").await;
    read_until(&mut longest, "127.0.0.1").await;
    let mut busy = served.connect().await;
    ask(&mut busy, "/slow").await;
    served.asked.notified().await;
    let mut third = served.connect().await;
    ask(&mut third, "/whoami").await;
    assert!(read_until(&mut third, "127.0.0.1").await.contains("200 OK"));
    assert_eq!(read_until(&mut longest, "").await, "", "it was closed");
    served.go.notify_one();
    assert!(read_until(&mut busy, "slowly").await.contains("slowly"), "it has a request, and kept its place");
}

#[tokio::test]
async fn a_running_request_is_answered_after_the_end_of_listening() {
    let served = serve(10).await;
    let mut idle = served.connect().await;
    ask(&mut idle, "/whoami").await;
    read_until(&mut idle, "127.0.0.1").await;
    let mut busy = served.connect().await;
    ask(&mut busy, "/slow").await;
    served.asked.notified().await;
    served.stop.notify_one();
    let mut left = served.task.await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    assert!(!left.within(Duration::from_millis(50)).await, "one has a request");
    assert_eq!(read_until(&mut idle, "").await, "");
    served.go.notify_one();
    assert!(left.within(SOON).await);
    assert!(read_until(&mut busy, "").await.ends_with("slowly"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_costs_its_sender_the_connection() {
    let served = serve(10).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET /whoami HTTP/1.1\r\n").await.unwrap();
    // Nothing else to do: the clock goes on by itself to the time at which it is over.
    let mut told = String::new();
    let ended = stream.read_to_string(&mut told).await;
    assert!(ended.is_err() || told.is_empty() || told.contains("408"), "{told}");
}

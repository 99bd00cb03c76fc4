//! The server as clients meet it: raw sockets against a small router.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use http_server::body;
use http_server::{Connections, Draining, LameDuck};
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

/// Of an answer that no pipe holds.
const LARGE: usize = 32 << 20;

/// What `/small` takes of a body.
const MOST: usize = 1 << 10;

async fn serve(max_connections: usize) -> Served {
    serve_on(max_connections, LameDuck::NONE).await
}

async fn serve_on(max_connections: usize, lame_duck: LameDuck) -> Served {
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
    let large = || async { vec![b'x'; LARGE] };
    let small =
        |body: Body| async { body::whole(body, MOST, SOON).await.map_or(StatusCode::PAYLOAD_TOO_LARGE, |_| StatusCode::OK) };
    let router = Router::new().route("/whoami", get(whoami)).route("/slow", get(slow)).route("/large", get(large));
    let router = router.route("/small", post(small));
    let stopped = Arc::clone(&stop);
    let shutdown = async move {
        stopped.notified().await;
        lame_duck
    };
    let connections = Connections::most(max_connections);
    let task = tokio::spawn(async move { http_server::serve_kept(listener, router, connections, shutdown).await });
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

/// A client that keeps its connection and asks as fast as it is answered, wherever the service leads now.
struct Caller {
    service: Arc<Mutex<SocketAddr>>,
    answered: Arc<AtomicUsize>,
}

impl Caller {
    /// Until `over`; how many calls were lost.
    async fn call(self, over: Arc<Notify>) -> usize {
        let mut over = std::pin::pin!(over.notified());
        let mut lost = 0;
        loop {
            let address = *self.service.lock().unwrap();
            let Ok(mut stream) = TcpStream::connect(address).await else {
                lost += 1;
                tokio::task::yield_now().await;
                continue;
            };
            loop {
                // As every pool does: a connection that was closed meanwhile is not asked.
                if stream.try_read(&mut [0; 1]).is_ok_and(|read| read == 0) {
                    break;
                }
                if stream.write_all(b"GET /whoami HTTP/1.1\r\nHost: here\r\n\r\n").await.is_err() {
                    lost += 1;
                    break;
                }
                let told = read_until(&mut stream, "127.0.0.1").await;
                if !told.contains("127.0.0.1") {
                    lost += 1;
                    break;
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
                if told.contains("connection: close") {
                    break;
                }
                tokio::select! {
                    biased;
                    () = &mut over => return lost,
                    () = tokio::task::yield_now() => {}
                }
            }
        }
    }
}

#[tokio::test]
async fn no_call_is_lost_when_a_server_ends_and_another_one_takes_over() {
    let lame_duck = LameDuck { least: Duration::ZERO, most: Duration::from_secs(1) };
    let (one, two) = (serve_on(100, lame_duck).await, serve_on(100, lame_duck).await);
    let (service, answered, over) = (Arc::new(Mutex::new(one.address)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let calling: Vec<_> = (0..32)
        .map(|_| Caller { service: Arc::clone(&service), answered: Arc::clone(&answered) }.call(Arc::clone(&over)))
        .map(tokio::spawn)
        .collect();
    let more = async |calls: usize| {
        let until = answered.load(Ordering::Relaxed) + calls;
        let enough = async {
            while answered.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await;
            }
        };
        let enough = tokio::time::timeout(SOON, enough).await;
        assert!(enough.is_ok(), "{} of {until}", answered.load(Ordering::Relaxed));
    };
    more(3200).await;
    one.stop.notify_one();
    // A service learns of it later than the server.
    more(320).await;
    *service.lock().unwrap() = two.address;
    assert!(one.task.await.unwrap().within(SOON).await);
    more(3200).await;
    over.notify_waiters();
    let lost = futures::future::join_all(calling).await;
    assert_eq!(lost.into_iter().map(Result::unwrap).sum::<usize>(), 0);
}

#[tokio::test]
async fn whoever_has_connected_before_the_end_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        ask(&mut stream, "/whoami").await;
        streams.push(stream);
    }
    let router = Router::new().route("/whoami", get(|| async { "here" }));
    let mut left = http_server::serve(listener, router, 2, async {}).await;
    let answers = async {
        for stream in &mut streams {
            assert!(read_until(stream, "").await.ends_with("here"));
        }
    };
    let (ended, ()) = tokio::join!(left.within(SOON), answers);
    assert!(ended);
}

#[tokio::test]
async fn an_answer_that_is_being_written_keeps_its_place() {
    let served = serve(2).await;
    let mut reader = served.connect().await;
    ask(&mut reader, "/large").await;
    let begun = read_until(&mut reader, "\r\n\r\n").await;
    let mut idle = served.connect().await;
    ask(&mut idle, "/whoami").await;
    read_until(&mut idle, "127.0.0.1").await;
    let mut third = served.connect().await;
    ask(&mut third, "/whoami").await;
    assert!(read_until(&mut third, "127.0.0.1").await.contains("200 OK"));
    assert_eq!(read_until(&mut idle, "").await, "", "it was closed, although it came later");
    // The end of the server cuts nothing off, either.
    served.stop.notify_one();
    let mut left = served.task.await.unwrap();
    let (rest, ended) = tokio::join!(read_until(&mut reader, ""), left.within(SOON));
    let head = begun.find("\r\n\r\n").unwrap() + 4;
    assert_eq!((begun.len() - head + rest.len(), ended), (LARGE, true));
}

/// Some send all of a body before they read anything: while they send, a connection that is closed is an error, and no answer.
#[tokio::test]
async fn who_reads_nothing_before_all_is_sent_hears_that_it_is_too_much() {
    let served = serve(10).await;
    let piece = vec![b'x'; 64 << 10];
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    let length = format!("Content-Length: {LARGE}");
    for (how, piece, end) in [(&*length, &piece[..], ""), ("Transfer-Encoding: chunked", &chunk, "0\r\n\r\n")] {
        let mut stream = served.connect().await;
        stream.write_all(format!("POST /small HTTP/1.1\r\nHost: here\r\n{how}\r\n\r\n").as_bytes()).await.unwrap();
        // More than all pipes hold.
        for _ in 0..LARGE >> 16 {
            stream.write_all(piece).await.unwrap();
        }
        stream.write_all(end.as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 413 "), "{how}");
        // And its connection is as good as before.
        ask(&mut stream, "/whoami").await;
        assert!(read_until(&mut stream, "127.0.0.1").await.contains("200 OK"), "{how}");
    }
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

//! Clients that break the rules of HTTP, or keep just within them. Whatever they send, they get an answer or the end of their connection
//! within a bound, and others are served meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Server;

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
const POST: &str =
    "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n";

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    stream
}

/// Everything that comes back until the server closes. A reset is an end like any other.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends, says that no more will come, and reads to the end.
fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    // The server may have had enough before the end.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    rest(stream)
}

/// A call of the era before 2026-07-28.
fn call(sql: &str) -> String {
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_query", "arguments": {"query": sql}}});
    let body = body.to_string();
    format!("{POST}mcp-protocol-version: 2025-11-25\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn wait_for_a_call(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let metrics = HEALTH.replace("/healthz", "/metrics");
    while !exchange(server, metrics.as_bytes()).contains("sandbox_tool_calls_in_flight 1") {
        assert!(Instant::now() < deadline, "the call does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_alive(server: &Server) {
    let mut stream = connect(server);
    stream.write_all(HEALTH.as_bytes()).unwrap();
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn broken_requests_are_refused_and_nobody_else_notices() {
    let server = Server::start("", &[]);
    let big = "a".repeat(200 << 10);
    for (what, request) in [
        ("half a head", "GET /healthz HT".to_owned()),
        ("half a body", format!("{POST}content-length: 1000\r\n\r\n{{")),
        ("no HTTP", "\u{16}\u{3}\u{1} hello\r\n\r\n".to_owned()),
        ("a head of 200 KiB", format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {big}\r\n\r\n")),
        ("a target of 200 KiB", format!("GET /{big} HTTP/1.1\r\nhost: localhost\r\n\r\n")),
        ("ten thousand headers", format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(10_000))),
        ("a chunk size that is no number", format!("{POST}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n")),
        ("a chunk size beyond 64 bits", format!("{POST}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{{}}\r\n")),
        ("a length that is no number", format!("{POST}content-length: -1\r\n\r\n{{}}")),
        ("two lengths", format!("{POST}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")),
        ("no host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
        ("two hosts", "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n".to_owned()),
        ("a promise of 1 TB", format!("{POST}content-length: 1000000000000\r\n\r\n{{")),
    ] {
        let answer = exchange(&server, request.as_bytes());
        assert!(!answer.contains("HTTP/1.1 2"), "{what}: {answer}");
        assert_alive(&server);
    }
    assert!(server.peak_memory_mib() < 64, "{} MiB", server.peak_memory_mib());
}

#[test]
fn a_body_that_says_that_it_is_too_large_is_not_waited_for() {
    let server = Server::start("", &[]);
    let mut stream = connect(&server);
    let started = Instant::now();
    stream.write_all(format!("{POST}content-length: 1000000000000\r\n\r\n{{").as_bytes()).unwrap();
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // A body that does not come is waited for twice as long.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn requests_that_come_together_are_answered_one_after_the_other() {
    let server = Server::start("", &[]);
    let mut stream = connect(&server);
    let kept = HEALTH.replace("connection: close\r\n", "");
    stream.write_all(format!("{}{HEALTH}", kept.repeat(49)).as_bytes()).unwrap();
    let answers = rest(stream);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 50, "{answers}");
}

#[test]
fn a_request_inside_a_chunked_body_is_not_taken_for_one() {
    let server = Server::start("", &[]);
    let hidden = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let request =
        format!("{POST}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    assert!(!exchange(&server, request.as_bytes()).contains("sandbox_tool_calls_in_flight"));
}

#[test]
fn who_sends_too_slowly_loses_the_connection_in_time() {
    let server = Server::start("", &[]);
    let started = Instant::now();
    let mut head = connect(&server);
    head.write_all(b"GET /healthz HTTP/1.1\r\nhost:").unwrap();
    let mut body = connect(&server);
    body.write_all(format!("{POST}content-length: 1000\r\n\r\n{{").as_bytes()).unwrap();
    assert_alive(&server);
    let answer = rest(body);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    rest(head);
    assert!(started.elapsed() < Duration::from_secs(35), "{:?}", started.elapsed());
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let server = Server::start("", &["--max-connections", "50", "--statement-timeout-ms", "60000"]);
    // A statement that runs meanwhile keeps its connection, though by now it is the oldest.
    let mut working = connect(&server);
    working
        .write_all(call("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n").as_bytes())
        .unwrap();
    wait_for_a_call(&server);
    let started = Instant::now();
    let idle: Vec<_> = (0..500).map(|_| connect(&server)).collect();
    let mut half_a_head = connect(&server);
    half_a_head.write_all(b"GET /healthz HTTP/1.1\r\nhost:").unwrap();
    for _ in 0..100 {
        assert_alive(&server);
    }
    // Without it they would wait for others to have stood there for 15 s.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    working.set_nonblocking(true).unwrap();
    let nothing = working.read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "the statement's connection was closed");
    drop(idle);
    assert!(server.peak_memory_mib() < 64, "{} MiB", server.peak_memory_mib());
}

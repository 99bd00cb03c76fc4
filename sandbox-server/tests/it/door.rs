//! Who gets in, and what is said to those who do not; the paths beside /mcp; how the process ends.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, run};

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// Sends bytes as they are, and returns what comes to the end of a head, or until the server closes.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let head = async {
        // A reset is an end like any other. The connection may stay open behind the head, which is fine.
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::time::timeout(Duration::from_secs(20), head).await.expect("an answer, or an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_services_names_are_let_in_and_foreign_names_are_not() {
    let server = Server::start("", &["--allowed-host", "mcp.example.com", "--allowed-origin", "https://app.example.com"]);
    let ask = |host: &str| server.modern("server/discover", json!({})).header("Host", host);
    for host in [
        "sqlite-mcp",
        "sqlite-mcp:8080",
        "sqlite-mcp.team.svc",
        "sqlite-mcp.team.svc.cluster.local:8080",
        "10.1.2.3:8080",
        "localhost",
        "[::1]:8080",
        "mcp.example.com",
    ] {
        assert_eq!(status(ask(host)).await, 200, "{host}");
    }
    for host in ["evil.com", "evil.com:8080", "sqlite-mcp.evil.com", "127.0.0.1.nip.io"] {
        assert_eq!(status(ask(host)).await, 403, "{host}");
    }
    let from = |origin: &str| server.modern("server/discover", json!({})).header("Origin", origin);
    for origin in ["http://localhost:6274", "https://app.example.com"] {
        assert_eq!(status(from(origin)).await, 200, "{origin}");
    }
    for origin in ["http://evil.com", "null", "http://localhost.evil.com", "https://app.example.com.evil.com"] {
        assert_eq!(status(from(origin)).await, 403, "{origin}");
    }
    let refusal = ask("evil.com").send().await.unwrap().text().await.unwrap();
    assert!(refusal.contains("Host header") && refusal.contains("--allowed-host"), "{refusal}");
}

#[tokio::test]
async fn whoever_guesses_tokens_is_not_listened_to_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the-only-token-there-is").unwrap();
    let server = Server::start("", &["--token-file", file.to_str().unwrap()]);
    let ask = async |token: Option<&str>| {
        let request = server.modern("server/discover", json!({}));
        token.iter().fold(request, reqwest::RequestBuilder::bearer_auth).send().await.unwrap()
    };
    assert_eq!(ask(Some("the-only-token-there-is")).await.status(), 200);
    for _ in 0..10 {
        assert_eq!(ask(Some("a-guess-of-some-length")).await.status(), 401);
        assert_eq!(ask(None).await.status(), 401, "no token is no guess");
    }
    let refused = ask(Some("the-only-token-there-is")).await;
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
}

#[tokio::test]
async fn a_token_opens_mcp_and_is_not_asked_for_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the-first-token-of-two\nthe-second-token-of-two\n").unwrap();
    let server = Server::start("", &["--token-file", file.to_str().unwrap()]);
    let ask = |token: &str| server.modern("server/discover", json!({})).bearer_auth(token);
    let refused = server.modern("server/discover", json!({})).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    assert_eq!(status(ask("wrong")).await, 401);
    assert_eq!(status(ask("the-first-token-of-two")).await, 200);
    assert_eq!(status(ask("the-second-token-of-two")).await, 200);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    std::fs::write(&file, "a-third-token-after-the-rotation").unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    while status(ask("a-third-token-after-the-rotation")).await != 200 {
        assert!(Instant::now() < deadline, "the new token is not taken over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Replicas see a change at different times: the tokens of before are taken for a while, or until the next change.
    assert_eq!(status(ask("the-first-token-of-two")).await, 200);
    std::fs::write(&file, "a-fourth-token-soon-after-it").unwrap();
    while status(ask("a-fourth-token-soon-after-it")).await != 200 {
        assert!(Instant::now() < deadline, "the last token is not taken over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status(ask("the-first-token-of-two")).await, 401);
    assert!(!server.log.lock().unwrap().concat().contains("token-"), "a token in the log");
}

#[tokio::test]
async fn every_answer_says_by_which_id_its_request_is_known() {
    let server = Server::start("", &[]);
    let said = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        let id = response.headers().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
        (response.status().as_u16(), id.unwrap_or_default())
    };
    let discover = || server.modern("server/discover", json!({}));
    assert_eq!(said(discover().header("x-request-id", "abc-1.2_3")).await, (200, "abc-1.2_3".to_owned()));
    for request in [
        discover(),
        discover().header("x-request-id", "a b"),
        discover().header("Host", "evil.com"),
        server.request(Method::GET, "/healthz"),
        server.request(Method::GET, "/nowhere"),
    ] {
        let (status, id) = said(request).await;
        assert!(id.starts_with("req_"), "{status}: {id}");
    }
}

#[tokio::test]
async fn several_messages_at_once_are_answered_in_one_array() {
    let server = Server::start("CREATE TABLE t(a);", &[]);
    let post = |body: &Value| {
        let request = server.request(Method::POST, "/mcp").header("Accept", "application/json, text/event-stream");
        request.header("Content-Type", "application/json").body(body.to_string()).send()
    };
    let call = |id: &str| {
        let params = json!({"name": "read_query", "arguments": {"query": "SELECT 42"}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let answers: Value = post(&json!([call("a"), note, {}, call("b")])).await.unwrap().json().await.unwrap();
    let ids: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!("a"), &Value::Null, &json!("b")], "{answers}");
    assert!(answers[2]["result"]["content"][0]["text"].as_str().unwrap().contains("42"), "{answers}");
    assert_eq!(post(&json!([note])).await.unwrap().status(), 202);
}

#[tokio::test]
async fn requests_that_are_no_requests_are_refused_and_the_server_lives() {
    let server = Server::start("", &["--max-request-bytes", "10000"]);
    let post = || {
        server
            .request(Method::POST, "/mcp")
            .header("Accept", "application/json, text/event-stream")
            .header("Content-Type", "application/json")
    };
    for body in [
        "",
        "{",
        "[]",
        "null",
        "42",
        "\"x\"",
        "{}",
        "{\"jsonrpc\":\"1.0\"}",
        "\u{feff}{}",
        "[[[[[[[[",
        "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":5}",
    ] {
        let code = status(post().body(body)).await;
        assert!((400..500).contains(&code), "{code} to {body}");
    }
    for (body, code) in [("", -32700), ("{", -32700), ("\u{feff}{}", -32700), ("{}", -32600), ("[]", -32600), ("42", -32600)] {
        let response = post().body(body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(code)), "{body}: {answer}");
    }
    assert_eq!(status(post().body("x".repeat(10_001))).await, 413);
    let deep =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
    assert!((400..500).contains(&status(post().body(deep)).await));
    assert_eq!(status(server.request(Method::POST, "/mcp").header("Accept", "text/html").body("{}")).await, 406);
    assert_eq!(
        status(server.request(Method::POST, "/mcp").header("Accept", "application/json, text/event-stream").body("{}")).await,
        415
    );
    assert_eq!(status(server.request(Method::GET, "/mcp")).await, 405);
    assert_eq!(status(server.request(Method::PUT, "/mcp")).await, 405);
    assert_eq!(status(server.request(Method::GET, "/")).await, 404);
    assert_eq!(status(server.request(Method::GET, "/mcp/../etc/passwd")).await, 404);
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET http://evil.com/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let answer = raw(&server, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer:?}");
    }
    let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1_000_000));
    assert!(!raw(&server, long.as_bytes()).await.contains("200 OK"));
    assert_eq!(server.get("/readyz").await, (200, "ok\n".into()));
}

#[tokio::test]
async fn connections_that_send_nothing_hold_nobody_up() {
    let server = Server::start("", &[]);
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n").await.unwrap();
        idle.push(stream);
    }
    let started = Instant::now();
    assert_eq!(server.rows("SELECT 1").await, json!([[1]]));
    // Without a word they would be waited for twice as long.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn calls_are_counted_by_tool_and_outcome() {
    let server = Server::start("CREATE TABLE t (a)", &[]);
    server.ok("read_query", json!({"query": "SELECT 1 UNION SELECT 2"})).await;
    server.error("read_query", json!({"query": "SELECT x FROM t"})).await;
    server.error("write_query", json!({"query": "DROP TABLE t"})).await;
    server.ok("write_query", json!({"query": "INSERT INTO t VALUES (1)"})).await;
    let (_, text) = server.get("/metrics").await;
    for line in [
        "sandbox_tool_calls_total{outcome=\"ok\",tool=\"read_query\"} 1",
        "sandbox_tool_calls_total{outcome=\"sql_error\",tool=\"read_query\"} 1",
        "sandbox_tool_calls_total{outcome=\"denied\",tool=\"write_query\"} 1",
        "sandbox_tool_call_seconds_count{tool=\"write_query\"} 2",
        "sandbox_result_rows_total 2",
        "sandbox_write_statements 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn on_sigterm_running_calls_finish_and_new_ones_are_not_taken() {
    let mut server = Server::start("", &["--statement-timeout-ms", "3000"]);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let running = server.modern("tools/call", json!({"name": "read_query", "arguments": {"query": endless}})).send();
    let running = tokio::spawn(running);
    server.calls_in_flight(1..).await;
    server.terminate();
    let answer: Value = running.await.unwrap().unwrap().json().await.unwrap();
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("3000 ms"), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.folder.path().join("test.db-wal").exists(), "the log is folded in");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[test]
fn the_exit_code_and_one_line_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "this is a letter, and no database").unwrap();
    let text = text.to_str().unwrap();
    let db = folder.path().join("x.db");
    let db = db.to_str().unwrap();
    let new = folder.path().join("new.db");
    let new = new.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (args, code, words) in [
        (vec!["serve", "--db", "/no/such/folder/x.db"], 3, "does not exist"),
        (vec!["serve", "--db", text], 3, "is not a SQLite database"),
        (vec!["serve", "--db", db, "--listen", &address], 4, "failed to listen"),
        (vec!["serve", "--db", db, "--token-file", "/no/such/file"], 5, "token file"),
        (vec!["serve", "--db", db, "--listen", "nonsense"], 2, "--listen"),
        (vec!["serve", "--db", db, "--allowed-host", "http://x"], 2, "without scheme"),
        (vec!["serve", "--db", db, "--max-rows", "0"], 2, "--max-rows"),
        (vec!["serve"], 2, "--db"),
        (vec!["backup", "--db", text, "--to", db], 3, "is not a SQLite database"),
        (vec!["restore", "--db", new, "--from", "/no/such/file"], 1, "failed to open"),
    ] {
        let (found, log) = run(&args);
        assert_eq!(found, code, "{args:?}: {log}");
        assert!(log.contains(words), "{args:?}: {log}");
    }
}

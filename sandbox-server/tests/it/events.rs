//! What the server says of its own accord: progress, changes, and the lines of the audit log.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Server;

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// The messages of an event stream as they come.
struct Stream(reqwest::Response, String);

impl Stream {
    async fn open(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response, String::new())
    }

    /// The next message, or None at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.1.find("\n\n") {
                let event: String = self.1.drain(..end + 2).collect();
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                match serde_json::from_str(&data) {
                    Ok(message) => return Some(message),
                    // Keep-alives and priming events carry no message.
                    Err(_) => continue,
                }
            }
            let chunk =
                tokio::time::timeout(Duration::from_secs(10), self.0.chunk()).await.expect("a message within 10 s").unwrap()?;
            self.1.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test]
async fn a_long_statement_tells_how_far_in_its_time_it_is() {
    let server = Server::start("", &["--statement-timeout-ms", "2500"]);
    let call = json!({"name": "read_query", "arguments": {"query": ENDLESS}, "_meta": {"progressToken": "p"}});
    let mut stream = Stream::open(server.modern("tools/call", call)).await;
    let mut last = 0.0;
    for _ in 0..2 {
        let message = stream.next().await.unwrap();
        assert_eq!(
            (&message["method"], &message["params"]["progressToken"], &message["params"]["total"]),
            (&json!("notifications/progress"), &json!("p"), &json!(2.5))
        );
        assert!(message["params"]["progress"].as_f64().unwrap() > last);
        last = message["params"]["progress"].as_f64().unwrap();
    }
    let answer = stream.next().await.unwrap();
    assert_eq!(answer["result"]["isError"], json!(true));
}

#[tokio::test]
async fn a_modern_subscription_hears_of_changes_and_ends_with_the_server() {
    let mut server = Server::start("", &[]);
    let filter = json!({"notifications": {"resourcesListChanged": true, "toolsListChanged": true, "resourceSubscriptions": ["memo://insights", "schema://tables", "file:///etc/passwd"]}});
    let mut stream = Stream::open(server.modern("subscriptions/listen", filter)).await;
    let acknowledged = stream.next().await.unwrap();
    assert_eq!(
        acknowledged["params"]["notifications"],
        json!({"resourcesListChanged": true, "resourceSubscriptions": ["memo://insights", "schema://tables"]})
    );
    server.ok("append_insight", json!({"insight": "x"})).await;
    assert_eq!(stream.next().await.unwrap()["params"]["uri"], "memo://insights");
    server.ok("create_table", json!({"query": "CREATE TABLE t (a)"})).await;
    assert_eq!(stream.next().await.unwrap()["method"], "notifications/resources/list_changed");
    assert_eq!(stream.next().await.unwrap()["params"]["uri"], "schema://tables");
    server.error("create_table", json!({"query": "CREATE TABLE t (a)"})).await;
    server.ok("write_query", json!({"query": "INSERT INTO t VALUES (1)"})).await;
    server.terminate();
    // Nothing more was announced: the next message is the end.
    assert!(stream.next().await.unwrap().get("result").is_some());
    assert!(server.wait().success());
}

#[tokio::test]
async fn an_earlier_era_is_offered_subscriptions_only_where_it_has_a_session() {
    let initialize = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let server = Server::start("", &[]);
    let answer: Value = server.legacy("2025-11-25", "initialize", &initialize).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["result"]["capabilities"]["resources"], json!({}));

    let server = Server::start("", &["--legacy-sessions"]);
    let response = server.legacy("2025-11-25", "initialize", &initialize).send().await.unwrap();
    let session = response.headers()["mcp-session-id"].clone();
    let mut stream = Stream(response, String::new());
    assert_eq!(
        stream.next().await.unwrap()["result"]["capabilities"]["resources"],
        json!({"subscribe": true, "listChanged": true})
    );
    let in_session =
        |method: &str, params: &Value| server.legacy("2025-11-25", method, params).header("mcp-session-id", &session);
    let initialized = server
        .request(reqwest::Method::POST, "/mcp")
        .header("Accept", "application/json, text/event-stream")
        .header("mcp-session-id", &session);
    initialized.json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().await.unwrap();
    let mut subscribed = Stream::open(in_session("resources/subscribe", &json!({"uri": "memo://insights"}))).await;
    assert_eq!(subscribed.next().await.unwrap()["result"], json!({}));
    let listening =
        server.request(reqwest::Method::GET, "/mcp").header("Accept", "text/event-stream").header("mcp-session-id", &session);
    let mut listening = Stream::open(listening).await;
    // From another client, of another era.
    server.ok("append_insight", json!({"insight": "x"})).await;
    assert_eq!(listening.next().await.unwrap()["params"]["uri"], "memo://insights");
    let sessions = async || server.get("/metrics").await.1.lines().any(|line| line == "sandbox_sessions 1");
    assert!(sessions().await, "whoever scales is told");
    let ended = server.request(reqwest::Method::DELETE, "/mcp").header("mcp-session-id", &session).send().await.unwrap();
    assert!(ended.status().is_success());
    assert_eq!(in_session("tools/list", &json!({})).send().await.unwrap().status(), 404);
    assert!(!sessions().await);
}

#[tokio::test]
async fn the_audit_log_shows_statements_and_their_cost_but_no_values() {
    let server = Server::start("CREATE TABLE person (name)", &["--audit"]);
    let call = json!({
        "name": "write_query",
        "arguments": {"query": "INSERT INTO person VALUES ('hidden-literal'), (?)", "params": ["hidden-value"]},
        "_meta": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    });
    server.modern("tools/call", call).header("x-request-id", "req-7").send().await.unwrap();
    let wrong = json!({"name": "read_query", "arguments": {"query": "SELECT 'hidden-literal' FROM nowhere"}});
    let told = server.modern("tools/call", wrong).send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned();
    let audited = || -> Vec<Value> {
        let log = server.log.lock().unwrap();
        log.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(|line: &Value| line["target"] == "audit").collect()
    };
    // The lines come through a pipe of their own, later than the answers.
    let deadline = Instant::now() + Duration::from_secs(10);
    while audited().len() < 2 {
        assert!(Instant::now() < deadline, "{:?}", audited());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lines = audited();
    let of = |index: usize, key: &str| lines[index][key].clone();
    assert_eq!(of(0, "sql"), "INSERT INTO person VALUES (?), (?)");
    assert_eq!(
        (of(0, "outcome"), of(0, "request_id"), of(0, "trace_id")),
        (json!("ok"), json!("req-7"), json!("0af7651916cd43dd8448eb211c80319c"))
    );
    assert!(of(0, "micros").as_u64().unwrap() > 0);
    assert_eq!((of(1, "sql"), of(1, "outcome")), (json!("SELECT ? FROM nowhere"), json!("sql_error")));
    assert_eq!(of(1, "request_id"), told);
    assert!(!server.log.lock().unwrap().concat().contains("hidden"));
}

#[tokio::test]
async fn who_asks_too_fast_is_told_to_wait() {
    let server = Server::start("", &["--rate-limit", "5"]);
    let mut codes = Vec::new();
    for _ in 0..20 {
        let response = server.modern("server/discover", json!({})).send().await.unwrap();
        if response.status() == 429 {
            assert_eq!(response.headers()["retry-after"], "1");
        }
        codes.push(response.status().as_u16());
    }
    let passed = codes.iter().filter(|code| **code == 200).count();
    assert!((5..10).contains(&passed), "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 429).count(), 20 - passed);
    assert_eq!(server.get("/healthz").await.0, 200);
}

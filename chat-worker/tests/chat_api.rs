//! The HTTP API at its edges: every error is a problem, every answer carries its headers, other sites stay outside, and a
//! replica that is being stopped says so.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use support::Worker;

const PLAIN: &str = "otherwise: {text: 'An answer.'}";
const SLOW: &str = "otherwise: {text: 'one two three four five six seven eight nine ten', chunk_delay_ms: 200}";

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn every_error_is_a_problem_that_says_what_to_change() {
    let worker = Worker::start(PLAIN, &[], &["--max-message-chars", "10"]).await;
    let large = format!("{{\"message\": \"{}\"}}", "x".repeat(17 * 1024 * 1024));
    let form = "application/x-www-form-urlencoded";
    for (method, path, kind, body, status) in [
        (Method::GET, "/nowhere", "", "", 404),
        (Method::GET, "/assets/../Cargo.toml", "", "", 404),
        (Method::GET, "/assets/none.js", "", "", 404),
        (Method::GET, "/v1/chat", "", "", 405),
        (Method::DELETE, "/health", "", "", 405),
        (Method::POST, "/v1/chat", "text/plain", "hi", 415),
        (Method::POST, "/v1/chat", form, "message=hi", 415),
        (Method::POST, "/v1/chat", "application/json", "{", 400),
        (Method::POST, "/v1/chat", "application/json", "{\"massage\": \"hi\"}", 422),
        (Method::POST, "/v1/chat", "application/json", "{}", 422),
        (Method::POST, "/v1/chat", "application/json", "[\"hi\", [], [], [], false, false]", 422),
        (Method::POST, "/v1/chat", "application/json", "{\"message\": \"eleven chars\"}", 422),
        (Method::POST, "/v1/chat", "application/json", "{\"message\": \"a\\u0000b\"}", 422),
        (Method::POST, "/v1/chat", "application/json", large.as_str(), 413),
        (Method::POST, "/signin", "application/json", "{}", 415),
        (Method::POST, "/signin", form, "nothing=here", 422),
        (Method::POST, "/mcp", "text/plain", "hi", 415),
        (Method::DELETE, "/mcp", "", "", 405),
    ] {
        let request = worker.http.request(method.clone(), format!("{}{path}", worker.url)).header("content-type", kind);
        let response =
            request.header("accept", "application/json, text/event-stream").body(body.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(header(&response, "content-type"), "application/problem+json", "{method} {path}");
        assert!(status != 405 || !header(&response, "allow").is_empty(), "{method} {path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 5), "{problem}");
    }
}

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    for path in ["/", "/assets/app.js", "/v1/servers", "/v1/tools", "/health", "/metrics", "/openapi.json", "/nowhere", "/mcp"] {
        let response = worker.http.get(format!("{}{path}", worker.url)).send().await.unwrap();
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(header(&response, name), value, "{path}");
        }
        let policy = header(&response, "content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(header(&response, "permissions-policy").contains("camera=()"), "{path}");
        let page = ["/", "/assets/app.js"].contains(&path);
        assert_eq!(header(&response, "cache-control"), if page { "no-cache" } else { "no-store" }, "{path}");
        assert!(!header(&response, "x-request-id").is_empty(), "{path}");
        assert!(response.headers().get("access-control-allow-origin").is_none(), "{path}");
    }
    let stream =
        worker.http.get(format!("{}/v1/servers", worker.url)).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(header(&stream, "cache-control"), "no-store");

    let script = worker.http.get(format!("{}/assets/app.js", worker.url)).send().await.unwrap();
    let again = worker.http.get(format!("{}/assets/app.js", worker.url)).header("if-none-match", header(&script, "etag"));
    assert_eq!(again.send().await.unwrap().status(), 304);
}

#[tokio::test]
async fn head_and_options_are_answered_and_let_no_other_site_in() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    let ask = |method: Method, path: &str| worker.http.request(method, format!("{}{path}", worker.url)).send();
    for path in ["/", "/health", "/v1/servers", "/assets/app.js", "/openapi.json"] {
        let response = ask(Method::HEAD, path).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    for (path, allowed) in [
        ("/v1/chat", "POST,OPTIONS"),
        ("/v1/tools", "GET,HEAD,OPTIONS"),
        ("/healthz", "GET,HEAD,OPTIONS"),
        ("/mcp", "GET,POST,DELETE,OPTIONS"),
    ] {
        let response = ask(Method::OPTIONS, path).await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "allow")), (204, allowed), "{path}");
    }
    let preflight = worker.http.request(Method::OPTIONS, format!("{}/mcp", worker.url));
    let preflight = preflight.header("origin", "https://evil.example").header("access-control-request-method", "POST");
    let preflight = preflight.send().await.unwrap();
    assert_eq!(preflight.status(), 403);
    assert!(preflight.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
    for path in ["/v1/servers", "/v1/tools", "/mcp", "/"] {
        let foreign =
            worker.http.get(format!("{}{path}", worker.url)).header("origin", "https://evil.example").send().await.unwrap();
        assert_eq!(foreign.status(), 403, "{path}");
    }
}

#[tokio::test]
async fn the_caller_behind_a_trusted_proxy_is_counted_and_nobody_else_is_believed() {
    let one = ["--rate-limit-requests", "1"];
    let ask = |worker: &Worker, from: &str| {
        let request = worker.http.post(format!("{}/v1/chat", worker.url)).header("x-forwarded-for", from);
        request.json(&json!({"message": "hi", "stream": false})).send()
    };
    let proxied = Worker::start(PLAIN, &[], &[&one[..], &["--trusted-proxies", "127.0.0.0/8"]].concat()).await;
    for (from, status) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429), ("192.0.2.9, 192.0.2.2", 429)] {
        let response = ask(&proxied, from).await.unwrap();
        assert_eq!(response.status(), status, "{from}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
    let direct = Worker::start(PLAIN, &[], &one).await;
    assert_eq!(ask(&direct, "192.0.2.1").await.unwrap().status(), 200);
    assert_eq!(ask(&direct, "192.0.2.2").await.unwrap().status(), 429);
}

#[tokio::test]
async fn a_replica_that_is_stopped_tells_everybody_and_lets_answers_end() {
    let worker = Worker::start(SLOW, &[], &["--drain-seconds", "20"]).await;
    let at = |path: &str| format!("{}{path}", worker.url);
    let mut live = worker.http.get(at("/v1/servers")).header("accept", "text/event-stream").send().await.unwrap();
    let mut running = worker.http.post(at("/v1/chat")).json(&json!({"message": "hi"})).send().await.unwrap();
    let mut said = String::from_utf8_lossy(&running.chunk().await.unwrap().unwrap()).into_owned();
    worker.stop.cancel();
    let mut told = String::new();
    while let Some(chunk) = tokio::time::timeout(Duration::from_secs(5), live.chunk()).await.unwrap().unwrap() {
        told.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(told.trim_end().ends_with(r#"data: {"seconds":20,"type":"draining"}"#), "{told}");
    // Whoever has not learnt of it yet is served, and told to connect anew for the next request.
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for (method, path) in
        [(Method::POST, "/v1/chat"), (Method::GET, "/v1/servers"), (Method::GET, "/v1/usage"), (Method::POST, "/mcp")]
    {
        let body = if path == "/mcp" { ping.clone() } else { json!({"message": "hi"}) };
        let response = worker.http.request(method, at(path)).json(&body).send().await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "connection")), (200, "close"), "{path}");
    }
    assert_eq!(worker.http.get(at("/readyz")).send().await.unwrap().status(), 503);
    assert_eq!(worker.http.get(at("/healthz")).send().await.unwrap().status(), 200);
    while let Some(chunk) = running.chunk().await.unwrap() {
        said.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(
        said.contains("event: draining") && said.contains("event: done") && said.contains("\"outcome\":\"complete\""),
        "{said}"
    );
    tokio::time::timeout(Duration::from_secs(10), worker.server).await.unwrap().unwrap().unwrap();
}

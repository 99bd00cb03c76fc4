//! The page, the doors around it, and the key that changes under load.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::Worker;

const PLAIN: &str = "otherwise: {text: 'An answer.'}";

#[tokio::test]
async fn the_page_and_the_api_need_the_token_and_the_probes_do_not() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "s3cret-of-length\n").unwrap();
    let worker = Worker::start(PLAIN, &[], &["--access-token-file", token.path().to_str().unwrap()]).await;
    let at = |path: &str| format!("{}{path}", worker.url);
    let get = |path: &str| worker.http.get(at(path)).send();
    for open in ["/health", "/healthz", "/readyz", "/metrics", "/assets/app.js", "/openapi.json"] {
        assert_eq!(get(open).await.unwrap().status(), 200, "{open}");
    }
    for closed in ["/", "/v1/servers", "/v1/tools", "/v1/usage"] {
        assert_eq!(get(closed).await.unwrap().status(), 401, "{closed}");
        assert_eq!(worker.http.get(at(closed)).bearer_auth("s3cret-of-length").send().await.unwrap().status(), 200, "{closed}");
    }
    assert_eq!(worker.ask(json!({"message": "hi"})).await.0, 401);

    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let sign_in = |body: &'static str| {
        let form = "application/x-www-form-urlencoded";
        browser.post(at("/signin")).header("content-type", form).body(body).send()
    };
    assert_eq!(sign_in("token=guess").await.unwrap().status(), 403);
    let signed_in = sign_in("token=s3cret-of-length").await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("s3cret-of-length"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let page = browser.get(at("/")).header("cookie", session).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let foreign = browser.post(at("/v1/chat")).header("cookie", session).header("origin", "https://evil.example");
    assert_eq!(foreign.json(&json!({"message": "hi"})).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_plain_request_id_is_taken_over_and_an_odd_one_replaced() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    for (given, kept) in [("abc-1.2_3", true), ("a b", false), (&"x".repeat(65), false)] {
        let response = worker.http.get(format!("{}/nowhere", worker.url)).header("x-request-id", given).send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"].to_str().unwrap() == given, kept, "{given}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.status(), 404);
    }
}

#[tokio::test]
async fn what_a_stream_says_is_what_the_object_says() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    let response = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": "hi"})).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let events: Vec<Value> =
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(|data| serde_json::from_str(data).unwrap()).collect();
    let said: String = events.iter().filter(|event| event["type"] == "text").filter_map(|event| event["text"].as_str()).collect();
    assert_eq!(said, "An answer.");
    assert_eq!(events[0]["type"], "start");
    let done = events.last().unwrap();
    assert_eq!((done["type"].as_str(), done["outcome"].as_str()), (Some("done"), Some("complete")));
    assert!(done["cost"].is_null(), "the stand-in has no price");
}

#[tokio::test]
async fn the_page_is_told_when_a_server_changes() {
    let fake = support::Fake::start(support::Mood::Modern).await;
    let worker = Worker::start(PLAIN, &[fake.entry("a")], &[]).await;
    let request = worker.http.get(format!("{}/v1/servers", worker.url)).header("accept", "text/event-stream");
    let mut stream = request.send().await.unwrap();
    fake.set(support::Mood::Broken);
    let mut seen = String::new();
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while !(seen.contains("\"state\":\"up\"") && seen.contains("\"state\":\"down\"")) {
            seen.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
    });
    told.await.unwrap();
}

#[tokio::test]
async fn the_openapi_document_names_every_path() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    let document = worker.get("/openapi.json").await;
    let api = ["/v1/chat", "/v1/servers", "/v1/tools", "/v1/usage", "/mcp", "/health", "/healthz", "/readyz", "/metrics"];
    let page = ["/", "/assets/{name}", "/signin", "/signout", "/openapi.json"];
    for path in api.into_iter().chain(page) {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

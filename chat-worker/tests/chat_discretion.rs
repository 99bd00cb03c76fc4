//! Where servers and the model are, and which keys they are asked with, is for the log at the most: no answer to a caller, and nothing
//! that a model is told, says it. Keys are not even in the log.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use axum::{Router, http::StatusCode, response::IntoResponse, routing::post};
use model_standin::Running as Model;
use serde_json::{Value, json};
use support::binary::Binary;
use tokio::net::TcpListener;

const SCRIPT: &str = "otherwise: {text: Hello.}";

const KEYS: [&str; 5] =
    ["pa55word", "query-key-0123456789abcdef", "header-key-0123456789", "sk-ant-model-key-0123", "model-pa55word"];
const PLACES: [&str; 3] = ["servers.inside", "elsewhere.inside", "model.inside"];

/// Sends everybody elsewhere, or to nothing.
async fn stub(status: StatusCode) -> u16 {
    let answer = move || async move { (status, [("location", "http://elsewhere.inside.invalid/mcp")], "").into_response() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/mcp", post(answer))).await.unwrap() });
    port
}

async fn servers() -> Vec<Value> {
    // Nobody listens where somebody did.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let entry = |name: &str, url: String| {
        json!({"name": name, "url": url, "timeout": 2, "max_retries": 0, "health_check_interval": 0.3,
               "headers": {"Authorization": "Bearer header-key-0123456789"}})
    };
    let query = "key=query-key-0123456789abcdef";
    vec![
        entry("unknown", format!("http://user:pa55word@servers.inside.invalid:8123/mcp?{query}")),
        entry("refusing", format!("http://user:pa55word@127.0.0.1:{closed}/mcp?{query}")),
        entry("elsewhere", format!("http://127.0.0.1:{}/mcp?{query}", stub(StatusCode::TEMPORARY_REDIRECT).await)),
        entry("broken", format!("http://127.0.0.1:{}/mcp?{query}", stub(StatusCode::BAD_GATEWAY).await)),
        json!({"name": "odd", "url": "ftp://user:pa55word@servers.inside.invalid/"}),
        json!({"name": "header", "url": "http://servers.inside.invalid/", "headers": {"X-Key": "header-key-0123456789\n"}, "type": "sse"}),
    ]
}

/// Whatever a caller can get.
async fn all_answers(worker: &Binary) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    let text = async |what: &str, request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        let headers = format!("{:?}", response.headers());
        (what.to_owned(), headers + &response.text().await.unwrap())
    };
    let at = |path: &str| format!("{}{path}", worker.url);
    for path in ["/health", "/readyz", "/metrics", "/v1/servers", "/v1/tools", "/v1/usage", "/openapi.json", "/nowhere"] {
        answers.push(text(path, worker.http.get(at(path))).await);
    }
    // The model has called tools of servers that are away.
    let calls = ["unknown", "refusing", "elsewhere", "broken"]
        .map(|server| json!({"type": "tool_use", "id": server, "name": format!("{server}__x"), "input": {}}));
    let messages = json!([{"role": "user", "content": "try"}, {"role": "assistant", "content": calls}]);
    let called = json!({"messages": messages, "approve": ["unknown", "refusing", "elsewhere", "broken"]});
    for body in [called, json!({"message": "hi", "stream": false}), json!({"message": 5})] {
        answers.push(text(&format!("/v1/chat {body}"), worker.http.post(at("/v1/chat")).json(&body)).await);
    }
    for (method, params) in [
        ("initialize", json!({"protocolVersion": "2025-11-25", "clientInfo": {"name": "c", "version": "1"}, "capabilities": {}})),
        ("tools/list", json!({})),
        ("tools/call", json!({"name": "unknown__x"})),
        ("tools/call", json!({"name": "refusing__x"})),
        ("resources/list", json!({})),
        ("resources/read", json!({"uri": "a:b"})),
        ("prompts/get", json!({"name": "unknown__p"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "broken__p"}, "argument": {"name": "a", "value": ""}}),
        ),
    ] {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = worker.http.post(at("/mcp")).header("accept", "application/json, text/event-stream").json(&message);
        answers.push(text(&format!("/mcp {method} {params}"), request).await);
    }
    answers
}

fn assert_discreet(worker: &Binary, answers: &[(String, String)]) {
    let own = worker.url.trim_start_matches("http://");
    for (what, answer) in answers {
        let answer = answer.replace(own, "");
        for word in PLACES.iter().chain(&KEYS).chain(&["127.0.0.1"]) {
            assert!(!answer.contains(word), "{what} tells {word}: {answer}");
        }
    }
    let log = std::fs::read_to_string(&worker.log).unwrap();
    for key in KEYS {
        assert!(!log.contains(key), "the log tells {key}: {}", log.lines().find(|line| line.contains(key)).unwrap());
    }
}

async fn settled(worker: &Binary) {
    let connecting = |servers: Vec<Value>| servers.iter().any(|server| server["state"] == "connecting");
    while connecting(worker.servers().await) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nobody_is_told_where_servers_are_or_which_keys_they_get() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::start(SCRIPT).await.unwrap();
    let key = [("ANTHROPIC_API_KEY", "sk-ant-model-key-0123".to_owned()), ("LOG_LEVEL", "DEBUG".to_owned())];
    let worker = Binary::start_with(directory.path(), &servers().await, &model.url(), &[], &key).await;
    settled(&worker).await;
    let answers = all_answers(&worker).await;
    assert_discreet(&worker, &answers);
    // What is said instead helps.
    let servers = &answers.iter().find(|(what, _)| what == "/v1/servers").unwrap().1;
    for told in
        ["its name cannot be resolved", "nothing listens on its port", "HTTP 307 to another scheme, host or port", "HTTP 502"]
    {
        assert!(servers.contains(told), "{told}: {servers}");
    }
    // The model was told of its failed calls, and of nothing else.
    let told: String = model.standin.seen().iter().map(|request| request.body.to_string()).collect();
    assert!(told.contains("its name cannot be resolved"), "{told}");
    assert_discreet(&worker, &[("the model".to_owned(), told)]);
}

#[tokio::test]
async fn nobody_is_told_where_the_model_is_or_which_key_it_gets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let refusing = format!("http://u:model-pa55word@127.0.0.1:{closed}/");
    for model in ["http://u:model-pa55word@model.inside.invalid/", refusing.as_str()] {
        let directory = tempfile::tempdir().unwrap();
        let key = [("ANTHROPIC_API_KEY", "sk-ant-model-key-0123".to_owned()), ("LOG_LEVEL", "DEBUG".to_owned())];
        let args = ["--model-timeout-seconds", "2"];
        let worker = Binary::start_with(directory.path(), &servers().await, model, &args, &key).await;
        settled(&worker).await;
        let answers = all_answers(&worker).await;
        let chat = &answers.iter().find(|(what, _)| what.contains("stream")).unwrap().1;
        assert!(chat.contains("the model API could not be reached") || chat.contains("did not answer within"), "{chat}");
        assert_discreet(&worker, &answers);
        let met = worker.get("/readyz").await;
        assert_eq!(met["model"]["reachable"], false, "{met}");
        assert_discreet(&worker, &[("how the model was met".to_owned(), met.to_string())]);
    }
}

#[tokio::test]
async fn a_proxy_that_takes_no_connection_is_what_is_told_of() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let server =
        json!({"name": "s", "url": "http://servers.inside.invalid:8123/mcp", "max_retries": 0, "health_check_interval": 0.3});
    let proxy = [("HTTP_PROXY", format!("http://127.0.0.1:{closed}"))];
    let worker = Binary::start_with(directory.path(), &[server], "http://127.0.0.1:1", &["--mode", "gateway"], &proxy).await;
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let told = worker.servers().await[0].to_string();
        if told.contains("through the proxy that the environment names: connection refused: nothing listens on the proxy's port")
        {
            break;
        }
        assert!(tokio::time::Instant::now() < limit, "{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

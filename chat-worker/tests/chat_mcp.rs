//! /mcp: the fleet as one MCP server, asked by clients of both eras.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use rmcp::{
    RoleClient,
    model::{CallToolRequestParams, CallToolResult, ProtocolVersion, SubscriptionFilter},
    service::{ClientLifecycleMode, RunningService, ServiceError, serve_client_with_lifecycle},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use rstest::rstest;
use serde_json::{Value, json};
use support::{Fake, Mood, Worker, state};

const SCRIPT: &str = "otherwise: {text: 'Hello.'}";

type Client = RunningService<RoleClient, ()>;

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

async fn connect(worker: &Worker, mode: ClientLifecycleMode) -> Client {
    let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", worker.url));
    let transport = StreamableHttpClientTransport::with_client(reqwest::Client::new(), config);
    serve_client_with_lifecycle((), transport, mode).await.unwrap()
}

async fn call(client: &Client, tool: &str, arguments: Value) -> Result<CallToolResult, ServiceError> {
    let arguments = arguments.as_object().unwrap().clone();
    client.call_tool(CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments)).await
}

fn text(result: &CallToolResult) -> &str {
    &result.content[0].as_text().unwrap().text
}

#[rstest]
#[case::modern(modern())]
#[case::legacy(ClientLifecycleMode::Initialize)]
#[tokio::test]
async fn both_eras_list_and_call_the_tools_of_every_server(#[case] mode: ClientLifecycleMode) {
    let (one, two) = (Fake::start(Mood::Modern).await, Fake::start(Mood::Legacy).await);
    let worker = Worker::start(SCRIPT, &[one.entry("one"), two.entry("two")], &[]).await;
    let client = connect(&worker, mode).await;
    let tools = client.list_all_tools().await.unwrap();
    assert_eq!(tools.len(), 10);
    let echo = tools.iter().find(|tool| tool.name == "two__echo").unwrap();
    assert_eq!(echo.annotations.as_ref().unwrap().read_only_hint, Some(true), "annotations are passed on");
    let said = call(&client, "two__echo", json!({"text": "hi"})).await.unwrap();
    assert_eq!((said.is_error, text(&said).contains("\"said\":\"hi\"")), (None, true));
    assert_eq!(said.structured_content.as_ref().unwrap()["text"], text(&said), "what programs read");
    assert_eq!((one.calls.lock().unwrap().len(), two.calls.lock().unwrap().len()), (0, 1));
    let failed = call(&client, "one__fail", json!({})).await.unwrap();
    assert_eq!((failed.is_error, text(&failed)), (Some(true), "it did not work"));
    let dirty = call(&client, "one__dirty", json!({})).await.unwrap();
    assert!(text(&dirty).starts_with("\u{202E}evil\u{1b}[2Jxxx") && text(&dirty).len() > 300_000, "as it is");
    assert_eq!(dirty.structured_content.as_ref().unwrap()["text"], text(&dirty));
    let unknown = call(&client, "one__nothing", json!({})).await.unwrap_err().to_string();
    assert!(unknown.contains("there is no tool one__nothing"), "{unknown}");
    let metrics = worker.http.get(format!("{}/metrics", worker.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"tool_calls_total{outcome="ok",server="two",tool="echo"} 1"#), "{metrics}");
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_loses_its_own_tools_only_and_listeners_hear_of_it() {
    let (good, bad) = (Fake::start(Mood::Modern).await, Fake::start(Mood::Modern).await);
    let mut entry = bad.entry("bad");
    entry["timeout"] = json!(0.3);
    entry["health_check_interval"] = json!(600);
    let worker = Worker::start(SCRIPT, &[good.entry("good"), entry], &[]).await;
    let client = connect(&worker, modern()).await;
    let filter = SubscriptionFilter::builder().tools_list_changed().build();
    let mut changes = client.peer().listen(filter).await.unwrap();
    bad.set(Mood::Hang);
    for _ in 0..3 {
        let (hung, fine) =
            tokio::join!(call(&client, "bad__echo", json!({"text": "hi"})), call(&client, "good__echo", json!({"text": "hi"})));
        assert_eq!(hung.unwrap().is_error, Some(true));
        assert_eq!(fine.unwrap().is_error, None);
    }
    let told = tokio::time::timeout(Duration::from_secs(10), changes.next()).await.unwrap().unwrap();
    assert!(matches!(told, Some(rmcp::model::ServerNotification::ToolListChangedNotification(_))), "{told:?}");
    worker.until("the server down", |health| state(health, "bad") == "down").await;
    let tools = client.list_all_tools().await.unwrap();
    assert!(!tools.is_empty() && tools.iter().all(|tool| tool.name.starts_with("good__")));
    let refused = call(&client, "bad__echo", json!({})).await.unwrap();
    assert!(text(&refused).contains("is not available now"), "{}", text(&refused));
    drop(changes);
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn the_token_the_limit_and_other_sites_are_as_on_the_other_paths() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "s3cret-of-length").unwrap();
    let args = ["--access-token-file", token.path().to_str().unwrap(), "--rate-limit-requests", "3"];
    let worker = Worker::start(SCRIPT, &[], &args).await;
    let ask = |bearer: &str| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
        request.header("mcp-protocol-version", "2025-11-25").bearer_auth(bearer).json(&body)
    };
    assert_eq!(ask("guess").send().await.unwrap().status(), 401, "a wrong token has cost a request, too");
    assert_eq!(ask("s3cret-of-length").header("origin", "https://evil.example").send().await.unwrap().status(), 403);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let response = ask("s3cret-of-length").send().await.unwrap();
        statuses.push(response.status().as_u16());
        assert_eq!(response.headers().contains_key("retry-after"), statuses.len() == 3);
    }
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(ask("guess").send().await.unwrap().status(), 429, "before the token is looked at");
}

#[tokio::test]
async fn a_body_that_is_no_message_is_told_so_in_the_words_of_json_rpc() {
    let worker = Worker::start(SCRIPT, &[], &[]).await;
    let post = |body: String| {
        let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
        request.header("content-type", "application/json").body(body).send()
    };
    for (body, code) in [("", -32700), ("{", -32700), ("{}", -32600), ("[]", -32600), ("42", -32600)] {
        let response = post(body.to_owned()).await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(code)), "{body}: {answer}");
    }
    let large = post("x".repeat(5 * 1024 * 1024)).await.unwrap();
    assert_eq!(large.status(), 413);
    let problem: Value = large.json().await.unwrap();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("4 MiB")), "{problem}");
}

#[tokio::test]
async fn where_nothing_may_be_destroyed_such_tools_are_not_offered() {
    let fake = Fake::start(Mood::Modern).await;
    let worker = Worker::start(SCRIPT, &[fake.entry("a")], &["--approvals", "never"]).await;
    let client = connect(&worker, modern()).await;
    let tools = client.list_all_tools().await.unwrap();
    assert!(tools.iter().all(|tool| tool.name != "a__wipe") && tools.len() == 4);
    assert!(call(&client, "a__wipe", json!({})).await.is_err());
    assert!(fake.calls.lock().unwrap().is_empty());
    client.cancel().await.unwrap();
}

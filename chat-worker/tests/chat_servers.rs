//! Servers that come, go, hang and break, under a running worker.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use rstest::rstest;
use serde_json::json;
use support::{Fake, Mood, Worker, state};

const SCRIPT: &str = r#"
rules:
  - {name: echo, when: [echo], steps: [{tools: [{tool: echo, input: {text: hi}}]}, {text: "It said {{said}}.", on_error: "{{last}}"}]}
  - {name: wipe, when: [wipe], steps: [{tools: [{tool: wipe}]}, {text: "Wiped.", on_error: "{{last}}"}]}
otherwise: {text: "Hello."}
"#;

#[rstest]
#[case(Mood::Modern, "modern")]
#[case(Mood::Legacy, "legacy")]
#[case(Mood::Odd, "legacy")]
#[tokio::test]
async fn both_eras_are_spoken(#[case] mood: Mood, #[case] era: &str) {
    let fake = Fake::start(mood).await;
    let worker = Worker::start(SCRIPT, &[fake.entry("a")], &[]).await;
    assert_eq!(worker.get("/v1/servers").await["servers"][0]["era"], era);
    assert_eq!(worker.ask(json!({"message": "echo"})).await.1["answer"], "It said hi.");
}

#[tokio::test]
async fn a_server_that_is_down_costs_its_own_tools_only() {
    let (good, bad) = (Fake::start(Mood::Modern).await, Fake::start(Mood::Broken).await);
    let worker = Worker::start(SCRIPT, &[good.entry("good"), bad.entry("bad")], &[]).await;
    let health = worker.get("/health").await;
    assert_eq!((health["status"].as_str(), state(&health, "good")), (Some("degraded"), "up"));
    let (_, answer) = worker.ask(json!({"message": "echo"})).await;
    assert_eq!(answer["answer"], "It said hi.");
    let notice = answer["notices"][0].as_str().unwrap();
    assert!(notice.contains("bad") && !notice.contains("rmcp"), "names the server, and none of our types: {notice}");
    bad.set(Mood::Modern);
    let health = worker.until("the bad server back", |health| state(health, "bad") == "up").await;
    assert_eq!(health["status"], "healthy");
}

#[rstest]
#[case("a")]
#[case("my server")]
#[case("a__b")]
#[case("a-server-with-a-name-that-is-longer-than-what-the-names-of-tools-can-hold")]
#[tokio::test]
async fn a_tool_whose_server_went_away_is_told_from_one_that_never_was(#[case] name: &str) {
    let fake = Fake::start(Mood::Modern).await;
    let worker = Worker::start(SCRIPT, &[fake.entry(name)], &[]).await;
    let tools = worker.get("/v1/tools").await;
    let echo = tools["tools"].as_array().unwrap().iter().find(|tool| tool["tool"] == "echo").unwrap()["name"].clone();
    fake.set(Mood::Broken);
    worker.until("the server down", |health| state(health, name) != "up").await;
    let call = async |tool: &serde_json::Value| -> serde_json::Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
        let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
        request.json(&body).send().await.unwrap().json().await.unwrap()
    };
    let answer = call(&echo).await;
    let told = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(answer["result"]["isError"] == true && told.contains("is not available now"), "{answer}");
    assert!(call(&json!("nobody__echo")).await["error"].is_object());
}

#[tokio::test]
async fn a_replica_is_ready_once_its_servers_were_tried() {
    let fake = Fake::start(Mood::Hang).await;
    let mut entry = fake.entry("a");
    entry["timeout"] = json!(3);
    let worker = Worker::begin(SCRIPT, &[entry], &[], Duration::ZERO).await;
    let ready = async || worker.http.get(format!("{}/readyz", worker.url)).send().await.unwrap().status();
    assert_eq!(ready().await, 503, "who asks for tools now gets none");
    let waits = async {
        while ready().await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waits).await.expect("ready also without it");
}

#[tokio::test]
async fn a_server_that_hangs_is_left_alone_and_its_tools_are_dropped() {
    let fake = Fake::start(Mood::Modern).await;
    let mut entry = fake.entry("a");
    entry["health_check_interval"] = json!(600);
    entry["timeout"] = json!(0.3);
    let worker = Worker::start(SCRIPT, &[entry], &["--approvals", "always"]).await;
    fake.set(Mood::Hang);
    let (_, answer) = worker.ask(json!({"message": "echo"})).await;
    assert!(answer["answer"].as_str().unwrap().contains("no answer within 300ms"), "{answer}");
    // Its list is no better: it is not the tool that hangs.
    worker.until("the server down", |health| state(health, "a") == "down").await;
    let (_, answer) = worker.ask(json!({"message": "echo"})).await;
    assert!(answer["answer"].as_str().unwrap().contains("I have no tool echo"), "{answer}");
    fake.set(Mood::Modern);
    assert!(worker.app.engine.hub.reconnect(Some("a")));
    worker.until("the server back", |health| state(health, "a") == "up").await;
}

#[tokio::test]
async fn only_calls_that_may_be_repeated_are() {
    let fake = Fake::start(Mood::Modern).await;
    let worker = Worker::start(SCRIPT, &[fake.entry("a")], &["--approvals", "always"]).await;
    fake.hiccups.store(2, Ordering::SeqCst);
    assert_eq!(worker.ask(json!({"message": "echo"})).await.1["answer"], "It said hi.");
    fake.hiccups.store(1, Ordering::SeqCst);
    let (_, answer) = worker.ask(json!({"message": "wipe"})).await;
    assert!(answer["answer"].as_str().unwrap().contains("failed"), "{answer}");
    assert!(fake.calls.lock().unwrap().iter().all(|call| call["name"] != "wipe"));
}

#[tokio::test]
async fn the_configuration_is_followed_and_a_bad_one_keeps_the_last() {
    let (one, two) = (Fake::start(Mood::Modern).await, Fake::start(Mood::Legacy).await);
    let worker = Worker::start(SCRIPT, &[one.entry("one")], &[]).await;
    let write = |text: String| std::fs::write(worker.config(), text).unwrap();

    write(json!({"servers": [one.entry("one"), two.entry("two")]}).to_string());
    worker.until("the second server", |health| state(health, "two") == "up").await;

    let mut off = two.entry("two");
    off["enabled"] = json!(false);
    off["metadata"] = json!({"circuit": "Open", "reason": "3 probes failed: timeout"});
    write(json!({"servers": [one.entry("one"), off]}).to_string());
    let health = worker.until("the disabled server", |health| state(health, "two") == "disabled").await;
    assert_eq!(health["status"], "degraded");
    let (_, answer) = worker.ask(json!({"message": "echo"})).await;
    assert!(answer["notices"][0].as_str().unwrap().contains("3 probes failed"), "{answer}");
    assert!(!worker.get("/v1/tools").await.to_string().contains("two__"));

    write("{".to_owned());
    let health = worker.until("the problem", |health| health["metrics"]["configuration"]["in_force"] == false).await;
    assert_eq!((health["status"].as_str(), state(&health, "one")), (Some("degraded"), "up"));
    assert_eq!(worker.ask(json!({"message": "echo"})).await.1["answer"], "It said hi.");

    write(json!({"servers": [one.entry("one"), two.entry("two")]}).to_string());
    let health = worker.until("both servers back", |health| state(health, "two") == "up").await;
    assert_eq!(health["status"], "healthy");
}

#[tokio::test]
async fn a_removed_server_finishes_the_call_that_runs() {
    let fake = Fake::start(Mood::Modern).await;
    let script = "rules: [{name: s, steps: [{tools: [{tool: slow}]}, {text: '{{last}}'}]}]\notherwise: {text: x}";
    let worker = Worker::start(script, &[fake.entry("a")], &[]).await;
    let hub = worker.app.engine.hub.clone();
    let remove = async {
        while fake.calls.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        hub.apply(&chat_worker::config::file::McpConfig::default());
    };
    let ((_, answer), ()) = tokio::join!(worker.ask(json!({"message": "go"})), remove);
    assert_eq!(answer["answer"], "slow but sure");
}

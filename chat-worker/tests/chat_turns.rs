//! Whole turns through the HTTP API: the stand-in model on one side, MCP servers on the other.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Fake, Mood, Worker};

const TOOLS: &str = r#"
rules:
  - name: echo
    when: [echo]
    steps:
      - {thinking: "which tool?", text: "Looking.", tools: [{tool: echo, input: {text: hello}}, {tool: fail}]}
      - text: "It said {{said}}."
  - name: twice
    when: [twice]
    steps:
      - tools: [{tool: slow, input: {a: 1}}, {tool: slow, input: {a: 1}}]
      - text: "Both: {{last}}"
  - name: wipe
    when: [wipe]
    steps:
      - tools: [{tool: wipe, input: {text: all}}, {tool: echo, input: {text: too}}]
      - {text: "Wiped {{said}}.", on_error: "Not wiped: {{last}}"}
  - {name: dirty, when: [dirty], steps: [{tools: [{tool: dirty}]}, {text: "Done."}]}
  - {name: forever, when: [forever], steps: [{tools: [{tool: echo, input: {text: again}}]}]}
  - {name: slow, when: [drip], steps: [{text: "one two three four five six seven eight", chunk_delay_ms: 100}]}
otherwise: {text: "Hello."}
"#;

async fn worker() -> (Worker, std::sync::Arc<Fake>) {
    let fake = Fake::start(Mood::Modern).await;
    (Worker::start(TOOLS, &[fake.entry("fake")], &[]).await, fake)
}

#[tokio::test]
async fn tools_are_called_in_parallel_and_every_call_gets_its_result() {
    let (worker, fake) = worker().await;
    let (status, answer) = worker.ask(json!({"message": "echo please"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("It said hello.")), "{answer}");
    assert_eq!(fake.calls.lock().unwrap().len(), 2);
    assert_eq!(answer["tool_calls"][1]["result"]["is_error"], true);
    // The stand-in refuses a conversation with an unanswered call or a changed thinking block: that it answered is the proof.
    let (status, again) = worker.ask(json!({"message": "hi", "messages": answer["messages"]})).await;
    assert_eq!((status, again["answer"].as_str()), (200, Some("Hello.")));
    assert_eq!(worker.get("/health").await["status"], "healthy");
}

#[tokio::test]
async fn identical_reads_at_the_same_time_are_one_call() {
    let (worker, fake) = worker().await;
    let (_, answer) = worker.ask(json!({"message": "do it twice"})).await;
    assert_eq!(answer["answer"], "Both: slow but sure");
    assert_eq!(fake.calls.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tool_that_may_destroy_waits_for_a_decision_that_any_replica_can_take() {
    let (worker, fake) = worker().await;
    let (_, asked) = worker.ask(json!({"message": "wipe it"})).await;
    assert_eq!(asked["outcome"], "approval_required");
    assert!(fake.calls.lock().unwrap().is_empty(), "nothing runs before the decision");
    let (replica, _other) = (Worker::start(TOOLS, &[fake.entry("fake")], &[]).await, ());
    let ids: Vec<Value> = asked["tool_calls"].as_array().unwrap().iter().map(|call| call["id"].clone()).collect();
    let (_, denied) = replica.ask(json!({"messages": asked["messages"], "approve": []})).await;
    assert!(denied["answer"].as_str().unwrap().contains("did not allow"), "{denied}");
    let (_, allowed) = replica.ask(json!({"messages": asked["messages"], "approve": ids})).await;
    assert_eq!(allowed["answer"], "Wiped all.");
    let call = &asked["tool_calls"][0];
    let always = format!("{}@{}", call["name"].as_str().unwrap(), call["hash"].as_str().unwrap());
    let (_, unasked) = replica.ask(json!({"message": "wipe it", "always": [always]})).await;
    assert_eq!(unasked["outcome"], "complete");
}

#[tokio::test]
async fn a_changed_definition_asks_again() {
    let (worker, fake) = worker().await;
    let (_, first) = worker.ask(json!({"message": "echo"})).await;
    assert_eq!(first["outcome"], "complete");
    *fake.echo_description.lock().unwrap() = "Says what it is told, and mails it to me".to_owned();
    for _ in 0..100 {
        let tools = worker.get("/v1/tools").await;
        if tools.to_string().contains("mails it") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, second) = worker.ask(json!({"message": "echo"})).await;
    assert_eq!(second["outcome"], "approval_required", "{second}");
}

#[tokio::test]
async fn results_are_cleaned_and_capped() {
    let (worker, _fake) = worker().await;
    let (_, answer) = worker.ask(json!({"message": "dirty"})).await;
    let text = answer["tool_calls"][0]["result"]["text"].as_str().unwrap();
    assert!(text.starts_with("evil[2Jxxx"), "{}", &text[..20]);
    assert!(text.len() < 50_000 && text.contains("cut off"));
}

#[tokio::test]
async fn rounds_end_and_the_turn_with_them() {
    let fake = Fake::start(Mood::Legacy).await;
    let worker = Worker::start(TOOLS, &[fake.entry("fake")], &["--max-rounds", "3"]).await;
    let (_, answer) = worker.ask(json!({"message": "forever"})).await;
    assert_eq!(fake.calls.lock().unwrap().len(), 3);
    // Forbidden to call, the stand-in says that it has no such tool.
    assert_eq!(answer["outcome"], "complete", "{answer}");
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_turn() {
    let (worker, _fake) = worker().await;
    let request = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": "drip"}));
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap();
    drop(response);
    for _ in 0..100 {
        let metrics = worker.http.get(format!("{}/metrics", worker.url)).send().await.unwrap().text().await.unwrap();
        if metrics.contains("mcpfleet_chat_requests_total{outcome=\"cancelled\"} 1") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("the turn went on for two seconds");
}

#[tokio::test]
async fn bad_requests_are_told_what_to_change() {
    let (worker, _fake) = worker().await;
    for (body, word) in [
        (json!({}), "say something"),
        (json!({"message": " "}), "empty"),
        (json!({"message": "a\u{7}"}), "U+0007"),
        (json!({"message": "x", "mesages": []}), "mesages"),
        (json!({"message": "x", "messages": [{"role": "assistant", "content": "hi"}]}), "begins with the user"),
    ] {
        let (status, problem) = worker.ask(body.clone()).await;
        assert_eq!(status, 422, "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
    }
}

#[tokio::test]
async fn the_limit_is_a_caller_s_own_and_says_when_to_return() {
    let fake = Fake::start(Mood::Modern).await;
    let args = ["--rate-limit-requests", "2", "--rate-limit-window-seconds", "60"];
    let worker = Worker::start(TOOLS, &[fake.entry("fake")], &args).await;
    for expected in [200, 200, 429] {
        let response = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": "hi", "stream": false}));
        let response = response.send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
        if expected == 429 {
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((25..=31).contains(&seconds), "{seconds}");
        }
    }
    assert_eq!(worker.get("/health").await["metrics"]["rate_limited"], 1);
}

#[tokio::test]
async fn running_answers_end_before_the_worker_does() {
    let (worker, _fake) = worker().await;
    let request = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": "drip"}));
    let response = request.send().await.unwrap();
    worker.stop.cancel();
    let text = response.text().await.unwrap();
    assert!(text.contains("eight") && text.contains("event: done"), "{text}");
    tokio::time::timeout(Duration::from_secs(10), worker.server).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_end_in_time_is_ended_properly() {
    let fake = Fake::start(Mood::Modern).await;
    let worker = Worker::start(TOOLS, &[fake.entry("fake")], &["--drain-seconds", "0"]).await;
    let request = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": "drip"}));
    let response = request.send().await.unwrap();
    worker.stop.cancel();
    let text = response.text().await.unwrap();
    assert!(text.contains("\"outcome\":\"cancelled\""), "{text}");
}

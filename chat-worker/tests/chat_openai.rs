//! A model behind Chat Completions: the same turns, the same faults and the same rules as with the Messages API.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use rstest::rstest;
use serde_json::json;
use support::{Fake, Mood, Worker};

const OPENAI: [&str; 6] = ["--model-api", "openai", "--model", "some-model", "--stream-idle-seconds", "1"];

const TOOLS: &str = r#"
rules:
  - name: echo
    when: [echo]
    steps:
      - {text: "Looking.", tools: [{tool: echo, input: {text: "hällo \"you\""}}, {tool: fail}]}
      - text: "It said {{said}}."
otherwise: {text: "Hello."}
"#;

fn script(fault: &str) -> String {
    format!("rules: [{{name: r, steps: [{{fault: {fault}, text: 'The whole answer.'}}]}}]\notherwise: {{text: x}}\n")
}

#[tokio::test]
async fn tools_are_called_in_parallel_and_the_conversation_goes_on() {
    let fake = Fake::start(Mood::Modern).await;
    let worker = Worker::start(TOOLS, &[fake.entry("fake")], &OPENAI).await;
    let (status, answer) = worker.ask(json!({"message": "echo please"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("It said hällo \"you\".")), "{answer}");
    assert_eq!(fake.calls.lock().unwrap().len(), 2);
    assert_eq!(answer["tool_calls"][1]["result"]["is_error"], true);
    assert!(answer["usage"]["output_tokens"].as_u64().unwrap() > 0, "{answer}");
    assert!(answer["cost"].is_null(), "a server of one's own has no known price: {answer}");
    // The stand-in refuses a conversation with an unanswered call: that it answered is the proof.
    let (status, again) = worker.ask(json!({"message": "hi", "messages": answer["messages"]})).await;
    assert_eq!((status, again["answer"].as_str()), (200, Some("Hello.")), "{again}");
    let seen = worker.model.standin.seen();
    assert!(seen.iter().all(|seen| seen.path == "/v1/chat/completions" && seen.body["model"] == "some-model"));
}

#[rstest]
#[case::overload("{status: 503, times: 2}")]
#[case::rate_limit("{status: 429, type: rate_limit_exceeded, retry_after: 1, times: 1}")]
#[case::truncated("{stream: truncated, times: 1}")]
#[case::malformed("{stream: malformed, times: 1}")]
#[case::error_inside("{stream: error, times: 1}")]
#[case::hanging("{stream: hang, times: 1}")]
#[case::proxy_page("{stream: html, times: 1}")]
#[tokio::test]
async fn a_passing_fault_is_overcome_and_the_answer_is_whole(#[case] fault: &str) {
    let worker = Worker::start(&script(fault), &[], &OPENAI).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
}

#[tokio::test]
async fn a_stream_that_ends_after_its_reason_is_an_answer_also_without_done() {
    let worker = Worker::start(&script("{stream: no_stop}"), &[], &OPENAI).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    assert_eq!(worker.model.standin.seen().len(), 1);
}

#[rstest]
#[case::truncated("{stream: truncated}", 502, "stream", 3)]
#[case::html("{stream: html}", 502, "not_the_api", 3)]
#[case::bad_request("{status: 400, type: invalid_request_error}", 502, "invalid_request_error", 1)]
#[case::spent("{status: 429, type: insufficient_quota, retry_after: 1}", 429, "rate_limit", 1)]
#[tokio::test]
async fn a_lasting_fault_is_a_clear_error(#[case] fault: &str, #[case] code: u16, #[case] kind: &str, #[case] attempts: usize) {
    let worker = Worker::start(&script(fault), &[], &OPENAI).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["error"]["kind"].as_str()), (code, Some(kind)), "{answer}");
    assert_eq!(worker.model.standin.seen().len(), attempts);
}

#[tokio::test]
async fn the_key_is_a_bearer_and_is_read_again_when_it_changes() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "old-key").unwrap();
    let args = [&OPENAI[..], &["--openai-api-key-file", key.path().to_str().unwrap()]].concat();
    let worker = Worker::start("otherwise: {text: Hello.}", &[], &args).await;
    worker.model.standin.require_key("old-key");
    assert_eq!(worker.ask(json!({"message": "hi"})).await.0, 200);
    worker.model.standin.require_key("new-key");
    let (status, refused) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, refused["error"]["kind"].as_str()), (502, Some("authentication_error")), "{refused}");
    std::fs::write(key.path(), "new-key").unwrap();
    assert_eq!(worker.ask(json!({"message": "hi"})).await.0, 200);
}

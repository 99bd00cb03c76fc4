//! A model behind Chat Completions: the same turns, the same faults and the same rules as with the Messages API.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::post};
use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Fake, Mood, Worker,
    nasty::{Act, Nasty, stream},
};
use tokio::net::TcpListener;

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

/// An API that does not know these fields of a request, and says so in these words; its URL, and how often it said it.
async fn that_refuses(fields: &'static [(&'static str, &'static str)]) -> (String, Arc<AtomicUsize>) {
    let refusals = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&refusals);
    let answer = async move |Json(request): Json<Value>| {
        if let Some((_, words)) = fields.iter().find(|(field, _)| request.get(field).is_some()) {
            counted.fetch_add(1, Ordering::SeqCst);
            let error = json!({"message": words, "type": "invalid_request_error", "param": null, "code": null});
            return (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
        }
        let message = json!({"role": "assistant", "content": "Hello."});
        Json(json!({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, refusals)
}

#[rstest]
#[case::limit(&[("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")])]
#[case::usage(&[("stream_options", "Unrecognized request argument supplied: stream_options")])]
#[case::both(&[("max_tokens", "unknown field: max_tokens"), ("stream_options", "stream_options: Extra inputs are not permitted")])]
#[tokio::test]
async fn what_a_server_does_not_know_is_not_sent_to_it_again(#[case] fields: &'static [(&'static str, &'static str)]) {
    let (url, refusals) = that_refuses(fields).await;
    let worker = Worker::start("otherwise: {text: x}", &[], &[&OPENAI[..], &["--openai-base-url", &url]].concat()).await;
    for _ in 0..2 {
        let (status, answer) = worker.ask(json!({"message": "hi"})).await;
        assert_eq!((status, answer["answer"].as_str()), (200, Some("Hello.")), "{answer}");
    }
    assert_eq!(refusals.load(Ordering::SeqCst), fields.len(), "each is learned once");
}

#[tokio::test]
async fn a_parameter_that_is_refused_by_both_its_names_is_an_error() {
    let (url, refusals) = that_refuses(&[
        ("max_tokens", "unknown field: max_tokens"),
        ("max_completion_tokens", "unknown field: max_completion_tokens"),
    ])
    .await;
    let worker = Worker::start("otherwise: {text: x}", &[], &[&OPENAI[..], &["--openai-base-url", &url]].concat()).await;
    for asked in 1..=2 {
        let (status, answer) = worker.ask(json!({"message": "hi"})).await;
        assert_eq!((status, answer["error"]["kind"].as_str()), (502, Some("invalid_request_error")), "{answer}");
        assert_eq!(refusals.load(Ordering::SeqCst), 2 * asked, "another model may know the other one");
    }
}

#[rstest]
#[case::nothing_between("data:\n\ndata: \n\n")]
#[case::a_ping("data: {\"type\":\"ping\"}\n\n")]
#[case::a_chunk_without_a_reason("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"\"}]}\n\n")]
#[tokio::test]
async fn what_says_nothing_is_passed_over(#[case] odd: &str) {
    let chunk = |delta: Value, finish: Value| {
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
    };
    let words = ["The whole ", "answer."].map(|text| chunk(json!({"content": text}), Value::Null));
    let body = [odd, &words[0], odd, &words[1], &chunk(json!({}), json!("stop")), "data: [DONE]\n\n"].concat();
    let api = Nasty::start(vec![Act::Bytes(stream(&body))]).await;
    let url = format!("http://{}", api.address);
    let worker = Worker::start("otherwise: {text: x}", &[], &[&OPENAI[..], &["--openai-base-url", &url]].concat()).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    assert_eq!(api.requests.load(Ordering::SeqCst), 1);
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

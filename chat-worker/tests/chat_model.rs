//! What the model API can do wrong, and what becomes of it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use rstest::rstest;
use serde_json::json;
use support::Worker;

fn script(fault: &str) -> String {
    format!("rules: [{{name: r, steps: [{{fault: {fault}, text: 'The whole answer.'}}]}}]\notherwise: {{text: x}}\n")
}

#[rstest]
#[case::overload("{status: 529, type: overloaded_error, times: 2}")]
#[case::rate_limit("{status: 429, type: rate_limit_error, retry_after: 1, times: 1}")]
#[case::conflict("{status: 409, times: 1}")]
#[case::told_to("{status: 418, headers: {x-should-retry: 'true'}, times: 1}")]
#[case::truncated("{stream: truncated, times: 1}")]
#[case::without_stop("{stream: no_stop, times: 1}")]
#[case::malformed("{stream: malformed, times: 1}")]
#[case::error_event("{stream: error, type: overloaded_error, times: 1}")]
#[case::hanging("{stream: hang, times: 1}")]
#[case::proxy_page("{stream: html, times: 1}")]
#[tokio::test]
async fn a_passing_fault_is_overcome_and_the_answer_is_whole(#[case] fault: &str) {
    let worker = Worker::start(&script(fault), &[], &["--stream-idle-seconds", "1"]).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
}

#[rstest]
#[case::overload("{status: 529, type: overloaded_error}", 502, "overloaded_error", 3)]
#[case::truncated("{stream: truncated}", 502, "stream", 3)]
#[case::html("{stream: html}", 502, "not_the_api", 3)]
#[case::bad_request("{status: 400, type: invalid_request_error}", 502, "invalid_request_error", 1)]
#[case::told_not_to("{status: 529, headers: {x-should-retry: 'false'}}", 502, "api_error", 1)]
#[case::spent("{status: 429, type: workspace_spend_limit_reached, retry_after: 1}", 429, "rate_limit", 1)]
#[case::too_long_a_wait("{status: 429, type: rate_limit_error, retry_after: 9999}", 429, "rate_limit", 1)]
#[tokio::test]
async fn a_lasting_fault_is_a_clear_error(#[case] fault: &str, #[case] code: u16, #[case] kind: &str, #[case] attempts: usize) {
    let worker = Worker::start(&script(fault), &[], &[]).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["error"]["kind"].as_str()), (code, Some(kind)), "{answer}");
    assert_eq!(worker.model.standin.seen().len(), attempts);
    assert_eq!(answer["messages"][0]["content"][0]["text"], "hi", "the conversation can be resumed");
    assert_eq!(worker.get("/health").await["metrics"]["errors"][kind], 1);
}

#[tokio::test]
async fn the_fallback_answers_when_the_model_stays_overloaded() {
    let overloaded = script("{status: 529, type: overloaded_error, times: 3}");
    let worker = Worker::start(&overloaded, &[], &["--model-fallback", "smaller"]).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    let models: Vec<_> = worker.model.standin.seen().iter().map(|seen| seen.body["model"].clone()).collect();
    assert_eq!(models.last().unwrap(), "smaller");
}

#[tokio::test]
async fn the_budget_is_a_hard_stop() {
    let plain = "otherwise: {text: 'An answer.'}";
    let worker = Worker::start(plain, &[], &["--budget-tokens-per-day", "10"]).await;
    assert_eq!(worker.ask(json!({"message": "hi"})).await.0, 200);
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!(status, 429);
    let told = answer["error"]["message"].as_str().unwrap();
    assert!(told.contains("this app's own budget") && !told.contains("429"), "{answer}");
    let seconds = answer["error"]["retry_after"].as_u64().unwrap();
    assert!((1..=86_400).contains(&seconds), "{answer}");
    let body = json!({"message": "again", "stream": false});
    let response = worker.http.post(format!("{}/v1/chat", worker.url)).json(&body).send().await.unwrap();
    let header: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=seconds).contains(&header), "{header}");
    assert_eq!(worker.model.standin.seen().len(), 1, "nothing is asked any more");
}

#[tokio::test]
async fn a_key_rotated_under_load_loses_no_request() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "old-key").unwrap();
    let plain = "otherwise: {text: 'An answer.', delay_ms: 2}";
    let args = ["--api-key-file", key.path().to_str().unwrap(), "--rate-limit-requests", "0"];
    let worker = Worker::start(plain, &[], &args).await;
    worker.model.standin.require_key("old-key");
    let rotated = AtomicBool::new(false);
    let caller = || async {
        let mut after = 0;
        while after < 5 {
            after += usize::from(rotated.load(Ordering::SeqCst));
            let (status, answer) = worker.ask(json!({"message": "hi"})).await;
            assert_eq!(status, 200, "{answer}");
        }
    };
    let rotate = async {
        while worker.model.standin.seen().len() < 100 {
            tokio::task::yield_now().await;
        }
        // As the kubelet does it: the new file replaces the old one in one step.
        let new = key.path().with_extension("new");
        std::fs::write(&new, "new-key").unwrap();
        std::fs::rename(&new, key.path()).unwrap();
        worker.model.standin.require_key("new-key");
        rotated.store(true, Ordering::SeqCst);
    };
    let callers = futures::future::join_all((0..20).map(|_| caller()));
    tokio::join!(callers, rotate);
    let keys: Vec<_> = worker.model.standin.seen().iter().map(|seen| seen.headers["x-api-key"].clone()).collect();
    assert!(keys.iter().any(|key| key == "old-key") && keys.last().unwrap() == "new-key");
}

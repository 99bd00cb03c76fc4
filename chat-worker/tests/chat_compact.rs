//! Conversations that grow out of the model's window: counted before they are sent, summarised, and gone on with.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::{Fake, Mood, Worker};

fn script(summary: &str) -> String {
    format!(
        r#"
context_tokens: 4000
rules:
  - {{name: summary, when: ["summarise the conversation"], steps: [{summary}]}}
  - {{name: dirty, when: [dirty], steps: [{{tools: [{{tool: dirty}}, {{tool: echo, input: {{text: hi}}}}]}}, {{text: "Done: {{{{said}}}}"}}]}}
otherwise: {{text: "So it goes on."}}
"#
    )
}

/// A conversation of about 5,000 tokens with a call in it.
fn long() -> Value {
    json!([
        {"role": "user", "content": format!("What is in it? {}", "word ".repeat(2_000))},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "fake__echo", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x".repeat(10_000)}]}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A lot of words."}]},
    ])
}

fn statuses(worker: &Worker) -> Vec<(&'static str, u16)> {
    worker.model.standin.seen().iter().map(|seen| (seen.path.rsplit('/').next().unwrap(), seen.status)).collect()
}

const SUMMARY: &str = "{text: 'They looked at words.'}";

#[tokio::test]
async fn a_refused_prompt_is_summarised_and_sent_again() {
    let worker = Worker::start(&script(SUMMARY), &[], &[]).await;
    let (status, answer) = worker.ask(json!({"message": "and now?", "messages": long()})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("So it goes on.")), "{answer}");
    assert_eq!(statuses(&worker), [("messages", 400), ("messages", 200), ("messages", 200)]);
    let first = answer["messages"][0]["content"].to_string();
    assert!(first.contains("They looked at words.") && first.contains("and now?") && !first.contains("word word"), "{first}");
    assert!(answer["notices"].to_string().contains("summarised"), "{answer}");
    let (_, again) = worker.ask(json!({"message": "still there?", "messages": answer["messages"]})).await;
    assert_eq!(again["answer"], "So it goes on.");
}

#[tokio::test]
async fn a_long_prompt_is_counted_and_never_sent_in_vain() {
    let args = ["--context-tokens", "4500", "--max-tokens", "500"];
    let worker = Worker::start(&script(SUMMARY), &[], &args).await;
    let (status, answer) = worker.ask(json!({"message": "and now?", "messages": long()})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("So it goes on.")), "{answer}");
    assert_eq!(statuses(&worker), [("count_tokens", 200), ("messages", 200), ("messages", 200)]);
    let (_, short) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!(short["answer"], "So it goes on.");
    assert_eq!(statuses(&worker).len(), 4, "what is short for certain is not counted");
}

#[tokio::test]
async fn without_a_summary_earlier_results_are_left_out() {
    let worker = Worker::start(&script("{fault: {status: 400}, text: x}"), &[], &[]).await;
    let (status, answer) = worker.ask(json!({"message": "and now?", "messages": long()})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("So it goes on.")), "{answer}");
    assert!(answer["notices"].to_string().contains("left out"), "{answer}");
    assert_eq!(answer["messages"].as_array().unwrap().len(), 6, "the turns are still there, their results are not: {answer}");
}

#[tokio::test]
async fn a_turn_that_grows_too_long_itself_keeps_its_calls_answered() {
    let fake = Fake::start(Mood::Modern).await;
    let worker = Worker::start(&script(SUMMARY), &[fake.entry("fake")], &[]).await;
    let (status, answer) = worker.ask(json!({"message": "dirty, please"})).await;
    // The stand-in refuses a conversation in which a call has not exactly one result: that it answered is the proof.
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("complete")), "{answer}");
    assert_eq!(statuses(&worker), [("messages", 200), ("messages", 400), ("messages", 200)]);
}

#[tokio::test]
async fn a_question_that_is_too_long_itself_is_told_so() {
    let worker = Worker::start(&script(SUMMARY), &[], &[]).await;
    let (status, answer) = worker.ask(json!({"message": "word ".repeat(5_000)})).await;
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("too_long")), "{answer}");
}

#[tokio::test]
async fn chat_completions_are_shortened_by_estimate_and_by_refusal() {
    for window in ["0", "4500"] {
        let args = ["--model-api", "openai", "--model", "m", "--context-tokens", window, "--max-tokens", "500"];
        let worker = Worker::start(&script(SUMMARY), &[], &args).await;
        let (status, answer) = worker.ask(json!({"message": "and now?", "messages": long()})).await;
        assert_eq!((status, answer["answer"].as_str()), (200, Some("So it goes on.")), "{window}: {answer}");
        let refused = statuses(&worker).iter().filter(|(_, status)| *status == 400).count();
        assert_eq!(refused, usize::from(window == "0"));
    }
}

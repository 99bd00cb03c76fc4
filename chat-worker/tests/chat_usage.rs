//! What it costs: the budget of a day, the account over a restart, and answers that are used again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;
use support::{
    Fake, Mood, Worker,
    nasty::{Act, Nasty},
};

const PLAIN: &str = "otherwise: {text: 'An answer.'}";

const TOOLS: &str = r#"
rules:
  - {name: echo, when: [echo], steps: [{text: "Looking.", tools: [{tool: echo, input: {text: hello}}]}, {text: "It said {{said}}."}]}
  - {name: fail, when: [fail], steps: [{tools: [{tool: fail}]}, {text: "It failed."}]}
  - {name: wipe, when: [wipe], steps: [{tools: [{tool: wipe, input: {text: all}}]}, {text: "Wiped {{said}}."}]}
otherwise: {text: "Hello."}
"#;

#[tokio::test]
async fn a_warning_comes_once_and_then_nothing_is_asked_any_more() {
    // An answer of the stand-in to this takes 40 to 60 tokens.
    let args = ["--budget-tokens-per-day", "100", "--budget-alert-percent", "30"];
    let worker = Worker::start(PLAIN, &[], &args).await;
    let mut notices = Vec::new();
    let mut answers = 0;
    let refused = loop {
        let (status, answer) = worker.ask(json!({"message": "hi"})).await;
        if status != 200 {
            break answer;
        }
        notices.extend(answer["notices"].as_array().unwrap().clone());
        answers += 1;
        assert!(answers < 10, "the budget has no end: {answer}");
    };
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].as_str().unwrap().contains("budget of 100 tokens"), "{notices:?}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("midnight UTC"), "{refused}");
    assert_eq!(worker.model.standin.seen().len(), answers);
    let metrics = worker.http.get(format!("{}/metrics", worker.url)).send().await.unwrap().text().await.unwrap();
    let percent = metrics.lines().find_map(|line| line.strip_prefix("mcpfleet_chat_budget_used_percent ")).unwrap();
    assert!(percent.parse::<u64>().unwrap() >= 100, "{percent}");
}

#[tokio::test]
async fn a_restart_does_not_begin_the_budget_anew() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state/usage.json");
    let args = ["--budget-tokens-per-day", "30", "--usage-file", file.to_str().unwrap()];
    let first = Worker::start(PLAIN, &[], &args).await;
    assert_eq!(first.ask(json!({"message": "hi"})).await.0, 200);
    // It is not stopped in order: a kill finds the file as it is after a second.
    for _ in 0..200 {
        if file.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = Worker::start(PLAIN, &[], &args).await;
    let (status, refused) = second.ask(json!({"message": "hi"})).await;
    assert_eq!(status, 429, "{refused}");
    let streamed =
        second.http.post(format!("{}/v1/chat", second.url)).json(&json!({"message": "hi", "stream": true})).send().await.unwrap();
    assert_eq!(streamed.status(), 429);
    assert!(streamed.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(second.model.standin.seen().is_empty());
}

#[tokio::test]
async fn tokens_that_the_server_does_not_tell_are_estimated_and_have_no_price() {
    let said = "twelve words and more, so that they are some tokens, all in all";
    let nasty = Nasty::start(vec![Act::Bytes(untold(said))]).await;
    let url = format!("http://{}", nasty.address);
    let worker = Worker::start(PLAIN, &[], &["--base-url", &url]).await;
    let (_, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((answer["answer"].as_str(), answer["cost"].is_null()), (Some(said), true), "{answer}");
    let today = worker.get("/v1/usage").await["today"].clone();
    assert_eq!((today["unpriced"].as_u64(), today["cost"].as_f64()), (Some(1), Some(0.0)));
    let used = &today["models"]["claude-haiku-5-5"];
    let (input, output) = (used["input_tokens"].as_u64().unwrap(), used["output_tokens"].as_u64().unwrap());
    assert!(input > 50 && output >= said.len() as u64 / 4, "four bytes to a token: {used}");
}

/// A whole answer of a priced model that does not tell its tokens.
fn untold(said: &str) -> String {
    let events = [
        json!({"type": "message_start", "message": {"model": "claude-haiku-5-5"}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        json!({"type": "message_stop"}),
    ];
    let events = events.map(|event| format!("data: {event}\n\n")).concat();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}")
}

/// A stream that tells its input, and nothing else.
const BEGUN: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: message_start\n\
    data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\n";

#[tokio::test]
async fn an_answer_that_breaks_off_is_paid_for_each_time() {
    let nasty = Nasty::start(vec![Act::Bytes(BEGUN.to_owned())]).await;
    let url = format!("http://{}", nasty.address);
    let worker = Worker::start(PLAIN, &[], &["--base-url", &url]).await;
    assert_ne!(worker.ask(json!({"message": "hi"})).await.0, 200);
    let attempts = nasty.requests.load(Ordering::SeqCst) as u64;
    assert!(attempts > 1);
    let today = worker.get("/v1/usage").await["today"].clone();
    assert_eq!(today["models"]["m"]["input_tokens"].as_u64(), Some(attempts * 11), "{today}");
}

/// The beginning of an answer by Chat Completions, which tells what it used at the end only.
fn untold_beginning(words: usize) -> String {
    let delta = json!({"role": "assistant", "content": "word".repeat(words)});
    let chunk = json!({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {chunk}\n\n")
}

#[tokio::test]
async fn what_breaks_off_before_its_tokens_are_told_is_estimated() {
    let whole = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"All.\"},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n";
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{whole}");
    let nasty = Nasty::start(vec![Act::Bytes(untold_beginning(100)), Act::Bytes(whole)]).await;
    let url = format!("http://{}", nasty.address);
    let worker = Worker::start(PLAIN, &[], &["--model-api", "openai", "--model", "m", "--openai-base-url", &url]).await;
    let (status, answer) = worker.ask(json!({"message": "hi"})).await;
    assert_eq!((status, answer["answer"].as_str(), answer["cost"].is_null()), (200, Some("All."), true), "{answer}");
    let used = worker.get("/v1/usage").await["today"]["models"]["m"].clone();
    assert_eq!((used["output_tokens"].as_u64(), &used), (Some(105), &answer["usage"]), "100 of them are a guess");
    assert!(used["input_tokens"].as_u64().unwrap() > 11 + 50, "{used}");
}

#[tokio::test]
async fn a_budget_is_not_passed_by_leaving_before_the_end() {
    let nasty = Nasty::start(vec![Act::Silent(untold_beginning(100))]).await;
    let url = format!("http://{}", nasty.address);
    let args = ["--model-api", "openai", "--model", "m", "--openai-base-url", &url, "--budget-tokens-per-day", "2000"];
    let worker = Worker::start(PLAIN, &[], &args).await;
    let question = json!({"message": "x".repeat(4_000)});
    for number in 1_u64.. {
        let mut stream = worker.http.post(format!("{}/v1/chat", worker.url)).json(&question).send().await.unwrap();
        if stream.status() == 429 {
            let told = stream.text().await.unwrap();
            assert!((2..=3).contains(&number) && told.contains("budget"), "{number}: {told}");
            break;
        }
        let mut told = String::new();
        while !told.contains("event: text") {
            told.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
        assert!(number < 3, "{number} questions of a thousand tokens have passed a budget of 2,000");
        drop(stream);
        let booked = async || worker.get("/v1/usage").await["today"]["usage"]["output_tokens"].as_u64();
        for _ in 0..200 {
            if booked().await >= Some(number * 100) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_any_more_is_paid_for() {
    let nasty = Nasty::start(vec![Act::Silent(BEGUN.to_owned())]).await;
    let url = format!("http://{}", nasty.address);
    let worker = Worker::start(PLAIN, &[], &["--base-url", &url]).await;
    let mut stream = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": "hi"})).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some(), "it has begun");
    while nasty.requests.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The first event of the model is on its way for as long as a loopback takes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stream);
    for _ in 0..200 {
        if worker.get("/v1/usage").await["today"]["models"]["m"]["input_tokens"] == 11 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("it is not booked: {}", worker.get("/v1/usage").await);
}

#[tokio::test]
async fn an_identical_request_that_asks_for_it_is_answered_from_the_cache() {
    let fake = Fake::start(Mood::Modern).await;
    let worker = Worker::start(TOOLS, &[fake.entry("fake")], &["--cache-seconds", "60"]).await;
    let ask = |message: &'static str, cache: bool| worker.ask(json!({"message": message, "cache": cache}));
    let (_, first) = ask("echo", true).await;
    let (_, second) = ask("echo", true).await;
    assert_eq!((&first["cached"], &second["cached"]), (&json!(false), &json!(true)));
    for field in ["answer", "messages", "outcome", "tool_calls", "model"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!((second["usage"]["output_tokens"].as_u64(), second["cost"].as_f64()), (Some(0), Some(0.0)));
    assert_eq!((worker.model.standin.seen().len(), fake.calls.lock().unwrap().len()), (2, 1));

    assert_eq!(ask("echo", false).await.1["cached"], false, "who does not ask for it gets a new answer");
    assert_eq!(ask("echo again", true).await.1["cached"], false);
    let before = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]);
    let (_, other) = worker.ask(json!({"message": "echo", "messages": before, "cache": true})).await;
    assert_eq!(other["cached"], false, "another conversation");
    let metrics = worker.http.get(format!("{}/metrics", worker.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("mcpfleet_chat_cache_lookups_total{outcome=\"hit\"} 1"), "{metrics}");
    assert!(metrics.contains("mcpfleet_chat_cache_lookups_total{outcome=\"miss\"} 3"), "{metrics}");
}

#[tokio::test]
async fn what_may_change_something_or_failed_is_never_taken_from_the_cache() {
    let fake = Fake::start(Mood::Modern).await;
    let args = ["--cache-seconds", "60", "--approvals", "always"];
    let worker = Worker::start(TOOLS, &[fake.entry("fake")], &args).await;
    for message in ["wipe", "wipe", "fail", "fail"] {
        let (_, answer) = worker.ask(json!({"message": message, "cache": true})).await;
        assert_eq!((&answer["cached"], answer["outcome"].as_str()), (&json!(false), Some("complete")), "{answer}");
    }
    assert_eq!(fake.calls.lock().unwrap().len(), 4);
    let off = Worker::start(TOOLS, &[fake.entry("fake")], &[]).await;
    for _ in 0..2 {
        assert_eq!(off.ask(json!({"message": "hi", "cache": true})).await.1["cached"], false, "it is off unless it is set");
    }
}

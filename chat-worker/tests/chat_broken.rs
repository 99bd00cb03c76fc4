//! More of what a model API can do wrong: streams cut at every byte, connections that die, answers that lead elsewhere, and
//! answers that are whole and still none.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime},
};

use futures::StreamExt;
use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    nasty::{Act, Nasty, event, events, good, http, spoiled, stream},
};

async fn worker(url: &str, args: &[&str]) -> Worker {
    let mut all = vec!["--base-url", url, "--rate-limit-requests", "0"];
    all.extend(args);
    Worker::start("otherwise: {text: x}", &[], &all).await
}

async fn ask(worker: &Worker) -> (u16, Value) {
    let answer = tokio::time::timeout(Duration::from_secs(40), worker.ask(json!({"message": "hi"})));
    answer.await.expect("nothing hangs")
}

fn url(api: &Nasty) -> String {
    format!("http://{}", api.address)
}

/// A good answer in other words.
fn with(from: &str, to: &str) -> Act {
    let body = events().concat();
    assert!(body.contains(from), "{from}");
    Act::Bytes(stream(&body.replace(from, to)))
}

#[tokio::test]
async fn a_stream_cut_anywhere_is_never_a_short_answer() {
    let body = events().concat();
    // The last blank line ends the last event; without it, nothing is complete.
    let whole = body.len() - 1;
    let api = Nasty::start(vec![Act::Cut(body)]).await;
    let worker = worker(&url(&api), &[]).await;
    // Every third: no word of the protocol is so short, and every byte takes a minute.
    let cuts: Vec<usize> = (0..whole).rev().step_by(3).collect();
    let asked = cuts.len();
    let answers = futures::stream::iter(cuts).map(|at| {
        let worker = &worker;
        async move {
            let (status, answer) = worker.ask(json!({"message": format!("cut {at}")})).await;
            assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "cut after {at} bytes: {answer}");
        }
    });
    answers.buffer_unordered(100).collect::<Vec<_>>().await;
    assert_eq!(api.requests.load(Ordering::SeqCst), 2 * asked, "each was asked for once more");
}

#[rstest]
#[case::no_reason(with("\"stop_reason\":\"end_turn\"", "\"stop_reason\":null"))]
#[case::a_call_that_is_not_there(with("end_turn", "tool_use"))]
#[case::an_index_twice(spoiled(2, &events()[1], 0))]
#[case::an_index_out_of_order(with("\"index\":0", "\"index\":1"))]
#[case::a_huge_event(spoiled(3, &format!("data: {}\n\n", "x".repeat(5 * 1024 * 1024)), 0))]
#[case::no_message(Act::Bytes(http("200 OK", "content-type: application/json\r\n", "{}")))]
#[case::no_content(Act::Bytes("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".into()))]
#[case::a_short_body(Act::Bytes(http("200 OK", "content-type: application/json\r\ncontent-length: 900\r\n", "{\"content\":")))]
#[case::no_http(Act::Bytes("SSH-2.0-OpenSSH_9.9\r\n".into()))]
#[case::half_a_head(Act::Bytes("HTTP/1.1 200 OK\r\ncontent-ty".into()))]
#[case::a_page_of_a_gateway(Act::Bytes(http("502 Bad Gateway", "content-type: text/html\r\n", "<html>Bad Gateway</html>")))]
#[case::an_error_that_never_ends(Act::Silent(http("503 Service Unavailable", "content-length: 99\r\n", "busy")))]
#[tokio::test]
async fn a_passing_fault_is_overcome(#[case] fault: Act) {
    let api = Nasty::start(vec![fault, good()]).await;
    let (status, answer) = ask(&worker(&url(&api), &["--stream-idle-seconds", "1"]).await).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    assert_eq!(api.requests.load(Ordering::SeqCst), 2);
}

#[rstest]
#[case::byte_by_byte(Act::Slow(stream(&events().concat())))]
#[case::without_names_of_events(Act::Bytes(stream(&events().concat().lines().filter(|line| !line.starts_with("event:")).collect::<Vec<_>>().join("\n"))))]
#[case::with_carriage_returns(Act::Bytes(stream(&events().concat().replace('\n', "\r\n"))))]
#[case::no_usage_at_the_end(with(",\"usage\":{\"output_tokens\":4}", ""))]
#[case::not_streamed(Act::Bytes(http("200 OK", "content-type: application/json; charset=utf-8\r\n",
    &json!({"type": "message", "model": "m", "stop_reason": "end_turn", "content": [{"type": "text", "text": "The whole answer."}]}).to_string())))]
#[tokio::test]
async fn what_is_only_odd_is_an_answer_at_once(#[case] act: Act) {
    let act = match act {
        // join took the last blank line away.
        Act::Bytes(text) if !text.ends_with('}') => Act::Bytes(text + "\n\n"),
        other => other,
    };
    let api = Nasty::start(vec![act]).await;
    let (status, answer) = ask(&worker(&url(&api), &[]).await).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    assert_eq!(api.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_delta_of_megabytes_arrives_whole() {
    let large = "long ".repeat(600_000);
    let api = Nasty::start(vec![with("The whole ", &large)]).await;
    let (status, answer) = ask(&worker(&url(&api), &[]).await).await;
    assert_eq!((status, answer["answer"].as_str().unwrap().len()), (200, large.len() + "answer.".len()));
}

#[tokio::test]
async fn a_connection_that_dies_between_requests_costs_nobody_an_answer() {
    let body = events().concat();
    let kept = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let api = Nasty::start(vec![Act::Tired(kept)]).await;
    let worker = worker(&url(&api), &[]).await;
    for _ in 0..4 {
        let (status, answer) = ask(&worker).await;
        assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_says_so() {
    let elsewhere = Nasty::start(vec![good()]).await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let head = format!("location: {}/v1/messages\r\n", url(&elsewhere));
        let api = Nasty::start(vec![Act::Bytes(http(status, &head, ""))]).await;
        let (status, answer) = ask(&worker(&url(&api), &[]).await).await;
        assert_eq!((status, answer["error"]["kind"].as_str()), (502, Some("redirect")), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("ANTHROPIC_BASE_URL"), "{answer}");
        assert_eq!(api.requests.load(Ordering::SeqCst), 1);
    }
    assert_eq!(elsewhere.requests.load(Ordering::SeqCst), 0, "the key stays here");
}

#[tokio::test]
async fn tls_with_a_server_that_has_none_is_a_clear_error() {
    let api = Nasty::start(vec![good()]).await;
    let (status, answer) = ask(&worker(&format!("https://{}", api.address), &[]).await).await;
    assert_eq!((status, answer["error"]["kind"].as_str()), (502, Some("connect")), "{answer}");
}

#[tokio::test]
async fn the_words_of_an_error_that_is_no_json_are_told() {
    let body = "upstream connect error; key sk-ant-api03-secret";
    let api = Nasty::start(vec![Act::Bytes(http("400 Bad Request", "content-type: text/plain\r\n", body))]).await;
    let (_, answer) = ask(&worker(&url(&api), &[]).await).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("upstream connect error") && !message.contains("secret"), "{message}");
}

#[tokio::test]
async fn an_api_that_never_answers_ends_in_time() {
    let api = Nasty::start(vec![Act::Silent(String::new())]).await;
    let began = Instant::now();
    let (status, answer) = ask(&worker(&url(&api), &["--stream-idle-seconds", "1"]).await).await;
    assert_eq!((status, answer["error"]["kind"].as_str()), (502, Some("connect")), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(api.requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_date_to_wait_for_is_waited_for() {
    let due = SystemTime::now() + Duration::from_secs(3);
    let date = jiff::Timestamp::try_from(due).unwrap().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let second = jiff::Timestamp::try_from(due).unwrap().as_second();
    let head = format!("content-type: application/json\r\nretry-after: {date}\r\n");
    let error = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}).to_string();
    let api = Nasty::start(vec![Act::Bytes(http("429 Too Many Requests", &head, &error)), good()]).await;
    assert_eq!(ask(&worker(&url(&api), &[]).await).await.0, 200);
    let now = jiff::Timestamp::now();
    assert!(now.as_second() >= second && now.as_second() < second + 3, "{now} {date}");
}

#[rstest]
#[case::a_refusal("refusal", "refused", 1)]
#[case::pauses_without_end("pause_turn", "paused", 6)]
#[case::the_longest_answer("max_tokens", "truncated", 1)]
#[tokio::test]
async fn every_end_has_its_outcome(#[case] reason: &str, #[case] outcome: &str, #[case] requests: usize) {
    let api = Nasty::start(vec![with("end_turn", reason)]).await;
    let (status, answer) = ask(&worker(&url(&api), &[]).await).await;
    assert_eq!((status, answer["outcome"].as_str()), (200, Some(outcome)), "{answer}");
    assert_eq!(api.requests.load(Ordering::SeqCst), requests);
}

#[tokio::test]
async fn an_overload_in_every_form_leads_to_the_fallback() {
    let inside = json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}});
    for act in [Act::Bytes(http("529 Overloaded", "", "busy")), spoiled(4, &event(&inside), 4)] {
        let api = Nasty::start(vec![act.clone(), act.clone(), act, good()]).await;
        let (status, answer) = ask(&worker(&url(&api), &["--model-fallback", "smaller"]).await).await;
        assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    }
}

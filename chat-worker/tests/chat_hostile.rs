//! A model API that does everything wrong that bytes can do, one case a fault: a passing fault is overcome, a lasting one is a
//! clear error, and none hangs or is shown as an answer.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    nasty::{Act, Nasty, event, events, good, http, spoiled, stream},
};

fn error_body(kind: &str) -> String {
    json!({"type": "error", "error": {"type": kind, "message": "on \u{1b}[2Jpurpose"}}).to_string()
}

fn refusal(status: &str, header: &str) -> Act {
    let headers = format!("content-type: application/json\r\n{header}");
    Act::Bytes(http(status, &headers, &error_body("overloaded_error")))
}

async fn worker(api: &Nasty, args: &[&str]) -> Worker {
    let url = format!("http://{}", api.address);
    let mut all = vec!["--base-url", url.as_str(), "--stream-idle-seconds", "1"];
    all.extend(args);
    Worker::start("otherwise: {text: x}", &[], &all).await
}

async fn ask(worker: &Worker) -> (u16, Value) {
    let answer = tokio::time::timeout(Duration::from_secs(30), worker.ask(json!({"message": "hi"})));
    answer.await.expect("nothing hangs")
}

#[tokio::test]
async fn a_stream_cut_off_after_any_event_is_tried_again() {
    for kept in 0..events().len() {
        for reset in [false, true] {
            let cut = stream(&events()[..kept].concat());
            let api = Nasty::start(vec![if reset { Act::Reset(cut) } else { Act::Bytes(cut) }, good()]).await;
            let (status, answer) = ask(&worker(&api, &[]).await).await;
            assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{kept} {reset}: {answer}");
            assert_eq!(api.requests.load(Ordering::SeqCst), 2, "{kept} {reset}");
        }
    }
}

#[rstest]
#[case::overload_before(refusal("529 Overloaded", ""))]
#[case::overload_inside(spoiled(4, &event(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})), 4))]
#[case::error_as_a_message(Act::Bytes(http("200 OK", "content-type: application/json\r\n", &error_body("api_error"))))]
#[case::half_an_event(spoiled(3, "event: content_block_delta\ndata: {\"type\": \"cont\n\n", 0))]
#[case::no_json(spoiled(3, "data: <html>\n\n", 0))]
#[case::a_second_start(spoiled(3, &events()[0], 0))]
#[case::a_delta_of_no_block(spoiled(3, &event(&json!({"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "x"}})), 0))]
#[case::html(Act::Bytes(http("200 OK", "content-type: text/html\r\n", "<html>")))]
#[case::no_type(Act::Bytes(http("200 OK", "", "x")))]
#[case::empty(Act::Bytes(http("200 OK", "content-type: text/event-stream\r\ncontent-length: 0\r\n", "")))]
#[case::nothing_at_all(Act::Bytes(String::new()))]
#[case::reset_at_once(Act::Reset(String::new()))]
#[case::a_broken_call(Act::Bytes(stream(&[
    events()[0].clone(),
    event(&json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "a", "input": {}}})),
    event(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"a"}})),
    event(&json!({"type": "content_block_stop", "index": 0})),
    event(&json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}})),
    event(&json!({"type": "message_stop"})),
].concat())))]
#[case::a_drip_without_end_of_line(Act::Drip(stream("data: "), "x".into()))]
#[tokio::test]
async fn a_passing_fault_is_overcome(#[case] fault: Act) {
    let api = Nasty::start(vec![fault, good()]).await;
    let (status, answer) = ask(&worker(&api, &[]).await).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    assert_eq!(api.requests.load(Ordering::SeqCst), 2);
}

#[rstest]
#[case::unknown_event(spoiled(3, "event: brand_new\ndata: {\"type\": \"brand_new\"}\n\n", 0))]
#[case::unknown_delta(spoiled(3, &event(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "x": 1}})), 0))]
#[case::comment(spoiled(3, ": keep-alive\n\n", 0))]
#[case::a_second_stop(spoiled(8, &events()[7], 0))]
#[case::unknown_stop_reason(Act::Bytes(stream(&events().concat().replace("end_turn", "brand_new"))))]
#[case::odd_case_of_the_type(Act::Bytes(http("200 OK", "content-type: Text/Event-Stream; charset=UTF-8\r\n", &events().concat())))]
#[case::nonsense_of_usage(Act::Bytes(stream(&events().concat().replace("\"output_tokens\":4", "\"output_tokens\":18446744073709551615"))))]
#[tokio::test]
async fn what_is_only_odd_is_no_fault(#[case] act: Act) {
    let api = Nasty::start(vec![act]).await;
    let (status, answer) = ask(&worker(&api, &[]).await).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("The whole answer.")), "{answer}");
    assert_eq!(api.requests.load(Ordering::SeqCst), 1);
}

#[rstest]
#[case::seconds("retry-after: 1\r\n", 1_000)]
#[case::milliseconds("retry-after-ms: 300\r\nretry-after: 9\r\n", 300)]
#[case::past_date("retry-after: Sun, 06 Nov 1994 08:49:47 GMT\r\n", 0)]
#[case::junk("retry-after: soon\r\n", 375)]
#[tokio::test]
async fn the_wait_that_is_asked_for_is_kept(#[case] header: &str, #[case] at_least_ms: u64) {
    let api = Nasty::start(vec![refusal("429 Too Many Requests", header), good()]).await;
    let worker = worker(&api, &[]).await;
    let began = Instant::now();
    assert_eq!(ask(&worker).await.0, 200);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(at_least_ms) && took < Duration::from_millis(at_least_ms + 5_000), "{took:?}");
}

#[rstest]
#[case::pings(Act::Drip(stream(&events()[0]), event(&json!({"type": "ping"}))), "deadline", 504)]
#[case::an_odd_error(Act::Bytes(http("400 Bad Request", "content-type: application/json\r\n", &error_body("Odd Kind!"))), "status", 502)]
#[tokio::test]
async fn a_lasting_fault_is_a_clear_error_in_time(#[case] act: Act, #[case] kind: &str, #[case] code: u16) {
    let api = Nasty::start(vec![act]).await;
    let (status, answer) = ask(&worker(&api, &["--model-timeout-seconds", "3"]).await).await;
    assert_eq!((status, answer["error"]["kind"].as_str()), (code, Some(kind)), "{answer}");
    assert!(!answer.to_string().contains("\\u001b"), "no control characters reach a person: {answer}");
    assert_eq!(answer["messages"][0]["content"][0]["text"], "hi", "the conversation can be resumed");
}

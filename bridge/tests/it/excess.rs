//! Children and clients that take more than is theirs, or leave at the worst moment: what they cost is bounded, and nobody else pays.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::support::{Bridge, Events, alive, answer, child, initialize, messages, tools_call, until};

const PATIENT: &str = "--max-deaths 0 --max-backoff-seconds 0";

/// What a bridge may come to hold of what somebody sends without end, and of its allocator's own.
const BOUND: u64 = 24 << 20;

/// Resident memory, in bytes.
fn memory(bridge: &Bridge) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", bridge.process.id())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn a_child_that_asks_without_end_and_reads_nothing_costs_no_memory() {
    let bridge = Bridge::start_ready("", &child("legacy")).await;
    let before = memory(&bridge);
    let flooded = bridge.text(None, "ping-flood", json!({"pings": 200_000})).await;
    assert_eq!(flooded, "flooded");
    let more = memory(&bridge).saturating_sub(before);
    assert!(more < BOUND, "{more} bytes for answers that nobody reads");
}

#[tokio::test]
async fn a_child_that_asks_its_client_without_end_costs_no_memory() {
    let bridge = Bridge::start("--sessions per-session", &child("legacy")).await;
    let session = bridge.initialize(json!({"elicitation": {}})).await;
    let before = memory(&bridge);
    let heard = messages(bridge.post(Some(&session), &tools_call("ask-flood", json!({"questions": 50_000}))).await).await;
    assert!(heard.iter().any(|message| message["method"] == "elicitation/create"), "some are asked");
    let more = memory(&bridge).saturating_sub(before);
    assert!(more < BOUND, "{more} bytes for questions that are open");
    assert_eq!(bridge.text(Some(&session), "echo", json!({"a": 1})).await, json!({"a": 1}));
}

#[tokio::test]
async fn a_client_that_tells_without_end_what_its_child_does_not_read_is_told_to_come_again() {
    let bridge = Bridge::start("--sessions per-session", &child("legacy")).await;
    let session = bridge.initialize(json!({})).await;
    assert_eq!(bridge.text(Some(&session), "stop-reading", json!({})).await, "deaf");
    let before = memory(&bridge);
    let told = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed", "params": {"x": "x".repeat(1 << 20)}});
    let mut refused = 0;
    for _ in 0..40 {
        let response = bridge.post(Some(&session), &told).await;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(response.headers().contains_key("retry-after"));
            refused += 1;
        } else {
            assert_eq!(response.status(), StatusCode::ACCEPTED);
        }
    }
    assert!((30..=34).contains(&refused), "8 MiB of 40 wait: {refused} were refused");
    let more = memory(&bridge).saturating_sub(before);
    assert!(more < BOUND, "{more} bytes for what is not read");
}

#[tokio::test]
async fn clients_that_read_no_answers_fill_no_memory_and_take_no_calls_from_others_for_ever() {
    const ANSWER: usize = 15 << 20;
    let bridge = Bridge::start_ready("", &child("legacy")).await;
    let address = bridge.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let body = tools_call("long", json!({"bytes": ANSWER})).to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\naccept: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut deaf = Vec::new();
    // One after the other, and some more than fit.
    while bridge.metric("bridge_unread_bytes").await < 128 << 20 {
        assert!(deaf.len() < 12, "they are counted");
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        deaf.push(stream);
        let waits = deaf.len() as u64 * ANSWER as u64;
        until("its answer", async || (bridge.metric("bridge_unread_bytes").await >= waits).then_some(())).await;
    }
    let refused = bridge.post(None, &tools_call("echo", json!({}))).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer(refused).await.to_string().contains("clients do not read the answers that wait for them"));
    drop(deaf);
    until("room", async || (bridge.metric("bridge_unread_bytes").await == 0).then_some(())).await;
    assert_eq!(bridge.text(None, "echo", json!({"a": 1})).await, json!({"a": 1}));
}

/// A server that is up when a file is there, and the file to which each start adds a line.
fn comes_up_with(go: &Path, starts: &Path) -> Vec<String> {
    let wait = format!("echo >>{}; until [ -e {} ]; do sleep 0.05; done; exec \"$@\"", starts.display(), go.display());
    ["sh".to_owned(), "-c".to_owned(), wait, "sh".to_owned()].into_iter().chain(child("legacy")).collect()
}

#[tokio::test]
async fn clients_that_hang_up_before_their_child_is_there_take_no_place_and_leave_it_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (go, starts) = (folder.path().join("go"), folder.path().join("starts"));
    let bridge = Bridge::start("--sessions per-session --max-sessions 1", &comes_up_with(&go, &starts)).await;
    for _ in 0..3 {
        // That the one before hung up is heard a moment later: until then there is no place.
        until("a client that waits for its child", async || {
            let hasty = bridge.request(Method::POST, "/mcp").header("accept", "application/json, text/event-stream");
            let hasty = hasty.json(&initialize(json!({}))).timeout(Duration::from_millis(300));
            match hasty.send().await {
                Ok(refused) => {
                    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "the child is not up");
                    None
                }
                Err(_) => Some(()),
            }
        })
        .await;
    }
    let ready = bridge.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE, "nobody could be served yet");
    std::fs::write(go, "").unwrap();
    let patient = until("a place", async || {
        let response = bridge.post(None, &initialize(json!({}))).await;
        (response.status() == StatusCode::OK).then_some(response)
    })
    .await;
    let session = patient.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    assert_eq!(bridge.text(Some(&session), "echo", json!({})).await, json!({}));
    assert_eq!(std::fs::read_to_string(starts).unwrap().lines().count(), 1, "it was left to come up");
}

#[tokio::test]
async fn a_child_that_dies_at_its_first_word_gives_its_place_back_once() {
    let bridge =
        Bridge::start("--sessions per-session --max-sessions 2 --session-idle-seconds 1", &child("legacy die-at-initialize"))
            .await;
    let begin = async || answer(bridge.post(None, &initialize(json!({}))).await).await["error"]["data"]["reason"].clone();
    assert_eq!(begin().await, "ServerExited");
    // Time for what is left of its session to be found idle.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(bridge.metric("bridge_sessions").await, 0);
    for _ in 0..3 {
        assert_eq!(begin().await, "ServerExited");
    }
}

#[rstest]
#[tokio::test]
async fn a_call_that_has_made_progress_is_answered_on_its_stream_when_the_child_dies(#[values("legacy", "modern")] era: &str) {
    let bridge = Bridge::start(PATIENT, &child(era)).await;
    let mut body = tools_call("progress-and-die", json!({}));
    body["params"]["_meta"] = json!({"progressToken": "mine"});
    let heard = messages(bridge.post(None, &body).await).await;
    assert_eq!((heard.len(), &heard[0]["params"]["progressToken"]), (2, &json!("mine")), "{heard:?}");
    assert_eq!((&heard[1]["id"], &heard[1]["error"]["data"]["exitCode"]), (&json!("c"), &json!(5)), "{heard:?}");
}

#[rstest]
#[tokio::test]
async fn who_inherits_a_dead_childs_pipes_holds_up_no_answer(#[values(false, true)] away: bool) {
    let bridge = Bridge::start(PATIENT, &child("legacy")).await;
    bridge.text(None, "echo", json!({})).await;
    let began = Instant::now();
    let died = bridge.call(None, "heir", json!({"away": away})).await;
    assert_eq!(died["error"]["data"]["signal"], "SIGKILL", "{died}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let heir = bridge.logged("heir ").await.rsplit_once(' ').unwrap().1.parse().unwrap();
    until("the end of the heir", async || (!alive(heir)).then_some(())).await;
    assert_eq!(bridge.text(None, "echo", json!({"a": 1})).await, json!({"a": 1}));
}

#[tokio::test]
async fn a_child_that_closes_its_input_and_lives_is_replaced() {
    let bridge = Bridge::start_ready("--timeout-seconds 1 --restart-after-seconds 2", &child("legacy")).await;
    assert_eq!(bridge.text(None, "close-stdin", json!({})).await, "closed");
    let began = Instant::now();
    until("a child that hears", async || bridge.call(None, "echo", json!({})).await.get("result").map(|_| ())).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn odd_answers_are_passed_on_or_said_to_be_odd() {
    let bridge = Bridge::start("", &child("legacy")).await;
    // Deeper than what is read as a tree may be, and not read as one.
    let deep = bridge.post(None, &tools_call("deep", json!({"levels": 20_000}))).await.text().await.unwrap();
    assert_eq!(deep.matches("{\"a\":").count(), 20_000);
    let both = bridge.call(None, "both", json!({})).await;
    assert_eq!((&both["id"], &both["error"]["data"]["reason"]), (&json!("c"), &json!("Unreadable")), "{both}");
    assert_eq!(bridge.text(None, "early", json!({})).await, "mine");
    assert_eq!(bridge.text(None, "echo", json!({"a": 1})).await, json!({"a": 1}), "no answer is kept for a call to come");
}

/// In the middle of a stream; before its answer begins it is in cancel.rs.
#[rstest]
#[tokio::test]
async fn a_modern_client_that_leaves_its_stream_cancels_its_call(#[values("legacy", "modern")] era: &str) {
    let bridge = Bridge::start_ready("", &child(era)).await;
    let arguments = json!({"steps": 200, "pause": 0.1});
    let params = json!({"name": "progress", "arguments": arguments, "_meta": {"progressToken": 1}});
    let mut stream = Events::of(bridge.modern(&json!(1), "tools/call", &params).send().await.unwrap());
    assert_eq!(stream.next().await.unwrap()["params"]["progress"], 0);
    drop(stream);
    let cancelled = async || {
        let seen = bridge.text(None, "seen", json!({})).await;
        seen["cancelled"].as_array().filter(|all| !all.is_empty()).cloned()
    };
    assert_eq!(until("a cancellation", cancelled).await.len(), 1);
    assert_eq!(bridge.metric("bridge_calls_in_flight").await, 0);
}

#[tokio::test]
async fn a_modern_client_that_leaves_its_subscription_ends_it() {
    let bridge = Bridge::start_ready("", &child("modern")).await;
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let mut stream = Events::of(bridge.modern(&json!(7), "subscriptions/listen", &filter).send().await.unwrap());
    assert_eq!(stream.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    drop(stream);
    until("a cancellation", async || {
        let seen = bridge.text(None, "seen", json!({})).await;
        seen["cancelled"].as_array().filter(|all| !all.is_empty()).map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_ended_during_its_call_leaves_no_call_and_no_child() {
    let bridge = Bridge::start("--sessions per-session", &child("legacy")).await;
    let session = bridge.initialize(json!({})).await;
    let pid = bridge.text(Some(&session), "seen", json!({})).await["pid"].as_i64().unwrap();
    let never = tools_call("never", json!({}));
    let call = bridge.post(Some(&session), &never);
    let end = async {
        until("the call", async || (bridge.metric("bridge_calls_in_flight").await >= 1).then_some(())).await;
        let end = bridge.request(Method::DELETE, "/mcp").header("mcp-session-id", &session).send().await.unwrap();
        assert_eq!(end.status(), StatusCode::OK);
    };
    let (response, ()) = tokio::join!(call, end);
    assert_eq!(answer(response).await["error"]["data"]["reason"], "ServerExited");
    until("the end of its child", async || (!alive(pid)).then_some(())).await;
    assert_eq!(bridge.metric("bridge_calls_in_flight").await, 0);
}

#[tokio::test]
async fn a_cancellation_that_means_nothing_changes_nothing() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let session = bridge.initialize(json!({})).await;
    let slow = bridge.call(Some(&session), "sleep", json!({"seconds": 1}));
    let cancel = async {
        until("the call", async || (bridge.metric("bridge_calls_in_flight").await >= 1).then_some(())).await;
        for id in [json!("another"), json!(["c"]), json!({"c": 1}), Value::Null, json!(1)] {
            let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
            assert_eq!(bridge.post(Some(&session), &cancel).await.status(), StatusCode::ACCEPTED, "{id}");
        }
    };
    let (slept, ()) = tokio::join!(slow, cancel);
    assert_eq!(crate::support::text(&slept), "slept");
}

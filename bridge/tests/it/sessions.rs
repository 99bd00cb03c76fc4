//! Sessions: whose they are, over replicas and restarts, and with a child of their own.

use std::time::Duration;

use base64::Engine as _;
use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Bridge, Events, answer, child, children_of, initialize, text, tools_call, until};

pub fn keys() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), base64::engine::general_purpose::STANDARD.encode([7; 32])).unwrap();
    file
}

/// Replicas have addresses of their own and one port.
pub async fn replica(address: &str, port: u16, keys: &tempfile::NamedTempFile, more: &str) -> Bridge {
    let flags = format!("--listen {address}:{port} --pod-ip {address} --session-key-file {} {more}", keys.path().display());
    Bridge::start(&flags, &child("legacy")).await
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn any_replica_hands_a_session_on_to_its_owner() {
    let (keys, port) = (keys(), free_port());
    let (one, two) = (replica("127.0.0.2", port, &keys, "").await, replica("127.0.0.3", port, &keys, "").await);
    let session = one.initialize(json!({})).await;
    let pid = one.text(Some(&session), "seen", json!({})).await["pid"].clone();
    assert_eq!(two.text(Some(&session), "seen", json!({})).await["pid"], pid);
    // Streams, too, and the end.
    let listen = two.request(Method::GET, "/mcp").header("mcp-session-id", &session).header("accept", "text/event-stream");
    let mut stream = Events::of(listen.send().await.unwrap());
    one.text(None, "change-tools", json!({})).await;
    assert_eq!(stream.next().await.unwrap()["method"], "notifications/tools/list_changed");
    assert_eq!(two.request(Method::DELETE, "/mcp").header("mcp-session-id", &session).send().await.unwrap().status(), 200);
    assert_eq!(two.post(Some(&session), &tools_call("echo", json!({}))).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(one.post(Some(&session), &tools_call("echo", json!({}))).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_session_outlives_its_replica_and_its_bridge_where_the_child_is_shared() {
    let (keys, port) = (keys(), free_port());
    let (one, two) = (replica("127.0.0.4", port, &keys, "").await, replica("127.0.0.5", port, &keys, "").await);
    let session = one.initialize(json!({})).await;
    drop(one);
    assert_eq!(two.text(Some(&session), "echo", json!({"a": 1})).await, json!({"a": 1}));
    let again = replica("127.0.0.4", port, &keys, "").await;
    assert_eq!(again.text(Some(&session), "echo", json!({"a": 2})).await, json!({"a": 2}));
}

#[tokio::test]
async fn a_replica_that_ends_gives_back_what_it_is_handed_and_finishes_what_it_has() {
    let (keys, port) = (keys(), free_port());
    let flags = "--lame-duck-seconds 2";
    let (one, two) = (replica("127.0.0.8", port, &keys, flags).await, replica("127.0.0.9", port, &keys, "").await);
    let session = one.initialize(json!({})).await;
    let owner = two.text(Some(&session), "seen", json!({})).await["pid"].clone();
    let slow = two.text(Some(&session), "sleep", json!({"seconds": 1}));
    let ending = async {
        until("the call", async || (one.metric("bridge_calls_in_flight").await >= 1).then_some(())).await;
        one.signal("-TERM");
        let draining = async || one.request(Method::GET, "/readyz").send().await.unwrap().status().is_server_error();
        until("the beginning of its end", async || draining().await.then_some(())).await;
        let next = two.text(Some(&session), "seen", json!({})).await["pid"].clone();
        assert_ne!(next, owner, "it is taken over while its owner is still there");
        assert_eq!(one.text(Some(&session), "seen", json!({})).await["pid"], owner, "whoever asks itself is answered");
    };
    let (slept, ()) = tokio::join!(slow, ending);
    assert_eq!(slept, "slept");
    assert_eq!(two.metric("bridge_forwarded_total{outcome=\"given_back\"}").await, 1);
}

#[tokio::test]
async fn a_stream_for_a_session_of_another_replica_does_not_hold_up_the_end() {
    let (keys, port) = (keys(), free_port());
    let flags = "--lame-duck-seconds 0";
    let (one, mut two) = (replica("127.0.0.10", port, &keys, "").await, replica("127.0.0.11", port, &keys, flags).await);
    let session = one.initialize(json!({})).await;
    let listen = two.request(Method::GET, "/mcp").header("mcp-session-id", &session).header("accept", "text/event-stream");
    let mut stream = Events::of(listen.send().await.unwrap());
    one.text(None, "change-tools", json!({})).await;
    assert_eq!(stream.next().await.unwrap()["method"], "notifications/tools/list_changed");
    two.signal("-TERM");
    assert!(stream.next().await.is_none(), "it ends whole, and is not cut off");
    assert_eq!(two.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_session_with_a_child_of_its_own_ends_with_it() {
    let (keys, port) = (keys(), free_port());
    let flags = "--sessions per-session";
    let (one, two) = (replica("127.0.0.6", port, &keys, flags).await, replica("127.0.0.7", port, &keys, flags).await);
    let session = one.initialize(json!({})).await;
    assert_eq!(two.text(Some(&session), "echo", json!({})).await, json!({}));
    let died = one.call(Some(&session), "die", json!({"code": 4})).await;
    assert_eq!(died["error"]["data"]["exitCode"], 4, "{died}");
    assert_eq!(one.post(Some(&session), &tools_call("echo", json!({}))).await.status(), StatusCode::NOT_FOUND);
    let next = one.initialize(json!({})).await;
    drop(one);
    assert_eq!(two.post(Some(&next), &tools_call("echo", json!({}))).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_replica_that_hangs_is_waited_for_as_long_as_a_call_may_take() {
    let (keys, port) = (keys(), free_port());
    let flags = "--timeout-seconds 2";
    let (one, two) = (replica("127.0.0.12", port, &keys, flags).await, replica("127.0.0.13", port, &keys, flags).await);
    one.logged("child speaks MCP").await;
    two.logged("child speaks MCP").await;
    let (session, other) = (one.initialize(json!({})).await, one.initialize(json!({})).await);
    assert_eq!(two.text(Some(&session), "echo", json!({})).await, json!({}));
    one.signal("-STOP");
    // What may be done twice is done here.
    let list = json!({"jsonrpc": "2.0", "id": "l", "method": "tools/list"});
    let call = tools_call("echo", json!({}));
    let (called, listed) = tokio::join!(two.post(Some(&session), &call), two.post(Some(&other), &list));
    assert_eq!(answer(listed).await["result"]["tools"][0]["name"], "echo");
    assert_eq!(called.status(), StatusCode::BAD_GATEWAY);
    let told = answer(called).await;
    assert_eq!((&told["id"], &told["error"]["data"]["reason"]), (&json!("c"), &json!("ReplicaLost")), "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("did not answer in the time of a call"), "{told}");
    let began = Instant::now();
    assert_eq!(two.text(Some(&session), "echo", json!({"a": 1})).await, json!({"a": 1}));
    assert!(began.elapsed() < Duration::from_secs(3), "the next call waits for it no more: {:?}", began.elapsed());
}

#[rstest]
#[tokio::test]
async fn a_client_whose_child_does_not_initialize_has_no_session_and_keeps_no_place(
    #[values("die-at-initialize", "refuse-initialize")] how: &str,
) {
    let bridge = Bridge::start("--sessions per-session --max-sessions 1", &child(&format!("legacy {how}"))).await;
    for _ in 0..2 {
        let response = bridge.post(None, &initialize(json!({}))).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("mcp-session-id"));
        let failed = answer(response).await;
        assert!(failed["error"].is_object() && failed["id"] == "init", "{failed}");
    }
}

#[tokio::test]
async fn a_session_is_its_callers() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let with = |session: Option<&str>, token: &str, body: &Value| {
        let request = bridge.request(Method::POST, "/mcp").bearer_auth(token).json(body);
        session.iter().fold(request, |request, session| request.header("mcp-session-id", *session)).send()
    };
    let response = with(None, "alice", &initialize(json!({}))).await.unwrap();
    let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let echo = tools_call("echo", json!({}));
    assert_eq!(with(Some(&session), "mallory", &echo).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(bridge.post(Some(&session), &echo).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(with(Some(&session), "alice", &echo).await.unwrap().status(), StatusCode::OK);
    assert_eq!(with(Some("made-up"), "alice", &echo).await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn each_session_has_a_child_of_its_own_that_may_ask_its_client() {
    let bridge = Bridge::start("--sessions PerSession", &child("legacy")).await;
    let (one, other) = (bridge.initialize(json!({"elicitation": {}})).await, bridge.initialize(json!({"roots": {}})).await);
    let seen = [bridge.text(Some(&one), "seen", json!({})).await, bridge.text(Some(&other), "seen", json!({})).await];
    assert_ne!(seen[0]["pid"], seen[1]["pid"]);
    assert_eq!(seen[0]["initialize"]["capabilities"], json!({"elicitation": {}}));
    assert_eq!(seen[1]["initialize"]["clientInfo"]["name"], "test");
    let mut stream = Events::of(bridge.post(Some(&one), &tools_call("elicit", json!({}))).await);
    let question = stream.next().await.unwrap();
    assert_eq!(question["method"], "elicitation/create");
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "alice"}}});
    assert_eq!(bridge.post(Some(&one), &reply).await.status(), 202);
    assert_eq!(text(&stream.next().await.unwrap())["content"]["name"], "alice");
    // Without a session there is none.
    assert_eq!(bridge.post(None, &tools_call("echo", json!({}))).await.status(), StatusCode::BAD_REQUEST);
    // But a modern client needs none.
    let modern = bridge.modern(&json!(1), "tools/call", &json!({"name": "echo", "arguments": {}})).send().await.unwrap();
    assert_eq!(text(&answer(modern).await), json!({}));
}

#[rstest]
#[tokio::test]
async fn the_time_in_which_a_client_is_asked_something_is_not_its_calls(
    #[values(("per-session", "legacy"), ("shared", "modern"))] case: (&str, &str),
) {
    let flags = format!("--sessions {} --timeout-seconds 2 --max-call-seconds 2", case.0);
    let bridge = Bridge::start_ready(&flags, &child(case.1)).await;
    let (one, other) = (bridge.initialize(json!({"elicitation": {}})).await, bridge.initialize(json!({})).await);
    let mut stream = Events::of(bridge.post(Some(&one), &tools_call("elicit", json!({}))).await);
    let question = stream.next().await.unwrap();
    assert_eq!(question["method"], "elicitation/create");
    // All of a call's time passes meanwhile.
    assert_eq!(bridge.call(Some(&other), "never", json!({})).await["error"]["data"]["reason"], "Timeout");
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "alice"}}});
    assert_eq!(bridge.post(Some(&one), &reply).await.status(), 202);
    let answered = stream.next().await.unwrap();
    assert!(text(&answered).to_string().contains("alice"), "{answered}");
}

#[tokio::test]
async fn one_session_too_many_waits_until_another_is_over() {
    let bridge = Bridge::start("--sessions per-session --max-sessions 2 --session-idle-seconds 2", &child("legacy")).await;
    let (one, two) = (bridge.initialize(json!({})).await, bridge.initialize(json!({})).await);
    let refused = bridge.post(None, &initialize(json!({}))).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(bridge.request(Method::DELETE, "/mcp").header("mcp-session-id", &one).send().await.unwrap().status(), 200);
    let three = bridge.initialize(json!({})).await;
    let pid = bridge.text(Some(&two), "seen", json!({})).await["pid"].as_i64().unwrap();
    // Nobody uses them any more.
    until("the end of an idle child", async || (!crate::support::alive(pid)).then_some(())).await;
    assert_eq!(bridge.post(Some(&two), &tools_call("echo", json!({}))).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(bridge.post(Some(&three), &tools_call("echo", json!({}))).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sessions_are_counted_until_they_are_ended_or_idle() {
    let bridge = Bridge::start("--session-idle-seconds 3", &child("legacy")).await;
    let counted = async || bridge.metric("bridge_sessions").await;
    assert_eq!(counted().await, 0);
    let one = bridge.initialize(json!({})).await;
    bridge.initialize(json!({})).await;
    assert_eq!(counted().await, 2);
    let ended = bridge.request(Method::DELETE, "/mcp").header("mcp-session-id", &one).send().await.unwrap();
    assert_eq!((ended.status(), counted().await), (StatusCode::OK, 1));
    until("the end of the idle one", async || (counted().await == 0).then_some(())).await;
}

/// As the operator asks every pod, again and again.
#[rstest]
#[tokio::test]
async fn probes_leave_neither_a_session_nor_a_child(#[values("shared", "per-session")] sessions: &str) {
    let bridge = Bridge::start(&format!("--sessions {sessions}"), &child("both")).await;
    let probe = async || {
        let session = bridge.initialize(json!({})).await;
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        assert_eq!(answer(bridge.post(Some(&session), &list).await).await["result"]["tools"][0]["name"], "echo");
        let ended = bridge.request(Method::DELETE, "/mcp").header("mcp-session-id", &session).send().await.unwrap();
        assert_eq!(ended.status(), StatusCode::OK);
        for method in ["server/discover", "tools/list"] {
            let answered = answer(bridge.modern(&json!(1), method, &json!({})).send().await.unwrap()).await;
            assert_eq!(answered["result"]["resultType"], "complete", "{answered}");
        }
    };
    // What stands ready once somebody has asked in each era.
    probe().await;
    let children = if sessions == "shared" { 1 } else { 2 };
    let as_many = async || (children_of(bridge.process.id()).len() == children).then_some(());
    until("the children that stand ready", as_many).await;
    for _ in 0..50 {
        probe().await;
    }
    assert_eq!(bridge.metric("bridge_sessions").await, 0);
    until("as many children as before", as_many).await;
    assert_eq!(bridge.metric("bridge_children").await, u64::try_from(children).unwrap());
}

#[tokio::test]
async fn a_session_in_use_is_not_idle() {
    let bridge = Bridge::start("--sessions per-session --session-idle-seconds 1", &child("legacy")).await;
    let session = bridge.initialize(json!({})).await;
    assert_eq!(bridge.text(Some(&session), "sleep", json!({"seconds": 2.5})).await, "slept");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bridge.text(Some(&session), "echo", json!({})).await, json!({}));
}

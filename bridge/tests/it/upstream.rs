//! Beside a server that speaks HTTP itself: it goes through as it is, and calls are counted. The server is a bridge of its own here.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Bridge, Events, child, initialize, tools_call, until};

const METRICS: &str = "/mcpfleet/metrics";

async fn pair() -> (Bridge, Bridge) {
    let server = Bridge::start_ready("", &child("legacy")).await;
    let front = Bridge::beside(&server).await;
    (server, front)
}

async fn in_flight(front: &Bridge) -> u64 {
    front.metric_at(METRICS, "bridge_calls_in_flight").await
}

#[tokio::test]
async fn a_call_counts_until_its_answer_is_whole_and_what_stands_does_not() {
    let (_server, front) = pair().await;
    let session = front.initialize(json!({})).await;
    let listening =
        front.request(Method::GET, "/mcp").header("mcp-session-id", &session).header("accept", "text/event-stream").send();
    let mut listening = Events::of(listening.await.unwrap());
    let slow = front.text(Some(&session), "sleep", json!({"seconds": 2}));
    let counting = until("the call", async || (in_flight(&front).await == 1).then_some(()));
    let (slept, ()) = tokio::join!(slow, counting);
    assert_eq!(slept, "slept");
    assert_eq!(in_flight(&front).await, 0, "somebody listens, and calls nothing");
    assert_eq!(front.metric_at(METRICS, "bridge_sessions").await, 1);
    let ended = r#"bridge_calls_total{method="tools/call",outcome="ok",tool="sleep"}"#;
    assert_eq!(front.metric_at(METRICS, ended).await, 1);
    assert_eq!(front.metric("bridge_children").await, 1, "the server's own metrics are where they were");
    let gone = front.request(Method::DELETE, "/mcp").header("mcp-session-id", &session).send().await.unwrap();
    assert!(gone.status().is_success(), "{}", gone.status());
    assert_eq!(listening.next().await, None, "its stream ends as it comes");
    assert_eq!(front.metric_at(METRICS, "bridge_sessions").await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_call_with_it() {
    let (_server, front) = pair().await;
    let slow = front.modern(&json!(1), "tools/call", &json!({"name": "sleep", "arguments": {"seconds": 20}}));
    tokio::select! {
        _ = slow.send() => unreachable!("it takes its time"),
        () = until("the call", async || (in_flight(&front).await == 1).then_some(())) => {}
    }
    until("its end", async || (in_flight(&front).await == 0).then_some(())).await;
    let listening = front.modern(&json!(2), "subscriptions/listen", &json!({"notifications": {"toolsListChanged": true}}));
    let listening = listening.send().await.unwrap();
    assert!(listening.status().is_success(), "{}", listening.status());
    assert_eq!(in_flight(&front).await, 0);
}

#[tokio::test]
async fn calls_finish_when_it_is_told_to_stop_and_a_server_that_is_gone_is_told() {
    let (server, front) = pair().await;
    let slow = front.text(None, "sleep", json!({"seconds": 2}));
    let stopping = async {
        until("the call", async || (in_flight(&front).await == 1).then_some(())).await;
        front.signal("-TERM");
    };
    let (slept, ()) = tokio::join!(slow, stopping);
    assert_eq!(slept, "slept");
    let mut front = front;
    assert_eq!(front.ended().await.code(), Some(0));
    let front = Bridge::beside(&server).await;
    server.stop().await;
    let refused = front.post(None, &tools_call("echo", json!({}))).await;
    assert_eq!(refused.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(in_flight(&front).await, 0);
}

/// The kubelet asks before it tells the server to stop. A client that kept its connection would find the bridge there, and nobody behind it.
#[tokio::test]
async fn clients_change_over_while_the_pod_waits_for_its_last_call() {
    let (_server, front) = pair().await;
    let said_close = async || {
        let answer = front.request(Method::GET, "/mcpfleet/healthz").send().await.unwrap();
        answer.headers().get("connection").is_some_and(|value| value == "close")
    };
    let mut idle = TcpStream::connect(front.url.trim_start_matches("http://")).await.unwrap();
    idle.write_all(b"GET /mcpfleet/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    assert!(idle.read(&mut answer).await.unwrap() > 0);
    assert!(!said_close().await, "nobody is asked to go");
    let drained = front.request(Method::GET, "/mcpfleet/drained").send();
    let changed_over = async {
        until("the last answer of a connection", async || said_close().await.then_some(())).await;
        assert_eq!(idle.read(&mut answer).await.unwrap(), 0, "closed, as nobody asked on it");
        assert!(said_close().await, "and whoever comes is served");
    };
    tokio::select! {
        _ = drained => unreachable!("the pod waits until others know that it goes"),
        () = changed_over => {}
    }
}

#[tokio::test]
async fn large_and_slow_requests_go_on_as_they_come_and_are_calls() {
    let server = Bridge::start_ready("--max-request-bytes 67108864", &child("legacy")).await;
    let front = Bridge::beside(&server).await;
    let session = front.initialize(json!({})).await;
    let long = "x".repeat(20 << 20);
    let call = tools_call("seen", json!({"text": long}));
    let answered = front.post(Some(&session), &call).await;
    assert_eq!(answered.status(), StatusCode::OK, "more than the bridge itself takes by default");
    let ended = r#"bridge_calls_total{method="tools/call",outcome="ok",tool=""}"#;
    until("the call counted", async || (front.metric_at(METRICS, ended).await == 1).then_some(())).await;
}

#[tokio::test]
async fn what_the_operators_prober_asks_is_no_call_and_its_sessions_hold_no_pod() {
    let (_server, front) = pair().await;
    let ask = async |agent: &str, session: Option<&str>, body: serde_json::Value| {
        let request = front.request(Method::POST, "/mcp").header("accept", "application/json, text/event-stream");
        let request = request.header("user-agent", agent).json(&body);
        session.iter().fold(request, |request, session| request.header("mcp-session-id", *session)).send().await.unwrap()
    };
    let sessions = async || front.metric_at(METRICS, "bridge_sessions").await;
    let echoed = async || front.metric_at(METRICS, r#"bridge_calls_total{method="tools/call",outcome="ok",tool="echo"}"#).await;
    for (agent, counted) in [("mcpfleet-prober/0.1.0", 0), ("a client", 1)] {
        let opened = ask(agent, None, initialize(json!({}))).await;
        let session = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        opened.bytes().await.unwrap();
        let called = ask(agent, Some(&session), tools_call("echo", json!({}))).await;
        assert_eq!(called.status(), StatusCode::OK, "{agent}");
        called.bytes().await.unwrap();
        until("the call counted", async || (echoed().await == counted).then_some(())).await;
        assert_eq!(sessions().await, counted, "{agent}");
    }
}

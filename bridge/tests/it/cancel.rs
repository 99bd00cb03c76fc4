//! Clients that do not want any more, deadlines, and too much at once.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Bridge, Events, answer, child, messages, tools_call, until};

async fn cancelled(bridge: &Bridge) -> Vec<Value> {
    until("a cancellation", async || {
        let seen = bridge.text(None, "seen", json!({})).await;
        seen["cancelled"].as_array().filter(|all| !all.is_empty()).cloned()
    })
    .await
}

#[tokio::test]
async fn a_modern_client_cancels_by_hanging_up() {
    let bridge = Bridge::start_ready("", &child("legacy")).await;
    let call = bridge.modern(&json!(1), "tools/call", &json!({"name": "never"})).send();
    tokio::select! {
        _ = call => unreachable!("it is never answered"),
        () = until("the call", async || (bridge.metric("bridge_calls_in_flight").await == 1).then_some(())) => {}
    }
    assert_eq!(cancelled(&bridge).await.len(), 1);
    assert_eq!(bridge.metric(r#"bridge_calls_total{method="tools/call",outcome="cancelled",tool="never"}"#).await, 1);
}

#[tokio::test]
async fn a_legacy_client_cancels_its_own_call_by_its_own_id() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let (one, other) = (bridge.initialize(json!({})).await, bridge.initialize(json!({})).await);
    let never = tools_call("never", json!({}));
    let call = bridge.post(Some(&one), &never);
    let cancel = async {
        until("the call", async || (bridge.metric("bridge_calls_in_flight").await >= 1).then_some(())).await;
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c", "reason": "too late"}});
        assert_eq!(bridge.post(Some(&other), &cancel).await.status(), 202);
        assert_eq!(bridge.metric("bridge_calls_in_flight").await, 1, "another session's id is not this one's");
        assert_eq!(bridge.post(Some(&one), &cancel).await.status(), 202);
    };
    let (response, ()) = tokio::join!(call, cancel);
    assert_eq!(messages(response).await, Vec::<Value>::new(), "nobody waits for an answer");
    assert_eq!(cancelled(&bridge).await.len(), 1);
    assert_eq!(bridge.text(None, "seen", json!({})).await["reason"], "too late");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_the_child_is_told() {
    let bridge = Bridge::start_ready("--timeout-seconds 1", &child("legacy")).await;
    let late = bridge.call(None, "never", json!({})).await;
    assert_eq!((&late["error"]["data"]["reason"], &late["id"]), (&json!("Timeout"), &json!("c")), "{late}");
    assert_eq!(cancelled(&bridge).await.len(), 1);
    // An answer that comes after it is nobody's.
    let slow = bridge.call(None, "sleep", json!({"seconds": 1.5})).await;
    assert_eq!(slow["error"]["data"]["reason"], "Timeout");
    until("the late answer", async || (bridge.metric("bridge_stray_lines_total").await >= 1).then_some(())).await;
}

#[tokio::test]
async fn progress_extends_the_deadline_up_to_the_longest() {
    let bridge = Bridge::start_ready("--timeout-seconds 1 --max-call-seconds 3", &child("legacy")).await;
    let progress = async |steps: u32| {
        let mut body = tools_call("progress", json!({"steps": steps, "pause": 0.3}));
        body["params"]["_meta"] = json!({"progressToken": "mine"});
        let began = Instant::now();
        (messages(bridge.post(None, &body).await).await, began.elapsed())
    };
    let (heard, _) = progress(5).await;
    assert_eq!(heard.len(), 6, "{heard:?}");
    assert!(
        heard[..5].iter().enumerate().all(|(step, told)| told["params"] == json!({"progressToken": "mine", "progress": step}))
    );
    let (heard, took) = progress(100).await;
    assert_eq!(heard.last().unwrap()["error"]["data"]["reason"], "Timeout");
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn one_call_too_many_is_told_to_come_again() {
    let bridge = Bridge::start_ready("--max-in-flight 2 --timeout-seconds 2", &child("legacy")).await;
    let never = tools_call("never", json!({}));
    let calls = futures::future::join_all((0..3).map(|_| bridge.post(None, &never))).await;
    let mut statuses: Vec<StatusCode> = calls.iter().map(reqwest::Response::status).collect();
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
    for response in calls {
        let busy = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(response.headers().get("retry-after").is_some(), busy);
        assert_eq!(answer(response).await["error"]["data"]["reason"], if busy { "Busy" } else { "Timeout" });
    }
}

#[tokio::test]
async fn two_clients_with_the_same_id_get_their_own_answers() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let sessions = [bridge.initialize(json!({})).await, bridge.initialize(json!({})).await];
    let calls = (0..60).map(|number| bridge.text(Some(&sessions[number % 2]), "echo", json!({"n": number})));
    for (number, text) in futures::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(text, json!({"n": number}));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_gets_its_answer() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let mut body = tools_call("flood", json!({"lines": 20_000}));
    body["params"]["_meta"] = json!({"progressToken": 1});
    let mut stream = Events::of(bridge.post(None, &body).await);
    // 20 MB are said meanwhile, and nobody reads them.
    assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
    until("the end of the flood", async || (bridge.metric("bridge_calls_in_flight").await == 0).then_some(())).await;
    let mut heard = 0;
    let answer = loop {
        let event = stream.next().await.unwrap();
        if event.get("result").is_some() {
            break event;
        }
        heard += 1;
    };
    assert_eq!(answer["result"]["content"][0]["text"], "flooded");
    assert!(heard < 20_000, "some were left out");
}

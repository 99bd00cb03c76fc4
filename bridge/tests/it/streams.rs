//! What a child tells by itself, and who hears it.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Bridge, Events, child, messages, tools_call};

async fn listen(bridge: &Bridge, session: &str) -> Events {
    let request = bridge.request(Method::GET, "/mcp").header("mcp-session-id", session).header("accept", "text/event-stream");
    Events::of(request.send().await.unwrap())
}

#[tokio::test]
async fn a_changed_list_is_told_to_every_session_that_listens() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let (one, other) = (bridge.initialize(json!({})).await, bridge.initialize(json!({})).await);
    let (mut first, mut second) = (listen(&bridge, &one).await, listen(&bridge, &other).await);
    bridge.text(Some(&one), "change-tools", json!({})).await;
    for stream in [&mut first, &mut second] {
        assert_eq!(stream.next().await.unwrap()["method"], "notifications/tools/list_changed");
    }
}

#[tokio::test]
async fn a_resource_is_told_of_to_those_who_subscribed() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let (one, other) = (bridge.initialize(json!({})).await, bridge.initialize(json!({})).await);
    let subscribe = |uri: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": uri}});
    bridge.post(Some(&one), &subscribe("a:1")).await;
    bridge.post(Some(&other), &subscribe("b:1")).await;
    let (mut first, mut second) = (listen(&bridge, &one).await, listen(&bridge, &other).await);
    bridge.text(None, "touch", json!({"uri": "a:1"})).await;
    bridge.text(None, "touch", json!({"uri": "b:1"})).await;
    assert_eq!(first.next().await.unwrap()["params"]["uri"], "a:1");
    assert_eq!(second.next().await.unwrap()["params"]["uri"], "b:1", "not the first one's");
}

#[tokio::test]
async fn a_modern_client_subscribes_to_a_legacy_child() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let filter =
        json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a:1"]}});
    let mut stream = Events::of(bridge.modern(&json!("s"), "subscriptions/listen", &filter).send().await.unwrap());
    let acknowledged = stream.next().await.unwrap();
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(acknowledged["params"]["notifications"], json!({"toolsListChanged": true, "resourceSubscriptions": ["a:1"]}));
    bridge.text(None, "touch", json!({"uri": "a:1"})).await;
    bridge.text(None, "change-tools", json!({})).await;
    for method in ["notifications/resources/updated", "notifications/tools/list_changed"] {
        let told = stream.next().await.unwrap();
        assert_eq!(
            (&told["method"], &told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]),
            (&json!(method), &json!("s"))
        );
    }
}

#[tokio::test]
async fn a_modern_childs_subscription_has_the_clients_id() {
    let bridge = Bridge::start("", &child("modern")).await;
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let mut stream = Events::of(bridge.modern(&json!(77), "subscriptions/listen", &filter).send().await.unwrap());
    for method in ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"] {
        let told = stream.next().await.unwrap();
        assert_eq!(
            (&told["method"], &told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]),
            (&json!(method), &json!(77))
        );
    }
}

#[rstest]
#[tokio::test]
async fn a_subscription_ends_with_its_result_when_the_bridge_does(#[values("legacy", "modern")] era: &str) {
    let mut bridge = Bridge::start("--lame-duck-seconds 0", &child(era)).await;
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let mut stream = Events::of(bridge.modern(&json!("s"), "subscriptions/listen", &filter).send().await.unwrap());
    assert_eq!(stream.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    bridge.signal("-TERM");
    let mut last = stream.next().await;
    while last.as_ref().is_some_and(|told| told.get("method").is_some()) {
        last = stream.next().await;
    }
    let result = json!({"resultType": "complete", "_meta": {"io.modelcontextprotocol/subscriptionId": "s"}});
    assert_eq!(last, Some(json!({"jsonrpc": "2.0", "id": "s", "result": result})));
    assert_eq!(stream.next().await, None);
    assert_eq!(bridge.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_log_message_reaches_the_caller_and_nobody_where_that_is_not_certain() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let (one, other) = (bridge.initialize(json!({})).await, bridge.initialize(json!({})).await);
    let heard = messages(bridge.post(Some(&one), &tools_call("log", json!({"data": "mine"}))).await).await;
    assert_eq!(heard[0]["params"]["data"], "mine", "{heard:?}");
    // While another session's call is in flight, it could be of either.
    let sleep = tools_call("sleep", json!({"seconds": 1}));
    let slow = bridge.post(Some(&other), &sleep);
    let logged = async {
        crate::support::until("the other call", async || (bridge.metric("bridge_calls_in_flight").await >= 1).then_some(()))
            .await;
        messages(bridge.post(Some(&one), &tools_call("log", json!({}))).await).await
    };
    let (slept, logged) = tokio::join!(slow, logged);
    assert_eq!(messages(slept).await.len(), 1);
    assert_eq!(logged.len(), 1, "{logged:?}");
    // And what is not severe enough is not told.
    let level = json!({"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": {"level": "error"}});
    bridge.post(Some(&one), &level).await;
    assert_eq!(messages(bridge.post(Some(&one), &tools_call("log", json!({}))).await).await.len(), 1);
    let heard: Vec<Value> = messages(bridge.post(Some(&one), &tools_call("log", json!({"level": "error"}))).await).await;
    assert_eq!(heard.len(), 2);
}

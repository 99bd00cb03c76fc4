//! What /mcp passes between clients and servers beside calls: folders of a client (roots), single resources that are watched, in both eras,
//! and answers that nobody asked for.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use chat_worker::config::file::McpConfig;
use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    client::{Events, Legacy, modern, modern_request},
    stub::Stub,
    talker::{Talker, start},
};
use tokio::time::timeout;

/// The next that is told of a resource, whatever is told before it.
async fn updated(events: &mut Events) -> Value {
    let told = async {
        loop {
            let told = events.next().await.unwrap();
            if told["method"] == UPDATED {
                return told;
            }
        }
    };
    timeout(Duration::from_secs(20), told).await.unwrap()
}

/// Waits until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), held).await.unwrap_or_else(|_| unreachable!("{what}"));
}

/// What a call that asks for the folders came to.
fn told(message: &Value) -> Value {
    serde_json::from_str(message["result"]["content"][0]["text"].as_str().unwrap_or("null")).unwrap()
}

#[rstest]
#[case::without_params(json!({"method": "roots/list"}))]
#[case::with_params(json!({"method": "roots/list", "params": {"_meta": {"k": 1}}}))]
#[tokio::test]
async fn a_server_gets_the_folders_of_the_client_that_called(#[case] ask: Value) {
    let (_talker, worker) = start().await;
    let roots = json!({"roots": [{"uri": "file:///work", "name": "work", "own": 1}]});
    let (can, steps) = (json!({"roots": {"listChanged": true}}), json!([{"ask": ask}]));
    let client = Legacy::connect(&worker, can.clone()).await;
    let heard = client.follow(steps.clone(), json!({}), |_| json!({"result": roots})).await;
    assert_eq!((&heard[0]["method"], told(&heard[1])), (&json!("roots/list"), json!([roots])), "{heard:?}");
    assert!(heard[0]["params"].is_object(), "clients refuse params that are null: {heard:?}");

    let (call, meta) =
        (json!({"name": "t__follow", "arguments": {"steps": steps}}), json!({"io.modelcontextprotocol/clientCapabilities": can}));
    let asked = modern(&worker, "tools/call", call.clone(), meta.clone()).await.next().await.unwrap()["result"].clone();
    let (key, question) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(question["method"], "roots/list");
    let mut again = call;
    (again["requestState"], again["inputResponses"]) = (asked["requestState"].clone(), json!({key: roots}));
    assert_eq!(told(&modern(&worker, "tools/call", again, meta).await.next().await.unwrap()), json!([roots]));
}

#[tokio::test]
async fn a_server_that_asks_for_folders_where_there_are_none_hears_that_nobody_has_any() {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({"elicitation": {}})).await;
    let heard = client.follow(json!([{"ask": {"method": "roots/list"}}]), json!({}), |_| unreachable!("it has none")).await;
    assert_eq!(told(&heard[0])[0]["code"], -32601, "{heard:?}");
}

#[tokio::test]
async fn a_program_that_does_not_list_its_folders_holds_a_call_for_the_time_of_a_call() {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({"roots": {}})).await;
    let call = json!({"name": "t__follow", "arguments": {"steps": [{"ask": {"method": "roots/list"}}]}});
    let mut events = client.request(1, "tools/call", call, json!({})).await;
    let question = events.next().await.unwrap();
    assert_eq!(question["method"], "roots/list");
    assert_eq!(events.next().await.unwrap()["params"]["requestId"], question["id"], "it is taken back");
    assert_eq!(events.next().await.unwrap()["result"]["isError"], true);

    // A server of the modern era, which waits for nothing meanwhile.
    let stub = Stub::start(json!([{"name": "look", "inputSchema": {"type": "object"}}])).await;
    let worker = Worker::start("otherwise: {text: 'Hello.'}", &[stub.entry("t")], &[]).await;
    stub.answers("tools/call", json!({"resultType": "input_required", "inputRequests": {"r": {"method": "roots/list"}}}));
    let client = Legacy::connect(&worker, json!({"roots": {}})).await;
    let mut events = client.call(1, "look", json!({})).await;
    assert_eq!(events.next().await.unwrap()["method"], "roots/list");
    let mut last = events.next().await.unwrap();
    while last["method"].is_string() {
        last = events.next().await.unwrap();
    }
    assert!(last["result"]["content"][0]["text"].as_str().unwrap().contains("not given in time"), "{last}");
}

#[tokio::test]
async fn answers_without_a_state_are_for_a_server_of_the_modern_era_to_judge() {
    let stub =
        Stub::start(json!([{"name": "pay", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}}])).await;
    let worker = Worker::start("otherwise: {text: 'Hello.'}", &[stub.entry("t")], &[]).await;
    let answers =
        json!({"name": {"action": "accept", "content": {"n": 12_345_678_901_234_567_u64}}, "unknown": {"action": "decline"}});
    let call = json!({"name": "t__pay", "arguments": {}, "inputResponses": answers});
    let meta = json!({"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}});
    let result = modern(&worker, "tools/call", call, meta).await.next().await.unwrap();
    assert_eq!(result["result"]["content"][0]["text"], "done", "{result}");
    let sent = &stub.calls()[0];
    assert_eq!((&sent["inputResponses"], sent.get("requestState")), (&answers, None));
}

#[tokio::test]
async fn a_response_to_nothing_is_refused_and_harms_nobody() {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({"elicitation": {}})).await;
    for id in [json!("of nobody"), json!(7), json!(1.5)] {
        let response = client.post(&json!({"jsonrpc": "2.0", "id": id, "result": {}})).send().await.unwrap();
        assert_eq!(response.status(), 400, "{id}");
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], -32600);
    }
    assert_eq!(client.call(2, "look", json!({})).await.next().await.unwrap()["method"], "notifications/message");
}

async fn subscribe(client: &Legacy<'_>, method: &str, uri: &str) -> Value {
    client.request(3, method, json!({"uri": uri}), json!({})).await.next().await.unwrap()
}

const SUBSCRIBE: &str = "resources/subscribe";
const UNSUBSCRIBE: &str = "resources/unsubscribe";
const UPDATED: &str = "notifications/resources/updated";

async fn hears(events: &mut Events, uri: &str) {
    let told = events.next().await.unwrap();
    assert_eq!((&told["method"], &told["params"]["uri"]), (&json!(UPDATED), &json!(uri)), "{told}");
}

#[tokio::test]
async fn sessions_hear_of_the_resources_that_they_watch_by_one_subscription() {
    let (talker, worker) = start().await;
    talker.has_listener().await;
    let (one, two) = (Legacy::connect(&worker, json!({})).await, Legacy::connect(&worker, json!({})).await);
    let (mut first, mut second) = (one.listen().await, two.listen().await);
    for client in [&one, &two, &one] {
        assert_eq!(subscribe(client, SUBSCRIBE, "t:a").await["result"], json!({}));
    }
    assert_eq!(subscribe(&two, SUBSCRIBE, "t:b").await["result"], json!({}));
    assert_eq!(talker.uris(SUBSCRIBE), ["t:a", "t:b"], "once for all");
    talker.tell_updated("t:a");
    hears(&mut first, "t:a").await;
    hears(&mut second, "t:a").await;
    talker.tell_updated("t:b");
    talker.tell_updated("t:a/part");
    // Only its own.
    hears(&mut first, "t:a").await;

    assert_eq!(subscribe(&one, UNSUBSCRIBE, "t:a").await["result"], json!({}));
    assert_eq!(talker.uris(UNSUBSCRIBE), Vec::<String>::new(), "somebody else watches it");
    let end = worker.http.delete(format!("{}/mcp", worker.url)).header("mcp-session-id", &two.session);
    assert_eq!(end.send().await.unwrap().status(), 204);
    until("the last has gone, and the server is not told", || talker.uris(UNSUBSCRIBE).len() == 2).await;
    assert_eq!(subscribe(&one, SUBSCRIBE, "t:a").await["result"], json!({}));
    assert_eq!(talker.uris(SUBSCRIBE), ["t:a", "t:b", "t:a"]);
}

#[tokio::test]
async fn what_a_server_says_of_a_subscription_is_what_its_client_hears() {
    let (talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let refused = subscribe(&client, SUBSCRIBE, "t:none").await;
    assert_eq!((&refused["error"]["code"], &refused["error"]["data"]["uri"]), (&json!(-32002), &json!("t:none")), "{refused}");
    subscribe(&client, SUBSCRIBE, "t:none").await;
    assert_eq!(talker.uris(SUBSCRIBE).len(), 2, "it is asked again: it may be there by now");
    let stranger = Legacy { worker: &worker, session: String::new() };
    let refused = subscribe(&stranger, SUBSCRIBE, "t:a").await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("Mcp-Session-Id"), "{refused}");
    let answer = modern_request(&worker, SUBSCRIBE, json!({"uri": "t:a"}), &json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 404, "the modern era has no such method");

    // A server that tells of nothing.
    let stub = Stub::start(json!([])).await;
    let worker = Worker::start("otherwise: {text: 'Hello.'}", &[stub.entry("s")], &[]).await;
    let client = Legacy::connect(&worker, json!({})).await;
    let refused = subscribe(&client, SUBSCRIBE, "s:a").await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
}

#[rstest]
#[case::session(true)]
#[case::connection(false)]
#[tokio::test]
async fn a_server_that_begins_anew_is_asked_again_for_what_is_watched(#[case] same_connection: bool) {
    let (talker, worker) = start().await;
    talker.has_listener().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let mut events = client.listen().await;
    subscribe(&client, SUBSCRIBE, "t:a").await;
    if same_connection {
        talker.forget();
        // Whoever calls next finds out.
        client.call(4, "look", json!({})).await.next().await.unwrap();
    } else {
        assert!(worker.app.engine.hub.reconnect(Some("t")));
    }
    until("it is not asked again", || talker.uris(SUBSCRIBE).len() == 2).await;
    // It may have changed meanwhile.
    assert_eq!(updated(&mut events).await["params"]["uri"], "t:a");
    assert_eq!(talker.uris(UNSUBSCRIBE), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_is_taken_out_of_the_configuration_tells_of_nothing_any_more() {
    let (talker, worker) = start().await;
    talker.has_listener().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let mut events = client.listen().await;
    assert_eq!(subscribe(&client, SUBSCRIBE, "t:a").await["result"], json!({}));
    worker.app.engine.hub.apply(&McpConfig::default());
    assert_eq!(updated(&mut events).await["params"]["uri"], "t:a");
    let refused = subscribe(&client, SUBSCRIBE, "t:a").await;
    assert!(refused["error"].is_object(), "{refused}");
}

#[tokio::test]
async fn a_client_of_the_modern_era_hears_of_resources_on_its_stream() {
    let (talker, worker) = start().await;
    talker.has_listener().await;
    let filter = json!({"notifications": {"resourceSubscriptions": ["t:a", "t:b"]}});
    let mut events = modern(&worker, "subscriptions/listen", filter, json!({})).await;
    let taken = events.next().await.unwrap();
    assert_eq!(taken["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(taken["params"]["notifications"]["resourceSubscriptions"], json!(["t:a", "t:b"]), "{taken}");
    until("the server is not asked", || talker.uris(SUBSCRIBE).len() == 2).await;
    talker.tell_updated("t:b");
    hears(&mut events, "t:b").await;
    drop(events);
    until("the stream has ended, and the server is not told", || talker.uris(UNSUBSCRIBE).len() == 2).await;
}

#[tokio::test]
async fn a_server_of_the_modern_era_is_asked_by_a_stream() {
    let (talker, inner) = start().await;
    talker.has_listener().await;
    // Another gateway is such a server.
    let entry = json!({"name": "g", "url": format!("{}/mcp", inner.url), "timeout": 5});
    let outer = Worker::start("otherwise: {text: 'Hello.'}", &[entry], &[]).await;
    let client = Legacy::connect(&outer, json!({})).await;
    let mut events = client.listen().await;
    for uri in ["t:a", "t:b"] {
        assert_eq!(subscribe(&client, SUBSCRIBE, uri).await["result"], json!({}));
        until("the server is not asked", || talker.uris(SUBSCRIBE).iter().any(|asked| asked == uri)).await;
    }
    talker.tell_updated("t:b");
    hears(&mut events, "t:b").await;
    assert_eq!(subscribe(&client, UNSUBSCRIBE, "t:a").await["result"], json!({}));
    until("the server is not told", || talker.uris(UNSUBSCRIBE).iter().any(|told| told == "t:a")).await;
    talker.tell_updated("t:b");
    hears(&mut events, "t:b").await;
}

#[tokio::test]
async fn a_server_that_hangs_does_not_hold_up_what_another_one_lists() {
    let (talker, stub) = (Talker::start().await, Stub::start(json!([])).await);
    talker.hangs_lists.store(true, std::sync::atomic::Ordering::SeqCst);
    stub.answers("resources/list", json!({"resources": [{"uri": "s:a", "name": "a"}]}));
    stub.answers("resources/read", json!({"contents": [{"uri": "s:a", "text": "here"}]}));
    let mut hangs = talker.entry("first");
    hangs["timeout"] = json!(30);
    let worker = Worker::start("otherwise: {text: 'Hello.'}", &[hangs, stub.entry("second")], &[]).await;
    let read = async { modern(&worker, "resources/read", json!({"uri": "s:a"}), json!({})).await.next().await.unwrap() };
    let read = timeout(Duration::from_secs(6), read).await.expect("it is read at once, or nearly so");
    assert_eq!(read["result"]["contents"][0]["text"], "here", "{read}");
}

#[tokio::test]
async fn what_one_server_lists_twice_is_one_and_at_no_other_place() {
    let stub = Stub::start(json!([])).await;
    stub.answers("resources/list", json!({"resources": [{"uri": "s:a", "name": "a"}, {"uri": "s:a", "name": "again"}]}));
    let worker = Worker::start("otherwise: {text: 'Hello.'}", &[stub.entry("s")], &[]).await;
    let listed = modern(&worker, "resources/list", json!({}), json!({})).await.next().await.unwrap();
    assert_eq!(listed["result"]["resources"], json!([{"uri": "s:a", "name": "s__a"}]), "{listed}");
}

#[rstest]
#[tokio::test]
async fn params_that_may_be_left_out_may_be_left_out(#[values("", r#","params":{}"#, r#","params":null"#)] params: &str) {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let send = async |message: String| {
        let request = worker.http.post(format!("{}/mcp", worker.url)).header("content-type", "application/json").body(message);
        let request = request.header("accept", "application/json, text/event-stream").header("mcp-session-id", &client.session);
        request.header("mcp-protocol-version", "2025-11-25").send().await.unwrap()
    };
    for method in ["ping", "tools/list", "resources/list", "resources/templates/list", "prompts/list"] {
        let answer = send(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"{params}}}"#)).await;
        let answer: Value = Events::of(answer).next().await.unwrap();
        assert!(answer["result"].is_object(), "{method}: {answer}");
    }
    for method in ["notifications/initialized", "notifications/roots/list_changed"] {
        let answer = send(format!(r#"{{"jsonrpc":"2.0","method":"{method}"{params}}}"#)).await;
        assert_eq!(answer.status(), 202, "{method}");
    }
}

//! /mcp stands between a client and a server that talk while a call runs: progress, messages for a log, questions, cancellation, and news of
//! lists go to whoever they are for, in both eras.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    client::{Events, Legacy, modern, modern_request},
    stub::Stub,
    talker::{Talker, start},
};
use tokio::time::timeout;

const SCRIPT: &str = "otherwise: {text: 'Hello.'}";

#[rstest]
#[case::number(json!(7))]
#[case::text(json!("mine"))]
#[tokio::test]
async fn progress_and_messages_reach_the_client_that_called_with_its_own_token(#[case] token: Value) {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let mut events = client.call(1, "work", json!({"progressToken": token})).await;
    for step in 1..=3 {
        let params = json!({"progressToken": token, "progress": step, "total": 3, "message": format!("step {step}")});
        let told = events.next().await.unwrap();
        assert_eq!((&told["method"], &told["params"]), (&json!("notifications/progress"), &params));
    }
    let told = events.next().await.unwrap();
    assert_eq!(told["params"], json!({"level": "info", "logger": "t/w", "data": {"rows": 3}}));
    assert_eq!(events.next().await.unwrap()["result"]["content"][0]["text"], "worked");
    assert_eq!(events.next().await, None);
}

const CHAT: &str = r#"
rules:
  - {name: work, when: [work], steps: [{tools: [{tool: work}]}, {text: "It {{last}}."}]}
  - {name: look, when: [look], steps: [{tools: [{tool: look}, {tool: look}]}, {text: "Both {{last}}."}]}
otherwise: {text: Hello.}
"#;

#[rstest]
#[case::one_call("work", 1)]
#[case::two_that_are_one_read("look", 2)]
#[tokio::test]
async fn whoever_waits_in_the_chat_is_told_how_far_a_tool_is(#[case] message: &str, #[case] calls: usize) {
    let talker = Talker::start().await;
    let worker = Worker::start(CHAT, &[talker.entry("t")], &["--approvals", "always"]).await;
    let request = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": message}));
    let mut stream = Events::of(request.send().await.unwrap());
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    let ids: Vec<&Value> = events.iter().filter(|event| event["type"] == "tool_call").map(|event| &event["id"]).collect();
    assert_eq!(ids.len(), calls, "{events:?}");
    for id in ids {
        let of_call = events.iter().filter(|event| event["id"] == *id);
        let told: Vec<String> =
            of_call.map(|event| [&event["type"], &event["text"]].map(|one| one.as_str().unwrap_or("")).join(" ")).collect();
        let steps = ["tool_progress step 1", "tool_progress step 2", "tool_progress step 3"];
        assert_eq!(told, [&["tool_call ", "tool_start "], &steps[..], &["tool_result worked"]].concat());
    }
    assert_eq!(talker.seen.lock().unwrap().iter().filter(|seen| seen["method"] == "tools/call").count(), 1);
    assert_eq!(events.last().unwrap()["outcome"], "complete");
}

#[tokio::test]
async fn a_client_of_the_modern_era_hears_what_it_asked_for_and_one_that_takes_no_stream_the_result_only() {
    let (_talker, worker) = start().await;
    let call = json!({"name": "t__work", "arguments": {}});
    let mut events = modern(&worker, "tools/call", call.clone(), json!({"progressToken": "p"})).await;
    for _ in 1..=3 {
        assert_eq!(events.next().await.unwrap()["params"]["progressToken"], "p");
    }
    let result = events.next().await.unwrap()["result"].clone();
    assert_eq!(result["content"][0]["text"], "worked", "no messages were asked for");
    assert_eq!(result["resultType"], "complete", "which the server, of an earlier era, did not say");
    let mut events = modern(&worker, "tools/call", call, json!({"io.modelcontextprotocol/logLevel": "info"})).await;
    assert_eq!(events.next().await.unwrap()["params"]["logger"], "t/w", "no progress was asked for");
    assert!(events.next().await.unwrap()["result"].is_object());
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "t__work", "_meta": {"progressToken": 1}}});
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json").json(&body);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "worked");
}

#[rstest]
#[case::elicitation("ask", "elicitation/create", json!({"elicitation": {}}), json!({"action": "accept", "content": {"name": "Ann"}}))]
#[case::sampling("sample", "sampling/createMessage", json!({"sampling": {}}),
    json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Hello"}}))]
#[tokio::test]
async fn a_question_reaches_the_client_and_its_answer_the_server(
    #[case] tool: &str,
    #[case] method: &str,
    #[case] can: Value,
    #[case] answer: Value,
) {
    let (_talker, worker) = start().await;
    // An earlier era: on the stream of the call, while the call's time of one second stands still.
    let client = Legacy::connect(&worker, can.clone()).await;
    let mut events = client.call(1, tool, json!({})).await;
    let question = events.next().await.unwrap();
    assert_eq!(question["method"], method);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let reply = |id: &Value| json!({"jsonrpc": "2.0", "id": id, "result": answer});
    assert_eq!(client.post(&reply(&question["id"])).send().await.unwrap().status(), 202);
    let result = events.next().await.unwrap();
    let got: Value = serde_json::from_str(result["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    for (name, value) in answer.as_object().unwrap() {
        assert_eq!(&got[name], value, "{name}");
    }
    assert_eq!(client.post(&reply(&question["id"])).send().await.unwrap().status(), 400, "nobody waits any more");

    // The modern one: as a result, with which the call is made again.
    let (name, meta) = (format!("t__{tool}"), json!({"io.modelcontextprotocol/clientCapabilities": can}));
    let result = modern(&worker, "tools/call", json!({"name": name, "arguments": {}}), meta.clone()).await.next().await.unwrap();
    let result = &result["result"];
    assert_eq!(result["resultType"], "input_required", "{result}");
    let (key, asked) = result["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(asked["method"], method);
    let again = json!({"name": name, "arguments": {}, "requestState": result["requestState"], "inputResponses": {key: answer}});
    let result = modern(&worker, "tools/call", again.clone(), meta.clone()).await.next().await.unwrap();
    let got: Value = serde_json::from_str(result["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    for (name, value) in answer.as_object().unwrap() {
        assert_eq!(&got[name], value, "{name}");
    }
    let late = modern(&worker, "tools/call", again, meta).await.next().await.unwrap();
    assert_eq!(late["error"]["code"], -32602, "{late}");
}

/// What else than a tool may take its time, of the kind of work that `what` names: a request, and where its result holds its word.
fn beside_tools(method: &str, what: &str) -> (Value, &'static str) {
    match method {
        "resources/read" => (json!({"uri": format!("t:{what}")}), "/result/contents/0/text"),
        "prompts/get" => (json!({"name": format!("t__{what}")}), "/result/messages/0/content/text"),
        _ => {
            let of = json!({"type": "ref/prompt", "name": format!("t__{what}")});
            (json!({"ref": of, "argument": {"name": "a", "value": ""}}), "/result/completion/values/0")
        }
    }
}

#[rstest]
#[tokio::test]
async fn resources_prompts_and_completions_are_heard_of_and_cancelled_as_calls_are(
    #[values("resources/read", "prompts/get", "completion/complete")] method: &str,
) {
    let (talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let (params, word) = beside_tools(method, "work");
    let mut events = client.request(1, method, params.clone(), json!({"progressToken": "mine"})).await;
    for step in 1..=3 {
        let told = events.next().await.unwrap();
        assert_eq!((&told["method"], &told["params"]["progressToken"]), (&json!("notifications/progress"), &json!("mine")));
        assert_eq!(told["params"]["progress"], step);
    }
    assert_eq!(events.next().await.unwrap()["params"], json!({"level": "info", "logger": "t/w", "data": {"rows": 3}}));
    let result = events.next().await.unwrap();
    assert_eq!(result.pointer(word), Some(&json!("worked")), "{result}");
    let mut events = modern(&worker, method, params, json!({"progressToken": 7})).await;
    for _ in 1..=3 {
        assert_eq!(events.next().await.unwrap()["params"]["progressToken"], 7);
    }
    let result = events.next().await.unwrap();
    assert_eq!((result.pointer(word), &result["result"]["resultType"]), (Some(&json!("worked")), &json!("complete")), "{result}");

    let (params, _) = beside_tools(method, "hang");
    let hang = client.request(5, method, params, json!({}));
    let cancel = async {
        while talker.heard("notifications/cancelled").is_none() {
            // Until the request has come there is nothing to cancel.
            let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}});
            client.post(&message).send().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (mut events, ()) = tokio::join!(hang, cancel);
    assert_eq!(events.next().await, None, "what is cancelled is not answered");
}

#[rstest]
#[tokio::test]
async fn a_question_about_a_resource_or_a_prompt_reaches_the_client(#[values("resources/read", "prompts/get")] method: &str) {
    let (_talker, worker) = start().await;
    let (params, word) = beside_tools(method, "ask");
    let (can, answer) = (json!({"elicitation": {}}), json!({"action": "accept", "content": {"name": "Ann"}}));
    let client = Legacy::connect(&worker, can.clone()).await;
    let mut events = client.request(1, method, params.clone(), json!({})).await;
    let question = events.next().await.unwrap();
    assert_eq!(question["method"], "elicitation/create");
    client.post(&json!({"jsonrpc": "2.0", "id": question["id"], "result": answer})).send().await.unwrap();
    let result = events.next().await.unwrap();
    assert!(result.pointer(word).unwrap().as_str().unwrap().contains("Ann"), "{result}");
    let meta = json!({"io.modelcontextprotocol/clientCapabilities": can});
    let result = modern(&worker, method, params.clone(), meta.clone()).await.next().await.unwrap()["result"].clone();
    let key = result["inputRequests"].as_object().unwrap().keys().next().unwrap();
    let mut again = params;
    (again["requestState"], again["inputResponses"]) = (result["requestState"].clone(), json!({key: answer}));
    let result = modern(&worker, method, again, meta).await.next().await.unwrap();
    assert!(result.pointer(word).unwrap().as_str().unwrap().contains("Ann"), "{result}");
}

#[tokio::test]
async fn a_client_that_leaves_has_cancelled() {
    let talker = Talker::start().await;
    let mut entry = talker.entry("t");
    // The time of a request would end it, too.
    entry["timeout"] = json!(60);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let client = Legacy::connect(&worker, json!({})).await;
    for (id, method) in [(1, "resources/read"), (2, "tools/call")] {
        let params = if id == 1 { beside_tools(method, "hang").0 } else { json!({"name": "t__hang", "arguments": {}}) };
        talker.seen.lock().unwrap().clear();
        let leaves = async {
            while talker.heard(method).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = client.request(id, method, params, json!({})) => unreachable!("it hangs"),
            () = leaves => {}
        }
        let told = async {
            while talker.heard("notifications/cancelled").is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), told).await.unwrap_or_else(|_| unreachable!("{method} goes on"));
    }
}

#[tokio::test]
async fn who_cannot_be_asked_has_declined() {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let told = client.call(1, "ask", json!({})).await.next().await.unwrap();
    assert!(told["result"]["content"][0]["text"].as_str().unwrap().contains("decline"), "{told}");
    let told = client.call(2, "sample", json!({})).await.next().await.unwrap();
    assert!(told["result"]["content"][0]["text"].as_str().unwrap().contains("cannot be asked"), "{told}");
}

#[tokio::test]
async fn a_server_of_the_modern_era_asks_clients_of_both() {
    let stub = Stub::start(json!([{"name": "pay", "inputSchema": {"type": "object"}}])).await;
    let question = json!({"method": "elicitation/create", "params": {"mode": "form", "message": "Sure?", "requestedSchema": {"type": "object", "properties": {}}}});
    let asks = json!({"resultType": "input_required", "inputRequests": {"sure": question}, "requestState": "theirs"});
    let worker = Worker::start(SCRIPT, &[stub.entry("t")], &[]).await;
    let answer = json!({"action": "accept", "content": {}});
    let done = json!({"content": [{"type": "text", "text": "paid"}]});

    stub.answers("tools/call", asks.clone());
    let client = Legacy::connect(&worker, json!({"elicitation": {"form": {}}})).await;
    let mut events = client.call(1, "pay", json!({})).await;
    let asked = events.next().await.unwrap();
    assert_eq!(asked["params"]["message"], "Sure?", "{asked}");
    stub.answers("tools/call", done.clone());
    client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": answer})).send().await.unwrap();
    assert_eq!(events.next().await.unwrap()["result"]["content"][0]["text"], "paid");
    let calls = stub.calls();
    assert_eq!((&calls[1]["requestState"], &calls[1]["inputResponses"]), (&json!("theirs"), &json!({"sure": answer})));
    let can = |call: &Value| call["_meta"]["io.modelcontextprotocol/clientCapabilities"].clone();
    assert_eq!(can(&calls[0]), json!({"elicitation": {"form": {}}}), "what the client can, and no more");
    let level = |call: &Value| call["_meta"]["io.modelcontextprotocol/logLevel"].clone();
    assert_eq!(level(&calls[0]), "debug", "a session that said no level hears everything");

    stub.answers("tools/call", asks);
    let meta = json!({"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}});
    let call = json!({"name": "t__pay", "arguments": {}});
    let asked = modern(&worker, "tools/call", call.clone(), meta.clone()).await.next().await.unwrap()["result"].clone();
    assert_eq!(asked["inputRequests"]["sure"], question);
    stub.answers("tools/call", done);
    let again =
        json!({"name": "t__pay", "arguments": {}, "requestState": asked["requestState"], "inputResponses": {"sure": answer}});
    let paid = modern(&worker, "tools/call", again, meta).await.next().await.unwrap();
    assert_eq!(paid["result"]["content"][0]["text"], "paid");

    stub.answers("tools/call", asked);
    let refused = modern(&worker, "tools/call", call, json!({})).await.next().await.unwrap();
    assert!(refused["result"]["content"][0]["text"].as_str().unwrap().contains("asks its user"), "{refused}");
    assert_eq!(can(stub.calls().last().unwrap()), json!({}));
    assert_eq!(level(stub.calls().last().unwrap()), json!(null));
}

#[tokio::test]
async fn a_long_description_passes_and_the_model_gets_its_beginning() {
    let long = "x".repeat(10_000);
    let stub = Stub::start(json!([{"name": "pay", "description": long, "inputSchema": {"type": "object"}}])).await;
    let worker = Worker::start(SCRIPT, &[stub.entry("t")], &[]).await;
    let listed = modern(&worker, "tools/list", json!({}), json!({})).await.next().await.unwrap();
    assert_eq!(listed["result"]["tools"][0]["description"], long);
    let told = worker.get("/v1/tools").await["tools"][0]["description"].as_str().unwrap().len();
    assert!((8_192..9_000).contains(&told), "{told}");
}

#[tokio::test]
async fn a_client_of_an_earlier_era_cancels_its_own_call_by_another_request() {
    let (talker, worker) = start().await;
    let (client, other) = (Legacy::connect(&worker, json!({})).await, Legacy::connect(&worker, json!({})).await);
    let call = client.call(5, "hang", json!({}));
    let cancel = async {
        while talker.heard("tools/call").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}});
        other.post(&message).send().await.unwrap();
        client.post(&message).send().await.unwrap();
    };
    let (mut events, ()) = tokio::join!(call, cancel);
    assert_eq!(events.next().await, None, "what is cancelled is not answered");
    while talker.heard("notifications/cancelled").is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_is_taken_back_from_the_client() {
    let (talker, worker) = start().await;
    talker.has_listener().await;
    let client = Legacy::connect(&worker, json!({"elicitation": {}})).await;
    let taken_back = |told: &Value| (told["method"] == "notifications/cancelled").then(|| told["params"]["requestId"].clone());
    // Its server withdraws it.
    let mut events = client.call(5, "ask", json!({})).await;
    let question = events.next().await.unwrap();
    talker.withdraw();
    assert_eq!(taken_back(&events.next().await.unwrap()), Some(question["id"].clone()));
    // Its call is cancelled.
    let mut events = client.call(6, "ask", json!({})).await;
    let question = events.next().await.unwrap();
    let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 6}});
    client.post(&message).send().await.unwrap();
    assert_eq!(taken_back(&events.next().await.unwrap()), Some(question["id"].clone()));
    assert_eq!(events.next().await, None, "and it is not answered itself");
}

#[tokio::test]
async fn a_client_that_takes_no_stream_hears_that_its_call_was_cancelled() {
    let (talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let message = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "t__hang", "arguments": {}}});
    let call = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json").json(&message);
    let call = call.header("mcp-protocol-version", "2025-11-25").header("mcp-session-id", &client.session).send();
    let cancel = async {
        while talker.heard("tools/call").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}});
        client.post(&message).send().await.unwrap();
    };
    let (response, ()) = tokio::join!(call, cancel);
    let told: Value = response.unwrap().json().await.unwrap();
    assert!(told["result"]["content"][0]["text"].as_str().unwrap().contains("cancelled"), "{told}");
}

#[rstest]
#[case::one_answer("application/json")]
#[case::a_stream("application/json, text/event-stream")]
#[tokio::test]
async fn a_call_that_outlasts_the_end_of_the_worker_is_told_so(#[case] accept: &str) {
    let talker = Talker::start().await;
    let mut entry = talker.entry("t");
    entry["timeout"] = json!(60);
    let worker = Worker::start(SCRIPT, &[entry], &["--drain-seconds", "0"]).await;
    let message = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "t__hang", "arguments": {}}});
    let call = worker.http.post(format!("{}/mcp", worker.url)).header("accept", accept).json(&message);
    let end = async {
        while talker.heard("tools/call").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        worker.stop.cancel();
    };
    let (response, ()) = tokio::join!(call.header("mcp-protocol-version", "2025-11-25").send(), end);
    let response = response.unwrap();
    assert_eq!(response.status(), 503);
    let told: Value = response.json().await.unwrap();
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(5), &json!(-32603)), "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("is not known"), "{told}");
}

#[tokio::test]
async fn a_stream_that_has_begun_ends_with_the_error_of_its_call_when_the_worker_ends() {
    let talker = Talker::start().await;
    let mut entry = talker.entry("t");
    entry["timeout"] = json!(60);
    let worker = Worker::start(SCRIPT, &[entry], &["--drain-seconds", "0"]).await;
    let client = Legacy::connect(&worker, json!({"elicitation": {}})).await;
    let mut events = client.call(1, "ask", json!({})).await;
    assert_eq!(events.next().await.unwrap()["method"], "elicitation/create");
    worker.stop.cancel();
    let mut last = Value::Null;
    while let Some(event) = events.next().await {
        last = event;
    }
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(1), &json!(-32603)), "{last}");
}

#[tokio::test]
async fn a_beginning_that_is_refused_begins_no_session() {
    let (_talker, worker) = start().await;
    let client = Legacy { worker: &worker, session: String::new() };
    for params in
        [json!({}), json!({"protocolVersion": "2025-11-25", "capabilities": 5, "clientInfo": {"name": "c", "version": "1"}})]
    {
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = client.post(&message).send().await.unwrap();
        let has_session = response.headers().contains_key("mcp-session-id");
        let answer: Value = response.json().await.unwrap();
        assert!(answer["error"].is_object() && !has_session, "{answer}");
    }
}

#[tokio::test]
async fn the_modern_era_has_no_method_for_the_level_of_messages() {
    let (_talker, worker) = start().await;
    let response = modern_request(&worker, "logging/setLevel", json!({"level": "info"}), &json!({})).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], -32601);
}

#[tokio::test]
async fn news_of_lists_reach_who_listens_in_both_eras() {
    let (talker, worker) = start().await;
    let filter = json!({"notifications": {"resourcesListChanged": true, "promptsListChanged": true}});
    let mut subscribed = modern(&worker, "subscriptions/listen", filter, json!({})).await;
    assert_eq!(subscribed.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    let open = worker.http.get(format!("{}/mcp", worker.url)).header("accept", "text/event-stream");
    let mut opened = Events::of(open.send().await.unwrap());
    talker.has_listener().await;
    for method in ["notifications/resources/list_changed", "notifications/prompts/list_changed"] {
        talker.tell(method);
        for listener in [&mut subscribed, &mut opened] {
            assert_eq!(listener.next().await.unwrap()["method"], method);
        }
    }
}

#[tokio::test]
async fn a_session_needs_no_memory_and_its_end_is_a_courtesy() {
    let (talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    assert_eq!(client.call(1, "work", json!({})).await.next().await.unwrap()["method"], "notifications/message");
    let end = worker.http.delete(format!("{}/mcp", worker.url)).header("mcp-session-id", &client.session);
    assert_eq!(end.send().await.unwrap().status(), 204);
    let strange = Legacy { worker: &worker, session: "of-another-server".to_owned() };
    let mut events = strange.call(1, "work", json!({})).await;
    assert_eq!(events.next().await.unwrap()["result"]["content"][0]["text"], "worked");
    let level = json!({"jsonrpc": "2.0", "id": 2, "method": "logging/setLevel", "params": {"level": "error"}});
    let answer: Value = client.post(&level).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["result"], json!({}), "{answer}");
    assert_eq!(talker.heard("logging/setLevel").unwrap()["params"]["level"], "error");
}

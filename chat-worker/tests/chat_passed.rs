//! What passes between a client of /mcp and a server while a call runs passes as it was written, whole, and only to whom it is for: what comes
//! together with the answer, the server's own errors, its questions and their answers, and messages of the levels that a client wants.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    client::{Events, Legacy, modern},
    stub::Stub,
    talker::{Talker, start},
};

fn tell(method: &str, params: &Value) -> Value {
    json!({"tell": {"method": format!("notifications/{method}"), "params": params}})
}

fn ask(method: &str, params: &Value) -> Value {
    json!({"ask": {"method": method, "params": params}})
}

fn progress(step: u64) -> Value {
    tell("progress", &json!({"progressToken": "$TOKEN", "progress": step, "total": 3, "message": format!("step {step}")}))
}

fn log(level: &str) -> Value {
    tell("message", &json!({"level": level, "data": level}))
}

fn accepted(_: &Value) -> Value {
    json!({"result": {"action": "accept", "content": {}}})
}

/// What the server was answered, in the order of its questions.
fn answers(heard: &[Value]) -> Value {
    let result = &heard.last().unwrap()["result"];
    serde_json::from_str(result["content"][0]["text"].as_str().unwrap_or("null")).unwrap_or_else(|_| json!(result))
}

fn levels(heard: &[Value]) -> Vec<&str> {
    let of = |message: &'_ Value| message["method"] == "notifications/message";
    heard.iter().filter(|message| of(message)).map(|message| message["params"]["level"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_comes_together_with_the_answer_is_heard_before_it() {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    let steps = json!([progress(1), progress(2), progress(3), log("error")]);
    // It is a race of two tasks, so once says little.
    for _ in 0..20 {
        let heard = client.follow(steps.clone(), json!({"progressToken": 7}), accepted).await;
        let methods: Vec<_> = heard.iter().map(|message| message["method"].as_str().unwrap_or("the answer")).collect();
        let told = "notifications/progress";
        assert_eq!(methods, [told, told, told, "notifications/message", "the answer"]);
    }
}

const CHAT: &str = "
rules:
  - {name: follow, when: [follow], steps: [{tools: [{tool: follow, input: {steps: STEPS}}]}, {text: 'It {{last}}.'}]}
otherwise: {text: Hello.}
";

/// The events of a turn that calls the tool with these steps.
async fn turn(steps: &Value) -> Vec<Value> {
    let talker = Talker::start().await;
    let worker =
        Worker::start(&CHAT.replace("STEPS", &steps.to_string()), &[talker.entry("t")], &["--approvals", "always"]).await;
    let request = worker.http.post(format!("{}/v1/chat", worker.url)).json(&json!({"message": "follow"}));
    let mut stream = Events::of(request.send().await.unwrap());
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn in_the_chat_too() {
    for _ in 0..5 {
        let events = turn(&json!([progress(1), progress(2), progress(3)])).await;
        let told: Vec<_> = events.iter().filter(|event| event["type"] == "tool_progress").map(|event| &event["text"]).collect();
        assert_eq!(told, ["step 1", "step 2", "step 3"], "{events:?}");
    }
}

#[tokio::test]
async fn the_error_of_a_server_passes_as_it_was_written() {
    let (_talker, worker) = start().await;
    let page = json!({"mode": "url", "elicitationId": "e", "url": "https://pay.example/x?id=7", "message": "Pay first"});
    let steps = |error: &Value| json!([progress(1), {"error": error}]);
    for error in [
        json!({"code": -32042, "message": "pay first", "data": {"elicitations": [page]}}),
        json!({"code": -32602, "message": "no\u{202e} such row", "data": {"row": 7}}),
        json!({"code": 5, "message": "own"}),
    ] {
        let client = Legacy::connect(&worker, json!({})).await;
        let heard = client.follow(steps(&error), json!({}), accepted).await;
        assert_eq!(heard.last().unwrap()["error"], error);
        let call = json!({"name": "t__follow", "arguments": {"steps": steps(&error)}});
        assert_eq!(modern(&worker, "tools/call", call, json!({})).await.next().await.unwrap()["error"], error);
    }
    let health = worker.get("/health").await;
    assert_eq!(support::state(&health, "t"), "up", "an error of its own speaks against no server");
}

#[tokio::test]
async fn a_page_that_has_to_be_opened_first_is_told_in_the_chat() {
    let page =
        |id: &str| json!({"mode": "url", "elicitationId": id, "url": format!("https://pay.example/{id}"), "message": "Pay"});
    let error = json!({"code": -32042, "message": "pay first", "data": {"elicitations": [page("a"), page("b")]}});
    let events = turn(&json!([{"error": error}])).await;
    let result = events.iter().find(|event| event["type"] == "tool_result").unwrap();
    assert_eq!(result["is_error"], true);
    let text = result["text"].as_str().unwrap();
    assert!(
        text.contains("pay first") && text.contains("https://pay.example/a") && text.contains("https://pay.example/b"),
        "{text}"
    );
}

const PAGE: &str = "https://pay.example/x";

#[tokio::test]
async fn that_a_page_is_done_is_told_to_the_client_that_was_asked() {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({"elicitation": {"url": {}}})).await;
    let page = json!({"mode": "url", "message": "Pay", "url": PAGE, "elicitationId": "e1"});
    let done = json!({"elicitationId": "e1", "own": 1});
    let other = tell("elicitation/complete", &json!({"elicitationId": "of somebody else"}));
    let steps = json!([ask("elicitation/create", &page), other, tell("elicitation/complete", &done)]);
    let heard = client.follow(steps, json!({}), accepted).await;
    let told: Vec<_> = heard.iter().filter(|message| message["method"] == "notifications/elicitation/complete").collect();
    assert_eq!(told.len(), 1, "{heard:?}");
    assert_eq!(told[0]["params"], done);
}

#[tokio::test]
async fn each_session_hears_messages_of_its_own_level() {
    let (talker, worker) = start().await;
    let steps = json!([log("debug"), log("info"), log("error")]);
    let clients = [
        Legacy::connect(&worker, json!({})).await,
        Legacy::connect(&worker, json!({})).await,
        Legacy::connect(&worker, json!({})).await,
    ];
    let set = async |client: &Legacy<'_>, level: &str| {
        let answer = client.request(9, "logging/setLevel", json!({"level": level}), json!({})).await.next().await.unwrap();
        assert_eq!(answer["result"], json!({}), "{answer}");
    };
    let asked_for = || {
        let seen = talker.seen.lock().unwrap();
        let level = |seen: &Value| seen["params"]["level"].as_str().unwrap().to_owned();
        seen.iter().filter(|seen| seen["method"] == "logging/setLevel").map(level).collect::<Vec<_>>()
    };
    set(&clients[0], "error").await;
    set(&clients[1], "info").await;
    assert_eq!(asked_for(), ["error", "info"], "the lowest that anybody wants");
    set(&clients[0], "critical").await;
    set(&clients[0], "error").await;
    assert_eq!(asked_for(), ["error", "info"], "it is still the same");
    for (client, expected) in [(0, &["error"][..]), (1, &["info", "error"]), (2, &["debug", "info", "error"])] {
        let heard = clients[client].follow(steps.clone(), json!({}), accepted).await;
        assert_eq!(levels(&heard), expected, "client {client}");
    }
    // A session that ends wants nothing any more.
    let end = worker.http.delete(format!("{}/mcp", worker.url)).header("mcp-session-id", &clients[1].session);
    assert_eq!(end.send().await.unwrap().status(), 204);
    let heard = clients[0].follow(steps.clone(), json!({}), accepted).await;
    assert_eq!((levels(&heard), asked_for().last().unwrap().as_str()), (vec!["error"], "error"));

    let call = json!({"name": "t__follow", "arguments": {"steps": steps}});
    let mut events = modern(&worker, "tools/call", call, json!({"io.modelcontextprotocol/logLevel": "error"})).await;
    let mut heard = Vec::new();
    while let Some(message) = events.next().await {
        heard.push(message);
    }
    assert_eq!(levels(&heard), ["error"]);
}

#[tokio::test]
async fn a_server_that_comes_back_is_told_the_level_again() {
    let (talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({})).await;
    client.request(9, "logging/setLevel", json!({"level": "warning"}), json!({})).await;
    let count = |method: &str| talker.seen.lock().unwrap().iter().filter(|seen| seen["method"] == method).count();
    assert_eq!((count("initialize"), count("logging/setLevel")), (1, 1));
    assert!(worker.app.engine.hub.reconnect(Some("t")));
    while count("initialize") < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heard = client.follow(json!([log("warning")]), json!({}), accepted).await;
    assert_eq!((levels(&heard), count("logging/setLevel")), (vec!["warning"], 2));
}

#[rstest]
#[case::without(json!({"sampling": {}}), false)]
#[case::with(json!({"sampling": {"tools": {}}}), true)]
#[tokio::test]
async fn sampling_with_tools_is_for_clients_that_know_it(#[case] can: Value, #[case] asks: bool) {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, can).await;
    let messages = json!([{"role": "user", "content": {"type": "text", "text": "Hi"}}]);
    let tools = json!({"messages": messages, "maxTokens": 5, "tools": [{"name": "t", "inputSchema": {"type": "object"}}]});
    let choice = json!({"messages": messages, "maxTokens": 5, "toolChoice": {"mode": "none"}});
    let result =
        json!({"role": "assistant", "model": "m", "content": [{"type": "tool_use", "id": "1", "name": "t", "input": {}}]});
    for params in [tools, choice] {
        let steps = json!([ask("sampling/createMessage", &params)]);
        let heard = client.follow(steps, json!({}), |_| json!({"result": result})).await;
        if asks {
            assert_eq!((&heard[0]["params"], answers(&heard)), (&params, json!([result])));
        } else {
            let refused = &answers(&heard)[0];
            assert_eq!((heard.len(), &refused["code"]), (1, &json!(-32602)), "{heard:?}");
            assert!(refused["message"].as_str().unwrap().contains("tools"), "{refused}");
        }
    }
}

#[tokio::test]
async fn the_error_of_a_client_reaches_the_server() {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({"elicitation": {}})).await;
    let error = json!({"code": -1, "message": "the user is away", "data": {"until": 7}});
    let form = json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    let heard = client.follow(json!([ask("elicitation/create", &form)]), json!({}), |_| json!({"error": error})).await;
    assert_eq!(answers(&heard), json!([error]));
}

/// A form with what no type of ours or of the SDK knows.
fn odd_form() -> Value {
    json!({"message": "Who?", "own": true, "_meta": {"k": 1}, "requestedSchema": {"type": "object", "additionalProperties": false,
        "$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {
            "zip": {"type": "string", "pattern": "^[0-9]+$", "x-own": 1},
            "kind": {"enum": ["a", "b"]},
            "address": {"type": "object", "properties": {"street": {"type": "string"}}}}}})
}

#[tokio::test]
async fn a_question_and_its_answer_pass_as_they_were_written() {
    let (_talker, worker) = start().await;
    let can = json!({"elicitation": {"form": {}}});
    let (form, answer) =
        (odd_form(), json!({"action": "accept", "content": {"zip": "1", "more": {"x": [1]}}, "own": 1, "_meta": {"k": 2}}));
    let client = Legacy::connect(&worker, can.clone()).await;
    let heard = client.follow(json!([ask("elicitation/create", &form)]), json!({}), |_| json!({"result": answer})).await;
    assert_eq!((&heard[0]["params"], answers(&heard)), (&form, json!([answer])));

    let call = json!({"name": "t__follow", "arguments": {"steps": [ask("elicitation/create", &form)]}});
    let meta = json!({"io.modelcontextprotocol/clientCapabilities": can});
    let asked = modern(&worker, "tools/call", call.clone(), meta.clone()).await.next().await.unwrap()["result"].clone();
    let (key, question) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(question["params"], form);
    let mut again = call;
    (again["requestState"], again["inputResponses"]) = (asked["requestState"].clone(), json!({key: answer}));
    let heard = modern(&worker, "tools/call", again, meta.clone()).await.next().await.unwrap();
    assert_eq!(answers(&[heard]), json!([answer]));

    // The same of a server of the modern era.
    let stub = Stub::start(json!([{"name": "pay", "inputSchema": {"type": "object"}}])).await;
    let question = json!({"method": "elicitation/create", "params": form});
    stub.answers("tools/call", json!({"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "s"}));
    let worker = Worker::start("otherwise: {text: 'Hello.'}", &[stub.entry("t")], &[]).await;
    let call = json!({"name": "t__pay", "arguments": {}});
    let asked = modern(&worker, "tools/call", call, meta).await.next().await.unwrap();
    assert_eq!(asked["result"]["inputRequests"]["q"], question, "{asked}");
}

#[rstest]
#[case::no_message("elicitation/create", json!({"requestedSchema": {"type": "object", "properties": {}}}), "message")]
#[case::odd_schema("elicitation/create", json!({"message": "m", "requestedSchema": [1]}), "requestedSchema")]
#[case::no_schema("elicitation/create", json!({"message": "m"}), "requestedSchema")]
#[case::no_page("elicitation/create", json!({"mode": "url", "message": "m", "elicitationId": "e"}), "url")]
#[case::no_messages("sampling/createMessage", json!({"maxTokens": 5}), "messages")]
#[tokio::test]
async fn what_cannot_be_passed_on_is_refused_by_the_name_of_its_field(
    #[case] method: &str,
    #[case] params: Value,
    #[case] field: &str,
) {
    let (_talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}})).await;
    let heard = client.follow(json!([ask(method, &params)]), json!({}), accepted).await;
    let refused = &answers(&heard)[0];
    assert_eq!((heard.len(), &refused["code"]), (1, &json!(-32602)), "{heard:?}");
    assert!(refused["message"].as_str().unwrap().contains(&format!("\"{field}\"")), "{refused}");
}

#[tokio::test]
async fn a_token_of_progress_comes_back_as_it_was_written() {
    let (_talker, worker) = start().await;
    for token in ["1.0", "-0.5", "12345678901234567890123", "\"1.0\""] {
        let steps = json!([progress(1)]);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t__follow","arguments":{{"steps":{steps}}},"_meta":{{"progressToken":{token}}}}}}}"#
        );
        let request = worker.http.post(format!("{}/mcp", worker.url)).header("content-type", "application/json");
        let answer = request.header("accept", "application/json, text/event-stream").body(body).send().await.unwrap();
        let told = answer.text().await.unwrap();
        assert!(told.contains(&format!(r#""progressToken":{token}"#)), "{token}: {told}");
    }
}

#[tokio::test]
async fn a_state_is_of_its_own_call_and_waits_until_it_is_answered() {
    let (_talker, worker) = start().await;
    let form = json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    let meta = json!({"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}});
    let call = |arguments: &Value, more: Value| {
        let mut call = json!({"name": "t__follow", "arguments": arguments});
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (worker, meta) = (&worker, meta.clone());
        async move { modern(worker, "tools/call", call, meta).await.next().await.unwrap() }
    };
    let own = json!({"steps": [ask("elicitation/create", &form)]});
    let asked = call(&own, json!({})).await["result"].clone();
    let state = &asked["requestState"];
    let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap();
    let again = call(&own, json!({"requestState": state, "inputResponses": {}})).await;
    assert_eq!(again["result"], asked, "it asks again");
    let again = call(&own, json!({"requestState": state})).await;
    assert_eq!(again["result"], asked);
    let answer = json!({key: {"action": "accept", "content": {}}});
    let other = call(&json!({"steps": []}), json!({"requestState": state, "inputResponses": answer})).await;
    assert_eq!(other["error"]["code"], -32602, "{other}");
    let mut other = json!({"name": "t__work", "arguments": own, "requestState": state, "inputResponses": answer});
    other["_meta"] = json!({});
    let other = modern(&worker, "tools/call", other, meta.clone()).await.next().await.unwrap();
    assert_eq!(other["error"]["code"], -32602, "{other}");
    let done = call(&own, json!({"requestState": state, "inputResponses": answer})).await;
    assert_eq!(answers(&[done]), json!([{"action": "accept", "content": {}}]), "it still waited");
}

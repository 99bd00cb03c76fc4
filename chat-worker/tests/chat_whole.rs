//! /mcp passes on what servers have: results as they are, resources, prompts and completion; and a gateway needs no model for it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use rstest::rstest;
use serde_json::{Value, json};
use support::{Worker, client::modern, stub::Stub};

const SCRIPT: &str = r#"
rules:
  - {name: look, when: [look], steps: [{tools: [{tool: look}]}, {text: "It said {{last}}."}]}
otherwise: {text: Hello.}
"#;

fn tools() -> Value {
    json!([{"name": "look", "title": "Look", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object", "properties": {"a": {}}},
            "annotations": {"readOnlyHint": true, "title": "Look!"}, "_meta": {"x/y": 1}}])
}

/// Asks /mcp; the result, or the error.
async fn mcp(worker: &Worker, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
    let answer: Value =
        request.header("mcp-protocol-version", "2025-11-25").json(&body).send().await.unwrap().json().await.unwrap();
    if answer["result"].is_null() { answer["error"].clone() } else { answer["result"].clone() }
}

#[rstest]
#[case::joined(json!({"content": [{"type": "text", "text": "\u{645}\u{6cc}\u{200c}\u{62e} \u{1F468}\u{200D}\u{1F469}"}]}))]
#[case::line_ends(json!({"content": [{"type": "text", "text": "a\r\nb"}], "structuredContent": {"a": "a\r\nb\u{202E}"}}))]
#[case::wide(json!({"content": [{"type": "text", "text": "see structured"}], "structuredContent": {"a": "x".repeat(60_000)}}))]
#[case::long(json!({"content": [{"type": "text", "text": "x".repeat(100_003)}]}))]
#[case::media(json!({"content": [{"type": "image", "mimeType": "image/png", "data": "aGk="}, {"type": "audio", "mimeType": "audio/wav", "data": "aGk="},
    {"type": "resource", "resource": {"uri": "a:b", "mimeType": "application/octet-stream", "blob": "aGk="}}]}))]
#[case::links(json!({"content": [{"type": "resource_link", "uri": "file:///a.txt", "name": "a", "mimeType": "text/plain"},
    {"type": "text", "text": "1", "annotations": {"audience": ["user"], "priority": 0.5}, "_meta": {"k": "v"}}, {"type": "text", "text": "2"}],
    "_meta": {"m": 1}}))]
#[case::an_error(json!({"content": [{"type": "text", "text": "no"}], "isError": true}))]
#[tokio::test]
async fn a_result_passes_as_it_is(#[case] sent: Value) {
    let stub = Stub::start(tools()).await;
    stub.answers("tools/call", sent.clone());
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &[]).await;
    let got = mcp(&worker, "tools/call", json!({"name": "s__look", "arguments": {}})).await;
    for (name, value) in sent.as_object().unwrap() {
        assert_eq!(&got[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_is_an_error_that_tells_its_size() {
    let stub = Stub::start(tools()).await;
    stub.answers("tools/call", json!({"content": [{"type": "text", "text": "x".repeat(3_000)}]}));
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &["--max-result-bytes", "2000"]).await;
    let got = mcp(&worker, "tools/call", json!({"name": "s__look", "arguments": {}})).await;
    assert_eq!(got["isError"], true);
    let told = got["content"][0]["text"].as_str().unwrap();
    assert!(told.contains("is 30") && told.contains("2000"), "{told}");
}

#[tokio::test]
async fn definitions_pass_whole_and_one_that_breaks_clients_is_mended() {
    let stub = Stub::start(tools()).await;
    let odd = json!({"name": "odd", "inputSchema": {"type": "object", "properties": {"a": true}, "required": "a"}, "outputSchema": {"type": "string"}});
    stub.tools.lock().unwrap().as_array_mut().unwrap().push(odd);
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &[]).await;
    let listed = mcp(&worker, "tools/list", json!({})).await;
    let look = &listed["tools"][0];
    let given = &tools()[0];
    assert_eq!(look["name"], "s__look");
    for name in ["title", "outputSchema", "annotations", "_meta", "inputSchema"] {
        assert_eq!(look[name], given[name], "{name}");
    }
    let odd = &listed["tools"][1];
    assert!(odd["inputSchema"]["properties"]["a"].is_object() && odd["outputSchema"].is_null(), "{odd}");
    let listed = modern(&worker, "tools/list", json!({}), json!({})).await.next().await.unwrap();
    let odd = &listed["result"]["tools"][1];
    assert_eq!((&odd["name"], &odd["outputSchema"]), (&json!("s__odd"), &json!({"type": "string"})), "any schema will do there");
}

#[rstest]
#[case::by_its_name("s__look", "ARGUMENTS")]
#[case::by_another_tool("call_tool", r#"{"name": "s__look", "arguments": ARGUMENTS}"#)]
#[tokio::test]
async fn arguments_pass_as_they_were_written(#[case] tool: &str, #[case] around: &str) {
    let stub = Stub::start(tools()).await;
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &[]).await;
    let arguments = r#"{"z": 1.10, "10":1e2, "2":12345678901234567890123,"a":[ 1.0,"\u00e9" ]}"#;
    let params = format!(
        r#"{{"name":"{tool}","arguments":{}}}"#,
        around.replace("ARGUMENTS", &arguments.replace(", \"10\"", ",\n\"10\""))
    );
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json");
    let answer = request.header("content-type", "application/json").body(body).send().await.unwrap().text().await.unwrap();
    let raw = stub.raw.lock().unwrap().clone();
    let call = raw.iter().find(|body| body.contains("tools/call")).unwrap_or_else(|| unreachable!("{answer}"));
    assert!(call.contains(&format!("\"arguments\":{arguments}")), "a line break becomes a space, and nothing else: {call}");
}

#[tokio::test]
async fn resources_prompts_and_completion_of_all_servers_are_offered() {
    let (one, two) = (Stub::start(tools()).await, Stub::start(tools()).await);
    let resource = |uri: &str, name: &str| json!({"uri": uri, "name": name, "mimeType": "text/plain"});
    one.answers("resources/list", json!({"resources": [resource("memo://a", "a"), resource("memo://both", "both")]}));
    two.answers("resources/list", json!({"resources": [resource("memo://b", "b"), resource("memo://both", "both")]}));
    two.answers("resources/templates/list", json!({"resourceTemplates": [{"uriTemplate": "city://{name}", "name": "city"}]}));
    let contents = |text: &str| json!({"contents": [{"uri": "memo://x", "text": text}]});
    one.answers("resources/read", contents("of one"));
    two.answers("resources/read", contents("of two"));
    two.answers("prompts/list", json!({"prompts": [{"name": "greet", "arguments": [{"name": "who"}]}]}));
    two.answers("prompts/get", json!({"messages": [{"role": "user", "content": {"type": "text", "text": "Hi"}}]}));
    two.answers("completion/complete", json!({"completion": {"values": ["Ann"]}}));
    let worker = Worker::start(SCRIPT, &[one.entry("one"), two.entry("two")], &[]).await;

    let listed = mcp(&worker, "resources/list", json!({})).await;
    let names: Vec<&str> = listed["resources"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["one__a", "one__both", "two__b"]);
    assert_eq!(listed["resources"][1]["_meta"], json!({"mcpfleet.dev/alsoAt": ["two"]}), "a collision is told");
    let templates = mcp(&worker, "resources/templates/list", json!({})).await;
    assert_eq!(templates["resourceTemplates"][0]["name"], "two__city");
    for (uri, text) in [("memo://a", "of one"), ("memo://b", "of two"), ("memo://both", "of one"), ("city://Oslo", "of two")] {
        let read = mcp(&worker, "resources/read", json!({"uri": uri})).await;
        assert_eq!(read["contents"][0]["text"], text, "{uri}");
    }
    let prompts = mcp(&worker, "prompts/list", json!({})).await;
    assert_eq!(prompts["prompts"][0]["name"], "two__greet");
    let prompt = mcp(&worker, "prompts/get", json!({"name": "two__greet", "arguments": {"who": "Ann"}})).await;
    assert_eq!(prompt["messages"][0]["content"]["text"], "Hi");
    assert_eq!(mcp(&worker, "prompts/get", json!({"name": "gone__greet"})).await["code"], -32602);
    let params = json!({"ref": {"type": "ref/prompt", "name": "two__greet"}, "argument": {"name": "who", "value": "A"}});
    assert_eq!(mcp(&worker, "completion/complete", params).await["completion"]["values"], json!(["Ann"]));
}

#[tokio::test]
async fn a_prompt_whose_name_had_to_be_changed_is_got_and_completed_by_its_own() {
    let stub = Stub::start(tools()).await;
    let names = ["p.x", "greet me", "a/b", "städte", &"long".repeat(30), "plain_0123abcd"];
    stub.answers("prompts/list", json!({"prompts": names.map(|name| json!({"name": name}))}));
    stub.answers("prompts/get", json!({"messages": []}));
    stub.answers("completion/complete", json!({"completion": {"values": []}}));
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &[]).await;

    let listed = mcp(&worker, "prompts/list", json!({})).await;
    for prompt in listed["prompts"].as_array().unwrap() {
        let name = &prompt["name"];
        mcp(&worker, "prompts/get", json!({"name": name})).await;
        let argument = json!({"name": "who", "value": "A"});
        mcp(&worker, "completion/complete", json!({"ref": {"type": "ref/prompt", "name": name}, "argument": argument})).await;
    }
    let seen = stub.seen.lock().unwrap().clone();
    for (method, place) in [("prompts/get", "/params/name"), ("completion/complete", "/params/ref/name")] {
        let of_method = seen.iter().filter(|seen| seen["method"] == method);
        let asked: Vec<_> = of_method.filter_map(|seen| seen.pointer(place)?.as_str()).collect();
        assert_eq!(asked, names, "{method}");
    }
}

#[tokio::test]
async fn every_tool_is_told_of_however_deep_its_schema_is() {
    let deep = (0..200).fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"in": inner}}));
    let stub =
        Stub::start(json!([{"name": "deep", "inputSchema": deep}, {"name": "plain", "inputSchema": {"type": "object"}}])).await;
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &[]).await;
    let told = worker.http.get(format!("{}/v1/tools", worker.url)).send().await.unwrap().text().await.unwrap();
    assert!(
        told.contains(r#""name":"s__deep""#) && told.contains(r#""name":"s__plain""#) && told.ends_with(r#""left_out":[]}"#),
        "{told}"
    );
}

#[tokio::test]
async fn a_gateway_needs_no_model_and_says_so_to_questions() {
    let stub = Stub::start(tools()).await;
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &["--mode", "gateway"]).await;
    let (status, answer) = worker.ask(json!({"message": "hello"})).await;
    assert_eq!(status, 501);
    assert!(answer["detail"].as_str().unwrap().contains("/mcp"), "{answer}");
    assert_eq!(worker.get("/v1/servers").await["model"], Value::Null);
    assert_eq!(worker.get("/v1/tools").await["tools"].as_array().unwrap().len(), 1);
    assert_eq!(mcp(&worker, "tools/call", json!({"name": "s__look"})).await["content"][0]["text"], "done");
    let page = worker.http.get(&worker.url).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("mcpfleet gateway"), "{page}");
    assert!(worker.model.standin.seen().is_empty());
}

#[tokio::test]
async fn with_tool_search_two_tools_find_and_call_all_others() {
    let stub = Stub::start(tools()).await;
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &["--tool-search", "always"]).await;
    let listed = mcp(&worker, "tools/list", json!({})).await;
    assert_eq!(listed["tools"].as_array().unwrap().len(), 2);
    let find = listed["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "find_tools").unwrap();
    assert_eq!(find["annotations"]["readOnlyHint"], true, "a client need not ask about it");
    let found = mcp(&worker, "tools/call", json!({"name": "find_tools", "arguments": {"query": "look"}})).await;
    assert!(found["content"][0]["text"].as_str().unwrap().contains("s__look"), "{found}");
    let called =
        mcp(&worker, "tools/call", json!({"name": "call_tool", "arguments": {"name": "s__look", "arguments": {"q": 1}}})).await;
    assert_eq!(called["content"][0]["text"], "done");
    assert_eq!(stub.calls()[0]["arguments"], json!({"q": 1}));
}

#[rstest]
#[case::messages(&[])]
#[case::completions(&["--model-api", "openai", "--model", "m"])]
#[tokio::test]
async fn pictures_and_instructions_reach_the_model_and_the_history_stays_good_when_the_server_goes(#[case] api: &[&str]) {
    let stub = Stub::start(tools()).await;
    *stub.instructions.lock().unwrap() = Some("Ask for the weather first.".to_owned());
    stub.answers("tools/call", json!({"content": [{"type": "image", "mimeType": "image/png", "data": "iVBORw0KGgo="}]}));
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], api).await;
    let (status, answer) = worker.ask(json!({"message": "look"})).await;
    assert_eq!(status, 200, "{answer}");
    let seen = worker.model.standin.seen();
    let last = seen.last().unwrap().body.to_string();
    assert!(last.contains("iVBORw0KGgo=") && last.contains("Ask for the weather first."), "{last}");
    stub.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    worker.until("the fault", |health| support::state(health, "s") != "up").await;
    let (status, answer) = worker.ask(json!({"message": "hello", "messages": answer["messages"]})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("Hello.")), "{answer}");
}

#[rstest]
#[case::messages(&[])]
#[case::completions(&["--model-api", "openai", "--model", "m"])]
#[tokio::test]
async fn one_odd_tool_ends_no_question_and_its_arguments_come_back(#[case] api: &[&str]) {
    let odd = json!([
        {"name": "look", "inputSchema": {"type": "object", "properties": {"filter[name]": {"type": "string"}}}, "annotations": {"readOnlyHint": true}},
        {"name": "root", "inputSchema": {"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}]}},
        {"name": "old", "inputSchema": {"type": "object", "properties": {"a": {"type": "array", "items": [{}]}, "b": {"type": "number", "exclusiveMinimum": true}}}},
    ]);
    let stub = Stub::start(odd).await;
    let script = "rules: [{name: l, when: [look], steps: [{tools: [{tool: look, input: {'filter[name]': x, filter_name_4d3b07: y}}]}, {text: ok}]}]\notherwise: {text: Hello.}";
    let worker = Worker::start(script, &[stub.entry("s")], api).await;
    let (status, answer) = worker.ask(json!({"message": "look"})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("ok")), "{answer}");
    assert_eq!(stub.calls()[0]["arguments"]["filter[name]"], "x");
    assert_eq!(worker.get("/v1/tools").await["left_out"], json!([]));
}

#[rstest]
#[case::messages(&[])]
#[case::completions(&["--model-api", "openai", "--model", "m"])]
#[tokio::test]
async fn long_numbers_pass_as_they_are_written(#[case] api: &[&str]) {
    const LONG: &str = "12345678901234567890123";
    let stub = Stub::start(json!([{"name": "wipe", "inputSchema": {"type": "object"}}])).await;
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], api).await;
    let post = async |path: &str, body: String| {
        let request = worker.http.post(format!("{}{path}", worker.url)).header("content-type", "application/json");
        let request =
            request.header("accept", "application/json, text/event-stream").header("mcp-protocol-version", "2025-11-25");
        request.body(body).send().await.unwrap().text().await.unwrap()
    };
    let call =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"s__wipe","arguments":{{"id":{LONG}}}}}}}"#);
    post("/mcp", call).await;
    let history = format!(
        r#"[{{"role":"user","content":"x"}},{{"role":"assistant","content":[{{"type":"tool_use","id":"1","name":"s__wipe","input":{{"id":{LONG}}}}}]}}]"#
    );
    let asked = post("/v1/chat", format!(r#"{{"messages":{history},"stream":false}}"#)).await;
    assert!(asked.contains(&format!(r#""input":{{"id":{LONG}}}"#)), "it is shown as it is: {asked}");
    let told = post("/v1/chat", format!(r#"{{"messages":{history}}}"#)).await;
    assert!(
        told.contains(&format!(r#""arguments":"{{\"id\":{LONG}}}""#)),
        "and as a text, for readers who would round it: {told}"
    );
    post("/v1/chat", format!(r#"{{"messages":{history},"approve":["1"],"stream":false}}"#)).await;
    let raw = stub.raw.lock().unwrap().clone();
    let calls: Vec<&String> = raw.iter().filter(|body| body.contains("tools/call")).collect();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|body| body.contains(&format!(r#""id":{LONG}"#))), "{calls:?}");
}

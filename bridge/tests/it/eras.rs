//! Clients of both eras, children of both eras.

use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Bridge, Events, MODERN, answer, child, initialize, messages, text, tools_call};

#[rstest]
#[tokio::test]
async fn a_legacy_client_has_a_session(
    #[values("legacy", "modern", "both", "legacy mute-discover", "legacy banner")] words: &str,
) {
    let bridge = Bridge::start("", &child(words)).await;
    let session = bridge.initialize(json!({})).await;
    let list = answer(bridge.post(Some(&session), &json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"})).await).await;
    assert_eq!((&list["id"], &list["result"]["tools"][0]["name"]), (&json!(7), &json!("echo")));
    let arguments = json!({"a": "ü\u{2028}\n", "n": 12_345_678_901_234_567_890_u64});
    assert_eq!(bridge.text(Some(&session), "echo", arguments.clone()).await, arguments);
    let ping = answer(bridge.post(Some(&session), &json!({"jsonrpc": "2.0", "id": 8, "method": "ping"})).await).await;
    assert_eq!(ping["id"], 8);
    assert_eq!(bridge.request(Method::DELETE, "/mcp").header("mcp-session-id", &session).send().await.unwrap().status(), 200);
    assert_eq!(bridge.post(Some(&session), &tools_call("echo", json!({}))).await.status(), 404);
}

#[rstest]
#[tokio::test]
async fn a_modern_client_needs_none(#[values("legacy", "modern", "both", "legacy slow-start")] words: &str) {
    let bridge = Bridge::start("", &child(words)).await;
    let discovered = answer(bridge.modern(&json!(1), "server/discover", &json!({})).send().await.unwrap()).await;
    let result = &discovered["result"];
    assert_eq!(result["resultType"], "complete", "{discovered}");
    assert!(result["supportedVersions"].as_array().unwrap().contains(&json!(MODERN)));
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "child");
    assert!(result["ttlMs"].is_u64() && result["cacheScope"].is_string());
    let list = answer(bridge.modern(&json!("l"), "tools/list", &json!({})).send().await.unwrap()).await;
    assert_eq!((&list["id"], &list["result"]["resultType"]), (&json!("l"), &json!("complete")), "{list}");
    assert!(list["result"]["ttlMs"].is_u64(), "{list}");
    let called = bridge.modern(&json!(2), "tools/call", &json!({"name": "echo", "arguments": {"a": 1}})).send().await.unwrap();
    let called = answer(called).await;
    assert_eq!((&called["result"]["resultType"], text(&called)), (&json!("complete"), json!({"a": 1})));
    let unknown = bridge.modern(&json!(3), "no/such", &json!({})).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer(unknown).await["error"]["code"], -32601);
    for gone in ["ping", "initialize"] {
        let response = bridge.modern(&json!(4), gone, &json!({})).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{gone}");
        assert_eq!(answer(response).await["error"]["code"], -32601);
    }
}

#[rstest]
#[tokio::test]
async fn a_legacy_child_hears_nothing_of_the_modern_protocol_and_a_modern_one_all_of_it(#[values("legacy", "modern")] era: &str) {
    let bridge = Bridge::start("", &child(era)).await;
    let meta = json!({"own": 1, "progressToken": "p"});
    let mut body = tools_call("seen", json!({}));
    body["params"]["_meta"] = meta.clone();
    let legacy = text(&answer(bridge.post(None, &body).await).await);
    let params = json!({"name": "seen", "_meta": meta});
    let modern = text(&answer(bridge.modern(&json!(1), "tools/call", &params).send().await.unwrap()).await);
    for seen in [legacy, modern] {
        let keys: Vec<_> = seen["meta"].as_object().unwrap().keys().collect();
        assert!(keys.iter().any(|key| *key == "own"));
        assert!(seen["meta"]["progressToken"].is_u64(), "it is ours: {seen}");
        assert_eq!(keys.iter().any(|key| key.starts_with("io.modelcontextprotocol/protocolVersion")), era == "modern", "{seen}");
    }
}

#[tokio::test]
async fn a_shared_child_is_told_of_no_capability() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let session = bridge.initialize(json!({"sampling": {}, "elicitation": {}})).await;
    assert_eq!(bridge.text(Some(&session), "seen", json!({})).await["initialize"]["capabilities"], json!({}));
    // One that asks all the same gets an error, and not a client's time.
    assert_eq!(bridge.text(Some(&session), "elicit", json!({})).await["code"], -32601);
}

#[tokio::test]
async fn a_legacy_client_is_asked_what_a_modern_child_needs() {
    let bridge = Bridge::start("", &child("modern")).await;
    let session = bridge.initialize(json!({"elicitation": {}})).await;
    let mut stream = Events::of(bridge.post(Some(&session), &tools_call("elicit", json!({}))).await);
    let question = stream.next().await.unwrap();
    assert_eq!((&question["method"], &question["params"]["message"]), (&json!("elicitation/create"), &json!("who?")));
    // Another session cannot answer it.
    let other = bridge.initialize(json!({"elicitation": {}})).await;
    let reply = |content: &str| json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": content}}});
    assert_eq!(bridge.post(Some(&other), &reply("mallory")).await.status(), 202);
    assert_eq!(bridge.post(Some(&session), &reply("alice")).await.status(), 202);
    let called = stream.next().await.unwrap();
    assert_eq!(called["id"], "c");
    assert_eq!(text(&called), json!({"answers": {"q": {"action": "accept", "content": {"name": "alice"}}}, "state": "secret"}));
    // Who cannot be asked hears why.
    let mute = bridge.initialize(json!({})).await;
    let refused = bridge.call(Some(&mute), "elicit", json!({})).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("elicitation/create"), "{refused}");
}

#[rstest]
#[tokio::test]
async fn a_client_with_a_child_of_its_own_is_asked_in_its_own_revision(
    #[values("legacy", "both", "both slower-start", "unlisted", "unlisted slower-start", "modern")] era: &str,
) {
    let bridge = Bridge::start("--sessions per-session", &child(era)).await;
    let session = bridge.initialize(json!({"elicitation": {}})).await;
    let mut stream = Events::of(bridge.post(Some(&session), &tools_call("elicit", json!({}))).await);
    let question = stream.next().await.unwrap();
    assert_eq!(question["method"], "elicitation/create");
    let declined = json!({"action": "decline"});
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": declined});
    assert_eq!(bridge.post(Some(&session), &reply).await.status(), 202);
    // One that knows the modern revision alone is called again with the answers.
    let heard = if era == "modern" { json!({"answers": {"q": declined}, "state": "secret"}) } else { declined };
    assert_eq!(text(&stream.next().await.unwrap()), heard);
}

#[rstest]
#[tokio::test]
async fn a_modern_client_is_asked_by_a_modern_child_in_its_own_words(#[values("shared", "per-session")] sessions: &str) {
    let bridge = Bridge::start(&format!("--sessions {sessions}"), &child("modern")).await;
    let call = async |params: Value| answer(bridge.modern(&json!(1), "tools/call", &params).send().await.unwrap()).await;
    let asked = call(json!({"name": "elicit", "arguments": {}})).await;
    let result = &asked["result"];
    assert_eq!((&result["resultType"], &result["requestState"]), (&json!("input_required"), &json!("secret")), "{asked}");
    assert_eq!(result["inputRequests"], json!({"q": {"method": "elicitation/create", "params": {"message": "who?"}}}));
    let answers = json!({"q": {"action": "accept", "content": {"name": "alice"}}});
    let answered = call(json!({"name": "elicit", "arguments": {}, "inputResponses": answers, "requestState": "secret"})).await;
    assert_eq!(text(&answered), json!({"answers": answers, "state": "secret"}), "{answered}");
}

#[rstest]
#[tokio::test]
async fn what_is_no_message_is_answered_in_json_rpcs_own_words(
    #[values(
        ("{", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[]}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#, -32600)
    )]
    case: (&'static str, i64),
) {
    let bridge = Bridge::start("", &child("legacy")).await;
    let response =
        bridge.request(Method::POST, "/mcp").header("content-type", "application/json").body(case.0).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer(response).await["error"]["code"], case.1);
}

#[rstest]
#[tokio::test]
async fn an_error_without_an_id_is_answered_with_the_clients(#[values(true, false)] is_null: bool) {
    let bridge = Bridge::start("", &child("legacy")).await;
    let modern = bridge.modern(&json!("c"), "tools/call", &json!({"name": "nameless", "arguments": {"null": is_null}}));
    let answers = [bridge.call(None, "nameless", json!({"null": is_null})).await, answer(modern.send().await.unwrap()).await];
    for answer in answers {
        assert_eq!(answer, json!({"jsonrpc": "2.0", "id": "c", "error": {"code": -32700, "message": "Parse error"}}));
    }
}

#[tokio::test]
async fn several_messages_at_once_are_answered_in_one_array() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let session = bridge.initialize(json!({})).await;
    let call = |id: u64| {
        let mut call = tools_call("echo", json!({"a": id}));
        call["id"] = id.into();
        call
    };
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    for session in [None, Some(session.as_str())] {
        let answers: Value = bridge.post(session, &json!([call(1), note, 5, call(2)])).await.json().await.unwrap();
        let told: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["id"]).collect();
        assert_eq!(told, [&json!(1), &Value::Null, &json!(2)], "{answers}");
        assert_eq!((text(&answers[0]), text(&answers[2])), (json!({"a": 1}), json!({"a": 2})));
        assert_eq!(bridge.post(session, &json!([note])).await.status(), StatusCode::ACCEPTED);
    }
}

#[tokio::test]
async fn a_message_over_several_lines_is_one_message() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let body = serde_json::to_string_pretty(&tools_call("echo", json!({"a": 1}))).unwrap().replace('\n', "\r\n");
    let response =
        bridge.request(Method::POST, "/mcp").header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(text(&answer(response).await), json!({"a": 1}));
}

#[tokio::test]
async fn an_unknown_revision_is_refused_with_those_that_are_known() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let request =
        bridge.request(Method::POST, "/mcp").header("mcp-protocol-version", "1999-01-01").json(&tools_call("echo", json!({})));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let refused = answer(response).await;
    assert_eq!(refused["error"]["code"], -32022);
    assert!(refused["error"]["data"]["supported"].as_array().unwrap().contains(&json!(MODERN)));
}

#[tokio::test]
async fn a_tool_that_fails_is_counted_as_that() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let called = messages(bridge.post(None, &tools_call("fails", json!({}))).await).await;
    assert_eq!(called.last().map(|called| &called["result"]["isError"]), Some(&Value::Bool(true)));
    assert_eq!(bridge.metric(r#"bridge_calls_total{method="tools/call",outcome="tool_error",tool="fails"}"#).await, 1);
    let response = bridge.post(None, &initialize(json!({}))).await;
    assert!(response.headers().contains_key("mcp-session-id"));
}

#[tokio::test]
async fn a_trace_goes_on_in_the_childs_message() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let seen = async |body: Value| {
        let request = bridge.request(Method::POST, "/mcp").header("traceparent", parent).header("tracestate", "a=1");
        text(&answer(request.json(&body).send().await.unwrap()).await)["meta"].clone()
    };
    assert_eq!(seen(tools_call("seen", json!({}))).await, json!({"traceparent": parent, "tracestate": "a=1"}));
    let mut body = tools_call("seen", json!({}));
    body["params"]["_meta"] = json!({"traceparent": "own"});
    assert_eq!(seen(body).await, json!({"traceparent": "own"}), "what the message says comes first");
}

#[tokio::test]
async fn a_page_of_another_machine_is_refused() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let post =
        |origin: &str| bridge.request(Method::POST, "/mcp").header("origin", origin).json(&tools_call("echo", json!({}))).send();
    assert_eq!(post("http://rebound.example").await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(post("http://localhost:6274").await.unwrap().status(), StatusCode::OK);
}

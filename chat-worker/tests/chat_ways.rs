//! A call at /mcp goes the short way or the SDK's: both give the same answers, in both eras, and results pass as their servers wrote them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use rstest::rstest;
use serde_json::{Value, json};
use support::{Fake, Mood, Worker, odd, stub::Stub, talker::Talker};

const SCRIPT: &str = "otherwise: {text: 'Hello.'}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Modern,
    Legacy,
}

/// Calls a tool: status, kind, and the messages of the answer. `detour`: a parameter that nobody knows leads it the SDK's way.
async fn call(worker: &Worker, era: Era, tool: &str, arguments: Value, meta: Value, detour: bool) -> (u16, String, Vec<Value>) {
    let mut params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    if detour {
        params["unknown"] = json!(1);
    }
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
    let request = match era {
        Era::Legacy => request.header("mcp-protocol-version", "2025-06-18").header("mcp-session-id", "mcpfleet-0-x"),
        Era::Modern => {
            let own = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}});
            params["_meta"].as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call").header("mcp-name", tool)
        }
    };
    let message = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": params});
    let response = request.json(&message).send().await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    let read = |text: &str| serde_json::from_str(text).unwrap();
    let messages = match kind.as_str() {
        "text/event-stream" => text.lines().filter_map(|line| line.strip_prefix("data: ")).map(read).collect(),
        _ => vec![read(&text)],
    };
    (status, kind, messages)
}

#[rstest]
#[tokio::test]
async fn both_ways_give_the_same_answers(
    #[values(Era::Modern, Era::Legacy)] era: Era,
    #[values(Mood::Modern, Mood::Legacy)] mood: Mood,
) {
    let fake = Fake::start(mood).await;
    let stub = Stub::start(json!([{"name": "list", "inputSchema": {"type": "object"}}])).await;
    stub.answers("tools/call", json!({"content": [], "structuredContent": [1, {"a": null}], "_meta": {"x/y": 1}}));
    let worker = Worker::start(SCRIPT, &[fake.entry("a"), stub.entry("s")], &["--max-result-bytes", "200000"]).await;
    for (tool, arguments) in [
        ("a__echo", json!({"text": "hi \u{1F600}", "n": 12})),
        ("a__fail", json!({})),
        ("a__wipe", json!({})),
        ("a__nothing", json!({})),
        ("nothing", json!({})),
        ("a__dirty", json!({})),
        ("s__list", json!({})),
        ("find_tools", json!({"query": "echo"})),
        ("call_tool", json!({"name": "a__echo", "arguments": {"text": "hi"}})),
    ] {
        let mut short = call(&worker, era, tool, arguments.clone(), json!({}), false).await;
        // The stub says it of every result, and the SDK does not know it of one like this.
        if let Some(result) = short.2[0].get_mut("result").and_then(Value::as_object_mut) {
            result.retain(|name, _| !["ttlMs", "cacheScope"].contains(&name.as_str()));
        }
        let long = call(&worker, era, tool, arguments, json!({}), true).await;
        assert_eq!(short, long, "{tool}");
        assert_eq!(short.0, 200);
    }
}

#[rstest]
#[case::modern(Era::Modern, json!({"progressToken": "p", "io.modelcontextprotocol/logLevel": "info"}))]
#[case::legacy(Era::Legacy, json!({"progressToken": "p"}))]
#[tokio::test]
async fn both_ways_let_a_server_speak_before_it_answers(#[case] era: Era, #[case] meta: Value) {
    let talker = Talker::start().await;
    let worker = Worker::start(SCRIPT, &[talker.entry("t")], &[]).await;
    let short = call(&worker, era, "t__work", json!({}), meta.clone(), false).await;
    assert_eq!((short.1.as_str(), short.2.len()), ("text/event-stream", 5), "{short:?}");
    assert_eq!(short, call(&worker, era, "t__work", json!({}), meta, true).await);
}

#[rstest]
#[tokio::test]
async fn what_nobody_here_knows_of_a_block_passes_as_its_server_wrote_it(#[values(Era::Modern, Era::Legacy)] era: Era) {
    let stub = Stub::start(json!([{"name": "new", "inputSchema": {"type": "object"}}])).await;
    let link = json!({"type": "resource_link", "uri": "a:b", "name": "b", "of_2027": {"deep": [1]}});
    let blocks = json!([{"type": "text", "text": "x", "tone": "warm"}, link]);
    stub.answers("tools/call", json!({"content": blocks, "of_2027": true}));
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], &[]).await;
    let (_, _, messages) = call(&worker, era, "s__new", json!({}), json!({}), false).await;
    let result = &messages[0]["result"];
    assert_eq!((&result["content"], &result["of_2027"]), (&blocks, &json!(true)));
    assert_eq!(result.get("resultType"), (era == Era::Modern).then_some(&json!("complete")));
}

#[tokio::test]
async fn a_stream_that_ends_before_its_answer_goes_on_where_it_ended() {
    use axum::{
        Router,
        body::Bytes,
        extract::State,
        http::{HeaderMap, Method, StatusCode},
        response::{IntoResponse, Response},
    };
    use std::sync::{Arc, Mutex};

    /// The request whose answer is still to be asked for.
    type Open = Arc<Mutex<Option<Value>>>;
    async fn answer(State(open): State<Open>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
        if method == Method::GET {
            let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
            let request = if last == Some("7") { open.lock().unwrap().take() } else { None };
            return match request {
                Some(request) => {
                    let answer = odd::result(&request, &odd::text("at last"));
                    odd::reply(200, "text/event-stream", format!("id: 8\ndata: {answer}\n\n"))
                }
                None => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            };
        }
        let request: Value = serde_json::from_slice(&body).unwrap();
        let result = match request["method"].as_str().unwrap() {
            "initialize" => {
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}})
            }
            "tools/list" => json!({"tools": [odd::tool("late")]}),
            "tools/call" => {
                *open.lock().unwrap() = Some(request);
                return odd::reply(200, "text/event-stream", "id: 7\nretry: 60\ndata:\n\n");
            }
            _ if request["id"].is_null() => return StatusCode::ACCEPTED.into_response(),
            _ => return odd::reply(404, "text/plain", "no such method"),
        };
        odd::reply(200, "application/json", odd::result(&request, &result))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(Open::default());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let entry = json!({"name": "s", "url": format!("http://{address}/mcp"), "timeout": 5});
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let (_, _, messages) = call(&worker, Era::Legacy, "s__late", json!({}), json!({}), false).await;
    assert_eq!(messages[0]["result"]["content"][0]["text"], "at last", "{messages:?}");
}

#[tokio::test]
async fn an_argument_that_is_a_header_too_is_sent_as_one() {
    use axum::{
        Router,
        body::Bytes,
        http::HeaderMap,
        response::{IntoResponse, Response},
    };
    async fn answer(headers: HeaderMap, body: Bytes) -> Response {
        let request: Value = serde_json::from_slice(&body).unwrap();
        let result = match request["method"].as_str().unwrap() {
            "server/discover" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
            "tools/list" => {
                let schema = json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
                json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [{"name": "in", "inputSchema": schema}]})
            }
            "tools/call" => {
                let names = ["mcp-method", "mcp-name", "mcp-param-region", "mcp-protocol-version"];
                let told = names.map(|name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none"));
                let mut result = odd::text(&told.join(" "));
                result["_meta"] = request["params"]["_meta"].clone();
                result
            }
            _ => return odd::reply(404, "text/plain", "no").into_response(),
        };
        odd::reply(200, "application/json", odd::result(&request, &result))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    let entry = json!({"name": "s", "url": format!("http://{address}/mcp"), "timeout": 5});
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let (_, _, messages) = call(&worker, Era::Modern, "s__in", json!({"region": "eu"}), json!({}), false).await;
    let result = &messages[0]["result"];
    assert_eq!(result["content"][0]["text"], "tools/call in eu 2026-07-28", "{messages:?}");
    let meta = &result["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "mcpfleet-chat-worker");
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
    assert!(meta["progressToken"].is_number(), "{meta}");
}

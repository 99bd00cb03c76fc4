//! What the operator's prober takes, an app takes: what only describes a server or a tool, and what is no message, costs neither. What it
//! does not take, an app does not take, either. And what may have been done is not done again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::Write as _,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use futures::{FutureExt, StreamExt, future::ready};
use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    odd::{Odd, odd, reply, result, text, tool},
    state,
};

const SCRIPT: &str = "otherwise: {text: 'Hello.'}";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

async fn worker(servers: &[(&str, &Odd)]) -> Worker {
    let entries: Vec<Value> = servers.iter().map(|(name, server)| server.entry(name)).collect();
    Worker::start(SCRIPT, &entries, &["--rate-limit-requests", "0", "--approvals", "always"]).await
}

/// The answer to a call over /mcp, as it comes.
async fn call(worker: &Worker, tool: &str) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
    request.json(&body).send().await.unwrap().json().await.unwrap()
}

/// One of whose methods the answer is this.
async fn but(method: &'static str, answer: impl Fn(&Value) -> Response + Send + Sync + 'static) -> Arc<Odd> {
    let server = odd(move |request| ready((request["method"] == method).then(|| answer(&request))).boxed()).await;
    server.sessions.store(false, Ordering::SeqCst);
    server
}

fn listed() -> Value {
    json!({"tools": [tool("good"), tool("odd")]})
}

/// How many tools are offered of each server; none of one that is not up.
async fn offered(worker: &Worker, names: &[String]) -> Vec<Option<usize>> {
    let (health, tools) = (worker.get("/health").await, worker.get("/v1/tools").await);
    let of = |name: &String| tools["tools"].as_array().unwrap().iter().filter(|tool| tool["server"] == name.as_str()).count();
    names.iter().map(|name| (state(&health, name) == "up").then(|| of(name))).collect()
}

/// Starts one server of each kind, and says how many tools are offered of each.
async fn offered_of_each(servers: &[Arc<Odd>]) -> (Worker, Vec<Option<usize>>) {
    let names: Vec<String> = (0..servers.len()).map(|number| format!("s{number}")).collect();
    let all: Vec<(&str, &Odd)> = names.iter().map(String::as_str).zip(servers.iter().map(|server| &**server)).collect();
    let worker = worker(&all).await;
    let offered = offered(&worker, &names).await;
    (worker, offered)
}

#[tokio::test]
async fn what_only_describes_a_server_does_not_take_it_down() {
    let with = |odd: &Value| {
        let mut hello =
            json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}});
        hello.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
        hello
    };
    let odd = [
        json!({"capabilities": {"tools": []}}),
        json!({"capabilities": {"tools": true}}),
        json!({"capabilities": {"tools": {"listChanged": "true"}, "experimental": [], "logging": true}}),
        json!({"serverInfo": {"name": "x"}}),
        json!({"serverInfo": {"version": 1.2}}),
        json!({"serverInfo": {"name": "x", "version": "1", "icons": [{"src": "a", "sizes": "48x48"}]}}),
        json!({"instructions": ["a"]}),
    ];
    let mut servers = Vec::new();
    for hello in odd.iter().map(with) {
        servers.push(but("initialize", move |request| reply(200, JSON, result(request, &hello))).await);
    }
    for odd in [json!({"ttlMs": 1.5}), json!({"ttlMs": "5"}), json!({"ttlMs": -1}), json!({"cacheScope": "shared"})] {
        let mut hello = with(&odd);
        hello["supportedVersions"] = json!(["2026-07-28"]);
        servers.push(but("server/discover", move |request| reply(200, JSON, result(request, &hello))).await);
    }
    let (_worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, vec![Some(2); servers.len()]);
}

#[tokio::test]
async fn a_server_that_opens_nothing_is_not_up() {
    let mut servers = Vec::new();
    for odd in [
        json!({"protocolVersion": "2099-01-01", "capabilities": {"tools": {}}}),
        json!({"protocolVersion": "DRAFT-2026-v1", "capabilities": {"tools": {}}}),
        json!({"protocolVersion": "2026-07-28", "capabilities": {"tools": {}}}),
        json!({"protocolVersion": "2025-06-18", "capabilities": null}),
        json!({"protocolVersion": "2025-06-18"}),
    ] {
        servers.push(but("initialize", move |request| reply(200, JSON, result(request, &odd))).await);
    }
    // It has no tools, and does not answer to a ping, either; or not to what opens its session.
    for method in ["ping", "notifications/initialized"] {
        let oddity = move |request: Value| {
            let answer = match &request["method"] {
                one if *one == method => reply(400, "text/plain", "no"),
                one if one == "initialize" => {
                    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {"prompts": {}}});
                    let mut answer = reply(200, JSON, result(&request, &hello));
                    answer.headers_mut().insert("mcp-session-id", "7".parse().unwrap());
                    answer
                }
                _ => return ready(None).boxed(),
            };
            ready(Some(answer)).boxed()
        };
        servers.push(odd(oddity).await);
    }
    // It says that it is gzip, and is not.
    servers.push(
        but("tools/list", |request| {
            let mut response = reply(200, JSON, result(request, &listed()));
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            response
        })
        .await,
    );
    // New cursors without end.
    let number = Mutex::new(0);
    servers.push(
        but("tools/list", move |request| {
            let mut number = number.lock().unwrap();
            *number += 1;
            let page = json!({"tools": [tool(&format!("t{number}"))], "nextCursor": number.to_string()});
            reply(200, JSON, result(request, &page))
        })
        .await,
    );
    let (worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, vec![None; servers.len()]);
    let told = worker.get("/health").await.to_string();
    assert!(told.contains("2099-01-01") && told.contains("gzip encoding") && told.contains("more than 64 pages"), "{told}");
}

#[tokio::test]
async fn a_server_without_tools_is_up_also_where_it_knows_no_ping() {
    let servers = [odd(|request| {
        let answer = match request["method"].as_str() {
            Some("ping") => {
                let error = json!({"code": -32601, "message": "Method not found"});
                json!({"jsonrpc": "2.0", "id": request["id"], "error": error}).to_string()
            }
            Some("initialize") => result(&request, &json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": false}})),
            _ => return ready(None).boxed(),
        };
        ready(Some(reply(200, JSON, answer))).boxed()
    })
    .await];
    servers[0].sessions.store(false, Ordering::SeqCst);
    let (_worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, [Some(0)]);
    assert_eq!(servers[0].asked("ping"), 1);
}

#[tokio::test]
async fn an_answer_of_many_headers_is_read() {
    let servers = [but("tools/list", |request| {
        let mut response = reply(200, JSON, result(request, &listed()));
        for number in 0..150 {
            let name = http::HeaderName::try_from(format!("x-number-{number}")).unwrap();
            response.headers_mut().insert(name, "x".parse().unwrap());
        }
        response
    })
    .await];
    let (_worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, [Some(2)]);
}

#[tokio::test]
async fn whatever_is_said_to_discover_but_its_result_leads_to_the_earlier_era() {
    let error = |code: i64, data: Value| {
        move |request: &Value| {
            let error = json!({"code": code, "message": "no", "data": data});
            reply(200, JSON, json!({"jsonrpc": "2.0", "id": request["id"], "error": error}).to_string())
        }
    };
    let servers = [
        but("server/discover", error(-32020, Value::Null)).await,
        but("server/discover", error(-32022, json!({"supported": ["2026-07-28"]}))).await,
        but("server/discover", |_| reply(401, "text/plain", "")).await,
        but("server/discover", |_| reply(403, "text/plain", "")).await,
        but("server/discover", |_| reply(503, "text/plain", "")).await,
        // It dies, and its connection with it.
        but("server/discover", |_| std::panic::resume_unwind(Box::new("dies"))).await,
        but("server/discover", |request| {
            let half = result(request, &json!({})).into_bytes();
            let broken = futures::stream::iter([Ok(half[..5].to_vec()), Err(std::io::Error::other("breaks"))]);
            reply(200, JSON, Body::from_stream(broken))
        })
        .await,
    ];
    let (_worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, vec![Some(2); servers.len()]);
}

#[tokio::test]
async fn a_tool_is_offered_without_the_odd_fields_that_only_describe_it() {
    let mut servers = Vec::new();
    for odd in [
        json!({"annotations": []}),
        json!({"_meta": []}),
        json!({"icons": [{"src": "a", "sizes": "48x48"}]}),
        json!({"annotations": {"readOnlyHint": "true"}}),
        json!({"description": 5}),
        json!({"title": 5}),
        json!({"outputSchema": true}),
    ] {
        let mut one = json!({"name": "odd", "inputSchema": {"type": "object"}});
        one.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
        let server = odd_list(&json!([tool("good"), one])).await;
        servers.push(server);
    }
    servers.push(odd_list(&json!([tool("good"), tool("odd"), {"name": "bare"}])).await);
    let (worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, vec![Some(2); servers.len()]);
    let tools = worker.get("/v1/tools").await;
    let hinted = tools["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "s3__odd").unwrap().clone();
    assert_eq!((&hinted["read_only"], &hinted["destructive"]), (&json!(false), &json!(true)), "a hint that is none says nothing");
}

async fn odd_list(tools: &Value) -> Arc<Odd> {
    let server = odd(|_| ready(None).boxed()).await;
    *server.tools.lock().unwrap() = tools.clone();
    server
}

/// A stream of events with this before the answer.
fn after(before: &'static str, given: Value) -> impl Fn(&Value) -> Response + Send + Sync {
    move |request| reply(200, EVENTS, format!("{before}event: message\ndata: {}\n\n", result(request, &given)))
}

#[rstest]
#[case::ping("event: ping\ndata: 2026-11-29 22:00:00\n\n")]
#[case::ping_of_json("event: ping\ndata: {\"type\":\"ping\"}\n\n")]
#[case::heartbeat("event: heartbeat\ndata: {}\n\n")]
#[case::named_twice("event: ping\ndata: x\n\nevent: ping\n")]
#[case::odd_time("retry: soon\nx-own: 1\nfoo\n\n")]
#[case::open("event: open\ndata: connected\n\n")]
#[case::an_answer_of_another_name("event: ping\ndata: {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":5}\n\n")]
#[case::no_json("data: ping\n\n")]
#[case::no_message("data: {}\n\n")]
#[case::another_answer("data: {\"jsonrpc\":\"2.0\",\"id\":77777,\"result\":{}}\n\n")]
#[case::another_error("data: {\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\":{\"code\":1,\"message\":\"x\"}}\n\n")]
#[case::odd_params("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/own\",\"params\":[1]}\n\n")]
#[case::odd_progress("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":5}\n\n")]
#[tokio::test]
async fn what_is_no_message_is_passed_over(#[case] before: &'static str) {
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}});
    let modern = json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}});
    let servers = [
        but("initialize", after(before, hello)).await,
        but("server/discover", after(before, modern)).await,
        but("tools/list", after(before, listed())).await,
        but("tools/call", after(before, text("good"))).await,
    ];
    let (worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, vec![Some(2); servers.len()]);
    assert_eq!(call(&worker, "s3__good").await["result"]["content"], text("good")["content"]);
}

#[tokio::test]
async fn an_event_of_another_name_need_not_be_text() {
    let odd = |request: &Value| {
        let answer = format!("data: {}\n\n", result(request, &listed()));
        reply(200, EVENTS, [b"event: ping\ndata: \xff\n\ndata: \xff\n\n".as_slice(), answer.as_bytes()].concat())
    };
    let servers = [but("tools/list", odd).await];
    let (_worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, [Some(2)]);
}

#[tokio::test]
async fn a_field_that_comes_twice_counts_as_it_comes_last() {
    let twice =
        |given: Value| move |request: &Value| reply(200, JSON, format!(r#"{{"id":77777,{}"#, &result(request, &given)[1..]));
    let servers = [but("tools/list", twice(listed())).await, but("tools/call", twice(text("good"))).await];
    let (worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, vec![Some(2); servers.len()]);
    assert_eq!(call(&worker, "s1__good").await["result"]["content"], text("good")["content"]);
}

#[tokio::test]
async fn after_what_is_no_message_a_call_waits_and_a_list_does_not() {
    let slowly = |given: Value| {
        move |request: &Value| {
            let answer = format!("data: {}\n\n", result(request, &given));
            let events =
                futures::stream::iter(["data: ping\n\n".to_owned(), answer]).enumerate().then(|(number, event)| async move {
                    if number > 0 {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                    }
                    Ok::<_, std::io::Error>(event)
                });
            reply(200, EVENTS, Body::from_stream(events))
        }
    };
    let servers = [but("tools/call", slowly(text("good"))).await, but("tools/list", slowly(listed())).await];
    let began = Instant::now();
    let (worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, [Some(2), None]);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(call(&worker, "s0__good").await["result"]["content"], text("good")["content"]);
}

#[tokio::test]
async fn events_in_gzip_are_read() {
    let gzipped = |given: Value| {
        move |request: &Value| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            write!(encoder, ": {}\n\ndata: {}\n\n", "x".repeat(100_000), result(request, &given)).unwrap();
            let mut response = reply(200, EVENTS, encoder.finish().unwrap());
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            response
        }
    };
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}});
    let servers = [
        but("initialize", gzipped(hello)).await,
        but("tools/list", gzipped(listed())).await,
        but("tools/call", gzipped(text("good"))).await,
    ];
    let (worker, offered) = offered_of_each(&servers).await;
    assert_eq!(offered, vec![Some(2); servers.len()]);
    assert_eq!(call(&worker, "s2__good").await["result"]["content"], text("good")["content"]);
}

#[rstest]
#[case(400)]
#[case(404)]
#[case(410)]
#[tokio::test]
async fn a_call_that_is_refused_in_a_session_that_goes_on_is_made_once(#[case] status: u16) {
    let server = odd(move |request| {
        let refused = request["method"] == "tools/call" && request["params"]["name"] == "odd";
        ready(refused.then(|| reply(status, "text/plain", "no such record"))).boxed()
    })
    .await;
    *server.tools.lock().unwrap() = json!([tool("good"), {"name": "odd", "inputSchema": {"type": "object"}}]);
    let worker = worker(&[("a", &server)]).await;
    let told = call(&worker, "a__odd").await.to_string();
    assert!(told.contains("no such record"), "{told}");
    assert_eq!((server.asked("tools/call"), server.asked("initialize")), (1, 1));
    server.forget();
    call(&worker, "a__odd").await;
    assert_eq!(server.asked("initialize"), 2, "it was forgotten");
    assert_eq!(server.asked("tools/call"), 3, "once to the session that was forgotten, and once more to the new one");
}

#[tokio::test]
async fn what_nobody_here_knows_of_a_result_passes_as_it_was_written() {
    for given in [
        json!({"content": [{"type": "text", "text": "x"}, {"type": "video", "url": "https://a/b"}]}),
        json!({"content": [{"type": "resource_link", "uri": "file:///a", "name": "a", "size": 12.0}]}),
        json!({"content": [{"type": "resource_link", "uri": "a:b", "name": "a", "icons": [{"src": "a", "sizes": "48x48"}]}]}),
        json!({"content": [{"type": "text", "text": "x", "annotations": []}], "_meta": []}),
    ] {
        let passed = given.clone();
        let server = but("tools/call", move |request| reply(200, JSON, result(request, &given))).await;
        let worker = worker(&[("a", &server)]).await;
        assert_eq!(call(&worker, "a__good").await["result"], passed);
    }
}

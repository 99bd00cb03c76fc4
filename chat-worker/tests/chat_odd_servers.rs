//! Servers that answer, but oddly: what is an answer, what is a fault of the server, and what costs its other tools nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use futures::{
    FutureExt, StreamExt,
    future::{pending, ready},
};
use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    odd::{Odd, odd, odd_of, reply, result, text, tool},
    state,
};

const SCRIPT: &str = "otherwise: {text: 'Hello.'}";
const NO_SESSION: &str = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"No valid session ID provided"},"id":null}"#;
/// Far below the timeout of a call.
const AT_ONCE: Duration = Duration::from_secs(2);

async fn worker(server: &Odd) -> Worker {
    Worker::start(SCRIPT, &[server.entry("a")], &[]).await
}

/// Calls a tool over /mcp: the text of what came, and whether it is an error.
async fn call(worker: &Worker, tool: &str) -> (String, bool) {
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": format!("a__{tool}"), "arguments": {}}});
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
    let answer: Value = request.json(&body).send().await.unwrap().json().await.unwrap();
    let told = answer["result"]["content"][0]["text"].as_str().or_else(|| answer["error"]["message"].as_str());
    (told.unwrap_or_default().to_owned(), answer["error"].is_object() || answer["result"]["isError"] == true)
}

async fn at_once(worker: &Worker, tool: &str) -> String {
    let began = Instant::now();
    let (told, is_error) = call(worker, tool).await;
    assert!(is_error && began.elapsed() < AT_ONCE, "{told} after {:?}", began.elapsed());
    told
}

async fn is_well(worker: &Worker) {
    // A look that a fault might have caused has its time to go wrong.
    assert_eq!(call(worker, "good").await, ("good".to_owned(), false));
    assert_eq!(state(&worker.get("/health").await, "a"), "up");
}

/// One whose tool `odd` is answered so.
async fn odd_call(answer: impl Fn(&Value) -> Response + Send + Sync + 'static) -> Arc<Odd> {
    odd(move |request| {
        let is_odd = request["method"] == "tools/call" && request["params"]["name"] == "odd";
        ready(is_odd.then(|| answer(&request))).boxed()
    })
    .await
}

#[rstest]
#[case::no_session_400(400, "application/json", NO_SESSION, "No valid session ID provided")]
#[case::no_id(400, "application/json", r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"no id here"}}"#, "no id here")]
#[case::null_id_200(200, "application/json", NO_SESSION, "No valid session ID provided")]
#[case::null_id_in_an_event(
    200,
    "text/event-stream",
    "data: {\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":1,\"message\":\"an event\"}}\n\n",
    "an event"
)]
#[case::plain_400(400, "text/plain", "what do you mean", "HTTP 400 Bad Request: what do you mean")]
#[case::odd_400(400, "application/json", r#"{"error":"odd"}"#, "HTTP 400 Bad Request: odd")]
#[case::gone(410, "text/plain", "", "HTTP 410 Gone")]
#[case::not_found(404, "text/plain", "nothing here", "HTTP 404 Not Found: nothing here")]
#[case::unauthorized(401, "text/plain", "", "HTTP 401 Unauthorized")]
#[case::forbidden(403, "application/json", NO_SESSION, "HTTP 403 Forbidden: No valid session ID provided")]
#[case::busy(429, "text/plain", "slow down", "HTTP 429 Too Many Requests: slow down")]
#[case::broken(500, "text/html", "<h1>Oops</h1>", "HTTP 500 Internal Server Error")]
#[case::accepted(202, "text/plain", "", "HTTP 202 to a request, without an answer")]
#[case::html(200, "text/html", "<html>", "HTTP 200 of the content type text/html")]
#[case::empty_events(200, "text/event-stream", "", "the stream of events ended without the answer")]
#[case::junk(200, "application/json", "{", "it is not JSON")]
#[case::other_id(200, "application/json", r#"{"jsonrpc":"2.0","id":99999,"result":{}}"#, "not the one of the request")]
#[tokio::test]
async fn every_answer_to_a_call_is_told_at_once_and_costs_the_server_nothing(
    #[case] status: u16,
    #[case] kind: &'static str,
    #[case] body: &'static str,
    #[case] expected: &str,
) {
    let server = odd_call(move |_| reply(status, kind, body)).await;
    let worker = worker(&server).await;
    for _ in 0..3 {
        let told = at_once(&worker, "odd").await;
        assert!(told.contains(expected), "{told}");
    }
    is_well(&worker).await;
}

#[rstest]
#[case(json!({"content": "x"}))]
#[case(json!(null))]
#[case(json!("x"))]
#[case(json!({"content": [{"type": "text"}]}))]
#[case(json!({"content": [], "isError": "perhaps"}))]
#[tokio::test]
async fn a_malformed_result_is_an_error_that_is_not_tried_again(#[case] malformed: Value) {
    let server = odd_call(move |request| reply(200, "application/json", result(request, &malformed))).await;
    let worker = worker(&server).await;
    let told = at_once(&worker, "odd").await;
    assert!(told.contains("malformed"), "{told}");
    assert_eq!(server.asked("tools/call"), 1);
    is_well(&worker).await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error_that_is_not_tried_again() {
    let server = odd_call(|request| reply(200, "application/json", result(request, &text(&"x".repeat(9 << 20))))).await;
    let worker = worker(&server).await;
    let (told, is_error) = call(&worker, "odd").await;
    assert!(is_error && told.contains("the answer is larger than 8 MiB"), "{told}");
    assert_eq!(server.asked("tools/call"), 1);
    is_well(&worker).await;
}

#[tokio::test]
async fn what_is_read_after_a_write_is_not_what_was_read_before_it() {
    let (value, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = odd(move |request| {
        let (value, calls) = (Arc::clone(&value), Arc::clone(&calls));
        async move {
            if request["method"] != "tools/call" {
                return None;
            }
            let number = calls.fetch_add(1, Ordering::SeqCst);
            if request["params"]["name"] == "odd" {
                value.store(1, Ordering::SeqCst);
                return None;
            }
            let read = value.load(Ordering::SeqCst);
            // The first read lasts until the write and the second read have come.
            while number == 0 && calls.load(Ordering::SeqCst) < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Some(reply(200, "application/json", result(&request, &text(&read.to_string()))))
        }
        .boxed()
    })
    .await;
    *server.tools.lock().unwrap() = json!([tool("good"), {"name": "odd", "inputSchema": {"type": "object"}}]);
    let worker = Worker::start(SCRIPT, &[server.entry("a")], &["--approvals", "always"]).await;
    let later = async {
        while server.asked("tools/call") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        call(&worker, "odd").await;
        call(&worker, "good").await
    };
    let (before, after) = tokio::join!(call(&worker, "good"), later);
    assert_eq!((before, after), (("0".to_owned(), false), ("1".to_owned(), false)));
}

#[rstest]
#[case::null_id(400, "application/json", NO_SESSION)]
#[case::no_id(400, "application/json", r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"?"}}"#)]
#[case::foreign_id(
    404,
    "application/json",
    r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}"#
)]
#[case::own_id(
    400,
    "application/json",
    r#"{"jsonrpc":"2.0","id":"$id","error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#
)]
#[case::own_id_and_a_code_of_arguments(
    400,
    "application/json",
    r#"{"jsonrpc":"2.0","id":"$id","error":{"code":-32602,"message":"Invalid session"}}"#
)]
#[case::plain(400, "text/plain", "Bad Request: session")]
#[case::no_json_rpc(400, "application/json", r#"{"error":"unknown session"}"#)]
#[case::not_found(404, "text/plain", "")]
#[case::gone(410, "text/plain", "")]
#[tokio::test]
async fn a_session_that_the_server_forgot_is_opened_anew_once(
    #[case] status: u16,
    #[case] kind: &'static str,
    #[case] body: &'static str,
) {
    let server = odd(|_| ready(None).boxed()).await;
    *server.refusal.lock().unwrap() = (status, kind, body);
    let worker = worker(&server).await;
    assert_eq!(server.asked("initialize"), 1);
    server.forget();
    let began = Instant::now();
    assert_eq!(call(&worker, "good").await, ("good".to_owned(), false));
    assert!(began.elapsed() < AT_ONCE);
    assert_eq!(server.asked("initialize"), 2);
    is_well(&worker).await;
    assert_eq!(server.asked("initialize"), 2, "and stays open");
}

#[tokio::test]
async fn what_is_refused_in_a_session_that_lives_is_not_asked_for_again() {
    let server = odd(|request| {
        let refused = json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32602, "message": "x is missing"}});
        let is_call = request["method"] == "tools/call" && request["params"]["name"] == "odd";
        ready(is_call.then(|| reply(400, "application/json", refused.to_string()))).boxed()
    })
    .await;
    let worker = worker(&server).await;
    assert_eq!(call(&worker, "odd").await, ("x is missing".to_owned(), true));
    assert_eq!((server.asked("tools/call"), server.asked("ping"), server.asked("initialize")), (1, 1, 1));
    is_well(&worker).await;
}

#[rstest]
#[case::named(json!({"supported": ["2025-06-18"]}), &["2025-11-25", "2025-06-18"])]
#[case::not_named(json!(null), &["2025-11-25", "2025-06-18"])]
#[tokio::test]
async fn a_server_that_refuses_a_revision_is_asked_by_one_that_it_knows(#[case] data: Value, #[case] expected: &'static [&str]) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&asked);
    let server = odd(move |request| {
        let revision = request["params"]["protocolVersion"].as_str().unwrap_or_default().to_owned();
        let is_refused = request["method"] == "initialize" && revision != "2025-06-18";
        if request["method"] == "initialize" {
            names.lock().unwrap().push(revision);
        }
        let error = json!({"code": -32602, "message": "Unsupported protocol version", "data": data});
        let refused = json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
        ready(is_refused.then(|| reply(400, "application/json", refused.to_string()))).boxed()
    })
    .await;
    let worker = worker(&server).await;
    assert_eq!(*asked.lock().unwrap(), expected);
    is_well(&worker).await;
}

#[tokio::test]
async fn silence_to_discover_leads_to_initialize() {
    let server = odd(|request| {
        let is_discover = request["method"] == "server/discover";
        async move { if is_discover { pending().await } else { None } }.boxed()
    })
    .await;
    let worker = worker(&server).await;
    is_well(&worker).await;
    assert_eq!(server.asked("initialize"), 1);
}

#[tokio::test]
async fn a_modern_server_that_is_slow_to_discover_is_waited_for() {
    let server = odd(|request| {
        async move {
            let modern = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}});
            match request["method"].as_str() {
                Some("server/discover") => tokio::time::sleep(Duration::from_millis(2_500)).await,
                Some("initialize") => {
                    return Some(reply(
                        404,
                        "application/json",
                        json!({"jsonrpc": "2.0", "id": request["id"],
                    "error": {"code": -32601, "message": "no such method"}})
                        .to_string(),
                    ));
                }
                _ => return None,
            }
            Some(reply(200, "application/json", result(&request, &modern)))
        }
        .boxed()
    })
    .await;
    server.sessions.store(false, Ordering::SeqCst);
    let worker = worker(&server).await;
    is_well(&worker).await;
    assert_eq!(worker.get("/v1/servers").await["servers"][0]["era"], "modern");
}

#[tokio::test]
async fn a_server_of_both_eras_is_spoken_to_in_the_one_that_its_entry_says() {
    let server = odd(|request| {
        let modern = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}});
        let is_discover = request["method"] == "server/discover";
        ready(is_discover.then(|| reply(200, "application/json", result(&request, &modern)))).boxed()
    })
    .await;
    let mut entry = server.entry("a");
    entry["era"] = "legacy".into();
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    is_well(&worker).await;
    assert_eq!((server.asked("server/discover"), server.asked("initialize")), (0, 1));
}

#[tokio::test]
async fn redirects_are_followed_within_the_server_and_not_beyond_it() {
    let redirected = |status: u16, location: String| {
        move |request: Value| {
            let at = request["path"] == "/mcp";
            let mut response = reply(status, "text/plain", "");
            response.headers_mut().insert("location", location.parse().unwrap());
            ready(at.then_some(response)).boxed()
        }
    };
    for status in [307, 308] {
        let server = odd(redirected(status, "/mcp/".to_owned())).await;
        let worker = worker(&server).await;
        is_well(&worker).await;
    }
    let elsewhere = odd(|_| ready(None).boxed()).await;
    for (status, location) in
        [(307, format!("http://{}/mcp/", elsewhere.address)), (302, "/mcp/".to_owned()), (307, "/mcp".to_owned())]
    {
        let server = odd(redirected(status, location)).await;
        let worker = worker(&server).await;
        assert_ne!(state(&worker.get("/health").await, "a"), "up", "{status}");
    }
    assert_eq!(elsewhere.asked("initialize") + elsewhere.asked("server/discover"), 0);
}

/// One whose second list of tools is answered so, and which is looked at every second.
async fn odd_look(answer: impl Fn() -> Response + Send + Sync + 'static) -> (Arc<Odd>, Worker) {
    let lists = AtomicUsize::new(0);
    let server = odd(move |request| {
        let is_second = request["method"] == "tools/list" && lists.fetch_add(1, Ordering::SeqCst) == 1;
        ready(is_second.then(&answer)).boxed()
    });
    let server = server.await;
    let mut entry = server.entry("a");
    entry["health_check_interval"] = json!(1);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    (server, worker)
}

/// Waits until it was asked for its tools so often; whether it was up all the time.
async fn stays_up(server: &Odd, worker: &Worker, lists: usize) -> bool {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let waiting = async {
        while server.asked("tools/list") < lists {
            look.tick().await;
            if state(&worker.get("/health").await, "a") != "up" {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it is looked at")
}

#[rstest]
#[case::unauthorized(401)]
#[case::forbidden(403)]
#[case::broken(500)]
#[case::busy(429)]
#[case::nobody_behind_it(503)]
#[tokio::test]
async fn a_look_that_is_refused_once_takes_nothing_away(#[case] status: u16) {
    let (server, worker) = odd_look(move || reply(status, "text/plain", "not now")).await;
    worker.until("the server", |health| state(health, "a") == "up").await;
    assert!(stays_up(&server, &worker, 3).await);
    is_well(&worker).await;
    assert_eq!(server.asked("initialize"), 1, "nothing was begun again");
}

#[tokio::test]
async fn who_asks_to_be_left_alone_is_not_looked_at_until_then() {
    let (server, worker) = odd_look(|| {
        let mut response = reply(429, "text/plain", "slow down");
        response.headers_mut().insert("retry-after", "3".parse().unwrap());
        response
    })
    .await;
    worker.until("the server", |health| state(health, "a") == "up").await;
    assert!(stays_up(&server, &worker, 2).await);
    let limited = Instant::now();
    assert!(stays_up(&server, &worker, 3).await);
    assert!(limited.elapsed() > Duration::from_millis(2_500), "after {:?}", limited.elapsed());
    is_well(&worker).await;
}

#[tokio::test]
async fn one_malformed_tool_costs_only_itself() {
    let server = odd(|_| ready(None).boxed()).await;
    *server.tools.lock().unwrap() =
        json!([tool("good"), {"name": "bare"}, {"inputSchema": {}}, "x", {"name": "b", "inputSchema": true}]);
    let worker = worker(&server).await;
    assert_eq!(worker.get("/v1/tools").await["tools"].as_array().unwrap().len(), 1);
    is_well(&worker).await;
}

#[tokio::test]
async fn marks_and_arrays_are_read_as_the_prober_reads_them() {
    let server = odd_of("2025-03-26", |request| {
        let is_request = !request["id"].is_null() && request["method"] == "tools/call";
        let body = format!("\u{feff}[{}]", result(&request, &text("from an array")));
        ready(is_request.then(|| reply(200, "application/json; charset=utf-8", body))).boxed()
    })
    .await;
    let worker = worker(&server).await;
    assert_eq!(call(&worker, "good").await, ("from an array".to_owned(), false));
}

#[tokio::test]
async fn a_cursor_that_is_none_ends_the_list_and_nothing_else() {
    let server = odd(|request| {
        let body = result(&request, &json!({"tools": [tool("good")], "nextCursor": 5}));
        ready((request["method"] == "tools/list").then(|| reply(200, "application/json", body))).boxed()
    })
    .await;
    let worker = worker(&server).await;
    is_well(&worker).await;
}

#[tokio::test]
async fn three_slow_calls_of_one_tool_leave_the_others_alone() {
    let server = odd(|request| {
        let slow = request["method"] == "tools/call" && request["params"]["name"] == "odd";
        async move {
            if slow {
                std::future::pending::<()>().await;
            }
            None
        }
        .boxed()
    })
    .await;
    let mut entry = server.entry("a");
    entry["timeout"] = json!(0.3);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    for _ in 0..4 {
        let (told, is_error) = call(&worker, "odd").await;
        assert!(is_error && told.contains("no answer within 300ms"), "{told}");
    }
    is_well(&worker).await;
}

#[tokio::test]
async fn progress_extends_the_time_of_a_call() {
    let server = odd(|request| {
        let token = request["params"]["_meta"]["progressToken"].clone();
        let odd = request["method"] == "tools/call" && request["params"]["name"] == "odd";
        let events = futures::stream::iter(0..6).then(move |number| {
            let (token, request) = (token.clone(), request.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(250)).await;
                let message = match number {
                    5 => result(&request, &text("at last")),
                    _ => json!({"jsonrpc": "2.0", "method": "notifications/progress",
                                "params": {"progressToken": token, "progress": number}})
                    .to_string(),
                };
                Ok::<_, std::io::Error>(format!("data: {message}\n\n"))
            }
        });
        ready(odd.then(|| reply(200, "text/event-stream", Body::from_stream(events)))).boxed()
    })
    .await;
    let mut entry = server.entry("a");
    entry["timeout"] = json!(0.8);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    assert_eq!(call(&worker, "odd").await, ("at last".to_owned(), false));
}

#[tokio::test]
async fn credentials_and_the_request_id_are_sent_and_renewed_without_a_new_connection() {
    let server = odd(|_| ready(None).boxed()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "Bearer one\n").unwrap();
    let mut entry = server.entry("a");
    entry["headers"] = json!({"X-Team": "blue"});
    entry["headers_from"] = json!([{"name": "Authorization", "file": file}]);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let sent = |name: &str| server.headers.lock().unwrap().get(name).map(|value| value.to_str().unwrap().to_owned());
    is_well(&worker).await;
    assert_eq!((sent("authorization"), sent("x-team")), (Some("Bearer one".into()), Some("blue".into())));
    assert!(sent("x-request-id").is_some());
    std::fs::write(&file, "Bearer two\n").unwrap();
    is_well(&worker).await;
    assert_eq!(sent("authorization"), Some("Bearer two".into()));
    assert_eq!(server.asked("initialize"), 1);
}

#[tokio::test]
async fn more_calls_than_a_server_takes_wait_in_line() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&now), Arc::clone(&most));
    let server = odd(move |request| {
        let (counted, highest) = (Arc::clone(&counted), Arc::clone(&highest));
        async move {
            if request["method"] == "tools/call" {
                highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1_200)).await;
                counted.fetch_sub(1, Ordering::SeqCst);
            }
            None
        }
        .boxed()
    })
    .await;
    // A tool that says nothing of itself: identical reads would be one call.
    *server.tools.lock().unwrap() = json!([{"name": "good", "inputSchema": {"type": "object"}}]);
    let mut entry = server.entry("a");
    // Less than the three rows that the last one waits for.
    entry["timeout"] = json!(3);
    let worker = Worker::start(SCRIPT, &[entry], &["--rate-limit-requests", "0", "--approvals", "always"]).await;
    let all = futures::future::join_all((0..150).map(|_| call(&worker, "good"))).await;
    assert!(all.iter().all(|(told, is_error)| told == "good" && !is_error), "{:?}", all.iter().find(|(_, is_error)| *is_error));
    assert_eq!(most.load(Ordering::SeqCst), 64);
}

#[tokio::test]
async fn an_entry_that_cannot_be_used_is_told_and_the_others_go_on() {
    let server = odd(|_| ready(None).boxed()).await;
    let worker =
        Worker::start(SCRIPT, &[server.entry("a"), json!({"name": "b", "url": "http://b/mcp", "timeout": "30"})], &[]).await;
    is_well(&worker).await;
    let health = worker.get("/health").await;
    assert_eq!((state(&health, "b"), health["status"].as_str()), ("refused", Some("degraded")));
    assert!(health.to_string().contains("servers[1].timeout: must be a number of seconds"), "{health}");
}

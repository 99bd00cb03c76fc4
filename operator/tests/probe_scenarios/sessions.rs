//! Legacy sessions: opened, lost, refused, and never left behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use operator::crd::reason;
use serde_json::{Value, json};

use crate::{
    support::fake::{self, Act, error, legacy, response, result, tool},
    table::{HEALTHY, Scenario, failed, legacy_but, scenario},
};

pub fn sessions() -> Vec<Scenario> {
    vec![
        scenario("the session is lost once", HEALTHY, {
            let lost = AtomicUsize::new(0);
            move |ask, state| {
                if ask.method == "tools/list" && lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    ask.session().map(|session| state.sessions.lock().expect("no panic").remove(session));
                }
                legacy(ask, state)
            }
        }),
        scenario("the session is lost every time", failed(reason::SESSION_LOST), |ask, state| {
            if ask.method == "tools/list" {
                ask.session().map(|session| state.sessions.lock().expect("no panic").remove(session));
            }
            legacy(ask, state)
        }),
        scenario("DELETE is refused", HEALTHY, |ask, state| {
            if ask.http == "DELETE" { fake::status("405 Method Not Allowed", "") } else { legacy(ask, state) }
        })
        .leaves_sessions(),
        scenario("DELETE hangs", HEALTHY, |ask, state| if ask.http == "DELETE" { Act::hang() } else { legacy(ask, state) })
            .leaves_sessions(),
        scenario("legacy without sessions", HEALTHY, |ask, state| match ask.method.as_str() {
            "initialize" => result(ask, fake::initialize_result("2025-06-18", true)),
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "tools/list" => result(ask, json!({"tools": [tool("a")]})),
            _ => legacy(ask, state),
        })
        .check(|_, state| if state.count("DELETE") == 0 { Ok(()) } else { Err("a DELETE without a session".into()) }),
        scenario(
            "the notification is acknowledged by 200 and a page",
            HEALTHY,
            legacy_but("notifications/initialized", |_| fake::status("200 OK", "fine")),
        ),
        scenario(
            "the notification is refused",
            failed(reason::HTTP_STATUS),
            legacy_but("notifications/initialized", |_| fake::status("500 Oh", "")),
        ),
        scenario("no tools, and -32601 to ping", HEALTHY, |ask, state| match ask.method.as_str() {
            "initialize" => result(ask, fake::initialize_result("2025-11-25", false)),
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "ping" => error(ask, "200 OK", -32601, Value::Null),
            "tools/list" => panic!("asked for what was not advertised"),
            _ => legacy(ask, state),
        }),
        scenario("no tools, and ping hangs", failed(reason::TIMEOUT), |ask, state| match ask.method.as_str() {
            "initialize" => result(ask, fake::initialize_result("2025-11-25", false)),
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "ping" => Act::hang(),
            _ => legacy(ask, state),
        }),
        scenario("initialize in SSE, as the SDKs' servers do", HEALTHY, |ask, state| match legacy(ask, state) {
            Act::Bytes(bytes) if ask.method == "initialize" => {
                let text = String::from_utf8(bytes).expect("text");
                let (head, body) = text.split_once("\r\n\r\n").expect("a head");
                let session = head.lines().find(|line| line.starts_with("Mcp-Session-Id")).expect("a session");
                let event = format!("event: message\ndata: {body}\n\n");
                Act::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{session}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n", event.len()).into_bytes())
            }
            other => other,
        }),
        scenario(
            "a legacy server that hangs at the list leaves no session",
            failed(reason::TIMEOUT),
            legacy_but("tools/list", |_| Act::hang()),
        ),
        scenario("a legacy server that answers initialize too late leaves no session", failed(reason::TIMEOUT), |ask, state| {
            let act = legacy(ask, state);
            if ask.method == "initialize" { act.after(4_500) } else { act }
        }),
        scenario("a session of odd characters", HEALTHY, |ask, state| match ask.method.as_str() {
            "initialize" => {
                let session = format!("!#$%&'*+;=\"/\\ |~{}", state.opened.fetch_add(1, Ordering::Relaxed));
                state.sessions.lock().expect("no panic").insert(session.clone());
                let headers = [("Content-Type", "application/json"), ("MCP-SESSION-ID", session.as_str())];
                let body = json!({"jsonrpc": "2.0", "id": ask.id, "result": fake::initialize_result("2025-11-25", true)});
                Act::Bytes(response("200 OK", &headers, body.to_string()))
            }
            _ => legacy(ask, state),
        }),
        scenario("a session header that is empty", HEALTHY, |ask, state| match ask.method.as_str() {
            "initialize" => {
                let body = json!({"jsonrpc": "2.0", "id": ask.id, "result": fake::initialize_result("2025-11-25", true)});
                let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", "")];
                Act::Bytes(response("200 OK", &headers, body.to_string()))
            }
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "tools/list" if ask.session().is_none() => result(ask, json!({"tools": [tool("a")]})),
            _ => legacy(ask, state),
        })
        .check(|_, state| if state.count("DELETE") == 0 { Ok(()) } else { Err("a DELETE without a session".into()) }),
        scenario("no tools, and a 404 with -32601 to ping", HEALTHY, |ask, state| match ask.method.as_str() {
            "ping" => error(ask, "404 Not Found", -32601, json!(null)),
            "initialize" => match legacy(ask, state) {
                Act::Bytes(bytes) => {
                    Act::Bytes(String::from_utf8(bytes).expect("text").replace("\"tools\":{}", "\"toolz\":{}").into())
                }
                other => other,
            },
            _ => legacy(ask, state),
        }),
        scenario("the session is lost at the notification, once", HEALTHY, {
            let lost = AtomicUsize::new(0);
            move |ask, state| {
                if ask.method == "notifications/initialized" && lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    ask.session().map(|session| state.sessions.lock().expect("no panic").remove(session));
                }
                legacy(ask, state)
            }
        }),
        scenario("initialize opens a session and says no", failed(reason::JSON_RPC_ERROR), |ask, state| {
            match ask.method.as_str() {
                "initialize" => {
                    let session = format!("s{}", state.opened.fetch_add(1, Ordering::Relaxed));
                    state.sessions.lock().expect("no panic").insert(session.clone());
                    let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", session.as_str())];
                    let body = json!({"jsonrpc": "2.0", "id": ask.id, "error": {"code": -32603, "message": "no"}});
                    Act::Bytes(response("200 OK", &headers, body.to_string()))
                }
                _ => legacy(ask, state),
            }
        }),
    ]
}

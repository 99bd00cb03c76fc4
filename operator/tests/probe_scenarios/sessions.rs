//! Legacy sessions: opened, lost, refused, and never left behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use operator::crd::reason;
use serde_json::{Value, json};

use crate::{
    support::fake::{self, Act, chunked, error, legacy, result, tool},
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
    ]
}

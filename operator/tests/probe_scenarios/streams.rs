//! What a legacy server does in the stream of an answer: it asks its client, and it lets the client ask for the rest.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use operator::crd::reason;
use serde_json::{Value, json};

use crate::{
    support::fake::{Act, Ask, State, chunked, legacy, modern, response, status, tool},
    table::{HEALTHY, Scenario, failed, scenario},
};

const ENDS: &[u8] = b"0\r\n\r\n";
/// How long the servers here ask to be waited for.
const RETRY: Duration = Duration::from_millis(300);

fn stream(chunks: &[&str]) -> Act {
    Act::Bytes([chunked("text/event-stream", chunks), ENDS.to_vec()].concat())
}

/// The event that answers the last question for the list.
fn list(state: &State) -> String {
    let asks = state.asks.lock().expect("no panic");
    let id = asks.iter().rfind(|ask| ask.method == "tools/list").expect("a question").id.clone();
    format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": id, "result": {"tools": [tool("a")]}}))
}

/// What is sent to the server in the session that is no question.
fn replies(state: &State) -> Vec<Ask> {
    let asks = state.asks.lock().expect("no panic");
    asks.iter().filter(|ask| ask.http == "POST" && ask.method.is_empty() && ask.session().is_some()).cloned().collect()
}

fn answered(state: &State) -> bool {
    let replies = replies(state);
    let said = |id: Value, what: &str| replies.iter().any(|reply| reply.body["id"] == id && reply.body.get(what).is_some());
    said(json!("srv-0"), "result")
        && said(json!(7), "error")
        && replies.iter().all(|reply| match reply.body.get("error") {
            Some(error) => error["code"] == -32601,
            None => reply.body["result"] == json!({}),
        })
}

fn asking(questions: &str, state: &State, until: fn(&State) -> bool) -> Act {
    let rest = list(state);
    let rest = format!("{:x}\r\n{rest}\r\n", rest.len());
    Act::BytesThenOnce(chunked("text/event-stream", &[questions]), until, [rest.as_bytes(), ENDS].concat())
}

/// The legacy server, but for its list, for what is said to it, and for streams that are asked for.
fn with_streams(
    list: impl Fn(&State) -> Act + Send + Sync + 'static,
    rest: impl Fn(&Ask, &State) -> Act + Send + Sync + 'static,
) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |ask, state| match (ask.http.as_str(), ask.method.as_str()) {
        ("GET", _) if ask.session().is_some() && ask.headers["mcp-protocol-version"] == "2025-11-25" => rest(ask, state),
        ("POST", "") => Act::Bytes(response("202 Accepted", &[], "")),
        ("POST", "tools/list") => list(state),
        _ => legacy(ask, state),
    }
}

fn no_stream(_: &Ask, _: &State) -> Act {
    status("405 Method Not Allowed", "")
}

fn gets(state: &State) -> usize {
    state.asks.lock().expect("no panic").iter().filter(|ask| ask.http == "GET").count()
}

const PRIMED: &str = "id: ev-0\nretry: 300\ndata: \n\n";

pub fn streams() -> Vec<Scenario> {
    vec![
        scenario("legacy: a ping and a question in the list's stream, which goes on once they were answered", HEALTHY, {
            let questions = "data: {\"jsonrpc\":\"2.0\",\"id\":\"srv-0\",\"method\":\"ping\"}\n\n\
                 data: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"sampling/createMessage\",\"params\":{}}\n\n";
            with_streams(move |state| asking(questions, state, answered), no_stream)
        }),
        scenario("legacy: pings without number", HEALTHY, {
            let ping = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\n";
            with_streams(move |state| asking(&ping.repeat(500), state, |_| true), no_stream)
        })
        .check(|_, state| {
            let mut counts = HashMap::<_, usize>::new();
            for reply in replies(state) {
                *counts.entry(reply.session().map(str::to_owned)).or_default() += 1;
            }
            let most = counts.values().max().copied().unwrap_or_default();
            if most <= 16 { Ok(()) } else { Err(format!("{most} replies in one session")) }
        }),
        scenario("legacy: the list's stream is primed and ends, and the list comes by GET", HEALTHY, {
            let seen = Arc::new(Mutex::new(None::<Instant>));
            let ended = Arc::clone(&seen);
            with_streams(
                move |_| {
                    *ended.lock().expect("no panic") = Some(Instant::now());
                    stream(&[PRIMED])
                },
                move |ask, state| {
                    let soon = seen.lock().expect("no panic").is_none_or(|ended| ended.elapsed() < RETRY);
                    let right = ask.headers.get("last-event-id").is_some_and(|id| id == "ev-0") && !soon;
                    if right {
                        stream(&[&list(state)])
                    } else {
                        status("400 Bad Request", "too soon, or not from where it ended")
                    }
                },
            )
        }),
        scenario("legacy: a stream that breaks after an event with an id goes on from there", HEALTHY, {
            let number = AtomicUsize::new(0);
            with_streams(
                |_| Act::BytesThenClose(chunked("text/event-stream", &["id: ev-0\nretry: 1\ndata: \n\n"])),
                move |ask, state| match (ask.headers["last-event-id"].as_str(), number.fetch_add(1, Ordering::Relaxed)) {
                    ("ev-0", _) => Act::BytesThenReset(chunked("text/event-stream", &["id: ev-1\ndata:\n\n"])),
                    ("ev-1", _) => stream(&[&list(state)]),
                    _ => status("400 Bad Request", ""),
                },
            )
        }),
        scenario(
            "legacy: a stream is primed and ends, and there is no rest of it",
            failed(reason::NOT_MCP),
            with_streams(|_| stream(&[PRIMED]), no_stream),
        ),
        scenario(
            "legacy: a stream is primed and ends again and again",
            failed(reason::TIMEOUT),
            with_streams(|_| stream(&[PRIMED]), |_, _| stream(&[PRIMED])),
        ),
        scenario("modern: a stream is primed and ends", failed(reason::NOT_MCP), |ask, state| {
            if ask.method == "tools/list" { stream(&[PRIMED]) } else { modern(ask, state) }
        })
        .check(|_, state| if gets(state) == 0 { Ok(()) } else { Err("a GET in a revision that has none".into()) }),
    ]
}

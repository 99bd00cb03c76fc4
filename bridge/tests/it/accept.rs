//! What a client says that it takes, and what it gets. By hand: clients of HTTP say something of their own where nothing is to be said.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Bridge, child, initialize, tools_call};

/// Status and head of the answer, and what comes with it; of a stream, the beginning.
fn asked(bridge: &Bridge, method: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(bridge.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let head =
        format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).unwrap();
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8(answer.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && (read == 0 || method == "GET")
        {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return (status, head.to_ascii_lowercase(), body.to_owned());
        }
    }
}

#[rstest]
#[case::nothing(None, Some("application/json"))]
#[case::empty(Some(""), Some("application/json"))]
#[case::all(Some("*/*"), Some("text/event-stream"))]
#[case::json(Some("application/json"), Some("application/json"))]
#[case::both(Some("application/json, text/event-stream"), Some("text/event-stream"))]
#[case::events(Some("text/event-stream"), Some("text/event-stream"))]
#[case::no_events(Some("application/json, text/event-stream;q=0"), Some("application/json"))]
#[case::html(Some("text/html"), None)]
#[case::no_json(Some("application/json;q=0"), None)]
#[tokio::test]
async fn a_call_with_progress_is_answered_as_its_client_takes_it(#[case] accept: Option<&str>, #[case] given: Option<&str>) {
    let bridge = Bridge::start_ready("", &child("legacy")).await;
    let mut call = tools_call("progress", json!({"steps": 2}));
    call["params"]["_meta"] = json!({"progressToken": "mine"});
    let accept = accept.map(|accept| format!("Accept: {accept}\r\n")).unwrap_or_default();
    let (status, head, body) = asked(&bridge, "POST", &format!("Content-Type: application/json\r\n{accept}"), &call.to_string());
    let refused = bridge.metric(r#"bridge_refused_total{reason="accept"}"#).await;
    let Some(given) = given else {
        assert_eq!((status, refused), (406, 1), "{head}");
        assert_eq!(bridge.metric(r#"bridge_calls_total{method="tools/call",outcome="ok",tool="progress"}"#).await, 0);
        return;
    };
    assert_eq!((status, refused), (200, 0), "{head}");
    assert!(head.contains(&format!("content-type: {given}")), "{head}");
    assert_eq!(body.contains("notifications/progress"), given == "text/event-stream", "{body}");
    assert!(body.contains("done"), "{body}");
}

#[tokio::test]
async fn only_who_takes_no_events_cannot_listen() {
    let bridge = Bridge::start_ready("", &child("legacy")).await;
    let opened = bridge.post(None, &initialize(json!({}))).await;
    let session = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    for (accept, status) in
        [("", 200), ("Accept: */*\r\n", 200), ("Accept: text/event-stream\r\n", 200), ("Accept: application/json\r\n", 406)]
    {
        let (given, head, _) = asked(&bridge, "GET", &format!("Mcp-Session-Id: {session}\r\n{accept}"), "");
        assert_eq!(given, status, "{accept}: {head}");
    }
}

#[tokio::test]
async fn an_answer_without_anything_before_it_is_one_message() {
    let bridge = Bridge::start_ready("", &child("legacy")).await;
    for accept in ["", "Accept: */*\r\n", "Accept: application/json, text/event-stream\r\n"] {
        let call = tools_call("echo", json!({"a": 1})).to_string();
        let (status, head, body) = asked(&bridge, "POST", &format!("Content-Type: application/json\r\n{accept}"), &call);
        assert_eq!(status, 200, "{head}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["id"], "c", "{head}");
    }
}

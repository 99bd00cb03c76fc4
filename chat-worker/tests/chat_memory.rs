//! What large answers and requests take in memory: what is read is bounded by its bytes and by what it becomes, and read one at a time.
//! The real binary, without the optimizer; the peaks are printed.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; a run tells its figures")]

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::response::Response;
use futures::{
    FutureExt,
    future::{join_all, ready},
};
use model_standin::Running as Model;
use serde_json::{Value, json};
use support::{
    binary::Binary,
    nasty::{Act, Nasty, event, events},
    odd::{Odd, odd, reply, result, text},
};
use tokio::time::timeout;

/// Half of what a pod has.
const MEMORY: u64 = 256;
const MIB: usize = 1 << 20;
const ROWS: usize = 70_000;

/// JSON of so many small objects: eight bytes each, which become some seven hundred.
fn objects(count: usize) -> String {
    format!("[{}1]", r#"{"a":1},"#.repeat(count))
}

/// A result of a call, with structured content as it is written here.
fn structured(request: &Value, content: &str) -> Response {
    let id = &request["id"];
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[],"structuredContent":{{"rows":{content}}}}}}}"#);
    reply(200, "application/json", body)
}

async fn server() -> Arc<Odd> {
    odd(|request| {
        let page = request["params"]["cursor"].as_str().map_or(0, |cursor| cursor.parse::<usize>().unwrap());
        let answer = match (request["method"].as_str().unwrap_or_default(), request["params"]["name"].as_str()) {
            // Two pages with descriptions of megabytes.
            ("tools/list", _) if request["params"]["cursor"].is_string() => {
                let wordy =
                    json!({"name": format!("t{page}"), "description": "x".repeat(4 * MIB), "inputSchema": {"type": "object"}});
                let list = json!({"tools": [wordy], "nextCursor": (page < 2).then(|| (page + 1).to_string())});
                Some(reply(200, "application/json", result(&request, &list)))
            }
            ("tools/list", _) => {
                let tools = ["bomb", "rows", "long"]
                    .map(|name| json!({"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}}));
                Some(reply(200, "application/json", result(&request, &json!({"tools": tools, "nextCursor": "1"}))))
            }
            ("tools/call", Some("bomb")) => Some(structured(&request, &objects(950_000))),
            // Just what is still read.
            ("tools/call", Some("rows")) => Some(structured(&request, &objects(ROWS))),
            ("tools/call", Some("long")) => Some(reply(200, "application/json", result(&request, &text(&"x".repeat(3 * MIB))))),
            _ => None,
        };
        ready(answer).boxed()
    })
    .await
}

/// Calls a tool so many times at once; the calls that had a result.
async fn call(worker: &Binary, tool: &str, times: usize) -> usize {
    // Different ones: the same read at the same time would be one call.
    let one = async |number: usize| {
        let params = json!({"name": format!("a__{tool}"), "arguments": {"number": number}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json");
        let answer = request.json(&body).send().await.unwrap().bytes().await.unwrap();
        usize::from(memchr::memmem::find(&answer, b"\"isError\":true").is_none())
    };
    join_all((0..times).map(one)).await.into_iter().sum()
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_once_and_for_all() {
    let piece = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x".repeat(MIB)}});
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{}", events()[..2].concat());
    let endless = Nasty::start(vec![Act::Drip(head, event(&piece))]).await;
    let directory = tempfile::tempdir().unwrap();
    let worker = Binary::start(directory.path(), &[], &format!("http://{}", endless.address), &[]).await;
    let body = json!({"message": "hi", "stream": false});
    let answer: Value =
        worker.http.post(format!("{}/v1/chat", worker.url)).json(&body).send().await.unwrap().json().await.unwrap();
    let told = "the answer was given up: it is longer than 8 MiB";
    assert_eq!((answer["error"]["kind"].as_str(), answer["error"]["message"].as_str()), (Some("too_large"), Some(told)));
    assert_eq!(endless.requests.load(Ordering::SeqCst), 1, "it is not asked for again");
    let peak = worker.peak_memory();
    eprintln!("peak in MiB: {peak}");
    assert!(peak < MEMORY, "{peak} MiB");
}

#[tokio::test]
async fn what_comes_in_is_bounded_by_what_it_becomes() {
    let directory = tempfile::tempdir().unwrap();
    let (model, server) = (Model::start("otherwise: {text: x}").await.unwrap(), server().await);
    let mut entry = server.entry("a");
    (entry["timeout"], entry["max_retries"]) = (json!(60), json!(0));
    let worker =
        Binary::start(directory.path(), &[entry], &model.url(), &["--approvals", "always", "--context-tokens", "0"]).await;
    let up = async {
        while worker.servers().await[0]["state"] != "up" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_mins(1), up).await.expect("it is up within a minute");
    let mut peaks = Vec::new();
    let mut step = |what: &'static str| {
        peaks.push((what, worker.peak_memory()));
        // The next peak begins at what is held now; where only root may say so, at the last one.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", worker.id()), "5");
    };
    step("a list of 8 MiB");
    assert_eq!(call(&worker, "bomb", 8).await, 0, "too many values");
    step("eight results of 7.6 MB of small values at once, refused");
    assert_eq!(call(&worker, "long", 8).await, 8);
    step("eight texts of 3 MiB at once");
    assert_eq!(call(&worker, "rows", 1).await, 1);
    step("a result of 0.6 MB of small values");
    assert_eq!(call(&worker, "rows", 4).await, 4);
    step("four of them at once");
    assert_eq!(call(&worker, "rows", 12).await, 12);
    step("twelve of them at once");
    let bomb = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"a":{}}}}}}}"#,
        objects(45_000)
    );
    let post =
        || worker.http.post(format!("{}/mcp", worker.url)).header("content-type", "application/json").body(bomb.clone()).send();
    for (count, what) in [(8, "eight calls with arguments of 0.4 MB of small values at once"), (24, "twenty-four of them")] {
        for answer in join_all((0..count).map(|_| post())).await {
            assert_eq!(answer.unwrap().status(), 200);
        }
        step(what);
    }
    let conversation = format!(
        r#"{{"message":"go on","stream":false,"messages":[{{"role":"user","content":"x"}},
        {{"role":"assistant","content":[{{"type":"tool_use","id":"1","name":"n","input":{{"a":{}}}}}]}},
        {{"role":"user","content":[{{"type":"tool_result","tool_use_id":"1","content":"y"}}]}}]}}"#,
        objects(ROWS)
    );
    let chat = || {
        let request = worker.http.post(format!("{}/v1/chat", worker.url)).header("content-type", "application/json");
        request.body(conversation.clone()).send()
    };
    for answer in join_all((0..5).map(|_| chat())).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    step("five conversations with 0.6 MB of small values at once");
    eprintln!("peaks in MiB: {peaks:#?}");
    for (what, peak) in peaks {
        assert!(peak < MEMORY, "{what}: {peak} MiB");
    }
}

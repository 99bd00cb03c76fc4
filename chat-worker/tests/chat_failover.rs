//! Servers behind an address at which there is nobody for a moment, and whose answers are lost on the way, as happens while the pods of a
//! Service go and come.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use http_server::{Connections, LameDuck};
use serde_json::{Value, json};
use support::{Fake, Mood, Worker, state};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

const SCRIPT: &str = "otherwise: {text: 'Hello.'}";

/// One process behind an address, which ends as it should: what it has begun is answered.
struct Pod {
    stop: CancellationToken,
    task: JoinHandle<bool>,
}

impl Pod {
    async fn start(fake: &Arc<Fake>) -> Self {
        let (listener, router, stop) = (TcpListener::bind(fake.address).await.unwrap(), fake.router(), CancellationToken::new());
        let told = stop.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                told.cancelled().await;
                LameDuck::NONE
            };
            let mut left = http_server::serve_kept(listener, router, Connections::most(100), shutdown).await;
            left.within(Duration::from_secs(10)).await
        });
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        assert!(self.task.await.unwrap(), "it ended in time");
    }
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Looked at only when something failed, and without further attempts of whole calls.
fn entry(fake: &Fake) -> Value {
    let mut entry = fake.entry("a");
    (entry["health_check_interval"], entry["timeout"], entry["max_retries"]) = (json!(600), json!(10), json!(0));
    entry
}

/// Calls a tool over /mcp: the text of its result, or else the error.
async fn call(worker: &Worker, tool: &str) -> Result<String, String> {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}});
    let params = json!({"name": tool, "arguments": {}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
    let answer: Value = request.header("mcp-name", tool).json(&body).send().await.unwrap().json().await.unwrap();
    let text = answer["result"]["content"][0]["text"].as_str().map(str::to_owned);
    match text {
        Some(text) if answer["result"]["isError"] != true => Ok(text),
        _ => Err(answer.to_string()),
    }
}

#[tokio::test]
async fn calls_that_meet_nobody_are_made_once_somebody_is_there_and_their_server_was_never_down() {
    let fake = Fake::at(free_address().await, Mood::Modern);
    let pod = Pod::start(&fake).await;
    let worker = Worker::start(SCRIPT, &[entry(&fake)], &[]).await;
    pod.end().await;
    let next = async {
        // As long as a Service takes to lead elsewhere.
        sleep(Duration::from_millis(400)).await;
        Pod::start(&fake).await
    };
    let (answers, _next) = tokio::join!(join_all((0..20).map(|_| call(&worker, "a__wipe"))), next);
    for answer in answers {
        answer.unwrap();
    }
    assert_eq!(fake.calls.lock().unwrap().len(), 20, "each was made once");
    assert_eq!(state(&worker.get("/health").await, "a"), "up");
}

#[tokio::test]
async fn however_many_calls_meet_nobody_it_is_one_failure_and_all_of_them_wait_for_what_follows() {
    let fake = Fake::at(free_address().await, Mood::Modern);
    let pod = Pod::start(&fake).await;
    let worker = Worker::start(SCRIPT, &[entry(&fake)], &[]).await;
    pod.end().await;
    let next = async {
        worker.until("the server down", |health| state(health, "a") == "down").await;
        // A call that comes now waits, too.
        let late = call(&worker, "a__wipe");
        let (late, pod) = tokio::join!(late, Pod::start(&fake));
        (late, pod)
    };
    let (_early, (late, _pod)) = tokio::join!(join_all((0..20).map(|_| call(&worker, "a__wipe"))), next);
    late.unwrap();
    let servers = worker.app.engine.hub.status();
    assert_eq!((servers[0].openings, servers[0].degraded), (0, false), "{servers:?}");
}

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_made_again_only_where_that_does_no_harm() {
    let fake = Fake::start(Mood::Modern).await;
    let mut entry = entry(&fake);
    entry["max_retries"] = json!(2);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let made = |tool: &str| fake.calls.lock().unwrap().iter().filter(|call| call["name"] == tool).count();
    fake.losses.store(1, Ordering::SeqCst);
    call(&worker, "a__echo").await.unwrap();
    assert_eq!(made("echo"), 2, "it only reads");
    fake.losses.store(1, Ordering::SeqCst);
    let lost = call(&worker, "a__wipe").await.unwrap_err();
    assert!(lost.contains("the connection failed"), "{lost}");
    assert_eq!(made("wipe"), 1, "nobody knows what it does");
}

#[tokio::test]
async fn a_fault_of_one_connection_ends_no_call_on_another() {
    let fake = Fake::start(Mood::Modern).await;
    let mut entry = entry(&fake);
    entry["health_check_interval"] = json!(0.1);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let slow = call(&worker, "a__slow");
    let faults = async {
        worker.until("the call", |_| !fake.calls.lock().unwrap().is_empty()).await;
        fake.loses_lists.store(true, Ordering::SeqCst);
        worker.until("the server down", |health| state(health, "a") == "down").await;
        fake.loses_lists.store(false, Ordering::SeqCst);
        assert!(call(&worker, "a__wipe").await.is_ok(), "it is connected again meanwhile, and the call waits for that");
    };
    let (slow, ()) = tokio::join!(slow, faults);
    assert_eq!(slow.unwrap(), "slow but sure");
}

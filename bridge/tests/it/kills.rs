//! SIGKILL for the child, for what it started and for the bridge itself, while many call. The same a thousand times is in
//! tests/bench-bridge.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Bridge, alive, child, children_of, kill, messages, tools_call, until};

const CALLERS: usize = 8;
const KILLS: usize = 24;

/// What becomes of one call; None: the connection broke.
async fn call(bridge: &Bridge) -> Option<Value> {
    let request = bridge.request(Method::POST, "/mcp").header("accept", "application/json, text/event-stream");
    let response = request.timeout(Duration::from_secs(20)).json(&tools_call("echo", json!({}))).send().await;
    match response {
        Ok(response) => messages(response).await.pop(),
        Err(error) => {
            assert!(!error.is_timeout(), "a call was not answered");
            None
        }
    }
}

#[tokio::test]
async fn no_kill_leaves_a_call_unanswered_or_a_process_behind() {
    let bridge = Bridge::start_ready("--max-deaths 0 --max-backoff-seconds 0", &child("legacy")).await;
    let (over, results, died, broken) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let caller = async || {
        while !over.load(Ordering::Relaxed) {
            match call(&bridge).await {
                Some(answer) if answer["result"].is_object() => results.fetch_add(1, Ordering::Relaxed),
                Some(answer) => {
                    assert_eq!(answer["error"]["data"]["reason"], "ServerExited", "{answer}");
                    died.fetch_add(1, Ordering::Relaxed)
                }
                None => broken.fetch_add(1, Ordering::Relaxed),
            };
        }
    };
    let process = bridge.process.id();
    let killer = async {
        let mut seen = BTreeSet::new();
        for number in 0..KILLS {
            let before = results.load(Ordering::Relaxed);
            until("calls that succeed", async || (results.load(Ordering::Relaxed) > before + CALLERS).then_some(())).await;
            let living = children_of(process);
            if number % 4 == 0 {
                let started: Vec<i64> = serde_json::from_value(bridge.text(None, "fork", json!({})).await).unwrap();
                kill(started[number % started.len()]);
                seen.extend(started);
            }
            for pid in &living {
                kill(*pid);
            }
            seen.extend(living);
            let all_gone = async || seen.iter().all(|pid| !alive(*pid)).then_some(());
            until("the end of a child and of all that it started", all_gone).await;
        }
        assert_eq!(broken.load(Ordering::Relaxed), 0, "the bridge itself lost no connection");
        assert!(seen.len() > KILLS && died.load(Ordering::Relaxed) > 0);
        // At last the bridge.
        let child = until("a child", async || Some(children_of(process)).filter(|children| children.len() == 1)).await;
        kill(i64::from(process));
        let began = Instant::now();
        until("its end", async || (broken.load(Ordering::Relaxed) >= CALLERS).then_some(())).await;
        over.store(true, Ordering::Relaxed);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        until("the end of its child", async || (!alive(child[0])).then_some(())).await;
    };
    tokio::join!(futures::future::join_all((0..CALLERS).map(|_| caller())), killer);
}

/// What minds neither the end of its input nor SIGTERM, and what left its process group, end with a bridge that can end nothing any more.
#[tokio::test]
async fn a_bridge_that_is_killed_leaves_nothing_behind() {
    let stays = "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & sleep 1000; sleep 1000";
    let bridge = Bridge::start("", &["sh".to_owned(), "-c".to_owned(), stays.to_owned()]).await;
    let process = bridge.process.id();
    let started = until("all of them", async || {
        let all = with_descendants(children_of(process));
        (all.len() >= 4).then_some(all)
    })
    .await;
    kill(i64::from(process));
    until("their end", async || started.iter().all(|pid| !alive(*pid)).then_some(())).await;
}

fn with_descendants(mut all: Vec<i64>) -> Vec<i64> {
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        all.extend(children_of(u32::try_from(*pid).unwrap()));
        at += 1;
    }
    all
}

//! Pods follow the calls, and no call is lost on the way: of a server that tells its calls, and of one of another maker.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap, events::v1::Event};
use kube::api::ListParams;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::McpServer;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    drills::serves,
    rollouts::settled,
    setup::{PYTHON, install, ready, sqlite},
};

/// Clients that call one tool again and again, each on connections of its own.
pub struct Callers {
    done: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<Failure>>>,
    tasks: Vec<JoinHandle<anyhow::Result<u64>>>,
}

/// A call that was not answered as it should be.
#[derive(Debug)]
pub struct Failure {
    pub began: Instant,
    pub ended: Instant,
    pub error: anyhow::Error,
}

impl Callers {
    pub fn start(number: usize, url: &str, tool: &'static str, arguments: &Value) -> Self {
        Self::start_as(number, url, None, tool, arguments)
    }

    /// With a token.
    pub fn start_as(number: usize, url: &str, token: Option<&str>, tool: &'static str, arguments: &Value) -> Self {
        let (done, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let tasks = (0..number).map(|_| {
            let (done, failures, url, arguments) = (Arc::clone(&done), Arc::clone(&failures), url.to_owned(), arguments.clone());
            let client = client(token);
            tokio::spawn(async move {
                let client = client?;
                let mut calls = 0;
                while !done.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    calls += 1;
                    if let Err(error) = call(&client, &url, tool, &arguments).await {
                        failures.lock().unwrap().push(Failure { began, ended: Instant::now(), error });
                        // As a client does before it calls again.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                Ok(calls)
            })
        });
        let tasks = tasks.collect();
        Self { done, failures, tasks }
    }

    /// Waits for the last calls. How many there were, of which none failed.
    pub async fn end(self) -> anyhow::Result<u64> {
        let (calls, failed) = self.told().await?;
        anyhow::ensure!(calls > 0 && failed.is_empty(), "{} of {calls} calls failed: {failed:#?}", failed.len());
        Ok(calls)
    }

    /// Waits for the last calls. How many there were, and those that failed.
    pub async fn told(self) -> anyhow::Result<(u64, Vec<Failure>)> {
        self.done.store(true, Ordering::Relaxed);
        let mut calls = 0;
        for task in self.tasks {
            calls += task.await??;
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap());
        Ok((calls, failures))
    }
}

/// One that has a connection of its own for each call, and this token.
pub fn client(token: Option<&str>) -> anyhow::Result<reqwest::Client> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse()?);
    }
    Ok(reqwest::Client::builder().default_headers(headers).pool_max_idle_per_host(0).timeout(Duration::from_mins(1)).build()?)
}

/// Calls a tool, as a client of 2026-07-28.
pub async fn call(client: &reqwest::Client, url: &str, tool: &str, arguments: &Value) -> anyhow::Result<()> {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    let request = client
        .post(url)
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", "tools/call")
        .header("Mcp-Name", tool)
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
    let answer: Value = request.send().await?.error_for_status()?.json().await?;
    anyhow::ensure!(answer["result"]["isError"] != true && answer["error"].is_null(), "{answer}");
    Ok(())
}

fn scaled() -> Value {
    json!({"maxReplicas": 3, "callsInFlight": 2})
}

fn desired(server: &McpServer) -> Option<u32> {
    Some(server.status.as_ref()?.autoscaling.as_ref()?.desired)
}

pub fn url(server: McpServer) -> anyhow::Result<String> {
    server.status.and_then(|status| status.url).context("it has one")
}

/// A server of another maker, out of one file, which is scaled as `autoscaling` says.
pub async fn slow(space: &Space, name: &str, autoscaling: &Value) -> anyhow::Result<()> {
    slow_with(space, name, |spec| spec["autoscaling"] = autoscaling.clone()).await
}

/// The same, with a spec that is changed.
pub async fn slow_with(space: &Space, name: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
    space.create::<ConfigMap>(json!({"metadata": {"name": "slow"}, "data": {"slow.py": include_str!("slow.py")}})).await?;
    let mut server = json!({"metadata": {"name": name}, "spec": {
        "container": {"image": PYTHON, "command": ["python3"], "args": ["/app/slow.py"]},
        "volumes": [{"name": "code", "configMap": {"name": "slow"}}],
        "volumeMounts": [{"name": "code", "mountPath": "/app"}],
        "health": {"intervalSeconds": 5, "timeoutSeconds": 3},
        "terminationGracePeriodSeconds": 60,
    }});
    change(&mut server["spec"]);
    space.create::<McpServer>(server).await?;
    Ok(())
}

/// Load makes three pods of one, and its end one of three.
async fn up_and_down(space: &Space, tool: &'static str, arguments: &Value, callers: usize) -> anyhow::Result<()> {
    let url = url(space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?)?;
    settled(&url).await?;
    let began = Instant::now();
    let load = Callers::start(callers, &url, tool, arguments);
    let raised = space.until::<McpServer>("s", "three pods wanted", |server| desired(server) == Some(3)).await?;
    let (why, after) = (raised.status.and_then(|status| status.autoscaling).context("it is told")?.reason, began.elapsed());
    space.until::<McpServer>("s", "3/3", |server| serves(server, "3/3")).await?;
    println!("{why}: decided after {:.1} s, 3/3 after {:.1} s", after.as_secs_f64(), began.elapsed().as_secs_f64());
    let calls = load.end().await?;

    // One client stays, while two pods go.
    let ended = Instant::now();
    let rest = Callers::start(1, &url, tool, arguments);
    space.until::<McpServer>("s", "2 pods wanted", |server| desired(server) == Some(2)).await?;
    space.until::<McpServer>("s", "1/1 again", |server| serves(server, "1/1")).await?;
    println!("1/1 again {:.1} s after the load", ended.elapsed().as_secs_f64());
    let more = rest.end().await?;
    println!("{calls} and {more} calls, none failed");
    // The last of them comes a moment after the status.
    let told = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while !scalings(space).await?.ends_with(&["scaled from 3 to 2".into(), "scaled from 2 to 1".into()]) {
            look.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(10), told).await?
}

/// What Events tell of changes of the number, the first one first.
async fn scalings(space: &Space) -> anyhow::Result<Vec<String>> {
    let events = space.api::<Event>().list(&ListParams::default()).await?.items;
    let mut scaled: Vec<_> = events.iter().filter(|event| event.reason.as_deref() == Some("Scaled")).collect();
    scaled.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
    Ok(scaled.iter().filter_map(|event| event.note.as_deref()?.split(':').next().map(str::to_owned)).collect())
}

#[tokio::test]
async fn slow_calls_raise_a_sandbox_server_to_three_pods_and_their_end_takes_two_away_without_a_failed_call() {
    with_space(|space| async move {
        install(&space).await?;
        let mut server = sqlite("s", 1, 5);
        server["spec"]["autoscaling"] = json!({"maxReplicas": 3, "callsInFlight": 1});
        server["spec"]["health"]["timeoutSeconds"] = json!(5);
        // The calls take turns on two cores.
        let args = ["serve", "--db", "/tmp/sandbox.db", "--listen", "0.0.0.0:8080", "--statement-timeout-ms", "60000"];
        server["spec"]["container"]["args"] = json!(args);
        space.create::<McpServer>(server).await?;
        let counts = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300000) SELECT count(*) FROM c";
        up_and_down(&space, "read_query", &json!({"query": counts}), 4).await
    })
    .await;
}

#[tokio::test]
async fn a_server_of_another_maker_is_counted_by_the_bridge_beside_it() {
    with_space(|space| async move {
        install(&space).await?;
        slow(&space, "s", &scaled()).await?;
        up_and_down(&space, "wait", &json!({"seconds": 1.5}), 6).await
    })
    .await;
}

#[tokio::test]
async fn a_rolling_update_under_calls_of_twenty_seconds_loses_none() {
    with_space(|space| async move {
        install(&space).await?;
        slow(&space, "s", &scaled()).await?;
        let url = url(space.until::<McpServer>("s", "Ready", ready).await?)?;
        settled(&url).await?;
        let load = Callers::start(2, &url, "wait", &json!({"seconds": 20}));
        for version in ["2", "3"] {
            let before = space.api::<Deployment>().get("s-mcp").await?.metadata.generation;
            space.edit::<McpServer>("s", json!({"spec": {"env": [{"name": "VERSION", "value": version}]}})).await?;
            space
                .until::<Deployment>("s-mcp", "the new version, and nothing of the old one", |deployment| {
                    let status = deployment.status.clone().unwrap_or_default();
                    let wanted = deployment.metadata.generation;
                    wanted > before
                        && status.observed_generation == wanted
                        && (status.updated_replicas, status.replicas) == (Some(1), Some(1))
                        && status.ready_replicas == Some(1)
                })
                .await?;
        }
        println!("{} calls of 20 s, none failed", load.end().await?);
        Ok(())
    })
    .await;
}

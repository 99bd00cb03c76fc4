//! A server that accepts and never answers: what people see, and where their requests go.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use mcpfleet_tests::cluster::with_space;
use operator::crd::{CircuitState, McpApp, McpServer};
use serde_json::json;

use crate::setup::{in_service, install, ready, restart_operator, server_pods, signal, sqlite};

pub fn circuit(server: &McpServer) -> Option<CircuitState> {
    Some(server.status.as_ref()?.circuit.as_ref()?.state)
}

fn pods(server: &McpServer) -> Option<&str> {
    server.status.as_ref()?.pods.as_deref()
}

pub fn enabled(config_map: &ConfigMap) -> Option<bool> {
    let file: serde_json::Value = serde_json::from_str(config_map.data.as_ref()?.get("mcp.json")?).ok()?;
    file["servers"][0]["enabled"].as_bool()
}

#[tokio::test]
async fn a_stopped_server_leaves_use_and_comes_back_and_the_operator_may_restart_in_between() {
    with_space(|space| async move {
        install(&space).await?;
        let interval = 5;
        space.create::<McpServer>(sqlite("s", 1, interval)).await?;
        space.secret("key", &[("k", "v")]).await?;
        let app = json!({"metadata": {"name": "chat"}, "spec": {
            "servers": [{"name": "s"}], "model": {"name": "m", "apiKeySecretRef": {"name": "key", "key": "k"}},
        }});
        space.create::<McpApp>(app).await?;
        space.until::<McpServer>("s", "Ready", ready).await?;
        space.until::<ConfigMap>("chat-app", "the server offered", |config| enabled(config) == Some(true)).await?;
        let pod = server_pods(&space, "s").await?.remove(0);

        signal(&space, &pod.name_any(), "STOP")?;
        let stopped = Instant::now();
        space.until::<McpServer>("s", "an open circuit", |server| circuit(server) == Some(CircuitState::Open)).await?;
        let opened = stopped.elapsed();
        println!("stopped: the circuit opened after {:.1} s", opened.as_secs_f64());
        anyhow::ensure!(opened < Duration::from_secs(u64::from(interval) + 20), "opened after {opened:?}");
        space.until::<ConfigMap>("chat-app", "the server withdrawn", |config| enabled(config) == Some(false)).await?;
        let gone = async {
            let mut look = tokio::time::interval(Duration::from_millis(200));
            while !in_service(&space, "s-mcp").await?.is_empty() {
                look.tick().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await??;

        restart_operator(&space).await?;
        let told = space.api::<McpServer>().get("s").await?;
        anyhow::ensure!(!ready(&told) && circuit(&told) != Some(CircuitState::Closed), "{:?}", told.status);
        anyhow::ensure!(in_service(&space, "s-mcp").await?.is_empty(), "back in service while stopped");

        signal(&space, &pod.name_any(), "CONT")?;
        let continued = Instant::now();
        space
            .until::<McpServer>("s", "Ready again", |server| ready(server) && circuit(server) == Some(CircuitState::Closed))
            .await?;
        println!("continued: the circuit closed after {:.1} s", continued.elapsed().as_secs_f64());
        space.until::<ConfigMap>("chat-app", "the server offered again", |config| enabled(config) == Some(true)).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn one_of_three_replicas_stopped_costs_clients_only_the_seconds_until_it_is_known() {
    with_space(|space| async move {
        install(&space).await?;
        let (interval, timeout) = (3, 2);
        space.create::<McpServer>(sqlite("s", 3, interval)).await?;
        space.until::<McpServer>("s", "3/3", |server| ready(server) && pods(server) == Some("3/3")).await?;
        let pod = server_pods(&space, "s").await?.remove(0);
        let address = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();

        // A client in a loop, on a new connection each time, which is what a Service balances.
        let url = space.api::<McpServer>().get("s").await?.status.unwrap().url.unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let client = tokio::spawn(call_until(Arc::clone(&done), Arc::clone(&failures), url));

        signal(&space, &pod.name_any(), "STOP")?;
        let stopped = Instant::now();
        space.until::<McpServer>("s", "2/3", |server| pods(server) == Some("2/3")).await?;
        let known = stopped.elapsed();
        let left = async {
            let mut look = tokio::time::interval(Duration::from_millis(100));
            while in_service(&space, "s-mcp").await?.contains(&address) {
                look.tick().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(5), left).await??;
        let out = Instant::now();
        println!(
            "one of three stopped: known after {:.1} s, out of the Service after {:.1} s",
            known.as_secs_f64(),
            (out - stopped).as_secs_f64()
        );
        anyhow::ensure!(known < Duration::from_secs(u64::from(interval + timeout) + 3), "known after {known:?}");
        anyhow::ensure!(in_service(&space, "s-mcp").await?.len() == 2, "the others serve on");
        let told = space.api::<McpServer>().get("s").await?;
        anyhow::ensure!(ready(&told) && circuit(&told) == Some(CircuitState::Closed), "{:?}", told.status);

        signal(&space, &pod.name_any(), "CONT")?;
        space.until::<McpServer>("s", "3/3 again", |server| pods(server) == Some("3/3")).await?;
        done.store(true, Ordering::Relaxed);
        client.await??;
        // kube-proxy takes a moment to follow the EndpointSlice.
        let late = failures.lock().unwrap().iter().filter(|(began, _)| *began > out + Duration::from_secs(1)).count();
        anyhow::ensure!(late == 0, "{late} calls failed after the pod was out of the Service");
        Ok(())
    })
    .await;
}

/// How long a call may take: a first packet that got lost is sent again after a second, and the network of the test may lose one.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The calls that failed: when each was begun, and how long it took to fail, and why.
pub type Failures = Arc<Mutex<Vec<(Instant, String)>>>;

/// Calls the server until told to stop, and keeps the calls that failed. How many calls were made.
pub async fn call_until(done: Arc<AtomicBool>, failures: Failures, url: String) -> anyhow::Result<u64> {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(CALL_TIMEOUT).build()?;
    let (mut calls, first) = (0, Instant::now());
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        calls += 1;
        if let Err(error) = discover(&client, &url).await {
            failures.lock().unwrap().push((
                began,
                format!("begun {:?} after the first, failed after {:?}: {error:?}", began - first, began.elapsed()),
            ));
        }
    }
    Ok(calls)
}

/// Whether a server answers to discover.
pub async fn answers(client: &reqwest::Client, url: &str) -> bool {
    discover(client, url).await.is_ok()
}

async fn discover(client: &reqwest::Client, url: &str) -> reqwest::Result<()> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }}});
    let request = client
        .post(url)
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", "server/discover")
        .json(&body);
    // To its end, as clients do: a connection that is left with something unread in it is reset.
    request.send().await?.error_for_status()?.bytes().await.map(drop)
}

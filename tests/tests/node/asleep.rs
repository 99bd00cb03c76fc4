//! A server that nobody calls has no pods, and the next call wakes it: with the activator of the chart, and the network of the node.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    conditions,
    crd::{McpServer, reason},
};
use serde_json::{Value, json};

use crate::{
    drills::serves,
    setup::{in_service, install, restart_operator, server_pods, sqlite},
};

/// What a caller waits for the first answer of a server that sleeps, at most. The activator itself holds calls for 30 s.
const WAKE: Duration = Duration::from_secs(10);

fn asleep(server: &McpServer) -> bool {
    let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True" && ready.reason == reason::ASLEEP)
}

/// One message to a server, on a connection of its own, and the result.
async fn ask(url: &str, method: &str, params: Value) -> anyhow::Result<Value> {
    let mut params = params;
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(40)).build()?;
    let name = params["name"].as_str().map(ToOwned::to_owned);
    let mut request = http.post(url).header("Accept", "application/json, text/event-stream");
    request = request.header("MCP-Protocol-Version", "2026-07-28").header("Mcp-Method", method);
    if let Some(name) = name {
        request = request.header("Mcp-Name", name);
    }
    let response = request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).send().await?;
    let status = response.status();
    let text = response.text().await?;
    anyhow::ensure!(status.is_success(), "{status}: {text}");
    let message = text.lines().find_map(|line| line.strip_prefix("data: ").filter(|data| !data.is_empty())).unwrap_or(&text);
    let message: Value = serde_json::from_str(message).with_context(|| text.clone())?;
    anyhow::ensure!(message["error"].is_null(), "{text}");
    Ok(message["result"].clone())
}

async fn falls_asleep(space: &Space) -> anyhow::Result<()> {
    space.until::<McpServer>("s", "Asleep", asleep).await?;
    let gone = async {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while !server_pods(space, "s").await?.is_empty() {
            look.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.context("its pods do not go")?
}

#[tokio::test]
async fn nobody_calls_it_and_it_has_no_pods_lists_do_not_wake_it_and_calls_wake_it_once() {
    with_space(|space| async move {
        install(&space).await?;
        let mut server = sqlite("s", 1, 3);
        server["spec"]["autoscaling"] = json!({"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 30});
        space.create::<McpServer>(server).await?;
        let first = space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        let url = first.status.context("it has one")?.url.context("it has one")?;
        falls_asleep(&space).await?;

        let lists = || async {
            let list = ask(&url, "tools/list", json!({})).await?;
            anyhow::ensure!(list["tools"].as_array().is_some_and(|tools| tools.len() > 3), "{list}");
            ask(&url, "server/discover", json!({})).await.map(drop)
        };
        let began = Instant::now();
        lists().await?;
        println!("asleep: the lists were answered in {} ms", began.elapsed().as_millis());
        // Whoever leads next finds it asleep, and leaves it so.
        restart_operator(&space).await?;
        lists().await?;
        assert!(asleep(&space.api::<McpServer>().get("s").await?) && server_pods(&space, "s").await?.is_empty());

        let began = Instant::now();
        let calls = (0..20).map(|_| async {
            ask(&url, "tools/call", json!({"name": "list_tables", "arguments": {}})).await.map(|_| began.elapsed())
        });
        let mut took = future::try_join_all(calls).await?;
        took.sort_unstable();
        let (first, last) = (took[0], took[took.len() - 1]);
        println!(
            "woken: the first of 20 calls was answered after {} ms, the last after {} ms",
            first.as_millis(),
            last.as_millis()
        );
        anyhow::ensure!(last < WAKE, "the last of 20 calls was answered after {last:?}");
        assert_eq!(server_pods(&space, "s").await?.len(), 1, "one wake for all");
        space.until::<McpServer>("s", "awake", |server| serves(server, "1/1") && !asleep(server)).await?;
        let pod = server_pods(&space, "s").await?.remove(0);
        let address = pod.status.and_then(|status| status.pod_ip).context("it has an address")?;
        assert_eq!(in_service(&space, "s-mcp").await?, [address], "and the activator is out of the Service");
        // It is asked for as ever, and sleeps again.
        ask(&url, "tools/call", json!({"name": "list_tables", "arguments": {}})).await?;
        falls_asleep(&space).await?;
        Ok(())
    })
    .await;
}

//! A server that nobody calls has no pods, and the next call wakes it: with the activator of the chart, and the network of the node.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::ResourceExt;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    conditions,
    crd::{McpApp, McpServer, reason},
};
use serde_json::{Value, json};

use crate::{
    drills::serves,
    setup::{in_service, install, restart_operator, server_pods, sqlite, until_no_pods},
    steps::Steps,
    strikes,
};

/// What a caller waits for the first answer of a server that sleeps, at most. The activator itself holds calls for 30 s.
const WAKE: Duration = Duration::from_secs(10);

pub fn asleep(server: &McpServer) -> bool {
    let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True" && ready.reason == reason::ASLEEP)
}

/// One message to a server, on a connection of its own, and the result.
async fn ask(url: &str, method: &str, params: Value) -> anyhow::Result<Value> {
    ask_as(url, None, method, params).await
}

/// The same of who presents a token.
async fn ask_as(url: &str, token: Option<&str>, method: &str, params: Value) -> anyhow::Result<Value> {
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
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    result_of(request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).send().await?).await
}

/// The result that a response brings, in whichever of both forms.
pub async fn result_of(response: reqwest::Response) -> anyhow::Result<Value> {
    let status = response.status();
    let text = response.text().await?;
    anyhow::ensure!(status.is_success(), "{status}: {text}");
    let message = text.lines().find_map(|line| line.strip_prefix("data: ").filter(|data| !data.is_empty())).unwrap_or(&text);
    let message: Value = serde_json::from_str(message).with_context(|| text.clone())?;
    anyhow::ensure!(message["error"].is_null(), "{text}");
    Ok(message["result"].clone())
}

pub async fn falls_asleep(space: &Space, name: &str) -> anyhow::Result<()> {
    space.until::<McpServer>(name, "Asleep", asleep).await?;
    until_no_pods(space, name).await
}

/// A server that sleeps soon, once it is up: its URL.
async fn sleeper(space: &Space, name: &str) -> anyhow::Result<String> {
    let mut server = sqlite(name, 1, 3);
    server["spec"]["autoscaling"] = json!({"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 30});
    space.create::<McpServer>(server).await?;
    let first = space.until::<McpServer>(name, "1/1", |server| serves(server, "1/1")).await?;
    first.status.and_then(|status| status.url).context("it has one")
}

async fn call(url: &str) -> anyhow::Result<Value> {
    ask(url, "tools/call", json!({"name": "list_tables", "arguments": {}})).await
}

#[tokio::test]
async fn nobody_calls_it_and_it_has_no_pods_lists_do_not_wake_it_and_calls_wake_it_once() {
    with_space(|space| async move {
        install(&space).await?;
        let url = sleeper(&space, "s").await?;
        falls_asleep(&space, "s").await?;

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
        let calls = (0..20).map(|_| async { call(&url).await.map(|_| began.elapsed()) });
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
        call(&url).await?;
        falls_asleep(&space, "s").await
    })
    .await;
}

#[tokio::test]
#[ignore = "a drill: make drills"]
async fn one_call_shows_each_step_of_a_wake_and_a_call_through_an_app_wakes_too() {
    with_space(|space| async move {
        install(&space).await?;
        let names = ["s", "t", "u", "v"];
        let mut urls = Vec::new();
        for name in names {
            urls.push(sleeper(&space, name).await?);
        }
        for (name, url) in names.iter().zip(&urls) {
            falls_asleep(&space, name).await?;
            let took = wake(&space, name, url).await?;
            anyhow::ensure!(took < WAKE, "one call of {name} was answered after {took:?}");
        }
        falls_asleep(&space, "s").await?;
        through_an_app(&space).await
    })
    .await;
}

/// How long one call of a server that sleeps takes, with each of its steps.
async fn wake(space: &Space, name: &str, url: &str) -> anyhow::Result<Duration> {
    let steps = Steps::watch(space, name).await;
    steps.begin();
    let began = Instant::now();
    call(url).await?;
    let took = began.elapsed();
    steps.note("the call is answered");
    steps.until("its Service leads there").await?;
    println!("{name}, step by step from the call on:\n{}", steps.table());
    Ok(took)
}

/// An app over a server that sleeps offers its tools, and a call through it wakes the server.
async fn through_an_app(space: &Space) -> anyhow::Result<()> {
    space.create::<McpApp>(json!({"metadata": {"name": "tools"}, "spec": {"servers": [{"name": "s"}]}})).await?;
    let is_ready = |app: &McpApp| {
        let conditions = app.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True")
    };
    space.until::<McpApp>("tools", "Ready", is_ready).await?;
    let secret = space.api::<Secret>().get("tools-app").await?.data.context("a token")?;
    let token = String::from_utf8(secret["token"].0.clone())?;
    let url = format!("http://tools-app.{}.svc.cluster.local/mcp", space.name);
    // The hub tells of a server when it has heard of it.
    let offered = async {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        loop {
            look.tick().await;
            let list = ask_as(&url, Some(&token), "tools/list", json!({})).await.unwrap_or_default();
            let tools = list["tools"].as_array().cloned().unwrap_or_default();
            let mut names = tools.iter().filter_map(|tool| tool["name"].as_str());
            if let Some(name) = names.find(|name| name.ends_with("list_tables")) {
                return anyhow::Ok(name.to_owned());
            }
        }
    };
    let tool = tokio::time::timeout(Duration::from_secs(30), offered).await.context("the app does not offer its tools")??;
    assert!(asleep(&space.api::<McpServer>().get("s").await?), "an app and its lists wake nobody");
    assert!(server_pods(space, "s").await?.is_empty());
    let began = Instant::now();
    let answer = ask_as(&url, Some(&token), "tools/call", json!({"name": tool, "arguments": {}})).await?;
    println!("through an app: {tool} was answered after {} ms", began.elapsed().as_millis());
    anyhow::ensure!(answer["isError"] != true, "{answer}");
    space.until::<McpServer>("s", "awake", |server| serves(server, "1/1") && !asleep(server)).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "a drill: make drills"]
async fn whoever_calls_while_it_falls_asleep_is_answered_whatever_dies_in_that_moment() {
    with_space(|space| async move {
        install(&space).await?;
        let url = sleeper(&space, "s").await?;
        let deaths: [(&str, Option<&str>); 4] = [
            ("nobody", None),
            ("the operator", Some("operator")),
            ("the activator", Some("activator")),
            ("both", Some("operator,activator")),
        ];
        for (what, components) in deaths {
            let last = server_pods(&space, "s").await?.remove(0).name_any();
            // Its Deployment hears of it first, before the last pod goes and before the status says so.
            let last_goes = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
            space.until::<Deployment>("s-mcp", "the end of the last pod", last_goes).await?;
            if let Some(components) = components {
                strikes::kill(&space, components).await?;
            }
            let began = Instant::now();
            let calls = future::try_join_all((0..10).map(|_| called_until_taken(&url))).await?;
            let attempts: usize = calls.iter().sum();
            println!(
                "{what} died as it fell asleep: 10 calls answered in {} ms, {attempts} attempts",
                began.elapsed().as_millis()
            );
            anyhow::ensure!(components.is_some() || attempts == 10, "nobody died, and a call was not taken at once");
            // It may have been its last pod that answered them all: whoever comes when that is gone wakes it.
            space.until_gone::<Pod>(&last).await?;
            called_until_taken(&url).await?;
            space.until::<McpServer>("s", "awake", |server| serves(server, "1/1") && !asleep(server)).await?;
        }
        Ok(())
    })
    .await;
}

/// Calls until the call is answered, and says how often that was. Only who was not answered at all, or was told to come again, does.
async fn called_until_taken(url: &str) -> anyhow::Result<usize> {
    let (began, mut attempts) = (Instant::now(), 0);
    loop {
        attempts += 1;
        match call(url).await {
            Ok(_) => return Ok(attempts),
            Err(error) if began.elapsed() > Duration::from_mins(1) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

//! Rollouts and restarts under a client in a loop: an edit costs no call, a restart costs its own seconds, a bad version stalls.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::ResourceExt;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    conditions,
    crd::{CircuitState, McpApp, McpServer},
};
use serde_json::{Value, json};

use crate::{
    arrival::arrives,
    autoscale::{Callers, call, client, slow_with},
    chat_drill::Chat,
    contract::only,
    drills::serves,
    outage::{answers, call_until, circuit},
    setup::{install, server_pods, signal, sqlite},
};

/// So many calls on new connections in a row reach every pod of three.
const SETTLED: u32 = 100;

fn condition(server: &McpServer, type_: &str) -> Option<(String, String, String)> {
    let found = conditions::find(&server.status.as_ref()?.conditions, type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.map(|container| container.restart_count).sum()
}

pub fn is(server: &McpServer, type_: &str, status: &str) -> bool {
    condition(server, type_).is_some_and(|found| found.0 == status)
}

/// Waits until the Service leads to every pod: kube-proxy takes a moment to follow.
pub async fn settled(url: &str) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(1)).build()?;
    let settled = async {
        let mut in_a_row = 0;
        while in_a_row < SETTLED {
            in_a_row = if answers(&http, url).await { in_a_row + 1 } else { 0 };
        }
    };
    tokio::time::timeout(Duration::from_secs(15), settled).await.context("the Service does not lead to the pods")
}

/// Edits the server and waits until every pod is of the new template and in service.
pub async fn roll(space: &Space, what: &str, edit: Value) -> anyhow::Result<()> {
    let began = Instant::now();
    let generation = space.api::<Deployment>().get("s-mcp").await?.metadata.generation.context("it has one")?;
    space.edit::<McpServer>("s", json!({"spec": edit})).await?;
    space
        .until::<Deployment>("s-mcp", "the new version", |deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
            let wanted = deployment.metadata.generation;
            wanted > Some(generation)
                && status.observed_generation == wanted
                && (status.updated_replicas, status.ready_replicas, status.replicas) == (replicas, replicas, replicas)
        })
        .await?;
    space
        .until::<McpServer>("s", "every pod in service, and nothing under way", |server| {
            serves(server, &format!("{0}/{0}", server.spec.replicas)) && is(server, "Reconciling", "False")
        })
        .await?;
    println!("{what}: rolled in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test]
async fn an_edit_of_what_pods_are_asked_costs_no_call() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 3, 3)).await?;
        let first = space.until::<McpServer>("s", "3/3", |server| serves(server, "3/3")).await?;
        let url = first.status.context("it has one")?.url.context("it has one")?;
        settled(&url).await?;

        let done = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let client = tokio::spawn(call_until(Arc::clone(&done), Arc::clone(&failures), url));
        let mut failed = 0;
        let mut count = |what: &str| {
            let now = failures.lock().unwrap().len();
            println!("{what}: {} failed calls", now - failed);
            failed = now;
        };
        let at = |port: u16| json!({"port": port, "args": ["serve", "--db", "/tmp/sandbox.db", "--listen", format!("0.0.0.0:{port}")]});
        roll(&space, "another port", json!({"container": at(3000)})).await?;
        count("another port");
        let writes = json!({"name": "create_table", "arguments": {"query": "CREATE TABLE IF NOT EXISTS probed(a)"}});
        roll(&space, "another toolCall", json!({"health": {"toolCall": writes}})).await?;
        count("another toolCall");
        done.store(true, Ordering::Relaxed);
        let calls = client.await??;
        let failed = failures.lock().unwrap();
        anyhow::ensure!(calls > 0 && failed.is_empty(), "{} of {calls} calls failed: {failed:#?}", failed.len());
        println!("{calls} calls, none failed");
        Ok(())
    })
    .await;
}

/// Through an app, which is told of the path: clients of one's own have to be.
#[tokio::test]
async fn an_edit_of_the_path_costs_an_app_no_call() {
    with_space(|space| async move {
        install(&space).await?;
        slow_with(&space, "s", |spec| {
            spec["container"]["args"] = json!(["/app/slow.py", "/mcp"]);
            spec["health"] = json!({"intervalSeconds": 2, "timeoutSeconds": 2});
            spec["progressDeadlineSeconds"] = json!(15);
        })
        .await?;
        // All calls come from one address.
        let app = json!({"servers": [{"name": "s"}], "rateLimit": {"requests": 1_000_000, "windowSeconds": 60}});
        space.create::<McpApp>(json!({"metadata": {"name": "chat"}, "spec": app})).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        space
            .until::<McpApp>("chat", "a pod", |app| app.status.as_ref().is_some_and(|status| status.ready_replicas == 1))
            .await?;
        let chat = Chat::of(&space).await?;
        chat.until_up().await?;
        let (url, token) = chat.mcp();
        let at_once = json!({"seconds": 0});
        let callers = || Callers::start_as(2, &url, Some(token), "s__wait", &at_once);

        let calling = callers();
        space.edit::<McpServer>("s", json!({"spec": {"container": {"path": "/sse"}}})).await?;
        let stalled = space.until::<McpServer>("s", "Stalled", |server| is(server, "Stalled", "True")).await?;
        anyhow::ensure!(is(&stalled, "Ready", "True"), "the old pod serves on: {:?}", stalled.status);
        let (_, reason, message) = condition(&stalled, "Stalled").context("it is there")?;
        println!("a path that never comes up: {} calls, none failed; {reason}: {message}", calling.end().await?);

        // It answers at the former path, too: for a moment the Service leads to both versions, and whoever calls knows one path.
        let calling = callers();
        roll(&space, "another path", json!({"container": {"path": "/v2", "args": ["/app/slow.py"]}})).await?;
        let has_path = |config: &ConfigMap| config.data.iter().any(|data| data["mcp.json"].contains("svc:8080/v2"));
        space.until::<ConfigMap>("chat-app", "the new path", has_path).await?;
        only(&space, 1).await?;
        // And once the app cannot be led by what it knew before.
        let client = client(Some(token))?;
        for _ in 0..SETTLED {
            call(&client, &url, "s__wait", &at_once).await?;
        }
        println!("another path: {} calls, none failed", calling.end().await?);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_version_that_cannot_start_is_under_way_then_stalled_while_the_old_one_serves() {
    with_space(|space| async move {
        install(&space).await?;
        let mut server = sqlite("s", 1, 3);
        server["spec"]["progressDeadlineSeconds"] = json!(15);
        server["spec"]["health"]["restartAfterSeconds"] = json!(5);
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        let image = json!({"spec": {"container": {"image": "ghcr.io/mcpfleet/sandbox-server:9.9.9"}}});
        let edited = space.edit::<McpServer>("s", image).await?.metadata.generation;
        let rolling = space
            .until::<McpServer>("s", "Reconciling", |server| {
                is(server, "Reconciling", "True")
                    && server.status.as_ref().and_then(|status| status.observed_generation) == edited
            })
            .await?;
        anyhow::ensure!(is(&rolling, "Ready", "True"), "{:?}", rolling.status);
        let began = Instant::now();
        let stalled = space.until::<McpServer>("s", "Stalled", |server| is(server, "Stalled", "True")).await?;
        let (_, reason, message) = condition(&stalled, "Stalled").context("it is there")?;
        println!("stalled after {:.1} s: {reason}: {message}", began.elapsed().as_secs_f64());
        anyhow::ensure!(is(&stalled, "Ready", "True") && is(&stalled, "Reconciling", "False"), "{:?}", stalled.status);
        anyhow::ensure!(matches!(&*reason, "ImagePullBackOff" | "ErrImagePull"), "the pod's own reason: {reason}: {message}");
        let back = json!({"spec": {"container": {"image": "ghcr.io/mcpfleet/sandbox-server:0.1.0"}}});
        space.edit::<McpServer>("s", back).await?;
        space.until::<McpServer>("s", "well again", |server| serves(server, "1/1") && is(server, "Stalled", "False")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_container_that_restarts_is_back_as_soon_as_it_answers_and_opens_no_circuit() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 1, 10)).await?;
        let url =
            space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?.status.and_then(|status| status.url);
        settled(&url.context("it has one")?).await?;
        let openings = |server: &McpServer| {
            server.status.as_ref().and_then(|status| status.circuit.as_ref()).map(|circuit| circuit.openings)
        };
        let before = space.api::<McpServer>().get("s").await?;
        let pod = server_pods(&space, "s").await?.remove(0);
        let (pod, address) = (pod.name_any(), pod.status.and_then(|status| status.pod_ip).context("it has an address")?);
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_millis(500)).build()?;
        // The kubelet waits ten seconds before it starts the container for the second time.
        for time in 1..=2 {
            signal(&space, &pod, "KILL")?;
            while answers(&client, &format!("http://{address}:8080/mcp")).await {}
            arrives(&space, &pod, &address, |pod| restarts(pod) == time).await?;
            space.until::<McpServer>("s", "1/1 again", |server| serves(server, "1/1")).await?;
        }
        let after = space.api::<McpServer>().get("s").await?;
        anyhow::ensure!(
            circuit(&after) == Some(CircuitState::Closed) && openings(&after) == openings(&before),
            "{:?}",
            after.status
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn kill_switches_work_whatever_else_is_wrong() {
    with_space(|space| async move {
        install(&space).await?;
        space.secret("inputs", &[("k", "v")]).await?;
        let mut server = sqlite("s", 1, 5);
        server["spec"]["env"] = json!([{"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "inputs", "key": "k"}}}]);
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        let secrets = space.api::<k8s_openapi::api::core::v1::Secret>();
        secrets.delete("inputs", &kube::api::DeleteParams::default()).await?;
        let missing = space.until::<McpServer>("s", "what is missing", |server| is(server, "Stalled", "True")).await?;
        anyhow::ensure!(is(&missing, "Ready", "True"), "its pod serves on: {:?}", missing.status);

        space.edit::<McpServer>("s", json!({"spec": {"circuitBreaker": {"force": "Open"}}})).await?;
        space.until::<McpServer>("s", "forced open", |server| circuit(server) == Some(CircuitState::Open)).await?;
        space.edit::<McpServer>("s", json!({"spec": {"circuitBreaker": {"force": null}}})).await?;
        space.until::<McpServer>("s", "in use again", |server| serves(server, "1/1")).await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space
            .until::<Deployment>("s-mcp", "no replicas", |deployment| {
                deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
            })
            .await?;
        Ok(())
    })
    .await;
}

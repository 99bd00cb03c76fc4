//! Servers that nobody calls: they come up, fall asleep, and then must cost nothing. What is claimed is checked, and not only printed.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Pod},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use operator::{
    conditions,
    crd::{McpServer, reason},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{NAMESPACE, create_all, requests, usage::Usage, world};

/// The operator's namespace, and what it is told of as its activator's (`--activator-service`, `--activator-wanted`).
const BESIDE: &str = "default";
const SERVICE: &str = "activator";
const WANTED: &str = "mcpfleet-wanted";

/// Without a call for so long they fall asleep: the least that the API allows.
const IDLE_SECONDS: u32 = 30;

/// Has so many come up and fall asleep, and looks at the operator for `rest` seconds after that.
pub async fn measure(client: &Client, servers: u32, pid: u32, rest: u64) -> Result<()> {
    activator(client).await?;
    let api: Api<McpServer> = Api::namespaced(client.clone(), NAMESPACE);
    let began = Instant::now();
    let all_sleep = tokio::spawn(world::until(api.clone(), servers, is_asleep));
    create_all(&api, (0..servers).map(server)).await?;
    let asleep = all_sleep.await?? - began;
    until_no_pods(client).await?;
    // The last status and the last Event are told by what follows them.
    sleep(Duration::from_secs(10)).await;

    let (since, before, probes) = (Timestamp::now(), Usage::of(pid)?, probes().await?);
    sleep(Duration::from_secs(rest)).await;
    let (usage, written) = (Usage::of(pid)?, requests::of_operator(since)?);
    let probes = self::probes().await? - probes;
    let pods = pods(client).await?;
    println!(
        "| asleep, {rest} s | {servers} | all asleep after {:.0} s | {pods} pods, {probes} probes, now {} MiB | {} | {} |",
        asleep.as_secs_f64(),
        resident(pid)?,
        usage.since(&before),
        written.told(1)
    );
    ensure!(pods == 0 && probes == 0, "{pods} pods and {probes} probes of servers that sleep");
    ensure!(written.writes() == 0, "servers that sleep were written: {}", written.told(1));
    let still = api.list(&ListParams::default()).await?.items.iter().filter(|server| is_asleep(server)).count();
    ensure!(still == servers as usize, "{still} of {servers} sleep");
    Ok(())
}

/// What the operator looks at of an activator: that there is one.
async fn activator(client: &Client) -> Result<()> {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "activator-1", "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.9.0.1"], "conditions": {"ready": true}}],
    }))?;
    Api::<EndpointSlice>::namespaced(client.clone(), BESIDE).create(&PostParams::default(), &slice).await?;
    let wanted: ConfigMap = serde_json::from_value(json!({"metadata": {"name": WANTED}}))?;
    Api::<ConfigMap>::namespaced(client.clone(), BESIDE).create(&PostParams::default(), &wanted).await?;
    Ok(())
}

fn server(n: u32) -> Result<McpServer> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer",
        "metadata": {"name": format!("server-{n}"), "namespace": NAMESPACE},
        // Its image is one that tells its calls.
        "spec": {
            "container": {"image": "example.com/sandbox-server:1"},
            "autoscaling": {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": IDLE_SECONDS},
        },
    }))?)
}

fn is_asleep(server: &McpServer) -> bool {
    let conditions = server.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True" && ready.reason == reason::ASLEEP)
}

async fn pods(client: &Client) -> Result<usize> {
    Ok(Api::<Pod>::namespaced(client.clone(), NAMESPACE).list_metadata(&ListParams::default()).await?.items.len())
}

async fn until_no_pods(client: &Client) -> Result<()> {
    let gone = async {
        while pods(client).await? > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_mins(2), gone).await.context("the pods do not go")?
}

/// Probes that the operator has made, of whatever outcome.
async fn probes() -> Result<u64> {
    let text = reqwest::get("http://127.0.0.1:9090/metrics").await?.error_for_status()?.text().await?;
    let verdicts = text.lines().filter(|line| line.starts_with("mcpfleet_probe_verdicts_total"));
    Ok(verdicts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

/// Memory in use now, in MiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse::<u64>()? / 1_024)
}

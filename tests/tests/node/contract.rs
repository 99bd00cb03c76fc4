//! Proof before traffic: a version with other tools stays out of the Service, and a pod that answers gets in at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod},
    },
};
use kube::ResourceExt;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{conditions, crd::McpServer};
use serde_json::{Value, json};

use crate::{
    arrival::arrives,
    drills::serves,
    outage::call_until,
    rollouts::{roll, settled},
    setup::{in_service, install, server_pods, sqlite},
};

/// How long a rollout must stay stalled: several probes of each pod.
const STALL: Duration = Duration::from_secs(6);
/// A SQLite database without a table: a page of 512 bytes. <https://sqlite.org/fileformat.html>
fn database() -> Vec<u8> {
    let mut page = vec![0; 512];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    // Page size, rollback journal, payload fractions, change counter, pages, schema format, UTF-8, "valid for"; an empty leaf.
    for (at, value) in [
        (16, 2),
        (18, 1),
        (19, 1),
        (21, 64),
        (22, 32),
        (23, 32),
        (27, 1),
        (31, 1),
        (47, 4),
        (59, 1),
        (95, 1),
        (100, 13),
        (105, 2),
    ] {
        page[at] = value;
    }
    page
}

/// The tools contract's condition, if it has this status: its message.
fn tools_accepted<'a>(server: &'a McpServer, status: &str) -> Option<&'a str> {
    let found = conditions::find(&server.status.as_ref()?.conditions, "ToolsAccepted")?;
    (found.status == status).then_some(found.message.as_str())
}

fn addresses<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<String> {
    pods.into_iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect()
}

/// The server's pods that are not on their way out: those of the rollout before may still be.
async fn standing(space: &Space) -> anyhow::Result<Vec<Pod>> {
    let pods = server_pods(space, "s").await?;
    Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

/// Waits until there are no more pods than these: those of a former template end.
pub async fn only(space: &Space, pods: usize) -> anyhow::Result<()> {
    let over = async {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while server_pods(space, "s").await?.len() > pods {
            look.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), over).await.context("pods of the former template do not end")?
}

async fn accepted_list(space: &Space) -> anyhow::Result<Value> {
    let kept = space.api::<ConfigMap>().get("s-mcp-tools").await?.data.context("the accepted list is kept")?;
    Ok(serde_json::from_str(&kept["tools.json"])?)
}

#[tokio::test]
async fn a_version_with_other_tools_stalls_at_its_first_pod_until_they_are_accepted() {
    with_space(|space| async move {
        install(&space).await?;
        let file = json!({"metadata": {"name": "db"}, "binaryData": {"sandbox.db": ByteString(database())}});
        space.create::<ConfigMap>(file).await?;
        let mut server = sqlite("s", 2, 2);
        server["spec"]["tools"] = json!({"policy": "Enforce"});
        server["spec"]["volumes"] = json!([{"name": "db", "configMap": {"name": "db"}}]);
        server["spec"]["volumeMounts"] = json!([{"name": "db", "mountPath": "/data"}]);
        space.create::<McpServer>(server).await?;
        let first = space
            .until::<McpServer>("s", "2/2", |server| serves(server, "2/2") && tools_accepted(server, "True").is_some())
            .await?
            .status
            .context("it has one")?;
        let digest = first.tools.context("it offers tools")?.digest;
        // What a pod must offer is in its template: pods are made anew.
        roll(&space, "the accepted digest", json!({"tools": {"digest": digest}})).await?;
        let old = addresses(&standing(&space).await?);

        // The rollout before is not what is looked at here: its last pods serve on for some seconds, and end.
        only(&space, 2).await?;
        let url = first.url.context("it has one")?;
        settled(&url).await?;
        let done = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let client = tokio::spawn(call_until(Arc::clone(&done), Arc::clone(&failures), url));

        // The new version only reads: the tools that write are gone.
        let read_only = json!(["serve", "--read-only", "--db", "/data/sandbox.db", "--listen", "0.0.0.0:8080"]);
        space.edit::<McpServer>("s", json!({"spec": {"container": {"args": read_only}}})).await?;
        let stalled = space.until::<McpServer>("s", "other tools", |server| tools_accepted(server, "False").is_some()).await?;
        let told = tools_accepted(&stalled, "False").context("it is False")?.to_owned();
        println!("told: {told}");
        anyhow::ensure!(told.contains("removed: ") && told.contains("create_table"), "{told}");
        anyhow::ensure!(!told.contains("added: "), "{told}");

        let until = Instant::now() + STALL;
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while Instant::now() < until {
            look.tick().await;
            let pods = standing(&space).await?;
            anyhow::ensure!(pods.len() == 3, "a rollout that stalls has one new pod beside two: {}", pods.len());
            anyhow::ensure!(old.is_subset(&addresses(&pods)), "an old pod went");
            let serving: BTreeSet<_> = in_service(&space, "s-mcp").await?.into_iter().collect();
            anyhow::ensure!(serving == old, "in service: {serving:?}, the old version: {old:?}");
        }
        let stalled = space.api::<McpServer>().get("s").await?;
        anyhow::ensure!(serves(&stalled, "2/2"), "{:?}", stalled.status);
        let none_failed = |when: &str| {
            let failed = failures.lock().unwrap();
            anyhow::ensure!(failed.is_empty(), "{when}, {} calls failed: {failed:#?}", failed.len());
            anyhow::Ok(())
        };
        none_failed("while it was stalled")?;
        println!("stalled for {} s: no call failed", STALL.as_secs());
        let kept = accepted_list(&space).await?;
        anyhow::ensure!(kept["digest"] == digest.as_str() && kept["tools"].get("create_table").is_some(), "{kept}");

        // As the message says.
        let offered = told.rsplit(' ').next().context("it ends in the digest")?.to_owned();
        space.edit::<McpServer>("s", json!({"spec": {"tools": {"digest": offered}}})).await?;
        let accepted = Instant::now();
        space
            .until::<Deployment>("s-mcp", "the new version", |deployment| {
                let status = deployment.status.clone().unwrap_or_default();
                (status.updated_replicas, status.ready_replicas, status.replicas) == (Some(2), Some(2), Some(2))
            })
            .await?;
        println!("accepted: the rollout was over after {:.1} s", accepted.elapsed().as_secs_f64());
        space
            .until::<McpServer>("s", "the new tools accepted", |server| {
                serves(server, "2/2") && tools_accepted(server, "True").is_some()
            })
            .await?;
        // The last old pods finish what they were asked.
        only(&space, 2).await?;
        done.store(true, Ordering::Relaxed);
        let calls = client.await??;
        none_failed("until the new version was in")?;
        println!("{calls} calls, none failed");
        let kept = accepted_list(&space).await?;
        anyhow::ensure!(kept["digest"] == offered.as_str() && kept["tools"].get("create_table").is_none(), "{kept}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_gate_of_a_new_pod_opens_within_two_seconds_of_its_first_answer() {
    with_space(|space| async move {
        install(&space).await?;
        // An interval that would not do: it is the start of a pod that has it probed.
        space.create::<McpServer>(sqlite("s", 1, 60)).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        for replicas in 2..=3 {
            let known: Vec<_> = server_pods(&space, "s").await?.iter().filter_map(ResourceExt::uid).collect();
            space.edit::<McpServer>("s", json!({"spec": {"replicas": replicas}})).await?;
            let new = async {
                let mut look = tokio::time::interval(Duration::from_millis(20));
                loop {
                    look.tick().await;
                    let pods = server_pods(&space, "s").await?;
                    let mut new = pods.iter().filter(|pod| !known.contains(&pod.uid().unwrap_or_default()));
                    if let Some((pod, address)) = new.find_map(|pod| Some((pod, addresses([pod]).pop_first()?))) {
                        return anyhow::Ok((pod.name_any(), address));
                    }
                }
            };
            let (pod, address) = tokio::time::timeout(Duration::from_mins(1), new).await.context("there is no new pod")??;
            arrives(&space, &pod, &address, |_| true).await?;
        }
        Ok(())
    })
    .await;
}

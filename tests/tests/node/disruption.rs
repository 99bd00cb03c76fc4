//! A drain takes a server's pods one after the other: with two of them, no call fails.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::EvictParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::McpServer;

use crate::{
    drills::serves,
    outage::call_until,
    rollouts::settled,
    setup::{install, server_pods, sqlite},
};

const PATIENCE: Duration = Duration::from_mins(2);

/// Evicts a pod as `kubectl drain` does: again and again, until the budget lets it go. (kube's client asks again by itself, too.)
async fn evict(space: &Space, pod: &str) -> anyhow::Result<()> {
    let evicted = async {
        let mut look = tokio::time::interval(Duration::from_millis(500));
        loop {
            look.tick().await;
            match space.api::<Pod>().evict(pod, &EvictParams::default()).await {
                Ok(_) => return anyhow::Ok(()),
                Err(kube::Error::Api(status)) if status.code == 429 => {}
                Err(error) => return Err(error.into()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, evicted).await.context("the budget never lets the pod go")?
}

/// Pods that are not on their way out, and in service.
async fn standing(space: &Space) -> anyhow::Result<usize> {
    let pods = server_pods(space, "s").await?;
    let ready = |pod: &&Pod| {
        let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        pod.metadata.deletion_timestamp.is_none()
            && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    Ok(pods.iter().filter(ready).count())
}

#[tokio::test]
async fn a_drain_of_two_pods_waits_for_the_first_to_be_replaced_and_costs_no_call() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 2, 3)).await?;
        let told = space.until::<McpServer>("s", "2/2", |server| serves(server, "2/2")).await?;
        let url = told.status.and_then(|status| status.url).context("it has one")?;
        settled(&url).await?;
        let done = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let client = tokio::spawn(call_until(Arc::clone(&done), Arc::clone(&failures), url));

        for pod in server_pods(&space, "s").await? {
            evict(&space, &pod.name_any()).await?;
            anyhow::ensure!(standing(&space).await? > 0, "the last pod was let go");
        }
        space.until::<McpServer>("s", "2/2 again", |server| serves(server, "2/2")).await?;
        done.store(true, Ordering::Relaxed);
        let calls = client.await??;
        let failed = failures.lock().unwrap();
        anyhow::ensure!(calls > 0 && failed.is_empty(), "{} of {calls} calls failed: {failed:#?}", failed.len());
        println!("{calls} calls, none failed");
        Ok(())
    })
    .await;
}

//! How much is written: measured from the API server's audit log.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Service},
    jiff::Timestamp,
};
use kube::api::ListParams;
use mcpfleet_tests::{
    audit,
    cluster::{is_told, with_space},
};
use operator::crd::McpServer;
use serde_json::json;

const SERVERS: usize = 100;
/// A Deployment, a Service and a NetworkPolicy.
const CHILDREN: usize = 3;
/// How long nothing may be written afterwards.
const QUIET: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_hundred_servers_at_once_take_few_writes_and_then_none() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        stream::iter(0..SERVERS)
            .map(|number| {
                let space = space.clone();
                async move {
                    let name = format!("s-{number}");
                    let server = json!({"metadata": {"name": name}, "spec": {"container": {"image": "a/b:1"}}});
                    space.create::<McpServer>(server).await
                }
            })
            .buffer_unordered(20)
            .try_collect::<Vec<_>>()
            .await?;
        let applied = Instant::now();
        let all = ListParams::default();
        loop {
            let deployments = space.api::<Deployment>().list_metadata(&all).await?.items.len();
            let services = space.api::<Service>().list_metadata(&all).await?.items.len();
            let told = space.api::<McpServer>().list(&all).await?.items.iter().filter(|server| is_told(*server)).count();
            if [deployments, services, told] == [SERVERS; 3] {
                break;
            }
            anyhow::ensure!(
                applied.elapsed() < Duration::from_mins(1),
                "{deployments} Deployments, {services} Services, {told} statuses after a minute"
            );
        }
        let writes = audit::writes(&space.name)?;
        let bound = SERVERS * (CHILDREN + 2);
        anyhow::ensure!(writes.len() <= bound, "{} writes, at most {bound}: {:?}", writes.len(), audit::summary(&writes));

        // The one place where time itself is what is tested.
        let rested = Timestamp::now();
        tokio::time::sleep(QUIET).await;
        let later = audit::writes_since(&space.name, rested)?;
        anyhow::ensure!(later.is_empty(), "written at rest: {:?}", audit::summary(&later));
        println!("{} servers: {} writes ({:?}), then none in {QUIET:?}", SERVERS, writes.len(), audit::summary(&writes));
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_starts_anew_writes_nothing() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        for number in 0..10 {
            let server = json!({"metadata": {"name": format!("s-{number}")}, "spec": {
                "container": {"image": "a/b:1"},
                "resources": {"requests": {"cpu": "0.1", "memory": "1024Mi"}, "limits": {"cpu": 1}},
                "env": [{"name": "EMPTY", "value": ""}],
            }});
            space.create::<McpServer>(server).await?;
        }
        for number in 0..10 {
            space.until::<McpServer>(&format!("s-{number}"), "a status", is_told).await?;
        }
        operator.kill().await;
        let killed = Timestamp::now();

        let operator = space.operator().await?;
        operator.until_passes(10).await?;
        let later = audit::writes_since(&space.name, killed)?;
        anyhow::ensure!(later.is_empty(), "written anew: {:?}", audit::summary(&later));
        operator.stop().await
    })
    .await;
}

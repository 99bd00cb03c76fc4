//! As many pods as the calls in flight ask for: with pods that tests write, and servers that say how many calls they have.

use std::time::Duration;

use futures::future;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod, events::v1::Event},
    jiff::Timestamp,
};
use kube::{ResourceExt, api::ListParams};
use mcpfleet_tests::{
    audit,
    cluster::{Operator, Space, with_space},
    faults::Mortal,
    mcp::FakeServer,
    pods,
};
use operator::crd::{McpServer, autoscaling::AutoscalingStatus, reason};
use serde_json::json;

use crate::reconcile::ready_is;

/// An operator that scales down when ten seconds have not needed a pod.
fn operator(space: &Space) -> anyhow::Result<Operator> {
    let config = operator::config::RunConfig { scale_down_seconds: 10, ..space.config()? };
    Ok(space.start(space.client.clone(), config))
}

fn told(server: &McpServer) -> Option<&AutoscalingStatus> {
    server.status.as_ref()?.autoscaling.as_ref()
}

fn desired(server: &McpServer) -> Option<u32> {
    told(server).map(|told| told.desired)
}

async fn pods_wanted(space: &Space, name: &str, number: i32) -> anyhow::Result<Deployment> {
    let wanted = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(number);
    space.until::<Deployment>(name, &format!("{number} pods wanted"), wanted).await
}

/// A pod that tells so many calls.
async fn pod(space: &Space, name: &str, calls: Option<u32>) -> anyhow::Result<FakeServer> {
    let fake = FakeServer::start().await?;
    fake.set_calls(calls);
    pods::run(space, "s", name, fake.address).await?;
    space.until::<Pod>(name, "the gate", |pod| pods::gate(pod) == Some(true)).await?;
    Ok(fake)
}

async fn server(space: &Space) -> anyhow::Result<McpServer> {
    let stdio = json!({"command": "npx", "args": ["a@1.0.0"]});
    let spec = json!({"stdio": stdio, "replicas": 7, "autoscaling": {"maxReplicas": 3, "callsInFlight": 4}});
    space.create(json!({"metadata": {"name": "s"}, "spec": spec})).await
}

#[tokio::test]
async fn pods_follow_the_calls_up_at_once_and_down_one_by_one_and_it_is_told() {
    with_space(|space| async move {
        let operator = operator(&space)?;
        server(&space).await?;
        pods_wanted(&space, "s-mcp", 1).await?;
        let first = pod(&space, "s-1", Some(12)).await?;

        let raised = space.until::<McpServer>("s", "3 pods", |server| desired(server) == Some(3)).await?;
        let why = told(&raised).unwrap();
        assert!(why.reason.starts_with("12 calls in flight, and one pod is to have 4"), "{why:?}");
        assert!(why.reason.ends_with("spec.replicas is 7, and is not looked at"), "{why:?}");
        assert!(why.last_scale.is_some());
        assert_eq!(raised.spec.replicas, 7, "the spec is nobody's but its owner's");
        pods_wanted(&space, "s-mcp", 3).await?;
        let metrics = operator.get("/metrics").await?;
        let of = format!("{{name=\"s\",namespace=\"{}\"}}", space.name);
        assert!(metrics.contains(&format!("mcpfleet_server_desired_replicas{of} 3")), "{metrics}");
        assert!(metrics.contains(&format!("mcpfleet_server_calls_in_flight{of} 12")), "{metrics}");

        // Two more come, and the calls go: the pod that still has some goes last.
        let (second, third) = (pod(&space, "s-2", Some(0)).await?, pod(&space, "s-3", Some(1)).await?);
        space.until::<McpServer>("s", "all pods", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        first.set_calls(Some(2));
        space.until::<McpServer>("s", "2 pods", |server| desired(server) == Some(2)).await?;
        pods_wanted(&space, "s-mcp", 2).await?;
        let cost = |pod: &Pod| pod.annotations().get("controller.kubernetes.io/pod-deletion-cost").cloned();
        for (name, costs) in [("s-1", "2"), ("s-2", "0"), ("s-3", "1")] {
            assert_eq!(cost(&space.api::<Pod>().get(name).await?).as_deref(), Some(costs), "{name}");
        }
        space.api::<Pod>().delete("s-2", &kube::api::DeleteParams::default()).await?;
        drop(second);
        space.until::<McpServer>("s", "1 pod", |server| desired(server) == Some(1)).await?;
        drop(third);

        // The last of them comes a moment after the status.
        let told = async {
            let mut look = tokio::time::interval(Duration::from_millis(50));
            loop {
                look.tick().await;
                let events = space.api::<Event>().list(&ListParams::default()).await?.items;
                let scaled = events.iter().filter(|event| event.reason.as_deref() == Some("Scaled"));
                let note = |event: &Event| event.note.as_deref()?.split(':').next().map(str::to_owned);
                let mut notes: Vec<_> = scaled.filter_map(note).collect();
                notes.sort();
                if notes == ["scaled from 1 to 3", "scaled from 2 to 1", "scaled from 3 to 2"] {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await??;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn pods_that_do_not_tell_their_calls_are_not_scaled_and_it_says_which() {
    with_space(|space| async move {
        let operator = operator(&space)?;
        server(&space).await?;
        let silent = pod(&space, "s-1", None).await?;
        let held =
            |server: &McpServer| told(server).is_some_and(|told| told.reason.contains("held: pod s-1 does not tell its calls"));
        let server = space.until::<McpServer>("s", "why nothing is scaled", held).await?;
        assert_eq!(desired(&server), Some(1));
        silent.set_calls(Some(9));
        space.until::<McpServer>("s", "3 pods", |server| desired(server) == Some(3)).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn at_rest_nothing_is_written_and_an_operator_that_starts_anew_goes_on() {
    with_space(|space| async move {
        let operator = operator(&space)?;
        server(&space).await?;
        let one = pod(&space, "s-1", Some(12)).await?;
        space.until::<McpServer>("s", "3 pods", |server| desired(server) == Some(3)).await?;
        let others = (pod(&space, "s-2", Some(0)).await?, pod(&space, "s-3", Some(0)).await?);
        let all = |server: &McpServer| server.status.as_ref().is_some_and(|status| status.pods.as_deref() == Some("3/3"));
        space.until::<McpServer>("s", "3 pods in service", all).await?;
        operator.stop().await?;

        let stopped = Timestamp::now();
        let operator = self::operator(&space)?;
        // Calls come and go, and what is needed stays: the one place where time itself is what is tested.
        for calls in [11, 10, 9, 12, 11] {
            tokio::time::sleep(Duration::from_secs(3)).await;
            one.set_calls(Some(calls));
        }
        let later = audit::writes_since(&space.name, stopped)?;
        anyhow::ensure!(later.is_empty(), "written at rest: {:?}", audit::summary(&later));
        let metrics = operator.get("/metrics").await?;
        assert!(
            metrics.lines().any(|line| line.starts_with("mcpfleet_server_calls_in_flight{")),
            "the pods are asked: {metrics}"
        );
        drop(others);
        operator.stop().await
    })
    .await;
}

/// The writes of one change of the number: what pods cost, the Deployment, the status, the Event.
const WRITES: isize = 4;

#[tokio::test]
async fn an_operator_that_dies_at_any_write_of_a_change_is_followed_by_one_that_comes_to_the_same_number() {
    let all = (1..=WRITES).map(|write| async move {
        with_space(|space| async move {
            let mortal = Mortal::default();
            let config = operator::config::RunConfig { scale_down_seconds: 10, ..space.config()? };
            let first = space.start(mortal.client().await?, config);
            server(&space).await?;
            pods_wanted(&space, "s-mcp", 1).await?;
            let one = pod(&space, "s-1", Some(0)).await?;
            space.until::<McpServer>("s", "1 pod", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
            mortal.dies_at(write);
            one.set_calls(Some(12));
            let died = tokio::time::timeout(Duration::from_secs(15), mortal.died()).await.is_ok();
            anyhow::ensure!(died || write == WRITES, "an operator makes {write} writes to scale");
            first.kill().await;

            // Up at once, whatever was written of it; down again by the one that follows, which dies on the way, too.
            let mortal = Mortal::default();
            let config = operator::config::RunConfig { scale_down_seconds: 10, ..space.config()? };
            let second = space.start(mortal.client().await?, config);
            pods_wanted(&space, "s-mcp", 3).await?;
            space.until::<McpServer>("s", "3 pods", |server| desired(server) == Some(3)).await?;
            let _others = (pod(&space, "s-2", Some(0)).await?, pod(&space, "s-3", Some(0)).await?);
            let all = |server: &McpServer| server.status.as_ref().is_some_and(|status| status.pods.as_deref() == Some("3/3"));
            space.until::<McpServer>("s", "3 pods in service", all).await?;
            one.set_calls(Some(7));
            mortal.dies_at(write);
            // One pod after the other: each tells what its end costs before that.
            let died = tokio::time::timeout(Duration::from_secs(25), mortal.died()).await.is_ok();
            anyhow::ensure!(died, "an operator makes {write} writes to scale down");
            second.kill().await;
            let third = operator(&space)?;
            pods_wanted(&space, "s-mcp", 2).await?;
            space.until::<McpServer>("s", "2 pods", |server| desired(server) == Some(2)).await?;
            third.stop().await
        })
        .await;
    });
    future::join_all(all).await;
}

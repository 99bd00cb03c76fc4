//! A server that falls asleep while its operator dies at any of the writes of that, or while the API server is away: whoever calls in that
//! moment is answered, once, and what was begun comes to its end. Kubernetes' controllers are the test's.

use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, future, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
    discovery::v1::EndpointSlice,
};
use kube::api::{DeleteParams, ListParams};
use mcpfleet_tests::{
    cluster::{Space, with_space},
    faults::{Mortal, Way},
    mcp::FakeServer,
    pods,
};
use operator::crd::{McpServer, reason};
use reqwest::StatusCode;
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    activator::{Activator, message},
    asleep::{another_by, replicas, service_leads, with_activator},
    reconcile::ready_is,
};

/// Where the activator's pod is, as the API says.
const ACTIVATOR: &str = "10.9.0.1";
/// Clients that call at once.
const CALLERS: usize = 5;
/// What a client waits for an answer, with all its attempts.
const PATIENCE: Duration = Duration::from_secs(40);
/// The operator's writes as a server falls asleep, its Events among them, and some more: it need not come to all of them.
const WRITES: isize = 6;
/// How long the API server is away: longer than any of the two pauses before it asks again at first.
const AWAY: Duration = Duration::from_secs(5);

/// What Kubernetes does of the Deployment: a pod where one is wanted, which the Service leads to once it is open, and none where none is.
/// Whoever was called stays for as long as the test: a pod that goes serves on for a moment.
async fn kubernetes(space: &Space, called: &Mutex<Vec<FakeServer>>) -> anyhow::Result<()> {
    for number in 1.. {
        let pod = format!("s-{number}");
        space.until::<Deployment>("s-mcp", "a pod wanted", |found| replicas(found) == Some(1)).await?;
        let fake = FakeServer::start().await?;
        fake.set_calls(Some(0));
        let address = fake.address;
        called.lock().await.push(fake);
        pods::run(space, "s", &pod, address).await?;
        space.until::<Pod>(&pod, "its gate", |pod| pods::gate(pod) == Some(true)).await?;
        service_leads(space, "s", address).await?;
        space.until::<Deployment>("s-mcp", "no pod wanted", |found| replicas(found) == Some(0)).await?;
        space.api::<Pod>().delete(&pod, &DeleteParams::default()).await?;
        space.api::<EndpointSlice>().delete("s-mcp-abcde", &DeleteParams::default()).await?;
    }
    Ok(())
}

/// The addresses in the Service.
async fn in_service(space: &Space) -> anyhow::Result<Vec<String>> {
    let of_service = ListParams::default().labels("kubernetes.io/service-name=s-mcp");
    let slices = space.api::<EndpointSlice>().list(&of_service).await?.items;
    let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
    Ok(ready.flat_map(|endpoint| endpoint.addresses).collect())
}

/// Calls by the Service until it is answered: what was not taken is called again.
async fn calls(space: &Space, activator: &Activator) -> anyhow::Result<()> {
    let host = format!("s-mcp.{}.svc:8080", space.name);
    let answered = async {
        for attempt in 0.. {
            let places = in_service(space).await?;
            anyhow::ensure!(!places.is_empty(), "there is nobody in the Service");
            let place = &places[attempt % places.len()];
            let address = if place == ACTIVATOR { activator.address } else { format!("{place}:8080").parse()? };
            match message(address, &host, "tools/call").send().await {
                Ok(answer) if answer.status() == StatusCode::OK => return Ok(()),
                // It says that it was not made, and asks to come again.
                Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {}
                Ok(answer) => anyhow::bail!("{}: {}", answer.status(), answer.text().await?),
                Err(_) => {}
            }
            // Callers without a pause would use up the ports of this machine.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("no attempts are left")
    };
    tokio::time::timeout(PATIENCE, answered).await.context("a call is not answered")?
}

/// Makes the server `s`, which sleeps when nobody has called it for 30 s.
async fn server(space: &Space) -> anyhow::Result<()> {
    let autoscaling = json!({"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 30});
    space
        .create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {
            "container": {"image": "a/sandbox-server:1"}, "autoscaling": autoscaling, "health": {"intervalSeconds": 1, "timeoutSeconds": 1},
        }}))
        .await?;
    Ok(())
}

/// It is up, and what it says is kept.
async fn is_up(space: &Space) -> anyhow::Result<()> {
    space.until::<McpServer>("s", "Available", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
    space.until::<ConfigMap>("s-mcp-asleep", "what is said for it", |_| true).await?;
    Ok(())
}

async fn all_call(space: &Space, activator: &Activator) -> anyhow::Result<()> {
    future::try_join_all((0..CALLERS).map(|_| calls(space, activator))).await.map(drop)
}

/// What it must come to when all are answered.
async fn ends_well(space: &Space, activator: &Activator, called: &Mutex<Vec<FakeServer>>) -> anyhow::Result<()> {
    let made = called.lock().await.iter().map(FakeServer::called).sum::<usize>();
    anyhow::ensure!(made == CALLERS, "each call once: {made} were made");
    // Whoever comes later wakes it, if it came to sleep.
    calls(space, activator).await?;
    space.until::<McpServer>("s", "awake", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
    for slice in ["s-mcp-asleep-ipv4", "s-mcp-awake-ipv4-8080"] {
        space.until_gone::<EndpointSlice>(slice).await?;
    }
    Ok(())
}

/// Whether the operator died at this write.
async fn dies_at(space: &Space, write: isize) -> anyhow::Result<bool> {
    with_activator(space, ACTIVATOR).await?.kill().await;
    let mortal = Mortal::default();
    let first = another_by(space, mortal.client().await?).await?;
    let activator = Activator::of(space, 30).await?;
    server(space).await?;
    let called = Mutex::new(Vec::new());
    let falls = async {
        is_up(space).await?;
        mortal.dies_at(write);
        let asleep = space.until::<McpServer>("s", "Asleep", |server| ready_is(server, "True", reason::ASLEEP));
        tokio::select! {
            () = mortal.died() => {}
            asleep = asleep => drop(asleep?),
        }
        // Its successor comes while they call, as the next one that takes the lead.
        let succession = async {
            first.kill().await;
            another_by(space, space.client.clone()).await
        };
        let ((), successor) = tokio::try_join!(all_call(space, &activator), succession)?;
        ends_well(space, &activator, &called).await?;
        successor.stop().await?;
        anyhow::Ok(mortal.is_dead())
    };
    tokio::select! {
        died = falls => died,
        ended = kubernetes(space, &called) => Err(ended.err().context("it goes on for ever")?),
    }
}

#[tokio::test]
async fn an_operator_that_dies_at_any_of_its_writes_as_a_server_falls_asleep_leaves_nobody_unanswered() {
    let died = stream::iter(1..=WRITES)
        .map(|write| {
            with_space(async move |space: Space| dies_at(&space, write).await.with_context(|| format!("dead at write {write}")))
        })
        .buffer_unordered(WRITES.unsigned_abs())
        .filter(|died| future::ready(*died))
        .count()
        .await;
    println!("killed at {died} writes as it fell asleep");
    assert!(died >= 4, "what its pod costs, the slice, the Deployment, and the status");
}

/// How far it is on its way to sleep.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Its Service leads to the activator, too.
    StoodIn,
    /// No pod is wanted.
    Unwanted,
    /// It is told.
    Told,
}

impl Step {
    async fn reached(self, space: &Space) -> anyhow::Result<()> {
        match self {
            Self::StoodIn => drop(space.until::<EndpointSlice>("s-mcp-asleep-ipv4", "the activator", |_| true).await?),
            Self::Unwanted => drop(space.until::<Deployment>("s-mcp", "no pods", |found| replicas(found) == Some(0)).await?),
            Self::Told => {
                space.until::<McpServer>("s", "Asleep", |server| ready_is(server, "True", reason::ASLEEP)).await?;
            }
        }
        Ok(())
    }
}

/// It has come to sleep, or was woken: whoever called its last pod woke nobody.
async fn comes_to_rest(space: &Space) -> anyhow::Result<()> {
    let rests = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            let server = space.api::<McpServer>().get("s").await?;
            let stood_in = space.api::<EndpointSlice>().get_opt("s-mcp-asleep-ipv4").await?.is_some();
            let is_asleep = ready_is(&server, "True", reason::ASLEEP) && in_service(space).await? == [ACTIVATOR];
            if is_asleep || !stood_in && ready_is(&server, "True", reason::AVAILABLE) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, rests).await.context("it neither sleeps nor is awake")?
}

/// The API server is away from both programs for a while, from this step on.
async fn away_at(space: &Space, step: Step) -> anyhow::Result<()> {
    with_activator(space, ACTIVATOR).await?.kill().await;
    let way = Way::open().await?;
    let client = way.client()?;
    let operator = another_by(space, client.clone()).await?;
    let activator = Activator::start(space, &client, 30).await?;
    server(space).await?;
    let called = Mutex::new(Vec::new());
    let falls = async {
        is_up(space).await?;
        step.reached(space).await?;
        way.cut();
        let returns = async {
            tokio::time::sleep(AWAY).await;
            way.mend();
            anyhow::Ok(())
        };
        tokio::try_join!(all_call(space, &activator), returns)?;
        comes_to_rest(space).await?;
        ends_well(space, &activator, &called).await?;
        operator.stop().await
    };
    tokio::select! {
        fell = falls => fell,
        ended = kubernetes(space, &called) => Err(ended.err().context("it goes on for ever")?),
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_as_a_server_falls_asleep_leaves_nobody_unanswered() {
    let all = [Step::StoodIn, Step::Unwanted, Step::Told].map(|step| {
        with_space(async move |space: Space| away_at(&space, step).await.with_context(|| format!("away at {step:?}")))
    });
    future::join_all(all).await;
}

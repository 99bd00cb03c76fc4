//! A wake in whose middle somebody is killed: the operator at each of its writes, the activator and the API server at each step. It ends
//! in the same state, and every call is answered, once.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use futures::{StreamExt, future, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{Client, api::ListParams};
use mcpfleet_tests::{
    cluster::{Operator, Space, with_space},
    faults::{Mortal, Way},
    mcp::FakeServer,
    pods,
};
use operator::crd::{McpServer, reason};
use reqwest::StatusCode;
use tokio::sync::Mutex;

use crate::{
    activator::{Activator, called, message},
    asleep::{WANTED, another_by, replicas, service_leads, with_sleeper},
    reconcile::ready_is,
};

/// Clients that call at once.
const CALLERS: usize = 5;
/// What a client waits for an answer, with all its attempts.
const PATIENCE: Duration = Duration::from_secs(40);

/// Calls until it is answered: what was not taken is called again.
async fn calls(space: &Space, activators: &[SocketAddr]) -> anyhow::Result<()> {
    let host = format!("s-mcp.{}.svc:8080", space.name);
    let answered = async {
        for activator in activators.iter().cycle() {
            match message(*activator, &host, "tools/call").send().await {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    let answer: serde_json::Value = answer.json().await?;
                    anyhow::ensure!(answer["result"]["content"][0]["text"] == "called", "{answer}");
                    return Ok(());
                }
                // It says that it was not made, and asks to come again.
                Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {}
                Ok(answer) => anyhow::bail!("{}: {}", answer.status(), answer.text().await?),
                // Nobody answered: as a client of a Service it comes to another one.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        anyhow::bail!("no activator")
    };
    tokio::time::timeout(PATIENCE, answered).await.context("a call is not answered")?
}

async fn all_call(space: &Space, activators: &[SocketAddr]) -> anyhow::Result<()> {
    future::try_join_all((0..CALLERS).map(|_| calls(space, activators))).await.map(drop)
}

/// How far a wake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The activator was called, and has told.
    Called,
    /// A pod is wanted.
    Wanted,
    /// The pod runs, and has not been asked yet.
    Runs,
    /// It is told where it answers.
    Answers,
}

const STEPS: [Step; 4] = [Step::Called, Step::Wanted, Step::Runs, Step::Answers];

impl Step {
    /// Brings the wake as far, in Kubernetes' stead.
    async fn reach(self, space: &Space, fake: &FakeServer) -> anyhow::Result<()> {
        match self {
            Self::Called => drop(space.until::<ConfigMap>(WANTED, "a call", |wanted| called(wanted) > 0).await?),
            Self::Wanted => drop(space.until::<Deployment>("s-mcp", "a pod wanted", |found| replicas(found) == Some(1)).await?),
            Self::Runs => drop(pods::run(space, "s", "s-1", fake.address).await?),
            Self::Answers => {
                space.until::<Pod>("s-1", "the gate", |pod| pods::gate(pod) == Some(true)).await?;
            }
        }
        Ok(())
    }
}

/// What it must come to, whatever happened: one pod, which is in service, and nothing left of the wake.
async fn ends_well(space: &Space, fake: &FakeServer) -> anyhow::Result<()> {
    service_leads(space, "s", fake.address).await?;
    space.until_gone::<EndpointSlice>("s-mcp-asleep-ipv4").await?;
    space.until_gone::<EndpointSlice>("s-mcp-awake-ipv4-8080").await?;
    let told = space.until::<McpServer>("s", "Available", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
    let desired = told.status.and_then(|status| status.autoscaling).map(|told| told.desired);
    anyhow::ensure!(desired == Some(1), "{desired:?} pods wanted");
    anyhow::ensure!(replicas(&space.api::<Deployment>().get("s-mcp").await?) == Some(1), "one pod");
    let of_kubernetes = space.api::<EndpointSlice>().list(&ListParams::default()).await?;
    let names: Vec<_> = of_kubernetes.items.iter().filter_map(|slice| slice.metadata.name.as_deref()).collect();
    anyhow::ensure!(names == ["activator-1", "s-mcp-abcde"], "{names:?}");
    Ok(())
}

/// One wake: `strike` is called at each step.
async fn wake<'s, F>(space: &'s Space, activators: &[SocketAddr], mut strike: impl FnMut(Step) -> F) -> anyhow::Result<FakeServer>
where
    F: Future<Output = anyhow::Result<()>> + 's,
{
    let fake = FakeServer::start().await?;
    fake.set_calls(Some(0));
    let wakes = async {
        for step in STEPS {
            step.reach(space, &fake).await.with_context(|| format!("{step:?}"))?;
            strike(step).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(all_call(space, activators), wakes)?;
    ends_well(space, &fake).await?;
    Ok(fake)
}

async fn kill(operator: &Mutex<Option<Operator>>) {
    if let Some(operator) = operator.lock().await.take() {
        operator.kill().await;
    }
}

/// The operator's writes of a wake, its Events among them, and some more: it need not come to all of them.
const WRITES: isize = 10;

/// Whether the operator died at this write.
async fn dies_at(space: &Space, write: isize) -> anyhow::Result<bool> {
    with_sleeper(space).await?.kill().await;
    let mortal = Mortal::default();
    let first = Mutex::new(Some(another_by(space, mortal.client().await?).await?));
    let activator = Activator::of(space, 30).await?;
    mortal.dies_at(write);
    // Its successor is there when it is dead, as the next one that takes the lead.
    let succession = async {
        mortal.died().await;
        kill(&first).await;
        another_by(space, space.client.clone()).await
    };
    let mut succession = std::pin::pin!(succession);
    let activators = [activator.address];
    let mut wake = std::pin::pin!(wake(space, &activators, |_| future::ok(())));
    let (fake, successor) = tokio::select! {
        fake = &mut wake => (fake?, None),
        successor = &mut succession => {
            let successor = successor?;
            (wake.await?, Some(successor))
        }
    };
    // One that died at the very end has a successor, too.
    let successor = match successor {
        None if mortal.is_dead() => Some(succession.await?),
        other => other,
    };
    anyhow::ensure!(fake.called() == CALLERS, "each call once: {} were made", fake.called());
    kill(&first).await;
    let died = successor.is_some();
    if let Some(successor) = successor {
        successor.stop().await?;
    }
    Ok(died)
}

#[tokio::test]
async fn an_operator_that_dies_at_any_of_its_writes_loses_no_call() {
    let died = stream::iter(1..=WRITES)
        .map(|write| {
            with_space(async move |space: Space| dies_at(&space, write).await.with_context(|| format!("dead at write {write}")))
        })
        .buffer_unordered(5)
        .filter(|died| future::ready(*died))
        .count()
        .await;
    println!("killed at {died} writes of a wake");
    assert!(died >= 5, "the Deployment, the gate, the slice, and the two statuses");
}

#[tokio::test]
async fn an_operator_that_is_killed_at_each_step_loses_no_call() {
    with_space(|space| async move {
        let operator = Mutex::new(Some(with_sleeper(&space).await?));
        let activator = Activator::of(&space, 30).await?;
        let (operator, within) = (&operator, &space);
        let fake = wake(&space, &[activator.address], |_| async move {
            kill(operator).await;
            *operator.lock().await = Some(another_by(within, within.client.clone()).await?);
            Ok(())
        })
        .await?;
        assert_eq!(fake.called(), CALLERS, "each call once");
        let last = operator.lock().await.take().context("one is left")?;
        last.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_activator_that_is_killed_at_each_step_loses_no_call() {
    let all = stream::iter(STEPS).map(|last| async move {
        with_space(|space| async move {
            let operator = with_sleeper(&space).await?;
            let (first, second) = tokio::try_join!(Activator::of(&space, 30), Activator::of(&space, 30))?;
            let activators = [first.address, second.address];
            let mut first = Some(first);
            // Those who called the first one come to the second one, as by a Service.
            let fake = wake(&space, &activators, |step| {
                first.take_if(|_| step == last);
                future::ok(())
            })
            .await
            .with_context(|| format!("killed at {last:?}"))?;
            // What it was just carrying may have been made without an answer, and what it held was not made.
            let made = fake.called();
            anyhow::ensure!(made == CALLERS || last == Step::Answers && made > CALLERS, "{made} calls of {CALLERS} were made");
            operator.stop().await
        })
        .await;
    });
    all.buffer_unordered(STEPS.len()).collect::<()>().await;
}

#[tokio::test]
async fn an_api_server_that_is_away_at_each_step_loses_no_call() {
    let all = stream::iter(STEPS).map(|away| async move {
        with_space(|space| async move {
            with_sleeper(&space).await?.kill().await;
            let way = Way::open().await?;
            let client: Client = way.client()?;
            let operator = another_by(&space, client.clone()).await?;
            let activator = Activator::start(&space, &client, 30).await?;
            let way = &way;
            let fake = wake(&space, &[activator.address], |step| async move {
                if step == away {
                    way.cut();
                    // Longer than any of them waits for its next attempt at first.
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    way.mend();
                }
                Ok(())
            })
            .await
            .with_context(|| format!("away at {away:?}"))?;
            assert_eq!(fake.called(), CALLERS, "each call once");
            operator.stop().await
        })
        .await;
    });
    all.buffer_unordered(STEPS.len()).collect::<()>().await;
}

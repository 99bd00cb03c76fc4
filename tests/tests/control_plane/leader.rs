//! The election by itself: how soon somebody leads again.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DeleteParams;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::leader::{Election, Lead};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const LEASE: &str = "lead";
/// One look, and the writes of the election. Without the look it would be ten seconds and more: what was left of the Lease.
const SOON: Duration = Duration::from_secs(4);

fn election(space: &Space, identity: &str) -> Election {
    let (client, namespace) = (space.client.clone(), space.name.clone());
    Election { client, namespace, lease: LEASE.into(), identity: identity.into() }
}

/// Stands, and tells who leads meanwhile.
fn stands(space: &Space, identity: &str) -> (JoinHandle<Option<Lead>>, watch::Receiver<Option<String>>) {
    let (told, leads) = watch::channel(None);
    let election = election(space, identity);
    let standing = tokio::spawn(async move {
        let standby = |leader: Option<&str>| drop(told.send_replace(leader.map(Into::into)));
        Lead::acquire(&election, &CancellationToken::new(), standby).await
    });
    (standing, leads)
}

async fn leads_soon(standing: JoinHandle<Option<Lead>>, since: Instant) -> anyhow::Result<Lead> {
    let lead = tokio::time::timeout(SOON, standing).await.context("nobody leads")??.context("it was not asked to stop")?;
    anyhow::ensure!(since.elapsed() < SOON, "after {:?}", since.elapsed());
    Ok(lead)
}

#[tokio::test]
async fn a_lease_that_is_given_back_is_taken_up_at_once() {
    with_space(|space| async move {
        let began = Instant::now();
        let first = leads_soon(stands(&space, "first").0, began).await?;
        let (second, mut leads) = stands(&space, "second");
        leads.wait_for(|leader| leader.as_deref() == Some("first")).await?;
        // By then it sleeps until the Lease's end as it has read it; if it did not yet, the rest shows less.
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.release().await;
        let second = leads_soon(second, Instant::now()).await?;
        let lease = space.api::<Lease>().get(LEASE).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        assert_eq!(holder.as_deref(), Some("second"), "nobody took it back");
        second.release().await;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_deleted_is_made_anew_by_whoever_waits() {
    with_space(|space| async move {
        // Whoever dies gives nothing back.
        drop(leads_soon(stands(&space, "first").0, Instant::now()).await?);
        let (second, mut leads) = stands(&space, "second");
        leads.wait_for(|leader| leader.as_deref() == Some("first")).await?;
        space.api::<Lease>().delete(LEASE, &DeleteParams::default()).await?;
        leads_soon(second, Instant::now()).await?.release().await;
        Ok(())
    })
    .await;
}

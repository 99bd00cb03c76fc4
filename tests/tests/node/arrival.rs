//! How long a pod that answers takes to be in use.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use mcpfleet_tests::cluster::Space;
use operator::names;

use crate::{outage::answers, setup::in_service};

/// From a pod's first answer to its open gate: ours.
const UNGATED: Duration = Duration::from_secs(2);
/// And to the pod in the Service: the kubelet and the EndpointSlice controller take a second each.
const IN_SERVICE: Duration = Duration::from_secs(5);
/// How often a pod is asked, and looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Whether the prober lets the pod into its Service.
pub fn gate_is_open(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == names::POD_GATE && condition.status == "True")
}

/// Waits for the first answer of the pod at this address, and from then on until its gate is open, and until it is in the Service of
/// the server `s`. What the pod must be to count (another run of its container, say) is for `which` to say.
pub async fn arrives(space: &Space, pod: &str, address: &str, which: impl Fn(&Pod) -> bool) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_millis(500)).build()?;
    let mut look = tokio::time::interval(LOOK);
    let arrival = async {
        while !answers(&client, &format!("http://{address}:8080/mcp")).await {
            look.tick().await;
        }
        let answered = Instant::now();
        loop {
            let found = space.api::<Pod>().get(pod).await?;
            if which(&found) && gate_is_open(&found) {
                break;
            }
            look.tick().await;
        }
        let gated = answered.elapsed();
        while !in_service(space, "s-mcp").await?.iter().any(|served| served == address) {
            look.tick().await;
        }
        anyhow::Ok((gated, answered.elapsed()))
    };
    let (gated, served) =
        tokio::time::timeout(Duration::from_mins(1), arrival).await.context("it does not come into service")??;
    println!("after its first answer, {pod} had its gate open in {gated:.2?} and was in service in {served:.2?}");
    ensure!(gated < UNGATED, "its gate opened after {gated:?}");
    ensure!(served < IN_SERVICE, "in service after {served:?}");
    Ok(())
}

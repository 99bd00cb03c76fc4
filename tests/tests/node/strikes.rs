//! What strikes the parts that everything depends on, in the middle of whatever they do: the operator, the activator, the API server.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use mcpfleet_tests::cluster::Space;

use crate::{
    processes::{self, Process, processes},
    setup::{OPERATOR_NAMESPACE, run},
};

/// How long a part may take to be back.
const PATIENCE: Duration = Duration::from_mins(2);

/// The pods beside the operator that have one of these components.
async fn pods_of(space: &Space, components: &str) -> anyhow::Result<(Api<Pod>, ListParams, Vec<Process>)> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
    let of = ListParams::default().labels(&format!("app.kubernetes.io/component in ({components})"));
    let uids: Vec<_> = pods.list(&of).await?.iter().filter_map(ResourceExt::uid).collect();
    let running = processes(|process| {
        let program = process.program();
        (program.ends_with("operator") || program.ends_with("bridge")) && uids.iter().any(|uid| process.is_of(uid))
    })?;
    Ok((pods, of, running))
}

/// Kills those that have one of these components (`operator`, `activator`), all at once. Others take their places at once: a container
/// that only ends would be started later each time.
pub async fn kill(space: &Space, components: &str) -> anyhow::Result<()> {
    let (pods, of, running) = pods_of(space, components).await?;
    processes::send(&running, "KILL")?;
    pods.delete_collection(&DeleteParams::default().grace_period(0), &of).await?;
    Ok(())
}

/// Stops them: they hear of nothing that happens from now on.
pub async fn stop(space: &Space, components: &str) -> anyhow::Result<()> {
    processes::send(&pods_of(space, components).await?.2, "STOP")
}

/// Waits until all of them are ready.
pub fn back() -> anyhow::Result<()> {
    run("kubectl", &["rollout", "status", "--namespace", OPERATOR_NAMESPACE, "--timeout=120s", "deployment"]).map(drop)
}

/// Kills the API server, and starts it again when `meanwhile` is over.
pub async fn without_api_server(meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let part = "kube-apiserver";
    let is_it = |process: &Process| process.program().ends_with(part) && process.has_our_network();
    processes::send(&processes(is_it)?, "KILL")?;
    meanwhile().await?;
    let state = PathBuf::from(std::env::var("MCPFLEET_STATE")?);
    let noted = state.join("exited").join(part);
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let back = async {
        // Its end is noted, and a note that stays says that the cluster is broken.
        while fs::remove_file(&noted).is_err() {
            look.tick().await;
        }
        fs::write(state.join("launch"), format!("{part}\n"))?;
        while run("kubectl", &["get", "--raw", "/readyz", "--request-timeout=2s"]).is_err() {
            look.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, back).await.with_context(|| format!("{part} does not come back"))?
}

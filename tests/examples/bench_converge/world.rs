//! The cluster that is measured on: its node, its namespace, and waiting until everything of a kind is there.

use std::{collections::HashSet, fmt::Debug, time::Duration};

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Node},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use operator::{conditions, crd::McpServer};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::NAMESPACE;

/// The node that all pods run on, and the namespace that all servers are in.
pub async fn prepare(client: &Client) -> Result<()> {
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "kwok"}}))?;
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await.context("no node")?;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.context("no namespace")?;
    Ok(())
}

/// Whether a Deployment has what it is to have.
pub fn available(deployment: &Deployment) -> bool {
    deployment.status.as_ref().and_then(|status| status.available_replicas) >= Some(1)
}

/// Whether a server is said to be Ready.
pub fn ready(server: &McpServer) -> bool {
    let conditions = server.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True")
}

/// When the last of so many objects came to hold what is asked. Fails when they take longer than any contender does.
pub async fn until<K>(api: Api<K>, count: u32, holds: impl Fn(&K) -> bool) -> Result<Instant>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let limit = Duration::from_mins(2) + Duration::from_millis(500) * count;
    tokio::time::timeout(limit, all(api, count, holds)).await.context("the fleet does not come about")?
}

async fn all<K>(api: Api<K>, count: u32, holds: impl Fn(&K) -> bool) -> Result<Instant>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut objects = Box::pin(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    let mut held = HashSet::new();
    while let Some(object) = objects.try_next().await? {
        if holds(&object) && held.insert(object.name_any()) && held.len() >= count as usize {
            return Ok(Instant::now());
        }
    }
    anyhow::bail!("the watch ended")
}

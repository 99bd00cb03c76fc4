//! Step 4: bring the cluster to what was built. I/O out, in dependency order.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret, Service},
};
use kube::Client;

use super::{build::Children, validate::ValidatedApp};
use crate::{
    cache::Cache,
    ssa::{self, Ours},
};

/// The children as they are on the API server.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The pods; its status tells how many are ready.
    pub deployment: Arc<Deployment>,
}

/// The caches of the children's kinds.
#[derive(Debug)]
pub struct Caches {
    /// Ours, by label.
    pub secrets: Arc<Cache<Secret>>,
    /// Ours, by label.
    pub config_maps: Arc<Cache<ConfigMap>>,
    /// Ours, by label.
    pub services: Arc<Cache<Service>>,
    /// Ours, by label.
    pub deployments: Arc<Cache<Deployment>>,
}

/// Applies every child, and deletes a token that is no longer wanted.
pub async fn apply(client: &Client, caches: &Caches, app: &ValidatedApp, children: Children) -> Result<Applied, ssa::Error> {
    // Without `..`, so that a child that nobody applies does not compile.
    let Children { secret, config_map, service, deployment } = children;
    let ours = Ours::ControlledBy(&app.uid);

    // What the pods mount comes before the pods; what they no longer mount goes after them.
    let keep_secret = secret.is_some();
    if let Some(secret) = secret {
        ssa::apply(client, &caches.secrets, ours, secret).await?;
    }
    ssa::apply(client, &caches.config_maps, ours, config_map).await?;
    ssa::apply(client, &caches.services, ours, service).await?;
    let deployment = ssa::apply(client, &caches.deployments, ours, deployment).await?;
    if !keep_secret {
        ssa::delete(client, &caches.secrets, ours, &app.namespace, &app.child_name()).await?;
    }
    Ok(Applied { deployment })
}

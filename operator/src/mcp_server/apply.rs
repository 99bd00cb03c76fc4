//! Step 4: bring the cluster to what was built. I/O out, in dependency order.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Service},
};
use kube::Client;

use super::{build::Children, validate::ValidatedServer};
use crate::{
    cache::Cache,
    ssa::{self, Ours},
};

/// The children as they are on the API server.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The pods; its status tells how far a rollout is.
    pub deployment: Option<Arc<Deployment>>,
}

/// The caches of the children's kinds.
#[derive(Debug)]
pub struct Caches {
    /// Ours, by label.
    pub volume_claims: Arc<Cache<PersistentVolumeClaim>>,
    /// Ours, by label.
    pub config_maps: Arc<Cache<ConfigMap>>,
    /// Ours, by label.
    pub services: Arc<Cache<Service>>,
    /// Ours, by label.
    pub deployments: Arc<Cache<Deployment>>,
}

/// Applies every child.
pub async fn apply(
    client: &Client,
    caches: &Caches,
    server: &ValidatedServer,
    children: Children,
) -> Result<Applied, ssa::Error> {
    // Without `..`, so that a child that nobody applies does not compile.
    let Children { volume_claim, service, deployment, accepted_tools } = children;
    let ours = Ours::ControlledBy(&server.uid);

    if let Some(accepted_tools) = accepted_tools {
        ssa::apply(client, &caches.config_maps, ours, accepted_tools).await?;
    }
    // Pods come last: they mount the volume, and are found by the Service as soon as they are ready.
    if let Some(volume_claim) = volume_claim {
        ssa::apply(client, &caches.volume_claims, Ours::Labelled, volume_claim).await?;
    }
    if let Some(service) = service {
        ssa::apply(client, &caches.services, ours, service).await?;
    }
    let deployment = match deployment {
        Some(deployment) => Some(ssa::apply(client, &caches.deployments, ours, deployment).await?),
        None => None,
    };
    Ok(Applied { deployment })
}

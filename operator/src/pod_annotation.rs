//! An annotation of a pod that somebody else made. I/O out.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{names::FIELD_MANAGER, ssa::REQUEST_TIMEOUT};

/// Sets it. A pod that is gone needs none; what else goes wrong is in the log: nothing depends on it.
pub async fn set(client: &Client, namespace: &str, pod: &str, annotation: &str, value: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let annotations = json!({"metadata": {"annotations": {annotation: value}}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    // The status takes annotations, too; the right to change the rest of any pod is not needed.
    match timeout(REQUEST_TIMEOUT, pods.patch_status(pod, &params, &Patch::Merge(&annotations))).await {
        Ok(Ok(_)) => {}
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, object.namespace = namespace, object.name = pod, annotation, "a pod is not annotated");
        }
        Err(_) => tracing::warn!(object.namespace = namespace, object.name = pod, annotation, "a pod is not annotated in time"),
    }
}

//! The PersistentVolumeClaim. It has no owner reference, so that deleting the McpServer keeps the data; a server of the same name
//! finds it again by name and labels.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::metadata;
use crate::mcp_server::validate::{ValidatedServer, Volume};

pub(super) fn build(server: &ValidatedServer, volume: &Volume) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { owner_references: None, annotations: Some(kept()), ..metadata(server) },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: volume.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), volume.size.clone())])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// Argo CD may take the claim for its own by our instance label. It has no owner and is in no repository, and must not be pruned for that.
fn kept() -> BTreeMap<String, String> {
    let pairs = [("argocd.argoproj.io/compare-options", "IgnoreExtraneous"), ("argocd.argoproj.io/sync-options", "Prune=false")];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

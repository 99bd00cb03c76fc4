//! Claims of a person's own in `spec.volumes`: one that several pods cannot write at once has one writer, as `spec.storage` has. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use crate::crd::pod::PodSettings;

/// What is known of claims, by name: their access modes. A claim that is not there is not here.
pub type AccessModes = BTreeMap<String, Vec<String>>;

/// The claims that the pods write to.
pub fn written(pod: &PodSettings) -> impl Iterator<Item = &str> {
    pod.volumes.iter().filter_map(move |volume| {
        let claim = volume.persistent_volume_claim.as_ref()?;
        let reads = claim.read_only == Some(true) || mounts(pod, &volume.name).all(|mount| mount.read_only == Some(true));
        (!reads).then_some(claim.claim_name.as_str())
    })
}

/// The first claim that one pod at a time may write to, as far as is known. None: there is none.
pub fn single_writer<'a>(pod: &'a PodSettings, modes: &AccessModes) -> Option<&'a str> {
    written(pod).find(|claim| modes.get(*claim).is_none_or(|modes| modes.iter().all(|mode| mode != "ReadWriteMany")))
}

/// The claims that are mounted.
pub fn all(pod: &PodSettings) -> impl Iterator<Item = &str> {
    pod.volumes.iter().filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// The claims that are not there.
pub fn missing<'a>(pod: &'a PodSettings, modes: &AccessModes) -> impl Iterator<Item = &'a str> {
    all(pod).filter(|claim| !modes.contains_key(*claim))
}

fn mounts<'a>(pod: &'a PodSettings, volume: &'a str) -> impl Iterator<Item = &'a VolumeMount> {
    let others = pod.pod_template.iter().flat_map(|template| template.init_containers.iter().chain(&template.sidecars));
    let of_others = others.flat_map(|container: &Container| container.volume_mounts.iter().flatten());
    pod.volume_mounts.iter().chain(of_others).filter(move |mount| mount.name == volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::written(json!({}), json!({}), &["ReadWriteOnce"], true)]
    #[case::unknown(json!({}), json!({}), &[], true)]
    #[case::one_pod(json!({}), json!({}), &["ReadWriteOncePod"], true)]
    #[case::shared(json!({}), json!({}), &["ReadWriteOnce", "ReadWriteMany"], false)]
    #[case::a_volume_that_is_read(json!({"readOnly": true}), json!({}), &["ReadWriteOnce"], false)]
    #[case::a_mount_that_reads(json!({}), json!({"readOnly": true}), &["ReadWriteOnce"], false)]
    fn a_claim_that_is_not_known_to_be_shared_has_one_writer(
        #[case] volume: Value,
        #[case] mount: Value,
        #[case] modes: &[&str],
        #[case] single: bool,
    ) {
        let mut pod = json!({
            "volumes": [{"name": "own", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "tmp2", "emptyDir": {}}],
            "volumeMounts": [{"name": "own", "mountPath": "/own"}, {"name": "tmp2", "mountPath": "/t"}],
        });
        pod["volumes"][0]["persistentVolumeClaim"]
            .as_object_mut()
            .expect("an object")
            .extend(volume.as_object().expect("an object").clone());
        pod["volumeMounts"][0].as_object_mut().expect("an object").extend(mount.as_object().expect("an object").clone());
        let pod: PodSettings = serde_json::from_value(pod).expect("settings");
        let known = AccessModes::from([("c".to_owned(), modes.iter().map(|mode| (*mode).to_owned()).collect())]);
        assert_eq!(single_writer(&pod, &known).is_some(), single);
    }

    #[test]
    fn a_sidecar_that_writes_is_a_writer() {
        let pod: PodSettings = serde_json::from_value(json!({
            "volumes": [{"name": "own", "persistentVolumeClaim": {"claimName": "c"}}],
            "volumeMounts": [{"name": "own", "mountPath": "/own", "readOnly": true}],
            "podTemplate": {"sidecars": [{"name": "w", "image": "a/b:1", "volumeMounts": [{"name": "own", "mountPath": "/own"}]}]},
        }))
        .expect("settings");
        assert_eq!(single_writer(&pod, &AccessModes::new()), Some("c"));
    }
}

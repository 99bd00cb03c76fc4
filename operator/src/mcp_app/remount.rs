//! What an app's pods mount reaches them at once: the kubelet looks at a pod that is changed, and else once a minute and a half. I/O out.
//!
//! Until then an app calls a server where it is no more, with a key that is none any more.
//! <https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically>

use kube::Client;

use crate::{names::ANNOTATION_CONFIGURATION, pod_annotation};

/// Has the kubelet look at these pods, for this version of what they mount.
pub async fn hurry(client: &Client, namespace: &str, pods: Vec<String>, version: u64) {
    for pod in pods {
        pod_annotation::set(client, namespace, &pod, ANNOTATION_CONFIGURATION, &version.to_string()).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::api::Api;

    #[tokio::test]
    async fn each_pod_is_told_by_its_status_and_one_that_is_gone_is_no_fault() {
        let api = Api::default();
        api.put("/api/v1/namespaces/team/pods/chat-app-1", json!({"metadata": {"name": "chat-app-1"}}));
        hurry(&api.client(), "team", vec!["gone".into(), "chat-app-1".into()], 7).await;
        let sent = api.sent();
        let paths: Vec<_> = sent.iter().map(|sent| sent.path.split('?').next().unwrap_or_default()).collect();
        assert_eq!(paths, ["gone", "chat-app-1"].map(|pod| format!("/api/v1/namespaces/team/pods/{pod}/status")));
        assert_eq!(sent[1].body, json!({"metadata": {"annotations": {ANNOTATION_CONFIGURATION: "7"}}}));
    }
}

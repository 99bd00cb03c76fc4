//! Step 3: every child as a whole, from a validated server. Pure, and cannot fail.

mod accepted_tools;
mod deployment;
mod service;
mod volume_claim;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, PersistentVolumeClaim, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::validate::{Source, ValidatedServer};

/// Everything that a server consists of. Of a remote server we keep only the accepted tools.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// The volume. It has no owner: it outlives the server.
    pub volume_claim: Option<PersistentVolumeClaim>,
    /// The address.
    pub service: Option<Service>,
    /// The pods.
    pub deployment: Option<Deployment>,
    /// The accepted tools, once they are known.
    pub accepted_tools: Option<ConfigMap>,
}

/// All children of the server.
pub fn build(server: &ValidatedServer) -> Children {
    let mut children = Children { accepted_tools: accepted_tools::build(server), ..Children::default() };
    if let Source::Container(container) = &server.source {
        children.volume_claim = container.volume.as_ref().map(|volume| volume_claim::build(server, volume));
        children.service = Some(service::build(server, container));
        children.deployment = Some(deployment::build(server, container));
    }
    children
}

/// The metadata of every child that goes with the server.
fn metadata(server: &ValidatedServer) -> ObjectMeta {
    ObjectMeta {
        name: Some(server.child_name()),
        namespace: Some(server.namespace.clone()),
        labels: Some(server.labels()),
        owner_references: Some(vec![server.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        crd::{McpServer, mcp_server},
        fixtures,
        inputs::{Found, Kind},
        mcp_server::{observe::Observed, validate::validate},
        workload,
    };

    /// Through the real validation, so that a fixture cannot be what a cluster could not hold.
    fn children(server: &McpServer) -> super::Children {
        let inputs = Found::default().with(Kind::ConfigMap, "settings", &[("server.toml", "")]);
        super::build(&validate(server, &Observed { inputs, ..Observed::default() }).expect("valid"))
    }

    #[test]
    fn a_server_with_a_volume() {
        let server = fixtures::server(|server| {
            server.spec.storage = Some(serde_json::from_value(json!({"size": "1Gi", "mountPath": "/data"})).expect("storage"));
        });
        let children = children(&server);
        let pod = children.deployment.clone().and_then(|deployment| deployment.spec?.template.spec).expect("a pod");
        let (volumes, mounts) = workload::volumes_of(&pod);
        assert_eq!(volumes, mcp_server::OWN_VOLUMES);
        assert_eq!(mounts, [mcp_server::OWN_MOUNTS, &["/data"]].concat());
        insta::assert_yaml_snapshot!("volume_claim", children.volume_claim);
        insta::assert_yaml_snapshot!("deployment_with_volume", children.deployment);
        insta::assert_yaml_snapshot!("service", children.service);
    }

    #[test]
    fn every_setting_of_the_pods_reaches_them() {
        let server = fixtures::server(|server| {
            server.spec.pod = serde_json::from_value(json!({
                "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}},
                "env": [{"name": "MODE", "value": "fast"}],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
                "volumeMounts": [{"name": "settings", "mountPath": "/etc/server", "readOnly": true}],
                "serviceAccountName": "reader",
                "automountServiceAccountToken": true,
                "imagePullPolicy": "Always",
                "securityContext": {
                    "runAsUser": 0, "runAsGroup": null, "runAsNonRoot": false, "readOnlyRootFilesystem": false,
                    "supplementalGroups": [7], "seLinuxOptions": {"level": "s0:c1,c2"},
                },
                "terminationGracePeriodSeconds": 45,
                "progressDeadlineSeconds": 60,
                "imagePullSecrets": [{"name": "registry"}],
                "podTemplate": {
                    "metadata": {
                        "labels": {"team": "data", "app.kubernetes.io/managed-by": "nobody"},
                        "annotations": {"mesh": "off"},
                    },
                    "nodeSelector": {"disk": "ssd"},
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}},
                    ]}},
                    "topologySpreadConstraints": [
                        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"},
                    ],
                    "priorityClassName": "high",
                    "runtimeClassName": "gvisor",
                    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
                    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
                    "initContainers": [{"name": "fetch", "image": "c/d:1"}],
                    "sidecars": [{"name": "proxy", "image": "e/f:1", "securityContext": {"runAsUser": 7}}],
                },
            }))
            .expect("settings");
        });
        let template = children(&server).deployment.and_then(|deployment| deployment.spec).map(|spec| spec.template);
        insta::assert_yaml_snapshot!("pods_with_every_setting", template);
    }

    #[test]
    fn a_variable_of_the_spec_goes_before_ours() {
        let server = fixtures::server(|server| {
            server.spec.pod.env = serde_json::from_value(json!([{"name": "HOME", "value": "/data"}])).expect("variables");
        });
        let pod = children(&server).deployment.and_then(|deployment| deployment.spec?.template.spec).expect("a pod");
        let env = pod.containers[0].env.iter().flatten();
        let env: Vec<_> = env.map(|variable| (variable.name.as_str(), variable.value.as_deref())).collect();
        assert_eq!(env, [("TMPDIR", Some("/tmp")), ("HOME", Some("/data"))]);
    }

    #[test]
    fn a_server_without_a_volume_rolls_without_a_gap() {
        let deployment = children(&fixtures::server(|server| server.spec.replicas = 3)).deployment.expect("a Deployment");
        let rolling = deployment.spec.and_then(|spec| spec.strategy).and_then(|strategy| strategy.rolling_update);
        insta::assert_yaml_snapshot!(rolling, @"
        maxSurge: 1
        maxUnavailable: 0
        ");
    }

    #[test]
    fn a_remote_server_has_no_children() {
        let children = children(&fixtures::remote(|_| {}));
        assert!(children.deployment.is_none() && children.service.is_none() && children.volume_claim.is_none());
    }
}

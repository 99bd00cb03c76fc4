//! Step 3: every child as a whole, from a validated server. Pure, and cannot fail.

mod accepted_tools;
pub mod backup;
mod deployment;
mod service;
mod volume_claim;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::validate::{Source, ValidatedServer};
use crate::{
    child::Child,
    disruption,
    names::Component,
    network::{self, Surroundings},
};

/// Where a claim says how much it asks for.
pub const CLAIM_SIZE: &str = "/spec/resources/requests/storage";

/// All children of the server, who is mounted before who mounts. Of a remote server we keep only the accepted tools.
pub fn children(server: &ValidatedServer, around: &Surroundings) -> Vec<Child> {
    let mut children = Vec::new();
    children.extend(accepted_tools::build(server).map(|tools| Child::new(&tools)));
    if let Source::Container(container) = &server.source {
        let claim = container.volume.as_ref().map(|volume| volume_claim::build(server, volume));
        children.extend(claim.map(|claim| Child::new(&claim).growing(CLAIM_SIZE)));
        // Before the pods, so that none of them is ever open to all.
        let of = (Component::Server, &*server.name);
        let policy = network::policy(metadata(server), of, container.network.as_ref(), around);
        children.extend(policy.map(|policy| Child::new(&policy)));
        children.push(Child::new(&service::build(server, container)));
        // A claim of its name that is not its own would be mounted: it may hold somebody else's data.
        let pods = Child::new(&deployment::build(server, container)).needs(&["PersistentVolumeClaim"]);
        children.push(pods.waits_if(!server.lacks.is_empty()));
        let selector = Component::Server.selector(&server.name);
        let budget = disruption::budget(metadata(server), container.replicas, selector);
        children.extend(budget.map(|budget| Child::new(&budget)));
        let backup = backup::build(server, container);
        children.extend(backup.map(|backup| Child::new(&backup).needs(&["PersistentVolumeClaim"])));
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
    use k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{PersistentVolumeClaim, Service},
    };
    use serde_json::json;

    use crate::{
        child::read,
        crd::{McpServer, mcp_server},
        fixtures,
        inputs::{Found, Kind},
        mcp_server::{observe::Observed, validate::validate},
        workload,
    };

    /// Through the real validation, so that a fixture cannot be what a cluster could not hold.
    fn children(server: &McpServer) -> Vec<crate::child::Child> {
        let inputs = Found::default().with(Kind::ConfigMap, "settings", &[("server.toml", "")]);
        let valid = validate(server, &Observed { inputs, ..Observed::default() }).expect("valid");
        super::children(&valid, &crate::network::Surroundings::default())
    }

    #[test]
    fn a_server_with_a_volume() {
        let server = fixtures::server(|server| {
            server.spec.storage = Some(serde_json::from_value(json!({"size": "1Gi", "mountPath": "/data"})).expect("storage"));
        });
        let children = children(&server);
        let deployment: Option<Deployment> = read(&children);
        let pod = deployment.clone().and_then(|deployment| deployment.spec?.template.spec).expect("a pod");
        let (volumes, mounts) = workload::volumes_of(&pod);
        assert_eq!(volumes, mcp_server::OWN_VOLUMES[..3]);
        assert_eq!(mounts, [mcp_server::OWN_MOUNTS, &["/data"]].concat());
        insta::assert_yaml_snapshot!("volume_claim", read::<PersistentVolumeClaim>(&children));
        insta::assert_yaml_snapshot!("deployment_with_volume", deployment);
        insta::assert_yaml_snapshot!("service", read::<Service>(&children));
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
        let template = read::<Deployment>(&children(&server)).and_then(|deployment| deployment.spec).map(|spec| spec.template);
        insta::assert_yaml_snapshot!("pods_with_every_setting", template);
    }

    #[test]
    fn a_variable_of_the_spec_goes_before_ours() {
        let server = fixtures::server(|server| {
            server.spec.pod.env = serde_json::from_value(json!([{"name": "HOME", "value": "/data"}])).expect("variables");
        });
        let deployment: Deployment = read(&children(&server)).expect("a Deployment");
        let pod = deployment.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let env = pod.containers[0].env.iter().flatten();
        let env: Vec<_> = env.map(|variable| (variable.name.as_str(), variable.value.as_deref())).collect();
        assert_eq!(env, [("TMPDIR", Some("/tmp")), ("HOME", Some("/data"))]);
    }

    #[test]
    fn a_server_without_a_volume_rolls_without_a_gap() {
        let deployment: Deployment = read(&children(&fixtures::server(|server| server.spec.replicas = 3))).expect("a Deployment");
        let rolling = deployment.spec.and_then(|spec| spec.strategy).and_then(|strategy| strategy.rolling_update);
        insta::assert_yaml_snapshot!(rolling, @"
        maxSurge: 1
        maxUnavailable: 0
        ");
    }

    #[test]
    fn a_pod_that_goes_serves_on_while_others_learn_of_it_unless_there_is_one_writer() {
        let seconds = |change: fn(&mut McpServer)| {
            let deployment: Deployment = read(&children(&fixtures::server(change))).expect("a Deployment");
            let pod = deployment.spec.and_then(|spec| spec.template.spec).expect("a pod");
            pod.containers[0].lifecycle.as_ref().and_then(|lifecycle| Some(lifecycle.pre_stop.as_ref()?.sleep.as_ref()?.seconds))
        };
        assert_eq!(seconds(|_| {}), Some(5));
        assert_eq!(
            seconds(|server| server.spec.pod.termination_grace_period_seconds = Some(3)),
            Some(2),
            "Kubernetes refuses more"
        );
        assert_eq!(seconds(|server| server.spec.pod.termination_grace_period_seconds = Some(1)), None);
        let storage = |server: &mut McpServer| {
            server.spec.storage = serde_json::from_value(json!({"size": "1Gi", "mountPath": "/data"})).ok();
        };
        assert_eq!(seconds(storage), None);
    }

    #[test]
    fn a_remote_server_has_no_children() {
        assert!(children(&fixtures::remote(|_| {})).is_empty());
    }
}

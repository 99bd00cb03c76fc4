//! Step 3: every child as a whole, from a validated server. Pure, and cannot fail.

mod accepted_tools;
pub mod asleep;
pub mod backup;
mod counting;
mod deployment;
pub mod service;
mod stdio;
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
    children.extend(asleep::kept(server).map(|kept| Child::new(&kept)));
    if let Source::Container(container) = &server.source {
        let claim = container.volume.as_ref().map(|volume| volume_claim::build(server, volume));
        children.extend(claim.map(|claim| Child::new(&claim).growing(CLAIM_SIZE)));
        // Before the pods, so that none of them is ever open to all.
        let of = (Component::Server, &*server.name);
        let policy = network::policy(metadata(server), of, container.network.as_ref(), around);
        children.extend(policy.map(|policy| Child::new(&policy)));
        if let Some(stdio) = &container.stdio {
            children.push(Child::new(&stdio::secret(server, stdio)));
            children.extend(stdio::cache(server, stdio).map(|cache| Child::new(&cache).growing(CLAIM_SIZE)));
        }
        children.push(Child::new(&service::build(server, container)));
        // Before the last pod goes: whoever calls is never refused in between.
        children.extend(asleep::slices(server, container).iter().map(Child::new));
        // What has its name and is not its own would be mounted: somebody else's data, or keys that somebody else knows. And a pod without
        // its policy would be open to all.
        let pods = Child::new(&deployment::build(server, container)).needs(&["PersistentVolumeClaim", "Secret", "NetworkPolicy"]);
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
        core::v1::{PersistentVolumeClaim, PodSpec, Secret, Service},
    };
    use rstest::rstest;
    use serde_json::json;

    use crate::{
        child::read,
        crd::{McpServer, mcp_server},
        fixtures,
        inputs::{Found, Kind},
        mcp_server::{build::backup, observe::Observed, stdio::Sources, validate::validate},
        workload,
    };

    /// Through the real validation, so that a fixture cannot be what a cluster could not hold.
    fn children(server: &McpServer) -> Vec<crate::child::Child> {
        let inputs = Found::default().with(Kind::ConfigMap, "settings", &[("server.toml", "")]);
        let sources = Sources {
            bridge: "bridge:test".into(),
            npx: "node:test".into(),
            uvx: "uv:test".into(),
            npm_registry: Some("https://npm.example.com".into()),
            pypi_index: None,
        };
        let observed = Observed { inputs, sources, session_keys: "a key".into(), ..Observed::default() };
        super::children(&validate(server, &observed).expect("valid"), &crate::network::Surroundings::default())
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
        assert_eq!(volumes, ["tmp", "home", "data"]);
        assert_eq!(mounts, ["/tmp", mcp_server::HOME, "/data"]);
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

    /// What the API server would make of it, and the pods of its Deployment.
    fn stdio(change: &serde_json::Value) -> (Vec<crate::child::Child>, PodSpec) {
        let server = fixtures::stdio(|server| {
            let mut spec = serde_json::to_value(&server.spec).expect("JSON");
            spec.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
            server.spec = serde_json::from_value(spec).expect("a spec");
        });
        let children = children(&server);
        let deployment: Deployment = read(&children).expect("a Deployment");
        (children, deployment.spec.and_then(|spec| spec.template.spec).expect("a pod"))
    }

    #[test]
    fn a_server_of_npx_is_installed_before_it_starts_and_shares_its_sessions() {
        let (children, pod) = stdio(&json!({"storage": {"size": "1Gi", "mountPath": "/data"}}));
        let (volumes, mounts) = workload::volumes_of(&pod);
        let sorted = |names: &[&str]| names.iter().map(ToString::to_string).collect::<std::collections::BTreeSet<_>>();
        let of_backups = [&*volumes, &[backup::VOLUME]].concat();
        assert_eq!(sorted(&of_backups), sorted(mcp_server::OWN_VOLUMES));
        assert_eq!(sorted(&mounts), sorted(&[mcp_server::OWN_MOUNTS, &["/data"]].concat()));
        insta::assert_yaml_snapshot!("stdio_npx", read::<Deployment>(&children));
        let secret: Secret = read(&children).expect("a Secret");
        assert_eq!(secret.metadata.name.as_deref(), Some("memory-mcp-sessions"));
        assert_eq!(secret.data.expect("data")["keys"].0, b"a key");
    }

    #[test]
    fn a_server_of_an_image_installs_nothing() {
        let (_, pod) = stdio(&json!({
            "stdio": {"image": "own:1", "command": "/app/own", "args": ["--stdio"], "sessions": "PerSession", "maxSessions": 8},
            "terminationGracePeriodSeconds": 120, "timeoutSeconds": 60, "health": {"restartAfterSeconds": 0},
        }));
        let init: Vec<_> = pod.init_containers.iter().flatten().map(|container| container.name.as_str()).collect();
        assert_eq!(init, ["mcp-bridge"]);
        assert_eq!(pod.termination_grace_period_seconds, Some(120));
        assert!(pod.containers[0].readiness_probe.as_ref().is_some_and(|probe| probe.tcp_socket.is_some()));
        insta::assert_yaml_snapshot!("stdio_image_args", pod.containers[0].args);
    }

    #[test]
    fn what_the_spec_gives_the_server_is_there_when_its_package_is_installed() {
        let (children, pod) = stdio(&json!({
            "stdio": {"command": "uvx", "args": ["--from", "a[x]==1", "--with", "b", "serve", "-v"], "cache": {"size": "2Gi"}},
            "env": [{"name": "UV_INDEX_URL", "value": "https://pypi.example.com"}, {"name": "POD_IP", "value": "x"}],
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
            "volumeMounts": [{"name": "settings", "mountPath": "/etc/uv"}],
            "podTemplate": {"initContainers": [{"name": "first", "image": "c/d:1"}], "sidecars": [{"name": "proxy", "image": "e/f:1"}]},
        }));
        let init = pod.init_containers.as_ref().expect("init containers");
        let names: Vec<_> = init.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(names, ["proxy", "first", "mcp-bridge", "mcp-install"]);
        insta::assert_yaml_snapshot!("stdio_install", init[3]);
        let claim: PersistentVolumeClaim = read(&children).expect("a claim");
        assert_eq!((claim.metadata.name.as_deref(), claim.metadata.owner_references.is_some()), (Some("memory-mcp-cache"), true));
        let addresses = pod.containers[0].env.iter().flatten().filter(|variable| variable.name == "POD_IP");
        assert_eq!(addresses.count(), 1, "the pod's own");
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
    fn a_server_whose_calls_are_counted_is_reached_by_the_bridge_beside_it() {
        let server = fixtures::server(|server| {
            server.spec.autoscaling = serde_json::from_value(json!({"maxReplicas": 3})).ok();
            server.spec.pod.termination_grace_period_seconds = Some(60);
        });
        let template = read::<Deployment>(&children(&server)).and_then(|deployment| deployment.spec).map(|spec| spec.template);
        let asked = template.as_ref().and_then(|template| template.metadata.as_ref()?.annotations.clone()).expect("annotations");
        assert!(asked[crate::names::ANNOTATION_PROBE].contains("9380"), "probes go the way of clients: {asked:?}");
        let pod = template.and_then(|template| template.spec).expect("a pod");
        let ports = |container: &k8s_openapi::api::core::v1::Container| {
            let ports = container.ports.iter().flatten();
            ports.map(|port| (port.name.clone().unwrap_or_default(), port.container_port)).collect::<Vec<_>>()
        };
        let hook = pod.containers[0].lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()?.http_get.clone());
        assert_eq!(json!(hook), json!({"path": "/mcpfleet/drained", "port": 9380}), "it goes when its calls are over");
        let bridge = &pod.init_containers.as_ref().expect("the bridge")[0];
        assert_eq!((ports(bridge), ports(&pod.containers[0])), (vec![("mcp".into(), 9380)], vec![("mcp-server".into(), 8080)]));
        insta::assert_yaml_snapshot!("counting", bridge);
    }

    /// The pods of a spec of these parts.
    fn template(parts: [&serde_json::Value; 2]) -> serde_json::Value {
        let server = fixtures::server(|server| {
            let mut spec = json!({});
            for part in parts {
                spec.as_object_mut().expect("an object").extend(part.as_object().expect("an object").clone());
            }
            server.spec = serde_json::from_value(spec).expect("a spec");
        });
        let deployment: Deployment = read(&children(&server)).expect("a Deployment");
        json!(deployment.spec.expect("a spec").template)
    }

    #[rstest]
    #[case::replicas(json!({"replicas": 3}), true)]
    #[case::none(json!({"replicas": 0}), true)]
    #[case::network(json!({"network": {"egressPorts": [{"port": 443}]}}), true)]
    #[case::timeout(json!({"timeoutSeconds": 60, "maxRetries": 1}), true)]
    #[case::words(json!({"description": "searches", "version": "2"}), true)]
    #[case::affinity(json!({"sessionAffinity": "ClientIP"}), true)]
    #[case::circuit(json!({"circuitBreaker": {"failureThreshold": 5, "force": "Closed"}}), true)]
    #[case::health(json!({"health": {"intervalSeconds": 9, "timeoutSeconds": 3, "startupSeconds": 300, "restartAfterSeconds": 0}}), true)]
    #[case::a_call(json!({"health": {"toolCall": {"name": "up"}}}), false)]
    #[case::tools(json!({"tools": {"policy": "Enforce"}}), true)]
    #[case::tools_ignored(json!({"tools": {"policy": "Ignore"}}), true)]
    #[case::digest(json!({"tools": {"policy": "Enforce", "digest": "0".repeat(64)}}), false)]
    #[case::image(json!({"container": {"image": "a/b:2"}}), false)]
    #[case::counting(json!({"autoscaling": {"maxReplicas": 3}}), false)]
    fn what_needs_no_pods_of_a_container_makes_none(#[case] edit: serde_json::Value, #[case] same: bool) {
        let before = json!({"container": {"image": "a/b:1"}});
        assert_eq!(template([&before, &edit]) == template([&before, &json!({})]), same, "{edit}");
    }

    #[rstest]
    #[case::at_most(json!({"autoscaling": {"maxReplicas": 9, "minReplicas": 2}}))]
    #[case::asleep(json!({"autoscaling": {"maxReplicas": 3, "minReplicas": 0, "idleSeconds": 60}}))]
    #[case::calls(json!({"autoscaling": {"maxReplicas": 3, "callsInFlight": 20}}))]
    fn another_scale_makes_no_pods(#[case] edit: serde_json::Value) {
        let before = json!({"container": {"image": "a/b:1"}, "autoscaling": {"maxReplicas": 3}});
        assert_eq!(template([&before, &edit]), template([&before, &json!({})]), "{edit}");
    }

    #[rstest]
    #[case::size(json!({"size": "2Gi"}), true)]
    #[case::backup(json!({"backup": {"schedule": "0 3 * * *", "to": {"claim": "backups"}}}), true)]
    #[case::path(json!({"mountPath": "/other"}), false)]
    fn what_needs_no_pods_of_a_volume_makes_none(#[case] edit: serde_json::Value, #[case] same: bool) {
        let with = |edit: &serde_json::Value| {
            let mut storage = json!({"size": "1Gi", "mountPath": "/data"});
            storage.as_object_mut().expect("an object").extend(edit.as_object().expect("an object").clone());
            template([&json!({"container": {"image": "a/b:1"}}), &json!({"storage": storage})])
        };
        assert_eq!(with(&edit) == with(&json!({})), same, "{edit}");
    }

    #[rstest]
    #[case::timeout(json!({"timeoutSeconds": 60}), false)]
    #[case::restart(json!({"health": {"restartAfterSeconds": 60}}), false)]
    #[case::long_start(json!({"health": {"startupSeconds": 121}}), false)]
    #[case::short_start(json!({"health": {"startupSeconds": 60}}), true)]
    #[case::interval(json!({"health": {"intervalSeconds": 9}}), true)]
    #[case::few_calls(json!({"autoscaling": {"maxReplicas": 3, "callsInFlight": 32}}), true)]
    #[case::many_calls(json!({"autoscaling": {"maxReplicas": 3, "callsInFlight": 33}}), false)]
    fn what_the_bridge_is_told_makes_pods(#[case] edit: serde_json::Value, #[case] same: bool) {
        let before = json!({"stdio": {"command": "npx", "args": ["a@1.0.0"]}});
        assert_eq!(template([&before, &edit]) == template([&before, &json!({})]), same, "{edit}");
    }

    #[test]
    fn a_remote_server_has_no_children() {
        assert!(children(&fixtures::remote(|_| {})).is_empty());
    }
}

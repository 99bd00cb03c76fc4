//! What we say that server-side apply would find out, against what the API server's own dry run says.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::compare;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"mcpfleet.dev/applied": "1"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "readinessGates": [{"conditionType": "mcpfleet.dev/healthy"}],
                    "nodeSelector": {"disk": "ssd"},
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 1000},
                    "containers": [{
                        "name": "mcp", "image": "a/b:1", "args": ["serve"],
                        "ports": [{"name": "mcp", "containerPort": 8080, "protocol": "TCP"}],
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "EMPTY", "value": ""},
                            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        ],
                        "envFrom": [{"configMapRef": {"name": "c"}}],
                        "resources": {"requests": {"cpu": "0.5"}, "limits": {"memory": "1024Mi"}},
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    }],
                    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
                },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"},
        "spec": {"selector": {"a": "b"}, "ports": [{"name": "mcp", "port": 8080, "protocol": "TCP", "targetPort": "mcp"}]},
    })
}

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"c": "d"}}}, {"namespaceSelector": {}}]}],
            "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}],
        },
    })
}

fn budget() -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    })
}

/// What others may do to the object, one after the other: each is compared, and put right.
async fn agrees<K>(space: &Space, desired: Value, edits: Vec<Value>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = space.api();
    let ours = PatchParams::apply("mcpfleet").force();
    let spec = |object: &K| {
        let object = serde_json::to_value(object).expect("an object is JSON");
        (object["spec"].clone(), object["metadata"]["labels"].clone(), object["metadata"]["annotations"].clone())
    };
    for edit in edits {
        api.patch("x", &ours, &Patch::Apply(&desired)).await?;
        let live = api.patch("x", &PatchParams::default(), &Patch::Strategic(&edit)).await?;
        let would = api.patch("x", &PatchParams { dry_run: true, ..ours.clone() }, &Patch::Apply(&desired)).await?;
        let found = compare::differences(&serde_json::to_value(&live)?, &desired);
        assert_eq!(!found.is_empty(), spec(&live) != spec(&would), "{edit}: we say {found:?} of {}", live.name_any());
        api.delete("x", &kube::api::DeleteParams::default()).await?;
    }
    Ok(())
}

fn template(spec: &Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

fn container(fields: &Value) -> Value {
    let mut container = fields.clone();
    container["name"] = json!("mcp");
    template(&json!({"containers": [container]}))
}

#[tokio::test]
async fn we_find_what_a_dry_run_finds() {
    with_space(|space| async move {
        let edits = vec![
            json!({}),
            json!({"metadata": {"annotations": {"somebody/else": "was here"}}}),
            json!({"metadata": {"labels": {"a": "c"}}}),
            json!({"spec": {"replicas": 3}}),
            json!({"spec": {"revisionHistoryLimit": 3}}),
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 2}}}}),
            json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}),
            template(&json!({"automountServiceAccountToken": null})),
            template(&json!({"automountServiceAccountToken": true})),
            template(&json!({"nodeSelector": {"zone": "a"}})),
            template(&json!({"tolerations": [{"key": "other", "operator": "Exists"}]})),
            template(&json!({"readinessGates": [{"conditionType": "another/gate"}]})),
            template(&json!({"securityContext": {"runAsUser": null}})),
            template(&json!({"securityContext": {"fsGroup": 7}})),
            template(&json!({"dnsPolicy": "Default"})),
            template(&json!({"containers": [{"name": "sidecar", "image": "s:1"}]})),
            template(&json!({"volumes": [{"name": "more", "emptyDir": {}}]})),
            container(&json!({"image": "mirror/a/b:1"})),
            container(&json!({"args": ["serve", "--more"]})),
            container(&json!({"command": ["other"]})),
            container(&json!({"env": [{"name": "A", "value": "2"}]})),
            container(&json!({"env": [{"name": "B", "value": "2"}]})),
            container(&json!({"env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]})),
            container(&json!({"envFrom": [{"configMapRef": {"name": "other"}}]})),
            container(&json!({"resources": {"requests": {"cpu": "500m"}}})),
            container(&json!({"resources": {"requests": {"cpu": "600m"}}})),
            container(&json!({"resources": {"requests": {"memory": "1Mi"}}})),
            container(&json!({"securityContext": {"allowPrivilegeEscalation": null}})),
            container(&json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}})),
            container(&json!({"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}})),
            container(&json!({"volumeMounts": [{"name": "tmp", "mountPath": "/more"}]})),
            container(&json!({"ports": [{"containerPort": 9090, "protocol": "TCP"}]})),
            container(&json!({"imagePullPolicy": "Always"})),
        ];
        agrees::<Deployment>(&space, deployment(), edits).await?;
        let edits = vec![
            json!({}),
            json!({"spec": {"selector": {"version": "v2"}}}),
            json!({"spec": {"selector": {"a": "c"}}}),
            json!({"spec": {"ports": [{"port": 9090, "name": "more"}]}}),
            json!({"spec": {"ports": [{"port": 8080, "targetPort": 1}]}}),
            json!({"spec": {"sessionAffinity": "ClientIP"}}),
        ];
        agrees::<Service>(&space, service(), edits).await?;
        let edits = vec![
            json!({}),
            json!({"spec": {"podSelector": {"matchLabels": {"more": "b"}}}}),
            json!({"spec": {"policyTypes": ["Ingress"]}}),
            json!({"spec": {"ingress": [{}]}}),
            json!({"spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"c": "d"}}}, {"namespaceSelector": {}}]}, {}]}}),
            json!({"spec": {"egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}]}}),
            json!({"spec": {"egress": null}}),
        ];
        agrees::<NetworkPolicy>(&space, policy(), edits).await?;
        let edits = vec![
            json!({}),
            json!({"spec": {"maxUnavailable": "50%"}}),
            json!({"spec": {"selector": {"matchLabels": {"more": "b"}}}}),
            json!({"spec": {"unhealthyPodEvictionPolicy": "IfHealthyBudget"}}),
        ];
        agrees::<PodDisruptionBudget>(&space, budget(), edits).await
    })
    .await;
}

//! What we say that server-side apply would find out, against what the API server's own dry run says.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    asleep::Endpoints,
    autoscale::Decision,
    child::{Child, KINDS},
    compare,
    crd::McpServer,
    mcp_server::{build, observe::Observed, stdio::KEYS, validate::validate},
    probe::Kept,
};
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

/// A server of this spec in the space.
fn server(space: &Space, name: &str, spec: &Value) -> anyhow::Result<McpServer> {
    let metadata = json!({"name": name, "namespace": space.name, "uid": format!("uid-of-{name}")});
    let object = json!({"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "metadata": metadata, "spec": spec});
    Ok(serde_json::from_value(object)?)
}

/// Children of every kind, as the builders make them.
fn built(space: &Space) -> anyhow::Result<Vec<Child>> {
    let config = space.config()?;
    let observed = || Observed { sources: config.stdio_sources(), session_keys: "a2V5".into(), ..Observed::default() };
    let rich = json!({
        "container": {"image": "a/b:1"}, "replicas": 2,
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"cpu": 1}},
        "env": [{"name": "EMPTY", "value": ""}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "envFrom": [{"secretRef": {"name": "s"}}], "imagePullSecrets": [{"name": "pull"}],
        "volumes": [{"name": "c", "configMap": {"name": "c"}}], "volumeMounts": [{"name": "c", "mountPath": "/c"}],
        "podTemplate": {
            "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["a"]}],
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1, "labelSelector": {"matchLabels": {"a": "b"}}},
            ],
            "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "initContainers": [{"name": "fetch", "image": "a/b:1"}], "sidecars": [{"name": "proxy", "image": "a/b:1"}],
        },
        "network": {"egressTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    });
    let kept = json!({
        "container": {"image": "a/b:1"},
        "storage": {"size": "1Gi", "mountPath": "/data", "backup": {"schedule": "0 3 * * *", "to": {"claim": "backups"}, "command": ["save"]}},
    });
    let stdio = json!({"stdio": {"command": "npx", "args": ["-y", "a@1.0.0"]}});
    let sleeps = json!({"container": {"image": "a/b:1"}, "autoscaling": {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 60}});
    let addresses = [("IPv4".to_owned(), ["10.1.2.3".to_owned()].into())].into();
    let asleep = Observed {
        stood_in: true,
        activator: Arc::new(Endpoints { addresses, port: 8080 }),
        kept: Some("{}".into()),
        decision: Some(Decision { desired: 0, reason: "nobody calls".into() }),
        ..observed()
    };
    let mut children = Vec::new();
    for (name, spec, observed) in
        [("rich", rich, observed()), ("kept", kept, observed()), ("stdio", stdio, observed()), ("sleeps", sleeps, asleep)]
    {
        let valid =
            validate(&server(space, name, &spec)?, &observed).map_err(|problems| anyhow::anyhow!("{name}: {problems:?}"))?;
        children.extend(build::children(&valid, &config.surroundings()));
    }
    Ok(children)
}

/// What others may do to a child of the kind, beside what is the same for all.
fn edits(child: &Child) -> Vec<Value> {
    let owner = |uid: &str, controls: bool| {
        let owner =
            json!({"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "x", "uid": uid, "controller": controls});
        json!({"metadata": {"ownerReferences": [owner]}})
    };
    let mut edits = vec![
        json!({}),
        json!({"metadata": {"annotations": {"somebody/else": "was here"}}}),
        json!({"metadata": {"labels": {"app.kubernetes.io/name": "another"}}}),
        owner("another", false),
    ];
    edits.extend(child.owner().map(|ours| owner(&ours.uid, false)));
    edits.extend(match child.key.kind {
        "Deployment" => vec![
            template(&json!({"initContainers": [{"name": "more", "image": "a/b:1"}]})),
            template(&json!({"imagePullSecrets": [{"name": "more"}]})),
            template(&json!({"hostAliases": [{"ip": "10.9.9.9", "hostnames": ["more"]}]})),
            template(&json!({"hostAliases": [{"ip": "10.1.2.3", "hostnames": ["other"]}]})),
            template(&json!({"topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 5}]})),
        ],
        "CronJob" => vec![
            json!({"spec": {"schedule": "0 4 * * *"}}),
            json!({"spec": {"suspend": true}}),
            json!({"spec": {"successfulJobsHistoryLimit": 7}}),
            json!({"spec": {"jobTemplate": {"spec": {"backoffLimit": 9}}}}),
        ],
        "EndpointSlice" => vec![
            json!({"ports": [{"name": "mcp", "port": 9, "protocol": "TCP"}]}),
            json!({"ports": [child.body["ports"][0], {"name": "more", "port": 9, "protocol": "TCP"}]}),
            json!({"endpoints": [{"addresses": ["10.9.9.9"]}]}),
        ],
        "ConfigMap" => vec![json!({"data": {"more": "x"}}), json!({"data": {(Kept::FILE): "x"}})],
        "Secret" => vec![json!({"data": {"more": "eA=="}}), json!({"data": {KEYS: "eA=="}})],
        _ => Vec::new(),
    });
    edits
}

/// All of an object that a person or a program may say.
fn said(object: &DynamicObject) -> Value {
    let mut object = json!(object);
    let of_server = ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"];
    object["metadata"].as_object_mut().expect("metadata").retain(|field, _| !of_server.contains(&field.as_str()));
    object.as_object_mut().expect("an object").remove("status");
    object
}

/// Without what says nothing: Kubernetes leaves some of it out, and we do not look for it.
fn telling(value: Value) -> Value {
    let tells = |value: &Value| ![json!(null), json!(false), json!(0), json!(""), json!([]), json!({})].contains(value);
    match value {
        Value::Object(map) => {
            map.into_iter().map(|(key, value)| (key, telling(value))).filter(|(_, value)| tells(value)).collect()
        }
        Value::Array(items) => items.into_iter().map(telling).collect(),
        value => value,
    }
}

/// Where values stand that others may change, as JSON pointers.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    let step = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(value, &step(key), found)),
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                leaves(value, &step(&index.to_string()), found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

/// The object with another value there: those that the API server may take.
fn changed(object: &Value, at: &str) -> Vec<Value> {
    let values = match object.pointer(at) {
        Some(Value::String(text)) => vec![json!(format!("{text}x")), json!("7"), json!("eA==")],
        Some(Value::Number(number)) => vec![json!(number.as_i64().map(|number| number + 1))],
        Some(Value::Bool(set)) => vec![json!(!set)],
        _ => Vec::new(),
    };
    let with = |value| {
        let mut object = object.clone();
        *object.pointer_mut(at).expect("it is there") = value;
        object
    };
    values.into_iter().map(with).collect()
}

/// The object without what is there.
fn without(object: &Value, at: &str) -> Option<Value> {
    let (parent, key) = at.rsplit_once('/')?;
    let mut object = object.clone();
    object.pointer_mut(parent)?.as_object_mut()?.remove(&key.replace("~1", "/").replace("~0", "~"))?;
    Some(object)
}

/// A child, and its API.
struct Judged<'a> {
    api: Api<DynamicObject>,
    child: &'a Child,
}

impl Judged<'_> {
    fn ours() -> PatchParams {
        PatchParams::apply("mcpfleet").force()
    }

    async fn apply(&self, params: &PatchParams) -> kube::Result<DynamicObject> {
        self.api.patch(&self.child.key.name, params, &Patch::Apply(&self.child.body)).await
    }

    /// Compares what we say of the object as it is with what a dry run does.
    async fn agrees(&self, live: &DynamicObject, what: &str) -> anyhow::Result<()> {
        let found = compare::differences(&json!(live), &self.child.body);
        let would = match self.apply(&PatchParams { dry_run: true, ..Self::ours() }).await {
            Ok(would) => said(&would),
            // Beside what they made of it ours is none: that is for the API server to say, to a write of ours.
            Err(kube::Error::Api(status)) if status.code == 422 => json!(null),
            Err(error) => return Err(error.into()),
        };
        let live = said(live);
        if found.is_empty() {
            assert_eq!(telling(live), telling(would), "{}: we find nothing: {what}", self.child.key);
        } else {
            assert_ne!(live, would, "{}: {what}: we find {found:?}", self.child.key);
        }
        Ok(())
    }

    /// Writes the object as somebody else, over this version of it. None: Kubernetes does not let them.
    async fn put(&self, object: &Value, over: &mut Option<String>) -> anyhow::Result<Option<DynamicObject>> {
        let mut object: DynamicObject = serde_json::from_value(object.clone())?;
        object.metadata.resource_version.clone_from(over);
        match self.api.replace(&self.child.key.name, &PostParams::default(), &object).await {
            Ok(live) => {
                *over = live.resource_version();
                Ok(Some(live))
            }
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Has somebody else change every value that stands there, and take it away.
    async fn undone(&self) -> anyhow::Result<usize> {
        let base = self.apply(&Self::ours()).await?;
        let (mut version, base) = (base.resource_version(), json!(base));
        let (mut pointers, mut judged) = (Vec::new(), 0);
        leaves(&base, "", &mut pointers);
        let theirs = ["/metadata/labels/", "/metadata/annotations/", "/metadata/ownerReferences/"];
        let ours = |at: &&String| {
            let of_server = ["/metadata/", "/status/", "/apiVersion", "/kind"].iter().any(|start| at.starts_with(start));
            !of_server || theirs.iter().any(|start| at.starts_with(start))
        };
        for at in pointers.iter().filter(ours) {
            let taken = [changed(&base, at), without(&base, at).into_iter().collect()];
            for (how, objects) in ["changed", "taken away"].iter().zip(taken) {
                for object in objects {
                    let Some(live) = self.put(&object, &mut version).await? else { continue };
                    self.agrees(&live, &format!("{at} is {how}")).await?;
                    judged += 1;
                    self.put(&base, &mut version).await?;
                    break;
                }
            }
        }
        Ok(judged)
    }
}

#[tokio::test]
async fn we_find_what_a_dry_run_finds_of_all_that_the_builders_make() {
    with_space(|space| async move {
        let children = built(&space)?;
        let kinds: BTreeSet<_> = children.iter().map(|child| child.key.kind).collect();
        assert_eq!(kinds, KINDS.iter().map(|kind| kind.kind).collect(), "a kind of which nothing is built here");
        for child in &children {
            let judged = Judged { api: Api::namespaced_with(space.client.clone(), &space.name, &child.resource), child };
            let count = judged.undone().await?;
            assert!(count > 4, "{count} of {}", child.key);
            for edit in edits(child) {
                judged.apply(&Judged::ours()).await?;
                let live = judged.api.patch(&child.key.name, &PatchParams::default(), &Patch::Strategic(&edit)).await?;
                judged.agrees(&live, &edit.to_string()).await?;
            }
        }
        Ok(())
    })
    .await;
}

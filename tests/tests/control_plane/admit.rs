//! What the API server refuses at `kubectl apply`, and the sentence that it says.

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery::ApiResource,
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::{McpApp, McpServer};
use serde::Deserialize;
use serde_json::json;

const EXAMPLES: [&str; 4] = [
    include_str!("../../manifests/sqlite.yaml"),
    include_str!("../../manifests/chat.yaml"),
    include_str!("../../manifests/gateway.yaml"),
    include_str!("../../manifests/stdio.yaml"),
];

/// Every document of bad.yaml with what its refusal must say.
const BAD: [(&str, &str); 14] = [
    ("bad-none", "set exactly one of spec.container"),
    ("bad-both", "set exactly one of spec.container"),
    ("bad-port", "spec.container.port in body should be less than or equal to 65535"),
    ("bad-path", "path must begin with '/'"),
    ("bad-image", "image must name a container image"),
    ("bad-interval", "spec.health.intervalSeconds in body should be greater than or equal to 1"),
    ("bad-timeout-longer-than-interval", "lower timeoutSeconds or raise intervalSeconds"),
    ("bad-rwo-storage-with-replicas", "set spec.replicas to 1, or remove spec.storage"),
    ("bad-prompt-without-model", "are for a model, and this app has none: remove them, or set spec.model"),
    ("bad-server-both", "set exactly one of name (one McpServer) and selector"),
    ("bad-env-twice", "spec.env[1]: Duplicate value"),
    ("bad-memory", "spec.resources.limits.memory in body should match"),
    ("bad-stdio-and-container", "set exactly one of spec.container"),
    ("bad-stdio-without-image", "set stdio.image to the image that has the command"),
];

fn documents(text: &str) -> Vec<DynamicObject> {
    let documents = serde_yaml::Deserializer::from_str(text);
    documents.map(|document| DynamicObject::deserialize(document).unwrap()).collect()
}

async fn create(space: &Space, object: &DynamicObject) -> Result<DynamicObject, kube::Error> {
    let kind = object.types.as_ref().unwrap().kind.clone();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mcpfleet.dev", "v1alpha1", &kind));
    Api::<DynamicObject>::namespaced_with(space.client.clone(), &space.name, &resource)
        .create(&PostParams::default(), object)
        .await
}

/// The sentence with which the API server refuses the object.
async fn refusal(space: &Space, object: &DynamicObject) -> String {
    match create(space, object).await {
        Err(kube::Error::Api(status)) => status.message,
        other => panic!("{:?} was not refused: {other:?}", object.metadata.name),
    }
}

#[tokio::test]
async fn every_bad_document_is_refused_with_what_to_change() {
    with_space(|space| async move {
        let documents = documents(include_str!("../../manifests/bad.yaml"));
        assert_eq!(documents.len(), BAD.len());
        for (document, (name, says)) in documents.iter().zip(BAD) {
            assert_eq!(document.metadata.name.as_deref(), Some(name));
            let sentence = refusal(&space, document).await;
            assert!(sentence.contains(says), "{name}: {sentence}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_examples_are_accepted() {
    with_space(|space| async move {
        for document in EXAMPLES.into_iter().flat_map(documents) {
            create(&space, &document).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn arguments_of_a_call_are_kept_as_they_are_to_any_depth() {
    with_space(|space| async move {
        let arguments = json!({"sql": "select 1", "options": {"limit": 5, "filter": {"a": [{"b": null}]}}, "list": [{"x": 1}]});
        let call = json!({"name": "query", "arguments": arguments});
        let server = json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}, "health": {"toolCall": call}}});
        let kept = space.create::<McpServer>(server).await?;
        let kept = kept.spec.health.tool_call.expect("it was given").arguments;
        assert_eq!(serde_json::Value::Object(kept), arguments);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_server_cannot_change_between_container_stdio_and_remote() {
    with_space(|space| async move {
        let server = json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}});
        space.create::<McpServer>(server).await?;
        for other in [
            json!({"container": null, "remote": {"url": "https://example.com/mcp"}}),
            json!({"container": null, "stdio": {"command": "npx", "args": ["a"]}}),
        ] {
            let refused = space.edit::<McpServer>("s", json!({"spec": other})).await.unwrap_err().to_string();
            assert!(refused.contains("cannot change between container, stdio and remote"), "{refused}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_server_on_standard_input_and_output_that_could_not_run_is_refused() {
    with_space(|space| async move {
        let stdio = |stdio: serde_json::Value| json!({"container": null, "stdio": stdio});
        let npx = |more: serde_json::Value| {
            let mut npx = json!({"command": "npx", "args": ["-y", "a@1.0.0"]});
            npx.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            npx
        };
        let cached = npx(json!({"cache": {"size": "1Gi"}}));
        let with = |spec: serde_json::Value, more: serde_json::Value| {
            let mut spec = spec;
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        for (change, says) in [
            (stdio(json!({})), "spec.stdio.command: Required value"),
            (stdio(json!({"command": "", "image": "a:1"})), "command is one program without arguments"),
            (stdio(json!({"command": "npx -y a", "image": "a:1"})), "command is one program without arguments"),
            (stdio(json!({"command": "npx"})), "stdio.args must name the package"),
            (stdio(json!({"command": "uvx", "args": []})), "stdio.args must name the package"),
            (stdio(json!({"command": "/usr/bin/npx", "args": ["a"]})), "set stdio.image"),
            (stdio(json!({"command": "run", "image": " "})), "image must name a container image"),
            (stdio(json!({"command": "run", "image": "a:1", "cache": {"size": "1Gi"}})), "stdio.cache holds what npx or uvx install"),
            (stdio(npx(json!({"cache": {"size": "0"}}))), "stdio.cache.size must be a size in bytes"),
            (stdio(npx(json!({"cache": {}}))), "spec.stdio.cache.size: Required value"),
            (stdio(npx(json!({"maxSessions": 4}))), "set stdio.sessions to PerSession"),
            (stdio(npx(json!({"sessions": "Shared", "sessionIdleSeconds": 60}))), "set stdio.sessions to PerSession"),
            (stdio(npx(json!({"sessions": "PerSession", "maxSessions": 0}))), "spec.stdio.maxSessions"),
            (stdio(npx(json!({"sessions": "Both"}))), r#"supported values: "Shared", "PerSession""#),
            (with(stdio(cached.clone()), json!({"replicas": 2})), "spec.stdio.cache is one volume with one writer"),
            (with(stdio(npx(json!({}))), json!({"remote": {"url": "https://example.com/mcp"}})), "set exactly one of"),
            (
                with(stdio(npx(json!({}))), json!({"podTemplate": {"initContainers": [{"name": "mcp-install", "image": "a:1"}]}})),
                "must not be called mcp",
            ),
            (
                with(
                    stdio(npx(json!({}))),
                    json!({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/mcpfleet/bin"}]}),
                ),
                "must not be at /tmp",
            ),
            (with(stdio(npx(json!({}))), json!({"storage": {"size": "1Gi", "mountPath": "/mcpfleet/x"}})), "not below /mcpfleet"),
        ] {
            let refused = space.create::<McpServer>(server(&change)).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{change}: {refused}");
        }

        space.create::<McpServer>(server(&stdio(cached))).await?;
        for (change, says) in [
            (json!(null), "spec.stdio.cache cannot be removed"),
            (json!({"size": "512Mi"}), "stdio.cache.size grows and never shrinks"),
            (json!({"storageClassName": "fast"}), "stdio.cache.storageClassName cannot be changed"),
        ] {
            let patch = json!({"spec": {"stdio": {"cache": change}}});
            let refused = space.edit::<McpServer>("s", patch).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{change}: {refused}");
        }
        space.edit::<McpServer>("s", json!({"spec": {"stdio": {"cache": {"size": "2Gi"}}}})).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn bounds_that_cannot_be_kept_are_refused() {
    with_space(|space| async move {
        let in_pods = json!({"container": {"image": "a/b:1"}});
        let stored = json!({"container": {"image": "a/b:1"}, "storage": {"size": "1Gi", "mountPath": "/data"}});
        let cached = json!({"stdio": {"command": "npx", "args": ["a@1.0.0"], "cache": {"size": "1Gi"}}});
        let remote = json!({"remote": {"url": "https://example.com/mcp"}});
        let cases = [
            (&in_pods, json!({}), "spec.autoscaling.maxReplicas"),
            (&in_pods, json!({"minReplicas": 3, "maxReplicas": 2}), "must not be above autoscaling.maxReplicas"),
            (&in_pods, json!({"maxReplicas": 0}), "should be greater than or equal to 1"),
            (&in_pods, json!({"maxReplicas": 2, "callsInFlight": 0}), "should be greater than or equal to 1"),
            (&in_pods, json!({"minReplicas": 1, "maxReplicas": 2, "idleSeconds": 900}), "set minReplicas to 0"),
            (&stored, json!({"maxReplicas": 2}), "set spec.autoscaling.maxReplicas to 1"),
            (&cached, json!({"maxReplicas": 2}), "set spec.autoscaling.maxReplicas to 1"),
            (&remote, json!({"maxReplicas": 2}), "a remote server has none here"),
        ];
        for (spec, autoscaling, says) in cases {
            let mut spec = spec.clone();
            spec["autoscaling"] = autoscaling;
            let server = json!({"metadata": {"name": "s"}, "spec": spec});
            let refused = space.create::<McpServer>(server).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{spec}: {refused}");
        }
        for (name, mut spec, most) in [("wide", in_pods, 5), ("stored", stored, 1)] {
            spec["autoscaling"] = json!({"maxReplicas": most});
            let server = space.create::<McpServer>(json!({"metadata": {"name": name}, "spec": spec})).await?;
            let autoscaling = server.spec.autoscaling.unwrap();
            assert_eq!((autoscaling.min_replicas, autoscaling.calls_in_flight), (1, 8));
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_name_too_long_for_a_service_is_refused() {
    with_space(|space| async move {
        for name in ["a".repeat(60), "with.dot".into(), "1st".into()] {
            let server = json!({"metadata": {"name": name}, "spec": {"container": {"image": "a/b:1"}}});
            let refused = space.create::<McpServer>(server).await.unwrap_err().to_string();
            assert!(refused.contains("at most 59 characters"), "{refused}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_url_with_credentials_is_refused() {
    with_space(|space| async move {
        let server = json!({"metadata": {"name": "s"}, "spec": {"remote": {"url": "https://user:secret@example.com/mcp"}}});
        let refused = space.create::<McpServer>(server).await.unwrap_err().to_string();
        assert!(refused.contains("without user, password or fragment"), "{refused}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn volumes_that_could_not_be_mounted_are_refused() {
    with_space(|space| async move {
        let volumes = |names: &[&str]| names.iter().map(|name| json!({"name": name, "emptyDir": {}})).collect::<Vec<_>>();
        let mount = |name: &str, path: &str| json!([{"name": name, "mountPath": path}]);
        let storage = json!({"size": "1Gi", "mountPath": "/data"});
        for (change, says) in [
            (json!({"volumes": volumes(&["a"]), "volumeMounts": mount("b", "/b")}), "must name one of spec.volumes"),
            (json!({"volumeMounts": mount("tmp", "/b")}), "must name one of spec.volumes"),
            (json!({"volumes": volumes(&["a", "a"])}), "duplicate entries for key"),
            (
                json!({"volumes": volumes(&["a"]), "volumeMounts": [mount("a", "/a")[0], mount("a", "/a")[0]]}),
                "duplicate entries for key",
            ),
            (json!({"volumes": volumes(&["data"])}), "must not be called tmp, home, data"),
            (json!({"volumes": volumes(&["a"]), "volumeMounts": mount("a", "/tmp/")}), "must not be at /tmp"),
            (
                json!({"volumes": volumes(&["a"]), "volumeMounts": mount("a", "/data/"), "storage": storage}),
                "spec.storage.mountPath holds the volume",
            ),
            (json!({"storage": {"size": "1Gi", "mountPath": "/tmp"}}), "other than '/', '/tmp' and '/home/mcp'"),
            (json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}), "must not hold a hostPath"),
            (
                json!({"container": null, "remote": {"url": "https://example.com/mcp"}, "serviceAccountName": "a"}),
                "a remote server has none here",
            ),
        ] {
            let refused = space.create::<McpServer>(server(&change)).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{change}: {refused}");
        }
        let refused = space.create::<McpApp>(app(&json!({"volumes": volumes(&["config"])}))).await.unwrap_err().to_string();
        assert!(refused.contains("must not be called tmp, config, model, access, servers"), "{refused}");
        let mounted = json!({"volumes": volumes(&["a"]), "volumeMounts": mount("a", "/app/config")});
        let refused = space.create::<McpApp>(app(&mounted)).await.unwrap_err().to_string();
        assert!(refused.contains("must not be at /tmp, /app/config"), "{refused}");

        let well = json!({
            "volumes": volumes(&["a", "b"]), "volumeMounts": [mount("a", "/a")[0], mount("a", "/data/a")[0]], "storage": storage,
        });
        let made = space.create::<McpServer>(server(&well)).await?;
        assert_eq!(made.spec.pod.volumes.len(), 2);
        Ok(())
    })
    .await;
}

/// A server in a container, with this beside it or instead of it.
fn server(change: &serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"container": {"image": "a/b:1"}});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"metadata": {"name": "s"}, "spec": spec})
}

fn remote(change: &serde_json::Value) -> serde_json::Value {
    let mut remote = server(change);
    let spec = remote["spec"].as_object_mut().unwrap();
    spec.remove("container");
    spec.entry("remote").or_insert_with(|| json!({"url": "https://example.com/mcp"}));
    remote
}

/// Creates it as `kubectl create` does: what a server-side apply merges before it validates is seen here as it was written.
async fn refused<K>(space: &Space, object: serde_json::Value) -> String
where
    K: kube::Resource<DynamicType = ()>,
{
    let mut object = object;
    object["apiVersion"] = json!(K::api_version(&()));
    object["kind"] = json!(K::kind(&()));
    refusal(space, &serde_json::from_value(object).unwrap()).await
}

#[tokio::test]
async fn a_name_twice_in_a_list_is_refused() {
    with_space(|space| async move {
        let named = |name: &str| json!({"name": name, "image": "a/b:1"});
        let spread = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
        for (field, change) in [
            ("spec.env", json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]})),
            ("spec.imagePullSecrets", json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]})),
            (
                "spec.podTemplate.topologySpreadConstraints",
                json!({"podTemplate": {"topologySpreadConstraints": [spread, spread]}}),
            ),
            ("spec.podTemplate.hostAliases", json!({"podTemplate": {"hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]}})),
            ("spec.podTemplate.sidecars", json!({"podTemplate": {"sidecars": [named("a"), named("a")]}})),
            ("spec.podTemplate.initContainers", json!({"podTemplate": {"initContainers": [named("a"), named("a")]}})),
            (
                "spec.podTemplate.sidecars[0].env",
                json!({"podTemplate": {"sidecars": [{"name": "a", "image": "a/b:1", "env": [{"name": "A"}, {"name": "A"}]}]}}),
            ),
        ] {
            for sentence in [refused::<McpServer>(&space, server(&change)).await, refused::<McpApp>(&space, app(&change)).await] {
                assert!(sentence.contains(&format!("{field}[1]: Duplicate value")), "{field}: {sentence}");
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_header_or_a_server_twice_is_refused() {
    with_space(|space| async move {
        let header = |name: &str| json!({"name": name, "secretKeyRef": {"name": "s", "key": "k"}});
        for names in [["X-Key", "X-Key"], ["X-Key", "x-key"]] {
            let headers = names.map(header);
            let remote = remote(&json!({"remote": {"url": "https://example.com/mcp", "headersFrom": headers}}));
            let container = server(&json!({"container": {"image": "a/b:1", "headersFrom": headers}}));
            for sentence in [refused::<McpServer>(&space, remote).await, refused::<McpServer>(&space, container).await] {
                assert!(
                    sentence.contains("headersFrom must name each header once") || sentence.contains("headersFrom[1]: Duplicate"),
                    "{sentence}"
                );
            }
        }
        let host = remote(&json!({"remote": {"url": "https://example.com/mcp", "headersFrom": [header("Host")]}}));
        let sentence = refused::<McpServer>(&space, host).await;
        assert!(sentence.contains("must not be a header of HTTP or MCP itself"), "{sentence}");
        let sentence = refused::<McpApp>(&space, app(&json!({"servers": [{"name": "s"}, {"name": "s"}]}))).await;
        assert!(sentence.contains("spec.servers must name each McpServer once"), "{sentence}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn quantities_are_strings_or_numbers_and_nothing_else() {
    with_space(|space| async move {
        for (name, value) in [
            ("memory", json!("512MB")),
            ("memory", json!("400m")),
            ("memory", json!("-1Gi")),
            ("memory", json!("1 Gi")),
            ("memory", json!(-1)),
            ("memory", json!(true)),
            ("memory", json!({})),
            ("memory", json!(["1Gi"])),
            ("memory", json!("")),
            ("cpu", json!("lots")),
            ("cpu", json!("1core")),
            ("cpu", json!("0,5")),
            ("cpu", json!(-0.5)),
            ("ephemeral-storage", json!("1GB")),
        ] {
            for kind in ["limits", "requests"] {
                let change = json!({"resources": {kind: {name: value}}});
                let sentence = refused::<McpServer>(&space, server(&change)).await;
                assert!(sentence.contains(&format!("spec.resources.{kind}.{name}")), "{change}: {sentence}");
            }
        }
        for (number, limits) in [
            json!({"cpu": 0.5, "memory": "512Mi"}),
            json!({"cpu": "500m", "memory": 536_870_912}),
            json!({"cpu": 2, "memory": "1e9"}),
            json!({"cpu": ".5", "memory": "1.Gi"}),
            json!({"cpu": "100000u", "memory": "5."}),
            json!({"cpu": "500000000n"}),
            json!({"cpu": "0.25", "memory": "1.5Gi", "nvidia.com/gpu": 1, "hugepages-2Mi": "4Mi"}),
        ]
        .into_iter()
        .enumerate()
        {
            let mut server = server(&json!({"resources": {"limits": limits}}));
            server["metadata"]["name"] = json!(format!("s{number}"));
            let made = space.create::<McpServer>(server).await?;
            assert_eq!(made.spec.pod.resources.unwrap().limits.len(), limits.as_object().unwrap().len());
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn storage_grows_keeps_its_class_and_stays() {
    with_space(|space| async move {
        let storage = |size: &str| json!({"size": size, "mountPath": "/data"});
        space.create::<McpServer>(server(&json!({"storage": storage("1Gi")}))).await?;
        for (change, says) in [
            (storage("1000Mi"), "storage.size grows and never shrinks"),
            (storage("500Mi"), "storage.size grows and never shrinks"),
            (storage("0"), "storage.size must be a size in bytes"),
            (storage("1GB"), "storage.size must be a size in bytes"),
            (json!({"storageClassName": "fast"}), "storage.storageClassName cannot be changed"),
            (json!(null), "spec.storage cannot be removed"),
        ] {
            let sentence = space.edit::<McpServer>("s", json!({"spec": {"storage": change}})).await.unwrap_err().to_string();
            assert!(sentence.contains(says), "{change}: {sentence}");
        }
        for size in ["1024Mi", "1Gi", "1.5Gi", "2Gi", "3e9", "+4Gi", "7Ei"] {
            space.edit::<McpServer>("s", json!({"spec": {"storage": storage(size)}})).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_kubernetes_takes_is_taken() {
    with_space(|space| async move {
        let headers = json!([{"name": "X-Api-Key", "secretKeyRef": {"name": "s", "key": "k"}}]);
        let mount = |path: &str| {
            let mounts = json!([{"name": "a", "mountPath": path, "subPath": "", "subPathExpr": "$(POD)/x"}]);
            json!({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": mounts})
        };
        let storage = |more: serde_json::Value| {
            let mut storage = json!({"size": 10_737_418_240_u64, "mountPath": "/data/"});
            storage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"storage": storage})
        };
        let path = |path: &str| json!({"container": {"image": "a/b:1", "path": path, "headersFrom": headers}});
        let servers = [
            storage(json!({})),
            storage(json!({"storageClassName": ""})),
            storage(json!({"mountPath": "/var/lib/..data"})),
            mount("/a/.hidden/...three"),
            mount("relative"),
            mount("/tmpfs/"),
            path("/"),
            path("/a%2Fb/ü"),
        ];
        let url = |url: &str| json!({"remote": {"url": url}});
        let remotes = [
            "http://[::1]/mcp",
            "http://[2001:db8::7:1]:8080/mcp?x=1",
            "http://[1:2:3:4:5:6:7:8]/",
            "http://[::ffff:10.0.0.1]/mcp",
            "http://[64:ff9b::10.0.0.1]",
            "https://10.20.30.40:443/mcp",
            "https://10.example.com/1.2.3",
            "https://example.c0m/mcp",
            "https://bücher.example./mcp",
            "http://local-name:8080",
        ];
        let objects = servers.iter().map(server).chain(remotes.map(|given| remote(&url(given))));
        for (number, mut object) in objects.enumerate() {
            object["metadata"]["name"] = json!(format!("s{number}"));
            let made = space.create::<McpServer>(object.clone()).await;
            assert!(made.is_ok(), "{object}: {made:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_only_pods_have_is_refused_for_a_remote_server() {
    with_space(|space| async move {
        for change in [
            json!({"replicas": 0}),
            json!({"sessionAffinity": "None"}),
            json!({"storage": {"size": "1Gi", "mountPath": "/data"}}),
            json!({"env": [{"name": "A"}]}),
            json!({"securityContext": {}}),
            json!({"imagePullPolicy": "Always"}),
            json!({"automountServiceAccountToken": false}),
            json!({"terminationGracePeriodSeconds": 10}),
            json!({"progressDeadlineSeconds": 60}),
            json!({"podTemplate": {"runtimeClassName": "gvisor"}}),
            json!({"network": {}}),
        ] {
            let sentence = refused::<McpServer>(&space, remote(&change)).await;
            assert!(sentence.contains("a remote server has none here: remove them"), "{change}: {sentence}");
        }
        for change in [
            json!({"health": {"startupSeconds": 10}}),
            json!({"health": {"restartAfterSeconds": 0}}),
            json!({"tools": {"policy": "Enforce"}}),
        ] {
            let sentence = refused::<McpServer>(&space, remote(&change)).await;
            assert!(sentence.contains("act on pods, and a remote server has none here"), "{change}: {sentence}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn fields_have_the_lengths_and_the_words_that_kubernetes_takes() {
    with_space(|space| async move {
        for (change, says) in [
            (json!({"description": "a".repeat(2_049)}), "spec.description: Too long"),
            (json!({"version": "1".repeat(129)}), "spec.version: Too long"),
            (json!({"serviceAccountName": "Not_A_Name"}), "spec.serviceAccountName: Invalid value: \"string\": it must be the name of an object of Kubernetes"),
            (json!({"env": [{"name": ""}]}), "spec.env[0].name"),
            (json!({"env": [{"name": "A=B"}]}), "the name of a variable has no '='"),
            (json!({"imagePullPolicy": "Sometimes"}), r#"supported values: "Always", "IfNotPresent", "Never""#),
            (json!({"progressDeadlineSeconds": 0}), "spec.progressDeadlineSeconds"),
            (json!({"securityContext": {"runAsUser": 0}}), "set runAsNonRoot: false, too"),
            (json!({"securityContext": {"runAsUser": -1}}), "spec.securityContext.runAsUser"),
            (json!({"podTemplate": {"metadata": {"labels": {"team": "two words"}}}}), "spec.podTemplate.metadata.labels[team]: Invalid value: \"string\": the value of a label must be"),
            (json!({"podTemplate": {"sidecars": [{"name": "mcp", "image": "a/b:1"}]}}), "must not be called mcp"),
            (json!({"podTemplate": {"sidecars": [{"name": "a"}]}}), "spec.podTemplate.sidecars[0].image: Required value"),
            (
                json!({"podTemplate": {"sidecars": [{"name": "a", "image": "a/b:1"}], "initContainers": [{"name": "a", "image": "a/b:1"}]}}),
                "must have different names",
            ),
        ] {
            let sentence = refused::<McpServer>(&space, server(&change)).await;
            assert!(sentence.contains(says), "{change}: {sentence}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_null_in_the_security_context_stays_a_null() {
    with_space(|space| async move {
        let nulls = json!({"runAsUser": null, "runAsGroup": null, "fsGroup": null});
        let context = |made: &McpServer| serde_json::to_value(made.spec.pod.security_context.as_ref().unwrap()).unwrap();
        let made = space.create::<McpServer>(server(&json!({"securityContext": nulls}))).await?;
        assert_eq!(context(&made), nulls, "by server-side apply");
        let root = json!({"runAsUser": 0, "runAsNonRoot": false, "seLinuxOptions": {"level": "s0:c1,c2"}});
        let made = space.edit::<McpServer>("s", json!({"spec": {"securityContext": root}})).await?;
        assert_eq!(made.spec.pod.security_context.unwrap().run_as_user, operator::crd::security_context::Setting::Set(0));
        let mut other = server(&json!({"securityContext": nulls}));
        other["metadata"]["name"] = json!("created");
        other["apiVersion"] = json!("mcpfleet.dev/v1alpha1");
        other["kind"] = json!("McpServer");
        let made = create(&space, &serde_json::from_value(other)?).await?;
        assert_eq!(made.data["spec"]["securityContext"], nulls, "by a plain create");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_scale_subresource_reads_and_writes_the_replicas() {
    with_space(|space| async move {
        space.create::<McpServer>(server(&json!({}))).await?;
        let servers = space.api::<McpServer>();
        for replicas in [3, 0, 1] {
            let patch = json!({"spec": {"replicas": replicas}});
            let scale = servers.patch_scale("s", &PatchParams::default(), &Patch::Merge(&patch)).await?;
            // None is 0: what is empty is left out.
            assert_eq!(scale.spec.and_then(|spec| spec.replicas).unwrap_or_default(), replicas);
        }
        let status = json!({"status": {"replicas": 1, "selector": "app.kubernetes.io/instance=s"}});
        servers.patch_status("s", &PatchParams::default(), &Patch::Merge(&status)).await?;
        let status = servers.get_scale("s").await?.status.unwrap();
        assert_eq!((status.replicas, status.selector.as_deref()), (1, Some("app.kubernetes.io/instance=s")));
        Ok(())
    })
    .await;
}

fn app(change: &serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"servers": [{"name": "s"}], "replicas": 2,
        "model": {"name": "m", "apiKeySecretRef": {"name": "k", "key": "api-key"}}});
    for (field, value) in change.as_object().into_iter().flatten() {
        match (spec[field].as_object_mut(), value.as_object()) {
            (Some(known), Some(more)) => known.extend(more.clone()),
            _ => spec[field] = value.clone(),
        }
    }
    json!({"metadata": {"name": "app"}, "spec": spec})
}

#[tokio::test]
async fn an_app_whose_model_or_budget_cannot_work_is_refused() {
    with_space(|space| async move {
        for (change, says) in [
            (json!({"budget": {"tokensPerDay": 1}}), "must be at least replicas"),
            (json!({"budget": {"tokensPerDay": 0}}), "greater than or equal to 1"),
            (json!({"budget": {"alertPercent": 80}}), "spec.budget.tokensPerDay: Required value"),
            (json!({"budget": {"tokensPerDay": 100, "alertPercent": 101}}), "less than or equal to 100"),
            (json!({"model": {"fallback": "m"}}), "must be another model than model.name"),
            (json!({"model": {"contextTokens": 4096}}), "must be more than model.maxTokens"),
            (json!({"model": {"api": "Gemini"}}), r#"supported values: "Anthropic", "OpenAI""#),
            (json!({"approvals": "Sometimes"}), r#"supported values: "Ask", "Always", "Never""#),
            (json!({"cacheSeconds": 0}), "greater than or equal to 1"),
            (json!({"model": {"apiKeySecretRef": null}}), "set model.apiKeySecretRef to the Secret with the API key"),
            (json!({"servers": [{"name": "s", "tools": {"allow": []}}]}), "should have at least 1 items"),
            (json!({"servers": [{"name": "s", "tools": {"approvals": "Perhaps"}}]}), r#"supported values: "Ask", "Always", "Never""#),
            (json!({"access": {"allowedHosts": ["https://chat.example.com"]}}), "spec.access.allowedHosts[0]"),
            (json!({"access": {"trustedProxies": ["proxy"]}}), "spec.access.trustedProxies[0]"),
        ] {
            let refused = space.create::<McpApp>(app(&change)).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{change}: {refused}");
        }
        let whole = json!({
            "budget": {"tokensPerDay": 2}, "approvals": "Never", "cacheSeconds": 60,
            "model": {"api": "OpenAI", "fallback": "n", "baseUrl": "http://vllm:8000/v1", "contextTokens": 32_768},
        });
        let own = json!({
            "model": {"apiKeySecretRef": null, "baseUrl": "http://vllm:8000/v1", "api": "OpenAI"},
            "servers": [{"selector": {"matchLabels": {"team": "data"}}, "tools": {"allow": ["read_*"], "deny": ["*"], "approvals": "Never"}}],
            "access": {"allowedHosts": ["chat.example.com"], "trustedProxies": ["10.0.0.0/8", "fd00::1"]},
        });
        space.create::<McpApp>(app(&own)).await?;
        space.api::<McpApp>().delete("app", &kube::api::DeleteParams::default()).await?;
        let made = space.create::<McpApp>(app(&whole)).await?;
        assert_eq!(made.spec.budget.map(|budget| (budget.tokens_per_day, budget.alert_percent)), Some((2, 80)));
        Ok(())
    })
    .await;
}

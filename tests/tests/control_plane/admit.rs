//! What the API server refuses at `kubectl apply`, and the sentence that it says.

use kube::{
    Api,
    api::{DynamicObject, PostParams},
    core::GroupVersionKind,
    discovery::ApiResource,
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::{McpApp, McpServer};
use serde::Deserialize;
use serde_json::json;

const EXAMPLES: [&str; 2] = [include_str!("../../manifests/sqlite.yaml"), include_str!("../../manifests/chat.yaml")];

/// Every document of bad.yaml with what its refusal must say.
const BAD: [(&str, &str); 10] = [
    ("bad-none", "set exactly one of spec.container"),
    ("bad-both", "set exactly one of spec.container"),
    ("bad-port", "spec.container.port in body should be less than or equal to 65535"),
    ("bad-path", "path must begin with '/'"),
    ("bad-image", "image must name a container image"),
    ("bad-interval", "spec.health.intervalSeconds in body should be greater than or equal to 1"),
    ("bad-timeout-longer-than-interval", "lower timeoutSeconds or raise intervalSeconds"),
    ("bad-rwo-storage-with-replicas", "set spec.replicas to 1, or remove spec.storage"),
    ("bad-no-model", "spec.model: Required value"),
    ("bad-server-both", "set exactly one of name (one McpServer) and selector"),
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
async fn a_server_cannot_change_between_container_and_remote() {
    with_space(|space| async move {
        let server = json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}});
        space.create::<McpServer>(server).await?;
        let patch = json!({"spec": {"container": null, "remote": {"url": "https://example.com/mcp"}}});
        let refused = space.edit::<McpServer>("s", patch).await.unwrap_err().to_string();
        assert!(refused.contains("cannot change between container and remote"), "{refused}");
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
        let server = |change: &serde_json::Value| {
            let mut spec = json!({"container": {"image": "a/b:1"}});
            spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"metadata": {"name": "s"}, "spec": spec})
        };
        for (change, says) in [
            (json!({"volumes": volumes(&["a"]), "volumeMounts": mount("b", "/b")}), "must name one of spec.volumes"),
            (json!({"volumeMounts": mount("tmp", "/b")}), "must name one of spec.volumes"),
            (json!({"volumes": volumes(&["a", "a"])}), "duplicate entries for key"),
            (
                json!({"volumes": volumes(&["a"]), "volumeMounts": [mount("a", "/a")[0], mount("a", "/a")[0]]}),
                "duplicate entries for key",
            ),
            (json!({"volumes": volumes(&["data"])}), "must not be called tmp, data"),
            (json!({"volumes": volumes(&["a"]), "volumeMounts": mount("a", "/tmp/")}), "must not be at /tmp"),
            (
                json!({"volumes": volumes(&["a"]), "volumeMounts": mount("a", "/data/"), "storage": storage}),
                "spec.storage.mountPath holds the volume",
            ),
            (json!({"storage": {"size": "1Gi", "mountPath": "/tmp"}}), "other than '/' and '/tmp'"),
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
        ] {
            let refused = space.create::<McpApp>(app(&change)).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{change}: {refused}");
        }
        let whole = json!({
            "budget": {"tokensPerDay": 2}, "approvals": "Never", "cacheSeconds": 60,
            "model": {"api": "OpenAI", "fallback": "n", "baseUrl": "http://vllm:8000/v1", "contextTokens": 32_768},
        });
        let made = space.create::<McpApp>(app(&whole)).await?;
        assert_eq!(made.spec.budget.map(|budget| (budget.tokens_per_day, budget.alert_percent)), Some((2, 80)));
        Ok(())
    })
    .await;
}

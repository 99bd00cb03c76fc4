//! Whose a child is, what becomes of one that is not wanted any more, and of one that others write, too.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
    events::v1::Event,
    networking::v1::NetworkPolicy,
    storage::v1::StorageClass,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use mcpfleet_tests::{
    audit,
    cluster::{Space, is_told, with_space},
    mcp::FakeServer,
    pods,
};
use operator::{
    conditions,
    config::RunConfig,
    crd::{McpApp, McpServer, reason},
    names::Component,
    network::Unsaid,
};
use serde_json::json;

use crate::reconcile::{app, ready_is, reason_of};

/// For so long two operators that rest write nothing.
const QUIET: Duration = Duration::from_secs(5);

fn container(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {"container": {"image": "a/b:1"}}})
}

fn stalled(server: &McpServer) -> Option<(String, String)> {
    reason_of(&server.status.as_ref()?.conditions, "Stalled")
}

/// What Events of this reason say.
pub async fn events(space: &Space, reason: &str) -> anyhow::Result<Vec<String>> {
    let all = space.api::<Event>().list(&ListParams::default()).await?;
    Ok(all.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).filter_map(|event| event.note).collect())
}

/// Deletes a CR and leaves its children, as `kubectl delete --cascade=orphan` does. There is no garbage collector here that would take
/// the owner references away.
async fn orphan<K>(space: &Space, name: &str, children: &[&str]) -> anyhow::Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    space
        .api::<K>()
        .delete(name, &DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() })
        .await?;
    space.until_gone::<K>(name).await?;
    let nobody = json!({"metadata": {"ownerReferences": null}});
    for child in children {
        space.edit::<Deployment>(child, nobody.clone()).await?;
        space.edit::<Service>(child, nobody.clone()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn orphans_are_adopted_with_their_pods() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(container("s")).await?;
        app(&space, json!([{"name": "s"}])).await?;
        let before = space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        space.until::<Deployment>("chat-app", "the app's Deployment", |_| true).await?;
        let token = space.until::<Secret>("chat-app", "the token", |_| true).await?;
        space.until::<McpServer>("s", "a status", is_told).await?;
        space.until::<McpApp>("chat", "a status", is_told).await?;
        orphan::<McpServer>(&space, "s", &["s-mcp"]).await?;
        orphan::<McpApp>(&space, "chat", &["chat-app"]).await?;
        let nobody = json!({"metadata": {"ownerReferences": null}});
        space.edit::<Secret>("chat-app", nobody.clone()).await?;
        space.edit::<ConfigMap>("chat-app", nobody.clone()).await?;
        space.edit::<NetworkPolicy>("s-mcp", nobody.clone()).await?;
        space.edit::<NetworkPolicy>("chat-app", nobody).await?;

        let anew = space.create::<McpServer>(container("s")).await?;
        let app = app(&space, json!([{"name": "s"}])).await?;
        let owned_by = |owner: Option<String>| move |owners: &[_]| matches!(owners, [one] if owner == Some(uid(one)));
        let mine = owned_by(anew.uid());
        let adopted = space.until::<Deployment>("s-mcp", "an owner", |found| mine(found.owner_references())).await?;
        let template = |deployment: &Deployment| deployment.spec.as_ref().map(|spec| spec.template.clone());
        assert_eq!((adopted.uid(), template(&adopted)), (before.uid(), template(&before)), "the pods stay");
        let apps = owned_by(app.uid());
        space.until::<Deployment>("chat-app", "an owner", |found| apps(found.owner_references())).await?;
        let kept = space.until::<Secret>("chat-app", "an owner", |found| apps(found.owner_references())).await?;
        assert_eq!(kept.data, token.data, "whoever has the token still gets in");
        let told = space.until::<McpServer>("s", "a status", is_told).await?;
        assert_eq!(stalled(&told), Some(("False".into(), reason::AVAILABLE.into())));
        operator.stop().await
    })
    .await;
}

fn uid(owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference) -> String {
    owner.uid.clone()
}

#[tokio::test]
async fn a_child_of_a_predecessor_is_waited_for_and_holds_up_nobody() {
    with_space(|space| async move {
        // What the garbage collector has not come to yet.
        let labels = operator::names::Component::Server.labels("s");
        let owner =
            json!([{"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "s", "uid": "gone", "controller": true}]);
        let service =
            json!({"metadata": {"name": "s-mcp", "labels": labels, "ownerReferences": owner}, "spec": {"ports": [{"port": 1}]}});
        space.create::<Service>(service).await?;
        let operator = space.operator().await?;
        let server = space.create::<McpServer>(container("s")).await?;
        space.until::<Deployment>("s-mcp", "the Deployment, which nobody holds up", |_| true).await?;
        let waits = |server: &McpServer| {
            let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            reason_of(conditions, "Reconciling") == Some(("True".into(), reason::PREDECESSOR_GOING.into()))
        };
        let told = space.until::<McpServer>("s", "a wait", waits).await?;
        assert_eq!(stalled(&told), Some(("False".into(), reason::AVAILABLE.into())));
        assert!(events(&space, reason::NAME_CONFLICT).await?.is_empty());

        space.api::<Service>().delete("s-mcp", &DeleteParams::default()).await?;
        let owner = server.uid();
        space.until::<Service>("s-mcp", "its own Service", |service| Some(uid(&service.owner_references()[0])) == owner).await?;
        operator.stop().await
    })
    .await;
}

/// How soon it is seen that a name is free: nothing watches what others make.
const SOON: Duration = Duration::from_secs(12);

#[tokio::test]
async fn a_name_that_was_taken_is_taken_up_soon_after_it_is_free() {
    with_space(|space| async move {
        space.create::<Service>(json!({"metadata": {"name": "s-mcp"}, "spec": {"ports": [{"port": 1}]}})).await?;
        let operator = space.operator().await?;
        let server = space.create::<McpServer>(container("s")).await?;
        let taken = |server: &McpServer| stalled(server) == Some(("True".into(), reason::NAME_CONFLICT.into()));
        space.until::<McpServer>("s", "NameConflict", taken).await?;
        space.api::<Service>().delete("s-mcp", &DeleteParams::default()).await?;
        let owner = server.uid();
        let own =
            space.until::<Service>("s-mcp", "its own Service", |service| service.owner_references().first().map(uid) == owner);
        tokio::time::timeout(SOON, own).await.context("the name is free, and nobody sees it")??;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn what_is_no_longer_wanted_goes() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let fake = FakeServer::start().await?;
        space.create::<McpServer>(container("s")).await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<ConfigMap>("s-mcp-tools", "the accepted tools", |_| true).await?;
        space.edit::<McpServer>("s", json!({"spec": {"tools": {"policy": "Ignore"}}})).await?;
        space.until_gone::<ConfigMap>("s-mcp-tools").await?;
        assert!(space.api::<Deployment>().get_opt("s-mcp").await?.is_some());
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_somebody_grew_stays_so_and_holds_up_nobody() {
    with_space(|space| async move {
        let class = json!({
            "metadata": {"name": space.name}, "provisioner": "nobody", "allowVolumeExpansion": true,
        });
        let classes: Api<StorageClass> = Api::all(space.client.clone());
        classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "db"}, "spec": {
            "container": {"image": "a/b:1"}, "storage": {"size": "3Gi", "mountPath": "/data", "storageClassName": space.name},
        }});
        space.create::<McpServer>(server).await?;
        space.until::<PersistentVolumeClaim>("db-mcp", "the claim", |_| true).await?;
        // What the provisioner does.
        let claims = space.api::<PersistentVolumeClaim>();
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}});
        claims.patch_status("db-mcp", &PatchParams::default(), &Patch::Merge(&bound)).await?;
        let size = |claim: &PersistentVolumeClaim| {
            let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
            resources.and_then(|resources| Some(resources.requests.as_ref()?["storage"].0.clone()))
        };
        space.edit::<PersistentVolumeClaim>("db-mcp", json!({"spec": {"resources": {"requests": {"storage": "8Gi"}}}})).await?;
        space.edit::<McpServer>("db", json!({"spec": {"env": [{"name": "A", "value": "1"}]}})).await?;
        let has_env = |deployment: &Deployment| {
            let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            pod.is_some_and(|pod| pod.containers[0].env.iter().flatten().any(|variable| variable.name == "A"))
        };
        space.until::<Deployment>("db-mcp", "the variable", has_env).await?;
        assert_eq!(size(&claims.get("db-mcp").await?).as_deref(), Some("8Gi"));
        let told = space.until::<McpServer>("db", "the edit", |server| {
            server.status.as_ref().is_some_and(|status| status.observed_generation == server.metadata.generation)
        });
        assert_eq!(stalled(&told.await?), Some(("False".into(), reason::AVAILABLE.into())));

        space.edit::<McpServer>("db", json!({"spec": {"storage": {"size": "9Gi"}}})).await?;
        space
            .until::<PersistentVolumeClaim>("db-mcp", "the claim grown by the spec", |claim| {
                size(claim).as_deref() == Some("9Gi")
            })
            .await?;
        classes.delete(&space.name, &DeleteParams::default()).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_claim_whose_class_cannot_grow_is_told_and_the_rest_of_the_edit_goes_on() {
    with_space(|space| async move {
        let class = json!({"metadata": {"name": space.name}, "provisioner": "nobody", "allowVolumeExpansion": false});
        let classes: Api<StorageClass> = Api::all(space.client.clone());
        classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "db"}, "spec": {
            "container": {"image": "a/b:1"}, "storage": {"size": "1Gi", "mountPath": "/data", "storageClassName": space.name},
        }});
        space.create::<McpServer>(server).await?;
        space.until::<PersistentVolumeClaim>("db-mcp", "the claim", |_| true).await?;
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}});
        let claims = space.api::<PersistentVolumeClaim>();
        claims.patch_status("db-mcp", &PatchParams::default(), &Patch::Merge(&bound)).await?;

        let edit = json!({"spec": {"storage": {"size": "2Gi"}, "env": [{"name": "A", "value": "1"}]}});
        space.edit::<McpServer>("db", edit).await?;
        let is_stalled = |server: &McpServer| stalled(server).is_some_and(|(status, _)| status == "True");
        let told = space.until::<McpServer>("db", "Stalled", is_stalled).await?;
        let message = conditions::find(&told.status.unwrap().conditions, "Stalled").unwrap().message.clone();
        assert!(message.contains("PersistentVolumeClaim db-mcp") && message.contains("must support resize"), "{message}");
        let has_env = |deployment: &Deployment| {
            let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            pod.is_some_and(|pod| pod.containers[0].env.iter().flatten().any(|variable| variable.name == "A"))
        };
        space.until::<Deployment>("db-mcp", "the variable", has_env).await?;
        classes.delete(&space.name, &DeleteParams::default()).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_size_in_any_form_and_no_class_are_asked_for_as_they_are_and_stay() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let sizes = [json!(10_737_418_240_u64), json!("+11e9"), json!("1000000000000000000")];
        for (number, size) in sizes.into_iter().enumerate() {
            let name = format!("s{number}");
            let storage = json!({"size": size, "mountPath": "/data", "storageClassName": ""});
            let spec = json!({"container": {"image": "a/b:1"}, "storage": storage});
            space.create::<McpServer>(json!({"metadata": {"name": name}, "spec": spec})).await?;
            let claim = space.until::<PersistentVolumeClaim>(&format!("{name}-mcp"), "the claim", |_| true).await?;
            assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some(""));
            space.until::<Deployment>(&format!("{name}-mcp"), "the Deployment, which waits for the claim", |_| true).await?;
            // A second pass finds what the first one wrote.
            space.edit::<McpServer>(&name, json!({"spec": {"env": [{"name": "A", "value": "1"}]}})).await?;
            let told = space.until::<McpServer>(&name, "the edit", |server| {
                server.status.as_ref().is_some_and(|status| status.observed_generation == server.metadata.generation)
            });
            assert_eq!(stalled(&told.await?), Some(("False".into(), reason::AVAILABLE.into())), "{size}");
        }
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_claim_of_another_class_is_told_with_both_and_a_way_out() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let storage = json!({"size": "1Gi", "mountPath": "/data", "storageClassName": "new"});
        let cache = json!({"size": "1Gi", "storageClassName": "new"});
        for (name, claim, spec, way_out) in [
            ("db", "db-mcp", json!({"container": {"image": "a/b:1"}, "storage": storage}), "anew with storageClassName: \"old\""),
            (
                "tool",
                "tool-mcp-cache",
                json!({"stdio": {"command": "npx", "args": ["-y", "a@1.0.0"], "cache": cache}}),
                "Delete the claim: it is made anew",
            ),
        ] {
            // As one that outlived a server of the same name.
            let claim = json!({
                "metadata": {"name": claim, "labels": Component::Server.labels(name)},
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "old",
                },
            });
            space.create::<PersistentVolumeClaim>(claim).await?;
            space.create::<McpServer>(json!({"metadata": {"name": name}, "spec": spec})).await?;
            let told = space.until::<McpServer>(name, "Stalled", |server| {
                stalled(server) == Some(("True".into(), reason::APPLY_FAILED.into()))
            });
            let message = conditions::find(&told.await?.status.unwrap().conditions, "Stalled").unwrap().message.clone();
            let both = "is of the storage class old, and the spec asks for the storage class new";
            assert!(message.contains(both) && message.contains(way_out), "{message}");
        }
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_pause_that_is_none_is_told_and_the_children_are_made() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        for name in ["s", "t"] {
            let paused = json!({"mcpfleet.dev/paused": if name == "s" { "yes" } else { "false" }});
            let mut server = container(name);
            server["metadata"]["annotations"] = paused;
            space.create::<McpServer>(server).await?;
            space.until::<Deployment>(&format!("{name}-mcp"), "the Deployment", |_| true).await?;
        }
        let is_told = |server: &McpServer| stalled(server) == Some(("True".into(), reason::INVALID_SPEC.into()));
        let told = space.until::<McpServer>("s", "Stalled", is_told).await?;
        let message = conditions::find(&told.status.unwrap().conditions, "Stalled").unwrap().message.clone();
        assert!(message.contains("the annotation mcpfleet.dev/paused is \"yes\", which pauses nothing"), "{message}");
        space.edit::<McpServer>("s", json!({"metadata": {"annotations": {"mcpfleet.dev/paused": null}}})).await?;
        space.until::<McpServer>("s", "not Stalled", |server| !is_told(server)).await?;
        assert!(!is_told(&space.api::<McpServer>().get("t").await?));
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_claim_without_our_labels_is_left_alone_with_words_fit_for_data() {
    with_space(|space| async move {
        let claim = json!({"metadata": {"name": "db-mcp"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }});
        space.create::<PersistentVolumeClaim>(claim).await?;
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "db"}, "spec": {
            "container": {"image": "a/b:1"}, "storage": {"size": "1Gi", "mountPath": "/data"},
        }});
        space.create::<McpServer>(server).await?;
        let told =
            space.until::<McpServer>("db", "NameConflict", |server| ready_is(server, "False", reason::NAME_CONFLICT)).await?;
        let message = conditions::find(&told.status.unwrap().conditions, "Ready").unwrap().message.clone();
        assert!(message.contains("somebody else's data") && !message.contains("delete"), "{message}");
        space.until::<Service>("db-mcp", "the Service, which nobody holds up", |_| true).await?;
        assert!(space.api::<Deployment>().get_opt("db-mcp").await?.is_none(), "nobody mounts it");
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_child_that_somebody_scales_is_put_back_with_an_event_and_one_that_is_undone_is_left_alone() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(container("s")).await?;
        space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        let replicas = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let mut contested = false;
        for number in 2..20 {
            space.edit::<Deployment>("s-mcp", json!({"spec": {"replicas": number}})).await?;
            // Put back, or not any more: then the server says so.
            let put_back = space.until::<Deployment>("s-mcp", "one pod", |deployment| replicas(deployment) == Some(1));
            let told = space.until::<McpServer>("s", "Contested", |server| {
                stalled(server) == Some(("True".into(), reason::CONTESTED.into()))
            });
            tokio::select! {
                put_back = put_back => drop(put_back?),
                told = told => {
                    let message = conditions::find(&told?.status.unwrap().conditions, "Stalled").unwrap().message.clone();
                    assert!(message.starts_with("spec.replicas of the Deployment s-mcp does not stay"), "{message}");
                    contested = true;
                    break;
                }
            }
        }
        assert!(contested, "twenty writes in a row, each undone");
        let events = events(&space, reason::CORRECTED).await?;
        assert!(events.iter().any(|note| note.contains("kubectl scale mcpserver s")), "{events:?}");
        operator.stop().await
    })
    .await;
}

/// What `kubectl rollout undo` sends: the template of before, and the annotations of before with it, ours among them.
#[tokio::test]
async fn a_rollout_that_somebody_undoes_is_put_back_and_told_with_who_it_was() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let mut server = container("s");
        server["spec"]["env"] = json!([{"name": "LEVEL", "value": "debug"}]);
        space.create::<McpServer>(server).await?;
        let before = space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        let mcp = |deployment: &Deployment| {
            let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            pod.map(|pod| pod.containers[0].clone()).unwrap_or_default()
        };
        let image = |deployment: &Deployment| mcp(deployment).image;
        let has = |deployment: &Deployment, name: &str| mcp(deployment).env.iter().flatten().any(|env| env.name == name);
        let anew = |deployment: &Deployment| image(deployment).as_deref() == Some("a/b:2") && !has(deployment, "LEVEL");
        space.edit::<McpServer>("s", json!({"spec": {"container": {"image": "a/b:2"}, "env": null}})).await?;
        space.until::<Deployment>("s-mcp", "the edit", anew).await?;
        let undo = json!({
            "metadata": {"annotations": before.annotations()}, "spec": {"template": before.spec.context("it has one")?.template},
        });
        let by_kubectl = PatchParams { field_manager: Some("kubectl".into()), ..PatchParams::default() };
        let undone = space.api::<Deployment>().patch("s-mcp", &by_kubectl, &Patch::Merge(&undo)).await?;
        assert_eq!(image(&undone).as_deref(), Some("a/b:1"));
        space.until::<Deployment>("s-mcp", "the edit once more", anew).await?;
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        let told = async {
            loop {
                looks.tick().await;
                let told = events(&space, reason::CORRECTED).await?;
                if !told.is_empty() {
                    return anyhow::Ok(told);
                }
            }
        };
        let told = tokio::time::timeout(SOON, told).await.context("nobody says that it was put back")??;
        assert!(
            told[0].starts_with("kubectl changed spec.template.spec.containers[mcp].image of the Deployment s-mcp"),
            "{told:?}"
        );
        // What is ours is still taken away when we no longer say it.
        for (env, there) in [(json!([{"name": "MORE", "value": "1"}]), true), (json!(null), false)] {
            space.edit::<McpServer>("s", json!({"spec": {"env": env}})).await?;
            space.until::<Deployment>("s-mcp", "the edit of env", |deployment| has(deployment, "MORE") == there).await?;
        }
        // And what would make every apply of ours invalid keeps none away.
        let privileged = json!({"name": "mcp", "securityContext": {"privileged": true, "allowPrivilegeEscalation": true}});
        let theirs = json!({"spec": {"template": {"spec": {"containers": [privileged]}}}});
        space.api::<Deployment>().patch("s-mcp", &by_kubectl, &Patch::Strategic(&theirs)).await?;
        let is_ours =
            |deployment: &Deployment| mcp(deployment).security_context.is_some_and(|context| context.privileged.is_none());
        space.until::<Deployment>("s-mcp", "its own security context", is_ours).await?;
        operator.stop().await
    })
    .await;
}

/// Two releases over one namespace, of which one says another image and no networks: a mistake, which must not become a storm.
#[tokio::test]
async fn two_operators_that_undo_each_other_notice_it_and_rest() {
    with_space(|space| async move {
        let first = space.operator().await?;
        let other = RunConfig {
            chat_worker_image: "ghcr.io/mcpfleet/chat-worker:other".into(),
            servers_network: Unsaid::Open,
            ..space.config()?
        };
        let second = space.start(space.client.clone(), other);
        space.create::<McpServer>(container("s")).await?;
        app(&space, json!([{"name": "s"}])).await?;
        let stalled = |app: &McpApp| reason_of(&app.status.as_ref()?.conditions, "Stalled");
        space.until::<McpApp>("chat", "Contested", |app| stalled(app) == Some(("True".into(), reason::CONTESTED.into()))).await?;
        // Each of the two needs as many writes to notice; then a minute is quiet.
        let (mut before, mut look) = (Vec::new(), tokio::time::interval(QUIET));
        for _ in 0..6 {
            look.tick().await;
            let writes = audit::writes(&space.name)?;
            let new = writes.len() - before.len();
            println!("two operators, in {} s: {:?}", QUIET.as_secs(), audit::summary(&writes[before.len()..]));
            before = writes;
            if new == 0 {
                break;
            }
        }
        anyhow::ensure!(audit::writes(&space.name)?.len() == before.len(), "they go on");
        anyhow::ensure!(before.len() < 150, "{} writes", before.len());
        second.stop().await?;
        first.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_app_without_servers_is_not_ready() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        app(&space, json!([{"selector": {"matchLabels": {"no": "such"}}}])).await?;
        space.until::<Deployment>("chat-app", "the Deployment", |_| true).await?;
        let up = json!({"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}});
        space.api::<Deployment>().patch_status("chat-app", &PatchParams::default(), &Patch::Merge(&up)).await?;
        let ready = |app: &McpApp| reason_of(&app.status.as_ref()?.conditions, "Ready");
        space
            .until::<McpApp>("chat", "NoServers", |app| ready(app) == Some(("False".into(), reason::NO_SERVERS.into())))
            .await?;
        space.secret("anthropic", &[("api-key", " \n")]).await?;
        space
            .until::<McpApp>("chat", "an empty key", |app| ready(app) == Some(("False".into(), reason::SECRET_EMPTY.into())))
            .await?;
        operator.stop().await
    })
    .await;
}

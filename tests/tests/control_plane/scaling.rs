//! Who sets the number of pods, and what follows from it: a budget for disruption, and how they spread.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v1::Scale,
    core::v1::{Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use mcpfleet_tests::{
    cluster::{Space, replica_writers, with_space},
    mcp::FakeServer,
    pods,
};
use operator::{
    conditions,
    crd::{McpApp, McpServer, reason},
};
use serde_json::{Value, json};

use crate::reconcile::{app, ready_is};

/// The budget of a name, once it is there: it lets one pod go, and those of nobody else.
async fn budget(space: &Space, name: &str, component: operator::names::Component, of: &str) -> anyhow::Result<()> {
    let budget = space.until::<PodDisruptionBudget>(name, "the budget", |_| true).await?;
    let spec = serde_json::to_value(budget.spec)?;
    let selector = json!({"matchLabels": component.selector(of)});
    assert_eq!(spec, json!({"maxUnavailable": 1, "selector": selector, "unhealthyPodEvictionPolicy": "AlwaysAllow"}));
    Ok(())
}

#[tokio::test]
async fn two_pods_have_a_budget_and_one_has_none() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let server = json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}, "replicas": 2}});
        space.create::<McpServer>(server).await?;
        budget(&space, "s-mcp", operator::names::Component::Server, "s").await?;
        space.edit::<McpServer>("s", json!({"spec": {"replicas": 1}})).await?;
        space.until_gone::<PodDisruptionBudget>("s-mcp").await?;
        space.edit::<McpServer>("s", json!({"spec": {"replicas": 3}})).await?;
        budget(&space, "s-mcp", operator::names::Component::Server, "s").await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space.until_gone::<PodDisruptionBudget>("s-mcp").await?;

        app(&space, json!([{"name": "s"}])).await?;
        space.edit::<McpApp>("chat", json!({"spec": {"replicas": 2}})).await?;
        budget(&space, "chat-app", operator::names::Component::App, "chat").await?;
        space.edit::<McpApp>("chat", json!({"spec": {"replicas": 1}})).await?;
        space.until_gone::<PodDisruptionBudget>("chat-app").await?;
        operator.stop().await
    })
    .await;
}

fn constraints(deployment: &Deployment) -> Value {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    json!(pod.and_then(|pod| pod.topology_spread_constraints.as_ref()))
}

#[tokio::test]
async fn pods_spread_over_zones_and_nodes_unless_the_spec_says_how_and_scaling_rolls_nothing() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        let one = space.until::<Deployment>("s-mcp", "the Deployment", |_| true).await?;
        let over = |topology: &str| {
            json!({
                "maxSkew": 1, "topologyKey": topology, "whenUnsatisfiable": "ScheduleAnyway", "matchLabelKeys": ["pod-template-hash"],
                "labelSelector": {"matchLabels": operator::names::Component::Server.selector("s")},
            })
        };
        assert_eq!(constraints(&one), json!([over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]));
        space.edit::<McpServer>("s", json!({"spec": {"replicas": 3}})).await?;
        let replicas = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let three = space.until::<Deployment>("s-mcp", "three pods", |deployment| replicas(deployment) == Some(3)).await?;
        assert_eq!(one.spec.map(|spec| spec.template), three.spec.map(|spec| spec.template));

        let own = json!([{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]);
        space.edit::<McpServer>("s", json!({"spec": {"podTemplate": {"topologySpreadConstraints": own}}})).await?;
        space.until::<Deployment>("s-mcp", "the spec's own", |deployment| constraints(deployment) == own).await?;
        operator.stop().await
    })
    .await;
}

async fn put(servers: &Api<McpServer>, mut scale: Scale, replicas: i32) -> kube::Result<Scale> {
    scale.spec.get_or_insert_default().replicas = Some(replicas);
    servers.replace_scale("s", &PostParams::default(), &scale).await
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// What the scale client of client-go does for HPA and KEDA, by all three verbs: down to none and up again, too.
#[tokio::test]
async fn a_client_of_the_scale_alone_sets_the_pods_finds_them_and_is_not_put_back() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        let pods = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let deployment = space.until::<Deployment>("s-mcp", "one pod", |deployment| pods(deployment) == Some(1)).await?;
        // One pod of it, as its ReplicaSet would make it, and one of somebody else.
        let labels = deployment.spec.map(|spec| json!(spec.template.metadata.and_then(|metadata| metadata.labels)));
        for (name, labels) in [("its", labels.unwrap_or_default()), ("other", json!({}))] {
            let pod =
                json!({"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
            space.create::<Pod>(pod).await?;
        }

        let servers = space.api::<McpServer>();
        space
            .until::<McpServer>("s", "its selector", |server| server.status.as_ref().is_some_and(|s| s.selector.is_some()))
            .await?;
        let read = servers.get_scale("s").await?;
        let selector = read.status.clone().and_then(|status| status.selector).unwrap_or_default();
        let found = space.api::<Pod>().list(&ListParams::default().labels(&selector)).await?.items;
        assert_eq!(found.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect::<Vec<_>>(), ["its"], "{selector}");

        // PUT of what was read, as HPA and KEDA write it; PATCH, as kubectl does.
        for replicas in [3, 0, 1] {
            while let Err(error) = put(&servers, servers.get_scale("s").await?, replicas).await {
                // Its status was written meanwhile: they look again, too.
                assert!(is_conflict(&error), "{error}");
            }
            space.until::<Deployment>("s-mcp", "as many as put", |deployment| pods(deployment) == Some(replicas)).await?;
        }
        let late = put(&servers, read, 9).await;
        assert!(late.as_ref().is_err_and(is_conflict), "written over what it has not read: {late:?}");
        let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
        servers.patch_scale("s", &PatchParams::default(), &patch).await?;
        space.until::<Deployment>("s-mcp", "as many as patched", |deployment| pods(deployment) == Some(2)).await?;

        // Neither the pass that followed, nor an operator that starts anew, writes the spec.
        operator.stop().await?;
        let operator = space.operator().await?;
        operator.until_passes(1).await?;
        let server = servers.get("s").await?;
        // (The API server does not always note who set it through the scale of a custom resource.)
        let others: Vec<_> = replica_writers(&server).into_iter().filter(|by| !by.ends_with(" scale")).collect();
        assert_eq!((server.spec.replicas, others), (2, Vec::new()));
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn clients_stay_with_one_of_several_pods_while_the_server_gives_sessions() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let health = json!({"intervalSeconds": 1, "timeoutSeconds": 1});
        let spec = json!({"container": {"image": "a/b:1"}, "replicas": 2, "health": health});
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": spec})).await?;
        let affinity = async |wanted: &str| {
            let of = |service: &Service| service.spec.as_ref().and_then(|spec| spec.session_affinity.clone());
            space.until::<Service>("s-mcp", wanted, |service| of(service).as_deref() == Some(wanted)).await
        };
        affinity("None").await?;
        let fake = FakeServer::start().await?;
        fake.set_legacy();
        pods::run(&space, "s", "s-1", fake.address).await?;
        affinity("ClientIP").await?;
        space.edit::<McpServer>("s", json!({"spec": {"replicas": 1}})).await?;
        affinity("None").await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn where_one_may_write_the_next_pod_waits_until_the_last_one_is_gone() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let spec = json!({"container": {"image": "a/b:1"}, "storage": {"size": "16Mi", "mountPath": "/data"}});
        space.create::<McpServer>(json!({"metadata": {"name": "s"}, "spec": spec})).await?;
        let wanted = async |number: i32| {
            let wanted = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(number);
            space.until::<Deployment>("s-mcp", &format!("{number} pods wanted"), wanted).await
        };
        wanted(1).await?;
        let fake = FakeServer::start().await?;
        pods::run(&space, "s", "s-1", fake.address).await?;
        space.until::<McpServer>("s", "Available", |server| ready_is(server, "True", reason::AVAILABLE)).await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        wanted(0).await?;
        // Its pod takes its time to end, and is wanted again.
        space.edit::<Pod>("s-1", json!({"metadata": {"finalizers": ["example.com/ending"]}})).await?;
        space.api::<Pod>().delete("s-1", &DeleteParams::default()).await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": true}})).await?;
        let waits = |server: &McpServer| {
            let conditions = server.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
            let under_way = conditions::find(conditions, "Reconciling").is_some_and(|found| found.status == "True");
            let told = conditions::find(conditions, "Ready").is_some_and(|ready| ready.message.contains("one may write"));
            told && under_way
        };
        space.until::<McpServer>("s", "waiting for the last pod's end", waits).await?;
        assert_eq!(wanted(0).await?.spec.and_then(|spec| spec.replicas), Some(0));
        space.edit::<Pod>("s-1", json!({"metadata": {"finalizers": null}})).await?;
        wanted(1).await?;
        operator.stop().await
    })
    .await;
}

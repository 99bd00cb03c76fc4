//! The operator as people install it, and what the tests do to it from outside.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::Context;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::wait::await_condition,
};
use mcpfleet_tests::cluster::Space;
use operator::{conditions, crd::McpServer, names};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::processes;

/// Images with the runners of packages, made by `tests/stdio/images.sh`.
pub const NODE: &str = concat!("ghcr.io/mcpfleet/node:", env!("CARGO_PKG_VERSION"));
pub const PYTHON: &str = concat!("ghcr.io/mcpfleet/python:", env!("CARGO_PKG_VERSION"));

/// Where the chart is installed.
pub const OPERATOR_NAMESPACE: &str = "mcpfleet-system";

static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// The project's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a folder of the project").to_owned()
}

/// Runs a program to its end, and gives what it printed.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .with_context(|| format!("{program} does not start"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{program} {arguments:?} failed: {text}");
    Ok(text)
}

/// Installs the chart, once for all tests.
pub async fn install(space: &Space) -> anyhow::Result<()> {
    INSTALLED
        .get_or_try_init(|| async {
            // Nothing waits for minutes here that is to go, and packages run on images of the tests' own where their servers name none.
            let of_packages = [format!("stdio.images.npx={NODE}"), format!("stdio.images.uvx={PYTHON}")];
            upgrade(&["--set", "scaleDownSeconds=20", "--set", &of_packages[0], "--set", &of_packages[1], "--create-namespace"])?;
            let deployments: Api<Deployment> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
            anyhow::ensure!(
                !deployments.list(&ListParams::default()).await?.items.is_empty(),
                "the chart installed no Deployment"
            );
            anyhow::Ok(())
        })
        .await?;
    Ok(())
}

/// Installs the chart, or upgrades it, with these of helm's arguments.
pub fn upgrade(more: &[&str]) -> anyhow::Result<()> {
    let arguments = ["upgrade", "--install", "mcpfleet", "charts/mcpfleet", "--namespace", OPERATOR_NAMESPACE];
    run("helm", &[&arguments[..], more, &["--wait", "--timeout", "2m"]].concat())?;
    Ok(())
}

/// The operator's pods: the activator's are beside them.
pub async fn operator_pods(space: &Space) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
    Ok(pods.list(&ListParams::default().labels("app.kubernetes.io/component=operator")).await?.items)
}

/// Deletes the operator's pod, and waits until another one is ready.
pub async fn restart_operator(space: &Space) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
    for pod in operator_pods(space).await? {
        let name = pod.name_any();
        pods.delete(&name, &DeleteParams::default()).await?;
        let gone = await_condition(pods.clone(), &name, |found: Option<&Pod>| found.is_none());
        tokio::time::timeout(Duration::from_mins(1), gone).await.context("the operator's pod does not end")??;
    }
    run("kubectl", &["rollout", "status", "--namespace", OPERATOR_NAMESPACE, "--timeout=60s", "deployment"])?;
    Ok(())
}

/// What the operator's pods logged.
pub async fn operator_log(space: &Space) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
    let mut log = String::new();
    for pod in operator_pods(space).await? {
        log += &pods.logs(&pod.name_any(), &kube::api::LogParams::default()).await?;
    }
    Ok(log)
}

/// Ready=True.
pub fn ready(server: &McpServer) -> bool {
    let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True")
}

/// The pods of a server.
pub async fn server_pods(space: &Space, server: &str) -> anyhow::Result<Vec<Pod>> {
    pods_of(space, names::Component::Server, server).await
}

/// The pods of a server or of an app.
pub async fn pods_of(space: &Space, component: names::Component, name: &str) -> anyhow::Result<Vec<Pod>> {
    let selector = component.selector(name).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    Ok(space.api::<Pod>().list(&ListParams::default().labels(&selector.join(","))).await?.items)
}

/// Sends a signal to the processes of a pod.
pub fn signal(space: &Space, pod: &str, signal: &str) -> anyhow::Result<()> {
    run("tests/cluster/signal.sh", &[&format!("{}/{pod}", space.name), signal])?;
    Ok(())
}

/// A process of a pod, and through it the pod's own view of its files.
pub async fn files_of(space: &Space, pod: &str, program: &str) -> anyhow::Result<PathBuf> {
    let uid = space.api::<Pod>().get(pod).await?.uid().context("a pod has a uid")?;
    let found = processes::of_pod(&uid, program)?;
    Ok(found.first().with_context(|| format!("pod {pod} has no process on this node"))?.files())
}

/// Where the volume of a claim is on this machine.
pub async fn volume_of(space: &Space, claim: &str) -> anyhow::Result<PathBuf> {
    let volume = space.api::<PersistentVolumeClaim>().get(claim).await?.spec.and_then(|spec| spec.volume_name);
    let volumes: Api<PersistentVolume> = Api::all(space.client.clone());
    let spec = volumes.get(&volume.context("it is bound")?).await?.spec.context("a volume has a spec")?;
    let path = spec.host_path.map(|path| path.path).or_else(|| spec.local.map(|local| local.path));
    Ok(path.context("a directory of this node")?.into())
}

/// Waits until a server has no pod.
pub async fn until_no_pods(space: &Space, server: &str) -> anyhow::Result<()> {
    let gone = async {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while !server_pods(space, server).await?.is_empty() {
            look.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.context("its pods do not go")?
}

/// The addresses that a Service sends clients to.
pub async fn in_service(space: &Space, service: &str) -> anyhow::Result<Vec<String>> {
    let slices = space
        .api::<EndpointSlice>()
        .list(&ListParams::default().labels(&format!("kubernetes.io/service-name={service}")))
        .await?;
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
    Ok(ready.flat_map(|endpoint| endpoint.addresses).collect())
}

/// A SQLite server without a volume, in replicas, that is probed every few seconds.
pub fn sqlite(name: &str, replicas: u32, interval_seconds: u32) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {
        "container": {
            "image": "ghcr.io/mcpfleet/sandbox-server:0.1.0",
            "args": ["serve", "--db", "/tmp/sandbox.db", "--listen", "0.0.0.0:8080"],
        },
        "replicas": replicas,
        "health": {"intervalSeconds": interval_seconds, "timeoutSeconds": 2},
        "circuitBreaker": {"openSeconds": 5},
    }})
}

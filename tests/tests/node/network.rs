//! NetworkPolicies, enforced by the node: for each rule a caller that gets in, and one that does not.

use std::{process::Command, time::Duration};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    crd::{McpApp, McpServer},
    names::Component,
};
use serde_json::{Value, json};

use crate::{
    drills::serves,
    processes,
    setup::{OPERATOR_NAMESPACE, install, pods_of, root, server_pods, sqlite, upgrade},
};

/// How long a policy may take to hold after it was written.
const PATIENCE: Duration = Duration::from_secs(20);
/// A connection that a policy holds up is not refused: it is not answered.
const ANSWER: &str = "2";

/// A pod that only stands there, to call from and to be called.
fn bystander(name: &str, label: &str) -> Value {
    let restricted = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    json!({"metadata": {"name": name, "labels": {"caller": label}}, "spec": {"containers": [{
        "name": "main", "image": "ghcr.io/mcpfleet/sandbox-server:0.1.0", "securityContext": restricted,
        "args": ["serve", "--db", "/tmp/x.db", "--listen", "0.0.0.0:8080"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }]}})
}

/// A pod, to call from.
struct Caller {
    name: String,
    address: String,
    /// The program of ours that runs in it.
    process: String,
}

impl Caller {
    /// The pod, once it is ready.
    async fn of(pods: &Api<Pod>, name: &str, program: &str) -> anyhow::Result<Self> {
        let is_ready = |pod: Option<&Pod>| {
            let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|found| found.type_ == "ContainersReady" && found.status == "True"))
        };
        let ready = kube::runtime::wait::await_condition(pods.clone(), name, is_ready);
        let pod = tokio::time::timeout(Duration::from_mins(1), ready).await.with_context(|| format!("{name} is not ready"))??;
        let pod = pod.context("it is there")?;
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("it has an address")?;
        let running = processes::of_pod(&pod.uid().context("it has a uid")?, program)?;
        let process = running.first().with_context(|| format!("no process of {name} runs {program}"))?.pid().to_owned();
        Ok(Self { name: name.to_owned(), address, process })
    }

    /// Whether it gets a connection there. From its own network, by a shell of this machine: its image has none.
    fn reaches(&self, address: &str, port: u16) -> bool {
        let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
        let shell = ["timeout", ANSWER, "bash", "-c", &connect];
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.process, "--net", "--"]).args(shell).current_dir(root());
        command.output().is_ok_and(|output| output.status.success())
    }

    /// Waits until it does, or does not.
    async fn until(&self, reaches: bool, address: &str, port: u16) -> anyhow::Result<()> {
        let looked = async {
            let mut look = tokio::time::interval(Duration::from_millis(200));
            while self.reaches(address, port) != reaches {
                look.tick().await;
            }
        };
        let hoped = if reaches { "reaches" } else { "does not reach" };
        tokio::time::timeout(PATIENCE, looked).await.with_context(|| format!("not so: {} {hoped} {address}:{port}", self.name))
    }
}

async fn caller(space: &Space, name: &str, label: &str) -> anyhow::Result<Caller> {
    space.create::<Pod>(bystander(name, label)).await?;
    Caller::of(&space.api(), name, "sandbox-server").await
}

fn has_a_pod(app: &McpApp) -> bool {
    app.status.as_ref().and_then(|status| status.pods.as_deref()) == Some("1/1")
}

/// The one pod of a server, or of an app.
async fn only(space: &Space, component: Component, of: &str, program: &str) -> anyhow::Result<Caller> {
    let pod = pods_of(space, component, of).await?.pop().context("it has a pod")?;
    Caller::of(&space.api(), &pod.name_any(), program).await
}

#[tokio::test]
async fn a_server_is_reached_by_the_prober_by_apps_and_by_whom_it_names_and_by_nobody_else() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 1, 2)).await?;
        space.create::<McpApp>(json!({"metadata": {"name": "gate"}, "spec": {"servers": [{"name": "s"}]}})).await?;
        let stranger = caller(&space, "stranger", "stranger").await?;
        let named = caller(&space, "named", "named").await?;
        // Beside the operator, and not it.
        let beside: Api<Pod> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
        beside.create(&kube::api::PostParams::default(), &serde_json::from_value(bystander("beside", "beside"))?).await?;
        let result = async {
            let neighbour = Caller::of(&beside, "beside", "sandbox-server").await?;
            // The prober got in.
            space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
            space.until::<McpApp>("gate", "a pod", has_a_pod).await?;
            let server = only(&space, Component::Server, "s", "sandbox-server").await?;
            let app = only(&space, Component::App, "gate", "chat-worker").await?;

            app.until(true, &server.address, 8080).await?;
            for nobody in [&stranger, &named, &neighbour] {
                nobody.until(false, &server.address, 8080).await?;
            }
            stranger.until(true, &app.address, 8080).await?;
            app_of_elsewhere_reaches_nothing(&server).await;

            let from = json!([
                {"podSelector": {"matchLabels": {"caller": "named"}}},
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": OPERATOR_NAMESPACE}},
                 "podSelector": {"matchLabels": {"caller": "beside"}}},
            ]);
            space.edit::<McpServer>("s", json!({"spec": {"network": {"ingressFrom": from}}})).await?;
            named.until(true, &server.address, 8080).await?;
            neighbour.until(true, &server.address, 8080).await?;
            anyhow::ensure!(!stranger.reaches(&server.address, 8080), "a stranger gets in");

            let gateway = json!({"spec": {"network": {"ingressFrom": [{"podSelector": {"matchLabels": {"caller": "named"}}}]}}});
            space.edit::<McpApp>("gate", gateway).await?;
            stranger.until(false, &app.address, 8080).await?;
            anyhow::ensure!(named.reaches(&app.address, 8080), "whom the app names does not get in");

            let told = space.api::<McpServer>().get("s").await?;
            anyhow::ensure!(serves(&told, "1/1"), "the prober is kept out: {:?}", told.status);
            Ok(())
        }
        .await;
        beside.delete("beside", &DeleteParams::default()).await?;
        result
    })
    .await;
}

/// An app of another namespace: its labels are those of the apps that are let in.
async fn app_of_elsewhere_reaches_nothing(server: &Caller) {
    with_space(|space| async move {
        // A server that there is not is no reason for an app not to run.
        space.create::<McpApp>(json!({"metadata": {"name": "gate"}, "spec": {"servers": [{"name": "s"}]}})).await?;
        space.until::<McpApp>("gate", "a pod", has_a_pod).await?;
        let app = only(&space, Component::App, "gate", "chat-worker").await?;
        app.until(false, &server.address, 8080).await
    })
    .await;
}

#[tokio::test]
async fn where_nothing_is_said_a_fleet_may_be_open() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 1, 2)).await?;
        let mut shut = sqlite("shut", 1, 2);
        shut["spec"]["network"] = json!({});
        space.create::<McpServer>(shut).await?;
        let stranger = caller(&space, "stranger", "stranger").await?;
        for name in ["s", "shut"] {
            space.until::<McpServer>(name, "1/1", |server| serves(server, "1/1")).await?;
        }
        let server = only(&space, Component::Server, "s", "sandbox-server").await?;
        let shut = only(&space, Component::Server, "shut", "sandbox-server").await?;
        for server in [&server, &shut] {
            stranger.until(false, &server.address, 8080).await?;
        }
        let opened = async {
            upgrade(&["--reuse-values", "--set", "servers.network.default=Open"])?;
            stranger.until(true, &server.address, 8080).await?;
            anyhow::ensure!(!stranger.reaches(&shut.address, 8080), "a server that has a network is not open");
            anyhow::Ok(())
        };
        let opened = opened.await;
        upgrade(&["--reuse-values", "--set", "servers.network.default=Restricted"])?;
        opened?;
        stranger.until(false, &server.address, 8080).await
    })
    .await;
}

#[tokio::test]
async fn what_goes_out_goes_where_the_spec_says_and_dns_is_always_there() {
    with_space(|space| async move {
        install(&space).await?;
        let friend = caller(&space, "friend", "friend").await?;
        let stranger = caller(&space, "stranger", "stranger").await?;
        space.create::<McpServer>(sqlite("s", 1, 2)).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        let server = only(&space, Component::Server, "s", "sandbox-server").await?;
        anyhow::ensure!(
            server.reaches(&friend.address, 8080) && server.reaches(&stranger.address, 8080),
            "anywhere, unless told"
        );
        let resolver = std::fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", server.process))?;
        let dns = resolver.lines().find_map(|line| line.strip_prefix("nameserver ")).context("a name server")?.to_owned();

        let to = json!([{"podSelector": {"matchLabels": {"caller": "friend"}}}]);
        let only_there = |ports: Value| json!({"spec": {"network": {"egressTo": to, "egressPorts": ports}}});
        space.edit::<McpServer>("s", only_there(Value::Null)).await?;
        server.until(false, &stranger.address, 8080).await?;
        anyhow::ensure!(server.reaches(&friend.address, 8080), "where the spec says");
        anyhow::ensure!(server.reaches(&dns, 53), "DNS");

        space.edit::<McpServer>("s", only_there(json!([{"port": 443}]))).await?;
        server.until(false, &friend.address, 8080).await?;
        space.edit::<McpServer>("s", only_there(json!([{"port": 8000, "endPort": 8100}]))).await?;
        server.until(true, &friend.address, 8080).await?;

        space.edit::<McpServer>("s", json!({"spec": {"network": {"egressTo": [], "egressPorts": null}}})).await?;
        server.until(false, &friend.address, 8080).await?;
        anyhow::ensure!(server.reaches(&dns, 53), "DNS is still there");
        // Where DNS is not, it is not found.
        let elsewhere = json!({"podSelector": {"matchLabels": {"caller": "nobody"}}});
        space.edit::<McpServer>("s", json!({"spec": {"network": {"dns": elsewhere}}})).await?;
        server.until(false, &dns, 53).await?;

        // Policies are no part of the pods.
        let pods = server_pods(&space, "s").await?;
        anyhow::ensure!(pods.len() == 1 && pods[0].name_any() == server.name, "the pod was replaced");
        let told = space.api::<McpServer>().get("s").await?;
        anyhow::ensure!(serves(&told, "1/1"), "{:?}", told.status);

        // An app that is held in has its servers nevertheless, and nothing else.
        let gate = json!({"servers": [{"name": "s"}], "network": {"egressTo": []}});
        space.create::<McpApp>(json!({"metadata": {"name": "gate"}, "spec": gate})).await?;
        space.until::<McpApp>("gate", "a pod", has_a_pod).await?;
        let app = only(&space, Component::App, "gate", "chat-worker").await?;
        app.until(false, &friend.address, 8080).await?;
        app.until(true, &server.address, 8080).await?;
        anyhow::ensure!(app.reaches(&dns, 53), "DNS");
        Ok(())
    })
    .await;
}

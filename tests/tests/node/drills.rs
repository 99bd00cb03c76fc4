//! Failures of a whole server, as they strike a running one. The drills that take minutes are run by `make drills`.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        core::v1::{ConfigMap, Pod, ServiceAccount},
        rbac::v1::ClusterRoleBinding,
    },
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use mcpfleet_tests::{
    audit,
    cluster::{Space, with_space},
};
use operator::{
    clock,
    crd::{CircuitState, McpApp, McpServer},
    names::ANNOTATION_RECHECK,
};
use serde_json::{Value, json};

use crate::{
    outage::{circuit, enabled},
    setup::{OPERATOR_NAMESPACE, in_service, install, operator_pods, ready, run, server_pods, signal, sqlite},
};

/// How long a healthy fleet must write nothing.
const QUIET: Duration = Duration::from_mins(10);
/// How often the operator is killed in one outage.
const KILLS: u32 = 50;

pub fn serves(server: &McpServer, pods: &str) -> bool {
    let shown = server.status.as_ref().and_then(|status| status.pods.as_deref());
    ready(server) && circuit(server) == Some(CircuitState::Closed) && shown == Some(pods)
}

/// Waits until so many addresses are in the Service.
async fn until_in_service(space: &Space, service: &str, count: usize) -> anyhow::Result<()> {
    let looked = async {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while in_service(space, service).await?.len() != count {
            look.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(15), looked).await?
}

/// The token of somebody who may read `/fleet`.
async fn reader(space: &Space) -> anyhow::Result<String> {
    space.create::<ServiceAccount>(json!({"metadata": {"name": "reader"}})).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(space.client.clone());
    // Every account of this cluster, which is the tests' own.
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "test-readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "mcpfleet-reader"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:serviceaccounts"}],
    });
    bindings.patch("test-readers", &PatchParams::apply("test").force(), &Patch::Apply(&binding)).await?;
    let made =
        space.api::<ServiceAccount>().create_token_request("reader", &PostParams::default(), &TokenRequest::default()).await?;
    made.status.map(|status| status.token).context("a token was made")
}

/// What the operator's `/fleet` says of a server.
async fn fleet(space: &Space, server: &str) -> anyhow::Result<Value> {
    let token = reader(space).await?;
    for pod in operator_pods(space).await? {
        let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()) else { continue };
        let reply = reqwest::Client::new().get(format!("http://{address}:8080/fleet")).bearer_auth(&token).send().await?;
        // Of two replicas one leads, and the other says so.
        if reply.status() == reqwest::StatusCode::SERVICE_UNAVAILABLE {
            continue;
        }
        let page: Value = reply.error_for_status()?.json().await?;
        let servers = page["servers"].as_array().cloned().unwrap_or_default();
        let found = servers.into_iter().find(|entry| entry["namespace"] == space.name.as_str() && entry["name"] == server);
        if let Some(found) = found {
            return Ok(found);
        }
    }
    anyhow::bail!("/fleet does not tell of {server}")
}

#[tokio::test]
async fn a_server_whose_replicas_all_hang_is_out_of_use_until_they_answer_again() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 3, 3)).await?;
        space.secret("key", &[("k", "v")]).await?;
        let app = json!({"metadata": {"name": "chat"}, "spec": {
            "servers": [{"name": "s"}], "model": {"name": "m", "apiKeySecretRef": {"name": "key", "key": "k"}},
        }});
        space.create::<McpApp>(app).await?;
        space.until::<McpServer>("s", "3/3", |server| serves(server, "3/3")).await?;
        space.until::<ConfigMap>("chat-app", "the server offered", |config| enabled(config) == Some(true)).await?;
        let pods = server_pods(&space, "s").await?;

        for pod in &pods {
            signal(&space, &pod.name_any(), "STOP")?;
        }
        let stopped = Instant::now();
        space.until::<McpServer>("s", "an open circuit", |server| circuit(server) == Some(CircuitState::Open)).await?;
        println!("all of three stopped: the circuit opened after {:.1} s", stopped.elapsed().as_secs_f64());
        space.until::<ConfigMap>("chat-app", "the server withdrawn", |config| enabled(config) == Some(false)).await?;
        until_in_service(&space, "s-mcp", 0).await?;

        for pod in &pods {
            signal(&space, &pod.name_any(), "CONT")?;
        }
        let continued = Instant::now();
        space.until::<McpServer>("s", "3/3 again", |server| serves(server, "3/3")).await?;
        println!("all continued: 3/3 after {:.1} s", continued.elapsed().as_secs_f64());
        space.until::<ConfigMap>("chat-app", "the server offered again", |config| enabled(config) == Some(true)).await?;
        until_in_service(&space, "s-mcp", 3).await
    })
    .await;
}

#[tokio::test]
async fn a_recheck_is_answered_within_two_seconds_of_the_annotation() {
    with_space(|space| async move {
        install(&space).await?;
        // Once an hour, but for what a person asks for.
        space.create::<McpServer>(sqlite("s", 1, 3_600)).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        let before = fleet(&space, "s").await?["pods"][0]["lastProbe"].clone();
        let mut look = tokio::time::interval(Duration::from_millis(50));
        // Times are told in whole seconds: another one must have begun.
        while before == clock::now().to_string() {
            look.tick().await;
        }
        let asked = Instant::now();
        let annotation = format!("{ANNOTATION_RECHECK}=x");
        run("kubectl", &["annotate", "--namespace", &space.name, "mcpserver", "s", &annotation])?;
        while fleet(&space, "s").await?["pods"][0]["lastProbe"] == before {
            anyhow::ensure!(asked.elapsed() < Duration::from_secs(2), "not probed within 2 s");
            look.tick().await;
        }
        println!("a recheck was answered after {:.2} s", asked.elapsed().as_secs_f64());
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "takes minutes: make drills"]
async fn pods_that_stay_failed_are_evicted_one_at_a_time_when_their_budget_allows_it() {
    with_space(|space| async move {
        install(&space).await?;
        let mut server = sqlite("s", 2, 2);
        server["spec"]["health"]["restartAfterSeconds"] = json!(5);
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("s", "2/2", |server| serves(server, "2/2")).await?;
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "none"},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": operator::names::Component::Server.selector("s")}},
        });
        space.create::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(budget).await?;
        let hung = server_pods(&space, "s").await?;
        for pod in &hung {
            signal(&space, &pod.name_any(), "STOP")?;
        }
        let told = |reason: &'static str| {
            let space = space.clone();
            async move {
                let mut look = tokio::time::interval(Duration::from_millis(500));
                loop {
                    look.tick().await;
                    let field = format!("--field-selector=reason={reason}");
                    let events = run("kubectl", &["get", "events", "--namespace", &space.name, &field, "--output", "name"])?;
                    if events.contains("event") {
                        return anyhow::Ok(());
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(2), told("EvictionRefused")).await??;
        let still: Vec<_> = server_pods(&space, "s").await?.iter().filter_map(ResourceExt::uid).collect();
        anyhow::ensure!(hung.iter().filter_map(ResourceExt::uid).all(|uid| still.contains(&uid)), "evicted against its budget");

        space
            .api::<k8s_openapi::api::policy::v1::PodDisruptionBudget>()
            .delete("none", &kube::api::DeleteParams::default())
            .await?;
        let mut look = tokio::time::interval(Duration::from_millis(200));
        let replaced = async {
            loop {
                look.tick().await;
                let pods = server_pods(&space, "s").await?;
                let leaving = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
                anyhow::ensure!(leaving < 2, "two pods are evicted at a time");
                let old = |pod: &Pod| hung.iter().any(|hung| hung.uid() == pod.uid());
                if !pods.iter().any(old) {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(5), replaced).await??;
        space.until::<McpServer>("s", "2/2 again", |server| serves(server, "2/2")).await?;
        Ok(())
    })
    .await;
}

/// One volume has one writer: the next pod starts when the hung one is gone, after all of its time to end.
#[tokio::test]
#[ignore = "takes minutes: make drills"]
async fn a_hung_pod_with_storage_is_gone_before_the_next_one_starts() {
    with_space(|space| async move {
        install(&space).await?;
        let mut server = sqlite("s", 1, 2);
        server["spec"]["storage"] = json!({"size": "1Gi", "mountPath": "/data"});
        server["spec"]["container"]["args"] = json!(["serve", "--db", "/data/sandbox.db", "--listen", "0.0.0.0:8080"]);
        server["spec"]["health"]["restartAfterSeconds"] = json!(5);
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        let hung = server_pods(&space, "s").await?.remove(0);
        signal(&space, &hung.name_any(), "STOP")?;
        let mut look = tokio::time::interval(Duration::from_millis(100));
        let replaced = async {
            loop {
                look.tick().await;
                let pods = server_pods(&space, "s").await?;
                anyhow::ensure!(pods.len() < 2, "two pods have the volume at a time");
                if pods.first().is_some_and(|pod| pod.uid() != hung.uid()) {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(3), replaced).await.context("it is never replaced")??;
        space.until::<McpServer>("s", "1/1 again", |server| serves(server, "1/1")).await?;
        Ok(())
    })
    .await;
}

/// What is told of a server, without when.
fn timeless(server: &McpServer) -> Value {
    let mut status = serde_json::to_value(&server.status).expect("a status is JSON");
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition.as_object_mut().expect("a condition is an object").remove("lastTransitionTime");
    }
    for time in ["since", "retryAt"] {
        status["circuit"].as_object_mut().expect("a circuit is an object").remove(time);
    }
    status
}

/// One outage of a server, in which something is done to the operator. What is told when it is over.
async fn outage(space: &Space, name: &str, during: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<Value> {
    let mut server = sqlite(name, 1, 2);
    // An outage of minutes would otherwise end in an opening of minutes.
    server["spec"]["circuitBreaker"]["maxOpenSeconds"] = json!(10);
    space.create::<McpServer>(server).await?;
    space.until::<McpServer>(name, "1/1", |server| serves(server, "1/1")).await?;
    let pod = server_pods(space, name).await?.remove(0).name_any();
    signal(space, &pod, "STOP")?;
    during().await?;
    space
        .until::<McpServer>(name, "out of use", |server| circuit(server).is_some_and(|state| state != CircuitState::Closed))
        .await?;
    signal(space, &pod, "CONT")?;
    let mut told = timeless(&space.until::<McpServer>(name, "1/1 again", |server| serves(server, "1/1")).await?);
    told["url"].take();
    Ok(told)
}

/// A number below `bound`, another one every time.
fn any_below(bound: u64) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) % bound
}

#[tokio::test]
#[ignore = "takes a quarter of an hour: make drills"]
async fn an_operator_that_is_killed_again_and_again_comes_to_the_same_status() {
    with_space(|space| async move {
        install(&space).await?;
        let undisturbed = outage(&space, "a", async || Ok(())).await?;
        let killed = outage(&space, "b", async || {
            for kill in 1..=KILLS {
                // A pod that is deleted without grace is killed; a container that only ends would be restarted later each time.
                let arguments = ["delete", "pod", "--namespace", OPERATOR_NAMESPACE, "--all", "--grace-period=0", "--force"];
                run("kubectl", &arguments)?;
                let lives = Duration::from_millis(any_below(6_000));
                println!("kill {kill}; the next one after {} ms", lives.as_millis());
                tokio::time::sleep(lives).await;
            }
            run("kubectl", &["rollout", "status", "--namespace", OPERATOR_NAMESPACE, "--timeout=120s", "deployment"])?;
            Ok(())
        })
        .await?;
        anyhow::ensure!(undisturbed == killed, "without kills: {undisturbed:#}\nwith them: {killed:#}");
        Ok(())
    })
    .await;
}

/// What the operator and the activator have written since then.
fn written(since: Timestamp) -> anyhow::Result<Vec<audit::Write>> {
    let mut written = audit::writes_of(&format!("system:serviceaccount:{OPERATOR_NAMESPACE}:"), since)?;
    // Who leads must say so every few seconds: that is not about the fleet.
    written.retain(|write| write.resource != "leases");
    Ok(written)
}

/// Waits until the last of what comes after Ready is written, the Events. Since when nothing was.
async fn at_rest() -> anyhow::Result<Timestamp> {
    loop {
        let since = Timestamp::now();
        tokio::time::sleep(Duration::from_secs(5)).await;
        if written(since)?.is_empty() {
            return Ok(since);
        }
    }
}

#[tokio::test]
#[ignore = "takes ten minutes: make drills"]
async fn a_healthy_fleet_writes_nothing_for_ten_minutes_but_the_lease() {
    with_space(|space| async move {
        install(&space).await?;
        for number in 0..3 {
            space.create::<McpServer>(sqlite(&format!("s-{number}"), 1, 2)).await?;
        }
        for number in 0..3 {
            space.until::<McpServer>(&format!("s-{number}"), "1/1", |server| serves(server, "1/1")).await?;
        }
        let rested = tokio::time::timeout(Duration::from_mins(1), at_rest()).await.context("it does not come to rest")??;
        tokio::time::sleep(QUIET).await;
        let later = written(rested)?;
        anyhow::ensure!(later.is_empty(), "written at rest: {:?}", audit::summary(&later));
        Ok(())
    })
    .await;
}

//! What Kubernetes says of a pod that cannot start, an McpServer and an McpApp say too: in Ready, in its words, and as an Event.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::{Event, LimitRange, PersistentVolumeClaim, Pod, ResourceQuota, Service},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, PropagationPolicy},
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    conditions,
    crd::{McpApp, McpServer},
};
use serde_json::{Value, json};

use crate::{
    processes::{processes, send},
    rollouts::is,
    setup::{install, ready, server_pods, sqlite, until_no_pods},
};

/// How long after a server was made its Ready says what Kubernetes knows by then.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A server that cannot start: how its spec differs from one that can, and what its Ready must say.
struct Broken {
    name: &'static str,
    change: fn(&mut Value),
    /// Kubernetes' word; the pull of an image has two that alternate.
    reasons: &'static [&'static str],
    /// What the message must hold.
    says: &'static [&'static str],
}

const BROKEN: &[Broken] = &[
    Broken {
        name: "no-image",
        change: |spec| spec["container"]["image"] = json!("ghcr.io/mcpfleet/sandbox-server:9.9.9"),
        reasons: &["ErrImagePull", "ImagePullBackOff"],
        says: &["9.9.9"],
    },
    Broken {
        name: "bad-image-name",
        change: |spec| spec["container"]["image"] = json!("Registry/Upper:1"),
        reasons: &["InvalidImageName"],
        says: &["Registry/Upper:1"],
    },
    Broken {
        name: "bad-argument",
        change: |spec| spec["container"]["args"] = json!(["serve", "--no-such-flag"]),
        reasons: &["CrashLoopBackOff"],
        says: &["exit code 2", "--no-such-flag"],
    },
    Broken {
        name: "no-program",
        change: |spec| spec["container"]["command"] = json!(["/no/such/program"]),
        reasons: &["CrashLoopBackOff", "RunContainerError"],
        says: &["/no/such/program"],
    },
    Broken {
        name: "read-only-root",
        change: |spec| spec["container"]["args"] = json!(["serve", "--db", "/srv/a.db", "--listen", "0.0.0.0:8080"]),
        reasons: &["CrashLoopBackOff"],
        says: &["exit code", "/srv"],
    },
    Broken {
        name: "too-large",
        change: |spec| spec["resources"] = json!({"requests": {"cpu": "64"}}),
        reasons: &["Unschedulable"],
        says: &["Insufficient cpu"],
    },
    Broken {
        name: "no-node",
        change: |spec| spec["podTemplate"] = json!({"nodeSelector": {"disk": "none-has-this"}}),
        reasons: &["Unschedulable"],
        says: &["node"],
    },
    Broken {
        name: "no-class",
        change: |spec| spec["storage"] = json!({"size": "1Gi", "mountPath": "/data", "storageClassName": "does-not-exist"}),
        reasons: &["Unschedulable"],
        says: &["does-not-exist"],
    },
    Broken {
        name: "no-class-of-own",
        change: |spec| {
            spec["volumes"] = json!([{"name": "own", "persistentVolumeClaim": {"claimName": "own"}}]);
            spec["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
        },
        reasons: &["Unschedulable"],
        says: &["the claim own (1Gi of the storage class does-not-exist)"],
    },
    Broken {
        name: "no-class-of-cache",
        change: |spec| {
            let cache = json!({"size": "1Gi", "storageClassName": "does-not-exist"});
            spec["container"] = Value::Null;
            spec["stdio"] = json!({"command": "npx", "args": ["a@1.0.0"], "cache": cache});
        },
        reasons: &["Unschedulable"],
        says: &["the claim no-class-of-cache-mcp-cache (1Gi of the storage class does-not-exist)"],
    },
    Broken {
        name: "no-driver",
        change: |spec| {
            spec["volumes"] = json!([{"name": "v", "csi": {"driver": "no.such.driver"}}]);
            spec["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        },
        reasons: &["FailedMount"],
        says: &["no.such.driver"],
    },
    // Who forgets the unit gets as many bytes.
    Broken {
        name: "no-memory",
        change: |spec| spec["resources"] = json!({"limits": {"memory": "1Mi"}}),
        reasons: &["FailedCreatePodSandBox"],
        says: &["sandbox"],
    },
    Broken {
        name: "init-runs",
        change: |spec| {
            let image = spec["container"]["image"].clone();
            let args = json!(["serve", "--db", "/w/a.db", "--listen", "0.0.0.0:9000"]);
            let mounts = json!([{"name": "w", "mountPath": "/w"}]);
            spec["volumes"] = json!([{"name": "w", "emptyDir": {}}]);
            spec["podTemplate"] =
                json!({"initContainers": [{"name": "first", "image": image, "args": args, "volumeMounts": mounts}]});
        },
        reasons: &["Starting"],
        says: &["its init container first is running"],
    },
    Broken {
        name: "no-account",
        change: |spec| spec["serviceAccountName"] = json!("does-not-exist"),
        reasons: &["FailedCreate"],
        says: &["does-not-exist", "not found"],
    },
    Broken {
        name: "wrong-port",
        change: |spec| spec["container"]["port"] = json!(9999),
        reasons: &["Starting", "ConnectionRefused"],
        says: &["refused"],
    },
    Broken {
        name: "wrong-path",
        change: |spec| spec["container"]["path"] = json!("/sse"),
        reasons: &["Starting", "HttpStatus"],
        says: &["404", "/sse", "spec.container.path"],
    },
];

/// What is no fault yet, and is told because it lasts.
const SLOW: &[&str] = &["init-runs"];

fn ready_of(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> Option<(String, String, String)> {
    let ready = conditions::find(conditions, "Ready")?;
    Some((ready.status.clone(), ready.reason.clone(), ready.message.clone()))
}

fn tells(ready: Option<(String, String, String)>, reasons: &[&str], says: &[&str]) -> bool {
    let Some((status, reason, message)) = ready else { return false };
    status == "False" && reasons.contains(&&*reason) && says.iter().all(|said| message.contains(said))
}

async fn told(space: &Space, broken: &Broken, since: Instant) -> anyhow::Result<()> {
    let what = format!("{}: Ready={:?} that says {:?}", broken.name, broken.reasons, broken.says);
    let told = |server: &McpServer| {
        let conditions = server.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
        tells(ready_of(conditions), broken.reasons, broken.says)
    };
    let server = space.until::<McpServer>(broken.name, &what, told).await?;
    let (_, reason, message) = ready_of(&server.status.context("it has one")?.conditions).context("it is there")?;
    let after = since.elapsed();
    println!("{:>5.1} s  {:<15} {reason}: {message}", after.as_secs_f64(), broken.name);
    anyhow::ensure!(after < AT_ONCE || SLOW.contains(&broken.name), "{}: told after {after:?}", broken.name);
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why_in_kubernetes_words() {
    with_space(|space| async move {
        install(&space).await?;
        let own = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "does-not-exist", "resources": {"requests": {"storage": "1Gi"}}});
        space.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "own"}, "spec": own})).await?;
        // One at a time: the time of each is its own.
        for broken in BROKEN {
            let mut server = sqlite(broken.name, 1, 60);
            (broken.change)(&mut server["spec"]);
            let since = Instant::now();
            space.create::<McpServer>(server).await?;
            told(&space, broken, since).await?;
        }
        let app = json!({"metadata": {"name": "no-image"}, "spec": {
            "servers": [{"name": "no-image"}], "image": "ghcr.io/mcpfleet/chat-worker:9.9.9",
            "model": {"name": "m", "apiKeySecretRef": {"name": "key", "key": "k"}},
        }});
        space.secret("key", &[("k", "v")]).await?;
        let since = Instant::now();
        space.create::<McpApp>(app).await?;
        space
            .until::<McpApp>("no-image", "the app's ImagePullBackOff", |app| {
                let conditions = app.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
                tells(ready_of(conditions), &["ErrImagePull", "ImagePullBackOff"], &["9.9.9"])
            })
            .await?;
        anyhow::ensure!(since.elapsed() < AT_ONCE, "the app: told after {:?}", since.elapsed());
        let events = space.api::<Event>().list(&ListParams::default()).await?;
        for broken in BROKEN.iter().filter(|broken| broken.reasons[0] != "Starting") {
            let told = events.iter().any(|event| {
                event.involved_object.kind.as_deref() == Some("McpServer")
                    && event.involved_object.name.as_deref() == Some(broken.name)
                    && event.reason.as_deref().is_some_and(|reason| broken.reasons.contains(&reason))
            });
            let seen: Vec<_> = events
                .iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(broken.name))
                .map(|event| (event.reason.clone(), event.message.clone()))
                .collect();
            anyhow::ensure!(told, "no Event of {}: {seen:?}", broken.name);
        }
        Ok(())
    })
    .await;
}

/// A job as people make it from the CronJob of a backup, but for a volume that nobody can mount: only Events say so.
#[tokio::test]
async fn a_backup_that_cannot_run_says_why() {
    with_space(|space| async move {
        install(&space).await?;
        space
            .create::<PersistentVolumeClaim>(json!({"metadata": {"name": "kept"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}},
            }}))
            .await?;
        let mut server = sqlite("s", 1, 60);
        let backup = json!({"schedule": "0 0 1 1 *", "to": {"claim": "kept"}});
        server["spec"]["storage"] = json!({"size": "64Mi", "mountPath": "/data", "backup": backup});
        server["spec"]["container"]["args"] = json!(["serve", "--db", "/data/a.db", "--listen", "0.0.0.0:8080"]);
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("s", "ready", ready).await?;
        let cron = space.until::<CronJob>("s-mcp-backup", "the CronJob", |_| true).await?;
        let mut template = serde_json::to_value(cron.spec.context("it has one")?.job_template)?;
        let pod = &mut template["spec"]["template"]["spec"];
        pod["volumes"].as_array_mut().context("it has some")?.push(json!({"name": "v", "csi": {"driver": "no.such.driver"}}));
        let mounts = pod["containers"][0]["volumeMounts"].as_array_mut().context("it has some")?;
        mounts.push(json!({"name": "v", "mountPath": "/v"}));
        let metadata = json!({"name": "s-mcp-backup-by-hand", "labels": template["metadata"]["labels"]});
        let since = Instant::now();
        space.create::<Job>(json!({"metadata": metadata, "spec": template["spec"]})).await?;
        let failure = |server: &McpServer| server.status.as_ref()?.backup.as_ref()?.failure.clone();
        let held = |server: &McpServer| failure(server).is_some_and(|failure| failure.contains("FailedMount"));
        let told = space.until::<McpServer>("s", "why the backup does not run", held).await?;
        println!("{:>5.1} s  {}", since.elapsed().as_secs_f64(), failure(&told).unwrap_or_default());
        anyhow::ensure!(ready(&told), "a backup is not the server: {:?}", told.status);
        let end = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        space.api::<Job>().delete("s-mcp-backup-by-hand", &end).await?;
        let over = |server: &McpServer| failure(server).is_some_and(|failure| failure.contains("before it was done; pod"));
        space.until::<McpServer>("s", "that it was deleted, and why it had not run", over).await?;
        Ok(())
    })
    .await;
}

/// The kubelet stops, and everything that it started goes on: servers answer, and Kubernetes sends nobody to them.
#[tokio::test]
#[ignore = "takes a minute: make drills"]
async fn a_node_that_does_not_report_is_named_by_the_servers_and_apps_on_it() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 1, 5)).await?;
        space.create::<McpApp>(json!({"metadata": {"name": "a"}, "spec": {"servers": [{"name": "s"}]}})).await?;
        space.until::<McpServer>("s", "ready", ready).await?;
        let conditions = |app: &McpApp| app.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let is_up = |app: &McpApp| ready_of(&conditions(app)).is_some_and(|(status, ..)| status == "True");
        space.until::<McpApp>("a", "ready", is_up).await?;
        let pod = server_pods(&space, "s").await?.remove(0);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("it has a node")?;
        let kubelet = processes(|process| process.program().ends_with("kubelet") && process.has_our_network())?;
        send(&kubelet, "STOP")?;
        let lost = async {
            let lost = |pod: &Pod| {
                let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.any(|condition| condition.type_ == "Ready" && condition.status == "False")
            };
            space.until::<Pod>(&pod.name_any(), "Ready=False", lost).await?;
            let since = Instant::now();
            let says = ["NodeNotReady".to_owned(), format!("its node {node} is not ready")];
            let says: Vec<_> = says.iter().map(String::as_str).collect();
            let told = |server: &McpServer| {
                let conditions = server.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
                tells(ready_of(conditions), &["NodeNotReady"], &says)
            };
            space.until::<McpServer>("s", "the node", told).await?;
            space.until::<McpApp>("a", "the node", |app| tells(ready_of(&conditions(app)), &["NodeNotReady"], &says)).await?;
            println!("told {:.1} s after Kubernetes", since.elapsed().as_secs_f64());
            let events = space.api::<Event>().list(&ListParams::default()).await?;
            for kind in ["McpServer", "McpApp"] {
                let warned = events.iter().any(|event| {
                    event.involved_object.kind.as_deref() == Some(kind)
                        && (event.reason.as_deref(), event.type_.as_deref()) == (Some("NodeNotReady"), Some("Warning"))
                });
                anyhow::ensure!(warned, "no Event of the {kind}");
            }
            anyhow::Ok(())
        };
        let lost = lost.await;
        send(&kubelet, "CONT")?;
        lost?;
        space.until::<McpServer>("s", "ready again", ready).await?;
        space.until::<McpApp>("a", "ready again", is_up).await?;
        Ok(())
    })
    .await;
}

/// Whatever else is wrong, a server that is switched off has no pod; and without a Service nobody is Ready.
#[tokio::test]
async fn off_is_off_and_a_name_that_is_taken_serves_nobody() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<Service>(json!({"metadata": {"name": "taken-mcp"}, "spec": {"ports": [{"port": 80}]}})).await?;
        space.create::<McpServer>(sqlite("taken", 1, 60)).await?;
        space.create::<McpServer>(sqlite("s", 1, 60)).await?;
        space.until::<McpServer>("s", "ready", ready).await?;
        let taken = |server: &McpServer| {
            let status = server.status.as_ref();
            let in_service = status.is_some_and(|status| status.pods.as_deref() == Some("1/1"));
            in_service
                && tells(status.and_then(|status| ready_of(&status.conditions)), &["NameConflict"], &["the Service taken-mcp"])
        };
        space.until::<McpServer>("taken", "not Ready with a pod in service", taken).await?;

        space
            .edit::<McpServer>("s", json!({"spec": {"podTemplate": {"tolerations": [{"operator": "Exists", "value": "a"}]}}}))
            .await?;
        space.until::<McpServer>("s", "stalled", |server| is(server, "Stalled", "True")).await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        until_no_pods(&space, "s").await
    })
    .await;
}

#[tokio::test]
async fn what_a_quota_or_a_limit_range_refuses_is_told() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<ResourceQuota>(json!({"metadata": {"name": "cpu"}, "spec": {"hard": {"limits.cpu": "10"}}})).await?;
        space.create::<McpServer>(sqlite("quota", 1, 60)).await?;
        let quota = Broken { name: "quota", change: |_| (), reasons: &["FailedCreate"], says: &["must specify limits.cpu"] };
        told(&space, &quota, Instant::now()).await?;
        let stalled = space.api::<McpServer>().get("quota").await?;
        anyhow::ensure!(is(&stalled, "Stalled", "True"), "only a person can mend it: {:?}", stalled.status);

        space
            .create::<LimitRange>(json!({"metadata": {"name": "memory"}, "spec": {"limits": [
                {"type": "Container", "max": {"memory": "64Mi"}, "defaultRequest": {"memory": "16Mi"}},
            ]}}))
            .await?;
        let mut server = sqlite("limit", 1, 60);
        server["spec"]["resources"] = json!({"limits": {"cpu": "1", "memory": "128Mi"}});
        space.create::<McpServer>(server).await?;
        let limit = Broken {
            name: "limit",
            change: |_| (),
            reasons: &["FailedCreate"],
            says: &["maximum memory usage per Container is 64Mi"],
        };
        told(&space, &limit, Instant::now()).await?;
        println!("pods of {}: refused, and said so", space.api::<McpServer>().get("limit").await?.name_any());
        Ok(())
    })
    .await;
}

//! Servers of other makers on standard input and output, from the registries' packages: installed, served, broken, and told of.
//!
//! `tests/stdio/images.sh` has made the images, and a registry that holds the packages: nothing here reaches the network.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service},
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{conditions, crd::McpServer};
use serde_json::{Value, json};

use crate::{
    processes::{self, Process, processes},
    rollouts::settled,
    setup::{NODE, PYTHON, install, ready, run, server_pods, signal},
};

const REGISTRY: &str = concat!("ghcr.io/mcpfleet/registry:", env!("CARGO_PKG_VERSION"));

/// The registry, as the packages' links name it: `registry`, in the namespace of the test.
async fn registry(space: &Space) -> anyhow::Result<()> {
    let labels = json!({"app": "registry"});
    space
        .create::<Deployment>(json!({"metadata": {"name": "registry"}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{
                "name": "registry", "image": REGISTRY, "imagePullPolicy": "IfNotPresent",
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }]}},
        }}))
        .await?;
    let service = json!({"metadata": {"name": "registry"}, "spec": {"selector": labels, "ports": [{"port": 8080}]}});
    space.create::<Service>(service).await?;
    let available = |found: &Deployment| found.status.as_ref().and_then(|status| status.available_replicas) == Some(1);
    space.until::<Deployment>("registry", "a registry", available).await?;
    Ok(())
}

/// Both runners' registries.
fn from_registry() -> Value {
    json!([
        {"name": "npm_config_registry", "value": "http://registry:8080/npm/"},
        {"name": "UV_DEFAULT_INDEX", "value": "http://registry:8080/simple"},
        {"name": "UV_PYTHON_DOWNLOADS", "value": "never"},
    ])
}

fn server(name: &str, stdio: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"stdio": stdio, "env": from_registry(), "health": {"intervalSeconds": 2, "timeoutSeconds": 2}}})
}

fn npx(package: &str) -> Value {
    json!({"image": NODE, "command": "npx", "args": ["-y", package]})
}

fn uvx(package: &str, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = [package].iter().chain(arguments).copied().collect();
    json!({"image": PYTHON, "command": "uvx", "args": arguments})
}

/// On the image that the chart names.
fn without_image(mut stdio: Value) -> Value {
    stdio["image"] = Value::Null;
    stdio
}

/// What a tool answers a client of the revision without sessions, through the Service.
async fn call(space: &Space, server: &str, tool: &str, arguments: &Value) -> anyhow::Result<String> {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    let request = reqwest::Client::new()
        .post(format!("http://{server}-mcp.{}.svc.cluster.local:8080/mcp", space.name))
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", "tools/call")
        .header("Mcp-Name", tool)
        .timeout(Duration::from_secs(30))
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
    let response = request.send().await.with_context(|| format!("{server} cannot be reached"))?;
    Ok(response.error_for_status()?.text().await?)
}

#[tokio::test]
async fn packages_of_npm_and_of_pypi_and_an_image_become_ready_and_answer() {
    with_space(|space| async move {
        install(&space).await?;
        registry(&space).await?;
        let own = json!({"image": "ghcr.io/mcpfleet/sandbox-server:0.1.0", "command": "/usr/bin/sandbox-server",
            "args": ["stdio", "--db", "/tmp/own.db"], "sessions": "PerSession"});
        let mut files = npx("@modelcontextprotocol/server-filesystem@2026.8.31");
        files["args"].as_array_mut().context("a list")?.push(json!("/tmp"));
        let memory = npx("@modelcontextprotocol/server-memory@2026.8.31");
        let graph = json!({"entities": [{"name": "node", "entityType": "place", "observations": ["it remembers"]}]});
        let servers = [
            (
                "everything",
                npx("@modelcontextprotocol/server-everything@2026.8.31"),
                "echo",
                json!({"message": "hello"}),
                "hello",
            ),
            ("files", files, "list_allowed_directories", json!({}), "/tmp"),
            ("memory", without_image(memory), "create_entities", graph, "it remembers"),
            (
                "time",
                without_image(uvx("mcp-server-time==2026.10.10", &["--local-timezone", "UTC"])),
                "get_current_time",
                json!({"timezone": "UTC"}),
                "UTC",
            ),
            ("git", uvx("mcp-server-git==2026.10.10", &[]), "git_status", json!({"repo_path": "/tmp/none"}), "/tmp/none"),
            ("sqlite", uvx("mcp-server-sqlite==2025.4.25", &["--db-path", "/tmp/x.db"]), "list_tables", json!({}), "content"),
            (
                "fetch",
                uvx("mcp-server-fetch==2026.10.10", &[]),
                "fetch",
                json!({"url": "http://registry:8080/simple/"}),
                // It answers, and of its own accord it fetches nothing from addresses of a cluster.
                "not a public address",
            ),
            ("own", own, "list_tables", json!({}), "result"),
        ];
        // Four at a time: each installs a package, and two cores have to do it.
        for some in servers.chunks(4) {
            for (name, stdio, ..) in some {
                let mut server = server(name, stdio);
                // Beside the package, where nothing may be written, is where it would keep it.
                let file = json!({"name": "MEMORY_FILE_PATH", "value": "/tmp/memory.json"});
                server["spec"]["env"].as_array_mut().context("a list")?.push(file);
                space.create::<McpServer>(server).await?;
            }
            for (name, _, tool, arguments, word) in some {
                space.until::<McpServer>(name, "Ready", ready).await?;
                // Ready is told as soon as a pod is in service; kube-proxy takes a moment longer.
                settled(&format!("http://{name}-mcp.{}.svc:8080/mcp", space.name)).await?;
                let said = call(&space, name, tool, arguments).await?;
                anyhow::ensure!(said.contains(word) && !said.contains("\"error\""), "{name}: {said}");
            }
        }
        println!("{}", run("kubectl", &["get", "mcpservers", "--output=wide", "--namespace", &space.name])?);

        // A start without the registry: nothing is installed again where the container alone is new.
        run("kubectl", &["delete", "deployment/registry", "--namespace", &space.name])?;
        let pods = server_pods(&space, "everything").await?;
        let pod = pods[0].metadata.name.clone().unwrap_or_default();
        signal(&space, &pod, "KILL")?;
        let restarted = |pod: &Pod| {
            let mut containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            containers.any(|container| container.restart_count > 0 && container.ready)
        };
        space.until(&pod, "the container anew", restarted).await?;
        space.until::<McpServer>("everything", "Ready again", ready).await?;
        settled(&format!("http://everything-mcp.{}.svc:8080/mcp", space.name)).await?;
        let said = call(&space, "everything", "echo", &json!({"message": "again"})).await?;
        anyhow::ensure!(said.contains("again"), "{said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_package_that_cannot_be_installed_and_a_child_that_dies_are_told_in_their_own_words() {
    with_space(|space| async move {
        install(&space).await?;
        registry(&space).await?;
        space.create::<McpServer>(server("missing", &npx("@nobody/has-this@1.0.0"))).await?;
        let dies =
            json!({"image": NODE, "command": "node", "args": ["-e", "console.error('Cannot find the key'); process.exit(3)"]});
        space.create::<McpServer>(server("dies", &dies)).await?;
        for (name, words) in [("missing", ["mcp-install", "@nobody/has-this"]), ("dies", ["exit code 3", "Cannot find the key"])]
        {
            let told = |server: &McpServer| {
                let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
                let ready = conditions::find(conditions, "Ready");
                ready.is_some_and(|ready| ready.status == "False" && words.iter().all(|word| ready.message.contains(word)))
            };
            space.until::<McpServer>(name, "its trouble", told).await?;
        }
        Ok(())
    })
    .await;
}

/// The scripted child of the bridge's own tests.
const CHILD: &str = include_str!("../../../bridge/tests/child.py");
/// Before the kubelet waits to start it again, and then.
const ENDED: &[&str] = &["Error", "CrashLoopBackOff"];
/// While this file is there, the server ends as soon as it is started.
const BROKEN: &str = "tmp/broken";

/// Scripts of servers that never say what they are.
const HTML: &str = "echo '<html>502 Bad Gateway</html>'; exec sleep 1000";
const MUTE: &str = "exec sleep 1000";
/// How soon seven servers that are made at once tell what they do instead.
const TOLD: Duration = Duration::from_secs(30);

/// The script of a server that is the child, of an earlier revision.
const LEGACY: &str = "exec python3 /child/child.py legacy";

/// The child's file, for all servers of the namespace.
async fn make_child(space: &Space) -> anyhow::Result<()> {
    space.create::<ConfigMap>(json!({"metadata": {"name": "child"}, "data": {"child.py": CHILD}})).await?;
    Ok(())
}

/// Makes `s`, a server whose clients have sessions, in so many replicas.
pub async fn make_legacy(space: &Space, replicas: u32) -> anyhow::Result<()> {
    make_child(space).await?;
    let mut server = scripted("s", LEGACY);
    server["spec"]["replicas"] = json!(replicas);
    space.create::<McpServer>(server).await?;
    Ok(())
}

/// A server that is what `script` starts, with the child at /child/child.py.
fn scripted(name: &str, script: &str) -> Value {
    let volume = json!({"name": "child", "configMap": {"name": "child"}});
    let mount = json!({"name": "child", "mountPath": "/child"});
    json!({"metadata": {"name": name}, "spec": {
        "stdio": {"image": PYTHON, "command": "sh", "args": ["-c", script]},
        "volumes": [volume], "volumeMounts": [mount],
        "health": {"intervalSeconds": 2, "timeoutSeconds": 2, "restartAfterSeconds": 16},
        "circuitBreaker": {"openSeconds": 2, "maxOpenSeconds": 2},
    }})
}

/// Waits until Ready has this status, and one of these reasons, and says all of that; gives how long it took.
async fn tells(space: &Space, name: &str, status: &str, reasons: &[&str], says: &[&str]) -> anyhow::Result<String> {
    let began = Instant::now();
    let told = |server: &McpServer| {
        let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions::find(conditions, "Ready").filter(|ready| ready.status == status && reasons.contains(&&*ready.reason)).cloned()
    };
    let says_all = |server: &McpServer| told(server).is_some_and(|ready| says.iter().all(|said| ready.message.contains(said)));
    let what = format!("{name}: Ready={status} ({reasons:?}) that says {says:?}");
    let server = space.until::<McpServer>(name, &what, says_all).await?;
    let ready = told(&server).context("it told so")?;
    Ok(format!("{:>5.1} s  {name:<8} Ready={} {}: {}", began.elapsed().as_secs_f64(), ready.status, ready.reason, ready.message))
}

/// The children of bridges in a pod, by their command lines.
fn children_of(pod: &Pod) -> anyhow::Result<Vec<Process>> {
    let uid = pod.metadata.uid.as_deref().context("a pod has a uid")?;
    processes(|process| {
        let words = process.words();
        let is = |what: &str| words.iter().any(|word| word.contains(what));
        is("/child/child.py") && !is("bridge") && process.is_of(uid)
    })
}

#[tokio::test]
async fn the_prober_sees_through_the_bridge_and_the_bridge_replaces_a_wedged_child_in_its_pod() {
    with_space(|space| async move {
        install(&space).await?;
        make_child(&space).await?;
        let fails_when_broken = format!("test ! -e /{BROKEN} || {{ echo 'Error: the disk is gone' >&2; exit 3; }}; {LEGACY}");
        let servers =
            [("dies", &*fails_when_broken), ("wedged", "exec python3 /child/child.py modern"), ("html", HTML), ("mute", MUTE)];
        let began = Instant::now();
        for (name, script) in servers {
            space.create::<McpServer>(scripted(name, script)).await?;
        }
        // With a child for each session, it is the probe's own child that says so.
        for (name, script) in [("html-own", HTML), ("mute-own", MUTE)] {
            let mut server = scripted(name, script);
            server["spec"]["stdio"]["sessions"] = json!("PerSession");
            space.create::<McpServer>(server).await?;
        }
        let mut absent = scripted("absent", "");
        absent["spec"]["stdio"] = json!({"image": PYTHON, "command": "no-such-program"});
        space.create::<McpServer>(absent).await?;
        // Those that never come up say what they do instead, also before the time that a start may take is over.
        for name in ["html", "html-own"] {
            println!("{}", tells(&space, name, "False", &["Starting"], &["<html>502 Bad Gateway</html>"]).await?);
        }
        for name in ["mute", "mute-own"] {
            println!("{}", tells(&space, name, "False", &["Starting"], &["the server has not said what it is"]).await?);
        }
        println!("{}", tells(&space, "absent", "False", ENDED, &["exit code 127", "no-such-program"]).await?);
        let after = began.elapsed();
        println!("all of them told {:.1} s after they were made", after.as_secs_f64());
        anyhow::ensure!(after < TOLD, "they were told after {after:?}");

        // A child that is killed once is followed by another; one that cannot live any more ends its container, in its own words.
        for name in ["dies", "wedged"] {
            space.until::<McpServer>(name, "Ready", ready).await?;
        }
        let pod = server_pods(&space, "dies").await?.remove(0);
        let children = children_of(&pod)?;
        let [child] = &children[..] else { anyhow::bail!("one child: {children:?}") };
        std::fs::write(child.files().join(BROKEN), "")?;
        processes::send(&children, "KILL")?;

        // One that is alive and hears nothing: within the interval, the time of a probe, and three seconds.
        settled(&format!("http://wedged-mcp.{}.svc:8080/mcp", space.name)).await?;
        let wedged = server_pods(&space, "wedged").await?.remove(0);
        let stopped = Instant::now();
        anyhow::ensure!(call(&space, "wedged", "stop-reading", &json!({})).await?.contains("deaf"), "it went on reading");
        println!("{}", tells(&space, "wedged", "False", &["CircuitOpen", "Timeout"], &["2 s"]).await?);
        anyhow::ensure!(stopped.elapsed() < Duration::from_secs(2 + 2 + 3 + 1), "told after {:?}", stopped.elapsed());

        println!("{}", tells(&space, "dies", "False", ENDED, &["exit code 3", "the disk is gone"]).await?);

        space.until::<McpServer>("wedged", "Ready again", ready).await?;
        println!("a wedged child was replaced, and its pod was in service again, after {:.1} s", stopped.elapsed().as_secs_f64());
        let after = server_pods(&space, "wedged").await?;
        let same = after.len() == 1 && after[0].metadata.uid == wedged.metadata.uid;
        let restarts =
            after[0].status.iter().flat_map(|status| status.container_statuses.iter().flatten()).map(|it| it.restart_count);
        anyhow::ensure!(same && restarts.sum::<i32>() == 0, "the pod was evicted, or its container restarted: {after:?}");
        println!("{}", run("kubectl", &["get", "mcpservers", "--output=wide", "--namespace", &space.name])?);
        Ok(())
    })
    .await;
}

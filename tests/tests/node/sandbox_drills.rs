//! What becomes of a sandbox-server's data when its pod is killed, its volume is full, or its rows are lost. Clients go through the Service,
//! as an app does. Run by `make drills`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::McpServer;
use serde_json::{Value, json};

use crate::setup::{files_of, install, ready, run, server_pods, signal, until_no_pods, volume_of};

const IMAGE: &str = "ghcr.io/mcpfleet/sandbox-server:0.1.0";
const KILLS: u32 = 20;
const WRITERS: u64 = 4;
const PATIENCE: Duration = Duration::from_mins(1);

/// A server on a volume of its own.
fn on_a_volume() -> Value {
    json!({"metadata": {"name": "s"}, "spec": {
        "container": {"image": IMAGE, "args": ["serve", "--db", "/data/sandbox.db", "--listen", "0.0.0.0:8080"]},
        "storage": {"size": "1Gi", "mountPath": "/data"},
        "health": {"intervalSeconds": 2, "timeoutSeconds": 2},
    }})
}

/// Calls its tools through the Service.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// Of the server `s`.
    pub fn of(space: &Space) -> anyhow::Result<Self> {
        Self::to(space, "s", Duration::from_secs(5))
    }

    /// Of a server, for whoever waits so long for an answer.
    pub fn to(space: &Space, server: &str, timeout: Duration) -> anyhow::Result<Self> {
        // No connection outlives a call: each of them is a new choice of the Service's.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(timeout).build()?;
        Ok(Self { http, url: format!("http://{server}-mcp.{}.svc.cluster.local:8080/mcp", space.name) })
    }

    /// The result of a call, whether it is an error or not.
    async fn call(&self, tool: &str, query: &str, params: Value) -> anyhow::Result<Value> {
        let meta =
            json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
        let params = json!({"name": tool, "arguments": {"query": query, "params": params}, "_meta": meta});
        let request = self
            .http
            .post(&self.url)
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", "2026-07-28")
            .header("Mcp-Method", "tools/call")
            .header("Mcp-Name", tool)
            .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
        let mut answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer["result"].take())
    }

    pub async fn ok(&self, tool: &str, query: &str, params: Value) -> anyhow::Result<Value> {
        let mut result = self.call(tool, query, params).await?;
        anyhow::ensure!(result["isError"] == json!(false), "{query}: {result}");
        Ok(result["structuredContent"].take())
    }

    /// Waits until the Service lets clients through: kube-proxy follows a pod that is ready by up to a second or two.
    pub async fn reached(&self) -> anyhow::Result<()> {
        let (begun, mut last) = (Instant::now(), None);
        while begun.elapsed() < Duration::from_secs(5) {
            match self.one("SELECT 1", json!([])).await {
                Ok(_) => {
                    println!("reached {:.1} s after Ready", begun.elapsed().as_secs_f64());
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last.context("the Service was never asked")?)
    }

    pub async fn one(&self, query: &str, params: Value) -> anyhow::Result<Value> {
        Ok(self.ok("read_query", query, params).await?["rows"][0][0].take())
    }

    pub async fn create(&self) -> anyhow::Result<()> {
        let arguments = "CREATE TABLE row (id INTEGER PRIMARY KEY, body TEXT)";
        let mut result = self.call("execute_sql_query", arguments, json!([])).await?;
        anyhow::ensure!(result["isError"].take() == json!(false), "{result}");
        Ok(())
    }

    pub async fn insert(&self, id: u64, body: &str) -> anyhow::Result<()> {
        self.ok("write_query", "INSERT INTO row VALUES (?, ?)", json!([id, body])).await.map(drop)
    }
}

/// Writes row after row, and remembers those that were acknowledged.
async fn write_until(client: Client, writer: u64, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> Vec<u64> {
    let mut kept = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // A row that was not acknowledged is not tried again: it may be there or not.
        let id = writer * 1_000_000 + number;
        if client.insert(id, "drill").await.is_ok() {
            acknowledged.fetch_add(1, Ordering::Relaxed);
            kept.push(id);
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    kept
}

/// The only pod of the server, once it is ready and is not `old`.
async fn pod_after(space: &Space, old: Option<&str>) -> anyhow::Result<String> {
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let found = async {
        loop {
            look.tick().await;
            let pods = server_pods(space, "s").await?;
            let ready = |pod: &Pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            };
            let new = |pod: &&Pod| pod.uid().as_deref() != old && pod.metadata.deletion_timestamp.is_none() && ready(pod);
            if let Some(pod) = pods.iter().find(new) {
                return Ok(pod.name_any());
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.context("no pod is ready")?
}

#[tokio::test]
#[ignore = "takes minutes: make drills"]
async fn sandbox_loses_no_acknowledged_row_when_its_pod_is_killed_again_and_again() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(on_a_volume()).await?;
        space.until::<McpServer>("s", "ready", ready).await?;
        let client = Client::of(&space)?;
        client.reached().await?;
        client.create().await?;
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write_until(client.clone(), writer, Arc::clone(&stop), Arc::clone(&acknowledged))))
            .collect();
        let (mut longest, mut pod) = (Duration::ZERO, pod_after(&space, None).await?);
        for kill in 1..=KILLS {
            let before = acknowledged.load(Ordering::Relaxed);
            let uid = space.api::<Pod>().get(&pod).await?.uid();
            signal(&space, &pod, "KILL")?;
            let killed = Instant::now();
            // A new pod at once: a container that only ends is restarted later each time.
            run("kubectl", &["delete", "pod", "--namespace", &space.name, &pod, "--grace-period=0", "--force"])?;
            pod = pod_after(&space, uid.as_deref()).await?;
            space.until::<McpServer>("s", "ready again", ready).await?;
            // Ready is true only if it is: clients get through, and more than once.
            let now = acknowledged.load(Ordering::Relaxed);
            while acknowledged.load(Ordering::Relaxed) < now + 20 {
                anyhow::ensure!(killed.elapsed() < PATIENCE, "the server is ready, and nothing is written");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            longest = longest.max(killed.elapsed());
            println!("kill {kill}: {} rows until Ready, twenty more after {:.1} s", now - before, killed.elapsed().as_secs_f64());
        }
        stop.store(true, Ordering::Relaxed);
        let mut rows = Vec::new();
        for writer in writers {
            rows.extend(writer.await?);
        }
        let sent = json!([json!(rows).to_string()]);
        let lost = client.one("SELECT count(*) FROM json_each(?) WHERE value NOT IN (SELECT id FROM row)", sent).await?;
        let check = client.one("PRAGMA integrity_check", json!([])).await?;
        println!(
            "{} acknowledged, {lost} lost, integrity_check {check}, longest without {:.1} s",
            rows.len(),
            longest.as_secs_f64()
        );
        anyhow::ensure!(lost == json!(0) && check == json!("ok"), "{lost} rows lost; {check}");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "takes a minute: make drills"]
async fn sandbox_on_a_full_volume_says_so_reads_on_and_writes_again_when_there_is_space() {
    with_space(|space| async move {
        install(&space).await?;
        let mut server = on_a_volume();
        // A file system of its own, which is really full.
        server["spec"]["storage"].take();
        server["spec"].as_object_mut().context("a spec is an object")?.remove("storage");
        server["spec"]["container"]["args"][2] = json!("/small/sandbox.db");
        server["spec"]["volumes"] = json!([{"name": "small", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]);
        server["spec"]["volumeMounts"] = json!([{"name": "small", "mountPath": "/small"}]);
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("s", "ready", ready).await?;
        let client = Client::of(&space)?;
        client.reached().await?;
        client.create().await?;
        client.insert(1, "first").await?;
        let pod = pod_after(&space, None).await?;
        let filler = files_of(&space, &pod, "sandbox-server").await?.join("small/filler");
        let full = std::fs::write(&filler, vec![0; 32 << 20]).err().and_then(|error| error.raw_os_error());
        anyhow::ensure!(full == Some(28), "the volume takes more than it should: {full:?}");

        let body = "x".repeat(100_000);
        let mut written = 1;
        let refused = loop {
            let result = client.call("write_query", "INSERT INTO row VALUES (?, ?)", json!([written + 1, body])).await?;
            if result["isError"] == json!(true) {
                break result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
            }
            written += 1;
            anyhow::ensure!(written < 200, "a full volume takes everything");
        };
        println!("full after {written} rows: {refused}");
        anyhow::ensure!(refused.contains("full"), "{refused}");
        for _ in 0..20 {
            let again = client.call("write_query", "INSERT INTO row VALUES (?, ?)", json!([500, body])).await?;
            anyhow::ensure!(again["isError"] == json!(true), "{again}");
            anyhow::ensure!(client.one("SELECT count(*) FROM row", json!([])).await? == json!(written), "reads do not go on");
        }
        // It answers, so it is in service: an app can still read.
        tokio::time::sleep(Duration::from_secs(6)).await;
        anyhow::ensure!(ready(&space.api::<McpServer>().get("s").await?), "a server that reads on is taken out of service");

        std::fs::remove_file(&filler)?;
        client.insert(900, &body).await?;
        let count = client.one("SELECT count(*) FROM row", json!([])).await?;
        let check = client.one("PRAGMA integrity_check", json!([])).await?;
        println!("space made: {count} rows, integrity_check {check}");
        anyhow::ensure!(count == json!(written + 1) && check == json!("ok"), "{count}, {check}");
        Ok(())
    })
    .await;
}

/// Runs the program to its end on the server's volume.
async fn job(space: &Space, name: &str, args: &[&str]) -> anyhow::Result<()> {
    let container =
        json!({"name": "run", "image": IMAGE, "args": args, "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let pod = json!({
        "restartPolicy": "Never", "containers": [container],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": true},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "s-mcp"}}],
    });
    space.create::<Job>(json!({"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}})).await?;
    let ended = |job: &Job| {
        let status = job.status.as_ref();
        status.is_some_and(|status| status.succeeded == Some(1) || status.failed == Some(1))
    };
    let job = space.until::<Job>(name, "its end", ended).await?;
    let log = run("kubectl", &["logs", "--namespace", &space.name, &format!("job/{name}")])?;
    println!("{name}: {log}");
    anyhow::ensure!(job.status.and_then(|status| status.succeeded) == Some(1), "{name} failed: {log}");
    Ok(())
}

#[tokio::test]
#[ignore = "takes a minute: make drills"]
async fn sandbox_serves_the_rows_of_its_backup_after_a_restore_and_keeps_the_old_file() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(on_a_volume()).await?;
        space.until::<McpServer>("s", "ready", ready).await?;
        let client = Client::of(&space)?;
        client.reached().await?;
        client.create().await?;
        for id in 1..=500 {
            client.insert(id, "kept").await?;
        }
        job(&space, "backup", &["backup", "--db", "/data/sandbox.db", "--to", "/data/backup.db.gz", "--gzip"]).await?;
        client.ok("write_query", "DELETE FROM row WHERE id > 100", json!([])).await?;
        client.insert(1000, "after the backup").await?;

        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space.until::<McpServer>("s", "not ready", |server| !ready(server)).await?;
        until_no_pods(&space, "s").await?;
        let restore = ["restore", "--db", "/data/sandbox.db", "--from", "/data/backup.db.gz", "--force"];
        job(&space, "restore", &restore).await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": true}})).await?;
        space.until::<McpServer>("s", "ready again", ready).await?;
        client.reached().await?;

        let rows = client.one("SELECT count(*) || ' ' || min(body) || ' ' || max(body) FROM row", json!([])).await?;
        anyhow::ensure!(rows == json!("500 kept kept"), "{rows}");
        anyhow::ensure!(
            client.one("PRAGMA integrity_check", json!([])).await? == json!("ok"),
            "the restored database is damaged"
        );
        let names: Vec<_> = std::fs::read_dir(volume_of(&space, "s-mcp").await?)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_, _>>()?;
        println!("on the volume: {names:?}");
        anyhow::ensure!(
            names.iter().any(|name| name.starts_with("sandbox.db.before-restore-")),
            "the old file is gone: {names:?}"
        );
        Ok(())
    })
    .await;
}

//! Backups that were restored: rows are written, backed up, the volume is lost, and the rows are there again. To a claim, and to a
//! bucket. Run by `make drills`.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job},
        core::v1::PersistentVolumeClaim,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::{DeleteParams, ListParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::{McpServer, backup::BackupStatus};
use serde_json::{Value, json};

use crate::{
    asleep::{asleep, falls_asleep},
    rollouts::roll,
    sandbox_drills::Client,
    setup::{install, ready, run, server_pods, until_no_pods, volume_of},
};

const CRON_JOB: &str = "s-mcp-backup";
const ROWS: u64 = 100;

pub fn server(to: &Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": {
        "container": {
            "image": "ghcr.io/mcpfleet/sandbox-server:0.1.0",
            "args": ["serve", "--db", "/data/sandbox.db", "--listen", "0.0.0.0:8080"],
        },
        // Never by itself in the time of a test: by hand.
        "storage": {"size": "1Gi", "mountPath": "/data", "backup": {"schedule": "0 0 1 1 *", "keep": 2, "to": to}},
        "health": {"intervalSeconds": 2, "timeoutSeconds": 2},
    }})
}

pub fn backup(server: &McpServer) -> Option<&BackupStatus> {
    server.status.as_ref()?.backup.as_ref()
}

pub fn last_success(server: &McpServer) -> Option<Time> {
    backup(server)?.last_success.clone()
}

/// The claim `kept`, where backups go.
pub async fn claim(space: &Space) -> anyhow::Result<()> {
    let claim = json!({"metadata": {"name": "kept"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    space.create::<PersistentVolumeClaim>(claim).await.map(drop)
}

/// A backup by hand of the server `s`, as people make one.
pub async fn make(space: &Space, name: &str) -> anyhow::Result<()> {
    make_of(space, CRON_JOB, name).await
}

async fn make_of(space: &Space, cron_job: &str, name: &str) -> anyhow::Result<()> {
    space.until::<CronJob>(cron_job, "the CronJob", |_| true).await?;
    let from = format!("--from=cronjob/{cron_job}");
    run("kubectl", &["create", "job", "--namespace", &space.name, &from, name]).map(drop)
}

async fn is_done(space: &Space, name: &str) -> anyhow::Result<()> {
    let done = |job: &Job| job.status.as_ref().and_then(|status| status.succeeded) == Some(1);
    space.until::<Job>(name, "a backup", done).await.map(drop)
}

pub async fn made(space: &Space, name: &str) -> anyhow::Result<McpServer> {
    let before = last_success(&space.api::<McpServer>().get("s").await?);
    make(space, name).await?;
    is_done(space, name).await?;
    let newer = |server: &McpServer| last_success(server).is_some_and(|last| Some(last) != before);
    space.until::<McpServer>("s", "the backup in its status", newer).await
}

/// Rows, a backup, rows after it; the claim is lost, and comes back with what the backup had.
async fn lose_and_restore(space: &Space, to: &Value) -> anyhow::Result<()> {
    install(space).await?;
    space.create::<McpServer>(server(to)).await?;
    space.until::<McpServer>("s", "ready", ready).await?;
    let client = Client::of(space)?;
    client.reached().await?;
    client.create().await?;
    for id in 0..ROWS {
        client.insert(id, "before").await?;
    }
    let told = made(space, "one").await?;
    let told = backup(&told).context("it is told")?;
    println!("{} bytes, ended {:?}", told.size.unwrap_or_default(), told.last_success);
    anyhow::ensure!(told.size.is_some_and(|size| size > 4_096) && told.failure.is_none(), "{told:?}");
    for id in ROWS..ROWS + 10 {
        client.insert(id, "after").await?;
    }

    // Over data it is never restored: the rows after the backup stay.
    roll(space, "restoreFrom", json!({"storage": {"restoreFrom": "latest"}})).await?;
    client.reached().await?;
    let count = client.one("SELECT count(*) FROM row", json!([])).await?;
    anyhow::ensure!(count == json!(ROWS + 10), "restored over data: {count} rows");

    // The claim is lost.
    space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
    until_no_pods(space, "s").await?;
    // Kubernetes keeps a claim that a pod names, also one that is done.
    let jobs = "app.kubernetes.io/component=mcp-backup,app.kubernetes.io/instance=s";
    run("kubectl", &["delete", "jobs", "--namespace", &space.name, "--selector", jobs])?;
    let lost = space.api::<PersistentVolumeClaim>().get("s-mcp").await?.metadata.uid;
    space.api::<PersistentVolumeClaim>().delete("s-mcp", &DeleteParams::default()).await?;
    space.until::<PersistentVolumeClaim>("s-mcp", "another claim", |claim| claim.metadata.uid != lost).await?;
    space.edit::<McpServer>("s", json!({"spec": {"enabled": true}})).await?;
    space.until::<McpServer>("s", "ready again", ready).await?;
    client.reached().await?;
    let count = client.one("SELECT count(*) FROM row", json!([])).await?;
    let after = client.one("SELECT count(*) FROM row WHERE body = 'after'", json!([])).await?;
    let check = client.one("PRAGMA integrity_check", json!([])).await?;
    println!("restored: {count} rows, integrity_check {check}");
    anyhow::ensure!(
        count == json!(ROWS) && after == json!(0) && check == json!("ok"),
        "{count} rows, {after} of them after it, {check}"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "takes a minute: make drills"]
async fn a_lost_claim_comes_back_from_a_backup_in_another_claim() {
    with_space(|space| async move {
        claim(&space).await?;
        lose_and_restore(&space, &json!({"claim": "kept"})).await
    })
    .await;
}

/// A server that speaks S3, on the node, for as long as it is kept.
struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        // That it has ended by itself is no fault of ours.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn moto() -> anyhow::Result<(Moto, String)> {
    let programs = std::env::var("MOTO").context("MOTO names the folder of moto's programs: tests/moto.sh")?;
    let port = TcpListener::bind("0.0.0.0:0")?.local_addr()?.port().to_string();
    let mut command = Command::new(format!("{programs}/moto_server"));
    command.args(["--host", "0.0.0.0", "--port", &port]).stdout(Stdio::null()).stderr(Stdio::null());
    let moto = Moto(command.spawn()?);
    let node = run("kubectl", &["get", "nodes", "--output", "jsonpath={.items[0].status.addresses[0].address}"])?;
    let endpoint = format!("http://{node}:{port}");
    let bucket = async {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut look = tokio::time::interval(Duration::from_millis(200));
        loop {
            look.tick().await;
            let asked = http.put(format!("{endpoint}/backups")).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), bucket).await.context("moto does not answer")??;
    Ok((moto, endpoint))
}

#[tokio::test]
#[ignore = "takes a minute: make drills"]
async fn a_lost_claim_comes_back_from_a_bucket_and_a_backup_that_fails_is_told() {
    with_space(|space| async move {
        let (_moto, endpoint) = moto().await?;
        space.secret("keys", &[("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]).await?;
        let s3 = json!({"bucket": "backups", "prefix": "team/s", "endpoint": endpoint, "credentialsSecretRef": {"name": "keys"}});
        lose_and_restore(&space, &json!({"s3": s3})).await?;

        // The pods know where they are restored from: they are made anew, and start over data without asking there.
        roll(&space, "another bucket", json!({"storage": {"backup": {"to": {"s3": {"bucket": "nobodys"}}}}})).await?;
        let other = |cron: &CronJob| serde_json::to_string(cron).is_ok_and(|cron| cron.contains("s3://nobodys"));
        space.until::<CronJob>(CRON_JOB, "another bucket", other).await?;
        make(&space, "into-nothing").await?;
        let failed =
            |server: &McpServer| backup(server).is_some_and(|told| told.failure.is_some() && told.last_success.is_some());
        let told = space.until::<McpServer>("s", "a failure", failed).await?;
        anyhow::ensure!(
            backup(&told).is_some_and(|told| told.last > told.last_success),
            "told before its last try: {:?}",
            backup(&told)
        );
        println!("told: {:?}", backup(&told).and_then(|told| told.failure.as_ref()));
        let conditions = told.status.as_ref().map(|status| &status.conditions);
        anyhow::ensure!(ready(&told), "a backup is not the server: {conditions:?}");
        Ok(())
    })
    .await;
}

/// A backup by hand of one of several servers, to its end.
/// One of them sleeps, and nobody wakes it: the job mounts its volume without it.
#[tokio::test]
#[ignore = "takes two minutes: make drills"]
async fn servers_that_share_a_claim_keep_each_its_own_and_one_that_sleeps_is_backed_up_and_sleeps_on() {
    with_space(|space| async move {
        install(&space).await?;
        claim(&space).await?;
        let named = |name: &str| {
            let mut server = server(&json!({"claim": "kept"}));
            server["metadata"]["name"] = json!(name);
            server["spec"]["storage"]["backup"]["keep"] = json!(1);
            server
        };
        let mut sleeper = named("s");
        sleeper["spec"]["autoscaling"] = json!({"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 30});
        space.create::<McpServer>(sleeper).await?;
        space.create::<McpServer>(named("t")).await?;
        for (name, rows) in [("s", 10), ("t", 1)] {
            space.until::<McpServer>(name, "ready", ready).await?;
            let client = Client::to(&space, name, Duration::from_secs(40))?;
            client.reached().await?;
            client.create().await?;
            for id in 0..rows {
                client.insert(id, name).await?;
            }
        }
        falls_asleep(&space, "s").await?;
        let cron = space.api::<CronJob>().get("s-mcp-backup").await?;
        anyhow::ensure!(cron.spec.is_some_and(|spec| spec.suspend == Some(false)), "it sleeps, and is not backed up");
        for (server, job) in [("s", "s-1"), ("t", "t-1"), ("s", "s-2"), ("t", "t-2")] {
            make_of(&space, &format!("{server}-mcp-backup"), job).await?;
            is_done(&space, job).await?;
        }
        anyhow::ensure!(asleep(&space.api::<McpServer>().get("s").await?), "a backup wakes nobody");
        anyhow::ensure!(server_pods(&space, "s").await?.is_empty(), "a backup wakes nobody");
        let kept = volume_of(&space, "kept").await?;
        for name in ["s", "t"] {
            let files = std::fs::read_dir(kept.join(name))?.count();
            anyhow::ensure!(files == 1, "{files} backups of {name}");
        }

        let mut copy = named("u");
        copy["spec"]["storage"]["restoreFrom"] = json!("s/latest");
        space.create::<McpServer>(copy).await?;
        space.until::<McpServer>("u", "ready", ready).await?;
        let client = Client::to(&space, "u", Duration::from_secs(5))?;
        client.reached().await?;
        let rows = client.one("SELECT count(*) FROM row WHERE body = 's'", json!([])).await?;
        anyhow::ensure!(rows == json!(10), "{rows} rows");
        Ok(())
    })
    .await;
}

/// What `kubectl create job` leaves: no more than the CronJob itself does, and nothing that holds the claim for ever.
#[tokio::test]
#[ignore = "takes a minute: make drills"]
async fn jobs_by_hand_belong_to_the_cron_job_and_go_by_their_number_and_by_their_time() {
    with_space(|space| async move {
        install(&space).await?;
        claim(&space).await?;
        space.create::<McpServer>(server(&json!({"claim": "kept"}))).await?;
        space.until::<McpServer>("s", "ready", ready).await?;
        let client = Client::of(&space)?;
        client.reached().await?;
        client.create().await?;
        for number in 0..5 {
            made(&space, &format!("by-hand-{number}")).await?;
        }
        let jobs = || async { anyhow::Ok(space.api::<Job>().list(&ListParams::default()).await?.items) };
        let three = async {
            let mut look = tokio::time::interval(Duration::from_millis(200));
            loop {
                let jobs = jobs().await?;
                if jobs.len() <= 3 {
                    return anyhow::Ok(jobs);
                }
                look.tick().await;
            }
        };
        let jobs = tokio::time::timeout(Duration::from_mins(1), three).await.context("all five stay")??;
        let mut names: Vec<_> = jobs.iter().filter_map(|job| job.metadata.name.as_deref()).collect();
        names.sort_unstable();
        anyhow::ensure!(names == ["by-hand-2", "by-hand-3", "by-hand-4"], "{names:?}");
        let told = space.api::<McpServer>().get("s").await?;

        // Their time is three days: here it is up at once.
        for job in &jobs {
            let spec = job.spec.as_ref().context("it has one")?;
            anyhow::ensure!(spec.ttl_seconds_after_finished == Some(3 * 24 * 3_600), "{spec:?}");
            space
                .edit::<Job>(job.metadata.name.as_deref().context("a name")?, json!({"spec": {"ttlSecondsAfterFinished": 0}}))
                .await?;
        }
        // Nobody deletes a job, and the claim goes all the same.
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        until_no_pods(&space, "s").await?;
        let lost = space.api::<PersistentVolumeClaim>().get("s-mcp").await?.metadata.uid;
        space.api::<PersistentVolumeClaim>().delete("s-mcp", &DeleteParams::default()).await?;
        space.until::<PersistentVolumeClaim>("s-mcp", "another claim", |claim| claim.metadata.uid != lost).await?;
        let now = space.api::<McpServer>().get("s").await?;
        anyhow::ensure!(backup(&now) == backup(&told), "what was told stays: {:?}", backup(&now));
        Ok(())
    })
    .await;
}

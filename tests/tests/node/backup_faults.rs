//! Backups and restores that are struck in the middle: the program, its pod, the operator, the API server. Whatever was struck, the end
//! is the same, and what has a backup's name is whole. Run by `make drills`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{ResourceExt, api::ListParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::McpServer;
use serde_json::json;

use crate::{
    backup_drills::{backup, claim, last_success, made, make, server},
    processes::{self, Process, processes},
    sandbox_drills::Client,
    setup::{install, ready, run, until_no_pods, volume_of},
    strikes,
};

/// So large that each step takes a while: some 200 MB.
const ROWS: u64 = 50_000;

const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Clone, Copy, Debug)]
enum Strike {
    Program,
    Pod,
    Operator,
    ApiServer,
}

/// A pod that is deleted by force is replaced before its program has ended: what that leaves is removed by a later run.
fn left_to_the_next(struck: Strike) -> bool {
    matches!(struck, Strike::Pod)
}

const STRIKES: [Strike; 4] = [Strike::Program, Strike::Pod, Strike::Operator, Strike::ApiServer];

/// sandbox-server at `backup` or `restore`, in a pod of the cluster under test.
fn workers(verb: &str) -> anyhow::Result<Vec<Process>> {
    let cluster = format!("mcpfleet-{}", std::env::var("MCPFLEET_CLUSTER_NAME")?);
    processes(|process| {
        let at_it = process.words().get(1).is_some_and(|word| word == verb);
        at_it && process.program().ends_with("sandbox-server") && process.is_of(&cluster)
    })
}

/// What is in a folder: what has its name, and what is on the way to one.
fn contents(folder: &Path) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name != "lost+found").partition(|name| !name.contains(".partial-")))
}

/// Waits until the program writes a file beside those that are `left` already, and holds it there: the processes, stopped.
async fn held_in_the_middle(verb: &str, folder: &Path, left: &[String]) -> anyhow::Result<Vec<Process>> {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let writes = || anyhow::Ok(contents(folder)?.1.iter().any(|name| !left.contains(name)));
    let began = async {
        loop {
            look.tick().await;
            let workers = workers(verb)?;
            if !workers.is_empty() && writes()? {
                processes::send(&workers, "STOP")?;
                anyhow::ensure!(writes()?, "it was through before it was stopped");
                return Ok(workers);
            }
        }
    };
    tokio::time::timeout(PATIENCE, began).await.with_context(|| format!("no {verb} began"))?
}

/// Strikes while `held` are in the middle, lets what is left of them go on, and brings back what was struck.
async fn strike(space: &Space, strike: Strike, held: &[Process]) -> anyhow::Result<()> {
    match strike {
        Strike::Program => processes::send(held, "KILL"),
        Strike::Pod => {
            let pod = pod_of(space, held).await?.name_any();
            run("kubectl", &["delete", "pod", "--namespace", &space.name, &pod, "--grace-period=0", "--force"]).map(drop)
        }
        Strike::Operator => {
            strikes::kill(space, "operator").await?;
            processes::send(held, "CONT")?;
            strikes::back()
        }
        Strike::ApiServer => {
            strikes::without_api_server(async || {
                processes::send(held, "CONT")?;
                // It ends while nobody can be told.
                let mut look = tokio::time::interval(Duration::from_millis(50));
                let ended = async {
                    while !held.iter().all(Process::has_ended) {
                        look.tick().await;
                    }
                };
                tokio::time::timeout(PATIENCE, ended).await.context("the program does not end")
            })
            .await
        }
    }
}

/// The pod that has these processes.
async fn pod_of(space: &Space, held: &[Process]) -> anyhow::Result<Pod> {
    let process = held.first().context("a process")?;
    let pods = space.api::<Pod>().list(&ListParams::default()).await?.items;
    pods.into_iter().find(|pod| pod.uid().is_some_and(|uid| process.is_of(&uid))).context("its pod")
}

/// Whether a file is a whole database with all of the rows.
fn whole(file: &Path) -> anyhow::Result<()> {
    let script = "import sqlite3, sys; c = sqlite3.connect(f'file:{sys.argv[1]}?immutable=1', uri=True); \
                  print(c.execute('PRAGMA integrity_check').fetchone()[0], c.execute('SELECT count(*) FROM row').fetchone()[0])";
    let output = Command::new("python3").args(["-c", script]).arg(file).output()?;
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(told.trim() == format!("ok {ROWS}"), "{}: {told}", file.display());
    Ok(())
}

/// A server with its rows, and the first backup of them, that nobody disturbed.
async fn backed_up(space: &Space) -> anyhow::Result<Client> {
    install(space).await?;
    claim(space).await?;
    space.create::<McpServer>(server(&json!({"claim": "kept"}))).await?;
    space.until::<McpServer>("s", "ready", ready).await?;
    let client = Client::of(space)?;
    client.reached().await?;
    client.create().await?;
    for first in (0..ROWS).step_by(5_000) {
        let rows = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2) \
                    INSERT INTO row SELECT i, hex(randomblob(2000)) FROM n";
        client.ok("write_query", rows, json!([first, first + 4_999])).await?;
    }
    let began = Instant::now();
    made(space, "undisturbed").await?;
    println!("a backup of {ROWS} rows takes {:.1} s, undisturbed", began.elapsed().as_secs_f64());
    Ok(client)
}

#[tokio::test]
#[ignore = "takes minutes: make drills"]
async fn a_backup_that_is_struck_in_the_middle_is_made_all_the_same_and_none_is_half() {
    with_space(|space| async move {
        backed_up(&space).await?;
        // The server's own folder, which is not there before the first backup.
        let kept = volume_of(&space, "kept").await?.join("s");
        fs::create_dir_all(&kept)?;
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o777))?;
        for struck in STRIKES {
            let name = format!("{struck:?}").to_lowercase();
            let before = last_success(&space.api::<McpServer>().get("s").await?);
            let left = contents(&kept)?.1;
            make(&space, &name).await?;
            let held = held_in_the_middle("backup", &kept, &left).await?;
            let began = Instant::now();
            strike(&space, struck, &held).await?;
            let done = |job: &Job| job.status.as_ref().and_then(|status| status.succeeded) == Some(1);
            space.until::<Job>(&name, "a backup", done).await?;
            let told =
                |server: &McpServer| last_success(server) != before && backup(server).is_some_and(|told| told.failure.is_none());
            let told = space.until::<McpServer>("s", "the backup in its status", told).await?;
            println!("{struck:?}: backed up, and told, {:.1} s later", began.elapsed().as_secs_f64());
            let (backups, on_the_way) = contents(&kept)?;
            anyhow::ensure!(backups.len() == 2, "{struck:?}: {backups:?}");
            anyhow::ensure!(on_the_way.is_empty() || left_to_the_next(struck), "{struck:?}: {on_the_way:?}");
            for file in &backups {
                whole(&kept.join(file))?;
            }
            let newest = backups.iter().max().context("there is one")?;
            let size = i64::try_from(fs::metadata(kept.join(newest))?.len())?;
            anyhow::ensure!(backup(&told).and_then(|told| told.size) == Some(size), "{newest} has {size} bytes: {told:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "takes minutes: make drills"]
async fn a_restore_that_is_struck_in_the_middle_ends_with_every_row_and_nothing_half() {
    with_space(|space| async move {
        let client = backed_up(&space).await?;
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false, "storage": {"restoreFrom": "latest"}}})).await?;
        let data = volume_of(&space, "s-mcp").await?;
        for struck in STRIKES {
            space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
            until_no_pods(&space, "s").await?;
            for file in contents(&data)?.0 {
                fs::remove_file(data.join(file))?;
            }
            let left = contents(&data)?.1;
            space.edit::<McpServer>("s", json!({"spec": {"enabled": true}})).await?;
            let held = held_in_the_middle("restore", &data, &left).await?;
            anyhow::ensure!(contents(&data)?.0.is_empty(), "{struck:?}: there is a database before it is whole");
            let began = Instant::now();
            strike(&space, struck, &held).await?;
            space.until::<McpServer>("s", "ready again", ready).await?;
            client.reached().await?;
            println!("{struck:?}: restored, and serves, {:.1} s later", began.elapsed().as_secs_f64());
            let count = client.one("SELECT count(*) FROM row", json!([])).await?;
            anyhow::ensure!(count == json!(ROWS), "{struck:?}: {count} rows");
            let (files, on_the_way) = contents(&data)?;
            anyhow::ensure!(on_the_way.is_empty() || left_to_the_next(struck), "{struck:?}: {files:?}, {on_the_way:?}");
            // With its log, of which the rows are a part.
            let check = client.one("PRAGMA quick_check", json!([])).await?;
            anyhow::ensure!(check == json!("ok"), "{struck:?}: {check}");
        }
        Ok(())
    })
    .await;
}

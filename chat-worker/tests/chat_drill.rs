//! A hundred conversations with real workers while everything around them changes: the key is rotated, servers are added,
//! removed and disabled, one is stopped and killed, a child is killed, one replica is killed and one drained. Every turn ends, with
//! an answer or a clear error, and when all is well again every conversation goes on.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; a run tells its figures")]

mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use model_standin::Running as Model;
use serde_json::{Value, json};
use support::{
    Fake, Mood,
    binary::{Binary, kill},
};
use tokio::time::{sleep, timeout};

const CONVERSATIONS: usize = 100;
const TURNS: usize = 4;
/// The longest that a turn may take, whatever happens: two timeouts of tools, and what the model takes.
const LONGEST: Duration = Duration::from_secs(20);

/// Three servers in one turn, and half a second of text.
const SCRIPT: &str = r#"
rules:
  - name: go
    when: [go]
    steps:
      - {tools: [{tool: one__echo, input: {text: a}}, {tool: child__pid}], delay_ms: 100}
      - {tools: [{tool: fleet__inner__echo, input: {text: b}}], delay_ms: 100}
      - {text: "and so the answer comes word by word until it is here", delay_ms: 100, chunk_delay_ms: 40}
otherwise: {text: "?"}
"#;
const ANSWER: &str = "and so the answer comes word by word until it is here";

const CHILD: &str = r#"
while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case "$line" in
    *'"notifications/'*) continue ;;
    *'"initialize"'*) answer='"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer='"result":{"tools":[{"name":"pid","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}' ;;
    *'"tools/call"'*) answer='"result":{"content":[{"type":"text","text":"'$$'"}]}' ;;
    *) answer='"error":{"code":-32601,"message":"no such method"}' ;;
    esac
    echo "{\"jsonrpc\":\"2.0\",\"id\":$id,$answer}"
done
"#;

/// What a turn came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answer,
    /// An answer that says that a tool is missing.
    Without,
    /// The last event of the stream, or the problem of the answer, by its type.
    Error(String),
    /// The stream or the connection ended: the replica is gone, and the caller knows it.
    Gone,
}

/// One turn at a replica; the conversation goes on from what it returned.
async fn turn(http: &reqwest::Client, url: &str, messages: &mut Value) -> End {
    let body = json!({"message": "go", "messages": messages});
    let Ok(response) = http.post(format!("{url}/v1/chat")).json(&body).send().await else { return End::Gone };
    if !response.status().is_success() {
        let status = response.status().as_u16();
        let problem: Value = response.json().await.unwrap_or_default();
        assert!(problem["detail"].is_string(), "{status} without a word: {problem}");
        return End::Error(format!("status {status}"));
    }
    let (mut text, mut chunks) = (Vec::new(), response.bytes_stream());
    while let Some(Ok(chunk)) = chunks.next().await {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
    let Some(event) = last.and_then(|data| serde_json::from_str::<Value>(data).ok()) else { return End::Gone };
    match event["type"].as_str() {
        Some("done") => {
            messages.clone_from(&event["messages"]);
            assert_eq!(event["outcome"], "complete", "{event}");
            let said = event["messages"].as_array().and_then(|messages| messages.last()).unwrap().to_string();
            assert!(said.contains(ANSWER) || said.contains("I have no tool"), "{said}");
            if said.contains(ANSWER) { End::Answer } else { End::Without }
        }
        Some("error") => {
            assert!(event["message"].as_str().is_some_and(|message| message.len() > 10), "{event}");
            messages.clone_from(&event["messages"]);
            End::Error(event["kind"].as_str().unwrap().to_owned())
        }
        _ => End::Gone,
    }
}

/// A person who asks again and again, and goes to another replica when one is gone.
struct Person {
    http: reqwest::Client,
    replicas: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    number: usize,
}

impl Person {
    /// How its turns ended, with how long the longest took.
    async fn talk(self) -> (Vec<End>, Duration, Value) {
        let (mut ends, mut longest, mut messages) = (Vec::new(), Duration::ZERO, json!([]));
        sleep(Duration::from_millis(20) * u32::try_from(self.number).unwrap()).await;
        // However slow the machine is, everybody has a few turns.
        while ends.len() < TURNS || !self.over.load(Ordering::SeqCst) {
            let replicas = self.replicas.lock().unwrap().clone();
            let url = &replicas[(self.number + ends.len()) % replicas.len()];
            let began = Instant::now();
            let end = timeout(LONGEST, turn(&self.http, url, &mut messages)).await;
            ends.push(end.unwrap_or_else(|_| unreachable!("a turn at {url} hangs, after {ends:?}")));
            longest = longest.max(began.elapsed());
            // A conversation does not grow for ever.
            if messages.as_array().is_some_and(|messages| messages.len() > 24) {
                messages = json!([]);
            }
            sleep(Duration::from_millis(300)).await;
        }
        (ends, longest, messages)
    }
}

/// Everything that conversations depend on.
struct Surroundings {
    model: Model,
    key: std::path::PathBuf,
    one: Arc<Fake>,
    two: Arc<Fake>,
    child: Value,
    /// A real process that is an MCP server over HTTP: another worker, with its /mcp.
    fleet: Binary,
    replicas: Vec<Binary>,
}

impl Surroundings {
    async fn start(directory: &Path) -> Self {
        let at = |name: &str| {
            let path = directory.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let model = Model::start(SCRIPT).await.unwrap();
        let (one, two) = (Fake::start(Mood::Modern).await, Fake::start(Mood::Legacy).await);
        let inner = Fake::start(Mood::Modern).await;
        let (key, script) = (directory.join("key"), directory.join("child.sh"));
        std::fs::write(&key, "first").unwrap();
        std::fs::write(&script, CHILD).unwrap();
        model.standin.require_key("first");
        let fleet = Binary::start(&at("fleet"), &[inner.entry("inner")], &model.url(), &[]).await;
        let child = json!({"name": "child", "command": "sh", "args": [script], "timeout": 2});
        let mut all = Self { model, key, one, two, child, fleet, replicas: Vec::new() };
        for name in ["a", "b", "c"] {
            let key = all.key.to_str().unwrap().to_owned();
            let args = ["--api-key-file", &key, "--drain-seconds", "6"];
            let replica = Binary::start(&at(name), &all.servers(), &all.model.url(), &args).await;
            all.replicas.push(replica);
        }
        all
    }

    /// What a healthy configuration holds.
    fn servers(&self) -> Vec<Value> {
        let mut one = self.one.entry("one");
        one["timeout"] = json!(2);
        let fleet = json!({"name": "fleet", "url": format!("{}/mcp", self.fleet.url), "timeout": 2, "health_check_interval": 1});
        vec![one, self.child.clone(), fleet]
    }

    fn configure(&self, servers: &[Value]) {
        for replica in &self.replicas {
            replica.configure(servers);
        }
    }

    /// Until every server of the first replica is up.
    async fn all_up(&self) {
        let up = async {
            while self.replicas[0].servers().await.iter().any(|server| server["state"] != "up") {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(20), up).await.expect("up within twenty seconds");
    }

    /// The child of the first replica.
    async fn child_process(&self) -> u32 {
        let asked = async {
            loop {
                // On a slow machine a call may be too late.
                if let Ok(process) = self.replicas[0].call("child__pid").await.2.parse() {
                    return process;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(20), asked).await.expect("a child that answers")
    }

    async fn change_everything(&mut self, urls: &Mutex<Vec<String>>) {
        let pause = || sleep(Duration::from_millis(1500));
        pause().await;
        eprintln!("the key is rotated");
        std::fs::write(self.key.with_extension("new"), "second").unwrap();
        std::fs::rename(self.key.with_extension("new"), &self.key).unwrap();
        self.model.standin.require_key("second");
        pause().await;
        eprintln!("a server is added, another disabled");
        let (mut servers, mut two) = (self.servers(), self.two.entry("two"));
        two["timeout"] = json!(2);
        servers.push(two);
        servers[0]["enabled"] = json!(false);
        self.configure(&servers);
        pause().await;
        eprintln!("a server is removed, the other enabled again");
        servers[0]["enabled"] = json!(true);
        servers.remove(1);
        self.configure(&servers);
        pause().await;
        self.configure(&self.servers());
        pause().await;
        eprintln!("a server is stopped, a child killed");
        kill("STOP", self.fleet.id());
        kill("KILL", self.child_process().await);
        sleep(Duration::from_secs(5)).await;
        eprintln!("the server goes on");
        kill("CONT", self.fleet.id());
        self.one.set(Mood::Broken);
        pause().await;
        self.one.set(Mood::Modern);
        eprintln!("one replica is killed, one drained, and the server killed");
        kill("KILL", self.fleet.id());
        kill("KILL", self.replicas[1].id());
        kill("TERM", self.replicas[2].id());
        // A Service takes a while to notice.
        pause().await;
        urls.lock().unwrap().truncate(1);
        pause().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_conversations_survive_what_happens_to_a_fleet() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = Surroundings::start(directory.path()).await;
    all.all_up().await;
    let urls = Arc::new(Mutex::new(all.replicas.iter().map(|replica| replica.url.clone()).collect::<Vec<_>>()));
    let (over, http) = (Arc::new(AtomicBool::new(false)), reqwest::Client::new());
    let people: Vec<_> = (0..CONVERSATIONS)
        .map(|number| Person { http: http.clone(), replicas: Arc::clone(&urls), over: Arc::clone(&over), number })
        .map(|person| tokio::spawn(person.talk()))
        .collect();
    let began = Instant::now();
    all.change_everything(&urls).await;
    over.store(true, Ordering::SeqCst);
    let talks = timeout(Duration::from_mins(1), join_all(people)).await.expect("every conversation ends");
    let talks: Vec<_> = talks.into_iter().map(Result::unwrap).collect();
    let mut counts = BTreeMap::<&End, usize>::new();
    for end in talks.iter().flat_map(|(ends, ..)| ends) {
        *counts.entry(end).or_default() += 1;
    }
    let longest = talks.iter().map(|(_, longest, _)| *longest).max().unwrap();
    eprintln!("in {:?}: {counts:?}, the longest turn {longest:?}", began.elapsed());
    // What the API, a configuration or a server did was overcome: only a replica that went is an error.
    let told: Vec<_> = counts.keys().filter(|end| !matches!(end, End::Answer | End::Without | End::Gone)).collect();
    assert!(told.iter().all(|end| matches!(end, End::Error(kind) if kind == "status 503")), "{counts:?}");
    let gone = counts.get(&End::Gone).copied().unwrap_or(0);
    assert!(counts.contains_key(&End::Answer) && gone <= TURNS * CONVERSATIONS, "{counts:?}");
    assert!(talks.iter().all(|(ends, ..)| ends.iter().any(|end| matches!(end, End::Answer | End::Without))), "{counts:?}");

    // The drained replica has ended by itself, and well.
    let ended = timeout(Duration::from_secs(20), all.replicas[2].child.wait()).await.expect("it ends").unwrap();
    assert!(ended.success(), "{ended:?}");
    // The server is gone for good; the others are back, and every conversation goes on with them.
    for (number, (_, _, mut messages)) in talks.into_iter().enumerate().step_by(10) {
        let end = timeout(LONGEST, turn(&http, &all.replicas[0].url, &mut messages)).await.unwrap();
        assert_eq!(end, End::Without, "conversation {number}");
    }
    let states = all.replicas[0].servers().await;
    let state = |name: &str| states.iter().find(|server| server["name"] == name).unwrap()["state"].as_str().unwrap().to_owned();
    assert_eq!((state("one").as_str(), state("child").as_str()), ("up", "up"));
    assert_ne!(state("fleet"), "up");
    let took = all.replicas[0].terminate(Duration::from_secs(20)).await;
    eprintln!("the last replica ended in {took:?}");
}

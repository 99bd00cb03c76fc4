//! Servers that are children of the worker: one that dies comes back, and its last words are kept.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use support::{
    Worker,
    binary::{self, Binary},
    state,
};

/// A server in twenty lines of shell: it speaks 2025-11-25, and its one tool says which process it is.
const CHILD: &str = r#"
echo "child $$ begins, with the password of http://me:secret@host/" >&2
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

const SCRIPT: &str = "rules: [{name: p, when: [pid], steps: [{tools: [{tool: pid}]}, {text: '{{last}}'}]}]\notherwise: {text: x}";

/// The process that answers; `None` while there is none.
async fn pid(worker: &Worker) -> Option<u32> {
    worker.ask(json!({"message": "pid"})).await.1["answer"].as_str()?.parse().ok()
}

/// A worker over a child by this script, once that is up.
async fn over(script: &str, more: serde_json::Value) -> (tempfile::TempDir, Worker) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("child.sh");
    std::fs::write(&path, script).unwrap();
    let mut entry = more;
    (entry["name"], entry["command"], entry["args"]) = (json!("a"), json!("sh"), json!([path]));
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    worker.until("the child", |health| state(health, "a") == "up").await;
    (directory, worker)
}

#[tokio::test]
async fn a_child_that_dies_is_started_again_and_its_words_are_kept() {
    let (_directory, worker) = over(CHILD, json!({"timeout": 5})).await;
    let first = pid(&worker).await.expect("a child");
    assert!(Command::new("kill").args(["-KILL", &first.to_string()]).status().unwrap().success());
    let second = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match pid(&worker).await {
                Some(other) if other != first => return other,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let second = second.await.expect("another child within twenty seconds");
    let words = worker.app.engine.hub.stderr("a").expect("the server");
    let begun = |pid: u32| words.iter().any(|line| line.starts_with(&format!("child {pid} begins")));
    assert!(begun(first) && begun(second), "{words:?}");
    assert!(!words.concat().contains("secret"), "{words:?}");
    worker.app.stop().await;
}

#[tokio::test]
async fn a_child_that_dies_in_a_call_is_told_with_its_code_and_its_last_words() {
    let dies = "*'\"tools/call\"'*) echo 'no space left' >&2; exit 7 ;;\n    *'\"tools/list\"'*)";
    let script = CHILD.replace("*'\"tools/list\"'*)", dies);
    let (_directory, worker) = over(&script, json!({"timeout": 5, "max_retries": 0})).await;
    let (_, answer) = worker.ask(json!({"message": "pid"})).await;
    let told = answer["tool_calls"][0]["result"]["text"].as_str().unwrap();
    assert!(told.contains("exit code 7") && told.contains("its last words: no space left"), "{told}");
    worker.app.stop().await;
}

#[tokio::test]
async fn a_child_that_works_on_a_call_is_not_taken_for_one_that_hangs() {
    // Meanwhile it reads nothing else, for longer than a list may take.
    let script = CHILD.replace("*'\"tools/call\"'*) ", "*'\"tools/call\"'*) sleep 12; ");
    let (_directory, worker) = over(&script, json!({"timeout": 20, "health_check_interval": 1})).await;
    let first = worker.app.engine.hub.stderr("a");
    let (_, answer) = worker.ask(json!({"message": "pid"})).await;
    assert_eq!(answer["tool_calls"][0]["result"]["is_error"], false, "{answer}");
    assert_eq!(
        (worker.app.engine.hub.stderr("a"), state(&worker.get("/health").await, "a")),
        (first, "up"),
        "it is the first one"
    );
    worker.app.stop().await;
}

#[tokio::test]
async fn whoever_waits_for_a_child_that_is_given_up_hears_it_at_once() {
    let script = CHILD.replace("*'\"tools/call\"'*) ", "*'\"tools/call\"'*) echo called >&2; sleep 60; ");
    let (_directory, worker) = over(&script, json!({"timeout": 50, "max_retries": 0})).await;
    let began = std::time::Instant::now();
    let reconnect = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !worker.app.engine.hub.stderr("a").expect("the server").iter().any(|line| line == "called") {
            look.tick().await;
        }
        worker.app.engine.hub.reconnect(Some("a"));
    };
    let ((_, answer), ()) = tokio::join!(worker.ask(json!({"message": "pid"})), reconnect);
    assert!(began.elapsed() < Duration::from_secs(40), "{answer}");
    assert_eq!(answer["tool_calls"][0]["result"]["is_error"], true, "{answer}");
    worker.app.stop().await;
}

#[tokio::test]
async fn a_child_that_ends_at_what_it_does_not_know_is_initialized() {
    let script = CHILD.replace("*'\"tools/list\"'*)", "*'\"server/discover\"'*) exit 1 ;;\n    *'\"tools/list\"'*)");
    let (_directory, worker) = over(&script, json!({"timeout": 5})).await;
    assert!(pid(&worker).await.is_some());
    worker.app.stop().await;
}

#[tokio::test]
async fn a_child_that_ends_at_its_start_is_told_with_its_code_and_its_last_words() {
    let says = "echo \"API_TOKEN=$API_TOKEN is of no use\" >&2; exit 3";
    let entry = json!({"name": "a", "command": "sh", "args": ["-c", says], "timeout": 5, "env": {"API_TOKEN": "an-odd-one-1"}});
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    worker.until("its end", |health| health["metrics"]["servers"][0]["reason"].is_string()).await;
    let health = worker.get("/health").await;
    let reason = health["metrics"]["servers"][0]["reason"].as_str().unwrap();
    assert_eq!(reason, "sh ended, exit code 3; its last words: API_TOKEN=*** is of no use");
    worker.app.stop().await;
}

/// Looks for what it must not see of whoever started it, and says what it got.
const SPY: &str = r#"
for file in environ mem maps fd; do
    if [ "$file" = fd ]; then got=$(readlink /proc/$PPID/fd/1); else got=$(head -c 100 /proc/$PPID/$file 2>/dev/null); fi
    [ -n "$got" ] && echo "$file" >>FOLDER/found
done
env | grep -q KEY && echo environment >>FOLDER/found
echo looked >>FOLDER/found
"#;

#[tokio::test]
async fn a_child_can_read_neither_our_environment_nor_our_memory() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let config = folder.join("mcp.json");
    std::fs::write(folder.join("spy.sh"), SPY.replace("FOLDER", folder.to_str().unwrap())).unwrap();
    let entry = json!({"name": "spy", "command": "sh", "args": [folder.join("spy.sh")]});
    std::fs::write(&config, json!({"servers": [entry]}).to_string()).unwrap();
    let worker = env!("CARGO_BIN_EXE_chat-worker");
    let mut command = if rustix::process::geteuid().is_root() {
        // Root may read everything, unless it has no more rights than anybody.
        let mut command = tokio::process::Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", worker]);
        command
    } else {
        tokio::process::Command::new(worker)
    };
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-file", "-", "--data-dir", ""]).arg("--config").arg(&config);
    command.env("ANTHROPIC_API_KEY", "sk-ant-not-for-children").stdout(Stdio::null()).kill_on_drop(true);
    let mut worker = command.spawn().unwrap();
    let found = folder.join("found");
    let looked = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let text = std::fs::read_to_string(&found).unwrap_or_default();
            if text.contains("looked") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    // It is started again in the earlier era, for it ends at once.
    let looked = looked.await.expect("it looks within twenty seconds");
    assert!(looked.lines().all(|line| line == "looked"), "{looked}");
    worker.kill().await.unwrap();
}

/// Minds neither the end of its input nor SIGTERM; so do what it starts, in its process group and out of it.
const STAYS: &str = r#"
cd FOLDER
stays='trap "" TERM HUP; echo $$ >>pids; sleep 1000; sleep 1000'
sh -c "$stays" &
setsid sh -c "$stays" &
eval "$stays"
"#;

#[tokio::test]
async fn a_worker_that_is_killed_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    std::fs::write(folder.join("stays.sh"), STAYS.replace("FOLDER", folder.to_str().unwrap())).unwrap();
    let entry = json!({"name": "stays", "command": "sh", "args": [folder.join("stays.sh")]});
    let secret = [("ANTHROPIC_API_KEY", "sk-ant-not-for-children".to_owned())];
    let worker = Binary::start_with(folder, &[entry], "http://127.0.0.1:1", &[], &secret).await;
    let started = until("all of them", || {
        let pids = std::fs::read_to_string(folder.join("pids")).unwrap_or_default();
        let pids: Vec<String> = pids.lines().map(str::to_owned).collect();
        (pids.len() == 3).then_some(pids)
    })
    .await;
    // Who waits for that has nothing that a child could read of it.
    let word = format!("guard\0{}\0", worker.id());
    let [(guard, _)] = &binary::processes(&word, worker.id())[..] else { unreachable!("one guard") };
    assert_eq!(std::fs::read(format!("/proc/{guard}/environ")).unwrap(), b"");
    binary::kill("KILL", worker.id());
    until("their end", || started.iter().chain([&guard.to_string()]).all(|pid| !alive(pid)).then_some(())).await;
}

fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits for something, up to twenty seconds.
async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let looked = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    looked.await.expect(what)
}

//! Calls over standard input and output go a shorter way than the SDK's. Nobody may be able to tell, and nothing is lost on it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::BINARY;

/// A call that runs until it is stopped.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
}

impl Process {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(BINARY)
            .args(["stdio", "--db"])
            .arg(folder.path().join("test.db"))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output).lines(), folder }
    }

    /// With a session of this revision; None: of a client that needs none.
    async fn with_client(revision: Option<&str>, more: &[&str]) -> Self {
        let mut process = Self::start(more);
        if let Some(revision) = revision {
            let client = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
            process.send(&json!({"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": client})).await;
            let answer: Value = serde_json::from_str(&process.answer().await).unwrap();
            assert_eq!(answer["result"]["protocolVersion"], revision);
            process.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        }
        process
    }

    async fn send(&mut self, message: &Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    /// The next answer; notifications may come at any time.
    async fn answer(&mut self) -> String {
        loop {
            let line = tokio::time::timeout(Duration::from_secs(20), self.output.next_line()).await.unwrap().unwrap().unwrap();
            if serde_json::from_str::<Value>(&line).unwrap().get("id").is_some() {
                return line;
            }
        }
    }

    /// The end of the process, and what it answered before.
    async fn end(mut self) -> Vec<String> {
        drop(self.input);
        let mut said = Vec::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            said.extend(Some(line).filter(|line| !line.contains("\"method\":\"notifications/")));
        }
        assert!(self.child.wait().await.unwrap().success());
        drop(self.folder);
        said
    }
}

fn modern_meta() -> Value {
    json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}})
}

fn call(id: &Value, tool: &str, arguments: &Value, meta: &Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn read(id: impl Into<Value>, query: &str) -> Value {
    call(&id.into(), "read_query", &json!({"query": query}), &json!({}))
}

fn answered(line: &str) -> i64 {
    serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap()
}

#[tokio::test]
async fn both_ways_give_the_same_bytes() {
    let sessions = [None, Some("2024-11-05"), Some("2025-03-26"), Some("2025-06-18"), Some("2025-11-25")];
    for revision in sessions {
        let mut process = Process::with_client(revision, &[]).await;
        let meta = if revision.is_none() { modern_meta() } else { json!({}) };
        // Who wants to hear of progress goes the SDK's way.
        let mut with_progress = meta.clone();
        with_progress["progressToken"] = json!("p");
        for (tool, arguments) in [
            ("read_query", json!({"query": "SELECT 1 AS a, 'x\"ä\n' AS b, NULL"})),
            ("read_query", json!({"query": "SELECT ?, ?", "params": [1.5, {"$blob": "AP8="}]})),
            ("read_query", json!({"query": "SELECT nme FROM item"})),
            ("read_query", json!({"query": "SELECT 1", "max_rows": "many"})),
            ("read_query", json!("{\"query\": \"SELECT 2\"}")),
            ("create_table", json!({"query": "CREATE TABLE IF NOT EXISTS item (id)"})),
            ("write_query", json!({"query": "SELECT 1"})),
            ("list_tables", json!({})),
            ("list_tables", Value::Null),
            ("no_such_tool", json!({})),
            ("read_query", json!([])),
        ] {
            for id in [json!(1), json!(-7), json!("a\"b")] {
                process.send(&call(&id, tool, &arguments, &meta)).await;
                let short = process.answer().await;
                process.send(&call(&id, tool, &arguments, &with_progress)).await;
                assert_eq!(short, process.answer().await, "{revision:?} {tool} {arguments}");
            }
        }
        assert_eq!(process.end().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_stopped_and_not_answered() {
    // One thread reads: what comes next shows that the statement was stopped.
    let mut process = Process::with_client(Some("2025-11-25"), &["--readers", "1", "--statement-timeout-ms", "60000"]).await;
    for way in [json!({}), json!({"progressToken": 1})] {
        process.send(&call(&json!(1), "read_query", &json!({"query": ENDLESS}), &way)).await;
        process.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})).await;
        process.send(&read(2, "SELECT 2")).await;
        assert_eq!(answered(&process.answer().await), 2);
    }
    // Taking back what is not there, or has been answered, does nothing.
    for odd in [json!({"requestId": 2}), json!({"requestId": "no"}), json!({}), json!([])] {
        process.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": odd})).await;
    }
    process.send(&read(3, "SELECT 3")).await;
    assert_eq!(answered(&process.answer().await), 3);
    // Before the end the SDK may find the time to say that the last of them is no message.
    let rest = process.end().await;
    assert!(rest.iter().all(|line| line.contains("Invalid request")), "{rest:?}");
}

#[tokio::test]
async fn what_was_asked_before_the_end_of_input_is_answered() {
    let mut process = Process::with_client(Some("2025-06-18"), &[]).await;
    for id in 0..200 {
        process.send(&read(id, "SELECT 1")).await;
    }
    process.send(&json!({"jsonrpc": "2.0", "id": 200, "method": "ping"})).await;
    let ids: BTreeSet<i64> = process.end().await.iter().map(|line| answered(line)).collect();
    assert_eq!(ids, (0..=200).collect());
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything_once_and_whole() {
    // Time is not what this is about: a machine that stands still for a while must not end a statement.
    let process = Process::with_client(Some("2025-11-25"), &["--statement-timeout-ms", "600000"]).await;
    let Process { mut child, mut input, mut output, folder } = process;
    let asked: i64 = 4000;
    // Half of it is more than both pipes hold, so that the server has to wait for its reader.
    let writer = tokio::spawn(async move {
        for id in 0..asked {
            let message = read(id, &format!("SELECT {id} AS id, printf('%.*c', 2000, 'x') AS long"));
            input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        }
    });
    let mut seen = BTreeMap::new();
    while seen.len() < usize::try_from(asked).unwrap() {
        let line = tokio::time::timeout(Duration::from_mins(1), output.next_line()).await.unwrap().unwrap().unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let rows = &answer["result"]["structuredContent"]["rows"];
        assert_eq!(rows[0][0], answer["id"], "{line}");
        *seen.entry(answered(&line)).or_insert(0) += 1;
    }
    writer.await.unwrap();
    assert!(seen.values().all(|times| *times == 1));
    assert!(child.wait().await.unwrap().success());
    drop(folder);
}

/// What comes before the SDK has agreed with the client on an era goes its way, and what comes after that the short one: together no more than
/// may wait.
#[tokio::test]
async fn a_client_that_waits_for_nothing_is_never_told_that_there_are_too_many() {
    let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": client});
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT count(*) FROM n";
    let asked = 1500;
    let calls = (0..asked).map(|id| read(id, slow));
    let all: Vec<_> = [hello, initialized].into_iter().chain(calls).map(|message| message.to_string()).collect();
    let all = format!("{}\n", all.join("\n"));
    let mut process = Process::start(&["--statement-timeout-ms", "600000"]);
    let mut input = process.input;
    let writer = tokio::spawn(async move { input.write_all(all.as_bytes()).await.map(|()| input) });
    let mut left: BTreeSet<i64> = (0..asked).collect();
    while !left.is_empty() {
        let line = tokio::time::timeout(Duration::from_mins(1), process.output.next_line()).await.unwrap().unwrap().unwrap();
        if line.contains("\"hello\"") || line.contains("\"method\"") {
            continue;
        }
        assert!(!line.contains("isError\":true"), "{line}");
        assert!(left.remove(&answered(&line)), "{line}");
    }
    drop(writer.await.unwrap().unwrap());
    assert!(process.child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_client_that_is_gone_ends_the_process() {
    let process = Process::with_client(Some("2025-11-25"), &[]).await;
    let Process { mut child, mut input, output, folder } = process;
    // Its input stays open, but nobody reads what it says.
    drop(output);
    input.write_all(format!("{}\n", read(1, "SELECT 1")).as_bytes()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    drop((input, folder));
}

#[tokio::test]
async fn files_and_sockets_serve_as_well_as_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let (asks, answers) = (folder.path().join("asks"), folder.path().join("answers"));
    let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client});
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    std::fs::write(&asks, format!("{hello}\n{initialized}\n{}\n", read(1, "SELECT 1"))).unwrap();
    let status = Command::new(BINARY)
        .args(["stdio", "--db"])
        .arg(folder.path().join("test.db"))
        .stdin(std::fs::File::open(&asks).unwrap())
        .stdout(std::fs::File::create(&answers).unwrap())
        .stderr(Stdio::null())
        .status();
    assert!(tokio::time::timeout(Duration::from_secs(20), status).await.unwrap().unwrap().success());
    let said = std::fs::read_to_string(&answers).unwrap();
    assert_eq!(said.lines().map(answered).collect::<Vec<_>>(), [0, 1]);

    // As a client in node has it.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let end = |socket: &std::os::unix::net::UnixStream| std::os::fd::OwnedFd::from(socket.try_clone().unwrap());
    let mut child = Command::new(BINARY)
        .args(["stdio", "--db"])
        .arg(folder.path().join("test.db"))
        .stdin(end(&theirs))
        .stdout(end(&theirs))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    drop(theirs);
    ours.set_nonblocking(true).unwrap();
    let (output, mut input) = tokio::net::UnixStream::from_std(ours).unwrap().into_split();
    let mut output = BufReader::new(output).lines();
    for (message, id) in [(hello, 0), (read(1, "SELECT 1"), 1)] {
        input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        let line = tokio::time::timeout(Duration::from_secs(20), output.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(answered(&line), id);
    }
    input.shutdown().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap().success());
}

//! Starts the real binary on a free port over a database in a folder of its own, and speaks to it.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_sandbox-server");

/// A running server. Dropping it kills the process.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub folder: Arc<TempDir>,
    /// The log lines so far.
    pub log: Arc<Mutex<Vec<String>>>,
    http: reqwest::Client,
}

impl Server {
    /// On a new folder, after `schema` has been put into the database (empty: no file at all).
    pub fn start(schema: &str, flags: &[&str]) -> Self {
        Self::start_with(schema, flags, &[])
    }

    /// The same with environment variables.
    pub fn start_with(schema: &str, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        if !schema.is_empty() {
            database(folder.path()).execute_batch(schema).unwrap();
        }
        Self::on_with(folder, flags, environment)
    }

    /// On a folder that is there already.
    pub fn on(folder: Arc<TempDir>, flags: &[&str]) -> Self {
        Self::on_with(folder, flags, &[])
    }

    fn on_with(folder: Arc<TempDir>, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--db"])
            .arg(folder.path().join("test.db"))
            .args(flags)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let address = wait_for_address(&mut child, Arc::clone(&log));
        // Fails when another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { child, address, folder, log, http }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Any request to the server.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.request(reqwest::Method::GET, path).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A request of the 2026-07-28 era, complete with headers and `_meta`.
    pub fn modern(&self, method: &str, params: Value) -> reqwest::RequestBuilder {
        let mut params = params;
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
        let mut request = self
            .request(reqwest::Method::POST, "/mcp")
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", "2026-07-28")
            .header("Mcp-Method", method);
        if let Some(name) = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str) {
            request = request.header("Mcp-Name", name);
        }
        request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    }

    /// A request of an earlier era.
    pub fn legacy(&self, version: &str, method: &str, params: &Value) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::POST, "/mcp")
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", version)
            .json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    }

    /// Calls a tool in the modern era and returns its result.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        let answer: Value =
            self.modern("tools/call", json!({"name": tool, "arguments": arguments})).send().await.unwrap().json().await.unwrap();
        assert!(answer.get("result").is_some(), "{answer}");
        answer["result"].clone()
    }

    /// Calls a tool that must succeed, and returns its structured content.
    pub async fn ok(&self, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert_eq!(result["isError"], json!(false), "{result}");
        result["structuredContent"].clone()
    }

    /// Calls a tool that must fail, and returns its text.
    pub async fn error(&self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result["isError"], json!(true), "{result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// The rows of a query that must succeed.
    pub async fn rows(&self, sql: &str) -> Value {
        self.ok("read_query", json!({"query": sql})).await["rows"].clone()
    }

    /// Waits until so many calls are under way.
    pub async fn calls_in_flight(&self, wanted: impl RangeBounds<usize> + Debug) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let metrics = self.get("/metrics").await.1;
            let found = metrics.lines().find_map(|line| line.strip_prefix("sandbox_tool_calls_in_flight "));
            if wanted.contains(&found.unwrap().parse().unwrap()) {
                return;
            }
            assert!(Instant::now() < deadline, "calls under way: {found:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a line of its log has these words.
    pub async fn says(&self, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.log.lock().unwrap().iter().any(|line| line.contains(words)) {
            assert!(Instant::now() < deadline, "it does not say {words:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until no thread of the process wants to run: what a statement leaves behind must not be put down to the next one.
    pub async fn at_rest(&self) {
        let busy = || {
            std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten().any(|thread| {
                // A thread may end while it is looked at.
                let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('R'))
            })
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        while busy() {
            assert!(Instant::now() < deadline, "a thread of the server does not come to rest");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The highest memory that the process has had, in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        self.status_mib("VmHWM:")
    }

    /// The memory that the process has now, in MiB.
    pub fn memory_mib(&self) -> u64 {
        self.status_mib("VmRSS:")
    }

    fn status_mib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection of the test's own to the database in a folder.
pub fn database(folder: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(folder.join("test.db")).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn
}

/// Runs the binary to its end; exit code and what it wrote to standard error.
pub fn run(args: &[&str]) -> (i32, String) {
    run_with(args, &[])
}

/// The same with environment variables.
pub fn run_with(args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(BINARY).args(args).envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

pub fn path(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

fn wait_for_address(child: &mut Child, log: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let (send, address) = std::sync::mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let found = serde_json::from_str::<Value>(&line)
                .ok()
                .and_then(|line| line["address"].as_str().and_then(|text| text.parse().ok()));
            log.lock().unwrap().push(line);
            if let Some(found) = found {
                // The test may have ended.
                let _ = send.send(found);
            }
        }
    });
    address.recv_timeout(Duration::from_secs(20)).expect("the server says where it listens")
}

//! The real binary under test: started with a configuration, asked over HTTP, watched from /proc.

#![allow(dead_code, reason = "test support; each test binary uses a part of it")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A running `chat-worker serve`; killed when it is dropped.
pub struct Binary {
    pub url: String,
    pub http: reqwest::Client,
    pub child: Child,
    pub config: PathBuf,
    pub log: PathBuf,
}

impl Binary {
    /// Starts one with these servers in a directory of its own, against this model; `args` are further settings.
    pub async fn start(directory: &Path, servers: &[Value], model: &str, args: &[&str]) -> Self {
        Self::start_with(directory, servers, model, args, &[]).await
    }

    /// The same, with further variables of the environment.
    pub async fn start_with(
        directory: &Path,
        servers: &[Value],
        model: &str,
        args: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (config, log) = (directory.join("mcp.json"), directory.join("mcp.log"));
        std::fs::write(&config, json!({"servers": servers}).to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat-worker"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--base-url", model, "--rate-limit-requests", "0"]).args(args);
        command.arg("--config").arg(&config).arg("--log-file").arg(&log).arg("--data-dir").arg(directory.join("data"));
        command
            .env_remove("ANTHROPIC_API_KEY")
            .envs(environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().expect("it listens")).unwrap();
            let message = line["message"].as_str().unwrap().to_owned();
            if let Some((_, rest)) = message.split_once("listens on ") {
                break rest.split(';').next().unwrap().to_owned();
            }
        };
        // A pipe that nobody reads would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { url: address, http: reqwest::Client::new(), child, config, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn configure(&self, servers: &[Value]) {
        // A file that is read half-way would be one that cannot be used, for a second.
        let new = self.config.with_extension("new");
        std::fs::write(&new, json!({"servers": servers}).to_string()).unwrap();
        std::fs::rename(new, &self.config).unwrap();
    }

    pub async fn get(&self, path: &str) -> Value {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap().json().await.unwrap()
    }

    /// The state of every server by its name.
    pub async fn servers(&self) -> Vec<Value> {
        self.get("/v1/servers").await["servers"].as_array().unwrap().clone()
    }

    /// A tool call over /mcp: the time that it took, whether it is an error, and its text.
    pub async fn call(&self, tool: &str) -> (Duration, bool, String) {
        let began = Instant::now();
        let params = json!({"name": tool, "arguments": {"text": format!("{began:?}")}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}}});
        let request = self.http.post(format!("{}/mcp", self.url)).header("accept", "application/json, text/event-stream");
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let answer: Value = request.header("mcp-name", tool).json(&body).send().await.unwrap().json().await.unwrap();
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        let failed = answer["result"]["isError"] == true || text.is_empty();
        (began.elapsed(), failed, if text.is_empty() { answer.to_string() } else { text })
    }

    /// The most memory that it has held, in MiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields: Vec<u32> = stat.rsplit_once(')').unwrap().1.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        f64::from(fields[11] + fields[12]) / 100.0
    }

    /// SIGTERM; how long it took to end.
    pub async fn terminate(&mut self, limit: Duration) -> Duration {
        let began = Instant::now();
        kill("TERM", self.id());
        tokio::time::timeout(limit, self.child.wait()).await.expect("it ends").unwrap();
        began.elapsed()
    }
}

pub fn kill(signal: &str, process: u32) {
    assert!(std::process::Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().unwrap().success());
}

/// Processes whose command line holds this word, with their state letters; also dead children of `parent` that wait for
/// being asked about.
pub fn processes(word: &str, parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let (command, stat) = (read("cmdline"), String::from_utf8_lossy(&read("stat")).into_owned());
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_whitespace();
        let (state, its_parent) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let dead = state == "Z" && its_parent == parent.to_string();
        if dead || String::from_utf8_lossy(&command).contains(word) {
            found.push((id, format!("{state} {}", String::from_utf8_lossy(&command).replace('\0', " "))));
        }
    }
    found
}

//! A running bridge, and a client that sends what it is told to.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

pub const MODERN: &str = "2026-07-28";
const CHILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/child.py");

/// A bridge, ended with the test.
pub struct Bridge {
    pub process: Child,
    pub url: String,
    pub log: Arc<Mutex<Vec<String>>>,
    client: reqwest::Client,
}

/// With the scripted child of this era, and its options.
pub fn child(words: &str) -> Vec<String> {
    [&["python3", CHILD][..], &words.split_whitespace().collect::<Vec<_>>()].concat().iter().map(ToString::to_string).collect()
}

impl Bridge {
    /// `flags` of `bridge run`, separated by blanks.
    pub async fn start(flags: &str, command: &[String]) -> Self {
        let flags = if flags.contains("--listen") { flags.to_owned() } else { format!("--listen 127.0.0.1:0 {flags}") };
        let flags = flags.split_whitespace().map(str::to_owned).chain(["--".to_owned()]);
        Self::launch(flags.chain(command.iter().cloned()), "serving MCP").await
    }

    /// One beside a server that speaks HTTP itself.
    pub async fn beside(server: &Self) -> Self {
        let flags = ["--listen", "127.0.0.1:0", "--upstream", &server.url].map(str::to_owned);
        Self::launch(flags.into_iter(), "handing on").await
    }

    /// With these variables, which its child has, too.
    pub async fn start_with(variables: &[(&str, &str)], flags: &str, command: &[String]) -> Self {
        let flags = format!("--listen 127.0.0.1:0 {flags}");
        let flags = flags.split_whitespace().map(str::to_owned).chain(["--".to_owned()]);
        Self::launch_with(variables, flags.chain(command.iter().cloned()), "serving MCP").await
    }

    async fn launch(args: impl Iterator<Item = String>, says: &str) -> Self {
        Self::launch_with(&[], args, says).await
    }

    async fn launch_with(variables: &[(&str, &str)], args: impl Iterator<Item = String>, says: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_bridge"))
            .envs(variables.iter().copied())
            .arg("run")
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(process.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut bridge = Self { process, url: String::new(), log, client };
        let line = bridge.logged(says).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        bridge.url = format!("http://{}", line["address"].as_str().unwrap());
        bridge
    }

    /// One whose child has said what it is: deadlines of the test are not spent on its start.
    pub async fn start_ready(flags: &str, command: &[String]) -> Self {
        let bridge = Self::start(flags, command).await;
        bridge.logged("child speaks MCP").await;
        bridge
    }

    /// Waits for a line of the log.
    pub async fn logged(&self, part: &str) -> String {
        let find = || self.log.lock().unwrap().iter().find(|line| line.contains(part)).cloned();
        until(&format!("a line of the log with {part}"), async || find()).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).timeout(Duration::from_mins(1))
    }

    /// A legacy message, outside of a session or in one.
    pub async fn post(&self, session: Option<&str>, body: &Value) -> Response {
        let request = self.request(Method::POST, "/mcp").header("accept", "application/json, text/event-stream").json(body);
        session.iter().fold(request, |request, session| request.header("mcp-session-id", *session)).send().await.unwrap()
    }

    /// A modern request.
    pub fn modern(&self, id: &Value, method: &str, params: &Value) -> RequestBuilder {
        let mut params = params.clone();
        let meta = params.as_object_mut().unwrap().entry("_meta").or_insert_with(|| json!({}));
        meta["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let request = self
            .request(Method::POST, "/mcp")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", method);
        let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str).map(str::to_owned);
        let request = name.iter().fold(request, |request, name| request.header("mcp-name", name));
        request.json(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// The answer to a legacy call.
    pub async fn call(&self, session: Option<&str>, tool: &str, arguments: Value) -> Value {
        answer(self.post(session, &tools_call(tool, arguments)).await).await
    }

    /// The text of a legacy call's result, as JSON where it is.
    pub async fn text(&self, session: Option<&str>, tool: &str, arguments: Value) -> Value {
        text(&self.call(session, tool, arguments).await)
    }

    /// A session of a client with these capabilities.
    pub async fn initialize(&self, capabilities: Value) -> String {
        let response = self.post(None, &initialize(capabilities)).await;
        let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let answer = answer(response).await;
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(self.post(Some(&session), &initialized).await.status(), 202);
        session
    }

    /// One line of the metrics.
    pub async fn metric(&self, name: &str) -> u64 {
        self.metric_at("/metrics", name).await
    }

    pub async fn metric_at(&self, path: &str, name: &str) -> u64 {
        let text = self.request(Method::GET, path).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the end of the bridge", async || self.process.try_wait().unwrap()).await
    }

    pub async fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended().await
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let children = children_of(self.process.id());
        let _ = self.process.kill();
        let _ = self.process.wait();
        // One that hears nothing does not notice that its bridge is gone.
        children.into_iter().for_each(kill);
        if std::thread::panicking() {
            eprintln!("{}", self.log.lock().unwrap().join("\n"));
        }
    }
}

pub fn initialize(capabilities: Value) -> Value {
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "test", "version": "1"}});
    json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params})
}

pub fn tools_call(tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// All messages of a response, JSON or events.
pub async fn messages(response: Response) -> Vec<Value> {
    let events = response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream");
    let text = response.text().await.unwrap();
    if !events {
        return vec![serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))];
    }
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// The last message, which is the answer.
pub async fn answer(response: Response) -> Value {
    messages(response).await.pop().unwrap()
}

pub fn text(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"));
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Events as they come.
pub struct Events {
    response: Response,
    rest: String,
}

impl Events {
    pub fn of(response: Response) -> Self {
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        Self { response, rest: String::new() }
    }

    /// None: the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.rest.find('\n') {
                let line: String = self.rest.drain(..=end).collect();
                let data = line.strip_prefix("data: ").map(|data| serde_json::from_str(data).unwrap());
                if data.is_some() {
                    return data;
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await.expect("an event");
            self.rest.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }
}

/// Waits for something, up to 20 seconds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Children of a process that live.
/// The children of a process, without a bridge's guard.
pub fn children_of(process: u32) -> Vec<i64> {
    let all =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let child = |stat: String| {
        let (pid, (state, parent)) = (stat.split(' ').next()?, stat.rsplit_once(") ")?.1.split_once(' ')?);
        let ours = state != "Z" && parent.split(' ').next()? == process.to_string();
        ours.then(|| pid.parse().ok())?
    };
    let is_guard = |pid: &i64| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"guard")
    };
    all.filter_map(child).filter(|pid| !is_guard(pid)).collect()
}

pub fn kill(process: i64) {
    // It may have gone by itself.
    let _ = Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status();
}

/// Whether a process lives; a zombie does not.
pub fn alive(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

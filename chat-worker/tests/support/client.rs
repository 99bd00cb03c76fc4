//! Clients of /mcp: one of an earlier era, with its session, one of the modern one, and what they are answered.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Worker;

const PATIENCE: Duration = Duration::from_secs(10);

/// A client of 2025-11-25, with the session that it was given.
pub struct Legacy<'a> {
    pub worker: &'a Worker,
    pub session: String,
}

impl<'a> Legacy<'a> {
    pub async fn connect(worker: &'a Worker, capabilities: Value) -> Self {
        let client = Self { worker, session: String::new() };
        let params =
            json!({"protocolVersion": "2025-11-25", "clientInfo": {"name": "c", "version": "1"}, "capabilities": capabilities});
        let response =
            client.post(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).send().await.unwrap();
        let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["result"]["capabilities"]["tools"]["listChanged"], true, "{answer}");
        Self { session, ..client }
    }

    pub fn post(&self, message: &Value) -> RequestBuilder {
        let request = self.worker.http.post(format!("{}/mcp", self.worker.url)).json(message);
        let request =
            request.header("accept", "application/json, text/event-stream").header("mcp-protocol-version", "2025-11-25");
        if self.session.is_empty() { request } else { request.header("mcp-session-id", &self.session) }
    }

    /// The stream by which the session hears what belongs to no call.
    pub async fn listen(&self) -> Events {
        let request = self.worker.http.get(format!("{}/mcp", self.worker.url)).header("accept", "text/event-stream");
        Events::of(request.header("mcp-session-id", &self.session).send().await.unwrap())
    }

    pub async fn call(&self, id: u64, tool: &str, meta: Value) -> Events {
        self.request(id, "tools/call", json!({"name": format!("t__{tool}"), "arguments": {}}), meta).await
    }

    /// The tool of a `Talker` that does what it is told to: all that is heard until it has ended. Questions are answered by `answers`, with
    /// what stands behind the id: a result, or an error.
    pub async fn follow(&self, steps: Value, meta: Value, answers: impl Fn(&Value) -> Value) -> Vec<Value> {
        let mut events = self.request(1, "tools/call", json!({"name": "t__follow", "arguments": {"steps": steps}}), meta).await;
        let mut heard = Vec::new();
        while let Some(message) = events.next().await {
            if message["method"].is_string() && !message["id"].is_null() {
                let mut answer = answers(&message);
                (answer["jsonrpc"], answer["id"]) = ("2.0".into(), message["id"].clone());
                assert_eq!(self.post(&answer).send().await.unwrap().status(), 202);
            }
            heard.push(message);
        }
        heard
    }

    pub async fn request(&self, id: u64, method: &str, mut params: Value, meta: Value) -> Events {
        params["_meta"] = meta;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        Events::of(self.post(&request).send().await.unwrap())
    }
}

/// The messages of an answer, whether it is a stream or one message.
pub struct Events {
    response: reqwest::Response,
    read: String,
}

impl Events {
    pub fn of(response: reqwest::Response) -> Self {
        assert!(response.status().is_success(), "{response:?}");
        Self { response, read: String::new() }
    }

    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data:")).map(str::trim).unwrap_or_default();
                let message = serde_json::from_str(data).ok();
                let rest = rest.to_owned();
                self.read = rest;
                match message {
                    Some(message) => return Some(message),
                    None => continue,
                }
            }
            match timeout(PATIENCE, self.response.chunk()).await.unwrap().unwrap() {
                Some(piece) => self.read.push_str(std::str::from_utf8(&piece).unwrap()),
                None if self.read.trim().is_empty() => return None,
                None => return serde_json::from_str(&std::mem::take(&mut self.read)).ok(),
            }
        }
    }
}

/// The answer to a request of the modern era.
pub async fn modern(worker: &Worker, method: &str, params: Value, meta: Value) -> Events {
    Events::of(modern_request(worker, method, params, &meta).send().await.unwrap())
}

/// A request of the modern era.
pub fn modern_request(worker: &Worker, method: &str, mut params: Value, meta: &Value) -> RequestBuilder {
    let mut all =
        json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    all.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
    params["_meta"] = all;
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("accept", "application/json, text/event-stream");
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
    let request = match params["name"].as_str().or_else(|| params["uri"].as_str()) {
        Some(name) => request.header("mcp-name", name),
        None => request,
    };
    request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
}

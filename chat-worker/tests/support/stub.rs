//! An MCP server that answers what it is told to: a list of tools, one result for every call, and whatever else a test gives it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The server; it ends when this value is dropped.
#[derive(Debug)]
pub struct Stub {
    pub address: SocketAddr,
    pub tools: Mutex<Value>,
    /// Results by method, for example `tools/call` or `resources/list`.
    pub results: Mutex<BTreeMap<String, Value>>,
    /// The parameters of every request but lists, in their order.
    pub seen: Mutex<Vec<Value>>,
    /// The bodies of all requests, as they came.
    pub raw: Mutex<Vec<String>>,
    pub instructions: Mutex<Option<String>>,
    /// Every request is answered with 500.
    pub broken: std::sync::atomic::AtomicBool,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Stub {
    /// Starts one with these tools.
    pub async fn start(tools: Value) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let result = json!({"content": [{"type": "text", "text": "done"}]});
        let stub = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            tools: Mutex::new(tools),
            results: Mutex::new(BTreeMap::from([("tools/call".to_owned(), result)])),
            seen: Mutex::default(),
            raw: Mutex::default(),
            instructions: Mutex::default(),
            broken: false.into(),
            task: Mutex::default(),
        });
        let router = Router::new().route("/mcp", post(answer)).with_state(Arc::clone(&stub));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *stub.task.lock().unwrap() = Some(task);
        stub
    }

    pub fn entry(&self, name: &str) -> Value {
        json!({"name": name, "url": format!("http://{}/mcp", self.address), "timeout": 2, "max_retries": 0, "health_check_interval": 0.2})
    }

    /// From now on this method is answered so.
    pub fn answers(&self, method: &str, result: Value) {
        self.results.lock().unwrap().insert(method.to_owned(), result);
    }

    /// The parameters of the calls that came.
    pub fn calls(&self) -> Vec<Value> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen["method"] == "tools/call")
            .map(|seen| seen["params"].clone())
            .collect()
    }
}

async fn answer(State(stub): State<Arc<Stub>>, body: String) -> Response {
    let request: Value = serde_json::from_str(&body).unwrap();
    stub.raw.lock().unwrap().push(body);
    if stub.broken.load(std::sync::atomic::Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if request["id"].is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let method = request["method"].as_str().unwrap_or_default();
    let mut result = match method {
        "server/discover" => json!({"supportedVersions": ["2026-07-28"], "serverInfo": {"name": "stub", "version": "1"},
            "instructions": *stub.instructions.lock().unwrap(),
            "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "completions": {}}}),
        "tools/list" => json!({"tools": *stub.tools.lock().unwrap()}),
        other => {
            stub.seen.lock().unwrap().push(json!({"method": other, "params": request["params"]}));
            match stub.results.lock().unwrap().get(other) {
                Some(result) => result.clone(),
                None if other.ends_with("/list") => {
                    let name = match other {
                        "resources/list" => "resources",
                        "prompts/list" => "prompts",
                        _ => "resourceTemplates",
                    };
                    json!({name: []})
                }
                None => {
                    let error = json!({"code": -32602, "message": format!("nothing for {other}")});
                    return Json(json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).into_response();
                }
            }
        }
    };
    for (name, value) in [("resultType", json!("complete")), ("ttlMs", json!(0)), ("cacheScope", json!("private"))] {
        if result.get(name).is_none() {
            result[name] = value;
        }
    }
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

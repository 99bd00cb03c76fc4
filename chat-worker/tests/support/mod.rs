//! A chat worker under test: a real web server over the stand-in model and fake MCP servers that misbehave on demand.

#![allow(clippy::unwrap_used, dead_code, reason = "test support; each test binary uses a part of it")]

pub mod binary;
pub mod client;
pub mod hostile;
pub mod nasty;
pub mod odd;
pub mod stub;
pub mod talker;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use chat_worker::{app::App, config::watch, settings::Cli, ui::web};
use clap::Parser;
use model_standin::Running as Model;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// How a fake MCP server behaves; can be changed while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Speaks 2026-07-28.
    Modern,
    /// Refuses discover with 400, speaks 2025-11-25.
    Legacy,
    /// Answers discover with an empty result, speaks 2025-11-25.
    Odd,
    /// Takes requests and never answers.
    Hang,
    /// Answers every request with 500.
    Broken,
}

const MOODS: [Mood; 5] = [Mood::Modern, Mood::Legacy, Mood::Odd, Mood::Hang, Mood::Broken];

/// A fake MCP server. Its tools: `echo` (read-only), `slow` (read-only, half a second), `wipe` (says nothing of itself),
/// `fail` (an error of its own), `dirty` (control characters, and very long).
#[derive(Debug)]
pub struct Fake {
    pub address: SocketAddr,
    pub calls: Mutex<Vec<Value>>,
    mood: AtomicU8,
    /// Requests to answer with 503 before everything else.
    pub hiccups: AtomicUsize,
    /// Calls that are made and whose answers break off on the way.
    pub losses: AtomicUsize,
    /// Every list breaks off.
    pub loses_lists: AtomicBool,
    pub echo_description: Mutex<String>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Fake {
    pub async fn start(mood: Mood) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self::at(listener.local_addr().unwrap(), mood);
        let router = fake.router();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *fake.task.lock().unwrap() = Some(task);
        fake
    }

    /// One that somebody else serves at this address.
    pub fn at(address: SocketAddr, mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            address,
            calls: Mutex::default(),
            mood: AtomicU8::new(mood as u8),
            hiccups: AtomicUsize::new(0),
            losses: AtomicUsize::new(0),
            loses_lists: AtomicBool::new(false),
            echo_description: Mutex::new("Says what it is told".to_owned()),
            task: Mutex::new(None),
        })
    }

    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/mcp", post(answer)).with_state(Arc::clone(self))
    }

    pub fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    fn mood(&self) -> Mood {
        MOODS[usize::from(self.mood.load(Ordering::SeqCst))]
    }

    pub fn entry(&self, name: &str) -> Value {
        json!({"name": name, "url": format!("http://{}/mcp", self.address), "timeout": 1, "max_retries": 2,
               "health_check_interval": 0.3})
    }

    fn tools(&self) -> Value {
        let object = json!({"type": "object"});
        let description = self.echo_description.lock().unwrap().clone();
        json!([
            {"name": "echo", "description": description, "inputSchema": object, "annotations": {"readOnlyHint": true}},
            {"name": "slow", "inputSchema": object, "annotations": {"readOnlyHint": true}},
            {"name": "wipe", "inputSchema": object},
            {"name": "fail", "inputSchema": object, "annotations": {"readOnlyHint": true}},
            {"name": "dirty", "inputSchema": object, "annotations": {"readOnlyHint": true}},
        ])
    }
}

async fn answer(State(fake): State<Arc<Fake>>, Json(request): Json<Value>) -> Response {
    match fake.mood() {
        Mood::Hang => std::future::pending::<()>().await,
        Mood::Broken => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => {}
    }
    let method = request["method"].as_str().unwrap_or_default();
    let one_of = |number: &AtomicUsize| number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
    if method == "tools/call" && one_of(&fake.hiccups) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if request["id"].is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let modern = fake.mood() == Mood::Modern;
    let result = match method {
        "server/discover" => match fake.mood() {
            Mood::Modern => {
                json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
                "capabilities": {"tools": {}}, "serverInfo": {"name": "fake", "version": "1"}})
            }
            Mood::Odd => json!({}),
            _ => return (StatusCode::BAD_REQUEST, "unknown method").into_response(),
        },
        "initialize" if modern => return (StatusCode::NOT_FOUND, "no initialize here").into_response(),
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"}}),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": fake.tools()}),
        "tools/call" => call(&fake, &request["params"]).await,
        _ => {
            let error = json!({"code": -32601, "message": "no such method"});
            return Json(json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).into_response();
        }
    };
    let is_lost = match method {
        "tools/list" => fake.loses_lists.load(Ordering::SeqCst),
        "tools/call" => one_of(&fake.losses),
        _ => false,
    };
    if is_lost {
        let breaks = futures::stream::iter([Err::<&str, _>(std::io::Error::other("it breaks off"))]);
        return ([("content-type", "application/json")], Body::from_stream(breaks)).into_response();
    }
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

async fn call(fake: &Fake, params: &Value) -> Value {
    fake.calls.lock().unwrap().push(params.clone());
    let text = match params["name"].as_str().unwrap_or_default() {
        "slow" => {
            tokio::time::sleep(Duration::from_millis(500)).await;
            "slow but sure".to_owned()
        }
        "dirty" => format!("\u{202E}evil\u{1b}[2J{}", "x".repeat(300_000)),
        "fail" => {
            return json!({"resultType": "complete", "isError": true, "content": [{"type": "text", "text": "it did not work"}]});
        }
        name => json!({"tool": name, "said": params["arguments"]["text"]}).to_string(),
    };
    let structured = json!({"text": text});
    json!({"resultType": "complete", "content": [{"type": "text", "text": text}], "structuredContent": structured})
}

/// A chat worker with everything around it.
pub struct Worker {
    pub app: Arc<App>,
    pub url: String,
    pub http: reqwest::Client,
    pub model: Model,
    pub directory: tempfile::TempDir,
    pub stop: CancellationToken,
    pub server: JoinHandle<anyhow::Result<()>>,
}

impl Worker {
    /// Starts one with this script of the model and these servers, which were tried; `args` are further settings.
    pub async fn start(script: &str, servers: &[Value], args: &[&str]) -> Self {
        Self::begin(script, servers, args, Duration::from_secs(20)).await
    }

    /// The same, whose servers were tried for so long at most.
    pub async fn begin(script: &str, servers: &[Value], args: &[&str], tried: Duration) -> Self {
        // The second of two tests finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let model = Model::start(script).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("mcp.json");
        std::fs::write(&config, json!({"servers": servers}).to_string()).unwrap();
        let (url, config) = (model.url(), config.to_str().unwrap().to_owned());
        let openai_url = format!("{url}/v1");
        let data = directory.path().join("data").to_str().unwrap().to_owned();
        let mut all = vec!["chat-worker", "--config", &config, "--log-file", "-"];
        all.extend(args);
        if !args.contains(&"--data-dir") {
            all.extend(["--data-dir", &data]);
        }
        // A test may bring an API of its own.
        if !args.contains(&"--base-url") {
            all.extend(["--base-url", &url]);
        }
        if !args.contains(&"--openai-base-url") {
            all.extend(["--openai-base-url", &openai_url]);
        }
        all.push("serve");
        let settings = Cli::parse_from(all).settings;
        let loaded = watch::load(&settings.config).unwrap();
        let app = App::start(settings, loaded, true).unwrap();
        app.engine.hub.settle(tried).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let server = tokio::spawn(web::serve(Arc::clone(&app), listener, stop.clone().cancelled_owned()));
        Self { app, url, http: reqwest::Client::new(), model, directory, stop, server }
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("mcp.json")
    }

    /// Asks, and waits for the whole turn.
    pub async fn ask(&self, body: Value) -> (u16, Value) {
        let mut body = body;
        body["stream"] = json!(false);
        let response = self.http.post(format!("{}/v1/chat", self.url)).json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    pub async fn get(&self, path: &str) -> Value {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until a condition of /health holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut health = Value::Null;
        for _ in 0..200 {
            health = self.get("/health").await;
            if holds(&health) {
                return health;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!("ten seconds have not brought {what}: {health}")
    }
}

/// The state of a server in /health.
pub fn state<'a>(health: &'a Value, name: &str) -> &'a str {
    let servers = health["metrics"]["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    servers.iter().find(|server| server["name"] == name).and_then(|server| server["state"].as_str()).unwrap_or("absent")
}

//! An MCP server on an address of its own, of the modern era unless it is told otherwise, that can be told to misbehave while it runs.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The port that the operator takes for a server that names none.
pub const PORT: u16 = 8080;

/// What the server does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It answers.
    Answer,
    /// It accepts, and never answers.
    Hang,
    /// It answers with this HTTP status.
    Status(u16),
}

#[derive(Debug)]
struct Inner {
    mode: Mutex<Mode>,
    tools: Mutex<Vec<String>>,
    /// Calls that it says are in flight. None: it has no metrics.
    calls: Mutex<Option<u32>>,
    /// Calls that it was made.
    called: AtomicUsize,
    /// It speaks 2025-11-25 alone, and gives sessions.
    legacy: AtomicBool,
}

/// A running server.
#[derive(Debug)]
pub struct FakeServer {
    /// Its address, local to the cluster's network namespace.
    pub address: IpAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl FakeServer {
    /// Starts one on an address that no other test has.
    pub async fn start() -> anyhow::Result<Self> {
        let address = unused_address();
        let listener = TcpListener::bind((address, PORT)).await?;
        let inner = Arc::new(Inner {
            mode: Mutex::new(Mode::Answer),
            tools: Mutex::new(vec!["read".into(), "write".into()]),
            calls: Mutex::default(),
            called: AtomicUsize::default(),
            legacy: AtomicBool::default(),
        });
        let sessions = post(answer).get(async || "listening").delete(async || StatusCode::OK);
        let router = Router::new().route("/mcp", sessions).route("/metrics", get(metrics)).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, inner, task })
    }

    /// Tells it what to do from now on.
    pub fn set(&self, mode: Mode) {
        *self.inner.mode.lock().expect("no panic while the mode is held") = mode;
    }

    /// Has it speak an older revision from now on, with sessions.
    pub fn set_legacy(&self) {
        self.inner.legacy.store(true, Ordering::Relaxed);
    }

    /// Tells it how many calls to say are in flight from now on, in the bridge's words. None: it has no metrics, as from the beginning.
    pub fn set_calls(&self, calls: Option<u32>) {
        *self.inner.calls.lock().expect("no panic while the calls are held") = calls;
    }

    /// How often a tool of it was called.
    pub fn called(&self) -> usize {
        self.inner.called.load(Ordering::Relaxed)
    }

    /// Tells it which tools to offer from now on.
    pub fn set_tools(&self, tools: &[&str]) {
        *self.inner.tools.lock().expect("no panic while the tools are held") = tools.iter().map(|&name| name.into()).collect();
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(server): State<Arc<Inner>>, Json(request): Json<Value>) -> axum::response::Response {
    let mode = server.mode.lock().expect("no panic while the mode is held").clone();
    match mode {
        Mode::Answer => {}
        Mode::Hang => std::future::pending().await,
        Mode::Status(code) => return StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT).into_response(),
    }
    let legacy = server.legacy.load(Ordering::Relaxed);
    let result = match request["method"].as_str() {
        Some("initialize") if legacy => {
            let result = json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "fake", "version": "1"},
            });
            let answer = Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
            return ([("mcp-session-id", "one")], answer).into_response();
        }
        Some("notifications/initialized") if legacy => return StatusCode::ACCEPTED.into_response(),
        Some("server/discover") if !legacy => json!({
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
            "ttlMs": 0,
            "cacheScope": "private",
        }),
        Some("tools/list") => {
            let names = server.tools.lock().expect("no panic while the tools are held").clone();
            let tools: Vec<_> = names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
            json!({"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"})
        }
        Some("tools/call") => {
            server.called.fetch_add(1, Ordering::Relaxed);
            json!({"resultType": "complete", "content": [{"type": "text", "text": "called"}]})
        }
        _ => {
            let error = json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "method not found"}});
            return (StatusCode::NOT_FOUND, Json(error)).into_response();
        }
    };
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

async fn metrics(State(server): State<Arc<Inner>>) -> axum::response::Response {
    match *server.calls.lock().expect("no panic while the calls are held") {
        Some(calls) => format!("bridge_calls_in_flight {calls}\n").into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// An address out of 10.50.0.0/16, which this makes local to the cluster's network namespace.
fn unused_address() -> IpAddr {
    static ROUTE: Once = Once::new();
    static NEXT: AtomicU16 = AtomicU16::new(1);
    ROUTE.call_once(|| {
        let arguments = ["route", "replace", "local", "10.50.0.0/16", "dev", "lo"];
        let done = Command::new("ip").args(arguments).status().expect("ip runs");
        assert!(done.success(), "the addresses of fake pods cannot be made local: run the tests by `make test`");
    });
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 50, high, low))
}

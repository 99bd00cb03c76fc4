//! An MCP server of the legacy eras, with sessions, that is odd in one way at a time.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What answers a request by its method, where that is not as it should be: none leaves it to the rest.
pub type Oddity = Box<dyn Fn(Value) -> BoxFuture<'static, Option<Response>> + Send + Sync>;

pub struct Odd {
    pub address: SocketAddr,
    /// Without them, sessions are not asked for.
    pub sessions: AtomicBool,
    /// Sessions of a number below it are forgotten.
    pub forgotten: AtomicUsize,
    opened: AtomicUsize,
    /// How a forgotten session is refused; `"$id"` in its body is the id of the request.
    pub refusal: Mutex<(u16, &'static str, &'static str)>,
    pub revision: &'static str,
    pub tools: Mutex<Value>,
    oddity: Oddity,
    /// How often each method was asked for.
    asked: Mutex<HashMap<String, usize>>,
    pub headers: Mutex<HeaderMap>,
}

/// One that does everything right but what `oddity` answers instead.
pub async fn odd(oddity: impl Fn(Value) -> BoxFuture<'static, Option<Response>> + Send + Sync + 'static) -> Arc<Odd> {
    odd_of("2025-06-18", oddity).await
}

pub async fn odd_of(
    revision: &'static str,
    oddity: impl Fn(Value) -> BoxFuture<'static, Option<Response>> + Send + Sync + 'static,
) -> Arc<Odd> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Arc::new(Odd {
        address: listener.local_addr().unwrap(),
        sessions: AtomicBool::new(true),
        forgotten: AtomicUsize::new(0),
        opened: AtomicUsize::new(0),
        refusal: Mutex::new((400, "application/json", "")),
        revision,
        tools: Mutex::new(json!([tool("good"), tool("odd")])),
        oddity: Box::new(oddity),
        asked: Mutex::default(),
        headers: Mutex::default(),
    });
    let router = Router::new().fallback(answer).with_state(Arc::clone(&server));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    server
}

pub fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}})
}

/// An answer with this status, content type and body.
pub fn reply(status: u16, kind: &str, body: impl Into<Body>) -> Response {
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, kind.to_owned())], body.into()).into_response()
}

/// A result, as JSON.
pub fn result(request: &Value, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string()
}

pub fn text(said: &str) -> Value {
    json!({"content": [{"type": "text", "text": said}]})
}

impl Odd {
    pub fn entry(&self, name: &str) -> Value {
        json!({"name": name, "url": format!("http://{}/mcp", self.address), "timeout": 5, "max_retries": 3,
               "health_check_interval": 600})
    }

    pub fn asked(&self, method: &str) -> usize {
        self.asked.lock().unwrap().get(method).copied().unwrap_or_default()
    }

    /// As a restart does.
    pub fn forget(&self) {
        self.forgotten.store(self.opened.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    }
}

async fn answer(State(server): State<Arc<Odd>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if method != Method::POST || !matches!(uri.path(), "/mcp" | "/mcp/") {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let request: Value = serde_json::from_slice(&body).unwrap();
    let method = request["method"].as_str().unwrap_or_default().to_owned();
    *server.asked.lock().unwrap().entry(method.clone()).or_default() += 1;
    *server.headers.lock().unwrap() = headers.clone();
    let mut told = request.clone();
    told["path"] = uri.path().into();
    if let Some(odd) = (server.oddity)(told).await {
        return odd;
    }
    if method == "initialize" {
        let number = server.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let body = result(
            &request,
            &json!({"protocolVersion": server.revision, "capabilities": {"tools": {}},
            "serverInfo": {"name": "odd", "version": "1"}}),
        );
        let mut response = reply(200, "application/json", body);
        if server.sessions.load(Ordering::SeqCst) {
            response.headers_mut().insert("mcp-session-id", number.to_string().parse().unwrap());
        }
        return response;
    }
    if method == "server/discover" {
        return reply(404, "text/plain", "no such method");
    }
    let session = headers.get("mcp-session-id").and_then(|id| id.to_str().ok()?.parse::<usize>().ok());
    if server.sessions.load(Ordering::SeqCst) && session.is_none_or(|session| session < server.forgotten.load(Ordering::SeqCst)) {
        let (status, kind, body) = *server.refusal.lock().unwrap();
        return reply(status, kind, body.replace("\"$id\"", &request["id"].to_string()));
    }
    match method.as_str() {
        _ if request["id"].is_null() => StatusCode::ACCEPTED.into_response(),
        "tools/list" => reply(200, "application/json", result(&request, &json!({"tools": *server.tools.lock().unwrap()}))),
        _ => reply(200, "application/json", result(&request, &text("good"))),
    }
}

//! An MCP server of an earlier era that talks while it works: it tells of its progress, writes to the client's log, asks, and says that its
//! lists changed. By name of the tool or prompt, or behind `t:` in a resource's URI: `work`, `look` (the same, and it only reads), `ask` (a form),
//! `sample`, `hang`, and `follow` (which only reads), by the steps of its arguments: `{"tell": {method, params}}`, `{"ask": {method, params}}`, whose
//! answers the result's text holds, and `{"error": {..}}`, which ends it. What is told between two questions, and before the end, comes in one
//! piece with it. "$TOKEN" is the token of the call's progress.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};

/// The server; it ends when this value is dropped.
#[derive(Debug)]
pub struct Talker {
    pub address: SocketAddr,
    /// What came: requests, notifications and answers.
    pub seen: Mutex<Vec<Value>>,
    asked: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    ids: AtomicU64,
    /// What is said on streams that were opened by GET.
    news: broadcast::Sender<Value>,
    /// Its list of resources never comes.
    pub hangs_lists: AtomicBool,
    /// It has forgotten its session: only `initialize` is answered.
    forgot: AtomicBool,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.task.lock().unwrap().take().inspect(JoinHandle::abort);
    }
}

/// One, and a worker before it that knows it as `t`.
#[allow(dead_code, reason = "test support; each test binary uses a part of it")]
pub async fn start() -> (Arc<Talker>, super::Worker) {
    let talker = Talker::start().await;
    let worker = super::Worker::start("otherwise: {text: 'Hello.'}", &[talker.entry("t")], &[]).await;
    (talker, worker)
}

impl Talker {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let talker = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            seen: Mutex::default(),
            asked: Mutex::default(),
            ids: AtomicU64::new(0),
            news: broadcast::Sender::new(16),
            hangs_lists: false.into(),
            forgot: false.into(),
            task: Mutex::default(),
        });
        let router = Router::new().route("/mcp", post(answer).get(listen)).with_state(Arc::clone(&talker));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *talker.task.lock().unwrap() = Some(task);
        talker
    }

    pub fn entry(&self, name: &str) -> Value {
        json!({"name": name, "url": format!("http://{}/mcp", self.address), "timeout": 1, "max_retries": 0})
    }

    /// Waits until somebody listens.
    pub async fn has_listener(&self) {
        while self.news.receiver_count() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Tells everybody who listens.
    pub fn tell(&self, method: &str) {
        self.news.send(json!({"jsonrpc": "2.0", "method": method})).unwrap();
    }

    /// Tells everybody who listens that a resource has changed.
    pub fn tell_updated(&self, uri: &str) {
        self.news.send(json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})).unwrap();
    }

    /// Forgets its session.
    pub fn forget(&self) {
        self.forgot.store(true, Ordering::SeqCst);
    }

    /// The URIs of the requests of this method, in their order.
    pub fn uris(&self, method: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let uri = |seen: &Value| seen["params"]["uri"].as_str().unwrap_or_default().to_owned();
        seen.iter().filter(|seen| seen["method"] == method).map(uri).collect()
    }

    /// Tells everybody who listens that a page is done.
    pub fn tell_done(&self, params: &Value) {
        self.news.send(json!({"jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": params})).unwrap();
    }

    /// Withdraws all questions that are not answered yet.
    pub fn withdraw(&self) {
        for id in self.asked.lock().unwrap().keys() {
            let params = json!({"requestId": id, "reason": "it is late"});
            self.news.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).unwrap();
        }
    }

    /// Whether something of this method came.
    pub fn heard(&self, method: &str) -> Option<Value> {
        self.seen.lock().unwrap().iter().find(|seen| seen["method"] == method).cloned()
    }

    /// Does step by step what it is told to: what there is still to say, and the text of the result, or the error.
    async fn follow(&self, params: &Value, said: &mpsc::Sender<Value>) -> (Vec<Value>, Result<String, Value>) {
        let steps = params["arguments"]["steps"].to_string().replace("\"$TOKEN\"", &params["_meta"]["progressToken"].to_string());
        let steps: Vec<Value> = serde_json::from_str(&steps).unwrap();
        let (mut told, mut answers) = (Vec::new(), Vec::new());
        for step in steps {
            if step["tell"].is_object() {
                told.push(json!({"jsonrpc": "2.0", "method": step["tell"]["method"], "params": step["tell"]["params"]}));
            } else if step["ask"].is_object() {
                if !told.is_empty() {
                    said.send(Value::Array(std::mem::take(&mut told))).await.unwrap();
                }
                answers.push(self.ask(step["ask"]["method"].as_str().unwrap(), step["ask"]["params"].clone(), said).await);
            } else {
                return (told, Err(step["error"].clone()));
            }
        }
        (told, Ok(Value::Array(answers).to_string()))
    }

    /// Works, and says a text in the end.
    async fn work(&self, what: &str, params: &Value, said: mpsc::Sender<Value>) -> String {
        let token = params["_meta"]["progressToken"].clone();
        let notify = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
        match what {
            "work" | "look" => {
                for step in 1..=3 {
                    let progress =
                        json!({"progressToken": token, "progress": step, "total": 3, "message": format!("step {step}")});
                    said.send(notify("notifications/progress", progress)).await.unwrap();
                }
                said.send(notify("notifications/message", json!({"level": "info", "logger": "w", "data": {"rows": 3}})))
                    .await
                    .unwrap();
                "worked".to_owned()
            }
            "ask" => {
                let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
                let asked = json!({"mode": "form", "message": "Who are you?", "requestedSchema": schema});
                self.ask("elicitation/create", asked, &said).await.to_string()
            }
            "sample" => {
                let messages = json!([{"role": "user", "content": {"type": "text", "text": "Hi"}}]);
                self.ask("sampling/createMessage", json!({"messages": messages, "maxTokens": 5}), &said).await.to_string()
            }
            _ => std::future::pending().await,
        }
    }

    async fn ask(&self, method: &str, params: Value, said: &mpsc::Sender<Value>) -> Value {
        let id = format!("t{}", self.ids.fetch_add(1, Ordering::Relaxed));
        let (answer, given) = oneshot::channel();
        self.asked.lock().unwrap().insert(id.clone(), answer);
        let mut question = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        if params.is_null() {
            question.as_object_mut().unwrap().remove("params");
        }
        said.send(question).await.unwrap();
        given.await.unwrap()
    }
}

/// These messages as a stream of events; several in an array come in one piece.
fn events(messages: impl Stream<Item = Value> + Send + 'static) -> Response {
    let event = |message: &Value| format!("event: message\ndata: {message}\n\n");
    let events = messages.map(move |message| {
        Ok::<_, Infallible>(message.as_array().map_or_else(|| event(&message), |all| all.iter().map(event).collect()))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

async fn listen(State(talker): State<Arc<Talker>>) -> Response {
    events(stream::unfold(talker.news.subscribe(), |mut news| async move { Some((news.recv().await.ok()?, news)) }))
}

async fn answer(State(talker): State<Arc<Talker>>, Json(message): Json<Value>) -> Response {
    talker.seen.lock().unwrap().push(message.clone());
    let id = message["id"].clone();
    let Some(method) = message["method"].as_str() else {
        if let Some(asked) = talker.asked.lock().unwrap().remove(id.as_str().unwrap()) {
            let answer = if message["error"].is_null() { message["result"].clone() } else { message["error"].clone() };
            asked.send(answer).unwrap();
        }
        return StatusCode::ACCEPTED.into_response();
    };
    if id.is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let opens = method == "initialize";
    if opens {
        talker.forgot.store(false, Ordering::SeqCst);
    } else if talker.forgot.load(Ordering::SeqCst) {
        return StatusCode::NOT_FOUND.into_response();
    }
    if method == "resources/list" && talker.hangs_lists.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let result = match method {
        "initialize" => json!({"protocolVersion": "2025-11-25", "serverInfo": {"name": "talker", "version": "1"},
            "capabilities": {"tools": {"listChanged": true}, "resources": {"listChanged": true, "subscribe": true}, "prompts": {"listChanged": true},
                "logging": {}, "completions": {}}}),
        "tools/list" => {
            let tools = ["work", "look", "ask", "sample", "hang", "follow"].map(|name| {
                let reads = matches!(name, "look" | "follow");
                json!({"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": reads}})
            });
            json!({"tools": tools})
        }
        "tools/call" | "resources/read" | "prompts/get" | "completion/complete" => {
            let (said, hears) = mpsc::channel(16);
            let (method, params) = (method.to_owned(), message["params"].clone());
            tokio::spawn(async move {
                let gone = said.clone();
                let named =
                    [&params["name"], &params["uri"], &params["ref"]["name"]].into_iter().find_map(Value::as_str).unwrap();
                let work = async {
                    match named.trim_start_matches("t:") {
                        "follow" => talker.follow(&params, &said).await,
                        what => (Vec::new(), Ok(talker.work(what, &params, said.clone()).await)),
                    }
                };
                let (mut last, outcome) = tokio::select! {
                    outcome = work => outcome,
                    () = gone.closed() => return,
                };
                let text = match outcome {
                    Ok(text) => text,
                    Err(error) => {
                        last.push(json!({"jsonrpc": "2.0", "id": id, "error": error}));
                        let _ = said.send(Value::Array(last)).await;
                        return;
                    }
                };
                let result = match method.as_str() {
                    "resources/read" => json!({"contents": [{"uri": params["uri"], "text": text}]}),
                    "prompts/get" => json!({"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}),
                    "completion/complete" => json!({"completion": {"values": [text]}}),
                    _ => json!({"content": [{"type": "text", "text": text}]}),
                };
                // Whoever called may be gone.
                last.push(json!({"jsonrpc": "2.0", "id": id, "result": result}));
                let _ = said.send(Value::Array(last)).await;
            });
            return events(stream::unfold(hears, |mut hears| async move { Some((hears.recv().await?, hears)) }));
        }
        "resources/subscribe" if message["params"]["uri"] == "t:none" => {
            let error = json!({"code": -32002, "message": "no such resource", "data": {"uri": "t:none"}});
            return Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response();
        }
        "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => json!({}),
        _ => {
            let error = json!({"code": -32601, "message": "no"});
            return Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response();
        }
    };
    let mut response = Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response();
    if opens {
        response.headers_mut().insert("mcp-session-id", HeaderValue::from_static("s"));
    }
    response
}

//! An MCP server on a raw socket that does as its script says, down to the byte. It counts requests, connections and sessions.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// One request, as the script sees it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub http: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Value,
    /// The JSON-RPC method; empty for DELETE.
    pub method: String,
    pub id: Value,
    /// Which request of this connection, from 1.
    pub nth: usize,
}

impl Ask {
    pub fn session(&self) -> Option<&str> {
        self.headers.get("mcp-session-id").map(String::as_str)
    }
}

/// What the server does about a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// These bytes; the connection stays.
    Bytes(Vec<u8>),
    /// These bytes, then the end of the connection.
    BytesThenClose(Vec<u8>),
    /// These bytes, then a reset.
    BytesThenReset(Vec<u8>),
    /// These bytes, then nothing more.
    BytesThenHang(Vec<u8>),
    /// Later.
    After(Duration, Box<Act>),
    /// These bytes, and those once this is so; the connection stays.
    BytesThenOnce(Vec<u8>, fn(&State) -> bool, Vec<u8>),
}

impl Act {
    pub fn hang() -> Self {
        Self::BytesThenHang(Vec::new())
    }

    pub fn after(self, ms: u64) -> Self {
        Self::After(Duration::from_millis(ms), Box::new(self))
    }
}

/// A response as bytes.
pub fn response(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

pub fn status(status: &str, body: &str) -> Act {
    Act::Bytes(response(status, &[("Content-Type", "text/plain")], body))
}

pub fn json_bytes(body: &str) -> Act {
    Act::Bytes(response("200 OK", &[("Content-Type", "application/json")], body))
}

#[allow(clippy::needless_pass_by_value, reason = "scripts are written with json!")]
pub fn result(ask: &Ask, result: Value) -> Act {
    json_bytes(&json!({"jsonrpc": "2.0", "id": ask.id, "result": result}).to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "scripts are written with json!")]
pub fn error(ask: &Ask, http: &str, code: i64, data: Value) -> Act {
    let body = json!({"jsonrpc": "2.0", "id": ask.id, "error": {"code": code, "message": "no", "data": data}});
    Act::Bytes(response(http, &[("Content-Type", "application/json")], body.to_string()))
}

/// A response of a head without length, and chunks.
pub fn chunked(content_type: &str, chunks: &[&str]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks {
        bytes.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
    }
    bytes
}

pub fn tool(name: &str) -> Value {
    json!({"name": name, "description": "does it", "inputSchema": {"type": "object"}})
}

/// The script of a server: called for every request.
pub type Script = Arc<dyn Fn(&Ask, &State) -> Act + Send + Sync>;

/// What a server remembers and counts.
#[derive(Debug, Default)]
pub struct State {
    pub sessions: Mutex<HashSet<String>>,
    pub asks: Mutex<Vec<Ask>>,
    pub opened: AtomicUsize,
    pub connections: AtomicUsize,
    pub live: AtomicUsize,
}

impl State {
    pub fn count(&self, method: &str) -> usize {
        self.asks
            .lock()
            .expect("no panic")
            .iter()
            .filter(|ask| ask.method == method || (method == "DELETE" && ask.http == "DELETE"))
            .count()
    }

    pub fn total(&self) -> usize {
        self.asks.lock().expect("no panic").len()
    }

    pub fn left(&self) -> usize {
        self.sessions.lock().expect("no panic").len()
    }
}

/// A modern server with two tools.
pub fn modern(ask: &Ask, _: &State) -> Act {
    match ask.method.as_str() {
        "server/discover" => result(
            ask,
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
                   "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake", "version": "1"}}}),
        ),
        "tools/list" => {
            result(ask, json!({"resultType": "complete", "tools": [tool("a"), tool("b")], "ttlMs": 0, "cacheScope": "private"}))
        }
        "tools/call" => result(ask, json!({"resultType": "complete", "content": [{"type": "text", "text": "ok"}]})),
        _ => error(ask, "404 Not Found", -32601, Value::Null),
    }
}

/// A legacy server with two tools and sessions.
pub fn legacy(ask: &Ask, state: &State) -> Act {
    if ask.http == "DELETE" {
        let known = ask.session().is_some_and(|session| state.sessions.lock().expect("no panic").remove(session));
        return status(if known { "200 OK" } else { "404 Not Found" }, "");
    }
    if ask.method == "initialize" {
        let session = format!("s{}", state.opened.fetch_add(1, Ordering::Relaxed));
        state.sessions.lock().expect("no panic").insert(session.clone());
        let body = json!({"jsonrpc": "2.0", "id": ask.id, "result": initialize_result("2025-11-25", true)});
        return Act::Bytes(response(
            "200 OK",
            &[("Content-Type", "application/json"), ("Mcp-Session-Id", &session)],
            body.to_string(),
        ));
    }
    let known = ask.session().is_some_and(|session| state.sessions.lock().expect("no panic").contains(session));
    match ask.method.as_str() {
        _ if ask.session().is_none() => status("400 Bad Request", "no session"),
        _ if !known => status("404 Not Found", "session not found"),
        "notifications/initialized" => Act::Bytes(response("202 Accepted", &[], "")),
        "tools/list" => result(ask, json!({"tools": [tool("a"), tool("b")]})),
        "tools/call" => result(ask, json!({"content": [{"type": "text", "text": "ok"}]})),
        "ping" => result(ask, json!({})),
        _ => error(ask, "200 OK", -32601, Value::Null),
    }
}

pub fn initialize_result(version: &str, tools: bool) -> Value {
    let capabilities = if tools { json!({"tools": {}}) } else { json!({}) };
    json!({"protocolVersion": version, "capabilities": capabilities, "serverInfo": {"name": "fake", "version": "1"}})
}

/// A running server; it ends with this.
#[derive(Debug)]
pub struct Fake {
    pub addr: SocketAddr,
    pub state: Arc<State>,
    accepting: AbortHandle,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Fake {
    pub async fn start(script: impl Fn(&Ask, &State) -> Act + Send + Sync + 'static) -> Self {
        Self::start_tls(Arc::new(script), None).await
    }

    pub async fn start_tls(script: Script, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve(listener, script, tls)
    }

    pub fn serve(listener: TcpListener, script: Script, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket");
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let (script, state, tls) = (Arc::clone(&script), Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    state.live.fetch_add(1, Ordering::Relaxed);
                    match tls {
                        None => plain(stream, &script, &state).await,
                        Some(tls) => {
                            if let Ok(mut stream) = tls.accept(stream).await {
                                let _broken = converse(&mut stream, &script, &state).await;
                                let _broken = stream.shutdown().await;
                            }
                        }
                    }
                    state.live.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { addr, state, accepting: accepting.abort_handle() }
    }
}

async fn plain(mut stream: TcpStream, script: &Script, state: &State) {
    if matches!(converse(&mut stream, script, state).await, Ok(End::Reset)) {
        stream.set_zero_linger().expect("a socket");
    }
}

enum End {
    Close,
    Reset,
}

async fn converse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), script: &Script, state: &State) -> std::io::Result<End> {
    let mut nth = 0;
    loop {
        nth += 1;
        let Some(ask) = read(stream, nth).await? else { return Ok(End::Close) };
        state.asks.lock().expect("no panic").push(ask.clone());
        let mut act = script(&ask, state);
        loop {
            match act {
                Act::After(wait, then) => {
                    tokio::time::sleep(wait).await;
                    act = *then;
                    continue;
                }
                Act::Bytes(bytes) => stream.write_all(&bytes).await?,
                Act::BytesThenOnce(bytes, is_so, rest) => {
                    stream.write_all(&bytes).await?;
                    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                    while !is_so(state) && tokio::time::Instant::now() < deadline {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    stream.write_all(&rest).await?;
                }
                Act::BytesThenClose(bytes) => {
                    stream.write_all(&bytes).await?;
                    return Ok(End::Close);
                }
                Act::BytesThenReset(bytes) => {
                    stream.write_all(&bytes).await?;
                    stream.flush().await?;
                    // What was sent should arrive before the reset does.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return Ok(End::Reset);
                }
                Act::BytesThenHang(bytes) => {
                    stream.write_all(&bytes).await?;
                    stream.flush().await?;
                    // Until the other side gives up.
                    let mut buffer = [0; 64];
                    while stream.read(&mut buffer).await? > 0 {}
                    return Ok(End::Close);
                }
            }
            break;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), nth: usize) -> std::io::Result<Option<Ask>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        // Somebody speaks TLS to a plain server: it hangs up.
        if stream.read_buf(&mut bytes).await? == 0 || bytes.first() == Some(&0x16) {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (http, path) = (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let method = body["method"].as_str().unwrap_or_default().to_owned();
    let id = body["id"].clone();
    Ok(Some(Ask { http, path, headers, body, method, id, nth }))
}

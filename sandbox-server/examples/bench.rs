//! The parts of the benchmark that have to be quick: `load` sends tool calls and measures, `bare` and `minimal` are the two limits that
//! the server is held against (the same SQL without MCP, and MCP with one tool and nothing around it). tests/bench-sandbox runs them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use crossbeam_channel::Sender;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends calls and prints one line of JSON.
    Load(LoadArgs),
    /// The same SQL over HTTP without MCP.
    Bare(LimitArgs),
    /// The smallest server that the SDK makes.
    Minimal(LimitArgs),
}

#[derive(Debug, Args)]
struct LimitArgs {
    #[arg(long)]
    db: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Debug, Clone, Args)]
struct LoadArgs {
    /// Host and port.
    #[arg(long)]
    address: String,
    /// The path of the endpoint.
    #[arg(long, default_value = "/mcp")]
    path: String,
    /// `modern`, `legacy` (with a session when the server gives one) or `bare`.
    #[arg(long, default_value = "modern")]
    era: String,
    /// The tool; its argument that takes the SQL follows.
    #[arg(long)]
    tool: String,
    /// The name of the argument that takes the SQL; empty: none is sent.
    #[arg(long, default_value = "query")]
    argument: String,
    /// The SQL. {n} becomes a number from 1 to 10,000; with --bind it becomes a placeholder and the number goes into `params`.
    #[arg(long, default_value = "")]
    sql: String,
    #[arg(long)]
    bind: bool,
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds that are not counted at the start.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Load(args) => load(args).await,
        Command::Bare(args) => bare(args).await,
        Command::Minimal(args) => minimal(args).await,
    }
}

/// One connection, and what its requests carry.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    args: LoadArgs,
    session: Option<String>,
    seed: u64,
}

impl Client {
    async fn connect(args: &LoadArgs, seed: u64) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&args.address).await.with_context(|| format!("no server at {}", args.address))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut client = Self { sender, args: args.clone(), session: None, seed };
        if args.era == "legacy" {
            let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}});
            client.post(&hello, None).await?;
            client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}), None).await?;
        }
        Ok(client)
    }

    async fn post(&mut self, body: &Value, name: Option<&str>) -> anyhow::Result<Bytes> {
        let mut request = http::Request::post(&self.args.path)
            .header("host", &self.args.address)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if self.args.era == "modern" {
            request = request
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "tools/call")
                .header("mcp-name", name.unwrap_or_default());
        } else if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-06-18");
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?).await?;
        if let Some(session) = response.headers().get("mcp-session-id") {
            self.session = Some(session.to_str()?.to_owned());
        }
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(bytes)
    }

    async fn call(&mut self) -> anyhow::Result<()> {
        // xorshift: the numbers have to be spread, not random.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let number = self.seed % 10_000 + 1;
        let mut arguments = json!({});
        if !self.args.argument.is_empty() {
            let placeholder = if self.args.bind { "?".to_owned() } else { number.to_string() };
            arguments[&self.args.argument] = json!(self.args.sql.replace("{n}", &placeholder));
            if self.args.bind {
                arguments["params"] = json!([number]);
            }
        }
        let body = if self.args.era == "bare" {
            arguments
        } else {
            let mut body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": self.args.tool, "arguments": arguments}});
            if self.args.era == "modern" {
                body["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
            }
            body
        };
        let tool = self.args.tool.clone();
        let answer = self.post(&body, Some(&tool)).await?;
        let text = String::from_utf8_lossy(&answer);
        if text.contains("\"isError\":true") || text.contains("\"error\":{") || text.contains("Error:") || text.is_empty() {
            bail!("{text}");
        }
        Ok(())
    }
}

async fn load(args: LoadArgs) -> anyhow::Result<()> {
    let start = Instant::now() + Duration::from_secs_f64(args.warmup);
    let end = start + Duration::from_secs_f64(args.seconds);
    let mut tasks = Vec::new();
    for index in 0..args.concurrency {
        let mut client = Client::connect(&args, index as u64 * 7919 + 12_345).await?;
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let called = Instant::now();
                client.call().await?;
                if called >= start {
                    times.push(called.elapsed());
                }
            }
            anyhow::Ok(times)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list that fits into memory"
        )]
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, Duration::as_secs_f64) * 1000.0
    };
    #[expect(clippy::cast_precision_loss, reason = "far fewer calls than 2^52")]
    let rate = times.len() as f64 / args.seconds;
    println!("{}", json!({"calls": times.len(), "calls_per_second": rate, "p50_ms": at(0.5), "p99_ms": at(0.99)}));
    Ok(())
}

type Job = (String, oneshot::Sender<anyhow::Result<Value>>);

/// Two threads with a connection each, as plain as can be: no gate, no caps, no cache.
#[derive(Clone)]
struct Plain {
    readers: Sender<Job>,
    writer: Sender<Job>,
}

impl Plain {
    fn open(db: &PathBuf) -> anyhow::Result<Self> {
        let start = |threads: usize| -> anyhow::Result<Sender<Job>> {
            let (queue, work) = crossbeam_channel::unbounded::<Job>();
            for _ in 0..threads {
                let conn = Connection::open(db)?;
                conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000")?;
                let work = work.clone();
                std::thread::spawn(move || {
                    for (sql, answer) in work {
                        // The client may have gone.
                        let _ = answer.send(plain(&conn, &sql));
                    }
                });
            }
            Ok(queue)
        };
        Ok(Self { readers: start(2)?, writer: start(1)? })
    }

    async fn run(&self, sql: String) -> anyhow::Result<Value> {
        let (answer, answered) = oneshot::channel();
        let queue = if sql.starts_with("INSERT") { &self.writer } else { &self.readers };
        queue.send((sql, answer))?;
        answered.await?
    }
}

fn plain(conn: &Connection, sql: &str) -> anyhow::Result<Value> {
    let mut statement = conn.prepare(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let mut object = serde_json::Map::new();
        for (index, name) in columns.iter().enumerate() {
            let value = match row.get_ref(index)? {
                rusqlite::types::ValueRef::Integer(number) => json!(number),
                rusqlite::types::ValueRef::Real(number) => json!(number),
                rusqlite::types::ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
                _ => Value::Null,
            };
            object.insert(name.clone(), value);
        }
        list.push(Value::Object(object));
    }
    Ok(Value::Array(list))
}

async fn serve(listen: SocketAddr, router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?.tap_io(|stream| {
        // An answer that waits for an acknowledgement would be measured, not the server.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

async fn bare(args: LimitArgs) -> anyhow::Result<()> {
    let handler = async |State(db): State<Plain>, Json(body): Json<Value>| {
        let sql = body["query"].as_str().unwrap_or_default().to_owned();
        Json(db.run(sql).await.unwrap_or_else(|error| json!({"error": {"message": error.to_string()}})))
    };
    serve(args.listen, Router::new().route("/mcp", post(handler)).with_state(Plain::open(&args.db)?)).await
}

#[derive(Clone)]
struct Minimal(Plain, Arc<AtomicU64>);

impl ServerHandler for Minimal {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let sql = request
            .arguments
            .as_ref()
            .and_then(|arguments| arguments.get("query"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let rows = self.0.run(sql).await.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(CallToolResult::success(vec![ContentBlock::text(rows.to_string())]).into())
    }
}

async fn minimal(args: LimitArgs) -> anyhow::Result<()> {
    let handler = Minimal(Plain::open(&args.db)?, Arc::default());
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let service = StreamableHttpService::new(move || Ok(handler.clone()), Arc::new(NeverSessionManager::default()), config);
    serve(args.listen, Router::new().route_service("/mcp", service)).await
}

//! The two limits: the same SQL without MCP, and MCP with one tool and nothing around it. As plain as can be: no gate, no caps, no paging.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use clap::Args;
use crossbeam_channel::Sender;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[derive(Debug, Args)]
pub struct LimitArgs {
    #[arg(long)]
    db: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Debug, Deserialize)]
struct Query {
    query: String,
    /// With values the statement is kept for the next call; literal SQL is prepared each time.
    #[serde(default)]
    params: Vec<i64>,
}

type Job = (Query, oneshot::Sender<anyhow::Result<Value>>);

/// Threads with a connection each: two that read, one that writes and flushes each statement to disk.
#[derive(Clone)]
struct Plain {
    readers: Sender<Job>,
    writer: Sender<Job>,
}

impl Plain {
    fn open(db: &Path) -> anyhow::Result<Self> {
        let start = |threads: usize| -> anyhow::Result<Sender<Job>> {
            let (queue, work) = crossbeam_channel::unbounded::<Job>();
            for _ in 0..threads {
                let conn = Connection::open(db)?;
                conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000")?;
                let work = work.clone();
                std::thread::spawn(move || {
                    for (query, answer) in work {
                        // The client may have gone.
                        let _ = answer.send(run(&conn, &query));
                    }
                });
            }
            Ok(queue)
        };
        Ok(Self { readers: start(2)?, writer: start(1)? })
    }

    async fn run(&self, query: Query) -> anyhow::Result<Value> {
        let (answer, answered) = oneshot::channel();
        let queue = if query.query.starts_with("INSERT") { &self.writer } else { &self.readers };
        queue.send((query, answer))?;
        answered.await?
    }
}

fn run(conn: &Connection, query: &Query) -> anyhow::Result<Value> {
    if query.params.is_empty() {
        rows(&mut conn.prepare(&query.query)?, &[])
    } else {
        rows(&mut *conn.prepare_cached(&query.query)?, &query.params)
    }
}

fn rows(statement: &mut Statement<'_>, params: &[i64]) -> anyhow::Result<Value> {
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let mut object = Map::new();
        for (index, name) in columns.iter().enumerate() {
            let value = match row.get_ref(index)? {
                ValueRef::Integer(number) => json!(number),
                ValueRef::Real(number) => json!(number),
                ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
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

pub async fn bare(args: LimitArgs) -> anyhow::Result<()> {
    let handler = async |State(db): State<Plain>, Json(query): Json<Query>| {
        Json(db.run(query).await.unwrap_or_else(|error| json!({"error": {"message": error.to_string()}})))
    };
    serve(args.listen, Router::new().route("/mcp", post(handler)).with_state(Plain::open(&args.db)?)).await
}

#[derive(Clone)]
struct Minimal(Plain);

impl ServerHandler for Minimal {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let query = serde_json::from_value(Value::Object(request.arguments.unwrap_or_default()))
            .map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
        let rows = self.0.run(query).await.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(CallToolResult::success(vec![ContentBlock::text(rows.to_string())]).into())
    }
}

pub async fn minimal(args: LimitArgs) -> anyhow::Result<()> {
    let handler = Minimal(Plain::open(&args.db)?);
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let service =
        StreamableHttpService::new(move || Ok(handler.clone()), std::sync::Arc::new(NeverSessionManager::default()), config);
    serve(args.listen, Router::new().route_service("/mcp", service)).await
}

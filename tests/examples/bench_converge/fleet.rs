//! A small MCP server at every address of the machine: what all pods of the fleet answer.

use anyhow::Result;
use axum::{
    Json, Router,
    routing::{get, post},
};
use serde_json::{Value, json};

/// Answers until the process is ended.
pub async fn serve() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    // Nobody calls it, as a bridge or sandbox-server says that.
    let metrics = || async { "bridge_calls_in_flight 0\n" };
    let app = Router::new().route("/mcp", post(answer)).route("/metrics", get(metrics));
    Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), app).await?)
}

async fn answer(Json(request): Json<Value>) -> Json<Value> {
    let mut result = json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
    if request["method"] == "server/discover" {
        result["supportedVersions"] = json!(["2026-07-28"]);
        result["capabilities"] = json!({"tools": {}});
        result["_meta"] = json!({"io.modelcontextprotocol/serverInfo": {"name": "fleet", "version": "1.0.0"}});
    } else {
        let tools = (0..6).map(|n| {
            json!({"name": format!("tool_{n}"), "description": "Does what a tool of this number does.",
                "inputSchema": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}})
        });
        result["tools"] = tools.collect();
    }
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}

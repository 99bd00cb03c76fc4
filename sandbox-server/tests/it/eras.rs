//! Both protocol eras over both transports: as raw JSON, and through the client of the SDK.

use std::process::Stdio;

use rmcp::RoleClient;
use rmcp::model::{CallToolRequestParams, ProtocolVersion, ReadResourceRequestParams};
use rmcp::service::{ClientLifecycleMode, RunningService, serve_client_with_lifecycle};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::support::{BINARY, Server};

const LEGACY: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

fn initialize(version: &str) -> Value {
    json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
}

#[tokio::test]
async fn the_modern_era_is_discovered_and_its_lists_say_how_long_they_keep() {
    let server = Server::start("", &[]);
    for (method, list) in [
        ("server/discover", ""),
        ("tools/list", "tools"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
        ("prompts/list", "prompts"),
    ] {
        let response = server.modern(method, json!({})).send().await.unwrap();
        assert_eq!(response.status(), 200, "{method}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let result = response.json::<Value>().await.unwrap()["result"].clone();
        assert_eq!(result["resultType"], "complete", "{method}");
        assert!(result["ttlMs"].as_u64().unwrap() > 0, "{method}");
        assert_eq!(result["cacheScope"], "private", "{method}");
        assert!(list.is_empty() || !result[list].as_array().unwrap().is_empty(), "{method}");
    }
}

#[tokio::test]
async fn every_legacy_revision_is_answered_in_itself_without_a_session() {
    let server = Server::start("CREATE TABLE t (a); INSERT INTO t VALUES (42)", &[]);
    for version in LEGACY {
        let response = server.legacy(version, "initialize", &initialize(version)).send().await.unwrap();
        assert!(!response.headers().contains_key("mcp-session-id"), "a session would have to be cleaned up");
        let result = response.json::<Value>().await.unwrap()["result"].clone();
        assert_eq!(result["protocolVersion"], version);
        let initialized = server.request(reqwest::Method::POST, "/mcp").header("Accept", "application/json, text/event-stream");
        let initialized =
            initialized.json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().await.unwrap();
        assert_eq!(initialized.status(), 202);
        let call = json!({"name": "read_query", "arguments": {"query": "SELECT a FROM t"}});
        let answer: Value = server.legacy(version, "tools/call", &call).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["result"]["structuredContent"]["rows"], json!([[42]]));
        assert!(answer["result"].get("resultType").is_none(), "not of this era");
        let ping: Value = server.legacy(version, "ping", &json!({})).send().await.unwrap().json().await.unwrap();
        assert_eq!(ping["result"], json!({}));
    }
    assert_eq!(server.request(reqwest::Method::DELETE, "/mcp").send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn misuse_of_the_protocol_is_a_protocol_error_and_bad_sql_is_not() {
    let server = Server::start("", &[]);
    let error = |answer: Value| answer["error"]["code"].as_i64().unwrap();
    let response = server.modern("tools/call", json!({"name": "no_such_tool", "arguments": {}})).send().await.unwrap();
    assert_eq!(error(response.json().await.unwrap()), -32602);
    let response = server.modern("no/such/method", json!({})).send().await.unwrap();
    assert_eq!((response.status().as_u16(), error(response.json().await.unwrap())), (404, -32601));
    let response = server.modern("ping", json!({})).send().await.unwrap();
    assert_eq!((response.status().as_u16(), error(response.json().await.unwrap())), (404, -32601));
    let response = server.modern("tools/list", json!({})).header("Mcp-Method", "prompts/list").send().await.unwrap();
    assert_eq!(response.status(), 400);
    let response = server.modern("resources/read", json!({"uri": "schema://tables/nowhere"})).send().await.unwrap();
    assert_eq!(error(response.json().await.unwrap()), -32602);
    let response = server.modern("prompts/get", json!({"name": "mcp-demo", "arguments": {}})).send().await.unwrap();
    assert_eq!(error(response.json().await.unwrap()), -32602);
    for arguments in [
        json!({}),
        json!({"query": 1}),
        json!({"query": "SELECT 1", "max_rows": -1}),
        json!({"query": "SELECT 1", "cursor": "x"}),
    ] {
        assert!(!server.error("read_query", arguments).await.is_empty());
    }
    assert_eq!(
        server.error("read_query", json!({"query": "SELEKT"})).await,
        "near \"SELEKT\": syntax error\nat line 1, column 1:\n  SELEKT\n  ^"
    );
}

fn modes() -> [ClientLifecycleMode; 2] {
    [ClientLifecycleMode::Initialize, ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }]
}

/// Everything that a client can ask, through the SDK's client.
async fn ask_everything(client: &RunningService<RoleClient, ()>) {
    let call = |name: &'static str, arguments: Value| {
        client.call_tool(CallToolRequestParams::new(name).with_arguments(arguments.as_object().unwrap().clone()))
    };
    let tools = client.list_all_tools().await.unwrap();
    assert_eq!(tools.len(), 10);
    call("create_table", json!({"query": "CREATE TABLE IF NOT EXISTS person (id INTEGER PRIMARY KEY, name TEXT)"}))
        .await
        .unwrap();
    call("write_query", json!({"query": "DELETE FROM person"})).await.unwrap();
    let written = call(
        "write_query",
        json!({"query": "INSERT INTO person (id, name) VALUES (:id, :name)", "params": {"id": 7, "name": "Ada"}}),
    )
    .await
    .unwrap();
    assert_eq!(written.structured_content.unwrap(), json!({"affected_rows": 1, "last_insert_rowid": 7}));
    for (tool, arguments, expected) in [
        ("read_query", json!({"query": "SELECT * FROM person"}), "Ada"),
        ("execute_sql_query", json!({"query": "SELECT * FROM person"}), "Ada"),
        ("list_tables", json!({}), "person"),
        ("describe_table", json!({"table_name": "person"}), "name TEXT"),
        ("explain_query", json!({"query": "SELECT * FROM person WHERE id = 1"}), "SEARCH person"),
        ("search_schema", json!({"text": "NAM"}), "person.name TEXT"),
        ("append_insight", json!({"insight": "Ada came first"}), "Insight"),
    ] {
        let result = call(tool, arguments).await.unwrap();
        assert_eq!(result.is_error, Some(false), "{tool}");
        let text = &result.content[0].as_text().unwrap().text;
        assert!(text.contains(expected), "{tool}: {text}");
    }
    let uris: Vec<_> = client.list_all_resources().await.unwrap().into_iter().map(|resource| resource.uri).collect();
    assert_eq!(uris, ["memo://insights", "schema://tables", "schema://tables/person"]);
    let memo = client.read_resource(ReadResourceRequestParams::new("memo://insights")).await.unwrap();
    assert!(serde_json::to_string(&memo).unwrap().contains("Ada came first"));
    assert_eq!(client.list_all_resource_templates().await.unwrap().len(), 1);
    assert_eq!(client.list_all_prompts().await.unwrap()[0].name, "mcp-demo");
}

#[tokio::test]
async fn the_sdks_client_can_ask_everything_in_both_eras() {
    let server = Server::start("", &[]);
    for mode in modes() {
        let transport = StreamableHttpClientTransport::from_uri(server.url("/mcp"));
        let client = serve_client_with_lifecycle((), transport, mode).await.unwrap();
        ask_everything(&client).await;
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn the_sdks_client_can_ask_everything_over_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    for mode in modes() {
        let mut command = tokio::process::Command::new(BINARY);
        command.args(["stdio", "--db"]).arg(folder.path().join("test.db"));
        let (process, _) = TokioChildProcess::builder(command).stderr(Stdio::null()).spawn().unwrap();
        let client = serve_client_with_lifecycle((), process, mode).await.unwrap();
        ask_everything(&client).await;
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn standard_output_carries_nothing_but_the_protocol_and_the_end_of_input_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::new(BINARY)
        .args(["stdio", "--log-level", "DEBUG", "--db"])
        .arg(folder.path().join("test.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let request = json!({"jsonrpc": "2.0", "id": "first", "method": "initialize", "params": initialize("2025-06-18")});
    input.write_all(format!("{request}\n").as_bytes()).await.unwrap();
    let answer: Value = serde_json::from_str(&output.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(answer["id"], "first");
    drop(input);
    assert_eq!(output.next_line().await.unwrap(), None);
    assert!(child.wait().await.unwrap().success());
}

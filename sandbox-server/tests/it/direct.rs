//! The server answers complete calls by itself and leaves everything else to the SDK. Nobody may be able to tell.

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::support::Server;

const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO item VALUES (1, 'a\"ä\n'), (2, NULL)";

/// The order in Accept decides which way a request goes, and means nothing to either.
const OURS: &str = "application/json, text/event-stream";
const THE_SDKS: &str = "text/event-stream, application/json";

struct Sent<'a> {
    body: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

async fn answer(server: &Server, sent: &Sent<'_>, accept: &str) -> (u16, Vec<Option<String>>, String) {
    let mut request =
        server.request(reqwest::Method::POST, "/mcp").header(ACCEPT, accept).header(CONTENT_TYPE, "application/json");
    for (name, value) in sent.headers {
        request = request.header(*name, *value);
    }
    let response = request.body(sent.body.to_owned()).send().await.unwrap();
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let headers = vec![header(CONTENT_TYPE), header(CONTENT_LENGTH)];
    (response.status().as_u16(), headers, response.text().await.unwrap())
}

fn body(id: &Value, params: Value) -> String {
    let mut params = params;
    params["_meta"] =
        json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
}

fn headers(tool: &str) -> [(&str, &str); 3] {
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", tool)]
}

#[tokio::test]
async fn both_ways_give_the_same_bytes() {
    let server = Server::start(SCHEMA, &[]);
    for (tool, arguments) in [
        ("read_query", json!({"query": "SELECT * FROM item"})),
        ("read_query", json!({"query": "SELECT ?, ?", "params": [1.5, {"$blob": "AP8="}]})),
        ("read_query", json!({"query": "SELECT nme FROM item"})),
        ("read_query", json!({"query": "SELECT 1", "max_rows": "many"})),
        ("read_query", json!({"query": "DROP TABLE item"})),
        ("write_query", json!({"query": "UPDATE item SET name = 'b' WHERE id = 2 RETURNING *"})),
        ("write_query", json!({"query": "SELECT 1"})),
        ("create_table", json!({"query": "CREATE TABLE IF NOT EXISTS item (id)"})),
        ("list_tables", json!({})),
        ("list_tables", Value::Null),
        ("list_tables", json!({"no": 1})),
        ("describe_table", json!({"table_name": "item"})),
        ("explain_query", json!({"query": "SELECT * FROM item WHERE id = 1"})),
        ("search_schema", json!({"text": "na"})),
        ("execute_sql_query", json!({"query": "VALUES (1), (2)"})),
        ("no_such_tool", json!({})),
        ("read_query", json!([])),
    ] {
        for id in [json!(1), json!(-7), json!("a\"b"), json!(1.5), json!(null), json!(u64::MAX)] {
            let body = body(&id, json!({"name": tool, "arguments": arguments}));
            let sent = Sent { body: &body, headers: &headers(tool) };
            assert_eq!(answer(&server, &sent, OURS).await, answer(&server, &sent, THE_SDKS).await, "{body}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_the_same_words() {
    let server = Server::start(SCHEMA, &[]);
    let good = body(&json!(1), json!({"name": "list_tables", "arguments": {}}));
    let right = headers("list_tables");
    let changed = |from: &str, to: &str| good.replacen(from, to, 1);
    let bodies = [
        changed("2.0", "1.0"),
        changed("2026-07-28", "2025-11-25"),
        changed("2026-07-28", "2099-01-01"),
        changed("\"io.modelcontextprotocol/clientCapabilities\":{}", "\"x\":1"),
        changed("\"io.modelcontextprotocol/clientCapabilities\":{}", "\"io.modelcontextprotocol/clientCapabilities\":7"),
        changed("\"id\":1", "\"id\":1,\"id\":2"),
        changed("\"id\":1", "\"id\":1,\"result\":{}"),
        changed("\"id\":1", "\"id\":1,\"extra\":{}"),
        changed("\"id\":1,", ""),
        changed("tools/call", "tools/list"),
        changed("\"arguments\":{}", "\"arguments\":{},\"unknown\":1"),
        changed("list_tables", "read_query"),
        format!("[{good}]"),
        good[..good.len() - 1].to_owned(),
        format!("{good} x"),
        String::new(),
    ];
    for body in &bodies {
        let sent = Sent { body, headers: &right };
        assert_eq!(answer(&server, &sent, OURS).await, answer(&server, &sent, THE_SDKS).await, "{body}");
    }
    let [version, method, name] = right;
    for headers in [
        vec![],
        vec![version],
        vec![version, method],
        vec![method, name],
        vec![version, method, name, name],
        vec![version, version, method, name],
        vec![version, method, ("mcp-name", "read_query")],
        vec![version, method, ("mcp-name", "=?base64?bGlzdF90YWJsZXM=?=")],
        vec![version, ("mcp-method", "tools/list"), name],
        vec![("mcp-protocol-version", "2025-11-25"), method, name],
    ] {
        let sent = Sent { body: &good, headers: &headers };
        assert_eq!(answer(&server, &sent, OURS).await, answer(&server, &sent, THE_SDKS).await, "{headers:?}");
    }
}

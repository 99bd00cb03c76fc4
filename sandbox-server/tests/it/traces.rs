//! Traces: a collector on this machine receives what the real binary exports. A span continues its caller's trace, in both eras and on
//! standard input, also when the call fails, and says nothing of what was asked.

use std::io::Write as _;
use std::process::{Command, Stdio};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use serde_json::{Value, json};
use traces::testing::{Received, hex, of};

use crate::support::{BINARY, Server, run_with};

const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO item VALUES (1, 'a'), (2, 'b')";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-01";

fn assert_continued(span: &Span) {
    assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, "b7ad6b7169203331"), "{span:?}");
    assert_eq!(span.kind(), SpanKind::Server);
}

#[tokio::test]
async fn a_call_of_either_era_continues_its_callers_trace() {
    let collector = Received::start().await;
    let server = Server::start_with(SCHEMA, &[], &collector.environment());
    let call =
        json!({"name": "read_query", "arguments": {"query": "SELECT 'secret', * FROM item WHERE id = ?", "params": ["private"]}});
    let mut traced = call.clone();
    traced["_meta"] = json!({"traceparent": PARENT, "tracestate": "vendor=1"});
    // Also where the HTTP request says something else; both ways through the server, the short one and the SDK's.
    server.modern("tools/call", traced.clone()).header("traceparent", OTHER).send().await.unwrap();
    server
        .modern("tools/call", call.clone())
        .header("traceparent", PARENT)
        .header("tracestate", "vendor=1")
        .header("x-request-id", "asked-1")
        .send()
        .await
        .unwrap();
    server.legacy("2025-11-25", "tools/call", &traced).send().await.unwrap();
    traced["_meta"]["progressToken"] = json!(7);
    server.modern("tools/call", traced).send().await.unwrap();
    let spans = collector.spans(4).await;
    for span in &spans {
        assert_continued(span);
        assert_eq!((span.name.as_str(), span.trace_state.as_str()), ("tools/call read_query", "vendor=1"));
        assert_eq!((of(span, "mcp.method.name"), of(span, "gen_ai.tool.name")), ("tools/call".into(), "read_query".into()));
        assert_eq!((of(span, "network.transport"), of(span, "network.protocol.name")), ("tcp".into(), "http".into()));
        assert_eq!((of(span, "mcpfleet.outcome"), of(span, "error.type")), ("ok".into(), "absent".into()));
        assert_eq!(of(span, "db.response.returned_rows"), "0");
        assert_eq!(of(span, "db.query.text"), "absent");
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
    // The id by which its logs are found: the caller's own, or a new one.
    let ids: Vec<_> = spans.iter().map(|span| of(span, "mcpfleet.request.id")).collect();
    assert!(ids.iter().any(|id| id == "asked-1") && ids.iter().filter(|id| id.starts_with("req_")).count() == 3, "{ids:?}");
    let mut versions: Vec<_> = spans.iter().map(|span| of(span, "mcp.protocol.version")).collect();
    versions.sort();
    assert_eq!(versions, ["2025-11-25", "2026-07-28", "2026-07-28", "2026-07-28"]);
    assert_eq!(collector.service(), "sandbox-server");
    collector.assert_unsaid(&["SELECT", "secret", "private", "item"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_traced_as_an_error() {
    let collector = Received::start().await;
    let mut server = Server::start_with(SCHEMA, &[], &collector.environment());
    let meta = json!({"traceparent": PARENT});
    for (tool, arguments) in [
        ("read_query", json!({"query": "SELECT nme FROM item"})),
        ("write_query", json!({"query": "DROP TABLE item"})),
        ("read_query", json!({"sql": "SELECT 1"})),
        ("no_such_tool", json!({})),
    ] {
        let call = json!({"name": tool, "arguments": arguments, "_meta": meta});
        server.modern("tools/call", call).send().await.unwrap();
    }
    server.modern("resources/read", json!({"uri": "schema://tables/nothing", "_meta": meta})).send().await.unwrap();
    server.modern("tools/list", json!({"_meta": meta})).send().await.unwrap();
    // At once: what has not been sent yet is sent on the way out.
    server.terminate();
    assert!(server.wait().success());
    let spans = collector.spans(6).await;
    spans.iter().for_each(assert_continued);
    let mut seen: Vec<_> = spans
        .iter()
        .map(|span| {
            (
                span.name.clone(),
                of(span, "mcpfleet.outcome"),
                of(span, "error.type"),
                span.status.clone().unwrap_or_default().code,
            )
        })
        .collect();
    seen.sort();
    let expected = [
        ("resources/read", "absent", "-32602", 2),
        ("tools/call", "absent", "-32602", 2),
        ("tools/call read_query", "bad_arguments", "tool_error", 2),
        ("tools/call read_query", "sql_error", "tool_error", 2),
        ("tools/call write_query", "denied", "tool_error", 2),
        ("tools/list", "absent", "absent", 0),
    ];
    assert_eq!(seen, expected.map(|(name, outcome, kind, status)| (name.into(), outcome.into(), kind.into(), status)));
    collector.assert_unsaid(&["nme", "DROP", "no_such_tool", "nothing"]);
}

#[tokio::test]
async fn a_call_without_a_trace_begins_one_and_the_audit_log_has_its_id() {
    let collector = Received::start().await;
    let server = Server::start_with(SCHEMA, &["--audit"], &collector.environment());
    let call = json!({"name": "read_query", "arguments": {"query": "SELECT * FROM item WHERE name = 'secret'"}, "_meta": {"traceparent": "junk"}});
    server.modern("tools/call", call).send().await.unwrap();
    let spans = collector.spans(1).await;
    assert!(spans[0].parent_span_id.is_empty());
    assert_eq!(of(&spans[0], "db.query.text"), "SELECT * FROM item WHERE name = ?");
    collector.assert_unsaid(&["secret"]);
    let log = server.log.lock().unwrap().join("\n");
    assert!(log.contains(&hex(&spans[0].trace_id)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_traced_too() {
    let collector = Received::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(BINARY)
        .args(["stdio", "--db"])
        .arg(folder.path().join("test.db"))
        .envs(collector.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut say = |message: Value| writeln!(input, "{message}").unwrap();
    say(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}));
    say(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    say(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "list_tables", "arguments": {}, "_meta": {"traceparent": PARENT}}}));
    let spans = collector.spans(2).await;
    drop(input);
    assert!(child.wait().unwrap().success());
    let called = spans.iter().find(|span| span.name == "tools/call list_tables").unwrap();
    assert_continued(called);
    assert_eq!((of(called, "network.transport"), of(called, "network.protocol.name")), ("pipe".into(), "absent".into()));
    assert!(spans.iter().any(|span| span.name == "initialize"));
}

#[test]
fn what_cannot_be_sent_to_ends_the_start_with_a_word() {
    for (variable, value, word) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318", "http:// only"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "grpc is not spoken"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("test.db");
        let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), (variable, value)];
        let (code, said) = run_with(&["serve", "--listen", "127.0.0.1:0", "--db", db.to_str().unwrap()], &environment);
        assert!(code == 1 && said.contains(word), "{code}: {said}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_answer() {
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let mut server = Server::start_with(SCHEMA, &[], &environment);
    for _ in 0..20 {
        server.ok("read_query", json!({"query": "SELECT * FROM item"})).await;
    }
    server.terminate();
    assert!(server.wait().success());
}

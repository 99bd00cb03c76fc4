//! What a model, or somebody behind it, may try (statements.rs): every statement through every tool must be refused or leave no trace.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::statements::{REFUSED, REFUSED_UNLESS_FULL, SCHEMA, exhausting};
use crate::support::{Server, database};

#[derive(Debug, PartialEq)]
struct Traces {
    schema: Vec<String>,
    birds: Vec<(i64, String)>,
    audit: i64,
    settings: (i64, String),
    files: Vec<String>,
}

impl Traces {
    fn of(server: &Server) -> Self {
        let conn = database(server.folder.path());
        let all = |sql: &str| conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let birds = conn
            .prepare("SELECT id, name FROM canary")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut files: Vec<String> = std::fs::read_dir(server.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        Self {
            schema: all("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY rowid"),
            birds,
            audit: conn.query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).unwrap(),
            settings: conn
                .query_row("SELECT user_version, journal_mode FROM pragma_user_version, pragma_journal_mode", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap(),
            files,
        }
    }
}

const RUNNING_TOOLS: [&str; 4] = ["read_query", "write_query", "create_table", "execute_sql_query"];

#[rstest::rstest]
#[case::none("none", &[REFUSED, REFUSED_UNLESS_FULL])]
#[case::add("add", &[REFUSED, REFUSED_UNLESS_FULL])]
#[case::full("full", &[REFUSED])]
#[tokio::test(flavor = "multi_thread")]
async fn every_escape_is_refused_and_leaves_no_trace(#[case] mode: &str, #[case] lists: &[&[&str]]) {
    let server = Server::start(SCHEMA, &["--statement-timeout-ms", "2000", "--schema", mode]);
    let before = Traces::of(&server);
    let mut escaped = Vec::new();
    for sql in lists.iter().copied().flatten() {
        for tool in RUNNING_TOOLS.into_iter().chain(["change_schema"]) {
            let result = server.call(tool, json!({"query": sql})).await;
            if result["isError"] != json!(true) {
                escaped.push(format!("{tool}: {sql}"));
            }
        }
        // Not by the company that it is in, either.
        let batch = json!({"statements": [{"query": "INSERT INTO audit VALUES ('before')"}, {"query": sql}]});
        if server.call("write_batch", batch).await["isError"] != json!(true) {
            escaped.push(format!("write_batch: {sql}"));
        }
        // Explaining runs nothing; it may succeed.
        server.call("explain_query", json!({"query": sql})).await;
        if Traces::of(&server) != before {
            escaped.push(format!("left a trace: {sql}\n{:?}\n{before:?}", Traces::of(&server)));
            break;
        }
    }
    assert!(escaped.is_empty(), "{escaped:#?}");
    assert!(REFUSED.len() >= 150, "{}", REFUSED.len());
    assert!(!std::path::Path::new("/tmp/escaped").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_exhaust_the_server_stays_within_the_caps() {
    let timeout = Duration::from_millis(500);
    let server = Server::start(SCHEMA, &["--statement-timeout-ms", "500", "--max-memory-bytes", "134217728", "--readers", "4"]);
    let before = Traces::of(&server);
    let mut faults = Vec::new();
    for sql in exhausting() {
        let shown: String = sql.chars().take(120).collect();
        for tool in ["read_query", "explain_query", "write_query"] {
            server.at_rest().await;
            let started = Instant::now();
            // Somebody else's call meanwhile is answered by another thread.
            let (result, other) = tokio::join!(
                server.call(tool, json!({"query": sql})),
                server.call("read_query", json!({"query": "SELECT count(*) FROM canary"}))
            );
            let size = result.to_string().len();
            // Far from the minutes that some of them would take, and far enough from the limit for a busy machine.
            if started.elapsed() > timeout * 6 {
                faults.push(format!("{tool} took {:?}: {shown}", started.elapsed()));
            }
            if size > 3 << 20 {
                faults.push(format!("{tool} gave {size} bytes: {shown}"));
            }
            if other["isError"] != json!(false) {
                faults.push(format!("{other} beside {tool}: {shown}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(Traces::of(&server), before);
    let peak = server.peak_memory_mib();
    assert!(peak < 300, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_cannot_be_made_to_write() {
    let server = Server::start(SCHEMA, &["--read-only"]);
    let before = Traces::of(&server);
    for sql in [
        "DELETE FROM canary",
        "INSERT INTO audit VALUES ('x')",
        "CREATE TABLE t (a)",
        "PRAGMA query_only = 0",
        "WITH x AS (SELECT 1) DELETE FROM canary",
    ] {
        for tool in RUNNING_TOOLS {
            server.error(tool, json!({"query": sql})).await;
        }
    }
    server.error("append_insight", json!({"insight": "x"})).await;
    // Not even by the caller's own word.
    server.error("write_query", json!({"query": "DELETE FROM canary", "read_only": false})).await;
    assert_eq!(Traces::of(&server), before);
}

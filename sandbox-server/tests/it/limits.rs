//! Caps that a caller meets, and cancellation by hanging up.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Server;

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[tokio::test]
async fn a_statement_is_stopped_in_time_and_the_message_says_what_to_do() {
    let server = Server::start("", &["--statement-timeout-ms", "200"]);
    let error = server.error("read_query", json!({"query": ENDLESS})).await;
    let (told, plan) = error.split_once('\n').unwrap();
    assert_eq!(
        told,
        "the statement was stopped after 200 ms, the limit on time. Nothing was changed. Select less, add a WHERE or LIMIT, or look at the plan with explain_query."
    );
    assert!(plan.starts_with("The plan:\n  "), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_statements_do_not_hold_up_other_calls() {
    let server = Server::start("", &["--statement-timeout-ms", "120000", "--readers", "3"]);
    let endless = || server.error("read_query", json!({"query": ENDLESS}));
    let others = async {
        server.calls_in_flight(2..).await;
        for _ in 0..20 {
            server.ok("list_tables", json!({})).await;
        }
    };
    tokio::select! {
        error = endless() => panic!("ended first: {error}"),
        error = endless() => panic!("ended first: {error}"),
        () = others => {}
    }
}

#[tokio::test]
async fn hanging_up_stops_the_statement() {
    let server = Server::start("", &["--statement-timeout-ms", "120000"]);
    let request = server.modern("tools/call", json!({"name": "read_query", "arguments": {"query": ENDLESS}}));
    tokio::select! {
        answer = request.send() => panic!("answered: {answer:?}"),
        () = server.calls_in_flight(1..) => {}
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.get("/metrics").await.1.contains("outcome=\"cancelled\"") {
        assert!(Instant::now() < deadline, "the statement still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn rows_and_bytes_stop_at_their_caps() {
    let server = Server::start("", &["--max-rows", "10", "--max-result-bytes", "2000"]);
    let series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    assert_eq!(
        server.ok("read_query", json!({"query": format!("{series} SELECT i FROM n"), "max_rows": 1_000_000})).await["row_count"],
        10
    );
    let bytes = server.ok("read_query", json!({"query": format!("{series} SELECT hex(zeroblob(300)) FROM n")})).await;
    assert_eq!((&bytes["row_count"], &bytes["truncated"]), (&json!(3), &json!(true)));
    let error = server.error("read_query", json!({"query": "SELECT hex(zeroblob(2000))"})).await;
    assert!(error.contains("substr()"), "{error}");
}

/// With the allocator's setting of the image.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_given_back_after_statements_that_take_all_of_it() {
    const THOUSAND: &str = "CREATE TABLE t (v TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT 'value ' || i || hex(zeroblob(20)) FROM n";
    let flags = ["--max-memory-bytes", "33554432", "--statement-timeout-ms", "30000", "--readers", "2"];
    let server = Server::start_with(THOUSAND, &flags, &[("MIMALLOC_PURGE_DELAY", "0")]);
    let before = server.memory_mib();
    let bombs = [
        (
            "read_query",
            "WITH RECURSIVE n(i, v) AS (SELECT 1, hex(randomblob(200)) UNION SELECT i + 1, hex(randomblob(200)) FROM n) SELECT count(*) FROM n",
        ),
        ("read_query", "SELECT a.v FROM t a, t b, t c ORDER BY a.v || b.v || c.v"),
        ("read_query", "SELECT a.v || b.v || c.v AS k, count(*) FROM t a, t b, t c GROUP BY k"),
        ("write_query", "INSERT INTO t (v) SELECT a.v FROM t a, t b, t c, t d"),
    ];
    for _ in 0..2 {
        let [one, two, three, four] = bombs.map(|(tool, sql)| server.error(tool, json!({"query": sql})));
        let (one, two, three, four) = tokio::join!(one, two, three, four);
        for error in [one, two, three, four] {
            assert!(error.contains("more memory than the server allows"), "{error}");
        }
    }
    server.at_rest().await;
    assert!(server.peak_memory_mib() < before + 32 * 3 / 2, "{} MiB", server.peak_memory_mib());
    assert!(server.memory_mib() < before + 16, "{} MiB, before {before}", server.memory_mib());
    assert_eq!(server.rows("SELECT count(*) AS n FROM t").await, json!([[1000]]));
}

//! Nobody holds up the others: what one caller sends costs another one milliseconds, whatever it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Server;

const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, v); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO item SELECT i, i FROM n; CREATE TABLE log (id INTEGER PRIMARY KEY, v)";

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

const A: &str = "the-token-of-caller-a";
const B: &str = "the-token-of-caller-b";

/// Far above what a short call takes on a machine that stands still for a while, and far below one long statement (`LONG`).
const SOON: Duration = Duration::from_secs(5);

/// What endless statements may take: longer than any of these tests, which hang up on them.
const LONG: &str = "120000";

struct Place {
    server: Arc<Server>,
    _tokens: tempfile::NamedTempFile,
}

impl Place {
    fn new(flags: &[&str]) -> Self {
        let tokens = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(tokens.path(), format!("{A}\n{B}\n")).unwrap();
        let path = tokens.path().to_str().unwrap();
        Self { server: Arc::new(Server::start(SCHEMA, &[&["--token-file", path], flags].concat())), _tokens: tokens }
    }

    /// A call of a caller, in a task of its own.
    fn call(&self, token: &'static str, tool: &'static str, sql: &str) -> tokio::task::JoinHandle<Value> {
        let (server, sql) = (Arc::clone(&self.server), sql.to_owned());
        tokio::spawn(async move {
            let request = server.modern("tools/call", json!({"name": tool, "arguments": {"query": sql}}));
            request.bearer_auth(token).send().await.unwrap().json().await.unwrap()
        })
    }

    /// How long the slowest but one of a hundred point reads takes.
    async fn point_reads(&self, token: &'static str) -> Duration {
        let mut times = Vec::new();
        for id in 1..=100 {
            let started = Instant::now();
            let answer = self.call(token, "read_query", &format!("SELECT v FROM item WHERE id = {id}")).await.unwrap();
            times.push(started.elapsed());
            assert_eq!(answer["result"]["structuredContent"]["rows"], json!([[id]]), "{answer}");
        }
        times.sort();
        times[98]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_queries_of_one_caller_hold_up_no_other_and_not_his_own_short_ones() {
    let place = Place::new(&["--readers", "2", "--statement-timeout-ms", LONG]);
    for endless in [2, 40] {
        let running: Vec<_> = (0..endless).map(|_| place.call(A, "read_query", ENDLESS)).collect();
        place.server.calls_in_flight(endless..).await;
        for token in [B, A] {
            let slowest = place.point_reads(token).await;
            assert!(slowest < SOON, "{slowest:?} beside {endless}");
        }
        assert!(running.iter().all(|call| !call.is_finished()), "nothing ran beside");
        running.iter().for_each(tokio::task::JoinHandle::abort);
        place.server.calls_in_flight(..1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_update_is_not_noticed_by_reads() {
    let place = Place::new(&["--readers", "2", "--statement-timeout-ms", LONG]);
    let update = place.call(A, "write_query", &format!("UPDATE item SET v = v WHERE id = ({ENDLESS})"));
    place.server.calls_in_flight(1..).await;
    for token in [A, B] {
        let slowest = place.point_reads(token).await;
        assert!(slowest < SOON, "{slowest:?}");
    }
    assert!(!update.is_finished(), "nothing ran beside");
    update.abort();
}

/// A statement that writes for some 300 ms.
const SLOW_UPDATE: &str =
    "UPDATE item SET v = (SELECT max(a.v + b.v) FROM item a, item b WHERE a.id <= 1500 AND b.id <= 1500) WHERE id = 1";

#[tokio::test(flavor = "multi_thread")]
async fn slow_updates_of_one_caller_delay_anothers_insert_by_about_one_of_them() {
    let place = Place::new(&["--statement-timeout-ms", LONG]);
    let running: Vec<_> = (0..20).map(|_| place.call(A, "write_query", SLOW_UPDATE)).collect();
    place.server.calls_in_flight(15..).await;
    let done = || running.iter().filter(|call| call.is_finished()).count();
    for _ in 0..3 {
        let before = done();
        let answer = place.call(B, "write_query", "INSERT INTO log (v) VALUES (1)").await.unwrap();
        assert_eq!(answer["result"]["isError"], json!(false), "{answer}");
        // The one that is under way as the insert comes, and one that ends while its answer is on its way.
        let meanwhile = done() - before;
        assert!(meanwhile <= 3, "{meanwhile} updates came before the insert");
    }
    assert!(done() < 20, "the insert came last");
    running.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_again_and_again_slows_nobody() {
    let place = Place::new(&["--statement-timeout-ms", LONG]);
    let endless = format!("UPDATE item SET v = v WHERE id = ({ENDLESS})");
    let over = Arc::new(AtomicBool::new(false));
    let hanging_up = {
        let (over, server) = (Arc::clone(&over), Arc::clone(&place.server));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let request = server.modern("tools/call", json!({"name": "write_query", "arguments": {"query": endless}}));
                request.bearer_auth(A).timeout(Duration::from_millis(20)).send().await.unwrap_err();
            }
        })
    };
    let started = Instant::now();
    for _ in 0..20 {
        let inserts: Vec<_> = (0..4).map(|_| place.call(B, "write_query", "INSERT INTO log (v) VALUES (1)")).collect();
        for insert in inserts {
            assert_eq!(insert.await.unwrap()["result"]["isError"], json!(false));
        }
    }
    let took = started.elapsed();
    over.store(true, Ordering::Relaxed);
    hanging_up.await.unwrap();
    // Each round waits for one statement that is about to be given up, and none for its end.
    assert!(took < Duration::from_mins(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_does_not_take_all_the_places() {
    let place = Place::new(&["--max-requests", "16", "--statement-timeout-ms", "5000"]);
    let running: Vec<_> = (0..40)
        .map(|_| {
            let server = Arc::clone(&place.server);
            tokio::spawn(async move {
                let request = server.modern("tools/call", json!({"name": "read_query", "arguments": {"query": ENDLESS}}));
                request.bearer_auth(A).send().await.unwrap().status().as_u16()
            })
        })
        .collect();
    place.server.calls_in_flight(8..).await;
    let slowest = place.point_reads(B).await;
    assert!(slowest < SOON, "{slowest:?}");
    let mut statuses = Vec::new();
    for call in running {
        statuses.push(call.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 32, "{statuses:?}");
}

/// Behind a proxy each of its callers has an own share, and whoever is no proxy cannot make callers up.
#[tokio::test(flavor = "multi_thread")]
async fn callers_behind_a_trusted_proxy_are_told_apart() {
    for (flags, apart) in
        [(&["--max-requests", "8", "--trusted-proxy", "127.0.0.1"][..], true), (&["--max-requests", "8"][..], false)]
    {
        let server = Arc::new(Server::start(SCHEMA, &[&["--statement-timeout-ms", LONG], flags].concat()));
        let call = |from: &'static str, sql: &'static str| {
            let request = server.modern("tools/call", json!({"name": "read_query", "arguments": {"query": sql}}));
            let sent = request.header("X-Forwarded-For", from).send();
            tokio::spawn(async move { sent.await.unwrap().status().as_u16() })
        };
        let hogs: Vec<_> = (0..8).map(|_| call("192.0.2.1", ENDLESS)).collect();
        server.calls_in_flight(4..).await;
        assert_eq!(call("192.0.2.2", "SELECT 1").await.unwrap() == 200, apart);
        hogs.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// One sort takes more memory than there is; the others' statements are answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_sort_that_is_too_large_ends_itself_alone() {
    let place = Place::new(&["--max-memory-bytes", "33554432", "--statement-timeout-ms", "20000", "--readers", "2"]);
    let sort = "SELECT a.v || hex(zeroblob(40)) AS k, count(*) FROM item a, item b GROUP BY k || b.v ORDER BY k";
    let sorts: Vec<_> = (0..3).map(|_| place.call(A, "read_query", sort)).collect();
    place.server.calls_in_flight(1..).await;
    let mut beside = 0;
    while sorts.iter().any(|call| !call.is_finished()) {
        let answer =
            place.call(B, "read_query", "SELECT count(*), max(length(v || id)) FROM item WHERE v + 0 > 5").await.unwrap();
        assert_eq!(answer["result"]["isError"], json!(false), "{answer}");
        beside += 1;
    }
    assert!(beside > 0, "nothing ran beside");
    for sort in sorts {
        let answer = sort.await.unwrap();
        assert!(
            answer["result"]["content"][0]["text"].as_str().unwrap().contains("more memory than the server allows"),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_calls_end_inside_the_drain() {
    let mut server = Server::start(SCHEMA, &["--statement-timeout-ms", "600000", "--drain-seconds", "1"]);
    // The first goes the short way, the second the SDK's.
    let calls: Vec<_> = ["application/json, text/event-stream", "text/event-stream, application/json"]
        .map(|accept| {
            let request = server
                .request(reqwest::Method::POST, "/mcp")
                .header("Accept", accept)
                .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_query", "arguments": {"query": ENDLESS}}}));
            tokio::spawn(request.send())
        })
        .into();
    server.calls_in_flight(2..).await;
    let started = Instant::now();
    server.terminate();
    assert!(tokio::task::spawn_blocking(move || server.wait()).await.unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for call in calls {
        // However they end, they end.
        let _ = call.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_twice_to_stop_does_not_wait_for_the_drain() {
    let mut server = Server::start(SCHEMA, &["--statement-timeout-ms", "600000", "--drain-seconds", "600"]);
    let request = server.modern("tools/call", json!({"name": "read_query", "arguments": {"query": ENDLESS}}));
    let call = tokio::spawn(request.send());
    server.calls_in_flight(1..).await;
    server.terminate();
    server.says("draining").await;
    server.terminate();
    assert!(tokio::task::spawn_blocking(move || server.wait()).await.unwrap().success());
    // However it ends, it ends.
    let _ = call.await.unwrap();
}

//! How the handle behaves with several callers: group commit, timeouts, cancellation, locks.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use super::write::Takes;
use super::*;

mod files;
mod statements;
mod upkeep;
mod writes;

struct Place {
    folder: TempDir,
    db: Database,
}

impl Place {
    fn new(schema: &str, set: impl FnOnce(&mut OpenOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Connection::open(folder.path().join("x.db")).unwrap().execute_batch(schema).unwrap();
        let mut options = options(&folder.path().join("x.db"));
        set(&mut options);
        Self { db: Database::open(options).unwrap(), folder }
    }

    fn outside(&self) -> Connection {
        Connection::open(self.folder.path().join("x.db")).unwrap()
    }

    async fn change(&self, sql: &str) -> Result<WriteOutcome, DbError> {
        self.db.write(self.db.budget(), change(sql)).await
    }

    async fn count(&self, sql: &str) -> i64 {
        self.db.read(self.db.budget(), sql.into(), Parameters::None, None, None).await.unwrap().set.rows[0][0].as_i64().unwrap()
    }

    /// Runs `statements` in one group: the writer is kept waiting for a lock until all of them are queued.
    async fn together(&self, statements: &[&str]) -> Vec<Result<WriteOutcome, DbError>> {
        let lock = self.outside();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let calls = futures(statements.iter().map(|sql| self.change(sql)));
        let release = async {
            // The first is taken out of the queue and waits for the lock; the others are behind it.
            while self.db.queue_lengths().1 + 1 < statements.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            lock.execute_batch("COMMIT").unwrap();
        };
        tokio::join!(calls, release).0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.db.close();
    }
}

fn options(path: &Path) -> OpenOptions {
    OpenOptions::new(path.to_owned())
}

fn change(sql: &str) -> Command {
    command(sql, Takes::Rows)
}

fn command(sql: &str, takes: Takes) -> Command {
    let statement = BoundStatement { sql: sql.into(), parameters: Parameters::None };
    Command::Run { statement, takes, page: Page { offset: 0, max_rows: 10, max_bytes: 1000 } }
}

/// All of them at once, polled in order, so that they are queued in order.
async fn futures<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let mut results: Vec<Option<T>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (call, result) in calls.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(value) = call.as_mut().poll(cx)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)";

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";

#[tokio::test]
async fn writes_that_wait_share_one_commit() {
    let place = Place::new(TABLE, |_| {});
    let sql: Vec<String> = (0..20).map(|value| format!("INSERT INTO t (v) VALUES ({value})")).collect();
    let results = place.together(&sql.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(results.iter().all(Result::is_ok));
    let stats = place.db.writer_stats();
    assert_eq!((stats.commits.load(Ordering::Relaxed), stats.statements.load(Ordering::Relaxed)), (1, 20));
    assert_eq!(place.count("SELECT count(*) FROM t").await, 20);
}

#[tokio::test]
async fn a_failing_statement_fails_alone() {
    let place = Place::new(TABLE, |_| {});
    let results = place
        .together(&[
            "INSERT INTO t (v) VALUES (1)",
            "INSERT INTO t (v) VALUES (1)",
            "INSERT INTO nowhere VALUES (1)",
            "INSERT INTO t (v) VALUES (2)",
        ])
        .await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!(place.db.writer_stats().replays.load(Ordering::Relaxed), 0);
    assert_eq!(place.count("SELECT count(*) FROM t").await, 2);
}

#[tokio::test]
async fn a_statement_that_rolls_the_transaction_back_costs_nobody_else_theirs() {
    let place = Place::new(TABLE, |_| {});
    let results = place
        .together(&["INSERT INTO t (v) VALUES (1)", "INSERT OR ROLLBACK INTO t (v) VALUES (1)", "INSERT INTO t (v) VALUES (2)"])
        .await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(place.db.writer_stats().replays.load(Ordering::Relaxed), 1);
    assert_eq!(place.count("SELECT count(*) FROM t").await, 2);
}

#[tokio::test]
async fn a_statement_out_of_time_costs_nobody_else_theirs() {
    let place = Place::new(TABLE, |options| options.limits.statement_timeout = Duration::from_millis(400));
    let endless = format!("INSERT INTO t (v) {ENDLESS}");
    let results = place.together(&["INSERT INTO t (v) VALUES (-1)", &endless]).await;
    assert!(results[0].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(DbError::Timeout(400))), "{results:?}");
    assert_eq!(place.count("SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn a_change_whose_rows_cannot_be_returned_is_undone() {
    let place = Place::new(TABLE, |_| {});
    let error = place.change("INSERT INTO t (v) VALUES (1), (hex(zeroblob(2000))) RETURNING v").await;
    assert!(error.as_ref().is_ok_and(|outcome| outcome.returned.as_ref().is_some_and(|set| set.more)), "{error:?}");
    let error = place.change("INSERT INTO t (v) VALUES (hex(zeroblob(3000))) RETURNING v").await;
    assert!(matches!(error, Err(DbError::RowTooLarge(1000))), "{error:?}");
    assert_eq!(place.count("SELECT count(*) FROM t").await, 2);
}

#[tokio::test]
async fn a_violation_found_at_commit_fails_alone() {
    let place =
        Place::new("CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)", |_| {});
    let results =
        place.together(&["INSERT INTO t VALUES (1, NULL)", "INSERT INTO t VALUES (2, 99)", "INSERT INTO t VALUES (3, 1)"]).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(place.count("SELECT count(*) FROM t").await, 2);
}

#[tokio::test]
async fn a_lock_of_another_process_is_waited_for_and_then_said() {
    let place = Place::new(TABLE, |options| options.limits.statement_timeout = Duration::from_millis(200));
    let lock = place.outside();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = place.change("INSERT INTO t (v) VALUES (1)").await.unwrap_err();
    assert!(
        matches!(&error, DbError::Sqlite(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)),
        "{error}"
    );
    // Readers are not held up.
    assert_eq!(place.count("SELECT count(*) FROM t").await, 0);
    lock.execute_batch("COMMIT").unwrap();
    place.change("INSERT INTO t (v) VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn a_cancelled_statement_stops_and_frees_its_thread() {
    let place = Place::new(TABLE, |options| options.readers = 1);
    let budget = place.db.budget();
    let running = place.db.read(budget.clone(), format!("SELECT count(*) FROM ({ENDLESS})"), Parameters::None, None, None);
    let (result, ()) = tokio::join!(running, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        budget.cancel();
    });
    assert!(matches!(result, Err(DbError::Cancelled)), "{result:?}");
    assert_eq!(place.count("SELECT 1").await, 1);
}

#[tokio::test]
async fn time_in_the_queue_counts() {
    let place = Place::new(TABLE, |options| {
        options.readers = 1;
        options.limits.statement_timeout = Duration::from_secs(1);
    });
    let slow = || place.db.read(place.db.budget(), format!("SELECT count(*) FROM ({ENDLESS})"), Parameters::None, None, None);
    let started = std::time::Instant::now();
    let results = futures((0..5).map(|_| slow())).await;
    assert!(results.iter().all(|result| matches!(result, Err(DbError::Timeout(1000)))), "{results:?}");
    // One after the other they take five seconds.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    let place = Place::new(TABLE, |options| {
        options.readers = 1;
        options.limits.max_queue = 2;
        options.limits.statement_timeout = Duration::from_millis(300);
    });
    let slow = || place.db.read(place.db.budget(), format!("SELECT count(*) FROM ({ENDLESS})"), Parameters::None, None, None);
    let results = futures((0..6).map(|_| slow())).await;
    assert!(results.iter().any(|result| matches!(result, Err(DbError::Busy(1)))), "{results:?}");
}

#[tokio::test]
async fn pages_follow_each_other_and_say_when_data_changed_between() {
    let place = Place::new("CREATE TABLE t (v); INSERT INTO t VALUES (1), (2), (3), (4), (5)", |_| {});
    let page = |cursor| place.db.read(place.db.budget(), "SELECT v FROM t ORDER BY v".into(), Parameters::None, Some(2), cursor);
    let first = page(None).await.unwrap();
    let second = page(first.next_cursor.clone()).await.unwrap();
    place.change("INSERT INTO t VALUES (6)").await.unwrap();
    let third = page(second.next_cursor.clone()).await.unwrap();
    assert_eq!(
        [first.set.rows, second.set.rows, third.set.rows.clone()].concat(),
        (1..=6).map(|value| vec![json!(value)]).collect::<Vec<_>>()
    );
    assert_eq!((second.changed_between_pages, third.changed_between_pages, third.next_cursor), (false, true, None));
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_leaves_no_log() {
    let place = Place::new(TABLE, |_| {});
    let db = place.db.clone();
    let lock = place.outside();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let write = place.change("INSERT INTO t (v) VALUES (1)");
    let close = async {
        let closing = tokio::task::spawn_blocking(move || db.close());
        tokio::time::sleep(Duration::from_millis(50)).await;
        lock.execute_batch("COMMIT").unwrap();
        drop(lock);
        closing.await.unwrap();
    };
    let (written, ()) = tokio::join!(write, close);
    written.unwrap();
    assert!(!file::wal_path(&place.folder.path().join("x.db")).exists());
    assert!(matches!(place.change("INSERT INTO t (v) VALUES (2)").await, Err(DbError::Closed)));
}

#[test]
fn every_file_that_is_no_database_of_ours_gives_its_own_error_and_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let error = |path: std::path::PathBuf| Database::open(options(&path)).map(|db| db.close()).unwrap_err();
    assert!(matches!(error(at("missing/x.db")), OpenError::NoFolder(_)));
    assert!(matches!(error(folder.path().to_owned()), OpenError::NotAFile(_)));
    for foreign in ["short", "a text that is longer than the header of a database"] {
        std::fs::write(at("foreign"), foreign).unwrap();
        assert!(matches!(error(at("foreign")), OpenError::Foreign(_)));
        assert_eq!(std::fs::read_to_string(at("foreign")).unwrap(), foreign);
    }
    std::fs::write(at("gone.db-wal"), "log").unwrap();
    assert!(matches!(error(at("gone.db")), OpenError::OrphanedWal { .. }));
    assert!(!at("gone.db").exists());
    assert!(matches!(Database::open(OpenOptions { read_only: true, ..options(&at("none.db")) }), Err(OpenError::Missing(_))));
    assert!(!at("none.db").exists());

    Connection::open(at("torn.db")).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    let mut bytes = std::fs::read(at("torn.db")).unwrap();
    bytes[100..4096].fill(0xff);
    std::fs::write(at("torn.db"), &bytes).unwrap();
    assert!(matches!(error(at("torn.db")), OpenError::Corrupt(..)));
    assert_eq!(std::fs::read(at("torn.db")).unwrap(), bytes);

    let lock = Connection::open(at("locked.db")).unwrap();
    lock.execute_batch("CREATE TABLE t (a); BEGIN EXCLUSIVE").unwrap();
    let mut options = options(&at("locked.db"));
    options.limits.statement_timeout = Duration::from_millis(50);
    assert!(matches!(Database::open(options).map(|db| db.close()).unwrap_err(), OpenError::Locked(_)));
}

#[tokio::test]
async fn a_value_is_capped_only_in_statements_that_cannot_be_interrupted() {
    let place = Place::new("CREATE TABLE t (a TEXT, small TEXT)", |_| {});
    place.change("INSERT INTO t VALUES (replace(hex(zeroblob(600000)), '0', 'a'), 'x')").await.unwrap();
    let db = &place.db;
    let read = async |sql: &str| db.read(db.budget(), sql.into(), Parameters::None, None, None).await;
    assert!(read("SELECT length(a) FROM t WHERE instr(a, 'b') = 0").await.is_ok());
    for sql in [
        "SELECT 1 FROM t WHERE a LIKE '%b%'",
        "SELECT 1 FROM t WHERE a GLOB '*b*'",
        "SELECT a LIKE '%b%' FROM t",
        "SELECT hex(zeroblob(600000)) LIKE '%b%'",
        "SELECT 1 FROM (SELECT a FROM t) WHERE a LIKE '%b%'",
    ] {
        // Also when the statement is sent again: a cached one would come without its cap.
        for _ in 0..2 {
            let error = read(sql).await.unwrap_err().to_string();
            assert!(error.contains("larger than 1048576 bytes") && error.contains("instr()"), "{sql}: {error}");
        }
        assert!(read("SELECT length(a) FROM t").await.is_ok(), "the cap stays behind {sql}");
    }
    assert!(read("SELECT small FROM t WHERE small LIKE 'X'").await.is_ok());
    assert!(read("SELECT small FROM t WHERE octet_length(a) <= 1048576 AND a LIKE '%b%'").await.is_ok());
    assert!(place.change("UPDATE t SET small = 'y' WHERE a LIKE '%b%'").await.is_err());
    assert!(read("SELECT json_patch('{\"a\":1}', '{\"a\":2}')").await.is_ok());
    assert!(read("SELECT json_patch(json_object('a', hex(zeroblob(100000))), '{\"a\":2}')").await.is_err());
    let error = db.write(db.budget(), command("CREATE TABLE g (a, b AS (json_patch(a, a)))", Takes::Schema)).await;
    assert!(error.unwrap_err().to_string().contains("json_patch"));
}

//! That a file neither grows without bound nor rots.

use super::*;

/// Waits until `done` holds; panics when it does not within a time that is far beyond what it takes.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn log_bytes(place: &Place) -> u64 {
    std::fs::metadata(file::wal_path(&place.folder.path().join("x.db"))).map_or(0, |meta| meta.len())
}

#[tokio::test]
async fn an_idle_writer_leaves_no_log_and_counts_what_was_written() {
    let place = Place::new("CREATE TABLE t (a); CREATE INDEX t_a ON t (a)", |_| {});
    let inserts: Vec<_> = (0..1500).map(|n| format!("INSERT INTO t VALUES ({n})")).collect();
    for some in inserts.chunks(500) {
        for result in futures(some.iter().map(|sql| place.change(sql))).await {
            result.unwrap();
        }
    }
    assert!(log_bytes(&place) > 0);
    eventually("the log is folded in", || log_bytes(&place) == 0).await;
    let outside = place.outside();
    eventually("the planner's numbers are there", || {
        outside
            .query_row("SELECT count(*) FROM sqlite_stat1 WHERE tbl = 't'", [], |row| row.get::<_, i64>(0))
            .is_ok_and(|rows| rows > 0)
    })
    .await;
}

#[tokio::test]
async fn the_log_is_cut_back_beside_readers_that_are_always_there() {
    let place = Place::new("CREATE TABLE t (a)", |options| options.limits.max_value_bytes = 64 << 20);
    let db = place.db.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    // Two readers that take turns: there is no moment without one.
    let readers = tokio::spawn(async move {
        let read =
            || db.read(db.budget(), format!("SELECT count(*) FROM t, ({ENDLESS} LIMIT 20000)"), Parameters::None, None, None);
        while stopped.try_recv().is_err() {
            let (one, two) = tokio::join!(read(), read());
            one.unwrap();
            two.unwrap();
        }
    });
    let mut largest = 0;
    // 300 MB through the log.
    for _ in 0..150 {
        place.change("INSERT INTO t VALUES (zeroblob(2000000))").await.unwrap();
        place.change("DELETE FROM t").await.unwrap();
        largest = largest.max(log_bytes(&place));
    }
    stop.send(()).unwrap();
    readers.await.unwrap();
    assert!(largest < 200 << 20, "the log grew to {largest} bytes");
}

#[tokio::test]
async fn a_file_is_no_larger_than_it_may_be_and_rows_can_still_be_deleted() {
    let place = Place::new("CREATE TABLE t (a)", |options| options.max_db_bytes = Some(1 << 20));
    let error = loop {
        if let Err(error) = place.change("INSERT INTO t VALUES (zeroblob(50000))").await {
            break error;
        }
    };
    assert!(matches!(error, DbError::DatabaseFull(bytes) if bytes == 1 << 20), "{error}");
    place.db.check().await.unwrap();
    place.change("DELETE FROM t").await.unwrap();
    place.change("INSERT INTO t VALUES (zeroblob(50000))").await.unwrap();
}

#[tokio::test]
async fn pages_that_are_freed_are_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.db");
    let db = Database::open(options(&path)).unwrap();
    db.write(db.budget(), command("CREATE TABLE t (a)", Takes::Schema)).await.unwrap();
    for _ in 0..4 {
        db.write(db.budget(), change("INSERT INTO t VALUES (zeroblob(4000000))")).await.unwrap();
    }
    db.write(db.budget(), change("DELETE FROM t")).await.unwrap();
    eventually("the file shrinks", || std::fs::metadata(&path).unwrap().len() < 4_000_000).await;
    db.close();
}

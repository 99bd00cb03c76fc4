//! What a write says of itself: rowids, halves of statements, batches, deferred foreign keys.

use super::*;

const TABLES: &str = "
    CREATE TABLE plain (id INTEGER PRIMARY KEY, k TEXT UNIQUE, n INTEGER DEFAULT 0);
    CREATE TABLE other (id INTEGER PRIMARY KEY, k TEXT);
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, k TEXT);
    CREATE TABLE unnumbered (k TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
    CREATE TABLE log (id INTEGER PRIMARY KEY, k TEXT);
    CREATE TABLE logged (id INTEGER PRIMARY KEY, k TEXT UNIQUE, n INTEGER DEFAULT 0);
    CREATE TRIGGER logged_insert AFTER INSERT ON logged BEGIN INSERT INTO log (k) VALUES (new.k); END;
    CREATE TRIGGER logged_update AFTER UPDATE ON logged BEGIN INSERT INTO log (k) VALUES (new.k); END;
    CREATE VIEW seen AS SELECT k FROM other;
    CREATE TRIGGER seen_insert INSTEAD OF INSERT ON seen BEGIN INSERT INTO other (k) VALUES (new.k); END;
    CREATE VIRTUAL TABLE words USING fts5(body);
    CREATE VIRTUAL TABLE more_words USING fts5(body);
    CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
    INSERT INTO plain (id, k) VALUES (7, 'there');
    INSERT INTO logged (id, k) VALUES (7, 'there');
    INSERT INTO unnumbered VALUES ('there', 1);
";

#[tokio::test]
async fn a_command_of_fts5_is_no_row_and_has_no_rowid() {
    let place = Place::new(TABLES, |_| {});
    place.change("INSERT INTO words VALUES ('a b')").await.unwrap();
    for sql in ["INSERT INTO words (words) VALUES ('optimize')", "INSERT INTO words (words) VALUES ('rebuild')"] {
        assert_eq!(place.change(sql).await.unwrap().last_insert_rowid, None, "{sql}");
    }
    assert_eq!(place.change("INSERT INTO words (rowid, body) VALUES (0, 'zero')").await.unwrap().last_insert_rowid, Some(0));
}

/// Each runs after an insert that left the connection's last rowid at `before`, also when it is sent again from the cache.
#[tokio::test]
async fn the_rowid_of_a_write_is_its_own_or_absent() {
    for before in [1000, 7] {
        for (sql, expected) in [
            ("INSERT INTO plain (k) VALUES ('a'), ('b') RETURNING id", Some(9)),
            ("INSERT INTO plain (k) VALUES ('a')", Some(8)),
            ("insert into PLAIN (k) values ('a')", Some(8)),
            ("INSERT INTO plain (id, k) VALUES (-5, 'a')", Some(-5)),
            ("INSERT INTO plain (id, k) VALUES (9223372036854775807, 'a')", Some(i64::MAX)),
            ("REPLACE INTO plain (id, k) VALUES (7, 'again')", Some(7)),
            ("INSERT OR REPLACE INTO plain (k) VALUES ('there')", Some(8)),
            ("INSERT OR IGNORE INTO plain (k) VALUES ('there')", None),
            ("INSERT INTO plain (k) VALUES ('there') ON CONFLICT (k) DO UPDATE SET n = n + 1", None),
            ("INSERT INTO plain (k) VALUES ('new') ON CONFLICT (k) DO UPDATE SET n = n + 1", Some(8)),
            ("INSERT INTO plain (k) VALUES ('new'), ('there') ON CONFLICT (k) DO UPDATE SET n = n + 1", Some(8)),
            ("INSERT INTO plain (k) VALUES ('there') ON CONFLICT DO NOTHING", None),
            ("WITH v(k) AS (VALUES ('w')) INSERT INTO plain (k) SELECT k FROM v", Some(8)),
            ("WITH v(k) AS (VALUES ('w')) UPDATE plain SET n = 5 WHERE k IN (SELECT k FROM v) OR k = 'there'", None),
            ("INSERT INTO plain (k) SELECT k FROM other WHERE 0", None),
            ("UPDATE plain SET n = 1", None),
            ("DELETE FROM plain", None),
            ("INSERT INTO counted (k) VALUES ('a')", Some(1)),
            ("INSERT INTO unnumbered VALUES ('a', 1)", None),
            ("INSERT INTO unnumbered VALUES ('there', 1) ON CONFLICT DO UPDATE SET n = 2", None),
            ("INSERT INTO logged (k) VALUES ('a')", Some(8)),
            ("INSERT INTO logged (k) VALUES ('there') ON CONFLICT (k) DO UPDATE SET n = n + 1", None),
            ("INSERT INTO seen VALUES ('through a view')", None),
            ("INSERT INTO words VALUES ('hello')", Some(1)),
            ("INSERT INTO words (rowid, body) VALUES (7, 'hello')", Some(7)),
            ("INSERT INTO boxes VALUES (7, 0, 1)", Some(7)),
            ("UPDATE words SET body = 'x'", None),
            ("INSERT INTO main.\"plain\" (k) VALUES ('quoted')", Some(8)),
        ] {
            let place = Place::new(TABLES, |_| {});
            place.change(&format!("INSERT INTO other VALUES ({before}, 'before')")).await.unwrap();
            let outcome = place.change(sql).await.unwrap();
            assert_eq!(outcome.last_insert_rowid, expected, "{sql} after {before}");
        }
    }
}

#[tokio::test]
async fn a_rowid_that_equals_the_last_one_of_another_table_is_told_from_the_cache_too() {
    let place = Place::new(TABLES, |_| {});
    for id in 1..4 {
        for table in ["other", "counted", "words", "more_words"] {
            let column = if table.ends_with("words") { "body" } else { "k" };
            let outcome = place.change(&format!("INSERT INTO {table} ({column}) VALUES ('x')")).await.unwrap();
            assert_eq!((outcome.rows_affected, outcome.last_insert_rowid), (1, Some(id)), "{table}");
        }
        let upsert = "INSERT INTO plain (k) VALUES ('there') ON CONFLICT (k) DO UPDATE SET n = n + 1";
        assert_eq!(place.change(upsert).await.unwrap().last_insert_rowid, None);
    }
}

#[tokio::test]
async fn callers_that_write_together_get_their_own_rowids() {
    let place = Place::new(TABLES, |_| {});
    let insert = |n: usize| match n % 3 {
        0 => format!("INSERT INTO other (id, k) VALUES ({}, 'x')", 100 + n),
        1 => "INSERT INTO plain (k) VALUES ('there') ON CONFLICT (k) DO UPDATE SET n = n + 1".to_owned(),
        _ => format!("INSERT INTO unnumbered VALUES ('k{n}', 1)"),
    };
    let sql: Vec<String> = (0..60).map(insert).collect();
    let results = place.together(&sql.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (n, result) in results.into_iter().enumerate() {
        let expected = (n % 3 == 0).then(|| 100 + i64::try_from(n).unwrap());
        assert_eq!(result.unwrap().last_insert_rowid, expected, "{n}");
    }
}

#[tokio::test]
async fn a_statement_that_fails_leaves_nothing_behind() {
    let schema = "
        CREATE TABLE t (a UNIQUE);
        CREATE TABLE f (a UNIQUE ON CONFLICT FAIL);
        CREATE TABLE n (a NOT NULL ON CONFLICT FAIL);
        CREATE TABLE g (a);
        CREATE TRIGGER g_no BEFORE INSERT ON g WHEN new.a = 3 BEGIN INSERT INTO t VALUES ('trigger'); SELECT RAISE(FAIL, 'no three'); END;
        INSERT INTO t VALUES (3); INSERT INTO f VALUES (3);";
    for sql in [
        "INSERT OR FAIL INTO t VALUES (1), (2), (3), (4)",
        "insert or fail into t values (1), (3) returning a",
        "UPDATE OR FAIL t SET a = 3",
        "INSERT OR/**/FAIL INTO t SELECT value FROM json_each('[1,2,3]')",
        "WITH v(a) AS (VALUES (1), (3)) INSERT OR FAIL INTO t SELECT a FROM v",
        "INSERT INTO f VALUES (1), (2), (3)",
        "INSERT INTO n VALUES (1), (NULL)",
        "INSERT INTO g VALUES (1), (2), (3)",
        "INSERT INTO t VALUES (1), (3)",
        "INSERT OR ABORT INTO t VALUES (1), (3)",
        "INSERT OR ROLLBACK INTO t VALUES (1), (3)",
    ] {
        let place = Place::new(schema, |_| {});
        place.change("INSERT INTO t VALUES (33)").await.unwrap();
        let before = place.count("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM f) + (SELECT count(*) FROM g) + (SELECT count(*) FROM n)").await;
        // With others in its group, who keep theirs.
        let results = place.together(&["INSERT INTO t VALUES ('one')", sql, "INSERT INTO t VALUES ('two')"]).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "{sql}: {results:?}");
        let after = place.count("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM f) + (SELECT count(*) FROM g) + (SELECT count(*) FROM n)").await;
        assert_eq!(after, before + 2, "{sql}");
    }
}

async fn batch(place: &Place, statements: &[&str]) -> Result<Vec<WriteOutcome>, DbError> {
    let bound = |sql: &&str| BoundStatement { sql: (*sql).to_owned(), parameters: Parameters::None };
    place.db.write_batch(place.db.budget(), statements.iter().map(bound).collect()).await
}

#[tokio::test]
async fn a_batch_is_kept_whole_and_answers_for_each_statement() {
    let place = Place::new(TABLES, |_| {});
    let outcomes = batch(
        &place,
        &[
            "CREATE TABLE made (a)",
            "INSERT INTO made VALUES (1), (2)",
            "SELECT sum(a) FROM made",
            "UPDATE made SET a = a + 1;",
            "-- gone\nDELETE FROM made WHERE a = 2 RETURNING a",
            "INSERT INTO plain (k) VALUES ('there') ON CONFLICT (k) DO UPDATE SET n = 9",
        ],
    )
    .await
    .unwrap();
    let told: Vec<_> = outcomes.iter().map(|outcome| (outcome.rows_affected, outcome.last_insert_rowid)).collect();
    assert_eq!(told, [(0, None), (2, Some(2)), (0, None), (2, None), (1, None), (1, None)]);
    let rows = |index: usize| outcomes[index].returned.as_ref().map(|set| set.rows.clone());
    assert_eq!((rows(2), rows(4)), (Some(vec![vec![json!(3)]]), Some(vec![vec![json!(2)]])));
    assert_eq!(place.count("SELECT count(*) FROM made").await, 1);
}

#[tokio::test]
async fn what_a_batch_returns_is_bounded_together() {
    let place = Place::new(TABLES, |options| options.limits.max_result_bytes = 3_000);
    let row = "SELECT hex(zeroblob(500))";
    assert_eq!(batch(&place, &[row, row]).await.unwrap().len(), 2);
    let error = batch(&place, &[row, row, "DELETE FROM plain", row]).await.unwrap_err().to_string();
    assert!(error.contains("statement 4 of 4") && error.contains("larger than 3000 bytes together"), "{error}");
    assert_eq!(place.count("SELECT count(*) FROM plain").await, 1);
}

#[tokio::test]
async fn a_batch_of_which_one_fails_leaves_nothing_behind_and_costs_nobody_else_theirs() {
    for bad in [
        "INSERT INTO plain (id) VALUES (7)",
        "INSERT OR FAIL INTO plain (id) VALUES (50), (7)",
        "INSERT OR ROLLBACK INTO plain (id) VALUES (7)",
        "INSERT INTO nowhere VALUES (1)",
        "SELECT 1; SELECT 2",
        "DROP TABLE plain",
        "ATTACH 'other.db' AS other",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE statement",
        "ROLLBACK TO statement",
        "",
        "SELECT ?",
    ] {
        let place = Place::new(TABLES, |_| {});
        let error = batch(
            &place,
            &["INSERT INTO other (k) VALUES ('a')", "CREATE TABLE made (a)", bad, "INSERT INTO other (k) VALUES ('b')"],
        )
        .await;
        assert!(matches!(error, Err(DbError::InBatch { number: 3, of: 4, .. } | DbError::Sqlite(_))), "{bad}: {error:?}");
        assert_eq!(place.count("SELECT count(*) FROM other").await, 0, "{bad}");
        assert_eq!(place.count("SELECT count(*) FROM plain").await, 1, "{bad}");
        assert_eq!(place.count("SELECT count(*) FROM sqlite_schema WHERE name = 'made'").await, 0, "{bad}");
        batch(&place, &["INSERT INTO other (k) VALUES ('a')"]).await.unwrap();
    }
    let place = Place::new(TABLES, |_| {});
    assert!(matches!(batch(&place, &[]).await, Err(DbError::Parameters(_))));
}

const FAMILY: &str = "
    CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE bare (id TEXT PRIMARY KEY, parent INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID;
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1);";

#[tokio::test]
async fn a_deferred_foreign_key_is_judged_with_its_own_statement() {
    for (first, second, expected) in [
        ("INSERT INTO child VALUES (2, 99)", "INSERT INTO parent VALUES (99)", [false, true]),
        ("INSERT INTO bare VALUES ('b', 99)", "INSERT INTO parent VALUES (99)", [false, true]),
        ("DELETE FROM parent WHERE id = 1", "INSERT INTO parent VALUES (1)", [false, false]),
        ("UPDATE child SET parent = 99", "INSERT INTO parent VALUES (99)", [false, true]),
        ("INSERT INTO parent VALUES (99)", "INSERT INTO child VALUES (2, 99)", [true, true]),
    ] {
        let place = Place::new(FAMILY, |_| {});
        let results = place.together(&["INSERT INTO parent VALUES (50)", first, second, "INSERT INTO parent VALUES (51)"]).await;
        let ok: Vec<_> = results.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [true, expected[0], expected[1], true], "{first}: {results:?}");
    }
}

#[tokio::test]
async fn a_batch_may_bring_the_parent_after_the_child() {
    let place = Place::new(FAMILY, |_| {});
    batch(&place, &["INSERT INTO child VALUES (2, 99)", "INSERT INTO parent VALUES (99)"]).await.unwrap();
    assert!(batch(&place, &["INSERT INTO child VALUES (3, 77)", "INSERT INTO parent VALUES (78)"]).await.is_err());
    assert_eq!(place.count("SELECT count(*) FROM child").await, 2);
}

#[tokio::test]
async fn those_beside_a_statement_out_of_time_keep_the_time_they_had() {
    let place = Place::new(TABLES, |options| options.limits.statement_timeout = Duration::from_secs(2));
    let endless = format!("INSERT INTO other (k) {ENDLESS}");
    let inserts: Vec<_> = (0..20).map(|n| format!("INSERT INTO other (k) VALUES ('{n}')")).collect();
    let mut sql: Vec<&str> = inserts.iter().map(String::as_str).collect();
    sql.push(&endless);
    let started = std::time::Instant::now();
    let results = place.together(&sql).await;
    assert!(results.iter().enumerate().all(|(index, result)| result.is_ok() == (index < 20)), "{results:?}");
    assert!(started.elapsed() < Duration::from_millis(3900), "the endless one costs its time once: {:?}", started.elapsed());
    let stats = place.db.writer_stats();
    assert_eq!(stats.replays.load(Ordering::Relaxed), 1);
    assert!(stats.commits.load(Ordering::Relaxed) <= 4, "the others are committed together");
}

#[tokio::test]
async fn a_table_without_a_number_left_is_told_from_a_full_disk() {
    let place = Place::new(TABLES, |_| {});
    let last = place.change("INSERT INTO counted (id) VALUES (9223372036854775807)").await.unwrap();
    assert_eq!(last.last_insert_rowid, Some(i64::MAX));
    let error = place.change("INSERT INTO counted (k) VALUES ('one more')").await.unwrap_err();
    assert!(matches!(&error, DbError::NoNumberLeft(table) if table == "counted"), "{error}");
    assert!(!place.db.writer_stats().disk_full.load(Ordering::Relaxed));
    // Without AUTOINCREMENT SQLite looks for a number that is free.
    place.change("INSERT INTO plain (id) VALUES (9223372036854775807)").await.unwrap();
    assert!(place.change("INSERT INTO plain (k) VALUES ('one more')").await.unwrap().last_insert_rowid.is_some());
}

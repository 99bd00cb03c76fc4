//! Files that other programs made: whatever SQLite took there, it reads here.

use super::*;

async fn ask(db: &Database, sql: &str) -> Result<Vec<Vec<serde_json::Value>>, DbError> {
    Ok(db.read(db.budget(), sql.into(), Parameters::None, None, None).await?.set.rows)
}

fn terms(count: usize, term: &str, between: &str) -> String {
    vec![term; count].join(between)
}

/// What is in the file, and a query of it with its answer.
#[allow(clippy::too_many_lines, reason = "a table is as long as it is")]
fn odd_files() -> Vec<(String, String, serde_json::Value)> {
    let columns = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
    let nested: String =
        (1..=130).map(|n| format!("CREATE VIEW v{n} AS SELECT a + 1 AS a FROM v{};", n - 1)).collect::<Vec<_>>().concat();
    let chain: String = (0..60)
        .map(|n| {
            format!(
                "CREATE TABLE k{n} (a); CREATE TRIGGER g{n} AFTER INSERT ON k{n} BEGIN INSERT INTO k{} VALUES (new.a); END;",
                n + 1
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let max = (0..120).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    [
        (format!("CREATE TABLE wide ({})", columns(600)), "SELECT count(*) FROM wide".to_owned(), json!([[0]])),
        (
            format!("CREATE TABLE wide ({}); INSERT INTO wide (c1999) VALUES (5)", columns(2000)),
            "SELECT c1999 FROM wide".into(),
            json!([[5]]),
        ),
        (format!("CREATE VIEW v AS SELECT {} AS a", terms(150, "'x'", " || ")), "SELECT length(a) FROM v".into(), json!([[150]])),
        (format!("CREATE VIEW v AS SELECT {} AS a", terms(900, "1", " + ")), "SELECT a FROM v".into(), json!([[900]])),
        (
            format!("CREATE VIEW v AS SELECT {}", (0..600).map(|n| format!("{n} AS c{n}")).collect::<Vec<_>>().join(", ")),
            "SELECT c599 FROM (SELECT * FROM v)".into(),
            json!([[599]]),
        ),
        (
            format!("CREATE VIEW v AS {}", terms(400, "SELECT 1 AS a", " UNION ALL ")),
            "SELECT sum(a) FROM v".into(),
            json!([[400]]),
        ),
        (
            format!("CREATE TABLE t ({}); CREATE INDEX i ON t ({})", columns(400), columns(400)),
            "SELECT count(*) FROM t".into(),
            json!([[0]]),
        ),
        (format!("CREATE VIEW v AS SELECT max({max}) AS a"), "SELECT a FROM v".into(), json!([[119]])),
        (format!("CREATE VIEW v0 AS SELECT 1 AS a; {nested}"), "SELECT a FROM v130".into(), json!([[131]])),
        (format!("{chain} CREATE TABLE k60 (a); INSERT INTO k0 VALUES (4)"), "SELECT a FROM k60".into(), json!([[4]])),
        (
            r#"CREATE TABLE t (a); INSERT INTO t VALUES ('x'); CREATE VIEW v AS SELECT a, "a string" AS b FROM t WHERE a = "x""#
                .into(),
            "SELECT * FROM v".into(),
            json!([["x", "a string"]]),
        ),
        (
            r#"CREATE TABLE t (a CHECK (a IN ("x", "y"))); INSERT INTO t VALUES ("x"); CREATE INDEX i ON t (a) WHERE a <> "y""#
                .into(),
            "SELECT a FROM t".into(),
            json!([["x"]]),
        ),
        (
            "CREATE TABLE b (b); INSERT INTO b VALUES (replace(hex(zeroblob(10000000)), '00', 'qq'))".into(),
            "SELECT hex(substr(b, 19999999, 2)) FROM b".into(),
            json!([["7171"]]),
        ),
        (
            "CREATE TABLE b (b, n); INSERT INTO b VALUES (zeroblob(20000000), 3)".into(),
            "SELECT length(b), n FROM b".into(),
            json!([[20_000_000, 3]]),
        ),
        (format!("CREATE TABLE t (a DEFAULT '{}')", "x".repeat(300_000)), "SELECT count(*) FROM t".into(), json!([[0]])),
        (
            "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (a); INSERT INTO t VALUES ('größe')".into(),
            "SELECT replace(a, 'ö', 'o'), instr(a, 'ß') FROM t".into(),
            json!([["große", 4]]),
        ),
        ("PRAGMA page_size = 512; CREATE TABLE t (a); INSERT INTO t VALUES (1)".into(), "SELECT a FROM t".into(), json!([[1]])),
        (
            "PRAGMA page_size = 65536; PRAGMA auto_vacuum = 1; CREATE TABLE t (a); INSERT INTO t VALUES (1)".into(),
            "SELECT a FROM t".into(),
            json!([[1]]),
        ),
        (
            "CREATE TABLE \"odd 'name\" (\"se\"\"lect\", [from]); INSERT INTO \"odd 'name\" VALUES (1, 2)".into(),
            "SELECT \"from\" FROM \"odd 'name\"".into(),
            json!([[2]]),
        ),
        (
            "CREATE TABLE t (v); CREATE INDEX i ON t (replace(v, 'a', 'b')); INSERT INTO t VALUES (CAST(x'e961' AS TEXT))".into(),
            "SELECT rowid FROM t WHERE replace(v, 'a', 'b') = CAST(x'e962' AS TEXT)".into(),
            json!([[1]]),
        ),
        (
            "CREATE TABLE t (v); CREATE INDEX i ON t (trim(v, 'é')); INSERT INTO t VALUES (CAST(x'c3a9e9' AS TEXT))".into(),
            "SELECT rowid FROM t WHERE trim(v, 'é') = CAST(x'e9' AS TEXT)".into(),
            json!([[1]]),
        ),
        (
            "CREATE VIRTUAL TABLE f USING fts4(a); INSERT INTO f VALUES ('old words')".into(),
            "SELECT a FROM f WHERE f MATCH 'words'".into(),
            json!([["old words"]]),
        ),
        (
            "CREATE TABLE t (a, b AS (a * 2) STORED, c AS (b + 1)) ; INSERT INTO t VALUES (4)".into(),
            "SELECT b, c FROM t".into(),
            json!([[8, 9]]),
        ),
        ("CREATE TABLE t (a); CREATE VIEW broken AS SELECT x FROM gone".into(), "SELECT count(*) FROM t".into(), json!([[0]])),
    ]
    .into()
}

fn write_file(path: &Path, schema: &str) {
    let outside = Connection::open(path).unwrap();
    outside.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, i32::MAX).unwrap();
    outside.execute_batch(schema).unwrap_or_else(|error| panic!("{}: {error}", &schema[..schema.len().min(200)]));
    outside.execute_batch("CREATE TABLE small (a); INSERT INTO small VALUES (1)").unwrap();
}

#[tokio::test]
async fn whatever_another_program_wrote_is_readable_at_every_time() {
    for (schema, query, expected) in odd_files() {
        let name = &schema[..schema.floor_char_boundary(schema.len().min(120))];
        for read_only in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.db");
            write_file(&path, &schema);
            let db =
                Database::open(OpenOptions { read_only, ..options(&path) }).unwrap_or_else(|error| panic!("{name}: {error}"));
            let same = async |when: &str| {
                let rows = ask(&db, &query).await.unwrap_or_else(|error| panic!("{name}, {when}: {error}"));
                assert_eq!(json!(rows), expected, "{name}, {when}");
                assert_eq!(json!(ask(&db, "SELECT a FROM small").await.unwrap()), json!([[1]]), "{name}, {when}");
                db.check().await.unwrap_or_else(|error| panic!("{name}, {when}: {error}"));
                db.inspect(db.budget(), schema::tables).await.unwrap();
            };
            same("at first").await;
            if !read_only {
                db.write(db.budget(), command("CREATE TABLE ours (a)", Takes::Schema))
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                db.write(db.budget(), change("INSERT INTO ours VALUES (1)"))
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                same("after our change of the schema").await;
            }
            Connection::open(&path).unwrap().execute_batch("CREATE INDEX small_a ON small (a); CREATE TABLE theirs (a)").unwrap();
            same("after another program's").await;
            assert_eq!(json!(ask(&db, "SELECT count(*) FROM theirs").await.unwrap()), json!([[0]]), "{name}");
            if !read_only {
                db.write(db.budget(), change("INSERT INTO small VALUES (2)"))
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                db.write(db.budget(), change("DELETE FROM small WHERE a = 2")).await.unwrap();
                same("after a write").await;
            }
            db.close();
        }
    }
}

#[tokio::test]
async fn rows_that_are_larger_than_new_values_may_be_can_be_changed() {
    let place = Place::new("CREATE TABLE b (b, n); INSERT INTO b VALUES (zeroblob(3000000), 3)", |options| {
        options.limits.max_value_bytes = 1 << 20;
    });
    place.change("UPDATE b SET n = 4").await.unwrap();
    assert_eq!(place.count("SELECT length(b) + n FROM b").await, 3_000_004);
    // A new value is held to the limit, as long as no file is larger.
    let place = Place::new("CREATE TABLE b (b)", |options| options.limits.max_value_bytes = 1 << 20);
    assert!(place.change("INSERT INTO b VALUES (zeroblob(2000000))").await.is_err());
}

#[tokio::test]
async fn a_trigger_of_another_program_with_strings_in_double_quotes_runs_and_our_statements_are_still_told() {
    let schema = r#"CREATE TABLE t (a); CREATE TABLE log (what);
        CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES ("inserted"); END"#;
    let place = Place::new(schema, |_| {});
    place.change("INSERT INTO t VALUES (1)").await.unwrap();
    place.change("INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM log WHERE what = 'inserted'").await, 2);
    let error = place.change(r#"INSERT INTO t VALUES ("mine")"#).await.unwrap_err().to_string();
    assert!(error.contains("no such column"), "{error}");
    let error = place.db.read(place.db.budget(), r#"SELECT "mine""#.into(), Parameters::None, None, None).await.unwrap_err();
    assert!(error.to_string().contains("no such column"), "{error}");
}

#[test]
fn damage_is_said_only_after_a_failed_integrity_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.db");
    write_file(&path, "CREATE TABLE t (a)");
    let intact = OpenError::Corrupt(path.clone(), "malformed database schema".into()).confirmed();
    assert!(matches!(intact, OpenError::Unreadable(..)), "{intact}");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let torn = OpenError::Corrupt(path, "malformed".into()).confirmed();
    assert!(matches!(torn, OpenError::Corrupt(..)), "{torn}");
}

#[test]
fn nothing_is_created_when_it_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    assert!(matches!(Database::open(OpenOptions { create: false, ..options(&path) }), Err(OpenError::Missing(_))));
    assert!(!path.exists());
}

/// A folder counts as one that cannot be written when the file that is made to try it is there already.
fn pretend_read_only(path: &Path) {
    std::fs::write(path.with_file_name(format!("x.db-probe-{}", std::process::id())), "").unwrap();
}

#[tokio::test]
async fn a_read_only_volume_shows_what_another_pod_writes_to_it() {
    for mode in ["WAL", "DELETE"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t (a)")).unwrap();
        pretend_read_only(&path);
        let reader = Database::open(OpenOptions { read_only: true, ..options(&path) }).unwrap();
        let mut written = 0;
        for _ in 0..3 {
            assert_eq!(
                json!(ask(&reader, "SELECT count(*) FROM t").await.unwrap()),
                json!([[written]]),
                "{mode}, between two writers"
            );
            let writer = Connection::open(&path).unwrap();
            for size in [10, 100_000, 3_000_000] {
                writer.execute("INSERT INTO t VALUES (zeroblob(?1))", [size]).unwrap();
                written += 1;
                assert_eq!(json!(ask(&reader, "SELECT count(*) FROM t").await.unwrap()), json!([[written]]), "{mode}");
                assert_eq!(json!(ask(&reader, "PRAGMA integrity_check").await.unwrap()), json!([["ok"]]), "{mode}");
            }
            writer.execute_batch("CREATE TABLE IF NOT EXISTS more (a); VACUUM").unwrap();
            assert_eq!(json!(ask(&reader, "SELECT count(*) FROM more").await.unwrap()), json!([[0]]), "{mode}");
        }
        reader.close();
    }
}

/// These prepare statements that write when a connection first meets them.
#[tokio::test]
async fn virtual_tables_are_read_by_what_only_reads() {
    let schema = "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1); INSERT INTO box VALUES (1, 0, 5)";
    for read_only in [false, true] {
        let place = Place::new(schema, |options| (options.readers, options.read_only) = (1, read_only));
        for round in ["at first", "after a change of the schema"] {
            assert_eq!(json!(ask(&place.db, "SELECT id, x1 FROM box WHERE x0 < 3").await.unwrap()), json!([[1, 5.0]]), "{round}");
            place.outside().execute_batch("CREATE TABLE IF NOT EXISTS more (a)").unwrap();
            assert_eq!(json!(ask(&place.db, "PRAGMA quick_check(1)").await.unwrap()), json!([["ok"]]), "{round}");
        }
        let error = ask(&place.db, "DELETE FROM box").await.unwrap_err();
        assert!(matches!(error, DbError::Changes), "{error}");
    }
    let place = Place::new("CREATE TABLE t (a)", |_| {});
    place.db.write(place.db.budget(), command("CREATE VIRTUAL TABLE shape USING geopoly(n)", Takes::Schema)).await.unwrap();
    place.change("INSERT INTO shape (_shape, n) VALUES ('[[0,0],[1,0],[1,1],[0,1],[0,0]]', 'square')").await.unwrap();
    assert_eq!(json!(ask(&place.db, "SELECT n, geopoly_area(_shape) FROM shape").await.unwrap()), json!([["square", 1.0]]));
}

#[tokio::test]
async fn what_sqlite_cannot_use_is_described_by_its_sql() {
    let place = Place::new("CREATE TABLE t (a); CREATE VIEW v AS SELECT unknown(a) FROM t", |_| {});
    place
        .outside()
        .execute_batch(
            "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('table', 'vec', 'vec', 0, 'CREATE VIRTUAL TABLE vec USING vec0(e)')",
        )
        .unwrap();
    for (name, part) in [("v", "unknown(a)"), ("vec", "vec0")] {
        let found = place.db.inspect(place.db.budget(), move |conn| schema::describe(conn, name)).await.unwrap();
        assert!(found.columns.is_empty() && found.sql.unwrap().contains(part), "{name}");
    }
}

#[test]
fn a_file_that_was_left_in_a_transaction_is_told_from_a_volume_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("x.db"), folder.path().join("copy.db"));
    let outside = Connection::open(&path).unwrap();
    outside.execute_batch("CREATE TABLE t (a); PRAGMA cache_size = 1; BEGIN").unwrap();
    for _ in 0..100 {
        outside.execute("INSERT INTO t VALUES (zeroblob(4000))", []).unwrap();
    }
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(folder.path().join("x.db-journal"), folder.path().join("copy.db-journal")).unwrap();
    let error = Database::open(OpenOptions { read_only: true, ..options(&copy) }).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Unfinished(_)), "{error}");
    // Whoever may write undoes it.
    let db = Database::open(options(&copy)).unwrap();
    db.close();
    let rows: i64 = Connection::open(&copy).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

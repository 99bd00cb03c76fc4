//! Statements as they are sent: what SQLite takes elsewhere, it takes here.

use super::*;

#[tokio::test]
async fn statements_that_models_write_are_answered() {
    let arguments = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let place = Place::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT); INSERT INTO t VALUES (1, 'größe'), (2, 'klein'), (3, '统计数据')",
        |_| {},
    );
    let chinese = "统".repeat(43);
    for (sql, expected) in [
        ("SELECT sqrt(4), pow(2, 10), ceil(1.2), floor(1.8), mod(7, 3)".to_owned(), json!([[2.0, 1024.0, 2.0, 1.0, 1.0]])),
        ("SELECT round(ln(10) * 100), round(log10(1000), 6), round(log2(8), 6), round(pi() * 100), sign(-3), trunc(1.7), degrees(0), exp(0)".into(), json!([[230.0, 3.0, 3.0, 314.0, -1, 1.0, 0.0, 1.0]])),
        ("SELECT median(id), percentile(id, 50), percentile_cont(id, 0.5), percentile_disc(id, 0.5) FROM t".into(), json!([[2.0, 2.0, 2.0, 2.0]])),
        ("SELECT id FROM t WHERE s REGEXP '^gr.+e$'".into(), json!([[1]])),
        ("SELECT count(*) FROM t WHERE s REGEXP 'a|k' ".into(), json!([[1]])),
        ("SELECT geopoly_area('[[0,0],[1,0],[1,1],[0,1],[0,0]]')".into(), json!([[1.0]])),
        (format!("SELECT max({})", arguments(1000)), json!([[999]])),
        (format!("SELECT {}", vec!["1"; 999].join(" + ")), json!([[999]])),
        (format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400)), json!([[1]])),
        (format!("SELECT count(*) FROM ({})", vec!["SELECT 1"; 500].join(" UNION ALL ")), json!([[500]])),
        (format!("SELECT '{chinese}' LIKE '%{chinese}%'"), json!([[1]])),
        (format!("SELECT '{0}' LIKE '%{0}%', '{0}' GLOB '*{0}'", "x".repeat(9000)), json!([[1, 1]])),
        (";SELECT 1;".into(), json!([[1]])),
        ("\u{feff}SELECT 1 -- one".into(), json!([[1]])),
        ("/* a */ SELECT 1; /* b */ -- c".into(), json!([[1]])),
        ("WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS y FROM a) SELECT y FROM b".into(), json!([[2]])),
        ("VALUES (1), (2)".into(), json!([[1], [2]])),
        ("SELECT s, row_number() OVER (ORDER BY id DESC) FROM t WHERE id = 2".into(), json!([["klein", 1]])),
        ("SELECT '{\"a\":[1,2]}' ->> '$.a[1]', json_extract('{\"b\":3}', '$.b')".into(), json!([[2, 3]])),
        ("SELECT iif(1, 'y', 'n'), concat_ws('-', 1, 2), format('%05d', 42), strftime('%Y', '2024-05-06')".into(), json!([["y", "1-2", "00042", "2024"]])),
        ("SELECT group_concat(s, ',' ORDER BY id DESC) FILTER (WHERE id < 3) FROM t".into(), json!([["klein,größe"]])),
    ] {
        let page = place.db.read(place.db.budget(), sql.clone(), Parameters::None, None, None).await;
        let rows = page.unwrap_or_else(|error| panic!("{sql}: {error}")).set.rows;
        assert_eq!(json!(rows), expected, "{sql}");
    }
    let many = Parameters::Positional((0..32_766).map(rusqlite::types::Value::Integer).collect());
    let sql = format!("SELECT count(*) FROM t WHERE id IN ({})", vec!["?"; 32_766].join(","));
    assert_eq!(place.db.read(place.db.budget(), sql, many, None, None).await.unwrap().set.rows, [[json!(3)]]);
}

#[tokio::test]
async fn explain_is_answered_by_the_tool_that_reads_and_runs_nothing() {
    let place = Place::new(TABLE, |_| {});
    for sql in [
        "EXPLAIN DELETE FROM t",
        "EXPLAIN QUERY PLAN INSERT INTO t (v) VALUES (1)",
        "explain query plan SELECT * FROM t",
        "EXPLAIN CREATE TABLE x (a)",
    ] {
        let page = place.db.read(place.db.budget(), sql.into(), Parameters::None, None, None).await;
        assert!(page.is_ok(), "{sql}: {page:?}");
    }
    for sql in [
        "SELECT * FROM t",
        "EXPLAIN SELECT * FROM t;",
        "-- why\nEXPLAIN QUERY PLAN SELECT * FROM t",
        ";SELECT * FROM t WHERE id = ?",
        "CREATE INDEX i ON t (v)",
    ] {
        let plan = place.db.explain(place.db.budget(), sql.into()).await;
        assert!(plan.is_ok(), "{sql}: {plan:?}");
    }
    assert!(place.db.explain(place.db.budget(), "EXPLAIN".into()).await.is_err());
}

#[tokio::test]
async fn the_place_of_a_mistake_is_that_in_the_text_as_it_was_sent() {
    let place = Place::new(TABLE, |_| {});
    let offset = |error: DbError| match error {
        DbError::Sqlite(rusqlite::Error::SqlInputError { offset, .. }) => offset,
        other => panic!("{other:?}"),
    };
    for sql in ["SELECT nope FROM t", "  \n SELECT nope FROM t", "\t/* a */SELECT nope FROM t"] {
        let expected = i32::try_from(sql.find("nope").unwrap()).unwrap();
        let error = place.db.read(place.db.budget(), sql.into(), Parameters::None, None, None).await.unwrap_err();
        assert_eq!(offset(error), expected, "{sql}");
        for prefix in ["", "EXPLAIN QUERY PLAN ", " explain "] {
            let sql = format!("{prefix}{sql}");
            let error = place.db.explain(place.db.budget(), sql.clone()).await.unwrap_err();
            assert_eq!(offset(error), expected + i32::try_from(prefix.len()).unwrap(), "{sql}");
        }
    }
}

#[tokio::test]
async fn triggers_reach_as_far_as_elsewhere() {
    let chain: String = (0..60)
        .map(|n| {
            format!(
                "CREATE TABLE k{n} (a); CREATE TRIGGER g{n} AFTER INSERT ON k{n} BEGIN INSERT INTO k{} VALUES (new.a); END;",
                n + 1
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let place = Place::new(&format!("{chain} CREATE TABLE k60 (a)"), |_| {});
    place.change("INSERT INTO k0 VALUES (4)").await.unwrap();
    assert_eq!(place.count("SELECT a FROM k60").await, 4);
}

#[tokio::test]
async fn cascades_are_as_deep_as_elsewhere() {
    let place =
        Place::new("CREATE TABLE node (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES node(id) ON DELETE CASCADE)", |_| {});
    place.change("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) INSERT INTO node SELECT i, nullif(i - 1, 0) FROM n").await.unwrap();
    place.change("DELETE FROM node WHERE id = 1").await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM node").await, 0);
}

/// `UPDATE_FUNCTIONS=1` writes the list anew; look at what was added before it is committed.
#[test]
fn the_list_of_functions_is_that_of_the_build() {
    let session = open::in_memory();
    let mut ask = session.conn.prepare("SELECT DISTINCT lower(name) FROM pragma_function_list ORDER BY 1").unwrap();
    let names: Vec<String> = ask.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let allowed: String =
        names.iter().filter(|name| !authorizer::is_refused(name)).map(|name| format!("{name}\n")).collect::<Vec<_>>().concat();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/db/functions.txt");
    if std::env::var_os("UPDATE_FUNCTIONS").is_some() {
        std::fs::write(file, &allowed).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), allowed, "run this test once with UPDATE_FUNCTIONS=1");
}

#[tokio::test]
async fn the_schema_can_be_changed_as_far_as_its_mode_goes() {
    let statements = [
        "CREATE TABLE made (a)",
        "CREATE UNIQUE INDEX made_a ON made (a)",
        "CREATE VIEW made_v AS SELECT a FROM made",
        "CREATE VIRTUAL TABLE made_f USING fts5(a)",
        "ALTER TABLE made ADD COLUMN b",
        "ALTER TABLE made RENAME COLUMN b TO c",
        "ALTER TABLE made RENAME TO renamed",
        "CREATE TRIGGER made_g AFTER INSERT ON renamed BEGIN INSERT INTO log VALUES (new.a); END",
        "INSERT INTO renamed (a) VALUES (1)",
        "ANALYZE",
        "REINDEX",
        "DROP TRIGGER made_g",
        "DROP VIEW made_v",
        "DROP INDEX made_a",
        "ALTER TABLE renamed DROP COLUMN c",
        "DROP TABLE renamed",
        "DROP TABLE made_f",
        "VACUUM",
    ];
    for (mode, taken) in [(SchemaMode::None, 0), (SchemaMode::Add, 4), (SchemaMode::Full, statements.len())] {
        let place = Place::new("CREATE TABLE log (a); CREATE TABLE keep (a); INSERT INTO keep VALUES (1)", |options| {
            options.schema = mode;
        });
        for (index, sql) in statements.iter().enumerate() {
            let result = place.db.write(place.db.budget(), command(sql, Takes::Anything)).await;
            assert_eq!(result.is_ok(), index < taken, "{mode:?} {sql}: {result:?}");
        }
        assert_eq!(place.count("SELECT count(*) FROM log").await, i64::from(mode == SchemaMode::Full));
        for sql in [
            "VACUUM INTO 'copy.db'",
            "ATTACH 'x.db' AS x",
            "DETACH main",
            "CREATE TEMP TABLE t (a)",
            "CREATE TEMP TRIGGER g AFTER INSERT ON keep BEGIN SELECT 1; END",
            "CREATE TABLE sqlite_evil (a)",
            "CREATE VIRTUAL TABLE d USING dbstat(main)",
            "DROP TABLE sqlite_schema",
            "DROP TABLE _mcp_insights",
            "ALTER TABLE sqlite_schema RENAME TO x",
            "UPDATE sqlite_schema SET sql = ''",
            "CREATE TABLE e AS SELECT load_extension('x')",
            "CREATE TRIGGER g AFTER INSERT ON keep BEGIN SELECT load_extension('x'); INSERT INTO gone VALUES (1); END; DROP TABLE keep",
            "PRAGMA writable_schema = 1",
        ] {
            assert!(place.db.write(place.db.budget(), command(sql, Takes::Anything)).await.is_err(), "{mode:?} {sql}");
        }
        assert_eq!(place.count("SELECT count(*) FROM keep").await, 1);
    }
}

#[tokio::test]
async fn pragmas_that_report_are_read_even_where_they_could_write() {
    let place = Place::new("CREATE TABLE t (a)", |_| {});
    let ask = async |sql: &str| place.db.read(place.db.budget(), sql.into(), Parameters::None, None, None).await;
    assert_eq!(json!(ask("PRAGMA journal_mode").await.unwrap().set.rows), json!([["wal"]]));
    assert!(matches!(ask("PRAGMA journal_mode = DELETE").await, Err(DbError::Denied(_))));
}

#[tokio::test]
async fn what_nobody_could_use_is_not_created_and_what_may_be_used_later_is() {
    let place = Place::new("CREATE TABLE t (a, b AS (a + 1)); CREATE VIEW v AS SELECT a FROM t", |options| {
        options.schema = SchemaMode::Full;
    });
    let create = async |sql: &str| place.db.write(place.db.budget(), command(sql, Takes::Schema)).await;
    place.db.write(place.db.budget(), Command::Insight("seen".into())).await.unwrap();
    for sql in [
        "CREATE VIEW w AS SELECT load_extension(a) FROM t",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT load_extension(new.a); END",
        "CREATE TRIGGER g AFTER UPDATE OF a ON t WHEN load_extension(new.a) BEGIN SELECT 1; END",
        "CREATE TRIGGER g BEFORE DELETE ON t BEGIN DELETE FROM _mcp_insights; END",
        "CREATE TRIGGER g INSTEAD OF DELETE ON v BEGIN DELETE FROM sqlite_schema; END",
    ] {
        let created = create(sql).await;
        assert!(matches!(created, Err(DbError::Denied(_))), "{sql}: {created:?}");
    }
    assert_eq!(place.count("SELECT count(*) FROM sqlite_schema").await, 3);
    for sql in [
        "CREATE VIEW later AS SELECT a FROM not_yet",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO not_yet VALUES (new.a); END",
        "CREATE TRIGGER h INSTEAD OF UPDATE ON v BEGIN UPDATE t SET a = new.a WHERE a = old.a; END",
        "CREATE VIEW IF NOT EXISTS v AS SELECT load_extension(a) FROM t",
    ] {
        create(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

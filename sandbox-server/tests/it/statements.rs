//! What a model, or somebody behind it, may try, as data: add whatever was seen to get through anywhere. escapes.rs holds the server to it,
//! and fuzzing begins with it.

pub const SCHEMA: &str = "
    CREATE TABLE canary (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL, parent INTEGER REFERENCES canary(id) DEFERRABLE INITIALLY DEFERRED);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO canary (id, name) SELECT i, 'bird ' || i FROM n;
    CREATE VIEW birds AS SELECT name FROM canary;
    CREATE INDEX canary_parent ON canary (parent);
    CREATE TABLE audit (what TEXT);
    CREATE TRIGGER canary_gone AFTER DELETE ON canary BEGIN INSERT INTO audit VALUES (old.name); END;
    CREATE VIRTUAL TABLE docs USING fts5(body);
    INSERT INTO docs VALUES ('the quick brown fox'), ('the lazy dog');
    PRAGMA user_version = 7;
";

/// Must be refused by every tool that runs statements.
pub const REFUSED: &[&str] = &[
    // Other files.
    "ATTACH 'other.db' AS other",
    "ATTACH DATABASE '/tmp/other.db' AS other",
    "attach ':memory:' as m",
    "ATTACH '' AS t",
    "ATTACH 'file:other.db?mode=rwc' AS other",
    "/* hi */ ATTACH /**/ 'other.db' AS other -- there",
    "ATTACH (SELECT 'other.db') AS other",
    "DETACH main",
    "DETACH DATABASE temp",
    "VACUUM INTO 'copy.db'",
    "VACUUM main INTO '/tmp/copy.db'",
    "vacuum into (select 'copy.db')",
    // Settings.
    "PRAGMA writable_schema = 1",
    "PRAGMA writable_schema = ON",
    "PRAGMA writable_schema = RESET",
    "PRAGMA main.writable_schema(1)",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode = OFF",
    "PRAGMA journal_mode(MEMORY)",
    "PRAGMA synchronous = OFF",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA user_version = 99",
    "PRAGMA application_id = 99",
    "PRAGMA schema_version = 99",
    "PRAGMA query_only = 0",
    "PRAGMA trusted_schema = 1",
    "PRAGMA cell_size_check = 0",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA temp_store = FILE",
    "PRAGMA data_store_directory = '/tmp'",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_checkpoint",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA mmap_size = 1000000000",
    "PRAGMA page_size = 65536",
    "PRAGMA auto_vacuum = FULL",
    "PRAGMA incremental_vacuum",
    "PRAGMA secure_delete = 0",
    "PRAGMA cache_size = -1000000",
    "PRAGMA cache_spill = 0",
    "PRAGMA hard_heap_limit = 0",
    "PRAGMA soft_heap_limit = 1",
    "PRAGMA max_page_count = 1",
    "PRAGMA recursive_triggers = 1",
    "PRAGMA legacy_alter_table = 1",
    "PRAGMA ignore_check_constraints = 1",
    "PRAGMA defer_foreign_keys = 1",
    "PRAGMA optimize",
    "PRAGMA shrink_memory",
    "PRAGMA busy_timeout = 0",
    "PRAGMA case_sensitive_like = 1",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA threads = 8",
    "PRAGMA analysis_limit = 1",
    "PRAGMA automatic_index = 0",
    "PRAGMA reverse_unordered_selects = 1",
    "PRAGMA read_uncommitted = 1",
    "PRAGMA journal_size_limit = 0",
    "PRAGMA checkpoint_fullfsync = 0",
    "PRAGMA database_list",
    "PRAGMA lock_status",
    "PRAGMA stats",
    "PRAGMA key = 'x'",
    "PRAGMA no_such_pragma = 1",
    "SELECT * FROM pragma_database_list",
    // Transactions of the caller's own.
    "BEGIN",
    "BEGIN IMMEDIATE",
    "BEGIN EXCLUSIVE TRANSACTION",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "ROLLBACK TO s",
    // Two statements.
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE canary",
    "SELECT 1; DELETE FROM canary",
    "SELECT 1;;;DELETE FROM canary",
    "SELECT 1; -- x\nDELETE FROM canary",
    "SELECT 1; /* x */ ATTACH 'other.db' AS o",
    "INSERT INTO audit VALUES ('a'); DROP TABLE canary",
    "INSERT INTO audit VALUES ('a'); INSERT INTO audit VALUES ('b')",
    "CREATE TABLE one (a); CREATE TABLE two (a)",
    "; ; SELECT 1; DELETE FROM canary",
    "SELECT 1\0; DELETE FROM canary",
    "SELECT 'a\0b'",
    // The schema by hand.
    "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 2, 'CREATE TABLE x (a)')",
    "UPDATE sqlite_master SET sql = 'CREATE TABLE canary (x)'",
    "UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'audit'",
    "UPDATE main.sqlite_schema SET name = 'x'",
    "UPDATE \"SQLITE_MASTER\" SET name = 'x'",
    "DELETE FROM sqlite_master",
    "DELETE FROM [sqlite_schema] WHERE 1",
    "DELETE FROM sqlite_temp_master",
    "WITH x AS (SELECT 1) DELETE FROM sqlite_schema",
    "REPLACE INTO sqlite_schema (type) VALUES ('table')",
    "INSERT INTO sqlite_stat1 VALUES ('canary', NULL, '1')",
    "DROP TABLE sqlite_sequence",
    "DROP TABLE sqlite_schema",
    "ALTER TABLE sqlite_schema RENAME TO x",
    "ALTER TABLE sqlite_sequence ADD COLUMN x",
    "DROP INDEX sqlite_autoindex_canary_1",
    "CREATE TABLE sqlite_evil (a)",
    "CREATE TABLE main.sqlite_stat1 (tbl, idx, stat)",
    "CREATE INDEX i ON sqlite_schema (name)",
    // What would outlive the call on a shared connection, or run in other people's statements.
    "CREATE TEMP TABLE t (a)",
    "CREATE TEMPORARY TABLE t AS SELECT * FROM canary",
    "CREATE TABLE temp.t (a)",
    "CREATE TEMP VIEW canary AS SELECT 1",
    "CREATE TEMP TRIGGER t AFTER INSERT ON canary BEGIN DELETE FROM canary; END",
    "CREATE TRIGGER temp.t AFTER INSERT ON canary BEGIN DELETE FROM canary; END",
    "CREATE TRIGGER t AFTER INSERT ON _mcp_insights BEGIN DELETE FROM canary; END",
    "CREATE TRIGGER t AFTER INSERT ON sqlite_schema BEGIN DELETE FROM canary; END",
    "CREATE TRIGGER t AFTER INSERT ON docs_data BEGIN DELETE FROM canary; END",
    "CREATE VIRTUAL TABLE temp.v USING fts5(a)",
    // Modules that read files or raw pages.
    "CREATE VIRTUAL TABLE v USING csv(filename = '/etc/passwd')",
    "CREATE VIRTUAL TABLE v USING fts3(a)",
    "CREATE VIRTUAL TABLE v USING fts4(a, tokenize = simple)",
    "CREATE VIRTUAL TABLE v USING dbstat(main)",
    "CREATE VIRTUAL TABLE v USING fsdir('/')",
    "CREATE VIRTUAL TABLE v USING zipfile('/tmp/x.zip')",
    "CREATE VIRTUAL TABLE v USING sqlite_dbpage(main)",
    "CREATE VIRTUAL TABLE v USING swarmvtab('SELECT 1')",
    "CREATE VIRTUAL TABLE v USING no_such_module(a)",
    "CREATE VIRTUAL TABLE canary USING fts5(a)",
    "SELECT * FROM sqlite_dbpage",
    "UPDATE sqlite_dbpage SET data = zeroblob(4096)",
    "SELECT * FROM fsdir('/')",
    // Functions that reach outside.
    "SELECT load_extension('evil.so')",
    "SELECT load_extension('evil.so', 'entry')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/escaped', 'x')",
    "SELECT edit('x', 'vi')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT fts3_tokenizer('evil', x'4141414141414141')",
    "SELECT hex(fts3_tokenizer('simple'))",
    "SELECT sqlite_log(1, 'x')",
    "SELECT eval('DELETE FROM canary')",
    "SELECT system('id')",
    "SELECT * FROM canary WHERE load_extension(name)",
    "INSERT INTO audit SELECT load_extension('evil.so')",
    "INSERT INTO audit VALUES (readfile('/etc/passwd'))",
    "CREATE TABLE t AS SELECT load_extension('evil.so')",
    "CREATE TABLE t (a, b AS (load_extension(a)))",
    "CREATE INDEX i ON audit (load_extension(what))",
    "CREATE VIEW v AS SELECT load_extension('evil.so')",
    "CREATE VIEW v AS WITH x AS (SELECT name FROM canary WHERE fts3_tokenizer(name)) SELECT * FROM x",
    "CREATE VIEW IF NOT EXISTS main.v (a) AS SELECT (SELECT sqlite_log(1, name) FROM canary)",
    "CREATE TRIGGER t AFTER INSERT ON audit BEGIN SELECT load_extension('evil.so'); END",
    "CREATE TRIGGER t BEFORE UPDATE OF what ON audit WHEN load_extension(new.what) BEGIN SELECT 1; END",
    "CREATE TRIGGER t AFTER DELETE ON audit BEGIN INSERT INTO audit SELECT load_extension(old.what); END",
    "CREATE TRIGGER t INSTEAD OF INSERT ON birds BEGIN SELECT fts3_tokenizer('simple'); END",
    "CREATE TRIGGER t AFTER INSERT ON audit BEGIN UPDATE sqlite_schema SET sql = 'x'; END",
    "CREATE VIEW v AS SELECT * FROM pragma_database_list",
    "CREATE TABLE t (a DEFAULT (load_extension('evil.so')), b)",
    "CREATE TABLE t (a CHECK (load_extension(a)))",
    "CREATE TABLE t (a, b GENERATED ALWAYS AS (fts3_tokenizer(a)) STORED)",
    "CREATE UNIQUE INDEX i ON audit (what) WHERE load_extension(what)",
    "CREATE VIRTUAL TABLE v USING fts5vocab('temp', 'docs', 'row')",
    "CREATE VIRTUAL TABLE v USING unionvtab('SELECT 1')",
    "CREATE VIRTUAL TABLE v USING json_each",
    "CREATE VIRTUAL TABLE v USING pragma_database_list",
    "CREATE VIRTUAL TABLE v USING dbstat",
    "CREATE VIRTUAL TABLE v USING bytecode('SELECT 1')",
    "SELECT * FROM pragma_module_list",
    "SELECT * FROM pragma_writable_schema",
    "SELECT * FROM pragma_temp_store_directory",
    "SELECT * FROM tables_used('SELECT 1')",
    "SELECT * FROM completion('SEL')",
    "SELECT load_extension('evil.so') FROM canary ORDER BY load_extension(name)",
    "SELECT name FROM canary GROUP BY name HAVING load_extension(name)",
    "INSERT INTO audit VALUES ('x') RETURNING load_extension(what)",
    "INSERT INTO canary (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = load_extension(excluded.name)",
    "UPDATE audit SET what = writefile('/tmp/escaped', 'x')",
    ".shell id",
    ".read /etc/passwd",
    "\\! id",
    // The server's own table, and FTS5's.
    "INSERT INTO _mcp_insights (insight) VALUES ('x')",
    "DELETE FROM _mcp_insights",
    "CREATE TABLE _mcp_insights (id)",
    "CREATE TABLE _MCP_INSIGHTS (id)",
    "UPDATE docs_data SET block = x'00'",
    "DELETE FROM docs_content",
    "INSERT INTO docs_config VALUES ('version', 99)",
    "DROP TABLE docs_idx",
    "ALTER TABLE docs_data RENAME TO x",
    "DROP TABLE _mcp_insights",
    "ALTER TABLE _mcp_insights RENAME TO x",
    // Undoing others' work in the same group commit.
    "INSERT OR ROLLBACK INTO canary (id, name) VALUES (1, 'again')",
    "INSERT INTO canary (id, name, parent) VALUES (1000, 'orphan', 999999)",
    // Nothing at all.
    "",
    "   ",
    ";",
    "-- only a comment",
    "/* open",
    "SELEKT 1",
    "SELECT FROM WHERE",
];

/// Destroys or changes what is there: refused too, unless the server was started with `--schema full`.
pub const REFUSED_UNLESS_FULL: &[&str] = &[
    "VACUUM",
    "VACUUM main",
    "DROP TABLE canary",
    "DROP TABLE IF EXISTS canary",
    "DROP VIEW birds",
    "DROP INDEX canary_parent",
    "DROP TRIGGER canary_gone",
    "DROP TABLE docs",
    "ALTER TABLE canary RENAME TO dead",
    "ALTER TABLE canary ADD COLUMN x",
    "ALTER TABLE canary DROP COLUMN parent",
    "ALTER TABLE canary RENAME COLUMN name TO x",
    "REINDEX",
    "REINDEX canary",
    "ANALYZE",
    "ANALYZE canary",
    "CREATE TRIGGER t AFTER INSERT ON canary BEGIN DELETE FROM canary; END",
    "CREATE TRIGGER IF NOT EXISTS t INSTEAD OF INSERT ON birds BEGIN DELETE FROM canary; END",
];

/// May succeed, but only within the caps, and without a trace.
pub fn exhausting() -> Vec<String> {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let mut list: Vec<String> = [
        "SELECT i FROM n",
        "SELECT count(*) FROM n",
        "SELECT sum(i) FROM n",
        "SELECT i FROM n ORDER BY i DESC",
        "SELECT i FROM n ORDER BY random()",
        "SELECT DISTINCT i % 1000000007 FROM n",
        "SELECT group_concat(i) FROM n",
        "SELECT json_group_array(i) FROM n",
        "SELECT max(hex(randomblob(1000))) FROM n",
        "SELECT i, count(*) OVER (ORDER BY i) FROM n",
        "SELECT a.i FROM n a, n b",
        "SELECT count(*) FROM canary a, canary b, canary c, canary d, canary e, canary f, canary g",
        "SELECT i FROM n WHERE i < 0",
        "SELECT hex(zeroblob(100000)) FROM n",
        "SELECT randomblob(900000) FROM n",
        "SELECT * FROM n EXCEPT SELECT * FROM n",
        "SELECT * FROM n WHERE i IN (SELECT i FROM n)",
    ]
    .iter()
    .map(|select| format!("{endless} {select}"))
    .collect();
    list.extend(
        [
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT count(*) FROM n",
            "WITH RECURSIVE s(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM s) SELECT length(x) FROM s",
            "WITH RECURSIVE s(x) AS (SELECT zeroblob(10) UNION ALL SELECT zeroblob(length(x) * 2) FROM s) SELECT max(length(x)) FROM s",
            "SELECT zeroblob(2147483647)",
            "SELECT hex(zeroblob(1000000000))",
            "SELECT printf('%*d', 2000000000, 1)",
            "SELECT printf('%.2000000000f', 1.0)",
            "SELECT replace(hex(zeroblob(4000000)), '0', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')",
            "SELECT instr(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || 'x')",
            "SELECT length(trim(hex(zeroblob(4000000)), hex(randomblob(2000000)) || 'x'))",
            "SELECT length(replace(hex(zeroblob(4000000)), hex(zeroblob(1000000)) || 'x', ''))",
            "SELECT hex(zeroblob(500000)) LIKE '%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0x'",
            "SELECT hex(zeroblob(500000)) GLOB '*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0x'",
            "SELECT name LIKE hex(zeroblob(10000)) FROM canary",
            "SELECT json_extract('[' || replace(hex(zeroblob(2000)), '0', '[') , '$')",
            "SELECT json(replace(hex(zeroblob(1000000)), '0', '['))",
            "SELECT strftime(replace(hex(zeroblob(1000000)), '00', '%f'), 'now')",
            "SELECT unhex(hex(zeroblob(7000000)))",
            "SELECT unhex(replace(hex(zeroblob(200000)), '0', 'z'), replace(hex(zeroblob(200000)), '0', 'y') || 'z')",
            "SELECT hex(zeroblob(8000000)) LIKE '%' || substr(hex(zeroblob(60)), 1, 60) || '1%'",
            "SELECT hex(zeroblob(8000000)) GLOB '*' || substr(hex(zeroblob(60)), 1, 60) || '1*'",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 60000), o(a, b) AS (SELECT json_group_object('k' || i, i), json_group_object('m' || i, i) FROM n) SELECT length(json_patch(a, b)) FROM o",
            "SELECT char(1114112, -1, 0)",
            "SELECT sum(9223372036854775807) FROM canary",
            "SELECT abs(-9223372036854775808)",
            "SELECT group_concat(a.name) FROM canary a, canary b, canary c, canary d",
            "SELECT * FROM docs WHERE docs MATCH '\"' || hex(zeroblob(10000)) || '\"'",
            "SELECT body FROM docs WHERE docs MATCH 'the* OR q* NOT NEAR(the quick, 1000000)'",
            "SELECT * FROM canary, canary, canary, canary, canary, canary",
        ]
        .map(str::to_owned),
    );
    list.push(format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000)));
    list.push(format!("SELECT {}1", "-".repeat(2000).replace('-', "- ")));
    list.push(format!("SELECT {}", vec!["1"; 5000].join("+")));
    list.push(format!("SELECT {}", vec!["1"; 5000].join(",")));
    list.push(vec!["SELECT 1"; 2000].join(" UNION ALL "));
    list.push(format!("SELECT * FROM {}", vec!["canary"; 64].join(", ")));
    list.push(format!("SELECT 1 WHERE 1 IN ({})", vec!["1"; 20_000].join(",")));
    list.push(format!("SELECT '{}'", "x".repeat(400_000)));
    list.push(format!("SELECT * FROM docs WHERE docs MATCH '{}'", "(".repeat(2000)));
    list.push(format!("SELECT * FROM docs WHERE docs MATCH '{}a'", "a OR ".repeat(5000)));
    list.push(format!("SELECT {}1{}", "abs(".repeat(900), ")".repeat(900)));
    list.push(format!("SELECT ?{}", 32_766));
    // Each name stands for two of the one before: two to the thirtieth.
    let doubling: Vec<String> = (1..30).map(|level| format!("c{level} AS (SELECT a.* FROM c{0} a, c{0} b)", level - 1)).collect();
    list.push(format!("WITH c0 AS (SELECT 1 AS x), {} SELECT count(*) FROM c29", doubling.join(", ")));
    let nested = (0..60).fold("SELECT name FROM canary".to_owned(), |inner, _| {
        format!("SELECT * FROM ({inner}), ({inner} LIMIT 1)").chars().take(200_000).collect()
    });
    list.push(nested);
    list
}

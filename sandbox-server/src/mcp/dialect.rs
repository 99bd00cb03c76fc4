//! What other databases call things, for a model that has learnt them: the words of SQLite, or the tool, for the same.

use crate::db::query;

/// Statements of other databases, by their first word.
const STATEMENTS: &[(&str, &str)] = &[
    ("SHOW", "Use list_tables for tables and views, describe_table for columns and indexes."),
    ("DESCRIBE", "Use describe_table."),
    ("DESC", "Use describe_table."),
    ("USE", "There is one database here."),
    ("TRUNCATE", "SQLite has no TRUNCATE; use DELETE FROM without WHERE."),
    ("MERGE", "SQLite has no MERGE; use INSERT … ON CONFLICT (…) DO UPDATE SET …."),
    ("CALL", "SQLite has no stored procedures."),
    ("EXEC", "SQLite has no stored procedures."),
    ("GRANT", "SQLite has no users."),
    ("REVOKE", "SQLite has no users."),
    ("SET", "The settings of this server are not for a statement to change."),
];

/// Functions of other databases, in small letters.
const FUNCTIONS: &[(&str, &str)] = &[
    ("now", "Use datetime('now'), or unixepoch() for seconds."),
    ("getdate", "Use datetime('now')."),
    ("curdate", "Use date('now')."),
    ("curtime", "Use time('now')."),
    ("sysdate", "Use datetime('now')."),
    ("date_format", "Use strftime(format, time)."),
    ("to_char", "Use strftime(format, time) for times, printf(format, …) for numbers."),
    ("to_date", "Use date(text)."),
    ("str_to_date", "Use date(text), with text as YYYY-MM-DD."),
    ("to_timestamp", "Use datetime(text), or datetime(seconds, 'unixepoch')."),
    ("from_unixtime", "Use datetime(seconds, 'unixepoch')."),
    ("unix_timestamp", "Use unixepoch(time)."),
    ("date_trunc", "Use date(time, 'start of month'), or strftime('%Y-%m', time)."),
    ("date_part", "Use strftime('%Y', time), '%m', '%d', '%H' or another part."),
    ("date_add", "Use date(time, '+1 day')."),
    ("date_sub", "Use date(time, '-1 day')."),
    ("dateadd", "Use date(time, '+1 day')."),
    ("datediff", "Use julianday(a) - julianday(b) for days."),
    ("year", "Use strftime('%Y', time)."),
    ("month", "Use strftime('%m', time)."),
    ("day", "Use strftime('%d', time)."),
    ("left", "Use substr(text, 1, n)."),
    ("right", "Use substr(text, -n)."),
    ("len", "Use length(text)."),
    ("char_length", "Use length(text)."),
    ("charindex", "Use instr(text, part)."),
    ("position", "Use instr(text, part)."),
    ("strpos", "Use instr(text, part)."),
    ("lpad", "Use printf('%10s', text)."),
    ("rpad", "Use printf('%-10s', text)."),
    ("isnull", "Use ifnull(a, b), or IS NULL."),
    ("nvl", "Use ifnull(a, b)."),
    ("greatest", "Use max(a, b)."),
    ("least", "Use min(a, b)."),
    ("rand", "Use random()."),
    ("array_agg", "Use json_group_array(value)."),
    ("json_agg", "Use json_group_array(value)."),
    ("jsonb_agg", "Use json_group_array(value)."),
    ("json_build_object", "Use json_object(name, value, …)."),
    ("unnest", "Use json_each(array) in FROM."),
    ("split_part", "Use instr() and substr(), or json_each() on a JSON array."),
    ("stddev", "Use sqrt(avg(x * x) - avg(x) * avg(x))."),
    ("variance", "Use avg(x * x) - avg(x) * avg(x)."),
    ("regexp_matches", "Use text REGEXP pattern, which is true or false."),
    ("regexp_like", "Use text REGEXP pattern."),
    ("last_insert_id", "Use last_insert_rowid() within a batch, or RETURNING."),
    ("version", "Use sqlite_version()."),
];

/// Tables of other databases, by how their names begin.
const TABLES: &[(&str, &str)] = &[
    ("information_schema.", "Use list_tables and describe_table, or SELECT from sqlite_schema."),
    ("pg_", "Use list_tables and describe_table, or SELECT from sqlite_schema."),
    ("sys.", "Use list_tables and describe_table, or SELECT from sqlite_schema."),
    ("dual", "SQLite needs no FROM for this."),
    ("generate_series", "Use WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT i FROM n."),
];

/// A sentence for what SQLite said of a statement. None: it is not another database's.
pub fn hint(sql: &str, message: &str) -> Option<&'static str> {
    let name = |marker: &str| message.split_once(marker).map(|(_, name)| name.to_ascii_lowercase());
    if let Some(function) = name("no such function: ") {
        return FUNCTIONS.iter().find(|(known, _)| *known == function).map(|(_, hint)| *hint);
    }
    if let Some(table) = name("no such table: ") {
        return TABLES.iter().find(|(known, _)| table.starts_with(known)).map(|(_, hint)| *hint);
    }
    if !message.contains("syntax error") && !message.contains("unrecognized token") {
        return None;
    }
    let keyword = query::keyword(sql);
    let statement =
        STATEMENTS.iter().find(|(known, _)| *known == keyword && message.contains(&format!("\"{}\"", first_word(sql))));
    statement.map(|(_, hint)| *hint).or_else(|| phrase(sql, message))
}

fn first_word(sql: &str) -> &str {
    let sql = query::explained(sql);
    sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default()
}

/// Phrases within a statement that only other databases know, by the word at which SQLite gives up.
fn phrase(sql: &str, message: &str) -> Option<&'static str> {
    let lower = sql.to_ascii_lowercase();
    let at = |word: &str| message.to_ascii_lowercase().contains(&format!("near \"{word}\""));
    if lower.contains(" ilike ") {
        return Some("SQLite has no ILIKE; its LIKE takes letters of either case for the same (those of ASCII).");
    }
    if lower.contains("::") && message.contains("unrecognized token") {
        return Some("Use CAST(value AS type).");
    }
    if at("from") && lower.contains("extract(") {
        return Some("SQLite has no EXTRACT; use strftime('%Y', time), '%m', '%d' or another part.");
    }
    if lower.contains("select top ") {
        return Some("SQLite has no TOP; put LIMIT n at the end.");
    }
    if at("limit") || at("order") {
        let changes = ["UPDATE", "DELETE"].contains(&query::keyword(sql).as_str());
        return changes.then_some("UPDATE and DELETE take no LIMIT here; use WHERE rowid IN (SELECT rowid FROM … LIMIT n).");
    }
    if at("set") && query::keyword(sql) == "INSERT" {
        return Some("Use INSERT INTO table (columns) VALUES (values).");
    }
    None
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn of(sql: &str) -> Option<&'static str> {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (a)").unwrap();
        let error = conn.prepare(sql).map(drop).unwrap_err();
        match &error {
            rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)) => hint(sql, msg),
            other => panic!("{sql}: {other}"),
        }
    }

    #[test]
    fn statements_of_other_databases_are_answered_with_those_of_this_one() {
        for (sql, part) in [
            ("SHOW TABLES", "list_tables"),
            ("/* x */ describe t;", "describe_table"),
            ("TRUNCATE TABLE t", "DELETE FROM"),
            ("SELECT NOW()", "datetime('now')"),
            ("SELECT LEFT('abc', 1)", "substr"),
            ("SELECT * FROM information_schema.tables", "list_tables"),
            ("SELECT value FROM generate_series(1, 3)", "RECURSIVE"),
            ("SELECT a ILIKE 'x' FROM t", "LIKE"),
            ("SELECT a::text FROM t", "CAST"),
            ("SELECT EXTRACT(YEAR FROM a) FROM t", "strftime"),
            ("SELECT TOP 1 * FROM t", "LIMIT"),
            ("DELETE FROM t LIMIT 1", "rowid IN"),
            ("INSERT INTO t SET a = 1", "VALUES"),
        ] {
            assert!(of(sql).is_some_and(|hint| hint.contains(part)), "{sql}: {:?}", of(sql));
        }
        for sql in
            ["SELEC 1", "SELECT x FROM t", "SELECT * FROM nosuch", "SELECT lenght(a) FROM t", "SELECT a FROM t ORDER LIMIT"]
        {
            assert_eq!(of(sql), None, "{sql}");
        }
    }
}

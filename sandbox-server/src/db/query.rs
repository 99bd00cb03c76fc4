//! Runs one statement on a connection: binds, steps, collects rows under the caps. Who may run it is db/authorizer.rs.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rusqlite::Statement;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use super::authorizer::Noted;
use super::error::DbError;
use super::open::Session;
use super::parameters::Parameters;

/// Statements longer than this are prepared afresh: they are seldom sent twice, and the cache would keep them.
const CACHED_SQL_BYTES: usize = 4096;

/// Integers beyond this lose digits in clients that read JSON numbers as doubles; they are sent as text.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// Which rows of a result are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Rows to pass over.
    pub offset: u64,
    /// Rows to return.
    pub max_rows: usize,
    /// Bytes of JSON to return.
    pub max_bytes: usize,
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultSet {
    /// Column names, as the statement gives them.
    pub columns: Vec<String>,
    /// Values by column.
    pub rows: Vec<Vec<Value>>,
    /// There are rows after these.
    pub more: bool,
    /// The rows' size as JSON, roughly.
    pub bytes: usize,
}

/// The first word of a statement, comments passed over, in capitals.
pub fn keyword(sql: &str) -> String {
    beginning(sql).chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase()
}

/// Whether this is the first word of a statement.
pub fn begins_with(sql: &str, word: &str) -> bool {
    beginning(sql).get(..word.len()).is_some_and(|first| first.eq_ignore_ascii_case(word))
}

/// A statement without EXPLAIN or EXPLAIN QUERY PLAN in front, and without what comes before its first word.
pub fn explained(sql: &str) -> &str {
    let mut rest = beginning(sql);
    for word in ["EXPLAIN", "QUERY", "PLAN"] {
        if keyword(rest) != word {
            break;
        }
        rest = beginning(&rest[word.len()..]);
    }
    rest
}

/// That there is something to run.
pub fn check_not_empty(sql: &str) -> Result<(), DbError> {
    if beginning(sql).is_empty() { Err(DbError::WrongKind("the SQL is empty: send one statement".into())) } else { Ok(()) }
}

/// A statement from its first word on.
fn beginning(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '\u{feff}');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else {
            return rest;
        }
    }
}

/// Prepares (from the cache where it is worth it), binds, and hands the statement to `work`: more than once where the statement meets
/// something that is in the file already and needs wider terms (db/terms.rs).
pub fn with_statement<T>(
    session: &Session,
    sql: &str,
    parameters: &Parameters,
    cached: bool,
    mut work: impl FnMut(&mut Statement<'_>, &Noted) -> Result<T, DbError>,
) -> Result<T, DbError> {
    // SQLite would read up to the first NUL and silently leave out the rest.
    if sql.contains('\0') {
        return Err(DbError::WrongKind("the SQL contains a NUL character".into()));
    }
    check_not_empty(sql)?;
    if sql.len() > session.max_sql_bytes {
        return Err(DbError::SqlTooLong(session.max_sql_bytes));
    }
    // The cache leaves out the blanks around a statement, and errors are told by their place in the rest.
    let trimmed = sql.trim();
    let skipped = sql.len() - sql.trim_start().len();
    session
        .terms
        .run(&session.conn, sql, || attempt(session, trimmed, parameters, cached, &mut work))
        .map_err(|error| error.later_by(skipped))
}

fn attempt<T>(
    session: &Session,
    sql: &str,
    parameters: &Parameters,
    cached: bool,
    work: &mut impl FnMut(&mut Statement<'_>, &Noted) -> Result<T, DbError>,
) -> Result<T, DbError> {
    let Session { conn, gate, terms, .. } = session;
    // What an earlier statement left that failed while it was prepared.
    gate.take_noted();
    let mut run = |statement: &mut Statement<'_>, noted: &Noted| {
        terms.capped(conn, &noted.costly, || {
            parameters.bind(statement)?;
            work(statement, noted)
        })
    };
    if cached && sql.len() <= CACHED_SQL_BYTES {
        let mut statement = conn.prepare_cached(sql)?;
        let noted = gate.take_noted();
        let result = run(&mut statement, &noted);
        if !noted.costly.is_empty() {
            // The gate is asked only when a statement is prepared: from the cache it would come without its cap.
            statement.discard();
        }
        result
    } else {
        let mut statement = conn.prepare(sql)?;
        run(&mut statement, &gate.take_noted())
    }
}

/// Steps through a bound statement and keeps the rows of `page`.
pub fn collect(statement: &mut Statement<'_>, page: Page) -> Result<ResultSet, DbError> {
    let mut rows = statement.raw_query();
    let mut set = ResultSet { columns: Vec::new(), rows: Vec::new(), more: false, bytes: 0 };
    let mut position = 0;
    while let Some(row) = rows.next()? {
        position += 1;
        if position <= page.offset {
            continue;
        }
        if set.rows.len() >= page.max_rows {
            set.more = true;
            break;
        }
        // Counted after the first step: a statement from the cache may have been prepared again with other columns.
        let width = row.as_ref().column_count();
        let mut values = Vec::with_capacity(width);
        let mut bytes = 2;
        for index in 0..width {
            let (value, size) = to_json(row.get_ref(index)?, page.max_bytes);
            bytes += size + 1;
            if bytes > page.max_bytes {
                break;
            }
            values.push(value);
        }
        if set.bytes + bytes > page.max_bytes {
            if set.rows.is_empty() {
                return Err(DbError::RowTooLarge(page.max_bytes));
            }
            set.more = true;
            break;
        }
        set.bytes += bytes;
        set.rows.push(values);
    }
    drop(rows);
    set.columns = statement.column_names().map(str::to_owned).collect();
    Ok(set)
}

/// An integer as a number, or as text where a client that reads numbers as doubles would round it.
pub fn integer_to_json(number: i64) -> Value {
    let exact = number.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs();
    if exact { json!(number) } else { Value::String(number.to_string()) }
}

/// A value as JSON, and its size. What is too large by itself is not converted: its size alone refuses the row.
fn to_json(value: ValueRef<'_>, max_bytes: usize) -> (Value, usize) {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) if bytes.len() > max_bytes => (Value::Null, bytes.len()),
        ValueRef::Null => (Value::Null, 4),
        ValueRef::Integer(number) => (integer_to_json(number), 8),
        ValueRef::Real(number) if number.is_finite() => (json!(number), 16),
        ValueRef::Real(number) => (Value::String(if number > 0.0 { "Infinity".into() } else { "-Infinity".into() }), 11),
        ValueRef::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let size = text.len() + 2;
            (Value::String(text), size)
        }
        ValueRef::Blob(bytes) => {
            let encoded = STANDARD.encode(bytes);
            let size = encoded.len() + 12;
            (json!({ "$blob": encoded }), size)
        }
    }
}

/// Where the next page begins, bound to the statement, its values and the state of the data that the page was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Rows already handed out.
    pub offset: u64,
    /// How many commits this server had made when the page was read.
    pub generation: u64,
}

impl Cursor {
    /// The text that the caller sends back.
    pub fn encode(self, sql: &str, parameters: &Parameters) -> String {
        URL_SAFE_NO_PAD.encode(format!("1.{}.{}.{}", self.offset, self.generation, fingerprint(sql, parameters)))
    }

    /// Reads a cursor and checks that it belongs to this statement.
    pub fn decode(cursor: &str, sql: &str, parameters: &Parameters) -> Result<Self, DbError> {
        let refuse = |why: &str| {
            DbError::Cursor(format!(
                "the cursor {why}: send it unchanged with the query and params that it came from, or leave it out to begin again"
            ))
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refuse("is not one of this server"))?;
        let text = String::from_utf8(bytes).map_err(|_| refuse("is not one of this server"))?;
        let mut parts = text.split('.');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (Some(1), Some(offset), Some(generation)) = (number(), number(), number()) else {
            return Err(refuse("is not one of this server"));
        };
        if parts.next() != Some(fingerprint(sql, parameters).as_str()) {
            return Err(refuse("belongs to another query"));
        }
        Ok(Self { offset, generation })
    }
}

fn fingerprint(sql: &str, parameters: &Parameters) -> String {
    let mut hash = Sha256::new();
    hash.update(sql.trim().as_bytes());
    parameters.add_to(&mut hash);
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..9])
}

#[cfg(test)]
mod tests {
    use rusqlite::types::Value as SqlValue;

    use super::super::open;
    use super::*;

    const PAGE: Page = Page { offset: 0, max_rows: 10, max_bytes: 1000 };

    fn ask(sql: &str, parameters: &Parameters) -> Result<ResultSet, DbError> {
        let session = open::in_memory();
        with_statement(&session, sql, parameters, true, |statement, _| collect(statement, PAGE))
    }

    #[test]
    fn the_keyword_is_found_behind_comments_and_semicolons() {
        assert_eq!(keyword(" -- hi\n /* ; */ ;select 1"), "SELECT");
        assert_eq!(keyword("/* open"), "");
        assert_eq!(keyword("WITH(x)"), "WITH");
        assert_eq!(explained("-- why\nexplain /* a */ Query PLAN\n;SELECT 1"), "SELECT 1");
        assert_eq!(explained("EXPLAIN SELECT 1"), "SELECT 1");
        assert_eq!(explained("SELECT 1"), "SELECT 1");
    }

    #[test]
    fn every_type_survives_the_way_to_json_and_back() {
        let values = vec![
            SqlValue::Null,
            SqlValue::Integer(1),
            SqlValue::Real(1.5),
            SqlValue::Text("ä\u{0}b".into()),
            SqlValue::Blob(vec![0, 255]),
        ];
        let set = ask("SELECT ?, ?, ?, ?, ?", &Parameters::Positional(values)).unwrap();
        assert_eq!(set.rows, vec![vec![json!(null), json!(1), json!(1.5), json!("ä\u{0}b"), json!({"$blob": "AP8="})]]);
    }

    #[test]
    fn integers_that_a_double_cannot_hold_come_as_text() {
        let set = ask("SELECT 9007199254740991, 9007199254740993, -9223372036854775807 - 1, 9e999", &Parameters::None).unwrap();
        assert_eq!(
            set.rows[0],
            vec![json!(9_007_199_254_740_991_i64), json!("9007199254740993"), json!("-9223372036854775808"), json!("Infinity")]
        );
    }

    #[test]
    fn named_values_are_found_with_and_without_their_mark() {
        let values = vec![(":a".to_owned(), SqlValue::Integer(1)), ("b".to_owned(), SqlValue::Integer(2))];
        assert_eq!(ask("SELECT :a, @b, :a", &Parameters::Named(values)).unwrap().rows, vec![vec![json!(1), json!(2), json!(1)]]);
    }

    #[test]
    fn a_wrong_number_or_kind_of_values_is_said() {
        let error = |sql: &str, parameters| ask(sql, &parameters).unwrap_err().to_string();
        insta::assert_snapshot!(error("SELECT ?", Parameters::None), @"the SQL has 1 placeholder(s), but no params were given");
        insta::assert_snapshot!(error("SELECT ?", Parameters::Positional(vec![SqlValue::Null, SqlValue::Null])), @"the SQL has 1 placeholder(s), but params holds 2 value(s)");
        insta::assert_snapshot!(error("SELECT :a", Parameters::Named(Vec::new())), @"params has no value for :a");
    }

    #[test]
    fn rows_and_bytes_are_capped_and_say_so() {
        let set =
            ask("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n", &Parameters::None).unwrap();
        assert_eq!((set.rows.len(), set.more), (10, true));
        let set = ask(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT hex(zeroblob(200)) FROM n",
            &Parameters::None,
        )
        .unwrap();
        assert_eq!((set.rows.len(), set.more), (2, true));
        assert!(matches!(ask("SELECT hex(zeroblob(2000))", &Parameters::None), Err(DbError::RowTooLarge(1000))));
    }

    #[test]
    fn a_second_statement_is_refused() {
        assert!(ask("SELECT 1; SELECT 2", &Parameters::None).is_err());
        assert!(ask("SELECT 1;  -- nothing more", &Parameters::None).is_ok());
        assert!(ask("SELECT 1\0; SELECT 2", &Parameters::None).is_err());
    }

    #[test]
    fn a_cursor_belongs_to_its_statement() {
        let none = Parameters::None;
        let cursor = Cursor { offset: 5, generation: 2 }.encode("SELECT 1", &none);
        assert_eq!(Cursor::decode(&cursor, "SELECT 1 ", &none).unwrap().offset, 5);
        assert!(Cursor::decode(&cursor, "SELECT 2", &none).is_err());
        assert!(Cursor::decode(&cursor, "SELECT 1", &Parameters::Positional(vec![SqlValue::Integer(1)])).is_err());
        assert!(Cursor::decode("nonsense", "SELECT 1", &none).is_err());
    }
}

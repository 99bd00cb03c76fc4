//! Words for a model that has to mend its SQL: where the mistake is, and which name it may have meant. The errors themselves are db/error.rs.

use rusqlite::{Connection, ErrorCode};

use super::dialect;
use crate::db::advice::Advice;
use crate::db::error::{DbError, extended_code};
use crate::db::schema;

/// How much of a long statement is shown around the mistake.
const EXCERPT_CHARS: usize = 80;

/// Steps of a plan that are shown.
const MAX_STEPS: usize = 20;

/// Names less alike than this are no help.
const MIN_LIKENESS: f64 = 0.6;
const MIN_LIKENESS_OF_FUNCTIONS: f64 = 0.8;

/// The names that a mistake could have meant, gathered from the schema.
#[derive(Debug, Default, Clone)]
pub struct Names {
    /// Table, and its columns.
    tables: Vec<(String, Vec<String>)>,
    /// The schema was read: what is not above is not there.
    known: bool,
    /// Functions that may be called.
    functions: Vec<String>,
}

impl Names {
    /// Reads all names; asked only after an error.
    pub fn read(conn: &Connection) -> Result<Self, DbError> {
        let mut tables = Vec::new();
        for table in schema::tables(conn)?.into_iter().take(200) {
            let columns = schema::known_columns(conn, &table.name)?.into_iter().map(|column| column.name).collect();
            tables.push((table.name, columns));
        }
        let functions = conn
            .prepare("SELECT DISTINCT name FROM pragma_function_list WHERE name GLOB '[a-z]*'")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok(Self { tables, known: true, functions })
    }

    /// Function names are short, and there are many: what is only somewhat alike is another one.
    fn nearest_function(&self, wrong: &str) -> Option<&str> {
        nearest(wrong, self.functions.iter().map(String::as_str))
            .filter(|name| likeness(wrong, name) >= MIN_LIKENESS_OF_FUNCTIONS)
    }

    fn nearest_table(&self, wrong: &str) -> Option<&str> {
        nearest(wrong, self.tables.iter().map(|(name, _)| name.as_str()))
    }

    /// Among the tables that the statement names, else among all.
    fn nearest_column(&self, wrong: &str, sql: &str) -> Option<String> {
        let lower = sql.to_lowercase();
        let named = || self.tables.iter().filter(|(table, _)| lower.contains(&table.to_lowercase()));
        nearest(wrong, named().flat_map(|(_, columns)| columns.iter().map(String::as_str)))
            .or_else(|| nearest(wrong, self.tables.iter().flat_map(|(_, columns)| columns.iter().map(String::as_str))))
            .map(str::to_owned)
    }

    fn columns_of_named_tables(&self, sql: &str) -> Vec<String> {
        let lower = sql.to_lowercase();
        let named = self.tables.iter().filter(|(table, _)| lower.contains(&table.to_lowercase()));
        named
            .take(3)
            .map(|(table, columns)| format!("{table}({})", columns.iter().take(30).cloned().collect::<Vec<_>>().join(", ")))
            .collect()
    }
}

fn likeness(wrong: &str, name: &str) -> f64 {
    strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase())
}

fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|name| (likeness(wrong, name), name))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Whether names from the schema could help.
pub fn wants_names(error: &DbError) -> bool {
    match error {
        DbError::NoSuchTable(_) => true,
        DbError::InBatch { source, .. } => wants_names(source),
        DbError::Sqlite(error) => {
            let text = error.to_string();
            [
                "no such table",
                "no such column",
                "has no column named",
                "no such view",
                "no such function",
                "no such index",
                " values were supplied",
                " values for ",
            ]
            .iter()
            .any(|needle| text.contains(needle))
        }
        _ => false,
    }
}

/// The text of a tool error.
pub fn explain(error: &DbError, sql: &str, names: &Names) -> String {
    match error {
        DbError::Sqlite(error) => explain_sqlite(error, sql, names),
        DbError::NoSuchTable(table) => {
            with_suggestion(format!("no such table: {table}"), names.nearest_table(table), &all_tables(names))
        }
        DbError::InBatch { number, of, sql, source } => {
            format!("statement {number} of {of}, and so nothing of the batch was kept: {}", explain(source, sql, names))
        }
        DbError::Timeout(_) => {
            format!("{error}. Nothing was changed. Select less, add a WHERE or LIMIT, or look at the plan with explain_query.")
        }
        other => other.to_string(),
    }
}

fn all_tables(names: &Names) -> String {
    if !names.known {
        return String::new();
    }
    if names.tables.is_empty() {
        return "The database has no tables yet; create one with create_table.".into();
    }
    let list: Vec<_> = names.tables.iter().take(50).map(|(name, _)| name.as_str()).collect();
    format!("Tables: {}.", list.join(", "))
}

fn columns_told(names: &Names, sql: &str) -> String {
    let columns = names.columns_of_named_tables(sql);
    if columns.is_empty() { String::new() } else { format!("Columns: {}.", columns.join("; ")) }
}

fn with_suggestion(message: String, suggestion: Option<&str>, more: &str) -> String {
    let question = suggestion.map(|name| format!("Did you mean \"{name}\"?"));
    let lines = [Some(message), question, Some(more.to_owned()).filter(|more| !more.is_empty())];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn explain_sqlite(error: &rusqlite::Error, sql: &str, names: &Names) -> String {
    if let rusqlite::Error::MultipleStatement = error {
        return "one statement a call: send the statements one by one".into();
    }
    let (message, offset) = match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => (msg.clone(), usize::try_from(*offset).ok()),
        rusqlite::Error::SqliteFailure(_, Some(message)) => (message.clone(), None),
        other => (other.to_string(), None),
    };
    let mut text = message.clone();
    // SQLite tells no place for names that it looks up only later.
    let looked_up = || find_name(sql, NAMED.iter().find_map(|marker| after(&message, marker))?);
    if let Some(place) = offset.or_else(looked_up).and_then(|offset| point_at(sql, offset)) {
        text.push('\n');
        text.push_str(&place);
    }
    if let Some(hint) = dialect::hint(sql, &message) {
        return with_suggestion(text, None, hint);
    }
    if let Some(function) = after(&message, "no such function: ") {
        return with_suggestion(text, names.nearest_function(function), "");
    }
    if message.contains(" values were supplied") || message.contains(" values for ") {
        return with_suggestion(text, None, &columns_told(names, sql));
    }
    if let Some(table) = after(&message, "no such table: ") {
        let table = table.trim_start_matches("main.");
        return with_suggestion(text, names.nearest_table(table), &all_tables(names));
    }
    if let Some(column) = after(&message, "no such column: ").or_else(|| after(&message, "has no column named ")) {
        let column = column.split(" - ").next().unwrap_or(column).rsplit('.').next().unwrap_or(column).trim_matches('"');
        let suggestion = names.nearest_column(column, sql);
        let more = columns_told(names, sql);
        let quoted = if message.contains("should this be a string literal") {
            "\nStrings take single quotes: 'text'; double quotes are for names."
        } else {
            ""
        };
        return with_suggestion(format!("{text}{quoted}"), suggestion.as_deref(), &more);
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "the database is locked by another process; nothing was changed, try again".into()
        }
        Some(ErrorCode::DiskFull) => {
            "the disk is full: nothing of this statement was kept; space has to be freed before anything can be written.".into()
        }
        Some(ErrorCode::OutOfMemory) => DbError::TooMuchMemory.to_string(),
        Some(ErrorCode::TooBig) => format!("{message}: the text of the statement, or a value in it, is over the server's limit"),
        Some(ErrorCode::ReadOnly) => "the database can only be read here; nothing was changed".into(),
        _ => text,
    }
}

/// What stands in front of a name in SQLite's messages.
const NAMED: &[&str] =
    &["no such table: ", "no such function: ", "no such view: ", "no such index: ", "no such column: ", "has no column named "];

/// Where a name stands in a statement, as a word of its own.
fn find_name(sql: &str, name: &str) -> Option<usize> {
    let name = name.trim_start_matches("main.");
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let found =
        sql.char_indices().filter(|(at, _)| sql.get(*at..at + name.len()).is_some_and(|word| word.eq_ignore_ascii_case(name)));
    let alone = |at: &usize| !sql[..*at].ends_with(in_word) && !sql[at + name.len()..].starts_with(in_word);
    found.map(|(at, _)| at).find(alone)
}

/// What is added to a statement that took too long.
pub fn plan(advice: &Advice) -> String {
    let mut text = String::new();
    if !advice.plan.is_empty() {
        let steps: Vec<_> = advice.plan.iter().take(MAX_STEPS).map(|step| format!("\n  {step}")).collect();
        text.push_str("\nThe plan:");
        text.push_str(&steps.concat());
    }
    if !advice.indexes.is_empty() {
        text.push_str("\nSQLite would use an index that is not there: ");
        text.push_str(&advice.indexes.join("; or "));
    }
    text
}

/// Whether SQLite says that the file is damaged. It says so, too, of what it only cannot make sense of.
pub fn says_damaged(error: &DbError) -> bool {
    match error {
        // The second: a file that ends in the middle of a page.
        DbError::Sqlite(error) => {
            error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
                || extended_code(error) == Some(rusqlite::ffi::SQLITE_IOERR_SHORT_READ)
        }
        DbError::InBatch { source, .. } => says_damaged(source),
        _ => false,
    }
}

/// What an integrity check adds to such an error. None: it could not be made in time.
pub fn checked(damaged: Option<bool>) -> &'static str {
    match damaged {
        Some(true) => {
            "\nThe integrity check fails: the database file is damaged; tell the operator of this server to restore a backup."
        }
        Some(false) => "\nThe integrity check finds nothing wrong with the file.",
        None => "",
    }
}

fn after<'a>(message: &'a str, marker: &str) -> Option<&'a str> {
    message.split_once(marker).map(|(_, rest)| rest)
}

/// The line of the mistake with a caret under it, and its position.
fn point_at(sql: &str, offset: usize) -> Option<String> {
    if offset > sql.len() || !sql.is_char_boundary(offset) {
        return None;
    }
    let (before, rest) = sql.split_at(offset);
    let line_number = before.matches('\n').count() + 1;
    let line_start = before.rsplit('\n').next().unwrap_or(before);
    let line_end = rest.split('\n').next().unwrap_or(rest);
    let column = line_start.chars().count();
    let skipped = column.saturating_sub(EXCERPT_CHARS / 2);
    let line: String = line_start
        .chars()
        .chain(line_end.chars())
        .skip(skipped)
        .take(EXCERPT_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Some(format!("at line {line_number}, column {}:\n  {line}\n  {}^", column + 1, " ".repeat(column - skipped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(sql: &str) -> String {
        let conn = Connection::open_in_memory().unwrap();
        conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DQS_DML, false).unwrap();
        conn.execute_batch("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, email TEXT); CREATE TABLE orders (id, customer_id, total)").unwrap();
        let names = Names::read(&conn).unwrap();
        let error = DbError::from(conn.prepare(sql).map(drop).unwrap_err());
        explain(&error, sql, &names)
    }

    #[test]
    fn a_misspelt_column_is_pointed_at_and_named() {
        insta::assert_snapshot!(mistake("SELECT nmae FROM customers"), @r#"
        no such column: nmae
        at line 1, column 8:
          SELECT nmae FROM customers
                 ^
        Did you mean "name"?
        Columns: customers(id, name, email).
        "#);
    }

    #[test]
    fn a_misspelt_table_is_named() {
        insta::assert_snapshot!(mistake("SELECT 1\nFROM custmers"), @r#"
        no such table: custmers
        at line 2, column 6:
          FROM custmers
               ^
        Did you mean "customers"?
        Tables: customers, orders.
        "#);
    }

    #[test]
    fn a_misspelt_function_is_pointed_at_and_named() {
        insta::assert_snapshot!(mistake("SELECT id, lenght(name) FROM customers"), @r#"
        no such function: lenght
        at line 1, column 12:
          SELECT id, lenght(name) FROM customers
                     ^
        Did you mean "length"?
        "#);
    }

    #[test]
    fn a_name_is_found_only_as_a_word() {
        assert_eq!(find_name("SELECT xt.t1, tt FROM T", "t"), Some(22));
        assert_eq!(find_name("SELECT é FROM größe", "größe"), Some(15));
        assert_eq!(find_name("SELECT 1", "t"), None);
    }

    #[test]
    fn a_string_in_double_quotes_is_explained() {
        insta::assert_snapshot!(mistake("SELECT id FROM customers WHERE email = \"xyz\""), @r#"
        no such column: "xyz" - should this be a string literal in single-quotes?
        at line 1, column 40:
          SELECT id FROM customers WHERE email = "xyz"
                                                 ^
        Strings take single quotes: 'text'; double quotes are for names.
        Columns: customers(id, name, email).
        "#);
    }

    #[test]
    fn a_syntax_error_is_pointed_at() {
        insta::assert_snapshot!(mistake("SELECT id FORM customers"), @r#"
        near "customers": syntax error
        at line 1, column 16:
          SELECT id FORM customers
                         ^
        "#);
    }

    #[test]
    fn two_statements_are_answered_with_what_to_do() {
        assert_eq!(mistake("SELECT 1; SELECT 2"), "one statement a call: send the statements one by one");
    }
}

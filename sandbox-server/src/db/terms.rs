//! The terms on which a statement runs: how large a value, how long a pattern it may use, and whether "text" in double quotes is a string.
//! They are narrow for what a statement brings along. What stands in the file may be older than they are, and from another program: a
//! statement that meets such a thing is run once more on wider terms. The fixed limits are db/limits.rs.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode};

use super::costly::Costly;
use super::error::DbError;
use super::file;

/// Bytes of LIKE and GLOB patterns, step by step: with each, the values that they are compared to must be smaller (db/costly.rs).
const PATTERN_BYTES: [usize; 4] = [256, 2048, 16_384, 50_000];

/// What a statement may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of one value or row.
    pub value_bytes: usize,
    /// Bytes of a LIKE or GLOB pattern.
    pub pattern_bytes: usize,
    /// "text" that names nothing is a string, as it was to the program that wrote the view or trigger.
    pub quoted_strings: bool,
}

/// A connection's terms: what is in force, and what statements begin with.
#[derive(Debug)]
pub struct TermsInForce {
    path: PathBuf,
    usual: Terms,
    now: Cell<Terms>,
    /// `value_bytes` for the functions of db/functions.rs, which cannot ask the connection.
    value_bytes: Arc<AtomicUsize>,
}

impl TermsInForce {
    /// Puts the usual terms into force.
    pub fn install(
        conn: &Connection,
        path: PathBuf,
        max_value_bytes: usize,
        value_bytes: Arc<AtomicUsize>,
    ) -> rusqlite::Result<Self> {
        let usual = Terms { value_bytes: max_value_bytes, pattern_bytes: PATTERN_BYTES[0], quoted_strings: false };
        set(conn, usual)?;
        value_bytes.store(usual.value_bytes, Ordering::Relaxed);
        Ok(Self { path, usual, now: Cell::new(usual), value_bytes })
    }

    /// Runs `work` on the usual terms, and on wider ones where it meets something that is in the file already.
    pub fn run<T>(&self, conn: &Connection, sql: &str, mut work: impl FnMut() -> Result<T, DbError>) -> Result<T, DbError> {
        let mut terms = self.now.get();
        loop {
            let error = match self.under(conn, terms, &mut work)? {
                Err(error) => error,
                done => return done,
            };
            match self.wider(terms, &error, sql) {
                Some(wider) => terms = wider,
                None => return Err(error),
            }
        }
    }

    /// Runs the server's own work, which has to read whatever the file holds.
    pub fn wide<T>(&self, conn: &Connection, work: impl FnOnce() -> T) -> rusqlite::Result<T> {
        let terms = Terms { value_bytes: self.largest_stored(), quoted_strings: true, ..self.now.get() };
        self.under(conn, terms, work)
    }

    /// Runs `work` while no value may be larger than what each of the `costly` functions can be given.
    pub fn capped<T>(
        &self,
        conn: &Connection,
        costly: &[&'static Costly],
        work: impl FnOnce() -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let now = self.now.get();
        let strictest = costly.iter().min_by_key(|costly| costly.max_value_bytes(now.pattern_bytes));
        let Some(costly) = strictest else { return work() };
        let limit = costly.max_value_bytes(now.pattern_bytes).min(now.value_bytes);
        match self.under(conn, Terms { value_bytes: limit, ..now }, work)? {
            Err(DbError::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {
                Err(DbError::ValueTooLarge { function: costly.name, limit })
            }
            other => other,
        }
    }

    fn under<T>(&self, conn: &Connection, terms: Terms, work: impl FnOnce() -> T) -> rusqlite::Result<T> {
        let before = self.now.get();
        self.change(conn, terms)?;
        let result = work();
        self.change(conn, before)?;
        Ok(result)
    }

    fn change(&self, conn: &Connection, terms: Terms) -> rusqlite::Result<()> {
        if terms != self.now.get() {
            set(conn, terms)?;
            self.value_bytes.store(terms.value_bytes, Ordering::Relaxed);
            self.now.set(terms);
        }
        Ok(())
    }

    /// The terms on which a statement that failed may do better. None: it has failed.
    fn wider(&self, terms: Terms, error: &DbError, sql: &str) -> Option<Terms> {
        let DbError::Sqlite(error) = error else { return None };
        if error.sqlite_error_code() == Some(ErrorCode::TooBig) {
            let stored = self.largest_stored();
            return (stored > terms.value_bytes).then_some(Terms { value_bytes: stored, ..terms });
        }
        let message = error.to_string();
        if message.contains("pattern too complex") {
            let longer = PATTERN_BYTES.into_iter().find(|bytes| *bytes > terms.pattern_bytes)?;
            return Some(Terms { pattern_bytes: longer, ..terms });
        }
        // Not the statement's own: it stands in a view or trigger that the statement uses.
        let quoted = quoted_name(&message)?;
        (!terms.quoted_strings && !sql.contains(&quoted)).then_some(Terms { quoted_strings: true, ..terms })
    }

    /// No value in a file is larger than the file and its log.
    fn largest_stored(&self) -> usize {
        let bytes = |path| fs::metadata(path).map_or(0, |meta| meta.len());
        let file = bytes(self.path.clone()) + bytes(file::wal_path(&self.path));
        usize::try_from(file).unwrap_or(usize::MAX).max(self.usual.value_bytes)
    }
}

fn set(conn: &Connection, terms: Terms) -> rusqlite::Result<()> {
    // SQLite takes as much as it was built for where more is asked.
    let clamp = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, clamp(terms.value_bytes))?;
    conn.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, clamp(terms.pattern_bytes))?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, terms.quoted_strings)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, terms.quoted_strings)?;
    Ok(())
}

/// The name in double quotes that was found to be no column.
fn quoted_name(message: &str) -> Option<String> {
    let (before, _) = message.split_once(" - should this be a string literal")?;
    let (_, name) = before.split_once("no such column: ")?;
    name.starts_with('"').then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_double_quotes_is_read_from_the_message() {
        let text = r#"error in view v: no such column: "a b" - should this be a string literal in single-quotes?"#;
        assert_eq!(quoted_name(text).as_deref(), Some("\"a b\""));
        assert_eq!(quoted_name("no such column: a"), None);
    }
}

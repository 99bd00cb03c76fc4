//! One write on the writing thread's connection, inside a transaction that is open already: what it may do by the tool it came with and
//! the server's mode, and what it did. When it runs, and with whom it shares the transaction, is db/writer.rs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::limits::Limit;

use super::authorizer::{self, INSIGHTS_TABLE, Permit, SchemaMode};
use super::created;
use super::error::DbError;
use super::facts::Touched;
use super::open::Session;
use super::parameters::Parameters;
use super::query::{self, Page, ResultSet};

/// Statements of which the table that they insert into is remembered. More than SQLite's cache holds, so that it is seldom asked twice.
const REMEMBERED: usize = 512;

/// Which statements a tool takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Those that change rows.
    Rows,
    /// Those that change the schema.
    Schema,
    /// Both, and in a batch those that read.
    Anything,
}

/// One statement with its values.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundStatement {
    /// The statement.
    pub sql: String,
    /// Its values.
    pub parameters: Parameters,
}

/// What to write. Kept as data, because it may have to run twice.
#[derive(Debug, Clone)]
pub enum Command {
    /// One statement.
    Run {
        /// The statement.
        statement: BoundStatement,
        /// What it may be.
        takes: Takes,
        /// The caps on the rows that it gives back.
        page: Page,
    },
    /// Several, of which all are kept or none.
    Batch {
        /// In order.
        statements: Vec<BoundStatement>,
        /// The caps on the rows that they give back together.
        page: Page,
    },
    /// A line for the memo.
    Insight(String),
    /// Writes what is there already, to see whether anything can be written.
    Probe,
}

impl Command {
    /// It cannot run inside a transaction.
    pub fn stands_alone(&self, mode: SchemaMode) -> bool {
        matches!(self, Self::Run { statement, .. } if mode == SchemaMode::Full && query::keyword(&statement.sql) == "VACUUM")
    }

    /// Half of it may stay behind when it fails: it needs a savepoint of its own.
    pub fn leaves_halves(&self, touched: &Touched) -> bool {
        match self {
            Self::Batch { .. } => true,
            Self::Run { statement: BoundStatement { sql, .. }, .. } => {
                let says = |word: &[u8]| sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
                touched.leaves_halves() || says(b"fail") || says(b"returning") || query::begins_with(sql, "CREATE")
            }
            Self::Insight(_) | Self::Probe => false,
        }
    }
}

/// What a statement did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriteOutcome {
    /// Rows inserted, updated or deleted, those of triggers and foreign keys not counted.
    pub rows_affected: u64,
    /// The rowid of the last row that it inserted itself.
    pub last_insert_rowid: Option<i64>,
    /// What RETURNING, or a query in a batch, gave.
    pub returned: Option<ResultSet>,
    /// It was one that changes the schema.
    pub schema: bool,
}

/// The writing thread's connection, and what it has learnt of statements and schema.
#[derive(Debug)]
pub struct Desk<'c> {
    session: &'c Session,
    mode: SchemaMode,
    /// What the statement at hand touches.
    pub touched: Touched,
    /// The table that a statement inserts into: SQLite tells it only when a statement is prepared.
    targets: RefCell<HashMap<String, Option<Arc<str>>>>,
}

impl<'c> Desk<'c> {
    /// On an open connection.
    pub fn new(session: &'c Session, mode: SchemaMode, touched: Touched) -> Self {
        Self { session, mode, touched, targets: RefCell::default() }
    }

    /// Runs a command that does not stand alone. One result a statement.
    pub fn run(&self, command: &Command) -> Result<Vec<WriteOutcome>, DbError> {
        self.touched.begin(None);
        match command {
            Command::Run { statement, takes, page } => Ok(vec![self.statement(statement, *takes, *page)?]),
            Command::Batch { statements, page } => self.batch(statements, *page),
            Command::Insight(text) => Ok(vec![append_insight(self.session, text)?]),
            Command::Probe => probe(self.session).map(|()| Vec::new()),
        }
    }

    fn batch(&self, statements: &[BoundStatement], mut page: Page) -> Result<Vec<WriteOutcome>, DbError> {
        if statements.is_empty() {
            return Err(DbError::Parameters("the batch is empty: send at least one statement".into()));
        }
        let limit = page.max_bytes;
        let mut outcomes = Vec::with_capacity(statements.len());
        let mut deferred = false;
        for (index, statement) in statements.iter().enumerate() {
            let result = self.statement(statement, Takes::Anything, page).map_err(|error| match error {
                // What is left is less than what one result may hold, and no limit that anybody has set.
                DbError::RowTooLarge(left) if left < limit => DbError::BatchTooLarge(limit),
                other => other,
            });
            let outcome = self.session.explain_refusal(result).map_err(|source| DbError::InBatch {
                number: index + 1,
                of: statements.len(),
                sql: statement.sql.clone(),
                source: Box::new(source),
            })?;
            page.max_bytes = page.max_bytes.saturating_sub(outcome.returned.as_ref().map_or(0, |set| set.bytes));
            deferred |= self.touched.judged_at_commit();
            outcomes.push(outcome);
        }
        self.touched.also_judged_at_commit(deferred);
        Ok(outcomes)
    }

    fn statement(&self, statement: &BoundStatement, takes: Takes, page: Page) -> Result<WriteOutcome, DbError> {
        let BoundStatement { sql, parameters } = statement;
        query::check_not_empty(sql)?;
        let permit = permit(&query::keyword(sql), takes, self.mode)?;
        let Session { conn, gate, .. } = self.session;
        // Only those of one permit come from the cache: one with a smaller permit must not find them.
        let cached = permit == Permit::Write;
        gate.with(permit, || {
            query::with_statement(self.session, sql, parameters, cached, |statement, noted| {
                if takes == Takes::Rows && permit == Permit::Write && statement.readonly() {
                    return Err(DbError::WrongKind("this statement changes nothing; use read_query for it".into()));
                }
                let target = self.target(sql, noted);
                self.touched.begin(target.clone());
                let (changes, rowid) = (conn.total_changes(), conn.last_insert_rowid());
                let ran = if statement.column_count() > 0 {
                    query::collect(statement, page).map(Some)
                } else {
                    statement.raw_execute().map(|_| None).map_err(DbError::from)
                };
                let returned = ran.map_err(|error| self.full_or_out_of_numbers(error, target.as_deref()))?;
                if let Some(created) = &noted.creates {
                    created::check(self.session, created)?;
                }
                if permit != Permit::Write {
                    return Ok(WriteOutcome { schema: true, ..WriteOutcome::default() });
                }
                // changes() keeps its last value over statements that change nothing.
                if conn.total_changes() == changes {
                    return Ok(WriteOutcome { returned, ..WriteOutcome::default() });
                }
                let last_insert_rowid = gate.with(Permit::Internal, || self.touched.own_rowid(conn, rowid))?;
                Ok(WriteOutcome { rows_affected: conn.changes(), last_insert_rowid, returned, schema: false })
            })
        })
    }

    /// SQLite has one word for a full disk and for a table with AUTOINCREMENT that has no number left.
    fn full_or_out_of_numbers(&self, error: DbError, target: Option<&str>) -> DbError {
        let full = matches!(&error, DbError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull));
        let Some(table) = target.filter(|_| full) else { return error };
        let Session { conn, gate, .. } = self.session;
        let last = gate.with(Permit::Internal, || {
            conn.query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = ?1 COLLATE NOCASE", [table], |row| {
                row.get::<_, Option<i64>>(0)
            })
        });
        if matches!(last, Ok(Some(i64::MAX))) { DbError::NoNumberLeft(table.to_owned()) } else { error }
    }

    /// The table that a statement inserts into.
    fn target(&self, sql: &str, noted: &query::Noted) -> Option<Arc<str>> {
        let mut targets = self.targets.borrow_mut();
        if noted.prepared {
            if targets.len() >= REMEMBERED {
                targets.clear();
                // What is in the cache would come without its table.
                self.session.conn.flush_prepared_statement_cache();
            }
            targets.insert(sql.to_owned(), noted.inserts_into.clone());
            return noted.inserts_into.clone();
        }
        targets.get(sql).cloned().flatten()
    }
}

/// What a statement that begins with `keyword` may do. SQLite judges it by that: the word only says on which terms it is asked.
fn permit(keyword: &str, takes: Takes, mode: SchemaMode) -> Result<Permit, DbError> {
    let wrong = |sentence: &str| Err(DbError::WrongKind(sentence.to_owned()));
    // In the full mode a statement is taken by whichever tool it comes with: all of them say that they may destroy.
    let takes = if mode == SchemaMode::Full { Takes::Anything } else { takes };
    match (keyword, takes) {
        ("CREATE", Takes::Rows) => wrong("write_query takes INSERT, UPDATE, DELETE and REPLACE; use create_table for CREATE"),
        ("CREATE", _) => match mode {
            SchemaMode::None => Err(DbError::Denied("not allowed: CREATE (this server was started with --schema none)".into())),
            SchemaMode::Add => Ok(Permit::Create),
            SchemaMode::Full => Ok(Permit::Schema),
        },
        ("ALTER" | "DROP" | "REINDEX" | "ANALYZE", _) if mode == SchemaMode::Full => Ok(Permit::Schema),
        // The gate is not always asked: where there is no index, REINDEX does nothing.
        ("ALTER" | "DROP" | "REINDEX" | "ANALYZE" | "VACUUM", _) if mode != SchemaMode::Full => {
            Err(DbError::Denied(format!("not allowed: {}", authorizer::only_in_full(keyword))))
        }
        ("SELECT" | "VALUES" | "PRAGMA", Takes::Rows) => {
            wrong("write_query takes INSERT, UPDATE, DELETE and REPLACE; use read_query for this statement")
        }
        ("EXPLAIN", _) => wrong("EXPLAIN runs nothing; use explain_query for it"),
        ("INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "WITH" | "SELECT" | "VALUES" | "PRAGMA", Takes::Schema) => {
            wrong("create_table takes CREATE TABLE, CREATE INDEX, CREATE VIEW and CREATE VIRTUAL TABLE; use write_query for rows")
        }
        // Everything else is for the gate to refuse, with its reason.
        _ => Ok(Permit::Write),
    }
}

fn append_insight(session: &Session, text: &str) -> Result<WriteOutcome, DbError> {
    session.conn.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {INSIGHTS_TABLE} (id INTEGER PRIMARY KEY, insight TEXT NOT NULL, created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    ))?;
    // Not from the cache: a caller's text must not find a statement that was prepared without a gate.
    session.conn.execute(&format!("INSERT INTO {INSIGHTS_TABLE} (insight) VALUES (?1)"), [text])?;
    Ok(WriteOutcome { rows_affected: 1, last_insert_rowid: Some(session.conn.last_insert_rowid()), ..WriteOutcome::default() })
}

/// Writes the first page as it is.
fn probe(session: &Session) -> Result<(), DbError> {
    let version: i64 = session.conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(session.conn.execute_batch(&format!("PRAGMA user_version = {version}"))?)
}

/// Makes the file anew without its free pages. Not inside a transaction.
pub fn vacuum(session: &Session, sql: &str) -> Result<WriteOutcome, DbError> {
    let Session { conn, gate, .. } = session;
    // The copy is as large as the database: not in memory, and beside it, where there is a volume that can be written.
    let folder = conn.path().and_then(|path| Path::new(path).parent()).unwrap_or_else(|| Path::new("."));
    let folder = folder.to_string_lossy().replace('\'', "''");
    conn.execute_batch(&format!("PRAGMA temp_store = FILE; PRAGMA temp_store_directory = '{folder}'"))?;
    conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 1)?;
    let result = gate.with(Permit::Vacuum, || {
        query::with_statement(session, sql, &Parameters::None, false, |statement, _| Ok(statement.raw_execute()?))
    });
    conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    conn.execute_batch("PRAGMA temp_store_directory = ''; PRAGMA temp_store = MEMORY")?;
    result.map(|_| WriteOutcome { schema: true, ..WriteOutcome::default() })
}

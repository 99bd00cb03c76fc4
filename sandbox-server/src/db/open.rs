//! Opens connections, with the settings that every one of them gets. It never replaces, repairs or empties a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::authorizer::{Gate, Permit, SchemaMode};
use super::error::{DbError, OpenError};
use super::file::{self, FileState};
use super::functions;
use super::limits::{Guard, Limits};
use super::schema;
use super::standing::Standing;
use super::terms::TermsInForce;

/// How long SQLite waits by itself for a lock of another process. The writer tries again for as long as its statements have time.
pub const BUSY_WAIT: Duration = Duration::from_millis(100);

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The database file.
    pub path: PathBuf,
    /// No writer at all, and nothing is created.
    pub read_only: bool,
    /// Whether a database is created where there is none.
    pub create: bool,
    /// What callers may do to the schema.
    pub schema: SchemaMode,
    /// Bytes that the file may grow to; None: as large as the disk is.
    pub max_db_bytes: Option<u64>,
    /// Threads that read.
    pub readers: usize,
    /// The caps.
    pub limits: Limits,
}

impl OpenOptions {
    /// As the program opens a database when it is told nothing else.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            read_only: false,
            create: true,
            schema: SchemaMode::default(),
            max_db_bytes: None,
            readers: 2,
            limits: Limits::default(),
        }
    }
}

/// A connection behind its gate and its guard.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub conn: Connection,
    /// What may be done.
    pub gate: Gate,
    /// How long it may take.
    pub guard: Guard,
    /// How large what it uses may be.
    pub terms: TermsInForce,
    /// Bytes of the text of one statement.
    pub max_sql_bytes: usize,
    /// What it was opened on, where SQLite does not see changes by itself.
    pub standing: Option<Standing>,
}

impl Session {
    /// The files have changed under a connection that does not see it.
    pub fn is_outdated(&self) -> bool {
        self.standing.as_ref().is_some_and(Standing::is_outdated)
    }

    /// Some virtual tables (rtree, geopoly) prepare statements that write when a connection first meets them, also for one that reads. This
    /// lets it meet all of them. False: there are none.
    pub fn meet_virtual_tables(&self) -> Result<bool, DbError> {
        self.gate.with(Permit::Internal, || {
            let mut find = self.conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage = 0")?;
            let names = find.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            for name in &names {
                // One whose module is missing is met by nobody.
                let _ = self.conn.prepare(&format!("SELECT * FROM main.{}", schema::quoted(name)));
            }
            Ok(!names.is_empty())
        })
    }

    /// SQLite says only "not authorized"; the gate remembers what it refused.
    pub fn explain_refusal<T>(&self, result: Result<T, DbError>) -> Result<T, DbError> {
        match (result, self.gate.take_refusal()) {
            (Err(DbError::Sqlite(error)), Some(reason))
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) =>
            {
                Err(reason)
            }
            (result, _) => result,
        }
    }
}

/// Whether the integrity check fails.
pub fn is_damaged(conn: &Connection) -> rusqlite::Result<bool> {
    let first: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok(first != "ok")
}

impl OpenError {
    /// SQLite calls a file damaged, too, of which it only cannot make sense. That is said only after an integrity check.
    pub fn confirmed(self) -> Self {
        let Self::Corrupt(path, message) = self else { return self };
        let check = || {
            is_damaged(&Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?)
        };
        if matches!(check(), Ok(false)) { Self::Unreadable(path, message) } else { Self::Corrupt(path, message) }
    }
}

/// The one connection that writes. Creates the database when there is none, and puts it into WAL mode.
pub fn writer(options: &OpenOptions) -> Result<Session, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = &options.path;
    let fail = |error| OpenError::from_sqlite(path, error);
    let conn = Connection::open_with_flags(path, flags).map_err(fail)?;
    conn.busy_timeout(options.limits.statement_timeout.min(Duration::from_secs(5))).map_err(fail)?;
    if conn.is_readonly("main").map_err(fail)? {
        return Err(OpenError::ReadOnly(path.clone()));
    }
    if file::inspect(path)? == FileState::Absent {
        // Pages that are freed can be given back to the disk bit by bit. Only a file that is empty can be told so.
        conn.execute_batch("PRAGMA auto_vacuum=INCREMENTAL").map_err(fail)?;
    }
    let mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(fail)?;
    if mode != "wal" {
        return Err(OpenError::ReadOnly(path.clone()));
    }
    // FULL: a commit is on disk before it is answered. The log is cut back after a burst, so that it does not keep its largest size.
    conn.execute_batch(
        "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA journal_size_limit=67108864; PRAGMA wal_autocheckpoint=1000",
    )
    .map_err(fail)?;
    if let Some(bytes) = options.max_db_bytes {
        let page_bytes: u32 = conn.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(fail)?;
        let pages = (bytes / u64::from(page_bytes)).max(1);
        conn.query_row(&format!("PRAGMA max_page_count={pages}"), [], |_| Ok(())).map_err(fail)?;
    }
    let session = prepare(conn, options).map_err(fail)?;
    session.conn.busy_timeout(BUSY_WAIT).map_err(fail)?;
    Ok(session)
}

/// A connection that cannot write, whatever it is asked.
pub fn reader(options: &OpenOptions) -> Result<Session, OpenError> {
    let path = &options.path;
    let fail = |error| OpenError::from_sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // Before the file is opened: what happens between the two makes the connection outdated.
    let standing = if options.read_only { Standing::of(path) } else { None };
    let immutable = standing.as_ref().is_some_and(|standing| standing.immutable);
    let conn = Connection::open_with_flags(uri(path, immutable), flags).map_err(fail)?;
    conn.busy_timeout(options.limits.statement_timeout.min(Duration::from_secs(5))).map_err(fail)?;
    conn.execute_batch("PRAGMA query_only=ON").map_err(fail)?;
    let mut session = prepare(conn, options).map_err(fail)?;
    session.standing = standing;
    Ok(session)
}

/// A path as SQLite's URI: `%`, `?` and `#` would end the path.
fn uri(path: &Path, immutable: bool) -> String {
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?mode=ro{}", if immutable { "&immutable=1" } else { "" })
}

/// Reads the schema once (which finds locked, foreign and damaged files), then closes the doors.
fn prepare(mut conn: Connection, options: &OpenOptions) -> rusqlite::Result<Session> {
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    // Sorting in memory: a read-only root has no folder for temporary files, and the heap limit caps it.
    conn.execute_batch("PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON; PRAGMA recursive_triggers=OFF")?;
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
    ] {
        conn.set_db_config(config, value)?;
    }
    let value_bytes = Arc::new(AtomicUsize::new(options.limits.max_value_bytes));
    functions::register(&conn, Arc::clone(&value_bytes))?;
    options.limits.apply(&conn)?;
    let terms = TermsInForce::install(&conn, options.path.clone(), options.limits.max_value_bytes, value_bytes)?;
    conn.set_prepared_statement_cache_capacity(128);
    let guard = Guard::install(&mut conn)?;
    let gate = Gate::install(&mut conn)?;
    Ok(Session { conn, gate, guard, terms, max_sql_bytes: options.limits.max_sql_bytes, standing: None })
}

/// A connection to nothing with the functions of the others, to try things on.
pub fn scratch() -> rusqlite::Result<Connection> {
    let conn = Connection::open_in_memory()?;
    functions::register(&conn, Arc::new(AtomicUsize::new(Limits::default().max_value_bytes)))?;
    Ok(conn)
}

/// A connection to nothing, for tests.
#[cfg(test)]
pub fn in_memory() -> Session {
    let options = OpenOptions::new(PathBuf::new());
    prepare(Connection::open_in_memory().unwrap(), &options).unwrap()
}

//! Opens connections: the checks on the file before it is touched, and the settings that every connection gets. It never replaces,
//! repairs or empties a file.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::authorizer::Gate;
use super::error::OpenError;
use super::functions;
use super::limits::{Guard, Limits};

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The database file.
    pub path: PathBuf,
    /// No writer at all, and nothing is created.
    pub read_only: bool,
    /// Threads that read.
    pub readers: usize,
    /// The caps.
    pub limits: Limits,
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
}

/// What the file is before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// There is nothing (or a file of no bytes): it will be created.
    Absent,
    /// A SQLite database by its first bytes.
    Database,
}

/// Looks at the file without opening it, so that a mistake is named before anything is created.
pub fn inspect(path: &Path) -> Result<FileState, OpenError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(OpenError::NoFolder(folder.to_path_buf()));
    }
    let state = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => FileState::Absent,
        Err(error) => return Err(OpenError::Permission(path.to_path_buf(), error.to_string())),
        Ok(meta) if !meta.is_file() => return Err(OpenError::NotAFile(path.to_path_buf())),
        Ok(meta) if meta.len() == 0 => FileState::Absent,
        Ok(_) => {
            let mut header = [0_u8; 16];
            let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
            match read {
                Ok(()) if &header == b"SQLite format 3\0" => FileState::Database,
                Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                    return Err(OpenError::Permission(path.to_path_buf(), error.to_string()));
                }
                _ => return Err(OpenError::Foreign(path.to_path_buf())),
            }
        }
    };
    let wal = wal_path(path);
    if state == FileState::Absent && fs::metadata(&wal).is_ok_and(|meta| meta.len() > 0) {
        return Err(OpenError::OrphanedWal { db: path.to_path_buf(), wal });
    }
    Ok(state)
}

/// The write-ahead log beside a database.
pub fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
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
    let mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(fail)?;
    if mode != "wal" {
        return Err(OpenError::ReadOnly(path.clone()));
    }
    // FULL: a commit is on disk before it is answered. The log is cut back after a burst, so that it does not keep its largest size.
    conn.execute_batch(
        "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA journal_size_limit=67108864; PRAGMA wal_autocheckpoint=1000",
    )
    .map_err(fail)?;
    prepare(conn, options).map_err(fail)
}

/// A connection that cannot write, whatever it is asked.
pub fn reader(options: &OpenOptions) -> Result<Session, OpenError> {
    let path = &options.path;
    let fail = |error| OpenError::from_sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(uri(path, needs_immutable(options)), flags).map_err(fail)?;
    conn.busy_timeout(options.limits.statement_timeout.min(Duration::from_secs(5))).map_err(fail)?;
    conn.execute_batch("PRAGMA query_only=ON").map_err(fail)?;
    prepare(conn, options).map_err(fail)
}

/// On a volume that cannot be written there is no place for the shared memory of WAL. A database without a log can be read
/// all the same, if nobody else writes it, which nobody can.
fn needs_immutable(options: &OpenOptions) -> bool {
    let no_log = fs::metadata(wal_path(&options.path)).map_or(true, |meta| meta.len() == 0);
    options.read_only && no_log && !folder_is_writable(&options.path)
}

/// Asked by trying: permission bits do not tell about read-only mounts.
fn folder_is_writable(path: &Path) -> bool {
    let mut probe = path.as_os_str().to_owned();
    probe.push(format!("-probe-{}", std::process::id()));
    let probe = PathBuf::from(probe);
    let writable = fs::File::create_new(&probe).is_ok();
    if writable {
        // Nothing depends on the empty file; a failure to remove it is seen by the next listing of the folder.
        let _ = fs::remove_file(&probe);
    }
    writable
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
        // "no such column" instead of a string that happens to be spelled like one.
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    ] {
        conn.set_db_config(config, value)?;
    }
    functions::register(&conn, options.limits.max_value_bytes)?;
    options.limits.apply(&conn)?;
    conn.set_prepared_statement_cache_capacity(128);
    let guard = Guard::install(&mut conn)?;
    let gate = Gate::install(&mut conn)?;
    Ok(Session { conn, gate, guard })
}

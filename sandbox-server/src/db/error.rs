//! What can go wrong with the database, as the rest of the program sees it. Turning an error into words for a model is mcp/error.rs.

use std::path::PathBuf;

use rusqlite::ffi;

/// Why a database could not be opened or created. The process ends with these.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder that should hold the file does not exist: most likely a volume that is not mounted.
    #[error("the folder {0} does not exist: create it, or mount the volume there")]
    NoFolder(PathBuf),
    /// `--read-only` and `--no-create` never create.
    #[error("there is no database at {0}, and --read-only and --no-create make none")]
    Missing(PathBuf),
    /// A folder, a device or a socket.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Somebody else's file: it is left as it is.
    #[error("{0} is not a SQLite database: it was left untouched, name another file")]
    Foreign(PathBuf),
    /// A log without its database would be applied to, or lost under, a new and empty file.
    #[error("{db} is missing or empty, but its write-ahead log {wal} is there: restore the database file or move the log away")]
    OrphanedWal {
        /// The database file.
        db: PathBuf,
        /// The log beside it.
        wal: PathBuf,
    },
    /// Another process holds an exclusive lock.
    #[error("{0} is locked by another process: stop that process, or wait for it")]
    Locked(PathBuf),
    /// The file or its folder cannot be written.
    #[error(
        "{0} cannot be written (read-only volume or missing permission): mount it writable for this user, or start with --read-only"
    )]
    ReadOnly(PathBuf),
    /// Another program was killed in the middle of a transaction: whoever opens the file next has to undo it, by writing.
    #[error(
        "{0} was left in the middle of a transaction, which has to be undone before it can be read: open it once without --read-only, or with the program that wrote it"
    )]
    Unfinished(PathBuf),
    /// No permission to read.
    #[error("{0} cannot be opened by this user: {1}")]
    Permission(PathBuf, String),
    /// The content is damaged.
    #[error("{0} is damaged ({1}): restore a backup with `sandbox-server restore`")]
    Corrupt(PathBuf, String),
    /// The content is not damaged, but SQLite cannot make sense of it.
    #[error("SQLite cannot read {0} ({1}), though its integrity check finds nothing wrong")]
    Unreadable(PathBuf, String),
    /// No space for the log or the first pages.
    #[error("no space left on the volume of {0}")]
    Full(PathBuf),
    /// Anything else SQLite says.
    #[error("SQLite cannot open {0}: {1}")]
    Sqlite(PathBuf, rusqlite::Error),
    /// Threads could not be started.
    #[error("failed to start a database thread: {0}")]
    Thread(std::io::Error),
}

impl OpenError {
    /// Sorts SQLite's codes into the cases that an operator can do something about.
    pub fn from_sqlite(path: &std::path::Path, error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_path_buf();
        match error.sqlite_error_code() {
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Locked(path),
            Some(Code::ReadOnly) if extended_code(&error) == Some(ffi::SQLITE_READONLY_ROLLBACK) => Self::Unfinished(path),
            Some(Code::ReadOnly) => Self::ReadOnly(path),
            Some(Code::NotADatabase) => Self::Foreign(path),
            Some(Code::DatabaseCorrupt) => Self::Corrupt(path, error.to_string()),
            Some(Code::DiskFull) => Self::Full(path),
            Some(Code::CannotOpen | Code::PermissionDenied) => Self::Permission(path, error.to_string()),
            _ => Self::Sqlite(path, error),
        }
    }
}

/// SQLite's finer code.
pub fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Why a statement gave no result.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite refused or failed; help is added in mcp/error.rs.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The gate refused an action. The text says which, and what to do instead.
    #[error("{0}")]
    Denied(String),
    /// The statement changes rows, and came to where only reading is done.
    #[error(
        "not allowed: changing data with a reading tool; use write_query for rows, create_table or change_schema for the schema"
    )]
    Changes,
    /// The statement is not of the kind that the tool takes.
    #[error("{0}")]
    WrongKind(String),
    /// The arguments do not fit the statement.
    #[error("{0}")]
    Parameters(String),
    /// The limit on time was reached, in the queue or while running.
    #[error("the statement was stopped after {0} ms, the limit on time")]
    Timeout(u128),
    /// The caller went away or asked to stop.
    #[error("the statement was cancelled")]
    Cancelled,
    /// One value alone is larger than what a result may hold.
    #[error("one row is larger than the limit of {0} bytes: select fewer columns, or a part with substr()")]
    RowTooLarge(usize),
    /// What the statements of a batch give back is more than one result may hold.
    #[error(
        "what the statements of the batch return is larger than {0} bytes together, the limit of one result: return fewer rows, or send several batches"
    )]
    BatchTooLarge(usize),
    /// A value is larger than a function of the statement can be given without holding up the server.
    #[error(
        "a value is larger than {limit} bytes, the limit in a statement that uses {function}: search it with instr(), or leave it out with octet_length(column) <= {limit}"
    )]
    ValueTooLarge {
        /// The function.
        function: &'static str,
        /// Its cap.
        limit: usize,
    },
    /// The text of the statement is over the server's limit.
    #[error("the SQL is longer than {0} bytes, the limit of this server")]
    SqlTooLong(usize),
    /// A statement of a batch failed, and so the whole batch.
    #[error("statement {number} of {of}: {source}")]
    InBatch {
        /// Which, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its SQL.
        sql: String,
        /// Why.
        source: Box<DbError>,
    },
    /// The file is as large as it may become.
    #[error(
        "the database would become larger than {0} bytes, its limit, or the disk is full; nothing of this was kept. Delete rows first"
    )]
    DatabaseFull(u64),
    /// Memory ran out, and this statement had taken the most.
    #[error("the statement needs more memory than the server allows; nothing was changed. Select or sort less at once.")]
    TooMuchMemory,
    /// A long statement that found no place yet. It is run again, and no caller sees this.
    #[error("the statement gave way to others")]
    GaveWay,
    /// A cursor that this statement did not give out.
    #[error("{0}")]
    Cursor(String),
    /// On a volume that only others write.
    #[error("another process changes the database faster than it can be read from here: try again in a moment")]
    Changing,
    /// Too much work is waiting.
    #[error("the server is busy: {0} calls are waiting already, try again in a moment")]
    Busy(usize),
    /// A table with AUTOINCREMENT had a row with the largest possible number.
    #[error(
        "{0} has AUTOINCREMENT and had a row with the largest possible number, 9223372036854775807: no number is left for another row; name one that is free, or make the table anew without AUTOINCREMENT"
    )]
    NoNumberLeft(String),
    /// No table or view of that name.
    #[error("no such table: {0}")]
    NoSuchTable(String),
    /// The server is shutting down, or a thread of its own failed.
    #[error("the database is shutting down")]
    Closed,
}

impl DbError {
    /// The same error for a text of which the first `bytes` were not shown to SQLite.
    pub fn later_by(self, bytes: usize) -> Self {
        self.moved(i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// The same error for a text that had `bytes` more in front of it when SQLite saw it.
    pub fn earlier_by(self, bytes: usize) -> Self {
        self.moved(-i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    fn moved(self, by: i32) -> Self {
        match self {
            Self::Sqlite(rusqlite::Error::SqlInputError { error, msg, sql, offset }) if offset >= 0 => {
                Self::Sqlite(rusqlite::Error::SqlInputError { error, msg, sql, offset: offset.saturating_add(by) })
            }
            other => other,
        }
    }
}

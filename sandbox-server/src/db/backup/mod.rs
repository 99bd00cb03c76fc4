//! Backups of a database that is in use. A backup appears under its name only when it is whole and verified. `pack` compresses, `partial`
//! is a file on its way to its name, `dated` names the files of a folder and removes the oldest. Putting one back is db/restore.rs.

mod dated;
mod pack;
mod partial;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;
use super::open::{self, FileState};
pub use pack::Compression;
pub(super) use {dated::stamp, pack::unpack, partial::Partial};

/// How long a backup waits for a lock that somebody else holds.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Why a backup or a restore did not happen. In every case the files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to back up.
    #[error("there is no database at {0}")]
    NoSource(PathBuf),
    /// The target is the database itself, or a file that is no backup.
    #[error("{0} exists and is no backup: it was left untouched, name another file or a folder")]
    ForeignTarget(PathBuf),
    /// `--keep` without a folder to count in.
    #[error("--keep needs a folder after --to, not a file")]
    KeepNeedsFolder,
    /// SQLite failed while copying.
    #[error("failed to copy the database to {0}: {1}")]
    Copy(PathBuf, #[source] rusqlite::Error),
    /// The copy is damaged, which means that the source is.
    #[error("{0} did not pass the integrity check: {1}")]
    Damaged(PathBuf, String),
    /// A file could not be read, written or renamed; a full disk among the reasons.
    #[error("failed to {0} {1}: {2}")]
    File(&'static str, PathBuf, #[source] io::Error),
    /// The target of a restore holds data.
    #[error("{0} exists: stop the server and add --force to replace it; the old file is kept beside it")]
    Exists(PathBuf),
    /// A server still runs on the target.
    #[error("{0} is in use: stop the server first")]
    InUse(PathBuf),
}

/// What a backup left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// The backup.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Older ones that `keep` removed.
    pub removed: Vec<PathBuf>,
}

/// How a backup is made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The database.
    pub db: PathBuf,
    /// A file, or a folder in which the file is named by the time.
    pub to: PathBuf,
    /// In a folder: how many to keep, this one included.
    pub keep: Option<usize>,
    /// Packed; None: as it is.
    pub compression: Option<Compression>,
}

/// Copies the database as it is at one moment, while others go on reading and writing it.
pub fn backup(options: &BackupOptions) -> Result<Written, BackupError> {
    let BackupOptions { db, to, keep, compression } = options;
    if open::inspect(db)? == FileState::Absent {
        return Err(BackupError::NoSource(db.clone()));
    }
    let folder_target = to.is_dir();
    if keep.is_some() && !folder_target {
        return Err(BackupError::KeepNeedsFolder);
    }
    let target = if folder_target { to.join(dated::name(db, *compression)) } else { to.clone() };
    refuse_foreign(db, &target)?;
    let partial = Partial::beside(&target)?;
    copy(db, partial.path())?;
    verify(partial.path())?;
    let finished = match compression {
        Some(compression) => pack::compress(partial.path(), &target, *compression)?,
        None => partial,
    };
    let bytes = finished.publish(&target)?;
    let removed = match keep {
        Some(keep) => dated::prune(db, to, *keep)?,
        None => Vec::new(),
    };
    Ok(Written { path: target, bytes, removed })
}

/// Overwriting a backup is what a nightly job does; overwriting anything else is a mistake.
fn refuse_foreign(db: &Path, target: &Path) -> Result<(), BackupError> {
    if !target.exists() {
        return Ok(());
    }
    let same = fs::canonicalize(db).ok() == fs::canonicalize(target).ok();
    let mut header = [0_u8; 16];
    let backup = File::open(target).and_then(|mut file| file.read_exact(&mut header)).is_ok()
        && (&header == b"SQLite format 3\0" || Compression::of(&header).is_some());
    if same || !backup { Err(BackupError::ForeignTarget(target.to_path_buf())) } else { Ok(()) }
}

fn copy(db: &Path, target: &Path) -> Result<(), BackupError> {
    let fail = |error| BackupError::Copy(target.to_path_buf(), error);
    let source = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| OpenError::from_sqlite(db, error))?;
    source.busy_timeout(LOCK_WAIT).map_err(fail)?;
    let mut destination = Connection::open(target).map_err(fail)?;
    {
        let backup = Backup::new(&source, &mut destination).map_err(fail)?;
        // All pages in one step: one moment, and no restart when somebody writes meanwhile.
        match backup.step(-1).map_err(|error| OpenError::from_sqlite(db, error))? {
            StepResult::Done => {}
            _ => return Err(OpenError::Locked(db.to_path_buf()).into()),
        }
    }
    // One file that needs no log beside it.
    destination.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())).map_err(fail)
}

/// Whether a file is a whole database.
pub(super) fn verify(path: &Path) -> Result<(), BackupError> {
    let damaged = |what: String| BackupError::Damaged(path.to_path_buf(), what);
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| damaged(error.to_string()))?;
    let answer: String =
        conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(|error| damaged(error.to_string()))?;
    if answer == "ok" { Ok(()) } else { Err(damaged(answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::restore::restore;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            place.conn().execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)").unwrap();
            fs::create_dir(place.path("backups")).unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn conn(&self) -> Connection {
            Connection::open(self.path("x.db")).unwrap()
        }

        fn options(&self, to: &str) -> BackupOptions {
            BackupOptions { db: self.path("x.db"), to: self.path(to), keep: None, compression: None }
        }

        fn files(&self, folder: &str) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn rows(path: &Path) -> i64 {
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .unwrap()
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_backup_holds_what_was_committed_while_somebody_else_writes() {
        let place = Place::new();
        let writer = place.conn();
        writer.execute_batch("INSERT INTO t VALUES (3); BEGIN IMMEDIATE; INSERT INTO t VALUES (4)").unwrap();
        let written = backup(&place.options("copy.db")).unwrap();
        assert_eq!(rows(&written.path), 3);
        assert_eq!(place.files("").into_iter().filter(|name| name.starts_with("copy")).collect::<Vec<_>>(), ["copy.db"]);
    }

    #[test]
    fn a_folder_keeps_the_newest_and_leaves_other_files_alone() {
        let place = Place::new();
        fs::write(place.path("backups/x-notes.db"), "mine").unwrap();
        for compression in [Some(Compression::Gzip), None, Some(Compression::Zstd), None] {
            let written = backup(&BackupOptions { keep: Some(2), compression, ..place.options("backups") }).unwrap();
            assert!(written.path.exists());
            // Names have milliseconds.
            std::thread::sleep(Duration::from_millis(2));
        }
        let files = place.files("backups");
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.contains(&"x-notes.db".to_owned()));
    }

    #[test]
    fn a_target_that_is_no_backup_is_left_alone() {
        let place = Place::new();
        fs::write(place.path("letter.txt"), "Dear Sir or Madam, ...").unwrap();
        assert!(matches!(backup(&place.options("letter.txt")), Err(BackupError::ForeignTarget(_))));
        assert!(matches!(backup(&place.options("x.db")), Err(BackupError::ForeignTarget(_))));
        assert!(backup(&place.options("copy.db")).is_ok());
        assert!(backup(&place.options("copy.db")).is_ok());
        assert!(matches!(
            backup(&BackupOptions { keep: Some(1), ..place.options("copy.db") }),
            Err(BackupError::KeepNeedsFolder)
        ));
    }

    #[test]
    fn a_restore_needs_force_and_keeps_the_old_file() {
        let place = Place::new();
        let copy = backup(&place.options("copy.db")).unwrap().path;
        place.conn().execute_batch("INSERT INTO t VALUES (3)").unwrap();
        assert!(matches!(restore(&place.path("x.db"), &copy, false), Err(BackupError::Exists(_))));
        assert_eq!(rows(&place.path("x.db")), 3);
        let kept = restore(&place.path("x.db"), &copy, true).unwrap().unwrap();
        assert_eq!((rows(&place.path("x.db")), rows(&kept)), (2, 3));
        assert_eq!(restore(&place.path("new.db"), &copy, false).unwrap(), None);
        assert_eq!(rows(&place.path("new.db")), 2);
    }

    #[test]
    fn a_packed_backup_is_restored_whatever_its_name() {
        let place = Place::new();
        for compression in Compression::ALL {
            let copy = backup(&BackupOptions { compression: Some(compression), ..place.options("packed") }).unwrap().path;
            assert!(fs::read(&copy).unwrap().starts_with(compression.magic()));
            let target = place.path(&format!("from-{}.db", compression.extension()));
            assert_eq!(restore(&target, &copy, false).unwrap(), None);
            assert_eq!(rows(&target), 2);
        }
    }

    #[test]
    fn a_restore_under_a_running_server_is_refused() {
        let place = Place::new();
        let copy = backup(&place.options("copy.db")).unwrap().path;
        let server = place.conn();
        server.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        assert!(matches!(restore(&place.path("x.db"), &copy, true), Err(BackupError::InUse(_))));
    }

    #[test]
    fn a_damaged_backup_is_not_restored() {
        let place = Place::new();
        place.conn().execute_batch("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT hex(randomblob(20)) FROM n; CREATE INDEX i ON t (a)").unwrap();
        let copy = backup(&place.options("copy.db")).unwrap().path;
        let mut bytes = fs::read(&copy).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 2000].fill(0xff);
        fs::write(&copy, &bytes).unwrap();
        fs::write(place.path("half.gz"), [0x1f, 0x8b, 8, 0, 0, 0]).unwrap();
        let packed = BackupOptions { compression: Some(Compression::Zstd), ..place.options("flipped.zst") };
        let packed = backup(&packed).unwrap().path;
        let mut bytes = fs::read(&packed).unwrap();
        fs::write(place.path("half.zst"), &bytes[..bytes.len() / 2]).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&packed, &bytes).unwrap();
        for broken in ["copy.db", "half.gz", "half.zst", "flipped.zst"] {
            assert!(matches!(restore(&place.path("x.db"), &place.path(broken), true), Err(BackupError::Damaged(..))), "{broken}");
        }
        assert_eq!(rows(&place.path("x.db")), 5002);
        assert!(!place.files("").iter().any(|name| name.contains("partial") || name.contains("before")));
    }

    #[test]
    fn a_file_that_is_no_database_is_not_backed_up() {
        let place = Place::new();
        fs::write(place.path("y.db"), "no database, but some longer text").unwrap();
        let options = |db: &str| BackupOptions { db: place.path(db), ..place.options("copy.db") };
        assert!(matches!(backup(&options("y.db")), Err(BackupError::Open(OpenError::Foreign(_)))));
        assert!(matches!(backup(&options("z.db")), Err(BackupError::NoSource(_))));
        assert!(!place.path("copy.db").exists());
    }
}

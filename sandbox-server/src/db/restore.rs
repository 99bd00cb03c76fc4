//! Putting a backup in the place of a database: verified before anything is touched, and what was there is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::backup::{BackupError, Partial, stamp, unpack, verify};
use super::error::OpenError;
use super::open::{self, FileState};

/// Puts a backup in the place of a database. Returns where the old file is now, if there was one.
pub fn restore(db: &Path, from: &Path, force: bool) -> Result<Option<PathBuf>, BackupError> {
    let state = match open::inspect(db) {
        Ok(state) => Some(state),
        // A damaged or foreign file is a reason to restore, if it is said with --force.
        Err(OpenError::Foreign(_) | OpenError::OrphanedWal { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if state != Some(FileState::Absent) && !force {
        return Err(BackupError::Exists(db.to_path_buf()));
    }
    let partial = Partial::beside(db)?;
    unpack(from, partial.path())?;
    verify(partial.path()).map_err(|error| match error {
        BackupError::Damaged(_, what) => BackupError::Damaged(from.to_path_buf(), what),
        other => other,
    })?;
    if state == Some(FileState::Database) {
        fold_in_log(db)?;
    }
    let kept = keep_old(db)?;
    partial.publish(db)?;
    Ok(kept)
}

/// Leaving WAL mode works only for the last connection: it fails while a server is running, and leaves nothing in the log.
fn fold_in_log(db: &Path) -> Result<(), BackupError> {
    let conn =
        Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| OpenError::from_sqlite(db, error))?;
    conn.busy_timeout(Duration::from_millis(200)).map_err(|error| OpenError::from_sqlite(db, error))?;
    match conn.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())) {
        Ok(()) => Ok(()),
        Err(error) => match OpenError::from_sqlite(db, error) {
            OpenError::Locked(path) => Err(BackupError::InUse(path)),
            // Too damaged to be read: the log is kept beside the file.
            OpenError::Corrupt(..) | OpenError::Foreign(_) => Ok(()),
            other => Err(other.into()),
        },
    }
}

/// The old file gets a second name, so that there is no moment without a database; a log that could not be folded in goes with it.
fn keep_old(db: &Path) -> Result<Option<PathBuf>, BackupError> {
    let kept = with_ending(db, &format!(".before-restore-{}", stamp()));
    for end in ["", "-wal"] {
        let (old, new) = (with_ending(db, end), with_ending(&kept, end));
        match fs::hard_link(&old, &new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(BackupError::File("keep", old, error)),
        }
        if end == "-wal" {
            fs::remove_file(&old).map_err(|error| BackupError::File("move", old, error))?;
        }
    }
    // A log's index is rebuilt; one that belongs to another file would be believed.
    let _ = fs::remove_file(with_ending(db, "-shm"));
    Ok(kept.exists().then_some(kept))
}

fn with_ending(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

//! Putting a backup in the place of a database: verified before anything is touched, and what was there is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::backup::place::Place;
use super::backup::{BackupError, Partial, Remote, folder_of, newest, stamp, sweep, unpack, verify};
use super::error::OpenError;
use super::file::{self, FileState};

/// What a restore did.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    /// The backup.
    pub from: String,
    /// Where the old file is now, if there was one.
    pub kept: Option<PathBuf>,
}

/// Puts a backup in the place of a database: out of the first of these places that has one.
pub fn restore(db: &Path, from: &[Place], force: bool) -> Result<Restored, BackupError> {
    let state = match file::inspect(db) {
        Ok(state) => Some(state),
        // A damaged or foreign file is a reason to restore, if it is said with --force.
        Err(OpenError::Foreign(_) | OpenError::OrphanedWal { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if state != Some(FileState::Absent) && !force {
        return Err(BackupError::Exists(db.to_path_buf()));
    }
    tidy(db)?;
    let partial = Partial::beside(db)?;
    let from = fetch_first(db, from, partial.path())?;
    verify(partial.path()).map_err(|error| match error {
        BackupError::Damaged(_, what) => BackupError::Damaged(PathBuf::from(&from), what),
        other => other,
    })?;
    if state == Some(FileState::Database) {
        fold_in_log(db)?;
    }
    if !force {
        // Where pods are replaced by force, two of them may restore at once, and the one that ends later meets a server's data.
        partial.publish_new(db)?;
        return Ok(Restored { from, kept: None });
    }
    let kept = keep_old(db)?;
    partial.publish(db)?;
    Ok(Restored { from, kept })
}

/// Removes what restores left that were killed on the way to a database which is there by now.
pub fn tidy(db: &Path) -> Result<usize, BackupError> {
    let wanted = db.file_name().unwrap_or_default().to_string_lossy();
    sweep(folder_of(db), |name| name == wanted)
}

/// The same as `fetch`, out of the first place that has a backup. Whatever else is wrong with one ends it: the next may hold an older one.
fn fetch_first(db: &Path, from: &[Place], to: &Path) -> Result<String, BackupError> {
    if let [only] = from {
        return fetch(db, only, to);
    }
    for place in from {
        match fetch(db, place, to) {
            Err(BackupError::NoBackup(..)) => {}
            Err(BackupError::File(_, _, error)) if matches!(place, Place::Local(path) if !path.exists()) => {
                tracing::debug!(%place, %error, "nothing is there");
            }
            fetched => return fetched,
        }
    }
    let places: Vec<String> = from.iter().map(Place::to_string).collect();
    Err(BackupError::NoBackup(db.display().to_string(), places.join(" or ")))
}

/// Copies a backup to where it can be verified, unpacked. A folder or prefix stands for the newest of the database's backups in it. Returns
/// which it was.
fn fetch(db: &Path, from: &Place, to: &Path) -> Result<String, BackupError> {
    let none = || BackupError::NoBackup(db.display().to_string(), from.to_string());
    match from {
        Place::Local(folder) if folder.is_dir() => {
            let names = fs::read_dir(folder).map_err(|error| BackupError::File("list", folder.clone(), error))?;
            let newest = newest(db, names.filter_map(|entry| entry.ok()?.file_name().into_string().ok())).ok_or_else(none)?;
            unpack(&folder.join(&newest), to)?;
            Ok(folder.join(newest).display().to_string())
        }
        Place::Local(file) => unpack(file, to).map(|()| file.display().to_string()),
        Place::S3 { bucket, .. } if bucket.is_empty() => Err(BackupError::NoBucket(from.to_string())),
        Place::S3 { bucket, prefix } => {
            let remote = Remote::connect(bucket, prefix)?;
            let name = if remote.is_object()? { String::new() } else { newest(db, remote.names()?).ok_or_else(none)? };
            // Packed or not, it goes to a file of its own first: unpacking begins with a look at its beginning.
            let fetched = Partial::beside(db)?;
            remote.download(&name, fetched.path())?;
            unpack(fetched.path(), to).map_err(|error| match error {
                BackupError::Damaged(_, what) => BackupError::Damaged(remote.shown(&name).into(), what),
                other => other,
            })?;
            Ok(remote.shown(&name))
        }
    }
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

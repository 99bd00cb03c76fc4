//! Backups of a database that is in use. A backup appears under its name only when it is whole and verified. `pack` compresses, `partial`
//! is a file on its way to its name, `dated` names the backups of one place and tells the oldest, `place` and `remote` are where they are
//! kept, `report` is what is told of them. Putting one back is db/restore.rs.

mod dated;
mod pack;
mod partial;
pub mod place;
mod remote;
pub mod report;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::error::{OpenError, extended_code};
use super::file::{self, FileState};
pub use pack::Compression;
use place::Place;
pub(super) use {
    dated::newest, dated::stamp, pack::unpack, partial::Partial, partial::folder_of, partial::sweep, remote::Remote,
};

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
    #[error("--keep needs a folder or an s3:// prefix after --to, not a file")]
    KeepNeedsFolder,
    /// A bucket without a name.
    #[error("{0} names no bucket: write s3://BUCKET/PREFIX")]
    NoBucket(String),
    /// Nothing to restore.
    #[error("there is no backup of {0} at {1}")]
    NoBackup(String, String),
    /// The other side refused, or could not be reached.
    #[error("failed to {0} {1}: {2}")]
    Remote(&'static str, String, object_store::Error),
    /// Nothing can be waited for.
    #[error("failed to start a runtime: {0}")]
    Runtime(io::Error),
    /// SQLite failed while copying.
    #[error("failed to copy the database to {0}: {1}")]
    Copy(PathBuf, rusqlite::Error),
    /// The copy is damaged, which means that the source is.
    #[error("{0} did not pass the integrity check: {1}")]
    Damaged(PathBuf, String),
    /// A file could not be read, written or renamed; a full disk among the reasons.
    #[error("failed to {0} {1}: {2}")]
    File(&'static str, PathBuf, io::Error),
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
    /// The backup, as it is named to `restore --from`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Older ones that `keep` removed.
    pub removed: Vec<String>,
}

/// How a backup is made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The database.
    pub db: PathBuf,
    /// A file, or a folder or prefix in which the backup is named by the time.
    pub to: Place,
    /// Where the copy is made and verified before it is sent to a bucket. None: beside the database.
    pub scratch: Option<PathBuf>,
    /// In a folder or under a prefix: how many to keep, this one included.
    pub keep: Option<usize>,
    /// Packed; None: as it is.
    pub compression: Option<Compression>,
}

/// Copies the database as it is at one moment, while others go on reading and writing it.
pub fn backup(options: &BackupOptions) -> Result<Written, BackupError> {
    if file::inspect(&options.db)? == FileState::Absent {
        return Err(BackupError::NoSource(options.db.clone()));
    }
    match &options.to {
        Place::Local(to) => to_folder(options, to),
        Place::S3 { bucket, prefix } if !bucket.is_empty() => to_bucket(options, &Remote::connect(bucket, prefix)?),
        Place::S3 { .. } => Err(BackupError::NoBucket(options.to.to_string())),
    }
}

fn to_folder(options: &BackupOptions, to: &Path) -> Result<Written, BackupError> {
    let BackupOptions { db, keep, compression, .. } = options;
    let folder_target = to.is_dir();
    if keep.is_some() && !folder_target {
        return Err(BackupError::KeepNeedsFolder);
    }
    let target = if folder_target { to.join(dated::name(db, *compression)) } else { to.to_path_buf() };
    refuse_foreign(db, &target)?;
    sweep_for(db, &target)?;
    let bytes = packed(db, &target, *compression)?.publish(&target)?;
    let mut removed = Vec::new();
    if let Some(keep) = keep {
        let fail = |what| move |error| BackupError::File(what, to.to_path_buf(), error);
        let names = fs::read_dir(to).map_err(fail("list"))?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        for name in dated::surplus(db, names, *keep) {
            let path = to.join(name);
            fs::remove_file(&path).map_err(fail("remove from"))?;
            removed.push(path.display().to_string());
        }
    }
    Ok(Written { path: target.display().to_string(), bytes, removed })
}

/// The copy is made and verified here, and sent when it is whole.
fn to_bucket(options: &BackupOptions, remote: &Remote) -> Result<Written, BackupError> {
    let BackupOptions { db, keep, compression, scratch, .. } = options;
    let name = dated::name(db, *compression);
    let here = scratch.as_deref().unwrap_or_else(|| folder_of(db)).join(&name);
    sweep_for(db, &here)?;
    let bytes = remote.upload(packed(db, &here, *compression)?.path(), &name)?;
    let mut removed = Vec::new();
    if let Some(keep) = keep {
        for name in dated::surplus(db, remote.names()?, *keep) {
            remote.remove(&name)?;
            removed.push(remote.shown(&name));
        }
    }
    Ok(Written { path: remote.shown(&name), bytes, removed })
}

/// A verified copy on its way to the name `target`, packed if it is to be.
fn packed(db: &Path, target: &Path, compression: Option<Compression>) -> Result<Partial, BackupError> {
    let partial = Partial::beside(target)?;
    copy(db, partial.path())?;
    verify(partial.path())?;
    match compression {
        Some(compression) => pack::compress(partial.path(), target, compression),
        None => Ok(partial),
    }
}

/// Removes what backups left that were killed on the way to `target`, or to any of this database's dated names in its folder.
fn sweep_for(db: &Path, target: &Path) -> Result<(), BackupError> {
    let wanted = target.file_name().unwrap_or_default().to_string_lossy();
    // A packed copy had an extension more while it was written, in earlier versions.
    let bare = |name: &str| ["gz", "zst"].iter().find_map(|end| name.strip_suffix(&format!(".{end}")).map(str::to_owned));
    let ours = |name: &str| {
        let is_ours = |name: &str| name == wanted || dated::is_ours(db, name);
        is_ours(name) || bare(name).is_some_and(|name| is_ours(&name))
    };
    let removed = sweep(folder_of(target), ours)?;
    if removed > 0 {
        tracing::info!(removed, "removed what killed backups had left");
    }
    Ok(())
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
        match backup.step(-1).map_err(|error| of_step(db, target, error))? {
            StepResult::Done => {}
            _ => return Err(OpenError::Locked(db.to_path_buf()).into()),
        }
    }
    // One file that needs no log beside it.
    destination.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())).map_err(fail)
}

/// Copying reads the one and writes the other: what only writing meets is of the copy.
fn of_step(db: &Path, target: &Path, error: rusqlite::Error) -> BackupError {
    match extended_code(&error) {
        Some(ffi::SQLITE_FULL) => OpenError::Full(folder_of(target).to_path_buf()).into(),
        Some(ffi::SQLITE_READONLY | ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_TRUNCATE) => {
            BackupError::Copy(target.to_path_buf(), error)
        }
        _ => OpenError::from_sqlite(db, error).into(),
    }
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
    use super::place::Place as Where;
    use super::*;
    use crate::db::restore;

    /// Where the old file is now.
    fn restore(db: &Path, from: &Path, force: bool) -> Result<Option<PathBuf>, BackupError> {
        restore::restore(db, &[Where::Local(from.to_path_buf())], force).map(|restored| restored.kept)
    }

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
            BackupOptions { db: self.path("x.db"), to: Where::Local(self.path(to)), scratch: None, keep: None, compression: None }
        }

        fn files(&self, folder: &str) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn what_only_writing_meets_is_told_of_the_place_of_the_backup() {
        let told = |code| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            of_step(Path::new("/data/x.db"), Path::new("/backups/x.db.partial"), error).to_string()
        };
        assert_eq!(told(rusqlite::ffi::SQLITE_FULL), "no space left on the volume of /backups");
        assert!(told(rusqlite::ffi::SQLITE_IOERR_WRITE).starts_with("failed to copy the database to /backups/x.db.partial"));
        assert!(told(rusqlite::ffi::SQLITE_IOERR_READ).contains("/data/x.db"), "the source cannot be read");
        assert!(told(rusqlite::ffi::SQLITE_CORRUPT).starts_with("/data/x.db is damaged"));
    }

    #[test]
    fn a_file_of_a_byte_is_no_backup_and_an_error_tells_its_cause_once() {
        let place = Place::new();
        fs::write(place.path("stub.db"), "S").unwrap();
        let told = restore(&place.path("new.db"), &place.path("stub.db"), false).unwrap_err();
        assert!(told.to_string().ends_with("did not pass the integrity check: it ends within its first bytes"), "{told}");
        let none = pack::unpack(&place.path("none.db"), &place.path("new.db")).unwrap_err();
        assert!(std::error::Error::source(&none).is_none(), "whoever tells the cause, too, would tell it twice");
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
        assert_eq!(rows(Path::new(&written.path)), 3);
        assert_eq!(place.files("").into_iter().filter(|name| name.starts_with("copy")).collect::<Vec<_>>(), ["copy.db"]);
    }

    #[test]
    fn a_folder_keeps_the_newest_and_leaves_other_files_alone() {
        let place = Place::new();
        fs::write(place.path("backups/x-notes.db"), "mine").unwrap();
        for compression in [Some(Compression::Gzip), None, Some(Compression::Zstd), None] {
            let written = backup(&BackupOptions { keep: Some(2), compression, ..place.options("backups") }).unwrap();
            assert!(Path::new(&written.path).exists());
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

    /// A process id would not tell them from files in use: it is 1 in every container.
    #[test]
    fn what_killed_backups_left_is_removed_and_what_is_written_stays() {
        let place = Place::new();
        let dated = "backups/x-20260101T000000000Z.db";
        for left in [
            "backups/copy.db.partial-1",
            "backups/copy.db.partial-1-journal",
            "backups/copy.db.gz.partial-1",
            &format!("{dated}.partial-1"),
            &format!("{dated}.zst.partial-0123456789abcdef"),
            "backups/other.txt.partial-1",
        ] {
            fs::write(place.path(left), "half").unwrap();
        }
        let running = Partial::beside(&place.path(dated)).unwrap();
        backup(&place.options("backups/copy.db")).unwrap();
        let running_name = running.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(place.files("backups"), ["copy.db".to_owned(), "other.txt.partial-1".to_owned(), running_name]);
        drop(running);
        backup(&place.options("backups")).unwrap();
        assert_eq!(place.files("backups").len(), 3);
    }

    #[test]
    fn a_restore_needs_force_and_keeps_the_old_file() {
        let place = Place::new();
        let copy = PathBuf::from(backup(&place.options("copy.db")).unwrap().path);
        place.conn().execute_batch("INSERT INTO t VALUES (3)").unwrap();
        assert!(matches!(restore(&place.path("x.db"), &copy, false), Err(BackupError::Exists(_))));
        assert_eq!(rows(&place.path("x.db")), 3);
        let kept = restore(&place.path("x.db"), &copy, true).unwrap().unwrap();
        assert_eq!((rows(&place.path("x.db")), rows(&kept)), (2, 3));
        assert_eq!(restore(&place.path("new.db"), &copy, false).unwrap(), None);
        assert_eq!(rows(&place.path("new.db")), 2);
    }

    #[test]
    fn the_first_place_that_has_a_backup_is_restored_from_and_none_is_passed_over_for_another_reason() {
        let place = Place::new();
        let from = |names: &[&str]| names.iter().map(|name| Where::Local(place.path(name))).collect::<Vec<_>>();
        let made = || Path::new(&backup(&place.options("backups")).unwrap().path).file_name().unwrap().to_owned();
        let older = made();
        let (new, places) = (place.path("new/x.db"), ["own", "backups"]);
        fs::create_dir(place.path("new")).unwrap();
        let restored = |names: &[&str]| restore::restore(&new, &from(names), false).map(|restored| restored.from);
        assert!(restored(&places).unwrap().ends_with(older.to_str().unwrap()), "there is no folder of its own yet");
        fs::remove_file(&new).unwrap();
        fs::create_dir(place.path("own")).unwrap();
        assert!(restored(&places).unwrap().ends_with(older.to_str().unwrap()), "and here it is empty");
        fs::remove_file(&new).unwrap();
        let own = PathBuf::from(backup(&place.options("own")).unwrap().path);
        assert_eq!(restored(&places).unwrap(), own.display().to_string());
        fs::remove_file(&new).unwrap();
        fs::write(&own, "damaged").unwrap();
        assert!(matches!(restored(&places), Err(BackupError::Damaged(..))), "the older one is not what was asked for");
        let none = restored(&["nowhere", "own/nothing"]).unwrap_err().to_string();
        assert!(none.contains("nowhere or ") && none.contains("own/nothing"), "{none}");
    }

    #[test]
    fn a_folder_stands_for_its_newest_backup() {
        let place = Place::new();
        fs::create_dir(place.path("other")).unwrap();
        let other = place.path("other/x.db");
        assert!(matches!(restore(&other, &place.path("backups"), false), Err(BackupError::NoBackup(..))));
        backup(&BackupOptions { compression: Some(Compression::Zstd), ..place.options("backups") }).unwrap();
        place.conn().execute_batch("INSERT INTO t VALUES (3)").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        backup(&place.options("backups")).unwrap();
        fs::write(place.path("backups/y-20990101T000000000Z.db"), "another database's").unwrap();
        restore(&other, &place.path("backups"), false).unwrap();
        assert_eq!(rows(&other), 3);
    }

    #[test]
    fn a_packed_backup_is_restored_whatever_its_name() {
        let place = Place::new();
        for compression in Compression::ALL {
            let copy =
                PathBuf::from(backup(&BackupOptions { compression: Some(compression), ..place.options("packed") }).unwrap().path);
            assert!(fs::read(&copy).unwrap().starts_with(compression.magic()));
            let target = place.path(&format!("from-{}.db", compression.extension()));
            assert_eq!(restore(&target, &copy, false).unwrap(), None);
            assert_eq!(rows(&target), 2);
        }
    }

    #[test]
    fn a_restore_under_a_running_server_is_refused() {
        let place = Place::new();
        let copy = PathBuf::from(backup(&place.options("copy.db")).unwrap().path);
        let server = place.conn();
        server.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        assert!(matches!(restore(&place.path("x.db"), &copy, true), Err(BackupError::InUse(_))));
    }

    #[test]
    fn a_damaged_backup_is_not_restored() {
        let place = Place::new();
        place.conn().execute_batch("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT hex(randomblob(20)) FROM n; CREATE INDEX i ON t (a)").unwrap();
        let copy = PathBuf::from(backup(&place.options("copy.db")).unwrap().path);
        let mut bytes = fs::read(&copy).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 2000].fill(0xff);
        fs::write(&copy, &bytes).unwrap();
        fs::write(place.path("half.gz"), [0x1f, 0x8b, 8, 0, 0, 0]).unwrap();
        let packed = BackupOptions { compression: Some(Compression::Zstd), ..place.options("flipped.zst") };
        let packed = PathBuf::from(backup(&packed).unwrap().path);
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

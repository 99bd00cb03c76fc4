//! Backups of a database that is in use, and restoring one. A backup appears under its name only when it is whole and verified; a
//! restore verifies before it touches anything and keeps what was there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;
use super::open::{self, FileState};

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

/// How a backup is packed. Restoring tells by the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Opened everywhere.
    Gzip,
    /// Smaller and several times faster.
    Zstd,
}

impl Compression {
    const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    fn extension(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zstd => "zst",
        }
    }

    fn magic(self) -> &'static [u8] {
        match self {
            Self::Gzip => &[0x1f, 0x8b],
            Self::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }

    fn of(header: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| header.starts_with(compression.magic()))
    }
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
    let target = if folder_target { to.join(dated_name(db, *compression)) } else { to.clone() };
    refuse_foreign(db, &target)?;
    let partial = Partial::beside(&target)?;
    copy(db, &partial.0)?;
    verify(&partial.0)?;
    let finished = match compression {
        Some(compression) => compress(&partial.0, &target, *compression)?,
        None => partial,
    };
    let bytes = finished.publish(&target)?;
    let removed = match keep {
        Some(keep) => prune(db, to, *keep)?,
        None => Vec::new(),
    };
    Ok(Written { path: target, bytes, removed })
}

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
    unpack(from, &partial.0)?;
    verify(&partial.0).map_err(|error| match error {
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

/// A file that is being written. Dropped unpublished, it is removed.
struct Partial(PathBuf);

impl Partial {
    fn beside(target: &Path) -> Result<Self, BackupError> {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = PathBuf::from(name);
        File::create_new(&path).map_err(|error| BackupError::File("create", path.clone(), error))?;
        Ok(Self(path))
    }

    /// On disk first, then under its name, then the name on disk.
    fn publish(self, target: &Path) -> Result<u64, BackupError> {
        let fail = |what| move |error| BackupError::File(what, target.to_path_buf(), error);
        let file = File::open(&self.0).map_err(fail("open"))?;
        file.sync_all().map_err(fail("flush"))?;
        let bytes = file.metadata().map_err(fail("read"))?.len();
        fs::rename(&self.0, target).map_err(fail("rename"))?;
        sync_folder(target)?;
        Ok(bytes)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        for end in ["", "-journal", "-wal", "-shm"] {
            let mut path = self.0.as_os_str().to_owned();
            path.push(end);
            // Gone already after a rename.
            let _ = fs::remove_file(path);
        }
    }
}

fn sync_folder(file: &Path) -> Result<(), BackupError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| BackupError::File("flush", folder.to_path_buf(), error))
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

fn verify(path: &Path) -> Result<(), BackupError> {
    let damaged = |what: String| BackupError::Damaged(path.to_path_buf(), what);
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| damaged(error.to_string()))?;
    let answer: String =
        conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(|error| damaged(error.to_string()))?;
    if answer == "ok" { Ok(()) } else { Err(damaged(answer)) }
}

fn compress(from: &Path, target: &Path, compression: Compression) -> Result<Partial, BackupError> {
    let compressed = Partial::beside(&target.with_added_extension(compression.extension()))?;
    let fail = |what| {
        let path = compressed.0.clone();
        move |error| BackupError::File(what, path, error)
    };
    let mut input = File::open(from).map_err(fail("open"))?;
    let output = File::create(&compressed.0).map_err(fail("create"))?;
    let written = match compression {
        Compression::Gzip => {
            let mut packer = GzEncoder::new(output, flate2::Compression::default());
            io::copy(&mut input, &mut packer).and_then(|_| packer.finish())
        }
        Compression::Zstd => zstd::Encoder::new(output, zstd::DEFAULT_COMPRESSION_LEVEL).and_then(|mut packer| {
            packer.include_checksum(true)?;
            io::copy(&mut input, &mut packer)?;
            packer.finish()
        }),
    };
    written.map_err(fail("write"))?;
    Ok(compressed)
}

/// Copies a backup, compressed or not, to a place where it can be verified. Its first bytes tell, not its name.
fn unpack(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut header = [0_u8; 4];
    let mut input = File::open(from).map_err(|error| BackupError::File("open", from.to_path_buf(), error))?;
    input.read_exact(&mut header).map_err(|error| BackupError::File("read", from.to_path_buf(), error))?;
    let mut input = File::open(from).map_err(|error| BackupError::File("open", from.to_path_buf(), error))?;
    let mut output = File::create(to).map_err(|error| BackupError::File("create", to.to_path_buf(), error))?;
    let copied = match Compression::of(&header) {
        Some(Compression::Gzip) => io::copy(&mut GzDecoder::new(input), &mut output),
        Some(Compression::Zstd) => zstd::Decoder::new(input).and_then(|mut input| io::copy(&mut input, &mut output)),
        None => io::copy(&mut input, &mut output),
    };
    match copied {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                // zstd calls broken data Other.
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
            ) =>
        {
            Err(BackupError::Damaged(from.to_path_buf(), format!("the compressed data is broken: {error}")))
        }
        Err(error) => Err(BackupError::File("write", to.to_path_buf(), error)),
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

fn stem(db: &Path) -> String {
    db.file_stem().unwrap_or_else(|| OsStr::new("database")).to_string_lossy().into_owned()
}

fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}

fn dated_name(db: &Path, compression: Option<Compression>) -> String {
    let extension = compression.map(|compression| format!(".{}", compression.extension())).unwrap_or_default();
    format!("{}-{}.db{extension}", stem(db), stamp())
}

/// Removes the oldest of our backups beyond `keep`. Names sort as their times do; other files are not ours.
fn prune(db: &Path, folder: &Path, keep: usize) -> Result<Vec<PathBuf>, BackupError> {
    let fail = |what| move |error| BackupError::File(what, folder.to_path_buf(), error);
    let prefix = format!("{}-", stem(db));
    let mut ours: Vec<String> = fs::read_dir(folder)
        .map_err(fail("list"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name.strip_prefix(&prefix)
                .and_then(|rest| [".db", ".db.gz", ".db.zst"].into_iter().find_map(|end| rest.strip_suffix(end)))
                .is_some_and(is_stamp)
        })
        .collect();
    ours.sort();
    let surplus = ours.len().saturating_sub(keep.max(1));
    let mut removed = Vec::new();
    for name in ours.into_iter().take(surplus) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(fail("remove from"))?;
        removed.push(path);
    }
    Ok(removed)
}

fn is_stamp(text: &str) -> bool {
    text.len() == 19
        && text.char_indices().all(|(at, c)| match at {
            8 => c == 'T',
            18 => c == 'Z',
            _ => c.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

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

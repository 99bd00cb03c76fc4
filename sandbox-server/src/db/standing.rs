//! Readers on a volume that they cannot write, such as a read-only mount of what another pod writes. SQLite coordinates readers and writers
//! by a file of shared memory that only a writer can make. While there is none, the file is read as one that does not change, and is looked
//! at before and after each statement: when it has changed all the same, the connection is opened anew, and the statement run again.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::file::wal_path;

/// What the files were when a connection was opened. Only of connections that SQLite does not tell by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    path: PathBuf,
    /// Read as a file that does not change.
    pub immutable: bool,
    files: [Option<Identity>; 3],
}

/// Inode, bytes, and when it was changed, in seconds and nanoseconds.
type Identity = (u64, u64, i64, i64);

impl Standing {
    /// Of a database that this program does not write. None: SQLite's own locks do.
    pub fn of(path: &Path) -> Option<Self> {
        if folder_is_writable(path) || !uses_log(path) {
            return None;
        }
        let shared = exists(&wal_path(path)) && exists(&shared_memory(path));
        Some(Self { path: path.to_owned(), immutable: !shared, files: files(path, !shared) })
    }

    /// Whether what was read since may be torn, or what is read next be old.
    pub fn is_outdated(&self) -> bool {
        files(&self.path, self.immutable) != self.files
    }
}

/// With a log in use, SQLite sees each commit; that a writer has ended and another begun with new files, it does not.
fn files(path: &Path, content: bool) -> [Option<Identity>; 3] {
    [path.to_owned(), wal_path(path), shared_memory(path)].map(|file| {
        let meta = fs::metadata(file).ok()?;
        Some(if content { (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()) } else { (meta.ino(), 0, 0, 0) })
    })
}

fn exists(path: &Path) -> bool {
    fs::metadata(path).is_ok()
}

fn shared_memory(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-shm");
    PathBuf::from(name)
}

/// By the version in the header: a database that is not in WAL mode needs no shared memory.
fn uses_log(path: &Path) -> bool {
    let mut header = [0_u8; 20];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok() && header[19] == 2
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

//! A file that appears under its name only when it is whole and on disk, and what is left of those that were killed on the way.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::BackupError;

/// What stands between the name that a file will have and the one that it has until then.
const MARK: &str = ".partial-";

/// What SQLite may have put beside a file that it was writing.
const BESIDE: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// A file that is being written. Dropped unpublished, it is removed.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    /// Locked for as long as somebody writes: what is not locked is a leftover. A process id would not tell, it is 1 in every container.
    _lock: File,
}

impl Partial {
    /// In the folder of `target`, which must take new files.
    pub fn beside(target: &Path) -> Result<Self, BackupError> {
        loop {
            let mut name = target.as_os_str().to_owned();
            name.push(format!("{MARK}{:016x}", RandomState::new().hash_one(target)));
            let path = PathBuf::from(name);
            let fail = |error| BackupError::File("create", path.clone(), error);
            let lock = File::create_new(&path).map_err(fail)?;
            lock.lock().map_err(fail)?;
            // Between the two somebody may have taken it for a leftover.
            if path.exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Where it is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// On disk first, then under its name, then the name on disk. What has the name already is replaced.
    pub fn publish(self, target: &Path) -> Result<u64, BackupError> {
        let bytes = self.flush()?;
        fs::rename(&self.path, target).map_err(|error| BackupError::File("rename", target.to_path_buf(), error))?;
        sync_folder(target)?;
        Ok(bytes)
    }

    /// The same, but a file with the name is left alone, whenever it came: somebody else may have been at it meanwhile, and been faster.
    /// One of no bytes is none.
    pub fn publish_new(self, target: &Path) -> Result<u64, BackupError> {
        let fail = |what| move |error| BackupError::File(what, target.to_path_buf(), error);
        let bytes = self.flush()?;
        if fs::metadata(target).is_ok_and(|there| there.len() == 0) {
            fs::remove_file(target).map_err(fail("remove"))?;
        }
        match fs::hard_link(&self.path, target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(BackupError::Exists(target.to_path_buf())),
            // A file system without second names: then a look is all that there can be.
            Err(_) if target.exists() => return Err(BackupError::Exists(target.to_path_buf())),
            Err(_) => fs::rename(&self.path, target).map_err(fail("rename"))?,
        }
        sync_folder(target)?;
        Ok(bytes)
    }

    fn flush(&self) -> Result<u64, BackupError> {
        let fail = |what| move |error| BackupError::File(what, self.path.clone(), error);
        let file = File::open(&self.path).map_err(fail("open"))?;
        file.sync_all().map_err(fail("flush"))?;
        Ok(file.metadata().map_err(fail("read"))?.len())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    for end in BESIDE {
        let mut path = path.as_os_str().to_owned();
        path.push(end);
        // Gone already after a rename.
        let _ = fs::remove_file(path);
    }
}

/// Removes what killed processes left in a folder on the way to names that are `ours`. What somebody still writes stays.
pub fn sweep(folder: &Path, ours: impl Fn(&str) -> bool) -> Result<usize, BackupError> {
    let entries = fs::read_dir(folder).map_err(|error| BackupError::File("list", folder.to_path_buf(), error))?;
    let mut removed = 0;
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Some((target, end)) = name.split_once(MARK) else { continue };
        if !ours(target) || end.contains('-') {
            continue;
        }
        let path = folder.join(&name);
        let Ok(file) = File::open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => {
                remove(&path);
                removed += 1;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, path = %path.display(), "a leftover cannot be told from a file in use");
            }
        }
    }
    Ok(removed)
}

/// The folder of a file.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn sync_folder(file: &Path) -> Result<(), BackupError> {
    let folder = folder_of(file);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| BackupError::File("flush", folder.to_path_buf(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_took_meanwhile_is_left_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x.db");
        let written = |text: &str| {
            let partial = Partial::beside(&target).unwrap();
            fs::write(partial.path(), text).unwrap();
            partial
        };
        let (first, second) = (written("first"), written("second"));
        // As a program leaves it that was ended at its very beginning.
        fs::write(&target, "").unwrap();
        assert_eq!(first.publish_new(&target).unwrap(), 5);
        assert!(matches!(second.publish_new(&target), Err(BackupError::Exists(path)) if path == target));
        assert_eq!(fs::read_to_string(&target).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "neither left anything");
        written("third").publish(&target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "third");
    }
}

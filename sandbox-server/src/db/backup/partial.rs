//! A file that appears under its name only when it is whole and on disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::BackupError;

/// A file that is being written. Dropped unpublished, it is removed.
#[derive(Debug)]
pub struct Partial(PathBuf);

impl Partial {
    /// In the folder of `target`, which must take new files.
    pub fn beside(target: &Path) -> Result<Self, BackupError> {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = PathBuf::from(name);
        File::create_new(&path).map_err(|error| BackupError::File("create", path.clone(), error))?;
        Ok(Self(path))
    }

    /// Where it is being written.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// On disk first, then under its name, then the name on disk.
    pub fn publish(self, target: &Path) -> Result<u64, BackupError> {
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

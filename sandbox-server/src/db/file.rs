//! The file of a database before it is opened: what is there, and how the log beside it is called.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::error::OpenError;

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

//! The backups of one folder: named after the database and the time, the oldest removed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::{BackupError, Compression};

fn stem(db: &Path) -> String {
    db.file_stem().unwrap_or_else(|| OsStr::new("database")).to_string_lossy().into_owned()
}

/// Now, as files are named by it: sorted by name, they are sorted by time.
pub fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}

/// The name of a backup that is made now.
pub fn name(db: &Path, compression: Option<Compression>) -> String {
    let extension = compression.map(|compression| format!(".{}", compression.extension())).unwrap_or_default();
    format!("{}-{}.db{extension}", stem(db), stamp())
}

/// Removes the oldest of our backups beyond `keep`. Names sort as their times do; other files are not ours.
pub fn prune(db: &Path, folder: &Path, keep: usize) -> Result<Vec<PathBuf>, BackupError> {
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

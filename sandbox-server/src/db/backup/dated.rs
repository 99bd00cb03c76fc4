//! The names of backups: after the database and the time. Sorted by name, those of a database are sorted by time.

use std::ffi::OsStr;
use std::path::Path;

use super::Compression;

/// What the names of a database's backups begin with.
pub fn stem(db: &Path) -> String {
    db.file_stem().unwrap_or_else(|| OsStr::new("database")).to_string_lossy().into_owned()
}

/// Now, as files are named by it.
pub fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}

/// The name of a backup that is made now.
pub fn name(db: &Path, compression: Option<Compression>) -> String {
    let extension = compression.map(|compression| format!(".{}", compression.extension())).unwrap_or_default();
    format!("{}-{}.db{extension}", stem(db), stamp())
}

/// Whether a name is one of this database's backups. Anything else in the same place is not ours.
pub fn is_ours(db: &Path, name: &str) -> bool {
    name.strip_prefix(&format!("{}-", stem(db)))
        .and_then(|rest| [".db", ".db.gz", ".db.zst"].into_iter().find_map(|end| rest.strip_suffix(end)))
        .is_some_and(is_stamp)
}

/// Of all names in a place, the oldest of this database's backups beyond `keep`.
pub fn surplus(db: &Path, names: impl IntoIterator<Item = String>, keep: usize) -> Vec<String> {
    let mut ours: Vec<String> = names.into_iter().filter(|name| is_ours(db, name)).collect();
    ours.sort();
    ours.truncate(ours.len().saturating_sub(keep.max(1)));
    ours
}

/// Of all names in a place, the newest of this database's backups.
pub fn newest(db: &Path, names: impl IntoIterator<Item = String>) -> Option<String> {
    names.into_iter().filter(|name| is_ours(db, name)).max()
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

    #[test]
    fn the_oldest_of_this_database_are_too_many_and_the_newest_is_the_last() {
        let db = Path::new("/data/x.db");
        let names = [
            "x-20260101T000000000Z.db",
            "x-20260103T000000000Z.db.zst",
            "y-20270101T000000000Z.db",
            "x-notes.db",
            "x-20260102T000000000Z.db.gz",
        ];
        let names = || names.map(str::to_owned);
        assert_eq!(surplus(db, names(), 1), ["x-20260101T000000000Z.db", "x-20260102T000000000Z.db.gz"]);
        assert_eq!(surplus(db, names(), 0).len(), 2, "the one just made stays");
        assert!(surplus(db, names(), 3).is_empty());
        assert_eq!(newest(db, names()).as_deref(), Some("x-20260103T000000000Z.db.zst"));
        assert!(is_ours(db, &name(db, Some(Compression::Zstd))));
    }
}

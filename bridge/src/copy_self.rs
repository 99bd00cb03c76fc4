//! Puts this program where a container of another image finds it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Its name there.
const NAME: &str = "bridge";

/// Copies this program into the folder, or to the file if the path ends in its name. The file appears only when it is whole.
pub fn copy_self(to: &Path) -> io::Result<PathBuf> {
    let file = if to.ends_with(NAME) && !to.is_dir() { to.to_owned() } else { to.join(NAME) };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    fs::copy(std::env::current_exe()?, &part)?;
    // Whatever user the other container runs as.
    fs::set_permissions(&part, Permissions::from_mode(0o755))?;
    fs::rename(&part, &file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_whole_and_can_be_run_by_anybody() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
        for (to, file) in [("a", "a/bridge"), ("b/bridge", "b/bridge"), ("a", "a/bridge")] {
            let copied = copy_self(&folder.path().join(to)).unwrap();
            assert_eq!(copied, folder.path().join(file));
            let meta = fs::metadata(&copied).unwrap();
            assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (own, 0o755));
            assert_eq!(fs::read_dir(copied.parent().unwrap()).unwrap().count(), 1, "nothing half is left");
        }
    }
}

//! The day's account in a file, so that a restart does not begin the budget anew. Written a second after an entry at the
//! latest, and at the end; a kill loses that second.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::Ledger;

/// Entries that come close together are written together.
const PACE: Duration = Duration::from_secs(1);

/// Brings back what the file holds, and keeps it from then on.
pub fn keep(ledger: Arc<Ledger>, path: PathBuf) {
    match std::fs::read_to_string(&path) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(day) => ledger.restore(day),
            Err(error) => tracing::warn!("{} holds no account of a day, and is begun anew: {error}", path.display()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("the account in {} cannot be read, and is begun anew: {error}", path.display()),
    }
    let mut entries = ledger.subscribe();
    tokio::spawn(async move {
        let mut failing = false;
        while entries.changed().await.is_ok() {
            let written = write(&ledger, &path);
            if let Err(error) = &written
                && !failing
            {
                tracing::error!("the account cannot be kept in {}: {error}", path.display());
            }
            failing = written.is_err();
            tokio::time::sleep(PACE).await;
        }
    });
}

/// Writes the day beside the file and moves it there, so that a reader sees one or the other.
pub fn write(ledger: &Ledger, path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&ledger.today())?)?;
    std::fs::rename(&new, path)
}

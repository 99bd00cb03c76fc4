//! What each tool was when it was first listed: a definition that changes later is asked about again. It outlives connections, the
//! configuration, and, where it is kept in a file, the process.

use std::{
    collections::HashMap,
    io::Write as _,
    path::{Path, PathBuf},
};

use super::{catalogue::MAX_TOOLS, spec::ToolSpec};

/// Definitions of one server that are remembered: four times what it may offer.
const MAX_REMEMBERED: usize = 4 * MAX_TOOLS;

/// The hash of each tool's first definition, by server and name.
#[derive(Debug, Default)]
pub struct FirstSeen {
    known: HashMap<String, HashMap<String, String>>,
    file: Option<PathBuf>,
}

impl FirstSeen {
    /// Those that a file keeps. A file that cannot be read is told in the log, and begun anew.
    pub fn kept_in(file: PathBuf) -> Self {
        let known = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!("{} is not readable, every tool counts as new: {error}", file.display());
                HashMap::new()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => {
                tracing::error!("{} cannot be read, every tool counts as new: {error}", file.display());
                HashMap::new()
            }
        };
        Self { known, file: Some(file) }
    }

    /// Marks the tools whose definitions are not the first of their names, and remembers the new ones. A server that goes on inventing
    /// names is not believed any more.
    pub fn mark(&mut self, server: &str, specs: &mut [ToolSpec]) {
        let known = self.known.entry(server.to_owned()).or_default();
        let before = known.len();
        for spec in specs {
            if known.len() < MAX_REMEMBERED && !known.contains_key(&spec.name) {
                known.insert(spec.name.clone(), spec.hash.clone());
            }
            if known.get(&spec.name) != Some(&spec.hash) {
                spec.mark_changed();
            }
        }
        if known.len() > before
            && let Some(file) = self.file.take()
        {
            match self.write(&file) {
                Ok(()) => self.file = Some(file),
                // Told once: what cannot be written now will not be later.
                Err(error) => {
                    tracing::warn!(
                        "what tools were at first is forgotten at the next start: {} cannot be written: {error}",
                        file.display()
                    );
                }
            }
        }
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        new.write_all(&serde_json::to_vec(&self.known)?)?;
        new.persist(file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(name: &str, description: &str) -> [ToolSpec; 1] {
        let tool = serde_json::from_value(json!({"name": name, "description": description, "inputSchema": {}})).expect("a tool");
        [ToolSpec::new("s", &tool).expect("fits")]
    }

    fn changed(first_seen: &mut FirstSeen, name: &str, description: &str) -> bool {
        let mut specs = one(name, description);
        first_seen.mark("s", &mut specs);
        specs[0].changed
    }

    #[test]
    fn a_definition_that_changes_is_marked_and_its_first_one_stays_the_measure() {
        let mut first_seen = FirstSeen::default();
        let seen = ["reads", "sends it on", "reads", "sends it on"].map(|description| changed(&mut first_seen, "t", description));
        assert_eq!(seen, [false, true, false, true]);
    }

    #[test]
    fn a_server_that_invents_names_is_not_believed_for_ever() {
        let mut first_seen = FirstSeen::default();
        assert!((0..MAX_REMEMBERED).all(|number| !changed(&mut first_seen, &format!("t{number}"), "")));
        assert!(changed(&mut first_seen, &format!("t{MAX_REMEMBERED}"), ""));
    }

    #[test]
    fn what_was_first_outlives_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("deep/first.json");
        assert!(!changed(&mut FirstSeen::kept_in(file.clone()), "t", "reads"));
        assert!(changed(&mut FirstSeen::kept_in(file.clone()), "t", "sends it on"));
        assert!(!changed(&mut FirstSeen::kept_in(file.clone()), "t", "reads"));
        std::fs::write(&file, "{").expect("written");
        assert!(!changed(&mut FirstSeen::kept_in(file), "t", "anything"), "begun anew");
    }
}

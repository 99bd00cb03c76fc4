//! `operator import FILE…`: the servers that desktop clients and editors know, as McpServer manifests on standard output. Never a
//! credential: each becomes a reference, with the command that makes its Secret. What cannot be carried over stands in a comment, and on
//! standard error.

mod address;
mod arguments;
mod command;
mod file;
mod header;
mod labels;
mod manifest;
mod secret;
mod token;
mod values;
mod yaml;

use std::collections::BTreeSet;

/// What came of one or more files.
#[derive(Debug, Default)]
pub struct Imported {
    /// The manifests, one document a server.
    pub documents: String,
    /// What wants a look, with the server's name before it.
    pub notes: Vec<String>,
    taken: BTreeSet<String>,
}

impl Imported {
    /// Adds the servers of one file. The error is a sentence for people.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let file = file::read(text).map_err(|error| format!("{name}: {error}"))?;
        for entry in &file.entries {
            let manifest = manifest::build(entry, &file.inputs, &self.taken);
            self.documents.push_str("---\n");
            self.documents.push_str(&manifest.to_yaml(&format!("{:?} of {name}", entry.shown_name())));
            let (own, none) = (&manifest.name, if manifest.spec.is_none() { "no manifest: " } else { "" });
            self.notes.extend(manifest.notes.iter().map(|note| format!("{own}: {none}{}", manifest::one_line(note))));
            if !manifest.secrets.is_empty() {
                self.notes.push(format!("{own}: create its Secret {own}-credentials, by the command in its manifest"));
            }
            self.taken.insert(manifest.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod fits;
#[cfg(test)]
mod never;
#[cfg(test)]
mod tests;

//! What outlives a chat: the lines typed and the last conversation, in the user's state directory, for them alone.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{message::Message, turn::transcript::Transcript};

/// `$XDG_STATE_HOME/mcpfleet`, or where that is by default. `None` without a home.
pub fn directory() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("mcpfleet"))
}

/// Writes a conversation into a directory that is there; only its owner can read it.
pub fn save(path: &Path, transcript: &Transcript) -> io::Result<()> {
    let text = serde_json::to_string_pretty(transcript.messages())?;
    let text = crate::numbers::release(&text);
    let mut file = private(path)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}

/// Opens a file that only its owner can read, also where it was another's to read before.
pub fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// A directory that only its owner can look into; what was typed is kept there, too.
pub fn create_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Reads a conversation back.
pub fn load(path: &Path) -> Result<Transcript, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let messages: Vec<Message> = serde_json::from_str(&crate::numbers::guard(&text)).map_err(|error| error.to_string())?;
    Transcript::read(messages).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_comes_back_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state/last.json");
        let mut transcript = Transcript::default();
        transcript.say("hello");
        assert!(save(&path, &transcript).is_err(), "no directory is made unasked");
        create_private(&directory.path().join("state")).expect("made");
        save(&path, &transcript).expect("saved");
        assert_eq!(load(&path).expect("loaded").messages(), transcript.messages());
        let mode = || std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("opened to others");
        transcript.summarise_all("x");
        save(&path, &transcript).expect("saved");
        assert_eq!(
            (mode(), load(&path).expect("loaded").messages()),
            (0o600, transcript.messages()),
            "as an earlier version left it"
        );
        private(&path).expect("opened");
        assert_eq!(load(&path).expect("as it was").messages(), transcript.messages());
    }
}

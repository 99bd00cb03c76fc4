//! The key to the model API: from the environment, or from a file that may change at any time. Never printed.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use secrecy::{ExposeSecret, SecretString};

use crate::redact;

/// Where the key comes from.
#[derive(Debug)]
pub enum KeySource {
    Fixed(SecretString),
    /// Read at every request: a rotated key needs no restart. `last` bridges the moment in which a file is replaced.
    File {
        path: PathBuf,
        last: Mutex<Option<SecretString>>,
    },
    /// A base URL of one's own may need no key.
    None,
}

/// The key could not be read.
#[derive(Debug, thiserror::Error)]
#[error("there is no key to the model API: the file that should hold it {what}")]
pub struct KeyError {
    what: String,
}

impl KeySource {
    pub fn fixed(key: &str) -> Self {
        redact::know(key);
        Self::Fixed(key.into())
    }

    pub fn file(path: PathBuf) -> Self {
        Self::File { path, last: Mutex::new(None) }
    }

    /// The key as it is now.
    pub fn current(&self) -> Result<Option<SecretString>, KeyError> {
        let (path, last) = match self {
            Self::None => return Ok(None),
            Self::Fixed(key) => return Ok(Some(key.clone())),
            Self::File { path, last } => (path, last),
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => "is empty".to_owned(),
            Ok(text) => {
                if last.as_ref().is_none_or(|last| last.expose_secret() != text.trim()) {
                    redact::know_renewed(text.trim());
                    *last = Some(SecretString::from(text.trim()));
                }
                return Ok(last.clone());
            }
            Err(error) => format!("cannot be read ({error})"),
        };
        if let Some(key) = &*last {
            tracing::warn!("the key file {} {problem}; the last key is used", path.display());
            return Ok(Some(key.clone()));
        }
        // Where it is helps whoever reads the log, and nobody who asks a question.
        tracing::error!("the key file {} {problem}", path.display());
        Err(KeyError { what: problem })
    }

    /// Whether the key is now another than `used`: then a refusal may only mean that it was rotated meanwhile.
    pub fn changed_since(&self, used: Option<&SecretString>) -> bool {
        let now = self.current().ok().flatten();
        now.as_ref().map(ExposeSecret::expose_secret) != used.map(ExposeSecret::expose_secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_seen_and_a_missing_one_is_bridged() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let source = KeySource::file(path.clone());
        assert!(source.current().is_err(), "there never was a key");
        std::fs::write(&path, "one\n").expect("write");
        let one = source.current().expect("a key").expect("some");
        assert_eq!(one.expose_secret(), "one");
        std::fs::write(&path, "two").expect("write");
        assert!(source.changed_since(Some(&one)));
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(source.current().expect("the last").expect("some").expose_secret(), "two");
    }
}

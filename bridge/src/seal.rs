//! Session ids that say, to who has the key, all that is needed to go on with the session: where its child is, what its client said of
//! itself, and whose it is. So replicas share sessions without a store, and a client cannot make up or read an id.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What else is sealed with the same key must not pass for a session.
const CONTEXT: &[u8] = b"mcpfleet session 1";

/// How often the file is looked at, at most.
const RECHECK: Duration = Duration::from_secs(1);

/// What a session id holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Address and port of the bridge whose child it is; empty: of none that others could reach.
    #[serde(rename = "p")]
    pub pod: String,
    /// Random.
    #[serde(rename = "s")]
    pub session: u128,
    /// Whose it is: a digest of how its caller proves who it is.
    #[serde(rename = "u")]
    pub caller: [u8; 16],
    /// What the client said that it can do, as JSON.
    #[serde(rename = "a")]
    pub capabilities: Option<String>,
    /// Who the client said that it is, as JSON.
    #[serde(rename = "i")]
    pub info: Option<String>,
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such file, or no permission.
    #[error("failed to read the session key file {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Not what it should be.
    #[error("the session key file {0} must hold keys of 32 bytes in base64, one a line: the first seals, all open")]
    Malformed(PathBuf),
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random,
}

/// Seals with the first key, opens with any.
pub struct Sealer {
    random: SystemRandom,
    file: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    keys: Arc<Vec<LessSafeKey>>,
    modified: Option<SystemTime>,
    checked: Instant,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sealer {
    /// With the keys of a file, which is read again when it changes; without one, with a key that nobody else has.
    pub fn new(file: Option<&Path>) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let (keys, modified) = if let Some(file) = file {
            read(file)?
        } else {
            let mut bytes = [0; 32];
            random.fill(&mut bytes).map_err(|_| KeyError::Random)?;
            (vec![key(&bytes).ok_or(KeyError::Random)?], None)
        };
        let state = Mutex::new(State { keys: Arc::new(keys), modified, checked: Instant::now() });
        Ok(Self { random, file: file.map(Path::to_owned), state })
    }

    /// A number that cannot be guessed.
    pub fn random(&self) -> Result<u128, KeyError> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(|_| KeyError::Random)?;
        Ok(u128::from_le_bytes(bytes))
    }

    /// As it stands in a header.
    pub fn seal(&self, what: &Sealed) -> Result<String, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let mut text = serde_json::to_vec(what).unwrap_or_default();
        let keys = self.keys();
        let first = keys.first().ok_or(KeyError::Random)?;
        first
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(CONTEXT), &mut text)
            .map_err(|_| KeyError::Random)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat()))
    }

    /// None: sealed by nobody whose key is in force.
    pub fn open(&self, text: &str) -> Option<Sealed> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        self.keys().iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            serde_json::from_slice(key.open_in_place(nonce, Aad::from(CONTEXT), &mut sealed).ok()?).ok()
        })
    }

    fn keys(&self) -> Arc<Vec<LessSafeKey>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file
            && state.checked.elapsed() >= RECHECK
        {
            state.checked = Instant::now();
            let changed = fs::metadata(file).ok().and_then(|meta| meta.modified().ok()) != state.modified;
            match changed.then(|| read(file)) {
                Some(Ok((keys, modified))) => (state.keys, state.modified) = (Arc::new(keys), modified),
                // A rotation that is half done must not end the sessions.
                Some(Err(error)) => tracing::warn!("{error}; the keys before stay in force"),
                None => {}
            }
        }
        Arc::clone(&state.keys)
    }
}

fn read(file: &Path) -> Result<(Vec<LessSafeKey>, Option<SystemTime>), KeyError> {
    let fail = |error| KeyError::Read(file.to_owned(), error);
    let modified = fs::metadata(file).map_err(fail)?.modified().ok();
    let text = fs::read_to_string(file).map_err(fail)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Option<Vec<_>> = lines.map(|line| key(&STANDARD.decode(line).ok()?)).collect();
    let keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(|| KeyError::Malformed(file.to_owned()))?;
    Ok((keys, modified))
}

fn key(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, bytes).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Sealed {
        Sealed { pod: "10.0.0.7:8080".into(), session: 1 << 100, caller: [7; 16], capabilities: Some("{}".into()), info: None }
    }

    fn file(keys: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), keys);
        file
    }

    fn write(file: &Path, keys: &[u8]) {
        let lines: Vec<String> = keys.iter().map(|byte| STANDARD.encode([*byte; 32])).collect();
        fs::write(file, lines.join("\n")).unwrap();
    }

    #[test]
    fn what_was_sealed_is_opened_by_who_has_the_key_and_by_nobody_else() {
        let (ours, theirs) = (file(&[1]), file(&[2]));
        let text = Sealer::new(Some(ours.path())).unwrap().seal(&sealed()).unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "it goes into a header");
        assert_eq!(Sealer::new(Some(ours.path())).unwrap().open(&text), Some(sealed()));
        assert_eq!(Sealer::new(Some(theirs.path())).unwrap().open(&text), None);
        assert_eq!(Sealer::new(None).unwrap().open(&text), None);
        let mut changed = text.into_bytes();
        changed[30] = if changed[30] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(Sealer::new(Some(ours.path())).unwrap().open(&changed), None);
    }

    #[tokio::test(start_paused = true)]
    async fn two_keys_are_valid_while_one_is_exchanged() {
        let keys = file(&[1]);
        let sealer = Sealer::new(Some(keys.path())).unwrap();
        let old = sealer.seal(&sealed()).unwrap();
        let rotate = async |to: &[u8], age: u64| {
            write(keys.path(), to);
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
            fs::File::options().write(true).open(keys.path()).unwrap().set_modified(then).unwrap();
            tokio::time::advance(RECHECK).await;
        };
        rotate(&[2, 1], 1).await;
        let new = sealer.seal(&sealed()).unwrap();
        assert!(sealer.open(&old).is_some() && sealer.open(&new).is_some());
        rotate(&[2], 2).await;
        assert!(sealer.open(&old).is_none() && sealer.open(&new).is_some());
        fs::write(keys.path(), "nonsense").unwrap();
        tokio::time::advance(RECHECK).await;
        assert!(sealer.open(&new).is_some(), "the keys before stay in force");
    }

    #[test]
    fn a_file_without_a_key_is_an_error() {
        for text in ["", "short", "!"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            assert!(matches!(Sealer::new(Some(file.path())), Err(KeyError::Malformed(_))), "{text}");
        }
    }
}

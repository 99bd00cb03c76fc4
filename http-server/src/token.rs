//! The bearer token: read from a file, read again when the file changes. Several are valid at once, one a line, and for some time also those
//! that the file held before its last change: replicas see a change at different times, and so do their callers. A token is never logged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// How often the file is looked at, at most, while what is presented is known. What is not known may have been written a moment ago.
const RECHECK: Duration = Duration::from_secs(1);
/// A file that changed less than this before it was read may change again without a later time of change.
const SETTLED: Duration = Duration::from_secs(1);

/// How long the tokens of before a change are still taken. A file that changes once more ends that at once.
pub const GRACE: Duration = Duration::from_mins(2);
/// Shorter ones are too easy to guess.
pub const LEAST_LENGTH: usize = 16;

/// Why the tokens could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No such file, or no permission.
    #[error("failed to read the token file {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// A server that asks for a token which does not exist would refuse everybody.
    #[error("the token file {0} holds no token: write one a line, at least 16 characters each")]
    Empty(PathBuf),
    /// Too easy to guess.
    #[error("the token file {0} holds a token of fewer than 16 characters")]
    Short(PathBuf),
    /// What nobody can present must not look like a way in, and what is meant as a comment must not be one.
    #[error(
        "line {1} of the token file {0} is no token: it is a comment, or holds what no header carries; write tokens alone, one a line"
    )]
    NoToken(PathBuf, usize),
}

/// The tokens in force.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    state: Mutex<State>,
}

type Digest32 = [u8; 32];

struct State {
    digests: Vec<Digest32>,
    /// Those of before the last change, and until when they are taken.
    before: Option<(Vec<Digest32>, Instant)>,
    /// The file's time of change when it was read; none where it has to be read again whatever that time is.
    modified: Option<SystemTime>,
    /// The time of change of a file that could not be taken over, which was said.
    refused: Option<SystemTime>,
    checked: Instant,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("tokens", &self.digests.len()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the file for the first time.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let (digests, modified) = read(path)?;
        let state = State { digests, before: None, modified, refused: None, checked: Instant::now() };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// Whether an `Authorization` header carries a token that is in force.
    pub fn accept(&self, header: Option<&str>) -> bool {
        header.and_then(bearer).is_some_and(|token| self.knows(token))
    }

    /// Whether a token is in force.
    pub fn knows(&self, token: &str) -> bool {
        // Digests have one length whatever the token's, and comparing them takes one time.
        let digest = digest(token);
        self.any(|known| known.ct_eq(&digest))
    }

    /// Whether a token is one that the file holds now: sessions are given for no others.
    pub fn is_current(&self, token: &str) -> bool {
        let digest = digest(token);
        self.current(|known| known.ct_eq(&digest))
    }

    /// Whether `proof` is what `prove` makes of a token that the file holds now, by its SHA-256: a session that was given for it. A changed file ends sessions
    /// at once: whoever has one can sign in again.
    pub fn proved(&self, proof: &[u8], prove: impl Fn(&[u8; 32]) -> Vec<u8>) -> bool {
        self.current(|known| prove(known).ct_eq(proof))
    }

    fn current(&self, is_it: impl Fn(&Digest32) -> subtle::Choice) -> bool {
        self.looked_up(|state| is_one(&state.digests, &is_it))
    }

    fn any(&self, is_it: impl Fn(&Digest32) -> subtle::Choice) -> bool {
        self.looked_up(|state| {
            let before = state.before.as_ref().filter(|(_, until)| Instant::now() < *until);
            is_one(state.digests.iter().chain(before.iter().flat_map(|(digests, _)| digests)), &is_it)
        })
    }

    /// What is unknown is looked for once more in the file as it is now: who has just written a token may use it.
    fn looked_up(&self, is_known: impl Fn(&State) -> bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= RECHECK {
            self.refresh(&mut state);
            return is_known(&state);
        }
        if is_known(&state) {
            return true;
        }
        self.refresh(&mut state);
        is_known(&state)
    }

    /// An unreadable or empty file leaves the last tokens in force: a half-written file must not lock everybody out, nor let anybody in.
    fn refresh(&self, state: &mut State) {
        state.checked = Instant::now();
        let modified = fs::metadata(&self.path).and_then(|meta| meta.modified()).ok();
        if modified.is_some() && modified == state.modified {
            return;
        }
        match read(&self.path) {
            Ok((digests, modified)) => {
                if digests != state.digests {
                    tracing::info!(tokens = digests.len(), "token file read again");
                    let before = std::mem::replace(&mut state.digests, digests);
                    state.before = Some((before, Instant::now() + GRACE));
                }
                (state.modified, state.refused) = (modified, None);
            }
            Err(error) => {
                // A file that is gone has no time.
                let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
                if state.refused.replace(modified) != Some(modified) {
                    tracing::warn!(%error, "token file not taken over; the last tokens stay in force");
                }
            }
        }
    }
}

fn is_one<'d>(digests: impl IntoIterator<Item = &'d Digest32>, is_it: impl Fn(&Digest32) -> subtle::Choice) -> bool {
    digests.into_iter().fold(subtle::Choice::from(0), |found, known| found | is_it(known)).into()
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The SHA-256 of a token.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.trim().as_bytes()).into()
}

/// Whether a header can carry it, and it is no comment.
fn is_presentable(line: &str) -> bool {
    line.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !(line.starts_with('#') && line.contains(' '))
}

/// The tokens, and since when the file is as it is, where that will tell of any later change.
fn read(path: &Path) -> Result<(Vec<Digest32>, Option<SystemTime>), TokenError> {
    let fail = |error| TokenError::Read(path.to_owned(), error);
    let modified = fs::metadata(path).map_err(fail)?.modified().ok();
    let modified = modified.filter(|modified| modified.elapsed().is_ok_and(|age| age >= SETTLED));
    let text = fs::read_to_string(path).map_err(fail)?;
    // Editors of Windows put a byte order mark before the first line.
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let tokens: Vec<_> = lines.clone().filter(|line| !line.is_empty()).collect();
    if tokens.is_empty() {
        return Err(TokenError::Empty(path.to_owned()));
    }
    if let Some(line) = lines.clone().position(|line| !is_presentable(line)) {
        return Err(TokenError::NoToken(path.to_owned(), line + 1));
    }
    if tokens.iter().any(|token| token.len() < LEAST_LENGTH) {
        return Err(TokenError::Short(path.to_owned()));
    }
    Ok((tokens.iter().map(|token| Sha256::digest(token.as_bytes()).into()).collect(), modified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_says_why_once() {
        let folder = tempfile::tempdir().unwrap();
        let error = Tokens::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("Is a directory"), "{error}");
        assert!(std::error::Error::source(&error).is_none(), "whoever tells the cause, too, would tell it twice");
    }

    const OLD: &str = "an-old-token-of-length";
    const NEW: &str = "a-new-token-of-length!";

    fn bearer_of(token: &str) -> String {
        format!("Bearer {token}")
    }

    #[test]
    fn every_token_of_the_file_is_accepted_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{OLD}\n\n{NEW}\n")).unwrap();
        let tokens = Tokens::load(file.path()).unwrap();
        assert!(tokens.accept(Some(&bearer_of(OLD))));
        assert!(tokens.accept(Some(&format!("bearer {NEW}"))));
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer"),
            Some(NEW),
            Some(&format!("Basic {NEW}")[..]),
            Some(&bearer_of(&NEW[1..])[..]),
        ] {
            assert!(!tokens.accept(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), OLD).unwrap();
        let tokens = Tokens::load(file.path()).unwrap();
        let rewrite = |text: &str, seconds: u64| {
            fs::write(file.path(), text).unwrap();
            fs::File::options()
                .write(true)
                .open(file.path())
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                .unwrap();
            let mut state = tokens.state.lock().unwrap();
            state.checked = state.checked.checked_sub(RECHECK).unwrap();
        };
        rewrite(NEW, 1);
        assert!(tokens.accept(Some(&bearer_of(NEW))));
        assert!(tokens.accept(Some(&bearer_of(OLD))), "for a while");
        tokens.state.lock().unwrap().before.as_mut().unwrap().1 = Instant::now();
        assert!(!tokens.accept(Some(&bearer_of(OLD))));
        rewrite("", 2);
        assert!(tokens.accept(Some(&bearer_of(NEW))));
        rewrite("a-third-token-of-length", 3);
        assert!(tokens.accept(Some(&bearer_of("a-third-token-of-length"))));
        rewrite(OLD, 4);
        assert!(tokens.accept(Some(&bearer_of(OLD))) && !tokens.accept(Some(&bearer_of(NEW))), "a further change ends the while");
    }

    #[test]
    fn a_token_counts_from_the_moment_it_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), OLD).unwrap();
        let tokens = Tokens::load(file.path()).unwrap();
        for token in [NEW, OLD, NEW, OLD] {
            fs::write(file.path(), token).unwrap();
            assert!(tokens.is_current(token), "{token}");
        }
    }

    #[test]
    fn what_was_read_half_written_is_read_again_even_when_the_time_of_change_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), OLD).unwrap();
        let tokens = Tokens::load(file.path()).unwrap();
        let at = SystemTime::now();
        for (text, known) in [("", OLD), (NEW, NEW)] {
            fs::write(file.path(), text).unwrap();
            fs::File::options().write(true).open(file.path()).unwrap().set_modified(at).unwrap();
            assert!(!tokens.knows("no-token-of-this-file"));
            assert!(tokens.is_current(known), "{text:?}");
        }
    }

    #[test]
    fn a_file_without_a_usable_token_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Tokens::load(file.path()), Err(TokenError::Empty(_))));
        fs::write(file.path(), "short").unwrap();
        assert!(matches!(Tokens::load(file.path()), Err(TokenError::Short(_))));
        for line in ["# the token of the demo", "tökens-of-no-header", "a\0-token-of-16-bytes"] {
            fs::write(file.path(), format!("{OLD}\n\n{line}\n")).unwrap();
            let error = Tokens::load(file.path()).unwrap_err();
            assert!(matches!(error, TokenError::NoToken(_, 3)), "{line}: {error}");
            assert!(!error.to_string().contains(line), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("\u{feff}{OLD}\r\n{NEW}\r\n")).unwrap();
        let tokens = Tokens::load(file.path()).unwrap();
        assert!(tokens.knows(OLD) && tokens.knows(NEW));
    }

    #[test]
    fn debug_output_shows_no_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), OLD).unwrap();
        assert!(!format!("{:?}", Tokens::load(file.path()).unwrap()).contains("old"));
    }
}

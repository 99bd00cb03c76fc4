//! What a caller may send, and how long it would rather wait than be turned away. Pure.

use std::time::Duration;

use http::HeaderMap;

/// Why a message is not taken. The text says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("the message is empty")]
    Empty,
    #[error("the message has {0} characters, and at most {1} are taken")]
    TooLong(usize, usize),
    #[error("the message holds the control character U+{0:04X}; send plain text")]
    Control(u32),
}

/// Checks what a user sends. Newlines and tabs are text.
pub fn check_message(text: &str, max_chars: usize) -> Result<(), InputError> {
    if text.trim().is_empty() {
        return Err(InputError::Empty);
    }
    check_text(text, max_chars)
}

/// The same of what need not hold any text, such as a picture.
pub fn check_text(text: &str, max_chars: usize) -> Result<(), InputError> {
    let count = text.chars().count();
    if count > max_chars {
        return Err(InputError::TooLong(count, max_chars));
    }
    match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        Some(control) => Err(InputError::Control(control.into())),
        None => Ok(()),
    }
}

/// Nobody waits in line for longer.
const LONGEST_PATIENCE: Duration = Duration::from_mins(1);

/// How long a caller would rather wait than be turned away: `Prefer: wait=SECONDS`, of RFC 7240. Without it, not at all.
pub fn patience(headers: &HeaderMap) -> Duration {
    let preferences =
        headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split([',', ';']));
    let seconds = preferences.filter_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse().ok())?
    });
    Duration::from_secs(seconds.max().unwrap_or(0)).min(LONGEST_PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_rather_wait_says_for_how_long() {
        let patience = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", http::HeaderValue::from_static(value));
            super::patience(&headers).as_secs()
        };
        assert_eq!(["wait=10", "respond-async, wait=\"7\"", "WAIT = 5", "wait=9999"].map(patience), [10, 7, 5, 60]);
        assert_eq!(["wait=-1", "wait=x", "waiting=3", ""].map(patience), [0; 4]);
    }

    #[test]
    fn messages_are_plain_text_of_a_bearable_length() {
        assert_eq!(check_message("two\nlines\tof text 🦀", 100), Ok(()));
        assert_eq!(check_message("  \n", 100), Err(InputError::Empty));
        assert_eq!(check_message("äöü", 2), Err(InputError::TooLong(3, 2)));
        assert_eq!((check_text("", 1), check_text("äöü", 2)), (Ok(()), Err(InputError::TooLong(3, 2))));
        assert_eq!(check_message("a\u{1b}[2J", 100), Err(InputError::Control(0x1b)));
    }
}

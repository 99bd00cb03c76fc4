//! Takes secrets out of text before it reaches a log, a metric or a person: API keys, bearer tokens, and passwords in
//! URLs. Pure. The last line of defence; nothing should put them there in the first place.

use std::borrow::Cow;

const HIDDEN: &str = "[redacted]";

/// The text without `sk-ant-…`, `Bearer …` and `//user:password@`.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("sk-ant-") && !text.contains("://") && !contains_bearer(text) {
        return Cow::Borrowed(text);
    }
    let text = hide_after(text, "sk-ant-", true);
    let text = hide_after(&text, "bearer ", false);
    Cow::Owned(hide_userinfo(&text))
}

fn contains_bearer(text: &str) -> bool {
    find_ignoring_case(text, "bearer ").is_some()
}

fn find_ignoring_case(text: &str, word: &str) -> Option<usize> {
    text.as_bytes().windows(word.len()).position(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// Hides what follows each `marker`, and the marker itself where it is part of the secret.
fn hide_after(text: &str, marker: &str, with_marker: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = find_ignoring_case(rest, marker) {
        let (before, found) = rest.split_at(start);
        let (marker, after) = found.split_at(marker.len());
        let end = after.find(|c: char| !is_token(c)).unwrap_or(after.len());
        out.push_str(before);
        if !with_marker || end == 0 {
            out.push_str(marker);
        }
        if end > 0 {
            out.push_str(HIDDEN);
        }
        rest = &after[end..];
    }
    out + rest
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~+/=".contains(c)
}

fn hide_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace()).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(at) => {
                out.push_str(HIDDEN);
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tokens_and_passwords_are_hidden_and_the_rest_stays() {
        for (text, expected) in [
            ("key sk-ant-api03-AbC_d9 end", "key [redacted] end"),
            ("Authorization: Bearer abc.def==, ok", "Authorization: Bearer [redacted], ok"),
            ("at http://user:pa@ss@host:80/mcp?x", "at http://[redacted]@host:80/mcp?x"),
            ("nothing here", "nothing here"),
            ("a bearer of news", "a bearer [redacted] news"),
            ("https://host/a@b", "https://host/a@b"),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
    }
}

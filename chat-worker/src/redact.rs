//! Takes secrets out of text before it reaches a log, a metric or a person: API keys, bearer tokens, and passwords in
//! URLs. Pure. The last line of defence; nothing should put them there in the first place.

use std::borrow::Cow;

const HIDDEN: &str = "[redacted]";

/// What begins with `sk-` and is at least so long is a key, whoever's.
const SHORTEST_KEY: usize = 20;

/// The text without `sk-ant-…` and other keys, `Bearer …` and `//user:password@`.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("sk-") && !text.contains("://") && !contains_bearer(text) {
        return Cow::Borrowed(text);
    }
    let text = hide_keys(text);
    let text = hide_after(&text, "bearer ");
    Cow::Owned(hide_userinfo(&text))
}

fn contains_bearer(text: &str) -> bool {
    find_ignoring_case(text, "bearer ").is_some()
}

fn find_ignoring_case(text: &str, word: &str) -> Option<usize> {
    text.as_bytes().windows(word.len()).position(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

fn hide_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("sk-") {
        let (before, found) = rest.split_at(start);
        let end = found.find(|c: char| !is_token(c)).unwrap_or(found.len());
        let in_word = before.ends_with(|c: char| c.is_ascii_alphanumeric());
        let is_key = found.starts_with("sk-ant-") && end > "sk-ant-".len() || end >= SHORTEST_KEY && !in_word;
        out.push_str(before);
        out.push_str(if is_key { HIDDEN } else { &found[..end] });
        rest = &found[end..];
    }
    out + rest
}

/// Hides what follows each `marker`.
fn hide_after(text: &str, marker: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = find_ignoring_case(rest, marker) {
        let (before, after) = rest.split_at(start + marker.len());
        let end = after.find(|c: char| !is_token(c)).unwrap_or(after.len());
        out.push_str(before);
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
            ("Incorrect API key provided: sk-proj-abcdefgh12345678.", "Incorrect API key provided: [redacted]"),
            ("task-oriented-and-rather-long disk-0", "task-oriented-and-rather-long disk-0"),
            ("nothing here", "nothing here"),
            ("a bearer of news", "a bearer [redacted] news"),
            ("https://host/a@b", "https://host/a@b"),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
    }
}

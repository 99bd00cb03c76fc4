//! Takes secrets out of text before it reaches a log, a metric or a person: API keys, bearer tokens, and passwords in
//! URLs. Pure. The last line of defence; nothing should put them there in the first place.

use std::borrow::Cow;

const HIDDEN: &str = "[redacted]";

/// How keys begin, and how many letters such a word has at least: of model APIs, GitHub, GitLab, Slack, AWS, Google, Hugging Face and npm,
/// and JSON Web Tokens. Shorter words are words.
const KEYS: [(&str, usize); 18] = [
    ("sk-ant-", 8),
    ("sk-", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxa-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xapp-", 16),
    ("AKIA", 20),
    ("AIza", 30),
    ("hf_", 30),
    ("npm_", 40),
    ("eyJ", 30),
];

/// The text without API keys, `Bearer …` and `//user:password@`.
pub fn redact(text: &str) -> Cow<'_, str> {
    let has_key = KEYS.iter().any(|(beginning, _)| text.contains(beginning));
    if !has_key && !text.contains("://") && !contains_bearer(text) {
        return Cow::Borrowed(text);
    }
    let text = KEYS.iter().fold(text.to_owned(), |text, (beginning, least)| hide_keys(text, beginning, *least));
    let text = hide_after(&text, "bearer ");
    Cow::Owned(hide_userinfo(&text))
}

fn contains_bearer(text: &str) -> bool {
    find_ignoring_case(text, "bearer ").is_some()
}

fn find_ignoring_case(text: &str, word: &str) -> Option<usize> {
    text.as_bytes().windows(word.len()).position(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// Hides the words that begin so, and have so many letters at least.
fn hide_keys(text: String, beginning: &str, least: usize) -> String {
    if !text.contains(beginning) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(beginning) {
        let (before, found) = rest.split_at(start);
        let end = found.find(|c: char| !is_token(c)).unwrap_or(found.len());
        let in_word = before.ends_with(|c: char| c.is_ascii_alphanumeric());
        let is_key = end >= least && !in_word;
        // Behind what only begins so, a key may stand.
        let end = if is_key { end } else { beginning.len() };
        out.push_str(before);
        out.push_str(if is_key { HIDDEN } else { beginning });
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
            ("GITHUB_TOKEN=ghp_0123456789abcdefghijABCDEFGHIJ012345", "GITHUB_TOKEN=[redacted]"),
            ("github_pat_11ABCDEFG0_abcdefghij: expired", "[redacted]: expired"),
            ("xoxb-123456789012-abcdef, glpat-abcdefghij1234567890", "[redacted], [redacted]"),
            ("id AKIAIOSFODNN7EXAMPLE is unknown", "id [redacted] is unknown"),
            ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl", "token [redacted]"),
            ("sk-sk-ant-api03-AbC_d9", "sk-[redacted]"),
            ("npm_config_cache hf_hub eyJ AKIA ghp_ task-sk-1", "npm_config_cache hf_hub eyJ AKIA ghp_ task-sk-1"),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
    }
}

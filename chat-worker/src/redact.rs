//! Takes secrets out of text before it reaches a log, a metric or a person: API keys, bearer tokens, passwords in URLs, private keys, and
//! what this process was given itself (`know`). The last line of defence; nothing should put them there in the first place.

use std::{
    borrow::Cow,
    ops::BitOr,
    sync::{Arc, LazyLock},
};

use arc_swap::ArcSwap;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use fancy_regex::Regex;
use mcp_stdio::secrets;
use mcp_wire::mask::{self, Mask};
use serde_json::Value;

const HIDDEN: &str = "[redacted]";

/// How keys begin, and how many letters such a word has at least: of model APIs, GitHub, GitLab, Slack, AWS, Google, Hugging Face, npm, PyPI,
/// Docker, Stripe, SendGrid, Shopify, DigitalOcean, Linear, Notion and Atlassian, and JSON Web Tokens. Shorter words are words.
const KEYS: [(&str, usize); 35] = [
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
    ("xoxe-", 16),
    ("xoxr-", 16),
    ("xoxs-", 16),
    ("glptt-", 16),
    ("gldt-", 16),
    ("sk_live_", 20),
    ("sk_test_", 20),
    ("rk_live_", 20),
    ("SG.", 60),
    ("ya29.", 30),
    ("shpat_", 30),
    ("dop_v1_", 40),
    ("lin_api_", 30),
    ("ntn_", 40),
    ("ATATT", 40),
    ("dckr_pat_", 20),
    ("pypi-AgE", 60),
    ("AKIA", 20),
    ("AIza", 30),
    ("hf_", 30),
    ("npm_", 40),
    ("eyJ", 30),
];

/// Names that stand for a secret in an environment, and for what is looked up in JSON.
const LOOKED_UP: [&str; 3] = ["key", "keys", "session"];

/// What stands before a credential in a header.
const SCHEMES: [&str; 4] = ["bearer ", "basic ", "token ", "apikey "];
/// A word that is written in small letters is one, whatever it is the value of.
const LONGEST_WORD: usize = 11;

/// What a text holds that has anything to hide, but for what this process was given.
static SUSPECT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let keys = KEYS.map(|(beginning, _)| beginning.replace('.', r"\.")).join("|");
    Regex::new(&format!("{keys}|://|{PEM}|(?i:bearer |basic )")).ok()
});

static KNOWN: LazyLock<ArcSwap<Known>> = LazyLock::new(ArcSwap::default);

/// What this process was given.
#[derive(Debug, Clone, Default)]
struct Known {
    /// What stays for as long as it runs.
    fixed: Arc<Mask>,
    /// What is renewed, and the ones before.
    renewed: Arc<Mask>,
    /// Those before them, when there were too many.
    former: Arc<Mask>,
}

/// Hides a credential from now on, wherever it stands. A scheme before it (`Bearer …`) is no part of it.
pub fn know(value: &str) {
    let Some(new) = mask_of(value).filter(|new| !KNOWN.load().fixed.hides_all_of(new)) else { return };
    KNOWN.rcu(|known| Known { fixed: Arc::new(new.clone().and(&known.fixed)), ..Known::clone(known) });
}

/// The same of one that will be followed by others: the last thousand are hidden.
pub fn know_renewed(value: &str) {
    let Some(new) = mask_of(value) else { return };
    KNOWN.rcu(|known| {
        let renewed = new.clone().with_former(Some(Arc::clone(&known.renewed)));
        let former = if renewed.hides_all_of(&known.renewed) { &known.former } else { &known.renewed };
        Known { former: Arc::clone(former), renewed, ..Known::clone(known) }
    });
}

/// Whether a header's value says by a scheme that it is a credential.
pub fn has_scheme(value: &str) -> bool {
    bare(value) != value
}

fn bare(value: &str) -> &str {
    let scheme = SCHEMES.iter().find(|scheme| find_ignoring_case(value, scheme) == Some(0));
    scheme.map_or(value, |scheme| value[scheme.len()..].trim())
}

fn mask_of(value: &str) -> Option<Mask> {
    let bare = bare(value);
    let is_word = bare.len() <= LONGEST_WORD && bare.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let mask: Mask = mask::prints(bare.as_bytes()).into_iter().collect();
    (!is_word && !mask.is_empty()).then_some(mask)
}

impl Known {
    fn is_empty(&self) -> bool {
        self.masks().iter().all(|mask| mask.is_empty())
    }

    fn masks(&self) -> [&Mask; 3] {
        [&self.fixed, &self.renewed, &self.former]
    }

    fn apply(&self, text: String) -> String {
        self.masks().iter().fold(text, |text, mask| mask.apply(text))
    }
}

/// JSON without the texts in fields whose names stand for secrets, and without what `redact` takes out. As it was written, where there is
/// nothing to take out.
pub fn redact_json(written: &str) -> Cow<'_, str> {
    let Ok(mut value) = serde_json::from_str::<Value>(written) else { return redact(written) };
    if hide_named(&mut value, false) { Cow::Owned(redact(&value.to_string()).into_owned()) } else { redact(written) }
}

/// Whether it hid anything.
fn hide_named(value: &mut Value, is_secret: bool) -> bool {
    match value {
        Value::String(text) if is_secret && !text.is_empty() => {
            HIDDEN.clone_into(text);
            true
        }
        Value::Array(items) => items.iter_mut().map(|item| hide_named(item, is_secret)).fold(false, BitOr::bitor),
        Value::Object(fields) => {
            let named = |name: &str, field: &Value| {
                let harmless = field.as_str().is_some_and(|text| secrets::is_harmless(name, text));
                secrets::is_telling(name) && !harmless && !LOOKED_UP.iter().any(|word| name.eq_ignore_ascii_case(word))
            };
            let hide = |(name, field): (&String, &mut Value)| {
                let is_secret = is_secret || named(name, field);
                hide_named(field, is_secret)
            };
            fields.iter_mut().map(hide).fold(false, BitOr::bitor)
        }
        _ => false,
    }
}

/// The text without API keys, `Bearer …`, `Basic …`, `//user:password@`, private keys, and what this process was given.
pub fn redact(text: &str) -> Cow<'_, str> {
    let known = KNOWN.load();
    let is_plain = SUSPECT.as_ref().is_some_and(|suspect| !suspect.is_match(text).unwrap_or(true));
    if is_plain {
        return if known.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(known.apply(text.to_owned())) };
    }
    let text = KEYS.iter().fold(text.to_owned(), |text, (beginning, least)| hide_keys(text, beginning, *least));
    let text = hide_after(&text, "bearer ", |token| !token.is_empty());
    let text = hide_after(&text, "basic ", is_basic);
    Cow::Owned(known.apply(hide_userinfo(&hide_private_keys(&text))))
}

/// A user and a password (RFC 7617), and not a word. What ends a sentence is no part of it.
fn is_basic(token: &str) -> bool {
    let token = token.trim_end_matches(['.', '~', '=']);
    [BASE64_NOPAD, BASE64URL_NOPAD].iter().any(|coding| coding.decode(token.as_bytes()).is_ok_and(|pair| pair.contains(&b':')))
}

const PEM: &str = "PRIVATE KEY-----";
/// Less is what a sentence says behind the mark.
const SHORTEST_KEY: usize = 32;

/// Hides private keys: from behind the line that begins one to the line that ends it, or as far as what follows can be one.
fn hide_private_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(PEM) {
        out.extend([before, PEM]);
        let is_of_key = |c: char| c.is_ascii_alphanumeric() || c.is_whitespace() || "+/=\\".contains(c);
        let end = behind.find(|c: char| !is_of_key(c)).unwrap_or(behind.len());
        let (key, after) = behind.split_at(end);
        let after = match after.strip_prefix("-----END").and_then(|after| after.split_once(PEM)) {
            Some((_, after)) => after,
            None if key.len() < SHORTEST_KEY => {
                out.push_str(key);
                rest = after;
                continue;
            }
            None => after,
        };
        out.push_str(HIDDEN);
        rest = after;
    }
    out + rest
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

/// Hides the word that follows each `marker`, where it is a secret.
fn hide_after(text: &str, marker: &str, is_secret: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = find_ignoring_case(rest, marker) {
        let (before, after) = rest.split_at(start + marker.len());
        let end = after.find(|c: char| !is_token(c)).unwrap_or(after.len());
        out.push_str(before);
        out.push_str(if is_secret(&after[..end]) { HIDDEN } else { &after[..end] });
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
            ("Authorization: Basic dXNlcjpwYXNz, basic usage", "Authorization: Basic [redacted], basic usage"),
            ("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\nend", "-----BEGIN PRIVATE KEY-----[redacted]\nend"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy",
                "-----BEGIN RSA PRIVATE KEY-----[redacted]",
            ),
            (
                "no -----BEGIN PRIVATE KEY----- in /etc/x.pem: not found",
                "no -----BEGIN PRIVATE KEY----- in /etc/x.pem: not found",
            ),
            ("it says Basic dXNlcjpwYXNz.", "it says Basic [redacted]"),
            ("at ya29.a0AfH6SMBx-abcdefghijklmnopq: expired", "at [redacted]: expired"),
            ("Stripe: sk_live_51Habcdefghijklmn is revoked", "Stripe: [redacted] is revoked"),
            ("xoxe-1-abcdefghijklmnop or dckr_pat_abcdefghijklmn", "[redacted] or [redacted]"),
            ("BASIC dXNlcjpwYXNz", "BASIC [redacted]"),
            ("SG.com, pypi-server and sk_test_mode", "SG.com, pypi-server and sk_test_mode"),
            ("pypi-AgEIcHlwaS5vcmcCJDAxMjM0NTY3LTg5YWItY2RlZi0wMTIzLTQ1Njc4OWFiY2RlZg: expired", "[redacted]: expired"),
            (
                "at https://pypi-mirror-of-the-whole-company.packages.internal.example.com: not found",
                "at https://pypi-mirror-of-the-whole-company.packages.internal.example.com: not found",
            ),
            ("npm_config_cache hf_hub eyJ AKIA ghp_ task-sk-1", "npm_config_cache hf_hub eyJ AKIA ghp_ task-sk-1"),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
    }

    #[test]
    fn what_this_process_was_given_is_hidden_wherever_it_stands() {
        for given in ["Bearer quite-an-odd-one", "x1", "ollama", "lm-studio"] {
            know(given);
        }
        assert_eq!(redact("refused: {\"x-api-key\": \"quite-an-odd-one\"} x1"), "refused: {\"x-api-key\": \"***\"} x1");
        assert_eq!(redact("ollama and lm-studio are words"), "ollama and lm-studio are words");
        for number in 0..2_000 {
            know_renewed(&format!("Bearer of-the-hour-{number}"));
        }
        assert_eq!(redact("quite-an-odd-one of-the-hour-1999, of-the-hour-1500"), "*** ***, ***");
    }

    #[test]
    fn fields_that_are_named_for_a_secret_are_hidden_and_others_stay_as_they_are_written() {
        for (written, expected) in [
            (r#"{ "query": "SELECT 1.0",  "max_tokens": 5 }"#, r#"{ "query": "SELECT 1.0",  "max_tokens": 5 }"#),
            (r#"{"password": "hunter2", "user": "me"}"#, r#"{"password":"[redacted]","user":"me"}"#),
            (r#"{"a": [{"API-Key": "abcd"}], "private_key": ""}"#, r#"{"a":[{"API-Key":"[redacted]"}],"private_key":""}"#),
            (r#"{"secrets": {"one": ["x", 2]}}"#, r#"{"secrets":{"one":["[redacted]",2]}}"#),
        ] {
            assert_eq!(redact_json(written), expected, "{written}");
        }
    }
}

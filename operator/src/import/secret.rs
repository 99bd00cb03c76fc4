//! What is a secret, by its name and by its shape, wherever it stands: in a variable, an argument, a note. Pure.

use mcp_stdio::secrets;
use serde_json::Value;

use super::{address, token};

/// What stands in a note for what must not be there.
pub const HIDDEN: &str = "(a credential, left out)";

/// Whether the value that is called so is a secret. A name of nothing is empty.
pub fn is_secret(name: &str, value: &str) -> bool {
    secrets::tells(name, value) || has_its_shape(value)
}

/// The value as a note may show it.
pub fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name, value) { HIDDEN } else { value }
}

/// Whether a value is one, or has one in it, whatever its name.
fn has_its_shape(value: &str) -> bool {
    let scheme =
        ["bearer ", "basic "].iter().any(|scheme| value.get(..scheme.len()).is_some_and(|at| at.eq_ignore_ascii_case(scheme)));
    scheme
        || token::begins(value)
        || value.contains("-----BEGIN ")
        || address::hold_a_credential(value)
        || serde_json::from_str::<Value>(value).is_ok_and(|json| is_in_json(&json))
        || assignments(value).any(|(name, value)| secrets::tells(name, value))
        || options(value).any(|(name, value)| secrets::tells(name, value))
        || words(value).any(is_random)
}

/// `--name value` within a text: a whole command line in one argument, or the options of a program in a variable.
fn options(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split_whitespace().zip(text.split_whitespace().skip(1));
    pairs.filter(|(name, value)| name.starts_with('-') && !name.contains('=') && !value.starts_with('-'))
}

fn is_in_json(json: &Value) -> bool {
    match json {
        Value::Object(fields) => {
            is_variable(json)
                || fields.iter().any(|(name, value)| match value {
                    Value::String(text) => is_secret(name, text),
                    Value::Number(number) => is_secret(name, &number.to_string()),
                    Value::Array(values) if secrets::is_telling(name) => values.iter().any(Value::is_string) || is_in_json(value),
                    other => is_in_json(other),
                })
        }
        Value::Array(values) => values.iter().any(is_in_json),
        Value::String(text) => has_its_shape(text),
        _ => false,
    }
}

/// One of a list of variables or headers, whose name says that it is one.
fn is_variable(json: &Value) -> bool {
    json["name"].as_str().zip(json["value"].as_str()).is_some_and(|(name, value)| is_secret(name, value))
}

/// `NAME=VALUE` and `NAME: VALUE` within a text, with or without quotes: of headers, of connection strings, of what is nearly JSON.
/// `==`, `>=` and their like compare, and `://` is of an address.
fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    const QUOTES: [char; 3] = ['"', '\'', '`'];
    text.char_indices().filter(|(_, c)| matches!(c, '=' | ':')).filter_map(move |(at, sign)| {
        let (before, after) = (&text[..at], &text[at + 1..]);
        if before.ends_with(['=', '<', '>', '~', '!', ':']) || after.starts_with(['=', ':']) || after.starts_with("//") {
            return None;
        }
        let name = before.trim_end().trim_end_matches(QUOTES);
        let start = name.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c)).len();
        // What stands before a version is the last part of an image's or a package's name.
        let version = after.starts_with(|c: char| c.is_ascii_digit() || c == 'v') || after.starts_with("latest");
        let path = sign == ':' && version && start > 1 && name[..start].ends_with(['/', '@']);
        let value = after.trim_start();
        let end = |c: char| c.is_whitespace() || QUOTES.contains(&c) || ",;&}".contains(c);
        let value = match value.strip_prefix(QUOTES) {
            Some(quoted) => quoted.split(QUOTES).next(),
            None => value.split(end).next(),
        };
        let value = value.unwrap_or_default();
        (!path).then_some((&name[start..], value))
    })
}

/// What stands alone in a text, and in no path: paths are made of names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| c.is_whitespace() || "\"'`,;()[]{}<>|&".contains(c));
    let parts = parts.flat_map(|part| {
        let (name, value) = part.split_once(['=', ':']).unwrap_or(("", part));
        // What pins is no secret: a digest, a commit.
        [part, if name.ends_with("sha256") || part.contains(['@', '#']) { "" } else { value }]
    });
    parts.filter(|part| !part.is_empty())
}

/// Whether a word is what services hand out, or long and without any sense.
fn is_random(word: &str) -> bool {
    let kinds = [char::is_ascii_lowercase, char::is_ascii_uppercase, char::is_ascii_digit as fn(&char) -> bool];
    let of_kind = |kind: &fn(&char) -> bool| word.chars().any(|c| kind(&c));
    let hex = word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let of =
        |more: &[u8]| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte)) && kinds.iter().all(of_kind);
    // Base64 has slashes, and a path has them, too: it begins with one, or is short.
    let mixed = (word.len() >= 24 && of(b"-_+=")) || (word.len() >= 40 && !word.starts_with('/') && of(b"-_+=/"));
    hex || mixed || token::is_one(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_stand_in_texts() {
        for (text, found) in [
            ("a=b c: d", vec![("a", "b"), ("c", "d")]),
            ("{\"a\": \"b c\", d:'e'}", vec![("a", "b c"), ("d", "e")]),
            ("Server=h;Account Key = k;", vec![("Server", "h"), ("Key", "k")]),
            ("mcp-auth==1.0 b>=2 c!=3 https://h", vec![]),
            ("ghcr.io/x/auth:1.0", vec![]),
        ] {
            assert_eq!(assignments(text).collect::<Vec<_>>(), found, "{text}");
        }
    }
}

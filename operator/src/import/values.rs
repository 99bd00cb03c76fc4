//! Which values are secrets, and which are asked for: those never stand in a manifest. Pure.

use std::collections::BTreeMap;

use super::file::Input;

/// What a value becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It stands in the manifest.
    Plain(String),
    /// It stands in a Secret.
    Secret,
}

/// Words in the name of a variable, a header or a flag whose value is a secret.
const TELLING: [&str; 17] = [
    "token",
    "key",
    "secret",
    "password",
    "passwd",
    "pwd",
    "pass",
    "credential",
    "credentials",
    "auth",
    "authorization",
    "pat",
    "dsn",
    "cookie",
    "bearer",
    "signature",
    "jwt",
];

/// Beginnings of what services hand out.
const BEGINNINGS: [&str; 22] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "ntn_",
    "secret_",
    "hf_",
    "Bearer ",
    "Basic ",
];

/// What becomes of the value that is called so. `${input:x}`, `${env:X}`, `${X}` and the like are asked for, or of the machine.
pub fn keep(name: &str, value: &str, inputs: &BTreeMap<String, Input>) -> Kept {
    if is_telling(name) || looks_secret(value) {
        // A folder, a file or a switch is none, whatever its name.
        let harmless = value.is_empty() || value.starts_with("./") || ["true", "false", "0", "1"].contains(&value);
        return if harmless { Kept::Plain(value.to_owned()) } else { Kept::Secret };
    }
    match with_defaults(value, inputs) {
        Some(text) => Kept::Plain(text),
        None => Kept::Secret,
    }
}

/// Whether the name of a variable, a header or a flag says so.
pub fn is_telling(name: &str) -> bool {
    let mut words = Vec::new();
    let mut lower = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (lower && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        lower = c.is_ascii_lowercase();
        if c.is_ascii_alphanumeric() {
            if words.is_empty() {
                words.push(String::new());
            }
            words.last_mut().expect("one was put there").push(c.to_ascii_lowercase());
        }
    }
    words.iter().any(|word| TELLING.contains(&word.as_str()) || word.ends_with("apikey") || word.ends_with("token"))
}

/// Whether a value is what services hand out, an address with a password, or long and without any sense.
pub fn looks_secret(value: &str) -> bool {
    if BEGINNINGS.iter().any(|beginning| value.starts_with(beginning)) {
        return true;
    }
    if let Some((_, rest)) = value.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        let in_query =
            query.split('&').filter_map(|part| part.split_once('=')).any(|(name, value)| !value.is_empty() && is_telling(name));
        return authority.contains('@') || in_query;
    }
    let kinds = [char::is_ascii_lowercase, char::is_ascii_uppercase, char::is_ascii_digit as fn(&char) -> bool];
    let of_kind = |kind: &fn(&char) -> bool| value.chars().any(|c| kind(&c));
    let hex = value.len() >= 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mixed = value.len() >= 24
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+=".contains(&byte))
        && kinds.iter().all(of_kind);
    hex || mixed
}

/// The value with what is asked for at its default. None: something has none.
fn with_defaults(value: &str, inputs: &BTreeMap<String, Input>) -> Option<String> {
    let mut text = String::new();
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        text.push_str(&rest[..at]);
        let (inside, after) = rest[at + 2..].split_once('}')?;
        let default = match inside.strip_prefix("input:") {
            Some(id) => inputs.get(id).filter(|input| !input.password).and_then(|input| input.default.clone()),
            None => inside.split_once(":-").map(|(_, default)| default.to_owned()),
        };
        text.push_str(&default?);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// Whether it is of a person's own machine: a home folder, a drive, an editor's folder.
pub fn is_of_a_desktop(value: &str) -> bool {
    let folder = ["/Users/", "/home/", "~/", "./", "../"].iter().any(|beginning| value.starts_with(beginning));
    let drive =
        value.get(1..3).is_some_and(|rest| rest == ":\\" || rest == ":/") && value.starts_with(|c: char| c.is_ascii_alphabetic());
    folder || drive || ["${workspaceFolder", "${userHome", "${HOME}"].iter().any(|of| value.contains(of))
}

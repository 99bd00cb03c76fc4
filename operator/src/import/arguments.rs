//! Arguments of a program, with what is a secret taken out: Kubernetes puts a variable in for it. Pure.

use std::collections::BTreeMap;

use mcp_stdio::secrets;

use super::{
    file::Input,
    header, secret,
    values::{self, Kept},
};

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// It stands in the manifest.
    Plain {
        /// `--name=`, or nothing.
        prefix: String,
        /// The option whose value it is. Empty: it is none's.
        called: String,
        /// The rest.
        value: String,
    },
    /// A secret, called so, with what stands before it.
    Secret {
        /// `--header=X-Key: `.
        prefix: String,
        /// `X-Key`.
        name: String,
    },
}

/// What becomes of each.
pub fn read(args: &[String], inputs: &BTreeMap<String, Input>) -> Vec<Argument> {
    let mut option = "";
    let mut done = Vec::new();
    for arg in args {
        let (given, value) = split_option(arg);
        let called = if given.is_empty() { option } else { given.trim_end_matches('=') };
        done.push(one(given, called, value, inputs));
        // `--env NAME VALUE`, `--header NAME VALUE`.
        let named =
            (header::OPTIONS.contains(&called) || ["-e", "--env", "--set"].contains(&called)) && secrets::is_telling(value);
        option = if given.is_empty() && (is_option(arg) || named) { arg } else { "" };
    }
    done
}

/// Whether it is a name, as options have it. A secret may begin with a sign, too.
fn is_option(arg: &str) -> bool {
    let name = arg.trim_start_matches('-');
    arg.starts_with("--")
        || (arg.starts_with('-') && (name.len() < 2 || name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')))
}

/// `--name=` and its value, `-H` and the header that is glued to it. Nothing and the whole: it is no option with a value.
fn split_option(arg: &str) -> (&str, &str) {
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if let Some(glued) = arg.strip_prefix("-H").filter(|rest| header::split(rest).is_some()) {
        return arg.split_at(arg.len() - glued.len());
    }
    match arg.split_once('=') {
        Some((name, value)) if name.starts_with('-') && is_name(name) => arg.split_at(arg.len() - value.len()),
        _ => ("", arg),
    }
}

fn one(given: &str, called: &str, value: &str, inputs: &BTreeMap<String, Input>) -> Argument {
    let plain = |value: &str| Argument::Plain { prefix: given.to_owned(), called: called.to_owned(), value: value.to_owned() };
    let secret = |before: &str, name: &str| Argument::Secret { prefix: format!("{given}{before}"), name: name.to_owned() };
    if header::OPTIONS.contains(&called)
        && let Some((name, between, content)) = header::split(value)
        && !content.is_empty()
    {
        let harmless = header::is_harmless(name) && !secret::is_secret("", content);
        return if harmless { plain(value) } else { secret(&format!("{name}{between}"), name) };
    }
    if let Some((name, before)) = named(value) {
        return secret(before, name);
    }
    // What follows an option and is one itself is no value of it.
    let called = if given.is_empty() && is_option(value) { "" } else { called };
    let login = matches!(called, "-u" | "--user" | "--proxy-user") && is_login(value);
    match values::keep(called, value, inputs) {
        Kept::Plain(value) if !login => plain(&value),
        _ => secret("", called),
    }
}

/// `API_KEY=` or `X-Api-Key: ` before a secret that goes on to the end: the name, and all that stands before the secret.
fn named(value: &str) -> Option<(&str, &str)> {
    let at = value.find(['=', ':'])?;
    let (name, rest) = (&value[..at], &value[at + 1..]);
    let content = rest.trim_start();
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !name.starts_with('-');
    let goes_on = !rest.starts_with(['=', ':']) && !rest.starts_with("//") && !content.is_empty();
    let is_secret = secrets::tells(name, content);
    (is_name && goes_on && is_secret).then(|| (name, &value[..value.len() - content.len()]))
}

/// `user:password`. `1000:1000` are numbers of a user and a group.
fn is_login(value: &str) -> bool {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    value.split_once(':').is_some_and(|(user, password)| !number(user) || !number(password))
}

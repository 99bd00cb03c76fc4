//! What becomes of a value: what is a secret, and what is asked for, never stands in a manifest. Pure.

use std::collections::BTreeMap;

use mcp_stdio::secrets;

use super::{file::Input, secret};

/// What a value becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It stands in the manifest.
    Plain(String),
    /// It stands in a Secret.
    Secret,
}

/// What becomes of the value that is called so. `${input:x}`, `${env:X}`, `${X}` and the like are asked for, or of the machine.
pub fn keep(name: &str, value: &str, inputs: &BTreeMap<String, Input>) -> Kept {
    if is_a_file_with_a_secret(name, value) {
        return Kept::Plain(value.to_owned());
    }
    if secret::is_secret(name, value) {
        return Kept::Secret;
    }
    match with_defaults(value, inputs) {
        // What was put in may be one, too.
        Some(text) if !secret::is_secret(name, &text) => Kept::Plain(text),
        _ => Kept::Secret,
    }
}

/// Whether it names a file of a person's machine in which the secret is: the path itself is none.
pub fn is_a_file_with_a_secret(name: &str, value: &str) -> bool {
    let path = ["/Users/", "/home/", "~/"].iter().any(|beginning| value.starts_with(beginning)) || has_a_drive(value);
    path && !value.contains("${") && secret::is_secret(name, value) && !secret::is_secret("", value)
}

/// Endings of files that hold keys, and words in the names of others that hold credentials.
const KEY_FILES: [&str; 4] = ["pem", "key", "p12", "pfx"];
const TELLING: [&str; 5] = ["credential", "secret", "token", "service-account", "service_account"];

/// Whether it is a file of a person's machine in which credentials are, by its name.
pub fn is_a_file_of_credentials(value: &str) -> bool {
    let file = value.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase();
    let Some((name, ending)) = file.rsplit_once('.') else { return false };
    is_of_a_desktop(value) && (KEY_FILES.contains(&ending) || TELLING.iter().any(|word| name.contains(word)))
}

/// Variables that say where things are on one machine. A pod's image has its own, and does not start without them.
const OF_ONE_MACHINE: [&str; 12] = [
    "PATH",
    "PATHEXT",
    "HOME",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "SYSTEMROOT",
    "COMSPEC",
    "NODE_PATH",
    "NVM_DIR",
    "NVM_BIN",
    "PYENV_ROOT",
];

/// Whether this variable says where things are on one machine.
pub fn is_of_one_machine(variable: &str) -> bool {
    OF_ONE_MACHINE.iter().any(|name| name.eq_ignore_ascii_case(variable))
}

/// Variables of an editor or a shell that stand for a folder of the machine, and are no secrets.
const FOLDERS: [&str; 7] = ["workspaceFolder", "workspaceFolderBasename", "userHome", "HOME", "env:HOME", "cwd", "PWD"];

/// The value with what is asked for at its default. None: something has none, or is a secret by its own name.
fn with_defaults(value: &str, inputs: &BTreeMap<String, Input>) -> Option<String> {
    let mut text = String::new();
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        text.push_str(&rest[..at]);
        let (inside, after) = rest[at + 2..].split_once('}')?;
        let (name, default) = match inside.strip_prefix("input:") {
            None if FOLDERS.contains(&inside) || inside.starts_with("workspaceFolder:") => {
                (inside, Some(format!("${{{inside}}}")))
            }
            Some(id) => (id, inputs.get(id).filter(|input| !input.password).and_then(|input| input.default.clone())),
            None => inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default.to_owned()))),
        };
        text.push_str(&default.filter(|default| !secrets::tells(name, default))?);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// The folder of an absolute path that is not one of those in which every server may write. None: it is no such path.
pub fn is_of_the_image(value: &str) -> Option<&str> {
    let writable = ["/tmp", "/home", "/Users"]
        .iter()
        .any(|own| value.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let is_path = value.starts_with('/')
        && !writable
        && !value.starts_with("//")
        && !value.contains(|c: char| c.is_whitespace() || c == ':' || c == '?');
    let folder = value.trim_end_matches('/').rsplit_once('/').filter(|_| is_path)?.0;
    Some(if folder.is_empty() { value } else { folder })
}

/// Whether it is of a person's own machine: a home folder, a drive, an editor's folder.
pub fn is_of_a_desktop(value: &str) -> bool {
    let folder = ["/Users/", "/home/", "~/", "./", "../"].iter().any(|beginning| value.starts_with(beginning));
    let variable = FOLDERS.iter().any(|name| value.contains(&format!("${{{name}}}")));
    folder || has_a_drive(value) || variable || value.contains("${workspaceFolder:")
}

fn has_a_drive(value: &str) -> bool {
    value.get(1..3).is_some_and(|rest| rest == ":\\" || rest == ":/") && value.starts_with(|c: char| c.is_ascii_alphabetic())
}

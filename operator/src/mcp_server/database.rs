//! Which file of a server's volume is its database, as far as the spec says: what a backup is made of. Pure.

use crate::{crd::McpServerSpec, crd::reason, problem::Problem, requeue::Class};

/// sandbox-server's argument, and its variable.
const FLAG: &str = "--db";
const VARIABLE: &str = "SANDBOX_DB";

/// The database in the volume. None: the spec names none, or one that is elsewhere.
pub fn kept(spec: &McpServerSpec) -> Option<String> {
    let (container, storage) = (spec.container.as_ref()?, spec.storage.as_ref()?);
    let words: Vec<&str> = container.command.iter().chain(&container.args).map(String::as_str).collect();
    let behind = words.iter().position(|word| *word == FLAG).and_then(|at| words.get(at + 1).copied());
    let joined = || words.iter().find_map(|word| word.strip_prefix(FLAG)?.strip_prefix('='));
    let variable = || spec.pod.env.iter().find(|variable| variable.name == VARIABLE)?.value.as_deref();
    let database = behind.or_else(joined).or_else(variable)?;
    let below = database.strip_prefix(storage.mount_path.trim_end_matches('/'))?;
    below.starts_with('/').then(|| database.to_owned())
}

/// A backup, or a restore, of what nobody knows where it is.
pub fn unknown(spec: &McpServerSpec) -> Option<Problem> {
    let storage = spec.storage.as_ref()?;
    let ours = storage.backup.as_ref().is_some_and(|backup| backup.command.is_empty());
    (ours && kept(spec).is_none()).then(|| Problem {
        class: Class::Waiting,
        reason: reason::INVALID_SPEC,
        message: format!(
            "spec.storage.backup: nothing says which file to back up: name the database by {FLAG} in spec.container.args, below {}, as sandbox-server takes it; or set storage.backup.command",
            storage.mount_path
        ),
    })
}

//! A server that is a child of ours: which program it is, what it may know of our environment, and its last words.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use mcp_stdio::{
    exit::Exit,
    group::{self, Spawned},
    secrets,
    stderr::{self, Limits, Tail, readable},
};
use tokio::process::ChildStderr;

use super::{error::ServerError, sanitize::clean_line, stdio::Bearable};
use crate::{
    config::server::Launch,
    redact::{know, redact},
};

const LIMITS: Limits = Limits { line: 2_000, kept: 100, lines_a_second: 1_000 };
/// Some ten thousand lines in a second are taken; a child that complains faster waits.
const STDERR_LINE_COST: usize = 1_500;
/// What a child may know of our environment: not our keys.
const CHILD_ENV: [&str; 8] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "SHELL", "TERM"];

/// What a child last said on its standard error, line by line and fit to be shown.
#[derive(Debug, Clone, Default)]
pub struct LastWords(Tail);

impl LastWords {
    pub fn lines(&self) -> Vec<String> {
        self.0.last(LIMITS.kept).iter().map(|line| shown(line)).collect()
    }

    pub fn last(&self) -> Option<String> {
        self.0.last(1).first().map(|line| shown(line))
    }

    /// Behind what became of it.
    pub fn told(&self) -> String {
        self.last().map(|line| format!("; its last words: {line}")).unwrap_or_default()
    }
}

/// How a child ended, and what it said last.
pub fn ended(launch: &Launch, exit: Option<Exit>, words: &LastWords) -> String {
    let how = exit.map(|exit| format!(", {exit}")).unwrap_or_default();
    format!("{} ended{how}{}", launch.program, words.told())
}

fn shown(line: &str) -> String {
    redact(&clean_line(line)).into_owned()
}

/// Starts the program. A group of its own: Ctrl-C at the terminal cancels a turn, and not the servers.
pub fn spawn(launch: &Launch) -> Result<Spawned, ServerError> {
    let (program, first) = find_program(&launch.program);
    let failed = |why: String| ServerError::Start(program.display().to_string(), why);
    let mut command = tokio::process::Command::new(&program);
    command.args(first).args(&launch.args).env_clear();
    command.envs(CHILD_ENV.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
    know_secrets(launch);
    for (name, value) in &launch.env {
        match value {
            Some(value) => command.env(name, value.expose()),
            None => command.env_remove(name),
        };
    }
    if let Some(cwd) = &launch.cwd {
        // The system's own error would be told as one of the program.
        if !cwd.is_dir() {
            return Err(failed(format!("its cwd {} is no folder", cwd.display())));
        }
        command.current_dir(cwd);
    }
    group::spawn(command).map_err(|error| failed(error.to_string()))
}

/// What of a child is not on this machine: its folder, its program, its script.
pub fn missing(launch: &Launch) -> Option<String> {
    let cwd = launch.cwd.clone().unwrap_or_else(|| PathBuf::from("."));
    if !cwd.is_dir() {
        return Some(format!("its cwd {} is no folder here", cwd.display()));
    }
    let (program, first) = find_program(&launch.program);
    if let [script] = &*first
        && !cwd.join(script).is_file()
    {
        return Some(format!("its script {script} is not here"));
    }
    let own = launch.env.iter().rev().find(|(name, _)| name == "PATH");
    let path = match own {
        Some((_, Some(value))) => OsString::from(value.expose()),
        // Where the system looks then is its own.
        Some((_, None)) => return None,
        None => std::env::var_os("PATH")?,
    };
    let found = which::which_in(&program, Some(path), cwd);
    found.is_err().then(|| format!("its program {} is not here, or no program", program.display()))
}

/// Hides what a child is given under a name for secrets: a variable, an option (`--token x`, `--token=x`), a variable for somebody else
/// (`-e TOKEN=x`), a header (`--header "X-Token: x"`).
fn know_secrets(launch: &Launch) {
    let of_env = launch.env.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_ref()?.expose())));
    let options = launch.args.iter().zip(launch.args.iter().skip(1));
    let options = options.filter(|(name, value)| name.starts_with('-') && !name.contains('=') && !value.starts_with('-'));
    let options = options.map(|(name, value)| (name.as_str(), value.as_str()));
    let within = launch.args.iter().filter_map(|arg| arg.split_once('=').or_else(|| arg.split_once(':')));
    let all = of_env.chain(options).chain(within).map(|(name, value)| (name.trim_start_matches('-'), value.trim()));
    all.filter(|(name, value)| secrets::of_variable(name, value)).for_each(|(_, value)| know(value));
}

/// The program to run, and what comes before its arguments: scripts by their interpreter, a program of ours also when
/// it only stands beside this one, and a dotted name that is no file as a Python module.
fn find_program(name: &str) -> (PathBuf, Vec<String>) {
    let path = Path::new(name);
    let script = |interpreter: &str| (PathBuf::from(interpreter), vec![name.to_owned()]);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("py") => return script("python3"),
        Some("js" | "mjs" | "cjs") => return script("node"),
        _ => {}
    }
    if path.components().count() > 1 || path.is_file() {
        return (path.to_owned(), Vec::new());
    }
    let ours = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    if let Some(ours) = ours.filter(|ours| ours.is_file()) {
        return (ours, Vec::new());
    }
    let module = name.contains('.') && name.split('.').all(|part| !part.is_empty() && part.chars().all(is_word));
    if module {
        return (PathBuf::from("python3"), vec!["-m".to_owned(), name.to_owned()]);
    }
    (path.to_owned(), Vec::new())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Keeps a child's last words, until it ends.
pub async fn keep(errors: ChildStderr, server: String, words: LastWords) {
    let log = |lines: &[u8]| {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            tracing::debug!(server, "stderr: {}", shown(&readable(line)));
        }
    };
    stderr::keep(Bearable::new(errors, STDERR_LINE_COST), words.0, LIMITS, log).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_modules_and_programs_are_told_apart() {
        let found = |name: &str| {
            let (program, args) = find_program(name);
            format!("{} {}", program.display(), args.join(" "))
        };
        assert_eq!(found("servers/a.py"), "python3 servers/a.py");
        assert_eq!(found("mcp_sandbox.server"), "python3 -m mcp_sandbox.server");
        assert_eq!(found("./bin/server"), "./bin/server ");
        assert_eq!(found("npx"), "npx ");
    }
}

//! A server that is a child of ours: which program it is, what it may know of our environment, and its last words.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr},
};

use super::{connection::ServerError, sanitize::clean_line, stdio::Bearable};
use crate::{config::file::Launch, redact::redact};

const STDERR_LINES: usize = 100;
const STDERR_LINE: usize = 2_000;
/// Some ten thousand lines in a second are taken; a child that complains faster waits.
const STDERR_LINE_COST: usize = 1_500;
/// What a child may know of our environment: not our keys.
const CHILD_ENV: [&str; 8] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "SHELL", "TERM"];

/// The last lines of a child's standard error, as they came: cleaning all that are never read would be work for nothing.
#[derive(Debug, Clone, Default)]
pub struct StderrTail(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl StderrTail {
    /// Fit to be shown.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|line| readable(line)).collect()
    }

    pub fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).back().map(|line| readable(line))
    }

    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = if lines.len() == STDERR_LINES { lines.pop_front().unwrap_or_default() } else { Vec::new() };
        kept.clear();
        kept.extend_from_slice(line);
        lines.push_back(kept);
    }
}

fn readable(line: &[u8]) -> String {
    redact(&clean_line(&String::from_utf8_lossy(line))).into_owned()
}

/// Starts the program, as the leader of a process group; its standard error is to be kept by `keep`.
pub fn spawn(launch: &Launch) -> Result<Child, ServerError> {
    let (program, first) = find_program(&launch.program);
    let failed = |why: String| ServerError::Start(program.display().to_string(), why);
    let mut command = tokio::process::Command::new(&program);
    command.args(first).args(&launch.args).env_clear();
    command.envs(CHILD_ENV.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
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
    // A group of its own: Ctrl-C at the terminal cancels a turn, and not the servers.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| failed(error.to_string()))
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

/// Reads a child's standard error to its end, so that the child never waits for a reader; keeps the last lines.
pub async fn keep(errors: ChildStderr, server: String, tail: StderrTail) {
    let mut reader = BufReader::new(Bearable::new(errors, usize::MAX, STDERR_LINE_COST));
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without end is taken in pieces.
        let limit = u64::try_from(STDERR_LINE).unwrap_or(u64::MAX);
        match (&mut reader).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                tracing::debug!(server, "stderr: {}", readable(&line));
                tail.push(&line);
            }
        }
    }
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

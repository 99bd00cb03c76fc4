//! `chat-worker config check FILE`: what a program would make of an mcp.json, for people and for scripts.

use std::{io::Write, path::Path, process::ExitCode};

use super::{file::FileError, server::ServerEntry, watch};
use crate::words::{are, counted};

/// Writes what is used, what is not and why. 0: all of it can be used; 1: some of it, or the whole file, cannot; 2: there is no such file.
/// What is `absent` from this machine is told, and no fault: the file may be meant for another one.
pub fn check(path: &Path, absent: fn(&ServerEntry) -> Vec<String>, out: &mut dyn Write) -> std::io::Result<ExitCode> {
    let at = path.display();
    let text = match watch::read(path) {
        Ok(text) => text,
        Err(problem) => {
            writeln!(out, "{at}: {problem}")?;
            return Ok(if path.exists() { ExitCode::FAILURE } else { ExitCode::from(2) });
        }
    };
    let config = match watch::understand(&text) {
        Ok(config) => config,
        Err(FileError::Syntax(problem)) => {
            writeln!(out, "{at}: it is not valid JSON: {problem}")?;
            return Ok(ExitCode::FAILURE);
        }
        Err(FileError::Shape(problems)) => {
            for problem in problems {
                writeln!(out, "{at}: {problem}")?;
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    for refused in &config.refused {
        writeln!(out, "{at}: refused: {}", refused.reason)?;
    }
    for warning in &config.warnings {
        writeln!(out, "{at}: warning: {warning}")?;
    }
    for warning in config.servers.iter().filter(|server| server.enabled).flat_map(absent) {
        writeln!(out, "{at}: warning: {warning}")?;
    }
    let off = config.servers.iter().filter(|server| !server.enabled).count();
    let used = config.servers.len() - off;
    let (servers, refused) = (counted(used, "server"), config.refused.len());
    let [is_used, is_off, is_refused] = [used, off, refused].map(are);
    writeln!(out, "{at}: {servers} {is_used} used, {off} {is_off} switched off, {refused} {is_refused} refused")?;
    Ok(if config.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &ServerEntry) -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn what_is_absent_of_a_server_that_is_used_is_told_and_no_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mcp.json");
        let text = r#"{"mcpServers": {"a": {"url": "http://a"}, "b": {"url": "http://b", "disabled": true}}}"#;
        std::fs::write(&file, text).expect("written");
        let mut out = Vec::new();
        let ended = check(&file, |server| vec![format!("{}: not here", server.name)], &mut out).expect("written");
        let out = String::from_utf8(out).expect("text");
        assert_eq!(out.lines().next(), Some(&*format!("{}: warning: a: not here", file.display())), "{out}");
        assert!(out.lines().count() == 2 && format!("{ended:?}") == format!("{:?}", ExitCode::SUCCESS), "{out}");
    }

    #[test]
    fn what_is_wrong_is_told_with_a_code_for_scripts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mcp.json");
        for (text, code, told) in [
            (
                r#"{"servers": [{"name": "a", "url": "http://a"}, {"name": "b", "url": "http://b", "disabled": true}]}"#,
                0,
                "1 server is used, 1 is switched off, 0 are refused",
            ),
            (r#"{"servers": [{"name": "a", "url": "a"}]}"#, 1, "refused: servers[0].url"),
            (r#"{"servers": 5}"#, 1, "servers: must be an array or an object"),
            ("{", 1, "not valid JSON"),
            (
                r#"{"servers": [{"name": "a", "url": "http://a:${PORT_UNSET}/mcp", "headers": {"A": "${TOKEN_UNSET}"}, "disabled": true},
                    {"name": "b", "url": "${URL_UNSET}", "enabled": false}, {"name": "c", "command": "${COMMAND_UNSET}", "disabled": true}]}"#,
                0,
                "0 servers are used, 3 are switched off, 0 are refused",
            ),
            (r#"{"servers": [{"name": "a", "url": "a", "disabled": true}]}"#, 1, "refused: servers[0].url"),
            (r#"{"servers": [{"name": "a", "url": "${URL_UNSET}"}]}"#, 1, "is not set"),
        ] {
            std::fs::write(&file, text).expect("written");
            let mut out = Vec::new();
            let ended = check(&file, none, &mut out).expect("written");
            let out = String::from_utf8(out).expect("text");
            assert!(out.contains(told), "{out}");
            assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(code)), "{out}");
        }
        std::fs::write(&file, b"{\"servers\": [], \"a\": \"\xff\"}").expect("written");
        let mut out = Vec::new();
        let ended = check(&file, none, &mut out).expect("written");
        assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::FAILURE), "{}", String::from_utf8_lossy(&out));
        assert!(String::from_utf8_lossy(&out).contains("save it as UTF-8"));
        let ended = check(&folder.path().join("none"), none, &mut Vec::new()).expect("written");
        assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(2)));
    }
}

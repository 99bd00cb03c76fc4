//! What a server of mcp.json points at and is not on this machine. No fault of the file, which may be meant for another one.

use std::{fs::File, path::Path};

use super::child;
use crate::config::server::{ServerEntry, Target};

/// A sentence for each thing that is not there.
pub fn absent(server: &ServerEntry) -> Vec<String> {
    let missing = match &server.target {
        Target::Command(launch) => child::missing(launch),
        Target::Url(_) => None,
    };
    let unread = |what: &str, path: &Path| {
        let error = File::open(path).err()?;
        Some(format!("the file {} of {what} cannot be read: {error}", path.display()))
    };
    let headers = server.headers_from.iter().filter_map(|(header, path)| unread(&format!("its header {header}"), path));
    let ca = server.ca_file.as_ref().and_then(|path| unread("its ca_file", path));
    missing.into_iter().chain(headers).chain(ca).map(|told| format!("server {}: {told}", server.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::watch::understand;

    #[test]
    fn what_is_not_on_this_machine_is_told_server_by_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().display().to_string();
        std::fs::write(folder.path().join("server.py"), "").expect("written");
        let told = |entry: &str| {
            let text = format!(r#"{{"mcpServers": {{"a": {entry}}}}}"#).replace("HERE", &here);
            let config = understand(&text).expect("a configuration");
            assert!(config.refused.is_empty(), "{:?}", config.refused);
            config.servers.iter().flat_map(absent).collect::<Vec<_>>()
        };
        for well in [
            r#"{"command": "sh", "args": ["-c", "x"]}"#,
            r#"{"command": "/bin/sh"}"#,
            r#"{"command": "server.py", "cwd": "HERE"}"#,
            r#"{"command": "HERE/server.py"}"#,
            r#"{"url": "http://a/mcp"}"#,
        ] {
            assert!(told(well).is_empty(), "{well}: {:?}", told(well));
        }
        for (entry, what) in [
            (r#"{"command": "no-such-program"}"#, "its program no-such-program is not here, or no program"),
            (r#"{"command": "sh", "env": {"PATH": "HERE"}}"#, "its program sh is not here, or no program"),
            (r#"{"command": "HERE/none"}"#, "its program HERE/none is not here, or no program"),
            (r#"{"command": "other.py", "cwd": "HERE"}"#, "its script other.py is not here"),
            (r#"{"command": "sh", "cwd": "HERE/none"}"#, "its cwd HERE/none is no folder here"),
            (
                r#"{"url": "https://a/mcp", "headers_from": [{"name": "X-Key", "file": "HERE/none"}]}"#,
                "the file HERE/none of its header X-Key cannot be read: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(told(entry), [format!("server a: {}", what.replace("HERE", &here))]);
        }
    }
}

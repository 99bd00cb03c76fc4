//! mcp.json: which servers there are. Pure: text in, servers or every problem at once out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    rules::{Glob, ToolRules, Trust},
    settings::Approvals,
};

/// The servers to use, and what was odd about the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct McpConfig {
    pub servers: Vec<ServerEntry>,
    pub log_level: Option<String>,
    /// Each names a field that nobody reads.
    pub warnings: Vec<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerEntry {
    pub name: String,
    pub target: Target,
    pub enabled: bool,
    /// For one call.
    pub timeout: Duration,
    /// Further attempts of a call that may be repeated.
    pub max_retries: u32,
    /// Between two looks at an idle server and its tools.
    pub health_check_interval: Duration,
    pub description: String,
    pub version: String,
    /// Headers of every request: name, and the file with the value. Of a server with a URL only.
    pub headers_from: Vec<(String, PathBuf)>,
    /// PEM certificates of a private CA, trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    pub trust: Trust,
    pub tools: ToolRules,
    /// Why it is disabled, where its operator says so.
    pub disabled_because: Option<String>,
    /// It is disabled because its circuit is open, not because somebody wants it to be.
    pub circuit_open: bool,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Streamable HTTP.
    Url(String),
    /// A child of ours, over its standard input and output.
    Command { program: String, args: Vec<String> },
}

/// Why a file cannot be used. The message lists every problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("it is not valid JSON: {0}")]
    Syntax(String),
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
}

#[derive(Deserialize)]
struct RawFile {
    servers: Vec<RawServer>,
    log_level: Option<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct RawServer {
    #[serde(default)]
    name: String,
    url: Option<String>,
    script_path: Option<String>,
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default = "thirty")]
    timeout: f64,
    #[serde(default = "three")]
    max_retries: u32,
    #[serde(default = "sixty")]
    health_check_interval: f64,
    #[serde(default)]
    headers_from: Vec<RawHeader>,
    ca_file: Option<PathBuf>,
    trust: Option<RawTrust>,
    tools: Option<RawTools>,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawTrust {
    Hints,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTools {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    approvals: Option<RawApprovals>,
}

#[derive(Deserialize)]
enum RawApprovals {
    Ask,
    Always,
    Never,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    name: String,
    file: PathBuf,
}

fn yes() -> bool {
    true
}
fn thirty() -> f64 {
    30.0
}
fn three() -> u32 {
    3
}
fn sixty() -> f64 {
    60.0
}

/// Reads the text of an mcp.json.
pub fn parse(text: &str) -> Result<McpConfig, FileError> {
    let raw: RawFile = serde_json::from_str(text).map_err(|error| FileError::Syntax(error.to_string()))?;
    let mut warnings: Vec<String> = raw.unknown.keys().map(|key| format!("unknown field {key:?}")).collect();
    let (mut servers, mut problems, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, server) in raw.servers.into_iter().enumerate() {
        let known_as = if server.name.is_empty() { format!("servers[{index}]") } else { format!("server {:?}", server.name) };
        warnings.extend(server.unknown.keys().map(|key| format!("{known_as}: unknown field {key:?}")));
        if !names.insert(server.name.clone()) {
            problems.push(format!("{known_as}: the name occurs twice"));
        }
        match entry(server) {
            Ok(entry) => servers.push(entry),
            Err(found) => problems.extend(found.into_iter().map(|problem| format!("{known_as}: {problem}"))),
        }
    }
    if problems.is_empty() {
        Ok(McpConfig { servers, log_level: raw.log_level, warnings })
    } else {
        Err(FileError::Invalid(problems))
    }
}

fn entry(raw: RawServer) -> Result<ServerEntry, Vec<String>> {
    let mut problems = Vec::new();
    if raw.name.trim().is_empty() {
        problems.push("name: give the server a name".to_owned());
    }
    let timeout = seconds("timeout", raw.timeout, &mut problems);
    let health_check_interval = seconds("health_check_interval", raw.health_check_interval, &mut problems);
    if raw.url.is_none() && (!raw.headers_from.is_empty() || raw.ca_file.is_some()) {
        problems.push("headers_from, ca_file: only for url".to_owned());
    }
    let target = match (raw.url, raw.script_path, raw.command) {
        (Some(url), None, None) => {
            let parsed = url::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            if parsed.is_none() {
                problems.push("url: must be a whole http:// or https:// URL".to_owned());
            }
            if !raw.args.is_empty() {
                problems.push("args: only for script_path or command".to_owned());
            }
            Some(Target::Url(url))
        }
        (None, Some(program), None) | (None, None, Some(program)) if !program.trim().is_empty() => {
            Some(Target::Command { program, args: raw.args })
        }
        _ => {
            problems.push("set exactly one of url, script_path and command".to_owned());
            None
        }
    };
    let text = |key: &str| raw.metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let reason = text("reason");
    match target {
        Some(target) if problems.is_empty() => Ok(ServerEntry {
            name: raw.name,
            target,
            enabled: raw.enabled,
            timeout,
            max_retries: raw.max_retries.min(10),
            health_check_interval,
            headers_from: raw.headers_from.into_iter().map(|header| (header.name, header.file)).collect(),
            ca_file: raw.ca_file,
            description: text("description"),
            version: text("version"),
            trust: match raw.trust {
                Some(RawTrust::None) => Trust::None,
                Some(RawTrust::Hints) | None => Trust::Hints,
            },
            tools: raw.tools.map(rules).unwrap_or_default(),
            disabled_because: (!reason.is_empty()).then_some(reason),
            circuit_open: !raw.enabled && matches!(text("circuit").as_str(), "Open" | "HalfOpen"),
        }),
        _ => Err(problems),
    }
}

fn rules(raw: RawTools) -> ToolRules {
    let globs = |names: Vec<String>| names.into_iter().map(Glob::new).collect();
    let approvals = raw.approvals.map(|approvals| match approvals {
        RawApprovals::Ask => Approvals::Ask,
        RawApprovals::Always => Approvals::Always,
        RawApprovals::Never => Approvals::Never,
    });
    ToolRules { allow: globs(raw.allow), deny: globs(raw.deny), approvals }
}

fn seconds(field: &str, value: f64, problems: &mut Vec<String>) -> Duration {
    if !(0.001..=86_400.0).contains(&value) {
        problems.push(format!("{field}: must be seconds, more than 0 and at most 86400"));
        return Duration::ZERO;
    }
    Duration::from_secs_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_file_is_read_and_has_the_guides_defaults() {
        let config = parse(r#"{"servers": [{"name": "a", "script_path": "a.py"}], "log_level": "INFO"}"#).expect("valid");
        let server = &config.servers[0];
        assert!(server.enabled);
        assert_eq!((server.timeout.as_secs(), server.max_retries), (30, 3));
        assert_eq!(server.health_check_interval.as_secs(), 60);
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn unknown_fields_are_named_and_everything_else_is_used() {
        let config = parse(r#"{"servers": [{"name": "a", "url": "http://a/mcp", "timeuot": 3}], "x": 1}"#).expect("valid");
        assert_eq!(config.warnings, [r#"unknown field "x""#, r#"server "a": unknown field "timeuot""#]);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = r#"{"servers": [{"name": "a", "url": "ftp://x", "timeout": 0},
                                   {"name": "a", "command": "x", "url": "http://a"}, {"url": "http://b"}]}"#;
        let problems = match parse(text) {
            Err(FileError::Invalid(problems)) => problems,
            other => unreachable!("five problems, not {other:?}"),
        };
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(matches!(parse("{"), Err(FileError::Syntax(_))));
    }

    #[test]
    fn a_server_that_its_operator_took_out_says_why() {
        let text = r#"{"servers": [{"name": "a", "url": "http://a/mcp", "enabled": false,
                       "metadata": {"circuit": "Open", "reason": "3 failures: timeout"}}]}"#;
        let server = parse(text).expect("valid").servers.remove(0);
        assert!(server.circuit_open);
        assert_eq!(server.disabled_because.as_deref(), Some("3 failures: timeout"));
    }
}

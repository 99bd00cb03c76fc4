//! The files in which other programs list their servers: `.mcp.json`, `claude_desktop_config.json`, `.vscode/mcp.json` and their like.
//! Pure: text in, entries out, with what the entries' own fields mean and nothing of what their commands mean.

use std::collections::BTreeMap;

use jsonc_parser::{CollectOptions, ast, parse_to_ast};
use mcp_wire::jsonc;
use serde_json::{Map, Value};

use super::secret;

/// One server, as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The variables of the program.
    pub env: BTreeMap<String, String>,
    /// Where it is, when it is not started.
    pub url: Option<String>,
    /// Headers of requests.
    pub headers: BTreeMap<String, String>,
    /// It is switched off.
    pub disabled: bool,
    /// What it is for.
    pub description: Option<String>,
    /// What a call of a tool may take.
    pub timeout_seconds: Option<u32>,
    /// What of it has no place in a manifest.
    pub notes: Vec<String>,
}

impl Entry {
    /// Its name, or another where it is an address with a credential, for example.
    pub fn shown_name(&self) -> &str {
        if secret::is_secret("", &self.name) { "server" } else { &self.name }
    }
}

/// A value that a person is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// It is hidden while it is typed.
    pub password: bool,
    /// What it is without an answer.
    pub default: Option<String>,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// The servers, by name.
    pub entries: Vec<Entry>,
    /// By their id.
    pub inputs: BTreeMap<String, Input>,
}

/// Where programs list their servers: Claude's and most others', VS Code's, Zed's, opencode's, Amp's.
const LISTS: [&[&str]; 7] =
    [&["mcpServers"], &["servers"], &["mcp", "servers"], &["mcp"], &["context_servers"], &["amp.mcpServers"], &["mcp_servers"]];

/// Where Claude Code lists those of its projects, each by its folder.
const PROJECTS: &str = "projects";

/// Reads a file. The error is a sentence for people.
pub fn read(text: &str) -> Result<File, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed =
        parse_to_ast(text, &CollectOptions::default(), &jsonc::OPTIONS).map_err(|error| format!("it is not JSON: {error}"))?;
    let root = parsed.value.as_ref().map_or(Value::Null, value);
    let list = LISTS.iter().find_map(|path| {
        let found = path.iter().try_fold(&root, |at, key| at.get(key))?;
        (found.is_object() || found.is_array()).then_some(found)
    });
    let of_projects = entries_of_projects(&root[PROJECTS]);
    let mut entries: Vec<Entry> = match list {
        Some(Value::Object(servers)) => servers.iter().map(|(name, server)| entry(name, server)).collect(),
        Some(Value::Array(servers)) => servers.iter().map(|server| entry(&string(&server["name"]), server)).collect(),
        _ if !of_projects.is_empty() => Vec::new(),
        _ => {
            return Err(
                "it lists no servers: they are looked for under mcpServers, servers, mcp.servers, mcp and context_servers"
                    .to_owned(),
            );
        }
    };
    entries.extend(of_projects);
    let inputs = [&root["inputs"], &root["mcp"]["inputs"]].into_iter().filter_map(Value::as_array).flatten();
    let input = |input: &Value| {
        let default = input["default"].as_str().map(str::to_owned);
        (string(&input["id"]), Input { password: input["password"] == true, default })
    };
    Ok(File { entries, inputs: inputs.map(input).collect() })
}

fn entries_of_projects(projects: &Value) -> Vec<Entry> {
    let servers = |project: &Value| project["mcpServers"].as_object().cloned().unwrap_or_default();
    let of = |(folder, project): (&String, &Value)| {
        let entries = servers(project).into_iter().map(|(name, server)| {
            let mut entry = entry(&name, &server);
            entry.notes.push(format!("it is listed for the project {folder}"));
            entry
        });
        entries.collect::<Vec<_>>()
    };
    projects.as_object().into_iter().flatten().flat_map(of).collect()
}

/// Fields that say nothing that a manifest would have to repeat.
const HARMLESS: [&str; 6] = ["type", "transport", "transportType", "name", "gallery", "source"];

fn entry(name: &str, server: &Value) -> Entry {
    let mut entry = Entry { name: name.to_owned(), ..Entry::default() };
    let Some(fields) = server.as_object() else {
        entry.notes.push("it is not an object".to_owned());
        return entry;
    };
    let mut args = Vec::new();
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("command", Value::String(command)) => entry.command.insert(0, command.clone()),
            ("command", Value::Array(words)) => entry.command = words.iter().map(string).collect(),
            // Zed's.
            ("command", Value::Object(command)) => {
                entry.command.insert(0, string(command.get("path").unwrap_or(&Value::Null)));
                args.extend(command.get("args").and_then(Value::as_array).into_iter().flatten().map(string));
                entry.env.extend(texts(command.get("env")));
            }
            ("args", Value::Array(words)) => args.extend(words.iter().map(string)),
            (_, Value::Null) => {}
            ("env" | "environment", Value::Object(_)) => entry.env.extend(texts(Some(value))),
            ("url" | "httpUrl" | "serverUrl" | "uri", Value::String(url)) => entry.url = Some(url.clone()),
            ("headers" | "http_headers" | "requestInit", Value::Object(_)) => {
                entry.headers.extend(texts(Some(value.get("headers").unwrap_or(value))));
            }
            ("disabled", value) => entry.disabled = entry.disabled || *value == true,
            ("enabled", value) => entry.disabled = entry.disabled || *value == false,
            ("description", Value::String(words)) => entry.description = Some(words.clone()),
            ("cwd", Value::String(folder)) => {
                let folder = secret::shown("", folder);
                entry.notes.push(format!("cwd {folder:?}: a container starts in the folder of its image"));
            }
            ("envFile", _) => entry.notes.push("envFile: put its variables into a Secret, and name that in envFrom".to_owned()),
            ("timeout" | "tool_timeout_sec", value) => match seconds(value) {
                Some((seconds, milliseconds)) => {
                    if milliseconds {
                        entry.notes.push(format!("{field}: it was taken for milliseconds, and is {seconds} s"));
                    }
                    entry.timeout_seconds = Some(seconds).filter(|seconds| *seconds != DEFAULT_SECONDS);
                }
                None => entry.notes.push(format!("{field}: set timeoutSeconds, if calls take more than {DEFAULT_SECONDS} s")),
            },
            ("startup_timeout_sec", _) => {
                entry.notes.push(format!("{field}: set health.startupSeconds, if it takes more than 120 s until it answers"));
            }
            (
                "alwaysAllow" | "autoApprove" | "disabledTools" | "excludeTools" | "includeTools" | "enabledTools" | "trust"
                | "tools" | "allowedTools",
                _,
            ) => entry.notes.push(format!("{field}: which tools may be used is said by an McpApp, in spec.servers[].tools")),
            (field, _) if HARMLESS.contains(&field) => {}
            (field, _) => entry.notes.push(format!("{field}: not understood")),
        }
    }
    if [&server["type"], &server["transport"], &server["transportType"]].into_iter().any(|kind| *kind == "sse") {
        entry.notes.push(
            "the transport sse is not spoken: most servers offer streamable HTTP, too, at a path that ends in /mcp; correct the url".to_owned(),
        );
    }
    entry.command.extend(args);
    entry
}

/// What a call of a tool gets without a word.
const DEFAULT_SECONDS: u32 = 30;
/// What the API takes.
const MOST_SECONDS: u32 = 3_600;

/// Whole seconds, and whether they were milliseconds: programs differ, and nobody waits for hours.
fn seconds(value: &Value) -> Option<(u32, bool)> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number: &f64| *number > 0.0)?;
    let milliseconds = number > f64::from(MOST_SECONDS);
    let seconds = if milliseconds { number / 1_000.0 } else { number };
    // The first whole number of seconds that is no less.
    let whole = (1..MOST_SECONDS).find(|whole| f64::from(*whole) >= seconds).unwrap_or(MOST_SECONDS);
    Some((whole, milliseconds))
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), string(value))).collect()
}

/// A string, or a number or truth value as one.
fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn value(value: &ast::Value) -> Value {
    match value {
        ast::Value::StringLit(text) => Value::String(text.value.clone().into_owned()),
        ast::Value::NumberLit(number) => {
            serde_json::from_str(number.value).unwrap_or_else(|_| Value::String(number.value.into()))
        }
        ast::Value::BooleanLit(truth) => Value::Bool(truth.value),
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::Array(array) => array.elements.iter().map(self::value).collect(),
        ast::Value::Object(object) => {
            let fields = object.properties.iter();
            Value::Object(fields.map(|field| (field.name.as_str().to_owned(), self::value(&field.value))).collect::<Map<_, _>>())
        }
    }
}

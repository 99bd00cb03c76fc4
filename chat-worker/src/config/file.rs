//! mcp.json: which servers there are, as we write it and as other programs do (docs/chat-worker.md). Pure: text in; servers, the entries
//! that are refused, and what is ignored out. One entry that cannot be used costs the others nothing.

use std::collections::BTreeMap;

use jsonc_parser::{
    CollectOptions,
    ast::{Object, Value},
    parse_to_ast,
};
use log_lines::Level;
use mcp_wire::jsonc;

use super::{
    entry,
    fields::{Fields, kind},
    rules::Glob,
    server::ServerEntry,
    variables::Variables,
};

/// The servers to use, and what was odd about the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct McpConfig {
    pub servers: Vec<ServerEntry>,
    /// The entries that are not used.
    pub refused: Vec<Refused>,
    pub log_level: Option<String>,
    /// Each names something that is ignored, or that may be meant otherwise.
    pub warnings: Vec<String>,
}

/// An entry that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name, or its place where it has none.
    pub name: String,
    /// All that is wrong with it, by the path of each field.
    pub reason: String,
}

/// Why a whole file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("it is not valid JSON: {0}")]
    Syntax(String),
    /// It is JSON of another shape. By the path of each field.
    #[error("{}", .0.join("; "))]
    Shape(Vec<String>),
}

/// Reads the text of an mcp.json. `variables` are those that `${NAME}` stands for.
pub fn parse(text: &str, variables: Variables) -> Result<McpConfig, FileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse_to_ast(text, &CollectOptions::default(), &jsonc::OPTIONS);
    let root = parsed.map_err(|error| FileError::Syntax(lower_first(&error.to_string())))?.value;
    let root = match &root {
        Some(Value::Object(object)) => object,
        Some(other) => return Err(FileError::Shape(vec![format!("it must be an object, not {}", kind(other))])),
        None => return Err(FileError::Syntax("it is empty".to_owned())),
    };
    let mut fields = Fields::new(root);
    let mut reading = Reading { variables, config: McpConfig::default(), names: BTreeMap::new() };
    let found: Vec<_> = ["servers", "mcpServers"].iter().filter_map(|field| Some((*field, fields.take(field)?))).collect();
    if found.is_empty() {
        fields.problem("servers", "missing; list the servers there, or under \"mcpServers\"");
    }
    for (field, servers) in found {
        match servers {
            Value::Array(array) => {
                for (index, entry) in array.elements.iter().enumerate() {
                    reading.entry(&format!("{field}[{index}]"), None, entry);
                }
            }
            Value::Object(map) => reading.map(field, map),
            other => fields.problem(field, format!("must be an array or an object, not {}", kind(other))),
        }
    }
    let mut config = reading.finish();
    switch_off(&mut fields, "", &mut config);
    let mcp = fields.peek("mcp").and_then(Value::as_object);
    if let Some(mut inner) = mcp.map(Fields::new) {
        let before = inner.left().count();
        switch_off(&mut inner, WITHIN, &mut config);
        if inner.left().count() < before {
            fields.take("mcp");
            config.warnings.extend(inner.left().map(|field| unknown(&format!("{WITHIN}{field}"))));
        }
        fields.problems.extend(inner.problems.into_iter().map(|problem| format!("{WITHIN}{problem}")));
    }
    config.log_level = fields.text("log_level").map(str::to_owned);
    if let Some(error) = config.log_level.as_ref().and_then(|level| level.parse::<Level>().err()) {
        config.log_level = None;
        config.warnings.push(format!("log_level: {error}; it is ignored"));
    }
    config.warnings.extend(fields.left().map(unknown));
    if fields.problems.is_empty() { Ok(config) } else { Err(FileError::Shape(fields.problems)) }
}

fn unknown(field: &str) -> String {
    format!("the unknown field {field:?} is ignored")
}

/// How the paths of such lists begin that stand within `mcp`.
const WITHIN: &str = "mcp.";
/// Names of lists beside the entries, as letters, by which programs switch servers off, and by which they name the only ones that run. One
/// that is ignored would let run what somebody has switched off.
const OFF: [&str; 11] = [
    "blockedmcpservers",
    "blockedservers",
    "deniedmcpservers",
    "deniedservers",
    "disabledmcpjsonservers",
    "disabledmcpservers",
    "disabledservers",
    "excludedmcpservers",
    "excludedservers",
    "excludemcpservers",
    "excludeservers",
];
const ONLY: [&str; 6] =
    ["allowedmcpservers", "allowedservers", "allowmcpservers", "allowservers", "enabledmcpservers", "enabledservers"];
/// The same, of words that say so only within `mcp`.
const OFF_WITHIN: [&str; 2] = ["denied", "excluded"];
const ONLY_WITHIN: &str = "allowed";

/// Switches off what such lists say. `within` is the path that their names follow.
fn switch_off(fields: &mut Fields, within: &str, config: &mut McpConfig) {
    for field in fields.left().collect::<Vec<_>>() {
        let plain: String = field.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
        let (plain, is_within) = (plain.as_str(), within == WITHIN);
        let is_off = OFF.contains(&plain) || (is_within && OFF_WITHIN.contains(&plain));
        let is_only = ONLY.contains(&plain) || (is_within && plain == ONLY_WITHIN);
        if !is_off && !is_only {
            continue;
        }
        let mut names = Vec::new();
        let Some(listed) = fields.array(field) else { continue };
        for (index, one) in listed.iter().enumerate() {
            let own = one.as_object().and_then(|object| Some(&object.get("serverName")?.value));
            match own.unwrap_or(one).as_string_lit() {
                Some(name) => names.push(&*name.value),
                None => fields.problem(&format!("{field}[{index}]"), "must be the name of a server"),
            }
        }
        let globs: Vec<Glob> = names.iter().map(|name| Glob::new(*name)).collect();
        let own = config.servers.iter().map(|server| server.name.as_str());
        let known: Vec<&str> = own.chain(config.refused.iter().map(|refused| refused.name.as_str())).collect();
        for (name, glob) in names.iter().zip(&globs) {
            if !known.iter().any(|known| glob.matches(known)) {
                config.warnings.push(format!("{within}{field}: no server of this file has the name {name:?}"));
            }
        }
        for server in config.servers.iter_mut().filter(|server| server.enabled) {
            if globs.iter().any(|glob| glob.matches(&server.name)) == is_off {
                server.enabled = false;
                config.warnings.push(format!("server {:?}: it is switched off by {within}{field}", server.name));
            }
        }
    }
}

struct Reading<'v> {
    variables: Variables<'v>,
    config: McpConfig,
    /// How often each name occurs.
    names: BTreeMap<String, usize>,
}

impl Reading<'_> {
    fn map(&mut self, field: &str, map: &Object) {
        for property in &map.properties {
            let key = property.name.as_str();
            self.entry(&format!("{field}.{key}"), Some(key), &property.value);
        }
    }

    fn entry(&mut self, path: &str, key: Option<&str>, value: &Value) {
        let Value::Object(object) = value else {
            let reason = format!("{path}: must be an object, not {}", kind(value));
            self.refuse(key.unwrap_or(path), reason);
            return;
        };
        let own = object.get("name").and_then(|property| property.value.as_string_lit()).map(|name| name.value.trim());
        let known_as = key.or(own).filter(|name| !name.is_empty()).unwrap_or(path).to_owned();
        let mut warnings = Vec::new();
        match entry::read(key, object, self.variables, &mut warnings) {
            Ok(entry) => {
                *self.names.entry(entry.name.clone()).or_default() += 1;
                self.config.servers.push(entry);
            }
            Err(problems) => {
                let reason = problems.iter().map(|problem| format!("{path}.{problem}")).collect::<Vec<_>>().join("; ");
                self.refuse(&known_as, reason);
            }
        }
        self.config.warnings.extend(warnings.into_iter().map(|warning| format!("server {known_as:?}: {warning}")));
    }

    fn refuse(&mut self, name: &str, reason: String) {
        *self.names.entry(name.to_owned()).or_default() += 1;
        self.config.refused.push(Refused { name: name.to_owned(), reason });
    }

    /// Of several entries of one name, none is used: which of them is meant is not known.
    fn finish(mut self) -> McpConfig {
        for (name, _) in self.names.iter().filter(|(_, times)| **times > 1) {
            self.config.servers.retain(|server| server.name != *name);
            self.config.refused.retain(|refused| refused.name != *name);
            self.config.refused.push(Refused { name: name.clone(), reason: format!("server {name:?}: the name occurs twice") });
        }
        self.config
    }
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

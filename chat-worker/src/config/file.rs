//! mcp.json: which servers there are, as we write it and as other programs do (docs/mcp-json.md). Pure: text in; servers, the entries
//! that are refused, and what is ignored out. One entry that cannot be used costs the others nothing.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{Object, Value},
    parse_to_ast,
};

use super::{
    entry,
    fields::{Fields, kind},
    rules::{ToolRules, Trust},
    variables::Variables,
};

/// The servers to use, and what was odd about the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct McpConfig {
    pub servers: Vec<ServerEntry>,
    /// The entries that are not used.
    pub refused: Vec<Refused>,
    pub log_level: Option<String>,
    /// Each names something that is ignored.
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
    /// Headers of every request. Of a server with a URL only.
    pub headers: Vec<(String, Hidden)>,
    /// The same: name, and the file with the value.
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
    Command(Launch),
}

/// How a child is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub program: String,
    pub args: Vec<String>,
    /// Besides what every child gets of our environment; none takes a variable away.
    pub env: Vec<(String, Option<Hidden>)>,
    /// Where it runs; ours without one.
    pub cwd: Option<PathBuf>,
}

/// A text that may be a credential: it is not for a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
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

/// Comments and commas before a closing bracket are taken, as every editor's files have them; the rest is JSON.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Reads the text of an mcp.json. `variables` are those that `${NAME}` stands for.
pub fn parse(text: &str, variables: Variables) -> Result<McpConfig, FileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse_to_ast(text, &CollectOptions::default(), &OPTIONS);
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
    config.log_level = fields.text("log_level").map(str::to_owned);
    config.warnings.extend(fields.left().map(|field| format!("unknown field {field:?}")));
    if fields.problems.is_empty() { Ok(config) } else { Err(FileError::Shape(fields.problems)) }
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

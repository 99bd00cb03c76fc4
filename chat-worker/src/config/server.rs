//! One server, as it is configured. Plain data.

use std::{fmt, path::PathBuf, time::Duration};

use super::rules::{ToolRules, Trust};

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
    /// It is opened by `initialize`, also where it speaks the modern era: in the earlier one, more servers can ask.
    pub legacy: bool,
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

//! One tool, as everybody here knows it: its name, what it says of itself, and in which forms the models' APIs are told of it. Plain data,
//! on which all else depends and which depends on nothing. Pure.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use mcp_wire::headers::{self, Named};
use rmcp::model::Tool;
use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::sanitize::{cap, clean};
use crate::{config::rules::Approvals, digest::digest};

/// The API takes 128; 64 is what all its relatives take.
const MAX_NAME: usize = 64;
/// What is kept of a name that ends in a hash.
const MAX_KEPT: usize = MAX_NAME - 9;
pub const MAX_DESCRIPTION: usize = 8 * 1024;

/// One tool, as the model and people see it.
#[derive(Debug, Clone, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, and three are the protocol's")]
pub struct ToolSpec {
    /// `server__tool`, in the API's alphabet.
    pub name: String,
    pub server: String,
    /// The name on its server.
    pub tool: String,
    pub description: String,
    /// As the server gives it, as JSON.
    pub input_schema: Box<RawValue>,
    /// How each model's API is told of it.
    #[serde(skip)]
    pub dialects: Dialects,
    /// As the server gives it, for clients of ours; but for the description, which is the one above.
    #[serde(skip)]
    pub definition: Arc<Tool>,
    /// The same letter by letter, with what nobody here knows.
    #[serde(skip)]
    pub written: Option<Box<RawValue>>,
    /// Arguments that stand in a header, too.
    #[serde(skip)]
    pub named: Vec<Named>,
    /// It says that it changes nothing.
    pub read_only: bool,
    /// It may be called twice without harm.
    pub idempotent: bool,
    /// It may destroy: a person is asked first. So is every tool that says nothing of itself.
    pub destructive: bool,
    /// Of the definition as the server gave it: a changed definition is another tool.
    pub hash: String,
    /// It is no longer what it was when it was first listed: what it does may be something else, too.
    pub changed: bool,
    /// What its server's entry says of calls, instead of the program's setting.
    #[serde(skip)]
    pub approvals: Option<Approvals>,
}

/// All else follows from the definition that the hash is of; what is written may hold more than that.
impl PartialEq for ToolSpec {
    fn eq(&self, other: &Self) -> bool {
        let same_text = || self.written.as_deref().map(RawValue::get) == other.written.as_deref().map(RawValue::get);
        // At every call, it is the same one.
        std::ptr::eq(self, other)
            || (&self.server, &self.hash, self.changed) == (&other.server, &other.hash, other.changed) && same_text()
    }
}

impl ToolSpec {
    /// Describes a tool; `Err` says why it cannot be offered.
    pub fn new(server: &str, tool: &Tool) -> Result<Self, String> {
        let hints = tool.annotations.clone().unwrap_or_default();
        let read_only = hints.read_only_hint.unwrap_or(false);
        let description = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
        // Cleaning a text that will be cut off anyway is work for nothing.
        let description = cap(clean(&cap(description.to_owned(), 4 * MAX_DESCRIPTION).0), MAX_DESCRIPTION).0;
        let mut definition = tool.clone();
        definition.description = tool.description.is_some().then(|| description.clone().into());
        Ok(Self {
            name: exposed_name(server, &tool.name),
            server: server.to_owned(),
            tool: tool.name.to_string(),
            hash: digest(&[&json!(tool).to_string()]),
            dialects: Dialects::default(),
            description,
            definition: Arc::new(definition),
            written: None,
            named: headers::named(&tool.input_schema),
            input_schema: to_raw_value(&*tool.input_schema).map_err(|error| format!("its input schema: {error}"))?,
            read_only,
            idempotent: read_only || hints.idempotent_hint.unwrap_or(false),
            destructive: !read_only && hints.destructive_hint.unwrap_or(true),
            changed: false,
            approvals: None,
        })
    }

    /// It is another tool than the one that was first listed.
    pub(super) fn mark_changed(&mut self) {
        self.changed = true;
        self.may_do_anything();
    }

    fn may_do_anything(&mut self) {
        (self.read_only, self.idempotent, self.destructive) = (false, false, true);
    }

    /// What it says of itself is not believed: it may do anything.
    pub(super) fn distrust(&mut self) {
        self.may_do_anything();
        let mut definition = (*self.definition).clone();
        definition.annotations = None;
        self.definition = Arc::new(definition);
    }

    /// What it takes of a prompt, in bytes.
    pub fn size(&self) -> usize {
        self.name.len() + self.description.len() + self.input_schema.get().len()
    }
}

/// By whose rules a tool is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Anthropic's Messages API: names of arguments have an alphabet.
    Messages,
    /// Chat Completions.
    Completions,
}

/// Names of arguments as the model knows them, with what they are at the server.
pub type Renamed = BTreeMap<String, String>;

/// A tool as an API is told of it.
#[derive(Debug)]
pub struct Projected {
    pub name: String,
    pub description: String,
    pub schema: Box<RawValue>,
    /// Arguments whose names are others at the server.
    pub renamed: Renamed,
}

impl Projected {
    /// What it takes of a prompt, in bytes.
    pub fn size(&self) -> usize {
        self.name.len() + self.description.len() + self.schema.get().len()
    }
}

/// The projections of one tool, made when they are first needed.
#[derive(Debug, Clone, Default)]
pub struct Dialects([OnceLock<Result<Arc<Projected>, String>>; 2]);

impl Dialects {
    /// The tool as an API takes it; `Err` says why it cannot be offered there.
    pub fn of(&self, dialect: Dialect, project: impl FnOnce() -> Result<Projected, String>) -> Result<Arc<Projected>, String> {
        self.0[dialect as usize].get_or_init(|| project().map(Arc::new)).clone()
    }
}

/// `server__tool` in the API's alphabet. A name that had to be changed, or that another pair could also make, ends in a
/// hash of the pair, so that it is the same whatever other servers there are.
pub fn exposed_name(server: &str, tool: &str) -> String {
    let name = format!("{}__{}", plain(server), plain(tool));
    let unchanged = name == format!("{server}__{tool}");
    let ambiguous = server.contains("__") || server.ends_with('_') || tool.starts_with('_');
    if unchanged && !ambiguous && name.len() <= MAX_NAME {
        return name;
    }
    let suffix = &digest(&[server, tool])[..8];
    format!("{}_{suffix}", &name[..name.len().min(MAX_KEPT)])
}

/// Whether a name ends as those do that had to be changed: it may stand for another one.
pub fn ends_as_made(name: &str) -> bool {
    let hash = name.rsplit_once('_').map(|(_, hash)| hash);
    hash.is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// How the names of all tools of a server begin. Those of another server may begin so, too.
pub fn prefix_of(server: &str) -> String {
    let mut prefix = format!("{}__", plain(server));
    prefix.truncate(MAX_KEPT);
    prefix
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn tool(value: Value) -> Tool {
        serde_json::from_value(value).expect("a tool")
    }

    #[test]
    fn a_tool_that_says_nothing_of_itself_may_destroy() {
        let spec = |annotations: Value| {
            let tool = tool(json!({"name": "t", "inputSchema": {}, "annotations": annotations}));
            ToolSpec::new("s", &tool).expect("fits")
        };
        let silent = spec(json!({}));
        assert!(silent.destructive && !silent.read_only && !silent.idempotent);
        let reading = spec(json!({"readOnlyHint": true}));
        assert!(!reading.destructive && reading.idempotent);
        assert!(!spec(json!({"destructiveHint": false})).destructive);
    }

    #[test]
    fn the_hash_changes_with_the_definition_only() {
        let one = tool(json!({"name": "t", "description": "reads", "inputSchema": {}}));
        let two = tool(json!({"name": "t", "description": "reads, and sends it on", "inputSchema": {}}));
        let hash = |tool: &Tool| ToolSpec::new("s", tool).expect("fits").hash;
        assert_eq!(hash(&one), hash(&one.clone()));
        assert_ne!(hash(&one), hash(&two));
    }

    #[test]
    fn plain_names_stay_readable_and_confusable_ones_do_not_collide() {
        assert_eq!(exposed_name("sqlite", "read_query"), "sqlite__read_query");
        assert_ne!(exposed_name("a__b", "c"), exposed_name("a", "b__c"));
        assert_ne!(exposed_name("a_", "b"), exposed_name("a", "_b"));
        assert_ne!(exposed_name("a", "b.c"), exposed_name("a", "b_c"));
    }

    proptest! {
        #[test]
        fn every_name_fits_the_api(server in "\\PC{0,80}", tool in "\\PC{0,200}") {
            let name = exposed_name(&server, &tool);
            prop_assert!(!name.is_empty() && name.len() <= MAX_NAME);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            prop_assert!(name.starts_with(&prefix_of(&server)));
        }
    }
}

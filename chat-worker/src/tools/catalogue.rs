//! What the model is offered: every tool of every server that is up, under a name that the API accepts. Pure.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use rmcp::model::Tool;
use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use sha2::{Digest, Sha256};

use super::sanitize::{cap, clean, clean_line};
use crate::{
    config::{
        rules::{ToolRules, Trust},
        settings::Approvals,
    },
    llm::offer::Dialects,
};

/// The API takes 128; 64 is what all its relatives take.
const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 8 * 1024;
const MAX_TITLE: usize = 256;
/// Names and schemas of one server's tools together, in bytes: beyond it they would crowd the conversation, and the other
/// servers' tools, out of the model's window.
const MAX_DEFINITIONS: usize = 256 * 1024;
/// Tools beyond this number of one server are left out.
pub(super) const MAX_TOOLS: usize = 256;

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
    /// As the server gives it, for clients of ours.
    #[serde(skip)]
    pub definition: Arc<Tool>,
    /// It says that it changes nothing.
    pub read_only: bool,
    /// It may be called twice without harm.
    pub idempotent: bool,
    /// It may destroy: a person is asked first. So is every tool that says nothing of itself.
    pub destructive: bool,
    /// Of the definition as the server gave it: a changed definition is another tool.
    pub hash: String,
    /// It is no longer what it was when it was first listed: what it does may be something else, too.
    #[serde(skip)]
    pub changed: bool,
    /// What its server's entry says of calls, instead of the program's setting.
    #[serde(skip)]
    pub approvals: Option<Approvals>,
}

/// All else follows from the definition that the hash is of.
impl PartialEq for ToolSpec {
    fn eq(&self, other: &Self) -> bool {
        (&self.server, &self.hash, self.changed) == (&other.server, &other.hash, other.changed)
    }
}

impl ToolSpec {
    /// Describes a tool; `Err` says why it cannot be offered.
    pub fn new(server: &str, tool: &Tool) -> Result<Self, String> {
        let hints = tool.annotations.clone().unwrap_or_default();
        let read_only = hints.read_only_hint.unwrap_or(false);
        let description = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
        // Cleaning a text that will be cut off anyway is work for nothing.
        let description = clean(&cap(description.to_owned(), 4 * MAX_DESCRIPTION).0);
        Ok(Self {
            name: exposed_name(server, &tool.name),
            server: server.to_owned(),
            tool: tool.name.to_string(),
            description: cap(description, MAX_DESCRIPTION).0,
            hash: digest(&[&json!(tool).to_string()]),
            dialects: Dialects::default(),
            definition: Arc::new(tool.clone()),
            input_schema: to_raw_value(&*tool.input_schema).map_err(|error| format!("its input schema: {error}"))?,
            read_only,
            idempotent: read_only || hints.idempotent_hint.unwrap_or(false),
            destructive: !read_only && hints.destructive_hint.unwrap_or(true),
            changed: false,
            approvals: None,
        })
    }

    /// What it says of itself is not believed: it may do anything.
    fn distrust(&mut self) {
        (self.read_only, self.idempotent, self.destructive) = (false, false, true);
        let mut definition = (*self.definition).clone();
        definition.annotations = None;
        self.definition = Arc::new(definition);
    }

    /// What it takes of a prompt, in bytes.
    pub fn size(&self) -> usize {
        self.name.len() + self.description.len() + self.input_schema.get().len()
    }
}

/// Describes a server's list, by what its entry says of it; tools that cannot be offered are left out and named.
pub fn describe(server: &str, tools: &[Tool], trust: Trust, rules: &ToolRules) -> (Vec<ToolSpec>, Vec<String>) {
    let (mut specs, mut left_out, mut size) = (Vec::<ToolSpec>::new(), Vec::new(), 0);
    for tool in tools.iter().filter(|tool| rules.permits(&tool.name)) {
        if specs.len() >= MAX_TOOLS {
            left_out.push(format!("{}: a server may offer {MAX_TOOLS} tools", title(&tool.name)));
            continue;
        }
        match ToolSpec::new(server, tool) {
            Ok(spec) if specs.iter().any(|known| known.name == spec.name) => {
                left_out.push(format!("{}: it is listed twice", title(&spec.tool)));
            }
            Ok(mut spec) => {
                spec.approvals = rules.approvals;
                if trust == Trust::None {
                    spec.distrust();
                }
                let with_it = size + spec.size();
                if with_it > MAX_DEFINITIONS {
                    let limit = MAX_DEFINITIONS / 1024;
                    left_out.push(format!("{}: a server's tools may take {limit} KiB together", title(&spec.tool)));
                } else {
                    size = with_it;
                    specs.push(spec);
                }
            }
            Err(reason) => left_out.push(format!("{}: {reason}", title(&tool.name))),
        }
    }
    (specs, left_out)
}

/// The tools of all servers at one moment, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    tools: BTreeMap<String, Arc<ToolSpec>>,
}

impl Catalogue {
    pub fn new(tools: impl IntoIterator<Item = Arc<ToolSpec>>) -> Self {
        Self { tools: tools.into_iter().map(|spec| (spec.name.clone(), spec)).collect() }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<ToolSpec>> {
        self.tools.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<ToolSpec>> {
        self.tools.values()
    }

    /// The tools from a name on, in the order of their names.
    pub fn after<'a>(&'a self, start: Bound<&'a str>) -> impl Iterator<Item = &'a Arc<ToolSpec>> {
        self.tools.range::<str, _>((start, Bound::Unbounded)).map(|(_, spec)| spec)
    }

    pub fn len(&self) -> usize {
        self.tools.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// For the model, in the order of their names: the same tools always make the same prefix.
    pub fn tools(&self) -> Vec<Arc<ToolSpec>> {
        self.tools.values().cloned().collect()
    }
}

fn title(text: &str) -> String {
    cap(clean_line(text), MAX_TITLE).0
}

/// `server__tool` in the API's alphabet. A name that had to be changed, or that another pair could also make, ends in a
/// hash of the pair, so that it is the same whatever other servers there are.
pub fn exposed_name(server: &str, tool: &str) -> String {
    let plain = |text: &str| {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect::<String>()
    };
    let name = format!("{}__{}", plain(server), plain(tool));
    let unchanged = name == format!("{server}__{tool}");
    let ambiguous = server.contains("__") || server.ends_with('_') || tool.starts_with('_');
    if unchanged && !ambiguous && name.len() <= MAX_NAME {
        return name;
    }
    let suffix = &digest(&[server, tool])[..8];
    format!("{}_{suffix}", &name[..name.len().min(MAX_NAME - 9)])
}

/// A digest of texts in their order.
pub fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hex(&hasher.finalize())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::config::rules::Glob;

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
    fn a_server_cannot_fill_the_window() {
        let wordy =
            |index: usize| tool(json!({"name": format!("t{index}"), "description": "x".repeat(9_000), "inputSchema": {}}));
        let (specs, left_out) = describe("s", &(0..100).map(wordy).collect::<Vec<_>>(), Trust::Hints, &ToolRules::default());
        assert_eq!((specs.len(), left_out.len()), (31, 69));
    }

    #[test]
    fn what_a_server_is_not_trusted_with_and_what_it_may_not_offer() {
        let list =
            ["read", "write"].map(|name| tool(json!({"name": name, "inputSchema": {}, "annotations": {"readOnlyHint": true}})));
        let rules = ToolRules { deny: vec![Glob::new("wr*")], approvals: Some(Approvals::Never), ..ToolRules::default() };
        let (specs, left_out) = describe("s", &list, Trust::None, &rules);
        assert_eq!((specs.len(), left_out.len(), specs[0].approvals), (1, 0, Some(Approvals::Never)));
        assert!(specs[0].destructive && !specs[0].read_only && !specs[0].idempotent && specs[0].definition.annotations.is_none());
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
        }
    }
}

//! The tools of every server that is up: which of a server's list are offered, and all of them by their names. Pure.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use rmcp::model::Tool;
use serde_json::value::RawValue;

use super::{
    sanitize::{cap, clean_line},
    spec::{ToolSpec, exposed_name},
};
use crate::config::rules::{ToolRules, Trust};

const MAX_TITLE: usize = 256;
/// Names and schemas of one server's tools together, in bytes: beyond it they would crowd the conversation, and the other
/// servers' tools, out of the model's window.
const MAX_DEFINITIONS: usize = 256 * 1024;
/// Tools beyond this number of one server are left out.
pub(super) const MAX_TOOLS: usize = 256;

/// A tool, and the same as its server wrote it.
#[derive(Debug, Clone)]
pub struct Defined {
    pub tool: Tool,
    pub written: Option<Box<RawValue>>,
}

/// Describes a server's list, by what its entry says of it; tools that cannot be offered are left out and named.
pub fn describe(server: &str, tools: &[Defined], trust: Trust, rules: &ToolRules) -> (Vec<ToolSpec>, Vec<String>) {
    let (mut specs, mut left_out, mut size) = (Vec::<ToolSpec>::new(), Vec::new(), 0);
    // Who knows a tool by the name that it is offered by may say no by that one, too.
    let permits = |tool: &str| rules.permits(tool) && (rules.deny.is_empty() || !rules.denies(&exposed_name(server, tool)));
    for Defined { tool, written } in tools.iter().filter(|defined| permits(&defined.tool.name)) {
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
                spec.written.clone_from(written);
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::rules::{Approvals, Glob};

    fn tool(value: Value) -> Defined {
        Defined { tool: serde_json::from_value(value).expect("a tool"), written: None }
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
    fn a_tool_is_denied_by_either_of_its_names() {
        let list = ["read", "write"].map(|name| tool(json!({"name": name, "inputSchema": {}})));
        for denied in ["write", "s__write", "s__wr*"] {
            let rules = ToolRules { deny: vec![Glob::new(denied)], ..ToolRules::default() };
            let (specs, _) = describe("s", &list, Trust::Hints, &rules);
            assert_eq!(specs.iter().map(|spec| &*spec.tool).collect::<Vec<_>>(), ["read"], "{denied}");
        }
        let rules = ToolRules { deny: vec![Glob::new("other__write")], ..ToolRules::default() };
        assert_eq!(describe("s", &list, Trust::Hints, &rules).0.len(), 2);
    }
}

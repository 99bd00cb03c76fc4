//! Lists of tools made comparable, and how two of them differ. Pure. Which is the accepted one: `mcp_server::contract`.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use mcp_wire::item::Item;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::types::AcceptedTools;
use crate::digest::hex;

/// What of a tool is compared: what a model is told about it and what a caller must send. Icons and `_meta` are decoration.
const COMPARED: [&str; 6] = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];

/// The longest name of a tool, in characters: what the specification allows.
const NAME_CHARS: usize = 128;

/// One tool, made comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tool {
    /// Its name.
    pub name: Box<str>,
    /// SHA-256 over its normalised form, in hexadecimal.
    pub hash: Box<str>,
}

/// The tools that a server offers, normalised: the same list whatever order, page or spelling it came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolsList {
    /// SHA-256 over names and hashes, in hexadecimal.
    pub digest: Box<str>,
    /// Sorted by name, one a name.
    pub tools: Box<[Tool]>,
    /// The names of tools that break the specification: they are no part of the list, of its digest or of any comparison.
    pub left_out: Box<[Box<str>]>,
}

impl ToolsList {
    /// Sorts, makes one of those with the same name, and hashes.
    pub fn new(mut tools: Vec<Tool>) -> Self {
        tools.sort_unstable();
        tools.dedup();
        let tools = tools.into_iter().fold(Vec::<Tool>::new(), |mut tools, tool| {
            match tools.last_mut().filter(|last| last.name == tool.name) {
                // A client sees one of them, and which one is chance: the pair is what is compared.
                Some(last) => last.hash = hex(&Sha256::digest(format!("{} {}", last.hash, tool.hash))).into(),
                None => tools.push(tool),
            }
            tools
        });
        let mut hasher = Sha256::new();
        for tool in &tools {
            // The length keeps a name from running into the hash that follows it.
            hasher.update((tool.name.len() as u64).to_be_bytes());
            hasher.update(tool.name.as_bytes());
            hasher.update(tool.hash.as_bytes());
        }
        Self { digest: hex(&hasher.finalize()).into(), tools: tools.into(), left_out: Box::default() }
    }

    /// The list, with the names of those that were left out of it.
    pub fn without(self, mut left_out: Vec<Box<str>>) -> Self {
        left_out.sort_unstable();
        left_out.dedup();
        Self { left_out: left_out.into(), ..self }
    }

    /// How many tools.
    pub fn count(&self) -> usize {
        self.tools.len()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|tool| &*tool.name)
    }

    /// The list in the form in which it is accepted and kept.
    pub fn accept(&self) -> AcceptedTools {
        AcceptedTools {
            digest: self.digest.to_string(),
            tools: self.tools.iter().map(|tool| (tool.name.to_string(), tool.hash.to_string())).collect(),
        }
    }

    /// How this list differs from the accepted one; none when it does not.
    pub fn diff(&self, accepted: &AcceptedTools) -> Option<ToolsDiff> {
        if *self.digest == *accepted.digest {
            return None;
        }
        let mut diff = ToolsDiff { digest: self.digest.to_string(), ..ToolsDiff::default() };
        if accepted.tools.is_empty() {
            return Some(diff);
        }
        let offered: BTreeMap<&str, &str> = self.tools.iter().map(|tool| (&*tool.name, &*tool.hash)).collect();
        for (name, hash) in &offered {
            match accepted.tools.get(*name) {
                None => diff.added.push((*name).to_owned()),
                Some(before) if before != hash => diff.changed.push((*name).to_owned()),
                Some(_) => {}
            }
        }
        diff.removed = accepted.tools.keys().filter(|name| !offered.contains_key(name.as_str())).cloned().collect();
        Some(diff)
    }
}

/// How the offered tools differ from the accepted ones. Names are sorted. All empty: only the digests are known to differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ToolsDiff {
    /// The digest of what is offered.
    pub digest: String,
    /// Offered, but not accepted.
    pub added: Vec<String>,
    /// Accepted, but not offered.
    pub removed: Vec<String>,
    /// Offered in another form than the accepted one.
    pub changed: Vec<String>,
}

/// What one entry of `tools/list` is.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    /// A tool, made comparable.
    Sound(Tool),
    /// A tool that breaks the specification, by its name, or its place in the list where it has none: nobody can call it.
    Malformed(Box<str>),
}

/// Judges the entry of `tools/list` at `place`. The apps leave out the same ones, and of the others the same odd fields.
pub fn judge(tool: &Value, place: usize) -> Judged {
    let malformed = || Judged::Malformed(short(&Item::Tool.known_as(tool, place)));
    let Ok(Value::Object(fields)) = Item::Tool.usable(tool.clone()) else { return malformed() };
    let Some(name) = fields.get("name").and_then(Value::as_str) else { return malformed() };
    let mut text = String::with_capacity(256);
    for key in COMPARED {
        // A field that is null says the same as one that is not there.
        if let Some(value) = fields.get(key).filter(|value| !value.is_null()) {
            text.push_str(key);
            text.push('=');
            canonical(value, &mut text);
            text.push('\n');
        }
    }
    Judged::Sound(Tool { name: short(name), hash: hex(&Sha256::digest(text.as_bytes())).into() })
}

/// A name fit for status and ConfigMaps: without control characters, and one that is too long is cut to what still tells it from others.
fn short(name: &str) -> Box<str> {
    let fit = name.chars().all(|c| !c.is_control()) && name.chars().nth(NAME_CHARS).is_none();
    if fit {
        return name.into();
    }
    let kept: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NAME_CHARS - 10).collect();
    format!("{kept}…{}", &hex(&Sha256::digest(name.as_bytes()))[..9]).into()
}

/// Writes JSON with sorted keys, and with `required` sorted: servers print both in any order.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (key, value) in entries {
                let _infallible = write!(out, "{}:", Value::from(key.as_str()));
                match value {
                    Value::Array(items) if key == "required" && items.iter().all(Value::is_string) => {
                        let mut names: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                        names.sort_unstable();
                        let _infallible = write!(out, "{names:?}");
                    }
                    other => canonical(other, out),
                }
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => {
            let _infallible = write!(out, "{scalar}");
        }
    }
}

/// The list that most pods offer; among equals the one with the smaller digest, so that the choice does not flap.
pub fn majority<'a>(lists: impl Iterator<Item = &'a Arc<ToolsList>>) -> Option<Arc<ToolsList>> {
    let mut counts: Vec<(&Arc<ToolsList>, usize)> = Vec::new();
    for list in lists {
        match counts.iter_mut().find(|(seen, _)| seen.digest == list.digest) {
            Some((_, count)) => *count += 1,
            None => counts.push((list, 1)),
        }
    }
    counts.into_iter().max_by(|(a, n), (b, m)| n.cmp(m).then_with(|| b.digest.cmp(&a.digest))).map(|(list, _)| Arc::clone(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list(tools: &[Value]) -> ToolsList {
        let sound = |tool| match judge(tool, 0) {
            Judged::Sound(tool) => Some(tool),
            Judged::Malformed(_) => None,
        };
        ToolsList::new(tools.iter().filter_map(sound).collect())
    }

    fn tool(name: &str) -> Value {
        json!({"name": name, "description": "d", "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"]}})
    }

    #[test]
    fn the_order_of_tools_keys_and_required_does_not_matter() {
        let other = json!({"inputSchema": {"required": ["b", "a"], "properties": {"a": {"type": "string"}}, "type": "object"}, "description": "d", "name": "x"});
        assert_eq!(list(&[tool("x"), tool("y")]), list(&[tool("y"), other]));
    }

    #[test]
    fn decoration_and_nulls_do_not_matter_but_a_description_does() {
        let mut decorated = tool("x");
        decorated["icons"] = json!([{"src": "a.png"}]);
        decorated["_meta"] = json!({"at": 1});
        decorated["title"] = Value::Null;
        assert_eq!(list(&[tool("x")]), list(&[decorated]));
        let mut reworded = tool("x");
        reworded["description"] = json!("another");
        assert_ne!(list(&[tool("x")]).digest, list(&[reworded]).digest);
    }

    #[test]
    fn the_same_tool_twice_is_as_good_as_once_and_two_of_one_name_are_one_of_another_kind() {
        let mut other = tool("x");
        other["description"] = json!("another");
        assert_eq!(list(&[tool("x"), tool("x")]), list(&[tool("x")]));
        let both = list(&[tool("x"), other.clone()]);
        assert_eq!(both.count(), 1);
        assert_eq!(both, list(&[other.clone(), tool("x")]));
        assert!(both.digest != list(&[tool("x")]).digest && both.digest != list(&[other]).digest);
    }

    #[test]
    fn a_difference_names_what_was_added_removed_and_changed() {
        let accepted = list(&[tool("kept"), tool("gone"), tool("altered")]).accept();
        let mut altered = tool("altered");
        altered["description"] = json!("another");
        let diff = list(&[tool("kept"), tool("new"), altered]).diff(&accepted).expect("a difference");
        assert_eq!((diff.added, diff.removed, diff.changed), (vec!["new".into()], vec!["gone".into()], vec!["altered".into()]));
        assert_eq!(list(&[tool("kept")]).diff(&list(&[tool("kept")]).accept()), None);
    }

    #[test]
    fn a_pinned_digest_without_a_list_differs_without_names() {
        let accepted = AcceptedTools { digest: "0".repeat(64), tools: BTreeMap::new() };
        let diff = list(&[tool("x")]).diff(&accepted).expect("a difference");
        assert!(diff.added.is_empty() && diff.removed.is_empty() && diff.changed.is_empty());
    }

    #[test]
    fn a_tool_without_a_name_is_left_out_by_its_place() {
        for bad in [json!({}), json!({"name": 1}), json!({"name": "", "inputSchema": {}}), json!("x"), json!(null)] {
            assert_eq!(judge(&bad, 3), Judged::Malformed("tools[3]".into()), "{bad}");
        }
    }

    #[test]
    fn a_tool_whose_arguments_have_no_schema_is_left_out_by_name() {
        for schema in [json!(null), json!("object"), json!([]), json!(true)] {
            assert_eq!(judge(&json!({"name": "x", "inputSchema": schema}), 0), Judged::Malformed("x".into()));
        }
        assert_eq!(judge(&json!({"name": "x"}), 0), Judged::Malformed("x".into()));
        let with = list(&[tool("a")]).without(vec!["x".into()]);
        assert_eq!((with.digest.clone(), with.count()), (list(&[tool("a")]).digest, 1), "it is no part of the list");
    }

    #[test]
    fn an_odd_field_that_only_describes_a_tool_is_no_part_of_it() {
        for (field, odd) in [("annotations", json!([])), ("_meta", json!([])), ("title", json!(5)), ("outputSchema", json!(true))]
        {
            let mut with = tool("x");
            with[field] = odd;
            assert_eq!(list(&[with]), list(&[tool("x")]), "{field}");
        }
    }

    #[test]
    fn a_long_name_is_cut_and_still_tells_its_tool_from_others() {
        let (a, b) = (format!("{}a", "x".repeat(100_000)), format!("{}b", "x".repeat(100_000)));
        let names = list(&[tool(&a), tool(&b), tool("line\nbreak")]);
        let names: Vec<&str> = names.names().collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.iter().all(|name| name.chars().count() <= NAME_CHARS && !name.contains('\n')), "{names:?}");
    }

    #[test]
    fn the_list_of_the_majority_is_shown() {
        let (a, b) = (Arc::new(list(&[tool("a")])), Arc::new(list(&[tool("b")])));
        assert_eq!(majority([&a, &b, &b].into_iter()), Some(Arc::clone(&b)));
        assert_eq!(majority([&a, &b].into_iter()), majority([&b, &a].into_iter()));
    }
}

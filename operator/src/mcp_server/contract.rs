//! The tools contract, what is accepted: which list of tools is the accepted one. Pure, but for the reading of the ConfigMap that keeps it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use crate::{
    crd::{ToolsPolicy, mcp_server::Tools},
    probe::{AcceptedTools, Tool, ToolsContract, ToolsDiff, ToolsList},
};

/// The key in the ConfigMap.
const FILE: &str = "tools.json";

#[derive(Serialize, Deserialize)]
struct File {
    digest: String,
    /// Tool name to hash.
    tools: BTreeMap<String, String>,
}

/// The list that was accepted last, out of the ConfigMap that keeps it. What cannot be read was not accepted.
pub fn read(config_map: &ConfigMap) -> Option<AcceptedTools> {
    let file: File = serde_json::from_str(config_map.data.as_ref()?.get(FILE)?).ok()?;
    Some(AcceptedTools { digest: file.digest, tools: file.tools })
}

/// The data of the ConfigMap that keeps an accepted list.
pub fn write(accepted: &AcceptedTools) -> BTreeMap<String, String> {
    let file = File { digest: accepted.digest.clone(), tools: accepted.tools.clone() };
    let text = serde_json::to_string_pretty(&file).expect("strings are JSON");
    BTreeMap::from([(FILE.into(), text)])
}

/// The contract, from what the spec says, what was accepted before, and what the server offers.
///
/// A digest in the spec is the person's word. Without one the first list that the server offers is the accepted one.
pub fn decide(spec: &Tools, before: Option<&AcceptedTools>, offered: Option<&ToolsList>) -> ToolsContract {
    let offered = offered.map(ToolsList::accept);
    let accepted = match &spec.digest {
        _ if spec.policy == ToolsPolicy::Ignore => None,
        Some(digest) => [before.cloned(), offered]
            .into_iter()
            .flatten()
            .find(|list| list.digest == *digest)
            // The names are not known until a server offers the list, so the ones before stand in to tell the difference from.
            .or_else(|| {
                Some(AcceptedTools { digest: digest.clone(), tools: before.map(|list| list.tools.clone()).unwrap_or_default() })
            }),
        None => before.cloned().or(offered),
    };
    ToolsContract { policy: spec.policy, accepted, pinned: spec.digest.is_some() }
}

/// Whether the list is known, and not its digest alone: a digest that a person gave may be of a list that nobody has offered yet.
pub fn is_known(accepted: &AcceptedTools) -> bool {
    let tools = accepted.tools.iter().map(|(name, hash)| Tool { name: name.as_str().into(), hash: hash.as_str().into() });
    *ToolsList::new(tools.collect()).digest == *accepted.digest
}

/// How many names a sentence holds: a condition's message has a bound, and a list of tools has none.
const NAMED: usize = 20;

fn some_of(names: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// Which tools break the specification, for people; none when none does. The prober and the apps leave them out.
pub fn left_out(list: &ToolsList) -> Option<String> {
    let names = some_of(&list.left_out);
    (!list.left_out.is_empty()).then(|| format!("left out, because nobody can call them: {names}"))
}

/// How the offered tools differ, for people, with what to do.
pub fn describe(diff: &ToolsDiff) -> String {
    let parts = [("added", &diff.added), ("removed", &diff.removed), ("changed", &diff.changed)];
    let named: Vec<_> =
        parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("{what}: {}", some_of(names))).collect();
    let told = if named.is_empty() { "the list is another one".to_owned() } else { named.join("; ") };
    format!("{told}. To accept it, set spec.tools.digest to {}", diff.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_by_name_with_what_to_do() {
        let diff = list(&["a", "c"]).diff(&list(&["a", "b"]).accept()).expect("they differ");
        let told = describe(&diff);
        assert!(told.starts_with("added: c; removed: b. To accept it, set spec.tools.digest to "), "{told}");
    }

    #[test]
    fn of_many_names_some_are_told_and_the_others_counted() {
        let names: Vec<String> = (0..1_000).map(|n| format!("{n:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let told = describe(&list(&names).diff(&list(&["a"]).accept()).expect("they differ"));
        assert!(told.contains("0019 and 980 more; removed: a") && told.len() < 500, "{told}");
    }

    #[test]
    fn tools_that_are_left_out_are_named() {
        assert_eq!(left_out(&list(&["a"])), None);
        let told = left_out(&list(&["a"]).without(vec!["c".into(), "b".into()])).expect("two are left out");
        assert_eq!(told, "left out, because nobody can call them: b, c");
    }

    #[test]
    fn a_pin_on_an_unknown_list_is_not_known() {
        let known = list(&["a"]).accept();
        assert!(is_known(&known));
        assert!(!is_known(&AcceptedTools { digest: "f".repeat(64), ..known }));
    }

    fn list(names: &[&str]) -> ToolsList {
        ToolsList::new(names.iter().map(|&name| Tool { name: name.into(), hash: format!("hash of {name}").into() }).collect())
    }

    fn spec(policy: ToolsPolicy, digest: Option<&str>) -> Tools {
        Tools { policy, digest: digest.map(Into::into) }
    }

    #[test]
    fn the_first_list_is_accepted_and_stays_so() {
        let (first, second) = (list(&["a"]), list(&["a", "b"]));
        let warn = spec(ToolsPolicy::Warn, None);
        let accepted = decide(&warn, None, Some(&first)).accepted.expect("the first list is accepted");
        assert_eq!(accepted, first.accept());
        assert_eq!(decide(&warn, Some(&accepted), Some(&second)).accepted, Some(accepted));
        assert_eq!(decide(&warn, None, None).accepted, None);
    }

    #[test]
    fn a_digest_in_the_spec_accepts_that_list_and_no_other() {
        let (first, second) = (list(&["a"]), list(&["a", "b"]));
        let enforce = spec(ToolsPolicy::Enforce, Some(&second.digest));
        assert_eq!(decide(&enforce, Some(&first.accept()), Some(&second)).accepted, Some(second.accept()));
        let pinned = decide(&enforce, Some(&first.accept()), Some(&first)).accepted.expect("the pin stands");
        assert_eq!(pinned.digest, second.accept().digest);
        assert_eq!(pinned.tools, first.accept().tools);
    }

    #[test]
    fn ignoring_accepts_nothing() {
        assert_eq!(decide(&spec(ToolsPolicy::Ignore, None), None, Some(&list(&["a"]))).accepted, None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let accepted = list(&["a", "b"]).accept();
        let config_map = ConfigMap { data: Some(write(&accepted)), ..ConfigMap::default() };
        assert_eq!(read(&config_map), Some(accepted));
    }
}

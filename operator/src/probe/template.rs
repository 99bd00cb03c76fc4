//! What a pod is asked: written into the annotations of the template that it is made from, and read from the pod itself. Pure.
//!
//! So an edit of the spec reaches a pod only with the rollout that makes it anew, and takes no old pod out before a new one is in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    crd::{ToolCall, ToolsPolicy, mcp_server::Tools},
    names::{ANNOTATION_CONTRACT, ANNOTATION_PROBE},
};

/// What the pods of one template are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The port that they listen on.
    pub port: u16,
    /// The path of the endpoint, for example `/mcp`.
    pub path: String,
    /// A call that must succeed.
    pub tool_call: Option<ToolCall>,
    /// The digest that their tools must have: the one that `spec.tools` pinned under Enforce when they were made.
    pub digest: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    port: u16,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_call: Option<ToolCall>,
}

/// The annotations of a pod template whose pods are asked so.
pub fn annotations(port: u16, path: &str, tool_call: Option<&ToolCall>, contract: &Tools) -> BTreeMap<String, String> {
    let probe = Probe { port, path: path.to_owned(), tool_call: tool_call.cloned() };
    let probe = serde_json::to_string(&probe).expect("a port, two strings and a map of JSON are JSON");
    let digest = pinned(contract).map(|digest| (ANNOTATION_CONTRACT.to_owned(), digest.to_owned()));
    digest.into_iter().chain([(ANNOTATION_PROBE.to_owned(), probe)]).collect()
}

/// What the annotations of a pod say that it is asked; none where an older operator made it, or somebody else wrote there.
pub fn read(annotations: &BTreeMap<String, String>) -> Option<Template> {
    let Probe { port, path, tool_call } = serde_json::from_str(annotations.get(ANNOTATION_PROBE)?).ok()?;
    Some(Template { port, path, tool_call, digest: annotations.get(ANNOTATION_CONTRACT).cloned() })
}

/// The digest that keeps pods out. Under Warn it does not, and an edit of it is no reason to roll them.
pub fn pinned(contract: &Tools) -> Option<&str> {
    contract.digest.as_deref().filter(|_| contract.policy == ToolsPolicy::Enforce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call() -> ToolCall {
        let arguments = json!({"b": 1, "a": [true]});
        ToolCall { name: "list".into(), arguments: arguments.as_object().cloned().expect("an object") }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for policy in [ToolsPolicy::Enforce, ToolsPolicy::Warn] {
            let contract = Tools { policy, digest: Some("d".into()) };
            let written = annotations(3_000, "/x", Some(&call()), &contract);
            let digest = (policy == ToolsPolicy::Enforce).then(|| "d".to_owned());
            let expected = Template { port: 3_000, path: "/x".into(), tool_call: Some(call()), digest };
            assert_eq!(read(&written), Some(expected));
        }
    }

    #[test]
    fn the_same_is_written_the_same_and_without_what_is_not_set() {
        let contract = Tools { policy: ToolsPolicy::Warn, digest: None };
        let written = annotations(8_080, "/mcp", None, &contract);
        assert_eq!(written, BTreeMap::from([(ANNOTATION_PROBE.into(), r#"{"port":8080,"path":"/mcp"}"#.into())]));
        assert_eq!(annotations(1, "/", Some(&call()), &contract), annotations(1, "/", Some(&call()), &contract));
    }

    #[test]
    fn a_pod_of_an_older_operator_says_nothing() {
        assert_eq!(read(&BTreeMap::new()), None);
        assert_eq!(read(&BTreeMap::from([(ANNOTATION_PROBE.into(), "8080".into())])), None);
    }
}

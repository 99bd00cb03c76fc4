//! The step `apply`: every child to where it is to be, what is no longer wanted away; one result a child. I/O out.
//!
//! A child that cannot be applied holds up nobody, except who needs it: pods that would mount somebody else's object of its name, or
//! would be open to all without their NetworkPolicy.

use std::sync::Arc;

use crate::{
    child::{Child, KINDS, Key},
    children::Live,
    problem::Problem,
    ssa::{Correction, Error, Writer},
};

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// What is now as it is to be.
    pub done: Vec<Key>,
    /// What stands in the way, child by child.
    pub problems: Vec<(Key, Problem)>,
    /// What was written.
    pub written: Vec<Arc<Live>>,
    /// What somebody else had changed of ours, and was put right.
    pub corrected: Vec<(Key, Correction)>,
}

/// Applies every child in its order (who is mounted comes before who mounts), and deletes what the CR of this uid controls and no
/// longer wants.
pub async fn all(writer: &Writer, uid: &str, children: &[Child]) -> Applied {
    let mut applied = Applied::default();
    let mut unmet = Vec::new();
    for child in children {
        if child.waits || child.needs.iter().any(|kind| unmet.contains(kind)) {
            continue;
        }
        match writer.apply(child).await {
            Ok(done) => {
                applied.done.push(child.key.clone());
                applied.written.extend(done.written.then_some(done.live));
                applied.corrected.extend(done.corrected.map(|what| (child.key.clone(), what)));
                let dropped = done.dropped.as_ref().map(|dropped| (child.key.clone(), Problem::not_applied(dropped)));
                applied.problems.extend(dropped);
            }
            Err(error) => {
                let is_theirs = matches!(
                    error,
                    Error::NameConflict(_)
                        | Error::ForeignData(..)
                        | Error::DataGoing(_)
                        | Error::OfPredecessor(_)
                        | Error::OwnerGoing(..)
                );
                // One that is there is what it was before an edit of it was refused.
                if is_theirs || writer.children.get(&child.key).is_none() {
                    unmet.push(child.key.kind);
                }
                applied.problems.push((child.key.clone(), Problem::not_applied(&error)));
            }
        }
    }
    // What the pods no longer mount goes after them.
    for live in writer.children.owned_by(uid) {
        if children.iter().any(|child| child.key == live.key) {
            continue;
        }
        let Some(kind) = KINDS.iter().find(|kind| kind.kind == live.key.kind) else { continue };
        if let Err(error) = writer.delete(&live, &(kind.resource)()).await {
            applied.problems.push((live.key.clone(), Problem::not_applied(&error)));
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::{core::v1::ConfigMap, networking::v1::NetworkPolicy};
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::api::Api;

    fn metadata(edit: &str) -> Value {
        let owner = json!([
            {"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "db", "uid": "uid-of-db", "controller": true},
        ]);
        json!({"name": "db-mcp", "namespace": "team", "ownerReferences": owner, "labels": {"edit": edit}})
    }

    /// A policy, and what must not be without it.
    fn children(edit: &str) -> [Child; 2] {
        let policy: NetworkPolicy = serde_json::from_value(json!({"metadata": metadata(edit)})).expect("a NetworkPolicy");
        let shielded: ConfigMap = serde_json::from_value(json!({"metadata": metadata(edit)})).expect("a ConfigMap");
        [Child::new(&policy), Child::new(&shielded).needs(&["NetworkPolicy"])]
    }

    #[tokio::test]
    async fn what_is_shielded_waits_for_its_shield_and_for_no_edit_of_it() {
        let api = Api::default();
        let writer = Writer { client: api.client(), children: Arc::default(), contests: Arc::default() };
        let pass = async |edit: &str| {
            let applied = all(&writer, "uid-of-db", &children(edit)).await;
            let refused: Vec<_> = applied.problems.iter().map(|(key, _)| key.kind).collect();
            let is_there = writer.children.get(&children(edit)[1].key);
            (refused, is_there.map(|live| live.value()["metadata"]["labels"]["edit"].as_str().unwrap_or_default().to_owned()))
        };
        api.state().refusals.push(("POST", "networkpolicies", 422));
        assert_eq!(pass("a").await, (vec!["NetworkPolicy"], None));
        assert_eq!(pass("a").await, (vec![], Some("a".into())));
        api.state().refusals.push(("PATCH", "networkpolicies", 422));
        assert_eq!(pass("b").await, (vec!["NetworkPolicy"], Some("b".into())), "the one before the edit stands");
    }
}

//! Labels and annotations of a CR that its children get, too: what cost reports, policies and backups of a company go by. Pure.

use std::{collections::BTreeMap, convert::Infallible, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

/// Which keys are handed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherit {
    /// Of labels.
    pub labels: Keys,
    /// Of annotations.
    pub annotations: Keys,
}

/// Keys, or all keys of a prefix (`cost.example.com/*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<String>);

impl FromStr for Keys {
    type Err = Infallible;

    /// Separated by commas.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.split(',').map(str::trim).filter(|key| !key.is_empty()).map(Into::into).collect()))
    }
}

impl Keys {
    fn of<'a>(&'a self, given: Option<&'a BTreeMap<String, String>>) -> impl Iterator<Item = (&'a String, &'a String)> {
        given.into_iter().flatten().filter(|(key, _)| {
            self.0.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(prefix) => key.starts_with(prefix),
                None => *key == wanted,
            })
        })
    }
}

impl Inherit {
    /// Puts what is handed on to the child, and to what is made from it: its pods, or its jobs and theirs. What is there already stays.
    pub fn hand_on(&self, from: &ObjectMeta, child: &mut Value) {
        self.put(from, child);
        for template in ["/spec/template", "/spec/jobTemplate", "/spec/jobTemplate/spec/template"] {
            if let Some(template) = child.pointer_mut(template) {
                self.put(from, template);
            }
        }
    }

    fn put(&self, from: &ObjectMeta, object: &mut Value) {
        let labels = ("labels", self.labels.of(from.labels.as_ref()).collect::<Vec<_>>());
        let annotations = ("annotations", self.annotations.of(from.annotations.as_ref()).collect());
        for (field, given) in [labels, annotations].into_iter().filter(|(_, given)| !given.is_empty()) {
            let metadata = object.as_object_mut().map(|object| object.entry("metadata").or_insert_with(empty));
            let there = metadata.and_then(Value::as_object_mut).map(|metadata| metadata.entry(field).or_insert_with(empty));
            let Some(there) = there.and_then(Value::as_object_mut) else { continue };
            for (key, value) in given {
                there.entry(key.clone()).or_insert_with(|| value.clone().into());
            }
        }
    }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_named_is_handed_on_to_the_child_and_its_pods_and_nothing_is_replaced() {
        let map = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
        let from = ObjectMeta {
            labels: map(&[
                ("team", "data"),
                ("cost.example.com/unit", "7"),
                ("app.kubernetes.io/name", "theirs"),
                ("other", "x"),
            ]),
            annotations: map(&[("backup", "daily"), ("kubectl.kubernetes.io/last-applied-configuration", "{}")]),
            ..ObjectMeta::default()
        };
        let inherit = Inherit {
            labels: " team, cost.example.com/*,app.kubernetes.io/name".parse().expect("keys"),
            annotations: "backup".parse().expect("keys"),
        };
        let mut child =
            json!({"metadata": {"name": "c", "labels": {"app.kubernetes.io/name": "ours"}}, "spec": {"template": {"spec": {}}}});
        inherit.hand_on(&from, &mut child);
        assert_eq!(
            child,
            json!({
                "metadata": {
                    "name": "c",
                    "labels": {"app.kubernetes.io/name": "ours", "cost.example.com/unit": "7", "team": "data"},
                    "annotations": {"backup": "daily"},
                },
                "spec": {"template": {
                    "metadata": {
                        "labels": {"app.kubernetes.io/name": "theirs", "cost.example.com/unit": "7", "team": "data"},
                        "annotations": {"backup": "daily"},
                    },
                    "spec": {},
                }},
            })
        );
    }

    #[test]
    fn jobs_and_their_pods_get_it_too() {
        let labels = Some(BTreeMap::from([("team".into(), "data".into())]));
        let from = ObjectMeta { labels, ..ObjectMeta::default() };
        let inherit = Inherit { labels: "team".parse().expect("a key"), ..Inherit::default() };
        let pods = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}});
        let mut child = json!({"metadata": {"name": "c"}, "spec": {"jobTemplate": pods}});
        inherit.hand_on(&from, &mut child);
        let labels = |at: &str| child.pointer(at).map(|labels| labels["team"].clone());
        for at in ["/metadata/labels", "/spec/jobTemplate/metadata/labels", "/spec/jobTemplate/spec/template/metadata/labels"] {
            assert_eq!(labels(at), Some(json!("data")), "{at}");
        }
        assert_eq!(labels("/spec/template/metadata/labels"), None);
    }

    #[test]
    fn nothing_is_handed_on_unless_it_is_named() {
        let from = ObjectMeta { labels: Some(BTreeMap::from([("team".into(), "data".into())])), ..ObjectMeta::default() };
        let mut child = json!({"metadata": {"name": "c"}});
        Inherit::default().hand_on(&from, &mut child);
        assert_eq!(child, json!({"metadata": {"name": "c"}}));
    }
}

//! Which servers the activator was called for: a watch of the one ConfigMap that it may write, `NAMESPACE.NAME: TIME`. I/O.
//!
//! It outlives operators: whoever leads next reads what was said to the one before.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};

use super::Asleep;
use crate::probe::ServerKey;

/// Follows the ConfigMap `name` of the operator's namespace. Never ends.
pub async fn watch(asleep: &Asleep, client: Client, namespace: &str, name: &str) {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, only).default_backoff().boxed();
    let mut said = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::InitApply(found) | watcher::Event::Apply(found)) => {
                let now = found.data.unwrap_or_default();
                for (key, at) in news(&said, &now) {
                    asleep.called(&key, at);
                }
                said = now;
            }
            Ok(watcher::Event::Delete(_)) => said.clear(),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, "it is not known which servers are called"),
        }
    }
}

/// What is new in it. What cannot be read was said by nobody.
fn news<'a>(
    before: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (ServerKey, Timestamp)> + use<'a> {
    let new = now.iter().filter(|(key, at)| before.get(*key) != Some(*at));
    new.filter_map(|(key, at)| {
        // A namespace has no dot in its name.
        let (namespace, name) = key.split_once('.')?;
        Some((ServerKey::new(namespace, name), at.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn what_is_said_anew_is_news() {
        let said = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let before = said(&[("team.a", "2026-01-01T00:00:00Z"), ("team.b", "2026-01-01T00:00:00Z")]);
        let now = said(&[
            ("team.a", "2026-01-01T00:00:00Z"),
            ("team.b", "2026-01-01T00:00:07Z"),
            ("team.c.d", "2026-01-01T00:00:09Z"),
            ("nobody", "2026-01-01T00:00:09Z"),
            ("team.e", "now"),
        ]);
        let expected = [(ServerKey::new("team", "b"), fixtures::at(7)), (ServerKey::new("team", "c.d"), fixtures::at(9))];
        assert_eq!(news(&before, &now).collect::<Vec<_>>(), expected);
    }
}

//! Which servers the activator was called for: a watch of the one ConfigMap that it may write, `NAMESPACE.NAME: TIME`. I/O.
//!
//! It outlives operators: whoever leads next reads what was said to the one before.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use super::Asleep;
use crate::{again::Again, clock, probe::ServerKey};

/// Follows the ConfigMap `name` of the operator's namespace. Never ends.
pub async fn watch(asleep: &Asleep, client: Client, namespace: &str, name: &str) {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, only).backoff(Again::default()).boxed();
    let mut said = Said::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => said.take(event, clock::now()).iter().for_each(|(key, at)| asleep.called(key, *at)),
            Err(error) => tracing::warn!(%error, "it is not known which servers are called"),
        }
    }
}

/// What the ConfigMap said last.
#[derive(Debug, Default)]
struct Said {
    said: BTreeMap<String, String>,
    /// The first list is in.
    listed: bool,
}

impl Said {
    /// Who was called, and when. What comes in while we watch was said a moment ago, whatever the clock of whoever said it shows; how old
    /// what was there before is can be read from it alone.
    fn take(&mut self, event: Event<ConfigMap>, now: Timestamp) -> Vec<(ServerKey, Timestamp)> {
        let said = match event {
            Event::InitApply(found) | Event::Apply(found) => found.data.unwrap_or_default(),
            Event::Delete(_) => BTreeMap::new(),
            Event::InitDone => {
                self.listed = true;
                return Vec::new();
            }
            Event::Init => return Vec::new(),
        };
        let at = |written| if self.listed { now } else { written };
        let called = news(&self.said, &said).map(|(key, written)| (key, at(written))).collect();
        self.said = said;
        called
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
    #[test]
    fn what_comes_in_while_somebody_watches_was_said_now_whatever_the_time_that_is_written() {
        let map = |at: &str| ConfigMap { data: Some([("team.a".to_owned(), at.to_owned())].into()), ..ConfigMap::default() };
        let (key, now) = (ServerKey::new("team", "a"), fixtures::at(60));
        let mut said = Said::default();
        assert_eq!(said.take(Event::Init, now), []);
        assert_eq!(said.take(Event::InitApply(map("2026-01-01T00:00:07Z")), now), [(key.clone(), fixtures::at(7))]);
        assert_eq!(said.take(Event::InitDone, now), []);
        let other_clock = "2026-01-01T01:00:00Z";
        assert_eq!(said.take(Event::Apply(map(other_clock)), now), [(key.clone(), now)]);
        assert_eq!(said.take(Event::Apply(map(other_clock)), now), [], "it was said already");
        // A watch that begins anew lists what it missed.
        let again = [Event::Init, Event::InitApply(map("2026-01-01T01:00:09Z"))];
        let heard: Vec<_> = again.into_iter().flat_map(|event| said.take(event, now)).collect();
        assert_eq!(heard, [(key, now)]);
    }
}

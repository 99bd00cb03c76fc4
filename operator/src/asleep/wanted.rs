//! Which servers the activator was called for: a watch of the one ConfigMap that it may write, `NAMESPACE.NAME: TIME`. I/O.
//!
//! It outlives operators: whoever leads next reads what was said to the one before.

use std::{collections::BTreeMap, time::Duration};

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
            Err(error) => {
                tracing::warn!(%error, "it is not known which servers are called");
                said.broke(clock::now());
            }
        }
    }
}

/// For so long after a watch broke what it missed comes in: it is opened again within three seconds ([`Again`]).
const CATCHING_UP: Duration = Duration::from_secs(5);

/// What the ConfigMap said last.
#[derive(Debug, Default)]
struct Said {
    said: BTreeMap<String, String>,
    /// When the watch broke last.
    broke: Option<Timestamp>,
}

impl Said {
    fn broke(&mut self, now: Timestamp) {
        self.broke = Some(now);
    }

    /// Who was called, and when. What comes in while we watch was said a moment ago, whatever the clock of whoever said it shows; how old
    /// what was there before is, or came in while the watch was broken, can be read from it alone. Who waits says so again and again.
    fn take(&mut self, event: Event<ConfigMap>, now: Timestamp) -> Vec<(ServerKey, Timestamp)> {
        let (said, is_old) = match event {
            Event::InitApply(found) => (found, true),
            Event::Apply(found) => {
                let caught_up = |broke: Timestamp| now.duration_since(broke).unsigned_abs() > CATCHING_UP;
                (found, self.broke.is_some_and(|broke| !caught_up(broke)))
            }
            // One that is made anew says what is to be known.
            Event::Init | Event::InitDone | Event::Delete(_) => return Vec::new(),
        };
        let said = said.data.unwrap_or_default();
        let at = |written| if is_old { written } else { now };
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
    }

    /// Who waits says so again; whoever called ten minutes ago has long gone.
    #[test]
    fn what_a_watch_missed_is_as_old_as_it_says() {
        let map = |at: &str| ConfigMap { data: Some([("team.a".to_owned(), at.to_owned())].into()), ..ConfigMap::default() };
        let key = ServerKey::new("team", "a");
        let said_at = |second| format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
        let begun = || {
            let mut said = Said::default();
            for event in [Event::Init, Event::InitApply(map(&said_at(0))), Event::InitDone] {
                said.take(event, fixtures::at(1));
            }
            said
        };
        // It begins anew, and lists everything.
        let mut said = begun();
        let again = [Event::Init, Event::InitApply(map(&said_at(30))), Event::InitDone];
        let heard: Vec<_> = again.into_iter().flat_map(|event| said.take(event, fixtures::at(630))).collect();
        assert_eq!(heard, [(key.clone(), fixtures::at(30))]);
        // It goes on from where it was.
        let mut said = begun();
        said.broke(fixtures::at(20));
        said.broke(fixtures::at(628));
        assert_eq!(said.take(Event::Apply(map(&said_at(30))), fixtures::at(630)), [(key.clone(), fixtures::at(30))]);
        assert_eq!(
            said.take(Event::Apply(map(&said_at(5))), fixtures::at(640)),
            [(key.clone(), fixtures::at(640))],
            "it is said now"
        );
        // It is deleted and made anew.
        let mut said = begun();
        assert_eq!(said.take(Event::Delete(map(&said_at(0))), fixtures::at(60)), []);
        assert_eq!(said.take(Event::Apply(map(&said_at(0))), fixtures::at(61)), [], "that was heard of");
        assert_eq!(said.take(Event::Apply(map(&said_at(62))), fixtures::at(62)), [(key, fixtures::at(62))]);
    }
}

//! Answers that are kept for identical requests which ask for it. Only answers that would come out the same: complete, with
//! read-only tools alone, and none of them failed. What a request is, is everything that the answer depends on.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use moka::{future::Cache, policy::EvictionPolicy};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{event::Event, opening::Opening, transcript::Transcript};
use crate::{message::Message, tools::catalogue::Catalogue};

/// All answers together, in bytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// What a request is known by.
pub type Key = [u8; 32];

/// All that an answer depends on.
#[derive(Debug)]
pub struct Request<'a> {
    pub model: &'a str,
    pub system: &'a str,
    pub catalogue: &'a Catalogue,
    pub messages: &'a [Message],
    pub say: Option<&'a Opening>,
    pub always: &'a HashSet<String>,
}

/// What a request is known by.
pub fn key(request: &Request<'_>) -> Key {
    let Request { model, system, catalogue, messages, say, always } = request;
    let tools: Vec<_> = catalogue.iter().map(|spec| [&spec.name, &spec.hash]).collect();
    let always: BTreeSet<_> = always.iter().collect();
    Sha256::digest(json!([model, system, tools, messages, say, always]).to_string()).into()
}

/// The answers that are kept.
#[derive(Debug, Clone)]
pub struct ResponseCache(Option<Cache<Key, Arc<Kept>>>);

/// A turn that was answered.
#[derive(Debug)]
pub struct Kept {
    /// What was told between the start and the end.
    pub events: Vec<Event>,
    pub messages: Vec<Message>,
    pub model: String,
    pub tools_used: Vec<String>,
}

impl ResponseCache {
    /// Keeps answers for so long; for no time, none.
    pub fn new(time: Duration) -> Self {
        let weigh = |_: &Key, kept: &Arc<Kept>| u32::try_from(kept.size()).unwrap_or(u32::MAX);
        let build = || {
            let cache = Cache::builder().max_capacity(MAX_BYTES).weigher(weigh);
            cache.time_to_live(time).eviction_policy(EvictionPolicy::lru()).build()
        };
        Self((!time.is_zero()).then(build))
    }

    /// Whether any are kept.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub async fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        self.0.as_ref()?.get(key).await
    }

    pub async fn put(&self, key: Key, kept: Kept) {
        if let Some(cache) = &self.0 {
            cache.insert(key, Arc::new(kept)).await;
        }
    }
}

impl Kept {
    /// In bytes, about: the conversation is most of it, and its results are told by events once more.
    fn size(&self) -> usize {
        2 * self.messages.iter().flat_map(|message| &message.content).map(|block| block.to_string().len()).sum::<usize>()
    }
}

/// What is written down while a turn runs whose answer may be kept.
#[derive(Debug, Default)]
pub struct Recording {
    events: Vec<Event>,
    spoiled: bool,
}

impl Recording {
    /// Writes down what a reader would see who comes later: no attempt that broke off, and words together.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Start { .. } | Event::Done { .. } | Event::Error { .. } => {}
            Event::Restart { .. } => {
                while matches!(self.events.last(), Some(Event::Text { .. } | Event::Thinking { .. })) {
                    self.events.pop();
                }
            }
            // What concerned this one turn, or may come out better the next time.
            Event::Notice { .. } | Event::ApprovalRequired { .. } | Event::ToolResult { is_error: true, .. } => {
                self.spoiled = true;
            }
            Event::Text { text } => match self.events.last_mut() {
                Some(Event::Text { text: before }) => before.push_str(text),
                _ => self.events.push(event.clone()),
            },
            Event::Thinking { text } => match self.events.last_mut() {
                Some(Event::Thinking { text: before }) => before.push_str(text),
                _ => self.events.push(event.clone()),
            },
            _ => self.events.push(event.clone()),
        }
    }

    /// What can be kept of a turn that was completed; `read_only` are the tools that change nothing.
    pub fn kept(self, transcript: &Transcript, model: &str, tools_used: &[String], read_only: &HashSet<String>) -> Option<Kept> {
        if self.spoiled || !tools_used.iter().all(|tool| read_only.contains(tool)) {
            return None;
        }
        let (messages, model) = (transcript.messages().to_vec(), model.to_owned());
        Some(Kept { events: self.events, messages, model, tools_used: tools_used.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Event {
        Event::Text { text: text.into() }
    }

    #[test]
    fn what_broke_off_is_not_kept_and_what_may_change_something_spoils_it() {
        let mut recording = Recording::default();
        for event in [
            text("half"),
            Event::Restart { reason: String::new(), attempt: 2, after_ms: 0, model: String::new() },
            text("a "),
            text("whole"),
        ] {
            recording.note(&event);
        }
        assert_eq!(recording.events, [text("a whole")]);
        let read_only = HashSet::from(["s__read".to_owned()]);
        let kept = |recording: Recording, tool: &str| {
            recording.kept(&Transcript::default(), "m", &[tool.to_owned()], &read_only).is_some()
        };
        assert!(kept(Recording::default(), "s__read"));
        assert!(!kept(Recording::default(), "s__write"));
        let mut failed = Recording::default();
        failed.note(&Event::ToolResult { id: "1".into(), is_error: true, text: "no".into(), duration_ms: 1 });
        assert!(!kept(failed, "s__read"));
    }
}

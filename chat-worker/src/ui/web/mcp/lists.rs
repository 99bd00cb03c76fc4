//! Telling clients that what is offered has changed: those of the modern era on the stream that they subscribed by, earlier ones on the
//! stream that they opened by GET. On that, a session hears, too, that a page is done which it was asked to open, and that a resource changed
//! which it watches.

use std::{collections::VecDeque, convert::Infallible, future::pending, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, request::Parts},
    response::{Sse, sse},
};
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{client, gateway::Gateway};
use crate::{
    numbers,
    tools::{pages::PAGE_DONE, watches::Listens},
};

/// How often it is looked whether the listener may still listen.
const LOOK: Duration = Duration::from_secs(1);

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Tools,
    Resources,
    Prompts,
}

impl List {
    /// That it changed, as a message.
    fn changed(self) -> Value {
        let method = match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Resources => "notifications/resources/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
        };
        json!({"jsonrpc": "2.0", "method": method})
    }
}

/// What was told last.
#[derive(Debug)]
pub struct Told {
    tools: Vec<(String, String)>,
    others: [Vec<(String, [u64; 2])>; 2],
}

impl Told {
    pub fn now(gateway: &Gateway) -> Self {
        Self { tools: gateway.offered(), others: gateway.web.app.engine.hub.lists() }
    }

    /// Which lists are other ones now.
    pub fn changes(&mut self, gateway: &Gateway) -> Vec<List> {
        let now = Self::now(gateway);
        let changed = [
            (List::Tools, now.tools != self.tools),
            (List::Resources, now.others[0] != self.others[0]),
            (List::Prompts, now.others[1] != self.others[1]),
        ];
        *self = now;
        changed.into_iter().filter_map(|(list, changed)| changed.then_some(list)).collect()
    }
}

struct Listening {
    gateway: Gateway,
    headers: HeaderMap,
    versions: watch::Receiver<u64>,
    pages: watch::Receiver<()>,
    /// Of a session.
    watched: Option<Listens>,
    ticks: Interval,
    told: Told,
    due: VecDeque<List>,
}

/// The stream that a client of an earlier era opens: it ends when the client may not listen any more, or this replica is being stopped.
pub fn stream(gateway: Gateway, parts: Parts) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let versions = gateway.web.app.engine.hub.subscribe();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let told = Told::now(&gateway);
    let (hub, caller, headers) = (&gateway.web.app.engine.hub, client::counted(Some(&parts)), parts.headers);
    let pages = hub.pages.subscribe();
    let watched = client::session(&headers).map(|session| hub.watches.listens(session, &caller, true));
    let listening = Listening { gateway, headers, versions, pages, watched, ticks, told, due: VecDeque::new() };
    Sse::new(stream::unfold(listening, |mut listening| async move {
        let message = listening.next().await?;
        let event = sse::Event::default().event("message").data(numbers::written(&message));
        Some((Ok(event), listening))
    }))
    .keep_alive(sse::KeepAlive::default())
}

impl Listening {
    async fn next(&mut self) -> Option<Value> {
        let web = Arc::clone(&self.gateway.web);
        loop {
            if let Some(list) = self.due.pop_front() {
                return Some(list.changed());
            }
            if let Some(done) = client::session(&self.headers).and_then(|session| web.app.engine.hub.pages.next(session)) {
                return Some(json!({"jsonrpc": "2.0", "method": PAGE_DONE, "params": done}));
            }
            let watched = self.watched.as_ref();
            let updated = async { if let Some(watched) = watched { watched.next().await } else { pending().await } };
            tokio::select! {
                uri = updated => {
                    return Some(json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}));
                }
                // It has been looked for it when this waits anew.
                changed = self.pages.changed() => { changed.ok()?; continue }
                changed = self.versions.changed() => changed.ok()?,
                () = web.draining.cancelled() => return None,
                _ = self.ticks.tick() => if !web.access.still_allows(&self.headers) { return None },
            }
            self.due = self.told.changes(&self.gateway).into();
        }
    }
}

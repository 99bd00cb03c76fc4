//! Telling clients that what is offered has changed: those of the modern era on the stream that they subscribed by, earlier ones on the
//! stream that they opened by GET.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::HeaderMap,
    response::{Sse, sse},
};
use futures::{Stream, stream};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::gateway::Gateway;

/// How often it is looked whether the listener may still listen.
const LOOK: Duration = Duration::from_secs(1);

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Tools,
    Resources,
    Prompts,
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
    ticks: Interval,
    told: Told,
    due: VecDeque<List>,
}

/// The stream that a client of an earlier era opens: it ends when the client may not listen any more, or this replica is being stopped.
pub fn stream(gateway: Gateway, headers: HeaderMap) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let versions = gateway.web.app.engine.hub.subscribe();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let told = Told::now(&gateway);
    let listening = Listening { gateway, headers, versions, ticks, told, due: VecDeque::new() };
    Sse::new(stream::unfold(listening, |mut listening| async move {
        let list = listening.next().await?;
        let method = match list {
            List::Tools => "notifications/tools/list_changed",
            List::Resources => "notifications/resources/list_changed",
            List::Prompts => "notifications/prompts/list_changed",
        };
        let event = sse::Event::default().event("message").data(json!({"jsonrpc": "2.0", "method": method}).to_string());
        Some((Ok(event), listening))
    }))
    .keep_alive(sse::KeepAlive::default())
}

impl Listening {
    async fn next(&mut self) -> Option<List> {
        let web = Arc::clone(&self.gateway.web);
        loop {
            if let Some(list) = self.due.pop_front() {
                return Some(list);
            }
            tokio::select! {
                changed = self.versions.changed() => changed.ok()?,
                () = web.draining.cancelled() => return None,
                _ = self.ticks.tick() => if !web.access.still_allows(&self.headers) { return None },
            }
            self.due = self.told.changes(&self.gateway).into();
        }
    }
}

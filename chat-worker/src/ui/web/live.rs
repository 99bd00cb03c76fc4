//! The stream of events behind the page's badges: the servers and what was used today, again at every change, for as long
//! as the caller may read them. Its last event says why it ends.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response, Sse, sse},
};
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval, sleep},
};

use super::{state::Web, status};

/// Bursts of changes are told together.
const CALM: Duration = Duration::from_millis(200);
/// How often it is looked whether more was used, and whether the caller may still read.
const LOOK: Duration = Duration::from_secs(1);

/// Where a stream stands.
struct Live {
    web: Arc<Web>,
    headers: HeaderMap,
    versions: watch::Receiver<u64>,
    ticks: Interval,
    usage: Value,
    begun: bool,
    ended: bool,
}

/// The servers as they are; as a stream of events, again at every change.
pub async fn servers(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") {
        stream(web, headers).into_response()
    } else {
        Json(status::servers_now(&web)).into_response()
    }
}

/// The events: `servers` and `usage`; at the end `draining` (connect again) or `signed_out` (the token has changed).
fn stream(web: Arc<Web>, headers: HeaderMap) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let mut versions = web.app.engine.hub.subscribe();
    // The first is told at once.
    versions.mark_changed();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let live = Live { web, headers, versions, ticks, usage: Value::Null, begun: false, ended: false };
    Sse::new(stream::unfold(live, |mut live| async move {
        let event = live.next().await?;
        Some((Ok(event), live))
    }))
    .keep_alive(sse::KeepAlive::default())
}

impl Live {
    async fn next(&mut self) -> Option<sse::Event> {
        if self.ended {
            return None;
        }
        loop {
            tokio::select! {
                () = self.web.draining.cancelled() => {
                    self.ended = true;
                    return Some(event("draining", &draining(self.web.app.settings.drain_seconds)));
                }
                changed = self.versions.changed() => {
                    changed.ok()?;
                    if std::mem::replace(&mut self.begun, true) {
                        sleep(CALM).await;
                    }
                    self.versions.borrow_and_update();
                    return Some(event("servers", &status::servers_now(&self.web)));
                }
                _ = self.ticks.tick() => {
                    if !self.web.access.still_allows(&self.headers) {
                        self.ended = true;
                        return Some(event("signed_out", &json!({})));
                    }
                    let usage = status::usage_now(&self.web);
                    if usage != self.usage {
                        self.usage = usage.clone();
                        return Some(event("usage", &usage));
                    }
                }
            }
        }
    }
}

/// Tells a client of a replica that is being stopped: what runs gets so many seconds to end, what is new goes to another.
pub fn draining(seconds: u64) -> Value {
    json!({"type": "draining", "seconds": seconds})
}

fn event(name: &str, data: &Value) -> sse::Event {
    sse::Event::default().event(name).data(data.to_string())
}

//! Tells clients that the schema or the memo has changed: in the modern era through subscriptions/listen, before it through sessions
//! (standard input, or HTTP with --legacy-sessions). What changed is said by the calls that went through this server.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rmcp::model::{ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{Peer, SubscriptionContext};
use rmcp::{ErrorData, RoleServer};
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::resources::{MEMO, SCHEMA, Target};

/// Changes that a slow client may fall behind before it is told of all at once.
const BACKLOG: usize = 64;

/// What a call has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A table, index or view was created.
    Schema,
    /// A line was added to the memo.
    Memo,
}

impl Change {
    /// Whether the resource at `uri` reads differently now. A new index may belong to any table.
    fn touches(self, uri: &str) -> bool {
        match self {
            Self::Memo => uri == MEMO,
            Self::Schema => uri.starts_with(SCHEMA),
        }
    }
}

/// The place where changes are announced.
#[derive(Debug)]
pub struct Events {
    changes: Sender<Change>,
    stop: CancellationToken,
}

impl Events {
    /// Subscriptions end when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self { changes: broadcast::channel(BACKLOG).0, stop }
    }

    /// Announces a change.
    pub fn announce(&self, change: Change) {
        // Fails when nobody listens.
        let _ = self.changes.send(change);
    }

    /// What of a filter this server can serve.
    pub fn acceptable(requested: &SubscriptionFilter) -> SubscriptionFilter {
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.retain(|uri| Target::parse(uri).is_some());
        }
        accepted
    }

    /// Serves one modern subscription until it is cancelled or the server stops.
    pub async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let mut announced = self.changes.subscribe();
        loop {
            let changed = tokio::select! {
                changed = next(&mut announced) => changed,
                () = subscription.cancelled() => return Ok(()),
                () = self.stop.cancelled() => return Ok(()),
            };
            let accepted = subscription.accepted();
            for change in changed {
                if change == Change::Schema
                    && accepted.resources_list_changed == Some(true)
                    && subscription.sink().notify_resource_list_changed().await.is_err()
                {
                    return Ok(());
                }
                for uri in accepted.resource_subscriptions.iter().flatten().filter(|uri| change.touches(uri)) {
                    if subscription.sink().notify_resource_updated(uri.clone()).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Serves one session of an earlier era until its client is gone.
    pub async fn follow(&self, peer: Peer<RoleServer>, watched: std::sync::Arc<Watched>) {
        let mut announced = self.changes.subscribe();
        loop {
            let changed = tokio::select! {
                changed = next(&mut announced) => changed,
                () = self.stop.cancelled() => return,
            };
            for change in changed {
                if change == Change::Schema && peer.notify_resource_list_changed().await.is_err() {
                    return;
                }
                for uri in watched.uris().into_iter().filter(|uri| change.touches(uri)) {
                    if peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// The next change; all of them after falling behind. None is left when the server is gone.
async fn next(announced: &mut Receiver<Change>) -> Vec<Change> {
    match announced.recv().await {
        Ok(change) => vec![change],
        Err(RecvError::Lagged(_)) => vec![Change::Schema, Change::Memo],
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

/// The resources that one session has subscribed to.
#[derive(Debug, Default)]
pub struct Watched(Mutex<HashSet<String>>);

impl Watched {
    /// How many resources one session may watch.
    const MAX: usize = 1000;

    /// Adds a resource.
    pub fn add(&self, uri: String) -> Result<(), ErrorData> {
        if Target::parse(&uri).is_none() {
            return Err(ErrorData::resource_not_found(format!("no resource {uri}"), None));
        }
        let mut uris = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uris.len() >= Self::MAX {
            return Err(ErrorData::invalid_params(format!("one session can watch {} resources", Self::MAX), None));
        }
        uris.insert(uri);
        Ok(())
    }

    /// Removes a resource.
    pub fn remove(&self, uri: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uri);
    }

    fn uris(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

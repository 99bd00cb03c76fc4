//! Asks one server to tell of the resources that clients watch, for as long as its connection lives. In earlier eras by a request for each,
//! which is made again in each new session; in the modern one by a stream for all of them, which is opened anew when they are other ones.
//! Which they are, and who hears of them, is `watches`'.

#![allow(deprecated, reason = "resources/subscribe, which earlier eras have")]

use std::{collections::BTreeSet, future::pending, pin::pin, time::Duration};

use futures::{
    FutureExt,
    future::{join, join_all},
};
use rmcp::{
    ErrorData, RoleClient,
    model::{ServerNotification, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams},
    service::{Peer, ServiceError, Subscription},
};
use tokio::{
    sync::watch,
    task::unconstrained,
    time::{Instant, error::Elapsed, sleep, timeout},
};

use super::{failure, watches::Watched};

/// What failed is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// A stream that ended is opened again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Asks a server of an earlier era. `sessions` changes when one has begun; each request gets so long.
pub async fn by_requests(peer: Peer<RoleClient>, watched: Watched, mut sessions: Option<watch::Receiver<u64>>, limit: Duration) {
    let (mut wanted, mut told) = (watched.wanted(), BTreeSet::<String>::new());
    loop {
        let now: BTreeSet<String> = wanted.borrow_and_update().keys().cloned().collect();
        let (gone, new): (Vec<_>, Vec<_>) = (told.difference(&now).cloned().collect(), now.difference(&told).cloned().collect());
        let unsubscribed = gone.iter().map(|uri| timeout(limit, peer.unsubscribe(UnsubscribeRequestParams::new(uri))));
        let subscribed = new.iter().map(async |uri| {
            let asked = match timeout(limit, peer.subscribe(SubscribeRequestParams::new(uri))).await {
                // There should be nothing in the result; what is there says nothing else.
                Ok(Err(ServiceError::UnexpectedResponse)) => Ok(Ok(())),
                asked => asked,
            };
            (uri.clone(), outcome(asked, limit))
        });
        // Of what nobody watches, it does not matter what a server says to that.
        let (_, asked) = join(join_all(unsubscribed), join_all(subscribed)).await;
        told.retain(|uri| now.contains(uri));
        told.extend(asked.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(uri, _)| uri.clone()));
        let has_failed = asked.iter().any(|(_, outcome)| outcome.is_err());
        let known = told.iter().map(|uri| (uri.clone(), Ok(())));
        watched.asked(asked.into_iter().chain(known).collect(), &new);
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = begun(&mut sessions) => told.clear(),
            () = sleep(AGAIN), if has_failed => {}
        }
    }
}

/// A session has begun.
async fn begun(sessions: &mut Option<watch::Receiver<u64>>) {
    if let Some(sessions) = sessions
        && sessions.changed().await.is_ok()
    {
        return;
    }
    pending::<()>().await;
}

/// Asks a server of the modern era, which gets so long to acknowledge it.
pub async fn by_a_stream(peer: Peer<RoleClient>, watched: Watched, limit: Duration) {
    let (mut wanted, mut stream) = (watched.wanted(), None::<Subscription>);
    loop {
        let now: Vec<String> = wanted.borrow_and_update().keys().cloned().collect();
        let before = stream.as_ref().map(taken).unwrap_or_default();
        let new: Vec<String> = now.iter().filter(|uri| !before.contains(uri)).cloned().collect();
        let mut problem = None;
        if now.is_empty() {
            stream = None;
        } else if !new.is_empty() || before.len() > now.len() {
            let mut filter = SubscriptionFilter::default();
            filter.resource_subscriptions = Some(now.clone());
            // The next one is there before the last one goes.
            match outcome(timeout(limit, peer.listen(filter)).await, limit) {
                Ok(next) => {
                    if let Some(mut last) = stream.replace(next) {
                        tell_rest(&mut last, &watched);
                    }
                }
                Err(error) => problem = Some(error),
            }
        }
        let is_taken = stream.as_ref().map(taken).unwrap_or_default();
        let untold = || ErrorData::invalid_params("the server does not tell of changes of this resource", None);
        let outcome_of = |uri: String| {
            let outcome = if is_taken.contains(&uri) { Ok(()) } else { Err(problem.clone().unwrap_or_else(untold)) };
            (uri, outcome)
        };
        watched.asked(now.into_iter().map(outcome_of).collect(), &new);
        let mut again = pin!(sleep(AGAIN));
        let mut is_due = problem.is_some();
        loop {
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return } else { break },
                next = next_of(&mut stream) => if let Some(said) = next {
                    tell(&said, &watched);
                } else {
                    stream = None;
                    again.as_mut().reset(Instant::now() + LISTEN_AGAIN);
                    is_due = true;
                },
                () = &mut again, if is_due => break,
            }
        }
    }
}

fn tell(said: &ServerNotification, watched: &Watched) {
    if let ServerNotification::ResourceUpdatedNotification(updated) = said {
        watched.updated(&updated.params.uri);
    }
}

/// What came on a stream while nobody read it, before it goes.
fn tell_rest(stream: &mut Subscription, watched: &Watched) {
    while let Some(Ok(Some(said))) = unconstrained(stream.next()).now_or_never() {
        tell(&said, watched);
    }
}

/// What comes next on the stream; `None` where it has ended.
async fn next_of(stream: &mut Option<Subscription>) -> Option<ServerNotification> {
    match stream {
        Some(stream) => stream.next().await.ok().flatten(),
        None => pending().await,
    }
}

/// What the server has acknowledged.
fn taken(stream: &Subscription) -> Vec<String> {
    stream.acknowledged().resource_subscriptions.clone().unwrap_or_default()
}

/// What came of a request, with an error that a client understands: the server's own as it is.
fn outcome<T>(asked: Result<Result<T, ServiceError>, Elapsed>, limit: Duration) -> Result<T, ErrorData> {
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ServiceError::McpError(error))) => Err(error),
        Ok(Err(error)) => {
            Err(ErrorData::internal_error(format!("the server did not answer: {}", failure::of(&error, limit)), None))
        }
        Err(_) => Err(ErrorData::internal_error(format!("the server did not answer within {} s", limit.as_secs_f64()), None)),
    }
}

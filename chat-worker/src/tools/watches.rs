//! Single resources that clients watch: who watches which, what of it has changed and is not told yet, and what each server has to be asked
//! to tell of: once, for all who watch it. A watcher is a session of an earlier era, or one stream of the modern one. How servers are asked
//! is `subscribed`'s.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rmcp::ErrorData;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::sanitize::clean_line;

/// Resources that one watcher watches, all watchers of one caller, and all callers.
pub const MOST_OF_WATCHER: usize = 64;
const MOST_OF_CALLER: usize = 256;
const MOST: usize = 2_048;
/// Of a URI, in bytes.
const LONGEST: usize = 8 * 1024;
/// Sessions need not say that they end: one that has listened to nothing for so long watches nothing any more.
const FORGOTTEN: Duration = Duration::from_mins(5);

/// What came of asking a server to tell of each resource.
pub type Outcomes = HashMap<String, Result<(), ErrorData>>;

/// All that is watched.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    watchers: HashMap<Arc<str>, Watcher>,
    servers: HashMap<Arc<str>, Arc<Wants>>,
}

#[derive(Debug)]
struct Watcher {
    caller: Arc<str>,
    /// Each with its server.
    uris: BTreeMap<String, Arc<str>>,
    /// Those of them that have changed, which it has not heard of yet.
    due: BTreeSet<String>,
    bell: Arc<Notify>,
    /// Streams on which it hears.
    streams: usize,
    since: Instant,
}

/// What a server is to tell of.
#[derive(Debug, Default)]
struct Wants {
    /// And by how many each resource is watched.
    uris: watch::Sender<BTreeMap<String, usize>>,
    outcomes: watch::Sender<Outcomes>,
}

/// What one server has to do with it.
#[derive(Debug, Clone)]
pub struct Watched {
    watches: Watches,
    server: Arc<str>,
    wants: Arc<Wants>,
}

/// The ear of a watcher.
#[derive(Debug)]
pub struct Listens {
    watches: Watches,
    watcher: Arc<str>,
    bell: Arc<Notify>,
    /// It comes back, and then watches the same.
    comes_back: bool,
}

impl Watches {
    /// The part of this server.
    pub fn of(&self, server: &str) -> Watched {
        let server: Arc<str> = server.into();
        let wants = Arc::clone(self.all().servers.entry(Arc::clone(&server)).or_default());
        Watched { watches: self.clone(), server, wants }
    }

    /// Begins to watch a resource of this server: when it has taken that, which it gets so long for.
    pub async fn watch(&self, watcher: &str, caller: &str, uri: &str, server: &str, limit: Duration) -> Result<(), ErrorData> {
        let of_server = self.of(server);
        self.add(watcher, caller, uri, &of_server)?;
        let mut outcomes = of_server.wants.outcomes.subscribe();
        let outcome = async { outcomes.wait_for(|all| all.contains_key(uri)).await.ok()?.get(uri).cloned() };
        let no_answer = || ErrorData::internal_error(format!("the server {server} did not answer in time"), None);
        let outcome = timeout(limit, outcome).await.ok().flatten().unwrap_or_else(|| Err(no_answer()));
        if outcome.is_err() {
            self.unwatch(watcher, uri);
        }
        outcome
    }

    /// Whether it watches this resource, and the server is known to tell of it.
    pub fn has(&self, watcher: &str, uri: &str) -> bool {
        let all = self.all();
        let server = all.watchers.get(watcher).and_then(|watcher| watcher.uris.get(uri));
        let wants = server.and_then(|server| all.servers.get(server));
        wants.is_some_and(|wants| matches!(wants.outcomes.borrow().get(uri), Some(Ok(()))))
    }

    /// This server is not configured any more: whoever watches something of it hears that it has changed, and watches it no more.
    pub fn server_left(&self, server: &str) {
        let mut all = self.all();
        for Watcher { uris, due, bell, .. } in all.watchers.values_mut() {
            uris.retain(|uri, of| {
                let stays = **of != *server;
                if !stays {
                    due.insert(uri.clone());
                }
                stays
            });
            if !due.is_empty() {
                bell.notify_one();
            }
        }
        // Some may be about to be watched.
        if let Some(wants) = all.servers.remove(server) {
            let gone = || ErrorData::invalid_params("the server is not configured any more", None);
            let outcomes: Outcomes = wants.uris.borrow().keys().map(|uri| (uri.clone(), Err(gone()))).collect();
            drop(wants.outcomes.send_replace(outcomes));
        }
    }

    /// It does not watch this resource any more, if it did.
    pub fn unwatch(&self, watcher: &str, uri: &str) {
        let mut all = self.all();
        let Some(own) = all.watchers.get_mut(watcher) else { return };
        own.due.remove(uri);
        let server = own.uris.remove(uri);
        if own.is_over() {
            all.watchers.remove(watcher);
        }
        if let Some(server) = server {
            all.release(&server, uri);
        }
    }

    /// It watches nothing any more.
    pub fn forget(&self, watcher: &str) {
        self.all().forget(watcher);
    }

    /// Forgets the sessions that nobody comes back for, and the servers that have nothing to tell and are connected no more.
    pub fn forget_idle(&self) {
        let mut all = self.all();
        let is_idle = |watcher: &Watcher| watcher.streams == 0 && watcher.since.elapsed() >= FORGOTTEN;
        let idle: Vec<_> =
            all.watchers.iter().filter(|(_, watcher)| is_idle(watcher)).map(|(name, _)| Arc::clone(name)).collect();
        for name in idle {
            all.forget(&name);
        }
        all.servers.retain(|_, wants| Arc::strong_count(wants) > 1 || !wants.uris.borrow().is_empty());
    }

    /// The ear of a watcher: of a session, which comes back, or of one stream.
    pub fn listens(&self, watcher: &str, caller: &str, comes_back: bool) -> Listens {
        let watcher: Arc<str> = watcher.into();
        let mut all = self.all();
        let own = all.watcher(&watcher, caller);
        own.streams += 1;
        Listens { watches: self.clone(), bell: Arc::clone(&own.bell), watcher, comes_back }
    }

    fn add(&self, watcher: &str, caller: &str, uri: &str, of_server: &Watched) -> Result<(), ErrorData> {
        if uri.len() > LONGEST {
            return Err(ErrorData::invalid_params(format!("the uri is longer than {LONGEST} bytes"), None));
        }
        let mut all = self.all();
        let (mut own, mut of_caller, mut of_all) = (0, 0, 0);
        for (name, other) in &all.watchers {
            let count = other.uris.len();
            if &**name == watcher {
                if other.uris.get(uri) == Some(&of_server.server) {
                    return Ok(());
                }
                own += count;
            }
            of_caller += if &*other.caller == caller { count } else { 0 };
            of_all += count;
        }
        if own >= MOST_OF_WATCHER || of_caller >= MOST_OF_CALLER || of_all >= MOST {
            let told = format!(
                "too many resources are watched: {MOST_OF_WATCHER} of a session or stream, {MOST_OF_CALLER} of a caller, and {MOST} \
                 in all; unsubscribe from some first"
            );
            return Err(ErrorData::invalid_request(told, None));
        }
        let own = all.watcher(&watcher.into(), caller);
        own.since = Instant::now();
        // Another server may have told of it before.
        if let Some(before) = own.uris.insert(uri.to_owned(), Arc::clone(&of_server.server)) {
            all.release(&before, uri);
        }
        of_server.wants.uris.send_if_modified(|uris| {
            let count = uris.entry(uri.to_owned()).or_default();
            *count += 1;
            *count == 1
        });
        Ok(())
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn watcher(&mut self, name: &Arc<str>, caller: &str) -> &mut Watcher {
        self.watchers.entry(Arc::clone(name)).or_insert_with(|| Watcher {
            caller: caller.into(),
            uris: BTreeMap::new(),
            due: BTreeSet::new(),
            bell: Arc::default(),
            streams: 0,
            since: Instant::now(),
        })
    }

    fn forget(&mut self, watcher: &str) {
        let Some(own) = self.watchers.get_mut(watcher) else { return };
        own.due.clear();
        let uris = std::mem::take(&mut own.uris);
        if own.streams == 0 {
            self.watchers.remove(watcher);
        }
        for (uri, server) in uris {
            self.release(&server, &uri);
        }
    }

    /// One less watches it. Of what nobody watches, it is not known either how a server takes to that.
    fn release(&self, server: &str, uri: &str) {
        let Some(wants) = self.servers.get(server) else { return };
        let is_last = wants.uris.send_if_modified(|uris| {
            let Some(count) = uris.get_mut(uri) else { return false };
            *count -= 1;
            let is_last = *count == 0;
            if is_last {
                uris.remove(uri);
            }
            is_last
        });
        if is_last {
            wants.outcomes.send_modify(|outcomes| drop(outcomes.remove(uri)));
        }
    }
}

impl Watcher {
    /// It watches nothing, nobody listens, and there is nothing to tell.
    fn is_over(&self) -> bool {
        self.uris.is_empty() && self.due.is_empty() && self.streams == 0
    }
}

impl Watched {
    /// What is watched, and by how many.
    pub fn wanted(&self) -> watch::Receiver<BTreeMap<String, usize>> {
        self.wants.uris.subscribe()
    }

    /// Notes what came of asking, for all that is watched. Of what was asked anew, something may have been missed before.
    pub fn asked(&self, outcomes: Outcomes, anew: &[String]) {
        let before = self.wants.outcomes.send_replace(outcomes);
        for uri in anew.iter().filter(|uri| before.contains_key(*uri)) {
            let outcome = self.wants.outcomes.borrow().get(uri).cloned();
            match outcome {
                Some(Ok(())) => self.updated(uri),
                Some(Err(error)) => {
                    let (server, error) = (&*self.server, clean_line(&error.message));
                    tracing::warn!(server, "it does not tell of a resource any more that clients watch: {error}");
                }
                None => {}
            }
        }
    }

    /// The server tells that a resource has changed, or a part of one.
    pub fn updated(&self, uri: &str) {
        for watcher in self.watches.all().watchers.values_mut() {
            let is_meant = |(watched, server): &(&String, &Arc<str>)| **server == self.server && covers(watched, uri);
            let due: Vec<String> = watcher.uris.iter().filter(is_meant).map(|(watched, _)| watched.clone()).collect();
            if !due.is_empty() {
                watcher.due.extend(due);
                watcher.bell.notify_one();
            }
        }
    }
}

/// Whether whoever watches a resource hears of this one.
fn covers(watched: &str, uri: &str) -> bool {
    let rest = uri.strip_prefix(watched);
    rest.is_some_and(|rest| rest.is_empty() || watched.ends_with('/') || rest.starts_with(['/', '?', '#']))
}

impl Listens {
    /// The next of its resources that has changed.
    pub async fn next(&self) -> String {
        loop {
            let due = self.watches.all().watchers.get_mut(&self.watcher).and_then(|watcher| watcher.due.pop_first());
            match due {
                Some(uri) => return uri,
                None => self.bell.notified().await,
            }
        }
    }
}

impl Drop for Listens {
    fn drop(&mut self) {
        let mut all = self.watches.all();
        let Some(own) = all.watchers.get_mut(&self.watcher) else { return };
        own.streams = own.streams.saturating_sub(1);
        own.since = Instant::now();
        if !self.comes_back || own.is_over() {
            all.forget(&self.watcher);
        } else if !own.due.is_empty() {
            // Another stream of the same session may have to tell it.
            own.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Does what a server does that takes everything.
    fn takes(watched: &Watched, anew: &[&str]) {
        let outcomes = watched.wanted().borrow().keys().map(|uri| (uri.clone(), Ok(()))).collect();
        watched.asked(outcomes, &anew.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>());
    }

    async fn watch(all: &Watches, watcher: &str, uri: &str) -> Result<(), ErrorData> {
        let mut asking = Box::pin(all.watch(watcher, "caller", uri, "s", LIMIT));
        if let Some(outcome) = (&mut asking).now_or_never() {
            return outcome;
        }
        takes(&all.of("s"), &[uri]);
        asking.await
    }

    fn wanted(watches: &Watches) -> Vec<(String, usize)> {
        watches.of("s").wanted().borrow().iter().map(|(uri, count)| (uri.clone(), *count)).collect()
    }

    fn heard(ear: &Listens) -> Option<String> {
        ear.next().now_or_never()
    }

    #[tokio::test]
    async fn a_server_is_asked_once_for_all_and_released_by_the_last() {
        let watches = Watches::default();
        for watcher in ["one", "two", "one"] {
            watch(&watches, watcher, "a").await.expect("it is taken");
        }
        assert_eq!(wanted(&watches), [("a".to_owned(), 2)]);
        watches.unwatch("one", "a");
        watches.unwatch("one", "a");
        assert_eq!(wanted(&watches), [("a".to_owned(), 1)]);
        watches.forget("two");
        assert_eq!(wanted(&watches), []);
        assert!(watches.all().watchers.is_empty());
    }

    #[tokio::test]
    async fn each_watcher_hears_once_of_what_it_watches() {
        let watches = Watches::default();
        let (one, two) = (watches.listens("one", "caller", true), watches.listens("two", "caller", true));
        watch(&watches, "one", "file:///a").await.expect("it is taken");
        watch(&watches, "two", "file:///b").await.expect("it is taken");
        assert_eq!((heard(&one), heard(&two)), (None, None), "nothing has changed yet");
        for uri in ["file:///a", "file:///a", "file:///a/part", "file:///ab", "other"] {
            watches.of("s").updated(uri);
            watches.of("another").updated("file:///b");
        }
        assert_eq!((heard(&one), heard(&one), heard(&two)), (Some("file:///a".to_owned()), None, None));
        // What changed while it did not listen waits for it.
        drop(two);
        watches.of("s").updated("file:///b");
        assert_eq!(heard(&watches.listens("two", "caller", true)), Some("file:///b".to_owned()));
    }

    #[tokio::test]
    async fn what_a_server_refuses_is_not_watched() {
        let watches = Watches::default();
        let mut asking = Box::pin(watches.watch("one", "caller", "a", "s", LIMIT));
        assert!((&mut asking).now_or_never().is_none(), "the server has to be asked");
        let refusal = ErrorData::resource_not_found("no such row", None);
        watches.of("s").asked(Outcomes::from([("a".to_owned(), Err(refusal.clone()))]), &["a".to_owned()]);
        assert_eq!(asking.await, Err(refusal));
        assert_eq!((wanted(&watches), watches.has("one", "a")), (Vec::new(), false));
        // It may be there the next time.
        watch(&watches, "one", "a").await.expect("it is taken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_not_waited_for_without_end() {
        let watches = Watches::default();
        let refused = watches.watch("one", "caller", "a", "s", LIMIT).await.expect_err("no answer");
        assert!(refused.message.contains("did not answer"), "{refused:?}");
        assert_eq!(wanted(&watches), []);
    }

    #[tokio::test]
    async fn what_may_have_been_missed_counts_as_changed() {
        let watches = Watches::default();
        let ear = watches.listens("one", "caller", true);
        watch(&watches, "one", "a").await.expect("it is taken");
        takes(&watches.of("s"), &["a"]);
        assert_eq!((heard(&ear), heard(&ear)), (Some("a".to_owned()), None));
    }

    #[tokio::test]
    async fn of_a_server_that_leaves_everything_counts_as_changed_once_and_nothing_is_watched() {
        let watches = Watches::default();
        let ear = watches.listens("one", "caller", true);
        for (watcher, uri) in [("one", "a"), ("away", "b")] {
            watch(&watches, watcher, uri).await.expect("it is taken");
        }
        let mut asking = Box::pin(watches.watch("one", "caller", "c", "s", LIMIT));
        assert!((&mut asking).now_or_never().is_none(), "the server has to be asked");
        assert_eq!(["a", "c"].map(|uri| watches.has("one", uri)), [true, false]);
        watches.server_left("another");
        assert_eq!(heard(&ear), None);
        watches.server_left("s");
        assert!(asking.await.is_err_and(|error| error.message.contains("not configured")));
        assert_eq!((heard(&ear), heard(&ear), watches.has("one", "a")), (Some("a".to_owned()), None, false));
        assert!(watches.all().servers.is_empty());
        assert_eq!(wanted(&watches), []);
        // It hears of it when it listens again.
        let away = watches.listens("away", "caller", true);
        assert_eq!((heard(&away), heard(&away)), (Some("b".to_owned()), None));
        drop((ear, away));
        assert!(watches.all().watchers.is_empty());
        // It may be there again.
        watch(&watches, "one", "a").await.expect("it is taken");
    }

    #[tokio::test]
    async fn a_resource_is_watched_where_it_was_asked_for_last_and_servers_of_nothing_are_forgotten() {
        let watches = Watches::default();
        watch(&watches, "one", "a").await.expect("it is taken");
        let mut asking = Box::pin(watches.watch("one", "caller", "a", "other", LIMIT));
        assert!((&mut asking).now_or_never().is_none(), "that server has to be asked");
        takes(&watches.of("other"), &["a"]);
        asking.await.expect("it is taken");
        assert_eq!((wanted(&watches), watches.has("one", "a")), (Vec::new(), true));
        let connected = watches.of("connected");
        watches.forget_idle();
        let left = ["s", "other", "connected"].map(|server| watches.all().servers.contains_key(server));
        assert_eq!(left, [false, true, true]);
        drop(connected);
        watches.forget_idle();
        assert_eq!(watches.all().servers.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_watched_has_bounds_and_an_end() {
        let watches = Watches::default();
        let all: Vec<String> = (0..MOST_OF_WATCHER).map(|uri| uri.to_string()).collect();
        for uri in &all {
            watch(&watches, "one", uri).await.expect("there is room");
        }
        watch(&watches, "one", "0").await.expect("it is watched already");
        assert!(watch(&watches, "one", "more").await.is_err());
        for watcher in ["two", "three", "four"] {
            for uri in &all {
                watch(&watches, watcher, uri).await.expect("there is room");
            }
        }
        assert!(watch(&watches, "five", "0").await.is_err(), "a caller has more than one session");
        assert!(watch(&watches, "six", &"x".repeat(LONGEST + 1)).await.is_err());
        // One listens, the others have gone.
        let _ear = watches.listens("two", "caller", true);
        tokio::time::advance(FORGOTTEN).await;
        watches.forget_idle();
        assert!(wanted(&watches).iter().all(|(_, count)| *count == 1));
        assert_eq!(watches.all().watchers.len(), 1);
        // A stream takes all that it watches along.
        let stream = watches.listens("stream", "caller", false);
        watch(&watches, "stream", "a").await.expect("there is room");
        drop(stream);
        assert!(!watches.has("stream", "a"));
    }
}

//! One wake for all callers: whoever calls a server that sleeps joins the flight that is under way, or begins one.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::pods;
use crate::sleepers::{Key, Sleepers};
use crate::wanted::Wanted;

/// How long what a flight knows is kept after its last caller: the Service leads here for a moment longer than the first pod needs.
const LINGER: Duration = Duration::from_secs(10);

/// After so long without a pod it is said again that one is wanted.
const AGAIN: Duration = Duration::from_secs(10);

/// Before a pod that could not be reached is tried again: its network may not be there yet.
const PAUSE: Duration = Duration::from_millis(200);

/// The flights that are under way.
pub struct Flights {
    client: Client,
    sleepers: Arc<Sleepers>,
    wanted: Wanted,
    metrics: Metrics,
    under_way: Mutex<HashMap<Key, Weak<Flight>>>,
}

/// A server on its way, for as long as somebody holds this.
#[derive(Debug)]
pub struct Flight {
    addresses: watch::Receiver<BTreeSet<SocketAddr>>,
    /// Somebody waits for a pod, and there is none.
    awaited: Arc<Notify>,
    /// The server is deleted or switched off: no pod will come.
    over: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Flight {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Flights {
    /// None is under way.
    pub fn new(client: Client, sleepers: Arc<Sleepers>, wanted: Wanted, metrics: Metrics) -> Self {
        Self { client, sleepers, wanted, metrics, under_way: Mutex::default() }
    }

    /// The server's flight, where it is under way and pods are in service.
    pub fn landed(&self, key: &Key) -> Option<Arc<Flight>> {
        let flight = self.under_way().get(key)?.upgrade()?;
        let landed = !flight.addresses.borrow().is_empty();
        landed.then_some(flight)
    }

    /// The server's flight: the one that is under way, or a new one.
    pub fn join(&self, key: &Key) -> Arc<Flight> {
        let mut under_way = self.under_way();
        if let Some(flight) = under_way.get(key).and_then(Weak::upgrade).filter(|flight| !flight.is_over()) {
            return flight;
        }
        under_way.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(self.begin(key));
        under_way.insert(key.clone(), Arc::downgrade(&flight));
        flight
    }

    fn begin(&self, key: &Key) -> Flight {
        let (told, addresses) = watch::channel(BTreeSet::new());
        let awaited = Arc::new(Notify::new());
        let looking = tokio::spawn(pods::tell(self.client.clone(), key.clone(), told));
        let (wanted, metrics) = (self.wanted.clone(), self.metrics.clone());
        let (end, over) = (self.sleepers.end(key), CancellationToken::new());
        let (key, asked, up, ended) = (key.clone(), Arc::clone(&awaited), addresses.clone(), over.clone());
        let waking = tokio::spawn(async move {
            tokio::select! {
                () = wake(&wanted, &key, up, asked, metrics) => {}
                () = end => {
                    // This task ends with the last who waits.
                    tokio::spawn(async move { wanted.take_back(&key).await });
                    ended.cancel();
                }
            }
        });
        Flight { addresses, awaited, over, tasks: [looking, waking] }
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Weak<Flight>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the server when somebody waits for it, and takes that back when it is there. Again and again: the pod that answered may have
/// been the last one, on its way out, and whoever comes after it must not wait for what nobody was told.
async fn wake(
    wanted: &Wanted,
    key: &Key,
    mut addresses: watch::Receiver<BTreeSet<SocketAddr>>,
    awaited: Arc<Notify>,
    metrics: Metrics,
) {
    loop {
        awaited.notified().await;
        // Who waited has a pod by now.
        if !addresses.borrow().is_empty() {
            continue;
        }
        let begun = Instant::now();
        tracing::info!(server = %key, "a server that sleeps is called");
        loop {
            wanted.say(key).await;
            match tokio::time::timeout(AGAIN, addresses.wait_for(|addresses| !addresses.is_empty())).await {
                Ok(Ok(_)) => break,
                // Nobody looks any more.
                Ok(Err(_)) => return,
                // Another activator whose caller was served takes back what this one said, too.
                Err(_) => {}
            }
        }
        metrics.woken(begun.elapsed());
        tracing::info!(server = %key, seconds = begun.elapsed().as_secs_f64(), "it is awake");
        wanted.take_back(key).await;
    }
}

impl Flight {
    /// Whether the server was deleted or switched off since it began.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// A pod that answers, once there is one; where there are several, another one than the last that was tried. None: not in time, or it is
    /// over.
    pub async fn landing(&self, last: Option<SocketAddr>, until: Instant) -> Option<SocketAddr> {
        if let Some(pause) = last.map(|_| Instant::now() + PAUSE) {
            tokio::time::sleep_until(pause.min(until)).await;
        }
        if self.addresses.borrow().is_empty() {
            self.awaited.notify_one();
        }
        let mut addresses = self.addresses.clone();
        let landing = addresses.wait_for(|addresses| !addresses.is_empty());
        let landing = self.over.run_until_cancelled(landing);
        let found = tokio::time::timeout_at(until, landing).await.ok()??.ok()?;
        let other = found.iter().find(|address| Some(**address) != last);
        other.or_else(|| found.first()).copied().filter(|_| Instant::now() < until)
    }

    /// Keeps it for those who come just after.
    pub fn linger(self: Arc<Self>) {
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            drop(self);
        });
    }
}

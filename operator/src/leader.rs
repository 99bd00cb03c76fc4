//! The Lease: one of several replicas leads. Losing it ends the process, so that two never write at once.
//!
//! The election is `kube_lease_manager`'s. It does not say that a lead ran out while the API server could not be reached, so the term is
//! watched here: it ends when the Lease, as we last read it, does.

use std::{future::Future, time::Duration};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::clock;

/// Seconds after which another may lead when the leader stops renewing.
const DURATION_SECONDS: u64 = 15;
/// Seconds before the end at which the leader renews.
const GRACE_SECONDS: u64 = 5;

/// How often the leader looks at the Lease.
const LOOK: Duration = Duration::from_secs(2);
/// So long before the Lease's end the lead counts as lost: what is being written then should have arrived.
const MARGIN: Duration = Duration::from_secs(1);
/// How long giving the Lease back may take.
const RELEASE: Duration = Duration::from_secs(5);

/// How often a replica that waits looks who leads: one GET of one Lease. Calls to servers that sleep wait for the next leader.
const LOOK_WHO: Duration = Duration::from_secs(1);
/// How long one look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// The longest wait between two tries to take part in the election.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// Which Lease, and as whom.
#[derive(Clone)]
pub struct Election {
    /// The API server.
    pub client: Client,
    /// Where the Lease is.
    pub namespace: String,
    /// The Lease's name: the replicas of one release share it, and nobody else.
    pub lease: String,
    /// The pod's name: a container that restarts in its pod takes its own Lease up at once, for the kubelet starts it only when
    /// the one before is gone.
    pub identity: String,
}

/// Why there is no lead yet.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the Lease could not be created or read")]
    Build(#[source] LeaseManagerError),
    #[error("the election ended")]
    Ended,
}

/// The lead.
#[derive(Debug)]
pub struct Lead {
    held: watch::Receiver<bool>,
    election: AbortOnDropHandle<Result<LeaseManager, LeaseManagerError>>,
    /// Ends when the Lease runs out, or is another's.
    term: AbortOnDropHandle<()>,
}

impl Lead {
    /// Waits for the lead, however long it takes: an API server that is away is no reason to end, for then nobody leads at all.
    /// `standby` is told who leads meanwhile, whenever that changes. None when asked to stop first.
    pub async fn acquire(
        election: &Election,
        shutdown: &CancellationToken,
        standby: impl Fn(Option<&str>) + Sync,
    ) -> Option<Self> {
        let mut wait = Duration::from_secs(1);
        let free = Notify::new();
        let waiting = async {
            // Who leads is looked at before that: what changes after it is noticed.
            free.notified().await;
            loop {
                let stood = tokio::select! {
                    stood = Self::stand(election) => stood,
                    // Whoever stands sleeps until the end that the Lease had when it was read last.
                    () = free.notified() => continue,
                };
                match stood {
                    Ok(lead) => break lead,
                    Err(error) => {
                        let error = anyhow::Error::from(error);
                        tracing::warn!(lease.namespace = election.namespace, lease.name = election.lease, error = %format_args!("{error:#}"), "not in the election; trying again");
                    }
                }
                sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => None,
            () = look_who(election, standby, &free) => None,
            lead = waiting => Some(lead),
        }
    }

    async fn stand(election: &Election) -> Result<Self, Error> {
        let Election { client, namespace, lease, identity } = election.clone();
        let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
        let builder = LeaseManagerBuilder::new(client, &lease)
            .with_namespace(&namespace)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS)
            .with_identity(&identity);
        let manager = builder.build().await.map_err(Error::Build)?;
        let (mut held, election) = manager.watch().await;
        // One that is given up while it waits writes nothing more: to end as it is asked to, it would clear a Lease that has run out.
        let election = AbortOnDropHandle::new(election);
        tracing::info!(lease.namespace = namespace, lease.name = lease, "waiting for the lead");
        held.wait_for(|held| *held).await.map_err(|_| Error::Ended)?;
        tracing::info!(lease.namespace = namespace, lease.name = lease, "leading");
        let term = tokio::spawn(async move {
            // The Lease was written a moment ago.
            let begun = Instant::now();
            serve_term(begun, &identity, async || leases.get(&lease).await.ok()).await;
        });
        Ok(Self { held, election, term: AbortOnDropHandle::new(term) })
    }

    /// Waits until the lead is lost.
    pub async fn lost(&mut self) {
        tokio::select! {
            // An error means that the election itself is gone, and the lead with it.
            _ = self.held.wait_for(|held| !held) => {}
            _ = &mut self.term => {}
        }
    }

    /// Gives the Lease back, so that the next one need not wait for its end. One that is lost is another's by now, or may be: nothing is
    /// written to it.
    pub async fn release(self) {
        let Self { held, election, term } = self;
        if term.is_finished() || !*held.borrow() {
            return;
        }
        drop((held, term));
        let released = async {
            match election.await {
                // Once: what is given back a second time may be another's already.
                Ok(Ok(_released)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease was not given back; it runs out by itself"),
                Err(error) => tracing::warn!(%error, "the election's task ended with an error"),
            }
        };
        // An API server that does not answer must not keep a process alive that does not lead.
        if timeout(RELEASE, released).await.is_err() {
            tracing::warn!("the Lease could not be given back in time; it runs out by itself");
        }
    }
}

/// Tells which other one leads, whenever that changes; and `free` after the first look, and whenever nobody leads any more. Never ends.
async fn look_who(election: &Election, standby: impl Fn(Option<&str>), free: &Notify) {
    let leases: Api<Lease> = Api::namespaced(election.client.clone(), &election.namespace);
    let (mut told, mut notable, mut was_held) = (None, true, true);
    loop {
        if let Ok(Ok(lease)) = timeout(LOOK_PATIENCE, leases.get_opt(&election.lease)).await {
            let holder = lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty());
            let is_held = holder.is_some();
            notable |= was_held && !is_held;
            was_held = is_held;
            // Ourselves: the election is about to say so, or this container ended without giving the Lease back, and takes it up again.
            let leader = holder.filter(|holder| *holder != election.identity);
            if told.as_ref() != Some(&leader) {
                if let Some(leader) = &leader {
                    tracing::info!(lease.name = election.lease, leader, "another replica leads");
                }
                standby(leader.as_deref());
                told = Some(leader);
            }
        }
        if std::mem::take(&mut notable) {
            free.notify_one();
        }
        sleep(LOOK_WHO).await;
    }
}

/// Looks at the Lease again and again, until it has run out or is another's.
async fn serve_term<F: Future<Output = Option<Lease>>>(begun: Instant, identity: &str, look: impl Fn() -> F) {
    let mut until = begun + Duration::from_secs(DURATION_SECONDS) - MARGIN;
    loop {
        let asked = Instant::now();
        match timeout_at(until, look()).await {
            Err(_) => break,
            // Not now: the term that we know of goes on.
            Ok(None) => {}
            Ok(Some(lease)) => match left(&lease, identity, clock::now_exact()) {
                None => {
                    tracing::error!("the Lease is another's");
                    return;
                }
                Some(left) => until = asked + left.saturating_sub(MARGIN),
            },
        }
        if until <= Instant::now() {
            break;
        }
        sleep_until((asked + LOOK).min(until)).await;
    }
    tracing::error!("the Lease ran out: it could not be renewed in time");
}

/// How long the Lease is still ours; none when it is another's. The time in it is of our own clock.
fn left(lease: &Lease, identity: &str, now: Timestamp) -> Option<Duration> {
    let spec = lease.spec.as_ref().filter(|spec| spec.holder_identity.as_deref() == Some(identity))?;
    let length = Duration::from_secs(DURATION_SECONDS);
    let age = spec.renew_time.as_ref().map(|renewed| now.duration_since(renewed.0));
    // A clock that jumped back makes no term longer.
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    Some(length.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};
    use std::sync::atomic::{AtomicBool, Ordering};

    fn lease(holder: &str, renewed: Timestamp) -> Lease {
        let spec =
            LeaseSpec { holder_identity: Some(holder.into()), renew_time: Some(MicroTime(renewed)), ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_lasts_as_long_as_the_lease_is_renewed_and_ends_with_it_when_nobody_answers() {
        for answers_at_all in [false, true] {
            let away = AtomicBool::new(false);
            let look = async || match away.load(Ordering::Relaxed) {
                false => Some(lease("us", clock::now_exact())),
                true if answers_at_all => None,
                true => std::future::pending().await,
            };
            let began = Instant::now();
            let serve = serve_term(began, "us", look);
            tokio::pin!(serve);
            assert!(tokio::time::timeout(Duration::from_mins(10), &mut serve).await.is_err(), "it is renewed");
            away.store(true, Ordering::Relaxed);
            let gone = Instant::now();
            serve.await;
            let lasted = gone.elapsed();
            let length = Duration::from_secs(DURATION_SECONDS);
            assert!(lasted < length && lasted + LOOK * 2 > length, "{lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_at_once_when_the_lease_is_anothers() {
        let began = Instant::now();
        serve_term(began, "us", async || Some(lease("them", clock::now_exact()))).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// Looks at Leases that these hold, one after the other, a second apart. Gives what was told, and how often the Lease was found to be free.
    async fn looked(holders: &[&str]) -> (Vec<Option<String>>, usize) {
        const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator";
        let api = crate::fixtures::api::Api::default();
        let (client, namespace, lease) = (api.client(), "system".to_owned(), "operator".to_owned());
        let election = Election { client, namespace, lease, identity: "us".into() };
        let (told, free) = (std::sync::Mutex::new(Vec::new()), Notify::new());
        let standby = |leader: Option<&str>| told.lock().expect("no panic").push(leader.map(str::to_owned));
        let freed = std::cell::Cell::new(0);
        let looking = look_who(&election, standby, &free);
        let freeing = async {
            loop {
                free.notified().await;
                freed.set(freed.get() + 1);
            }
        };
        let holding = async {
            for holder in holders {
                let metadata = serde_json::json!({"name": "operator", "namespace": "system"});
                let spec = serde_json::json!({"holderIdentity": holder});
                let kind = "coordination.k8s.io/v1";
                api.put(LEASE, serde_json::json!({"apiVersion": kind, "kind": "Lease", "metadata": metadata, "spec": spec}));
                sleep(LOOK_WHO).await;
            }
        };
        tokio::select! {
            biased;
            () = holding => {}
            () = looking => {}
            () = freeing => {}
        }
        (told.into_inner().expect("no panic"), freed.get())
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_hears_of_itself_as_of_another_replica() {
        let them = || Some("them".to_owned());
        // Theirs runs out, or is given back, and is ours.
        assert_eq!(looked(&["them", "them", "us", "us", "us"]).await, (vec![them(), None], 1));
        assert_eq!(looked(&["them", "", "us", "them", "them"]).await, (vec![them(), None, them()], 2));
        // It was ours before this container began.
        assert_eq!(looked(&["us", "us", "us"]).await, (vec![None], 1));
    }

    #[test]
    fn what_is_left_of_a_lease_is_never_more_than_its_length() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let length = Duration::from_secs(DURATION_SECONDS);
        assert_eq!(left(&lease("us", at(100)), "us", at(104)), Some(Duration::from_secs(DURATION_SECONDS - 4)));
        assert_eq!(left(&lease("us", at(100)), "us", at(50)), Some(length));
        assert_eq!(left(&lease("us", at(100)), "us", at(500)), Some(Duration::ZERO));
        assert_eq!(left(&lease("them", at(100)), "us", at(101)), None);
        assert_eq!(left(&Lease::default(), "us", at(101)), None);
    }
}

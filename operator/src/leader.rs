//! The Lease: one of several replicas leads. Losing it ends the process, so that two never write at once.

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The Lease's name.
const NAME: &str = "mcpfleet-operator";
/// Seconds after which another may lead when the leader stops renewing.
const DURATION_SECONDS: u64 = 15;
/// Seconds before the end at which the leader renews.
const GRACE_SECONDS: u64 = 5;

/// Why there is no lead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Lease could not be created or read.
    #[error("failed to take part in the election by the Lease {NAME} in {namespace}")]
    Election {
        /// Where the Lease is.
        namespace: String,
        /// What came back.
        #[source]
        source: LeaseManagerError,
    },
    /// The election ended by itself.
    #[error("the election ended")]
    Ended,
}

/// The lead.
#[derive(Debug)]
pub struct Lead {
    held: watch::Receiver<bool>,
    election: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Lead {
    /// Waits for the lead. None when asked to stop first.
    pub async fn acquire(
        client: Client,
        namespace: &str,
        identity: Option<String>,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let mut builder = LeaseManagerBuilder::new(client, NAME)
            .with_namespace(namespace)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS);
        if let Some(identity) = identity {
            // The pod's name: a container that restarts in its pod takes its own Lease up at once, for the kubelet starts it only
            // when the one before is gone.
            builder = builder.with_identity(identity);
        }
        let manager = builder.build().await.map_err(|source| Error::Election { namespace: namespace.to_owned(), source })?;
        let (mut held, election) = manager.watch().await;
        tracing::info!(lease.namespace = namespace, lease.name = NAME, "waiting for the lead");
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            found = held.wait_for(|held| *held) => { found.map_err(|_| Error::Ended)?; }
        }
        tracing::info!("leading");
        Ok(Some(Self { held, election }))
    }

    /// Waits until the lead is lost.
    pub async fn lost(&mut self) {
        // An error means that the election itself is gone, and the lead with it.
        let _ = self.held.wait_for(|held| !held).await;
    }

    /// Gives the Lease back, so that the next one need not wait for its end.
    pub async fn release(self) {
        drop(self.held);
        match self.election.await {
            Ok(Ok(manager)) => {
                if let Err(error) = manager.release().await {
                    tracing::warn!(%error, "the Lease was not given back; it runs out by itself");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the election ended with an error"),
            Err(error) => tracing::warn!(%error, "the election's task ended with an error"),
        }
    }
}

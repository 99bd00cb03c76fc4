//! The activator: carries the first calls to servers that sleep. Their Services lead to its pods meanwhile.
//!
//! What a server said before it went to sleep is answered from what was kept of it, and wakes nobody. A call has the operator told that
//! the server is wanted, is held until a pod is in service, and goes to that pod. Who sleeps and when is the operator's to decide.
//!
//! `sleepers` are the servers that may sleep, `host` says whom a call is for, `door` takes it, `kept` answers what needs no pod, `flight` is one
//! wake for all callers, `wanted` tells the operator, `pods` finds the pod.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

// The operator's own: both wait for the API server in the same way.
#[path = "../../operator/src/again.rs"]
pub mod again;
pub mod config;
pub mod door;
pub mod flight;
pub mod host;
pub mod kept;
pub mod metrics;
pub mod pods;
pub mod sleepers;
pub mod wanted;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_server::{Connections, LameDuck, stop};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Args;
use crate::door::Activator;
use crate::flight::Flights;
use crate::metrics::Metrics;
use crate::sleepers::Sleepers;
use crate::wanted::Wanted;
use bridge::config::seconds;

/// Until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // The client's own: a provider that is there already will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.context("failed to find the API server")?;
    let listener = http_server::listen(args.listen).await?;
    let stop = CancellationToken::new();
    let service = start(&args, &client, &stop)?;
    tracing::info!(address = %listener.local_addr()?, "carrying calls to servers that sleep");
    let (most, lame_duck) = (usize::from(args.max_connections), seconds(args.lame_duck_seconds));
    let ending = Arc::clone(&service);
    let mut left = http_server::serve_kept(listener, door::service(service), Connections::most(most), async {
        stop::asked().await;
        ending.drain();
        tracing::info!("draining");
        LameDuck { least: lame_duck, most: lame_duck + LameDuck::USUAL.most }
    })
    .await;
    let patience = seconds(args.drain_seconds);
    if !left.within(patience).await {
        tracing::warn!(seconds = patience.as_secs(), "some requests did not finish in time");
    }
    stop.cancel();
    Ok(())
}

/// Everything but the listener. Its watches end with `stop`.
pub fn start(args: &Args, client: &Client, stop: &CancellationToken) -> anyhow::Result<Arc<Activator>> {
    let metrics = Metrics::default();
    let sleepers = Sleepers::watch(client, &args.watch_namespaces, stop);
    let wanted = Wanted::new(client.clone(), &args.namespace, &args.wanted);
    let flights = Flights::new(client.clone(), Arc::clone(&sleepers), wanted, metrics.clone());
    let hold = Duration::from_secs(u64::from(args.hold_seconds));
    Ok(Arc::new(Activator::new(door::Parts {
        sleepers,
        flights,
        metrics,
        hold,
        max_request_bytes: args.max_request_bytes as usize,
        max_held_bytes: args.max_held_bytes as usize,
    })))
}

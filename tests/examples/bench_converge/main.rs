//! How long a fleet takes to come about, and what it costs: the parts that `make bench-converge` starts, each a subcommand.
//!
//! Runs within a cluster of LEVEL=fleet, whose pods are objects alone; `serve` answers at all of their addresses.

#![allow(clippy::print_stdout, reason = "the figures go to standard output")]

mod asleep;
mod bare;
mod fleet;
mod requests;
mod usage;
mod world;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use kube::{Api, Client, api::PostParams};
use operator::crd::McpServer;
use serde_json::json;
use tokio::time::{Instant, sleep};

use usage::{Parts, Usage};

/// Objects under way at once, of whoever makes them.
const WORKERS: usize = 50;
const NAMESPACE: &str = "fleet";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer as a small MCP server at every address, port 8080.
    Serve,
    /// Make the node and the namespace.
    Prepare,
    /// Create servers, and wait until the operator has made them all Ready.
    Operator {
        /// How many.
        servers: u32,
        /// The operator's process: its CPU and memory are told.
        #[arg(long)]
        pid: u32,
        /// Seconds to watch it at rest afterwards.
        #[arg(long, default_value_t = 0)]
        rest: u64,
    },
    /// Create servers that nobody calls, wait until they all sleep, and check that they cost nothing then.
    Asleep {
        /// How many.
        servers: u32,
        /// The operator's process: its CPU and memory are told.
        #[arg(long)]
        pid: u32,
        /// Seconds to watch it at rest afterwards.
        #[arg(long, default_value_t = 60)]
        rest: u64,
    },
    /// Do an operator's work server by server, by a client that knows nothing else.
    Bare {
        /// How many.
        servers: u32,
        /// Only the children: no probe, no gate, no status.
        #[arg(long)]
        children: bool,
    },
    /// Say what an operator that was started anew over the fleet writes until it is quiet.
    Restart {
        /// The operator's process.
        #[arg(long)]
        pid: u32,
        /// How long to look.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let command = Cli::parse().command;
    if matches!(command, Command::Serve) {
        return fleet::serve().await;
    }
    let client = Client::try_default().await?;
    match command {
        Command::Serve => unreachable!("served above"),
        Command::Prepare => world::prepare(&client).await,
        Command::Operator { servers, pid, rest } => measure_operator(&client, servers, pid, rest).await,
        Command::Asleep { servers, pid, rest } => asleep::measure(&client, servers, pid, rest).await,
        Command::Bare { servers, children } => bare::measure(&client, servers, children).await,
        Command::Restart { pid, seconds } => {
            let since = k8s_openapi::jiff::Timestamp::now();
            sleep(Duration::from_secs(seconds)).await;
            println!("| restart, {seconds} s | | | | | {} | {} |", Usage::of(pid)?.told(), requests::of_operator(since)?.told(1));
            Ok(())
        }
    }
}

/// An McpServer as people write the smallest one.
pub fn server(n: u32) -> Result<McpServer> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer",
        "metadata": {"name": format!("server-{n}"), "namespace": NAMESPACE},
        "spec": {"container": {"image": "example.com/server:1"}},
    }))?)
}

/// Creates them, some at once.
async fn create_all(api: &Api<McpServer>, servers: impl Iterator<Item = Result<McpServer>>) -> Result<()> {
    stream::iter(servers)
        .map(|server| async move { api.create(&PostParams::default(), &server?).await.context("a server could not be created") })
        .buffer_unordered(WORKERS)
        .try_for_each(|_| async { Ok(()) })
        .await
}

async fn measure_operator(client: &Client, servers: u32, pid: u32, rest: u64) -> Result<()> {
    let api: Api<McpServer> = Api::namespaced(client.clone(), NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let (since, before, parts, began) = (Timestamp::now(), Usage::of(pid)?, Parts::now()?, Instant::now());
    let available = tokio::spawn(world::until(deployments, servers, world::available));
    let ready = tokio::spawn(world::until(api.clone(), servers, world::ready));
    create_all(&api, (0..servers).map(server)).await?;
    let (available, ready) = (available.await?? - began, ready.await?? - began);
    // The last status is told by what follows it.
    sleep(Duration::from_secs(5)).await;
    let usage = Usage::of(pid)?;
    println!(
        "| operator | {servers} | {:.1} | {:.1} | {} | {} | {} |",
        available.as_secs_f64(),
        ready.as_secs_f64(),
        Parts::now()?.since(&parts, servers),
        usage.since(&before),
        requests::of_operator(since)?.told(servers)
    );
    if rest > 0 {
        let (since, before, parts) = (Timestamp::now(), Usage::of(pid)?, Parts::now()?);
        sleep(Duration::from_secs(rest)).await;
        let usage = Usage::of(pid)?;
        println!(
            "| operator at rest, {rest} s | {servers} | | | {} | {} | {} |",
            Parts::now()?.since(&parts, servers),
            usage.since(&before),
            requests::of_operator(since)?.told(1)
        );
    }
    Ok(())
}

//! The operator's process: arguments, logs, the TLS provider, signals.

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use log_lines::To;
use operator::{
    config::{Cli, Command, ImportConfig, ReleaseConfig, RunConfig},
    crd,
    import::Imported,
    release, run,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A watch is many small objects that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Crd => print_definitions(),
        Command::Run(config) => start(*config),
        Command::Release(config) => release(&config),
        Command::Import(config) => import(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain in one line; the environment decides nothing here.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_definitions() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (_, document) in crd::documents() {
        write!(out, "---\n{document}")?;
    }
    Ok(())
}

/// Manifests on standard output, and on standard error what wants a look. A file that cannot be read costs the others nothing.
fn import(config: &ImportConfig) -> anyhow::Result<()> {
    let (mut imported, mut unread) = (Imported::default(), 0);
    for file in &config.files {
        let text =
            if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        let read = text.map_err(|error| format!("{}: {error}", file.display())).and_then(|text| imported.add(&name, &text));
        if let Err(error) = read {
            eprintln!("error: {error}");
            unread += 1;
        }
    }
    std::io::stdout().lock().write_all(imported.documents.as_bytes())?;
    for note in &imported.notes {
        eprintln!("{note}");
    }
    anyhow::ensure!(unread == 0, "{unread} of {} files could not be read", config.files.len());
    Ok(())
}

/// One provider for the whole process, before anything can build a TLS client.
fn install_tls() -> anyhow::Result<()> {
    let installed = rustls::crypto::ring::default_provider().install_default();
    installed.map_err(|_| anyhow::anyhow!("a TLS provider was installed before ours"))
}

async fn client() -> anyhow::Result<kube::Client> {
    kube::Client::try_default().await.context("no way to a Kubernetes API server: set KUBECONFIG, or run in a pod")
}

fn release(config: &ReleaseConfig) -> anyhow::Result<()> {
    install_tls()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let changed = release::release(config, &client().await?).await?;
        println!("{changed} servers released: their pods roll, and come into service without an operator");
        Ok(())
    })
}

fn start(config: RunConfig) -> anyhow::Result<()> {
    install_tls()?;
    config.log.start(To::Stdout);
    raise_open_files();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let signalled = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("asked to stop");
            signalled.cancel();
        });
        run::run(config, client().await?, shutdown).await?;
        Ok(())
    })
}

/// A connection a probe, and one that is kept a server: the soft limit of a container is 1,024 in some runtimes, and the hard one is there to be used.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum }) {
        Ok(()) => tracing::info!(before = before.current, limit = before.maximum, "open files"),
        Err(error) => tracing::warn!(limit = before.current, %error, "the limit of open files could not be raised"),
    }
}

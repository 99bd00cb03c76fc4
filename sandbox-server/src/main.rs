//! The program: reads flags, starts logging, opens the database, serves, and says by its exit code what went wrong.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Parser as _;
use http_server::{Connections, LameDuck, stop};
use log_lines::To;
use sandbox_server::config::{BackupArgs, Cli, Command, DatabaseArgs, RestoreArgs, ServeArgs};
use sandbox_server::db::Database;
use sandbox_server::db::backup::report::{self, Run};
use sandbox_server::db::backup::{self, BackupError, BackupOptions, Compression};
use sandbox_server::db::error::OpenError;
use sandbox_server::db::file::{FileState, inspect};
use sandbox_server::db::restore::{self, Restored};
use sandbox_server::http::auth::{TokenError, Tokens};
use sandbox_server::http::{self, DoorSettings};
use sandbox_server::mcp::{HandlerSettings, SqliteMcp};
use sandbox_server::metrics::Metrics;
use sandbox_server::telemetry::Telemetry;
use tokio_util::sync::CancellationToken;

/// A call is a few dozen small allocations on two threads: with the C library's allocator a fifth of a point read's time goes there. It is
/// SQLite's allocator, too (its feature `override`): the C library's would keep for each thread what a large statement has freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // rmcp logs whole requests, with their values, below WARN.
    log_lines::start(cli.log.log_level.filter().with_target("rmcp", tracing::Level::WARN), cli.log.log_format, To::Stderr);
    // TLS to a bucket is ring's, as everywhere in mcpfleet. Fails when it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match cli.command {
        Command::Serve(args) => block_on(serve(args)),
        Command::Stdio(args) => block_on(stdio(args)),
        Command::Backup(args) => make_backup(args),
        Command::Restore(args) => put_back(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<OpenError>() || matches!(error.downcast_ref(), Some(BackupError::Open(_))) {
        3
    } else if error.is::<std::io::Error>() {
        4
    } else if error.is::<TokenError>() {
        5
    } else {
        1
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // The other half is for the threads that read and write: with a thread a processor for each of the two, they take turns on the
    // processors, and a point read's p99 at 64 connections is twice as long.
    let threads = std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
    let mut runtime = match threads {
        // The main thread does it all: no queue is shared with others.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(threads).enable_all().build().context("failed to start the runtime")?;
    let result = runtime.block_on(work);
    // A thread that reads standard input cannot be interrupted, and would be waited for.
    runtime.shutdown_background();
    result
}

fn open(args: DatabaseArgs) -> Result<Database, OpenError> {
    let db = Database::open(args.options())?;
    let options = db.options();
    if db.was_created() {
        tracing::warn!(path = %options.path.display(), "there was no database: created a new one");
    } else {
        tracing::info!(path = %options.path.display(), read_only = options.read_only, readers = options.readers, "database opened");
    }
    Ok(db)
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let tokens = args.token_file.as_deref().map(Tokens::load).transpose()?;
    let telemetry = Telemetry::start()?;
    let stop = CancellationToken::new();
    let handling = HandlerSettings {
        sessions: args.legacy_sessions,
        audit: args.database.audit,
        telemetry: telemetry.clone(),
        end: stop.clone(),
    };
    let db = open(args.database)?;
    let listener = http_server::listen(args.listen).await?;
    let open = "can call every tool: start the server with --token-file, or let a NetworkPolicy say who reaches it";
    http_server::warn_when_open(listener.local_addr()?, tokens.is_some(), &args.allowed_hosts, open);
    let metrics = Metrics::default();
    let settings = DoorSettings {
        hosts: args.allowed_hosts,
        origins: args.allowed_origins,
        tokens,
        max_request_bytes: args.max_request_bytes as usize,
        max_requests: usize::from(args.max_requests),
        rate: args.rate_limit,
        trusted_proxies: args.trusted_proxies,
        legacy_sessions: args.legacy_sessions,
    };
    let ready = Arc::new(AtomicBool::new(true));
    let draining = CancellationToken::new();
    let handler = SqliteMcp::new(db.clone(), metrics.clone(), handling, draining.clone());
    let direct = handler.clone();
    let sessions = move || handler.for_another_session();
    let service = http::service(sessions, direct, settings, db.clone(), metrics, Arc::clone(&ready), stop.clone());
    tracing::info!(address = %listener.local_addr()?, "serving MCP at /mcp");
    let connections = Connections {
        idle: Duration::from_secs(args.idle_timeout_seconds),
        ..Connections::most(usize::from(args.max_connections))
    };
    let patience = Duration::from_secs(args.drain_seconds);
    let mut left = http_server::serve_kept(listener, service, connections, async {
        stop::asked().await;
        ready.store(false, Ordering::Relaxed);
        draining.cancel();
        tracing::info!("draining");
        LameDuck::USUAL.within(patience)
    })
    .await;
    if !left.within(patience).await {
        tracing::warn!(seconds = args.drain_seconds, "some requests did not finish in time");
    }
    stop.cancel();
    close(db, telemetry).await
}

async fn stdio(args: DatabaseArgs) -> anyhow::Result<()> {
    let telemetry = Telemetry::start()?;
    let handling =
        HandlerSettings { sessions: true, audit: args.audit, telemetry: telemetry.clone(), end: CancellationToken::new() };
    let db = open(args)?;
    let handler = SqliteMcp::new(db.clone(), Metrics::default(), handling, CancellationToken::new());
    tokio::select! {
        () = sandbox_server::stdio::serve(handler) => {}
        () = stop::asked() => {}
    }
    close(db, telemetry).await
}

fn make_backup(args: BackupArgs) -> anyhow::Result<()> {
    let BackupArgs { db, to, scratch, metrics_file, keep, compress, gzip } = args;
    let compression = compress.or_else(|| gzip.then_some(Compression::Gzip));
    let options = BackupOptions { db, to, scratch, keep: keep.map(usize::from), compression };
    let (at, began) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now());
    let written = backup::backup(&options);
    if let Some(file) = &metrics_file {
        #[expect(clippy::cast_precision_loss, reason = "no database has 2^52 bytes")]
        let bytes = written.as_ref().ok().map(|written| written.bytes as f64);
        let run = Run { at: at.as_secs_f64(), seconds: began.elapsed().as_secs_f64(), bytes };
        // The backup is there, or its own error is the one to be told.
        if let Err(error) = report::write(file, &options.db, run) {
            tracing::warn!(path = %file.display(), "failed to write the metrics: {error:#}");
        }
    }
    let written = written?;
    tracing::info!(path = written.path, bytes = written.bytes, removed = written.removed.len(), "backup written and verified");
    Ok(())
}

fn put_back(args: &RestoreArgs) -> anyhow::Result<()> {
    if args.if_missing && inspect(&args.db)? == FileState::Database {
        tracing::info!(path = %args.db.display(), "there is a database: nothing restored");
        // It is no condition of a start.
        if let Err(error) = restore::tidy(&args.db) {
            tracing::warn!("failed to remove what a killed restore left: {error}");
        }
        return Ok(());
    }
    let from: Vec<_> = [Some(&args.from), args.or_from.as_ref()].into_iter().flatten().cloned().collect();
    let Restored { from, kept } = restore::restore(&args.db, &from, args.force)?;
    // Empty when there was no database before.
    let kept = kept.map(|kept| kept.display().to_string()).unwrap_or_default();
    tracing::info!(path = %args.db.display(), from, kept, "restored");
    Ok(())
}

/// Joining threads blocks, and must not hold up the runtime's own.
async fn close(db: Database, telemetry: Option<Telemetry>) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || db.close()).await.context("failed to close the database")?;
    if let Some(telemetry) = telemetry {
        telemetry.stop().await;
    }
    tracing::info!("closed");
    Ok(())
}

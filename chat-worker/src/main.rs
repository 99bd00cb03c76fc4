//! The command line of the chat worker.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use chat_worker::{
    app::App,
    config::{
        settings::{Cli, Command, Settings},
        watch,
    },
    logging,
    telemetry::Telemetry,
    ui,
};
use clap::Parser;

/// A piece of an answer is a few small allocations, which one thread makes and another one frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any TLS: two providers in one process would panic later.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let (command, settings) = Cli::parse().into_parts();
    let mut runtime = match settings.worker_threads {
        // The main thread does it all: no queue is shared, and nobody is told that there is work.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(settings.worker_threads.into()).enable_all().build();
    let result = runtime.context("the threads do not start").and_then(|runtime| runtime.block_on(run(command, settings)));
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chat-worker: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command, settings: Settings) -> anyhow::Result<ExitCode> {
    // The level may stand in the configuration, whose warnings are to be logged: it is read first, and again.
    let early = std::fs::read_to_string(&settings.config).ok();
    let in_file = early.and_then(|text| chat_worker::config::file::parse(&text).ok()).and_then(|config| config.log_level);
    let level = settings.log_level.clone().or(in_file).unwrap_or_default();
    let telemetry = Telemetry::start()?;
    logging::start(&level, &settings.log_file, matches!(command, Command::Serve { .. }), telemetry.as_ref());
    let loaded = watch::load(&settings.config)?;
    let app = App::start(settings, loaded, matches!(command, Command::Serve { .. }))?;
    let result = dispatch(&app, command).await;
    app.stop().await;
    if let Some(telemetry) = telemetry {
        telemetry.stop().await;
    }
    result
}

async fn dispatch(app: &Arc<App>, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Chat { resume } => tokio::select! {
            result = ui::terminal::chat::chat(app, resume) => result.map(|()| ExitCode::SUCCESS),
            code = ui::terminal::ended_from_outside() => {
                app.stop().await;
                // The thread that waits for a line cannot be told to stop waiting.
                std::process::exit(code)
            }
        },
        Command::Ask { question, json, yes } => ui::terminal::ask::ask(app, &question, json, yes).await,
        Command::Serve { listen } => {
            let listener = tokio::net::TcpListener::bind(listen).await;
            let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
            ui::web::serve(Arc::clone(app), listener, ui::web::terminated()).await.map(|()| ExitCode::SUCCESS)
        }
    }
}

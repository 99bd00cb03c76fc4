//! The command line of the chat worker.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use chat_worker::{
    app::App,
    config::{check::check, watch},
    logging,
    settings::{Cli, Command, ConfigCommand, Settings},
    telemetry::Telemetry,
    tools::absent::absent,
    ui,
};
use clap::Parser;
use mcp_stdio::guard;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// A piece of an answer is a few small allocations, which one thread makes and another one frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (command, settings) = Cli::parse().into_parts().unwrap_or_else(|error| error.exit());
    if let Command::Guard { process } = command {
        guard::watch(process);
        return ExitCode::SUCCESS;
    }
    // Before any TLS: two providers in one process would panic later.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let has_children = !matches!(command, Command::Config { .. });
    let _guard = has_children.then(|| guard::start("guard")).transpose().unwrap_or_else(|error| {
        eprintln!("chat-worker: nobody will end its servers if it is killed: {error}");
        None
    });
    // Servers that are children of ours run as our user: without this they could read our environment, and the key in it.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("chat-worker: children could read its environment: {error}");
    }
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
    if let Command::Config { command: ConfigCommand::Check { file } } = &command {
        let file = file.as_ref().unwrap_or(&settings.config);
        return check(file, absent, &mut std::io::stdout().lock()).context("standard output is closed");
    }
    // The level may stand in the configuration, whose warnings are to be logged: it is read first, and again.
    let level = settings.log_level.clone().or_else(|| watch::log_level(&settings.config)).unwrap_or_default();
    let telemetry = Telemetry::start()?;
    let log_level = logging::start(&level, &settings.log_file, matches!(command, Command::Serve { .. }), telemetry.as_ref());
    let is_set = settings.log_level.is_some();
    let loaded = watch::load(&settings.config)?;
    let app = App::start(settings, loaded, matches!(command, Command::Serve { .. }))?;
    if !is_set {
        tokio::spawn(log_level.follow(app.config.clone()));
    }
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
        // Done before anything was started.
        Command::Config { .. } | Command::Guard { .. } => Ok(ExitCode::SUCCESS),
        Command::Ask { question, json, yes } => ui::terminal::ask::ask(app, &question, json, yes).await,
        Command::Serve { listen } => {
            let listener = http_server::listen(listen).await?;
            ui::web::serve(Arc::clone(app), listener, http_server::stop::asked()).await.map(|()| ExitCode::SUCCESS)
        }
    }
}

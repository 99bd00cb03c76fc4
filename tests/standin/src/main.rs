//! The command line of the stand-in: which script, which address, and when to stop.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use log_lines::{Format, Level, To};
use model_standin::{
    Standin,
    script::{self, Script},
};
use tokio::{net::TcpListener, signal::unix};

/// A stand-in for the model: answers the Messages API from a script. It is no model.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// The script, in YAML or JSON; without it, the one about the customers of the sandbox.
    #[arg(long)]
    script: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log_lines::start(Level::default().filter(), Format::Json, To::Stdout);
    let text = match &args.script {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => script::DEFAULT.to_owned(),
    };
    let script = Script::parse(&text)?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    tracing::info!(
        "model-standin listens on http://{}: it answers from a script of {} rules and is no model",
        listener.local_addr()?,
        script.rules.len()
    );
    model_standin::serve(Standin::new(script), listener, stop).await?;
    Ok(())
}

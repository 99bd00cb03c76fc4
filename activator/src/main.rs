//! The program: reads flags, starts logging, and says by its exit code what went wrong.

use std::process::ExitCode;

use activator::config::Args;
use anyhow::Context as _;
use clap::Parser as _;
use log_lines::To;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.start(To::Stderr);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(if error.is::<std::io::Error>() { 4 } else { 1 })
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the runtime")?;
    runtime.block_on(activator::run(args))
}

//! The program: reads flags, starts logging, and says by its exit code what went wrong.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{self, ExitCode};

use anyhow::Context as _;
use bridge::config::{Cli, Command, InstallArgs};
use bridge::copy_self::copy_self;
use bridge::install::{InstallError, install};
use bridge::seal::KeyError;
use bridge::{run, upstream};
use clap::Parser as _;
use log_lines::{Format, To};
use mcp_stdio::{guard, orphans};

/// A call is a dozen small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Guard { process } = cli.command {
        guard::watch(process);
        return ExitCode::SUCCESS;
    }
    log_lines::start(cli.log_level.filter(), Format::Json, To::Stderr);
    let is_run = matches!(cli.command, Command::Run(_));
    let result = match cli.command {
        Command::Run(args) => match args.upstream.clone() {
            Some(upstream) => block_on(upstream::run(*args, upstream)),
            None => block_on(run::run(*args)),
        },
        Command::CopySelf { to } => copy_self(&to)
            .map(|file| {
                tracing::info!(file = %file.display(), "copied");
                ExitCode::SUCCESS
            })
            .with_context(|| format!("failed to copy this program to {}", to.display())),
        Command::Install(args) => block_on(put_in_place(args)),
        Command::Activate { args } => activate(&args),
        Command::Guard { .. } => unreachable!("it watches already"),
    };
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::from(exit_code(&error, is_run))
    })
}

fn exit_code(error: &anyhow::Error, is_run: bool) -> u8 {
    if error.is::<KeyError>() {
        5
    } else if is_run && error.is::<std::io::Error>() {
        4
    } else {
        1
    }
}

/// One thread does it all: what a call needs is in its caches, and no lock is ever waited for.
fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the runtime")?.block_on(work)
}

/// Becomes the activator, which is a program of its own: a copy of the bridge in each pod need not carry a client of Kubernetes.
fn activate(args: &[OsString]) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("failed to find out where this program is")?.with_file_name("activator");
    let error = process::Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("failed to start {}, which the bridge's image has beside it", program.display()))
}

async fn put_in_place(args: InstallArgs) -> anyhow::Result<ExitCode> {
    // What an installer leaves behind comes to us, and ends with us.
    let _guard = run::adopt()?;
    let wanted = args.wanted();
    let installed = tokio::select! {
        installed = install(&wanted, &args.into, args.default_registry.as_deref()) => installed,
        () = http_server::stop::asked() => Err(InstallError::Stopped(args.package)),
    };
    orphans::kill_all();
    if let Err(error) = &installed {
        run::last_words(&args.termination_log, &error.to_string());
    }
    installed?;
    Ok(ExitCode::SUCCESS)
}

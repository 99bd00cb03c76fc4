//! The parts of the benchmark that have to be quick: `load` sends tool calls and measures (load.rs, http.rs), `bare` and `minimal` are the two
//! limits that the server is held against (limits.rs). tests/bench-sandbox runs them.

mod http;
mod limits;
mod load;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends calls and prints one line of JSON.
    Load(load::LoadArgs),
    /// The same SQL over HTTP without MCP.
    Bare(limits::LimitArgs),
    /// The smallest server that the SDK makes.
    Minimal(limits::LimitArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        // One thread: it sends several times what the quickest server answers, and waking a second one would take time from that server.
        Command::Load(args) => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(load::load(args)),
        Command::Bare(args) => tokio::runtime::Runtime::new()?.block_on(limits::bare(args)),
        Command::Minimal(args) => tokio::runtime::Runtime::new()?.block_on(limits::minimal(args)),
    }
}

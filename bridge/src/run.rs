//! Puts the parts together, serves until it is told to stop or the server cannot be kept alive, and ends in good order.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_server::{Connections, LameDuck, stop};
use mcp_stdio::guard::{self, Guard};
use mcp_stdio::orphans;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use traces::{Service, Traces};

use crate::bridge::{Bridge, Parts};
use crate::config::{RunArgs, Sessions, seconds};
use crate::death::Death;
use crate::door;
use crate::handshake::By;
use crate::install;
use crate::keeper;
use crate::lane::{Lane, Program};
use crate::metrics::Metrics;
use crate::pool::{Pool, Recipe};
use crate::seal::Sealer;
use crate::sessions::Registry;

const SERVICE: Service = Service { name: "bridge", version: env!("CARGO_PKG_VERSION") };

/// What answers to the last calls get to leave, when there is no server any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Until it is stopped, or the server is given up: then with the server's exit code.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let sealer = Sealer::new(args.session_key_file.as_deref())?;
    let listener = http_server::listen(args.listen).await?;
    http_server::warn_when_open(
        listener.local_addr()?,
        false,
        &args.allowed_hosts,
        "can call every tool: let a NetworkPolicy say who does, or listen on 127.0.0.1",
    );
    let own = args.pod_ip.map(|ip| SocketAddr::new(ip, args.listen.port()).to_string()).unwrap_or_default();
    let sessions = Arc::new(Registry::new(sealer, own));
    let metrics = Metrics::default();
    // The variables are the server's, too, which may speak what we do not: that is no reason not to run it.
    let traces = Traces::start(SERVICE).unwrap_or_else(|error| {
        tracing::warn!("the bridge sends no traces: {error}");
        None
    });
    let (stop, program) = (CancellationToken::new(), program(&args));
    let shared = Lane::new(args.limits(), metrics.clone(), By::Us, Arc::<Registry>::clone(&sessions), stop.child_token());
    let pool = (args.sessions == Sessions::PerSession).then(|| {
        let (sessions, metrics) = (Arc::clone(&sessions), metrics.clone());
        let recipe = Recipe { program: program.clone(), limits: args.limits(), metrics, sessions, stop: stop.clone() };
        Pool::new(recipe, usize::from(args.max_sessions), args.policy())
    });
    let bridge = Bridge::new(Parts {
        shared,
        pool: pool.clone(),
        sessions,
        metrics,
        timeout: args.limits().timeout,
        longest: args.limits().longest,
        hold: seconds(args.hold_seconds.unwrap_or(args.timeout_seconds)),
        idle: seconds(args.session_idle_seconds),
        max_request_bytes: args.max_request_bytes as usize,
        hosts: args.allowed_hosts.clone(),
        origins: args.allowed_origins.clone(),
        traces: traces.clone(),
    });
    let _guard = adopt()?;
    tokio::spawn(orphans::keep_reaping());
    let idle = Arc::clone(&bridge);
    tokio::spawn(async move { idle.end_idle_sessions().await });
    tracing::info!(address = %listener.local_addr()?, "serving MCP at /mcp");

    let (gone, is_gone) = oneshot::channel();
    let children = tokio::spawn(keep(Arc::clone(&bridge), pool, program, args.policy(), gone));
    let lame_duck = seconds(args.lame_duck_seconds);
    let connections =
        Connections { idle: seconds(args.idle_timeout_seconds), ..Connections::most(usize::from(args.max_connections)) };
    let mut died = None;
    let mut left = http_server::serve_kept(listener, door::service(Arc::clone(&bridge)), connections, async {
        tokio::select! {
            () = stop::asked() => {
                bridge.drain();
                tracing::info!("draining");
                // New connections come until all know that this one is not ready any more.
                LameDuck { least: lame_duck, most: lame_duck }
            }
            Ok(death) = is_gone => {
                died = Some(death);
                LameDuck::NONE
            }
        }
    })
    .await;
    bridge.end_streams();
    let patience = if died.is_some() { FAREWELL } else { seconds(args.drain_seconds) };
    if !left.within(patience).await {
        tracing::warn!(seconds = patience.as_secs(), "some requests did not finish in time");
    }
    stop.cancel();
    // Their ends are waited for: nothing that they started may be left.
    let _ = children.await;
    while bridge.metrics.children.get() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    orphans::kill_all();
    orphans::reap();
    if let Some(traces) = traces {
        traces.stop().await;
    }
    let Some(death) = died else { return Ok(ExitCode::SUCCESS) };
    last_words(&args.termination_log, &death.termination_message());
    Ok(ExitCode::from(death.exit_code()))
}

/// With `npx` and `uvx` replaced by what they would start, where that is installed.
fn program(args: &RunArgs) -> Program {
    let installed = args.packages.as_deref().and_then(|folder| install::installed(&args.command, folder));
    let mut command = installed.unwrap_or_else(|| args.command.clone()).into_iter();
    Program { command: command.next().unwrap_or_default(), args: command.collect(), startup: seconds(args.startup_seconds) }
}

/// Sees that there are children, until they were stopped or are given up.
async fn keep(
    bridge: Arc<Bridge>,
    pool: Option<Arc<Pool>>,
    program: Program,
    policy: crate::respawn::Policy,
    gone: oneshot::Sender<Arc<Death>>,
) {
    let shared = async {
        if pool.is_some() {
            tokio::select! {
                () = bridge.shared_is_wanted() => {}
                () = bridge.shared.stopped() => return None,
            }
        }
        keeper::keep(&bridge.shared, &program, policy, &bridge.metrics).await
    };
    let death = match &pool {
        None => shared.await,
        Some(pool) => {
            pool.prepare();
            tokio::select! {
                death = shared => death,
                death = pool.gives_up() => Some(death),
            }
        }
    };
    if let Some(death) = death {
        // Nobody listens any more when the process ends already.
        let _ = gone.send(death);
    }
}

/// Where the kubelet reads why a container ended. On a laptop there is no such file, and none is made.
pub fn last_words(file: &Path, words: &str) {
    if let Ok(mut file) = File::options().write(true).truncate(true).open(file)
        && let Err(error) = file.write_all(words.as_bytes())
    {
        tracing::warn!(%error, "failed to write the termination log");
    }
}

/// What is left behind by whatever is started comes to us, whether we are the first process of a container or not; and should we be killed,
/// somebody ends it.
pub fn adopt() -> anyhow::Result<Option<Guard>> {
    orphans::adopt().context("failed to become the parent of orphans")?;
    Ok(guard::start("guard").unwrap_or_else(|error| {
        tracing::warn!(%error, "nobody will end the server if this process is killed");
        None
    }))
}

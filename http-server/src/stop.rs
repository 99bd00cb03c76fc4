//! When a program is to end: SIGTERM, or control and C. Whoever asks twice does not want to wait.

use std::sync::LazyLock;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

static AGAIN: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// Completes when this process is asked to end. From then on it notices when it is asked again: `Draining::within` ends then, whatever is
/// under way, as does the time in which new connections are still taken.
pub async fn asked() {
    let Ok(mut signals) = Signals::new() else {
        tracing::error!("cannot listen for signals");
        return std::future::pending().await;
    };
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("asked again to stop: what is under way is not waited for");
        AGAIN.cancel();
    });
}

/// Completes when it is asked a second time.
pub(crate) async fn asked_again() {
    AGAIN.cancelled().await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

//! What every handler may need.

use std::sync::{Arc, atomic::AtomicBool};

use http_server::pace::Pace;
use tokio_util::sync::CancellationToken;

use super::{access::Access, line::Line, mcp::running::Calls};
use crate::app::App;

/// A conversation that is sent back with each question may be long.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// What every handler may need.
#[derive(Debug)]
pub struct Web {
    pub app: Arc<App>,
    pub access: Access,
    pub pace: Option<Pace>,
    /// Those beyond the pace who wait.
    pub line: Line,
    /// Calls over /mcp that are under way.
    pub calls: Arc<Calls>,
    /// Each server was tried once, or has had the time for it: ready from then on.
    pub tried: AtomicBool,
    /// SIGTERM came: not ready any more.
    pub draining: CancellationToken,
    /// The time for running answers is over.
    pub stopped: CancellationToken,
}

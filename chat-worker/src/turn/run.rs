//! A turn that is under way: what all turns share, what one of them has come to so far, and how it tells of itself. What is done with it is
//! `driver`'s, `asking`'s and `running`'s business.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::{
    cache::{Recording, ResponseCache},
    event::Event,
    machine::Limits,
};
use crate::{
    audit::AuditArguments,
    config::rules::Approvals,
    llm::Model,
    message::{ToolCall, Usage},
    metrics::Metrics,
    policy::Verdict,
    tools::{catalogue::Catalogue, hub::Hub, spec::ToolSpec},
    usage::Ledger,
};

/// Everything that turns share.
#[derive(Debug)]
pub struct Engine {
    pub model: Arc<dyn Model>,
    pub hub: Arc<Hub>,
    pub ledger: Arc<Ledger>,
    pub cache: ResponseCache,
    pub metrics: Arc<Metrics>,
    pub system_prompt: String,
    pub limits: Limits,
    /// What the model's window leaves for a prompt, in tokens; `None` when only the model knows.
    pub room: Option<u64>,
    /// What the audit says of arguments.
    pub audit_arguments: AuditArguments,
}

/// A call, with the tool as it was when the call was judged: a tool that comes, or changes, later is another one.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) call: ToolCall,
    pub(super) spec: Option<Arc<ToolSpec>>,
    pub(super) verdict: Verdict,
}

impl Judged {
    pub(super) fn server(&self) -> &str {
        self.spec.as_ref().map_or("", |spec| &spec.server)
    }

    pub(super) fn tool(&self) -> &str {
        self.spec.as_ref().map_or("unknown", |spec| &spec.tool)
    }
}

/// The parts of a running turn that change.
pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) cancel: CancellationToken,
    pub(super) approvals: Approvals,
    pub(super) unattended: bool,
    pub(super) caller: String,
    /// The calls of this round.
    pub(super) judged: HashMap<String, Judged>,
    /// Calls that were not allowed.
    pub(super) refused: usize,
    pub(super) always: HashSet<String>,
    pub(super) decided: Option<Vec<String>>,
    /// The hash of the definition that each call was shown with.
    pub(super) shown: HashMap<String, String>,
    pub(super) decisions: Option<mpsc::Receiver<Vec<String>>>,
    pub(super) catalogue: Catalogue,
    pub(super) usage: Usage,
    pub(super) cost: Option<f64>,
    pub(super) model: String,
    pub(super) tools_used: Vec<String>,
    /// Another model than the one of the settings.
    pub(super) asked: Option<String>,
    /// What is told, where the answer may be kept.
    pub(super) recording: Option<Mutex<Recording>>,
}

impl Run<'_> {
    pub(super) async fn tell(&self, event: Event) {
        if let Some(recording) = &self.recording {
            recording.lock().unwrap_or_else(PoisonError::into_inner).note(&event);
        }
        // Mostly there is room, and nothing to wait for. A reader that went away cancels the turn by its token; the turn itself goes on
        // to a valid end.
        if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
            let _ = self.events.send(event).await;
        }
    }

    /// Tells what is worth knowing only now: whoever does not keep up misses it.
    pub(super) fn mention(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

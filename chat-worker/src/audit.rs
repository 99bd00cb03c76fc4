//! The audit: one line of the log for each call of a tool, whether it ran or not. It is written at every log level.

use std::time::Duration;

use clap::ValueEnum;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::redact::redact_json;

/// The log's name for these lines: whatever the level, they are kept.
pub const TARGET: &str = "chat_worker::audit";

/// Bytes of a tool's name: one that nobody knows may be any text.
const MAX_NAME: usize = 256;

/// What a line holds of a call's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditArguments {
    /// Their SHA-256, in hexadecimal: enough to prove which call it was.
    Digest,
    /// All of them, as JSON; what looks like a secret is taken out, and the texts of fields that are named for one.
    Whole,
}

/// A call, and what became of it.
#[derive(Debug)]
pub struct Call<'a> {
    /// Who asked for it: an address, or "terminal".
    pub caller: &'a str,
    pub server: &'a str,
    pub tool: &'a str,
    /// As JSON.
    pub arguments: &'a str,
    /// By what it was allowed, or why it was not.
    pub decision: &'a str,
    pub allowed: bool,
    /// What it came to; "refused" where it did not run.
    pub outcome: &'a str,
    pub duration: Duration,
}

impl Call<'_> {
    /// Writes the line. `request_id` comes from the span that it is written in.
    pub fn log(&self, arguments: AuditArguments) {
        let told = match arguments {
            AuditArguments::Digest => format!("sha256:{}", digest_of(self.arguments)),
            AuditArguments::Whole => redact_json(self.arguments).into_owned(),
        };
        tracing::info!(
            target: TARGET,
            caller = self.caller,
            server = self.server,
            tool = &self.tool[..self.tool.floor_char_boundary(MAX_NAME)],
            arguments = told,
            allowed = self.allowed,
            decision = self.decision,
            outcome = self.outcome,
            duration_seconds = self.duration.as_secs_f64(),
            "Tool call"
        );
    }
}

/// The plain SHA-256 of the arguments as JSON, which anybody can compute again.
fn digest_of(written: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(written.as_bytes()))
}

//! Why a server cannot be used. Depends on nothing here, and everything that speaks to servers on it.

use std::time::Duration;

use rmcp::ErrorData;

/// Why a server cannot be used, or a call of it failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServerError {
    #[error("{0} could not be started: {1}")]
    Start(String, String),
    #[error("its credentials cannot be used: {0}")]
    Credentials(String),
    /// A call that met this was not sent.
    #[error("could not connect: {0}")]
    Connect(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection failed: {0}")]
    Transport(String),
    /// What was there has ended, as it says.
    #[error("{0}")]
    Ended(String),
    /// The server is up, and says no.
    #[error("{0}")]
    Refused(String),
    /// It is up, and asks to be left alone (HTTP 429), for so long; zero where it does not say that.
    #[error("{0}")]
    Limited(String, Duration),
    /// The server says no in an error of its own: in words, and as it was written.
    #[error("{0}")]
    Own(String, Box<ErrorData>),
}

impl ServerError {
    /// Whether it speaks against the server's health.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Limited(..) | Self::Own(..))
    }

    /// Whether the same call may do better at once: a timeout has already cost its time.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::Connect(_))
    }

    /// Whether the server cannot have heard of the call: then any call may be made again.
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::Connect(_))
    }
}

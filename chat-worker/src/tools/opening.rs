//! In which era, and by which revision, a connection is opened: what is tried first, and what after an attempt that was refused. Pure.

use mcp_wire::hello::{LEGACY, revision_after, supported};
use rmcp::{
    ErrorData,
    model::ProtocolVersion,
    service::{ClientInitializeError, ClientLifecycleMode},
};

use super::asked::SILENT;

/// How it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// `server/discover`; `initialize` where another answer comes, or none.
    Either,
    /// `initialize` by this revision.
    Legacy(&'static str),
    /// `server/discover`, however long its answer takes.
    Modern,
}

impl Opening {
    /// What is tried first.
    pub fn first(legacy: bool) -> Self {
        if legacy { Self::Legacy(LEGACY[0]) } else { Self::Either }
    }

    /// As the SDK does it.
    pub fn mode(self) -> ClientLifecycleMode {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        match self {
            Self::Either => {
                ClientLifecycleMode::Auto { preferred_versions, legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE) }
            }
            Self::Legacy(_) => ClientLifecycleMode::Initialize,
            Self::Modern => ClientLifecycleMode::Discover { preferred_versions },
        }
    }

    /// The revision that we say is ours.
    pub fn revision(self) -> ProtocolVersion {
        match self {
            Self::Legacy(named) => {
                let known = ProtocolVersion::KNOWN_VERSIONS.iter().find(|known| known.as_str() == named);
                known.cloned().unwrap_or(ProtocolVersion::LATEST_WITH_INITIALIZE)
            }
            Self::Either | Self::Modern => ProtocolVersion::V_2026_07_28,
        }
    }

    /// Whether silence to `server/discover` is an answer to it.
    pub fn takes_silence(self) -> bool {
        self == Self::Either
    }

    /// What is tried after this came to such an end; `None` where that would come to the same. By an earlier revision, where it is the revision
    /// that is refused. Who was silent to discover, and then refuses to be initialized, may have been slow.
    pub fn after(self, error: &ClientInitializeError) -> Option<Self> {
        let (refused, was_silent) = match error {
            // Some end when what they hear first is not `initialize`.
            ClientInitializeError::ConnectionClosed(_) if self == Self::Either => return Some(Self::Legacy(LEGACY[0])),
            // Also where they were slow to read it, and had been asked the other thing by then.
            ClientInitializeError::LegacyFallbackFailed { discover, fallback } if was_closed(fallback) => {
                return is_silence(discover).then_some(Self::Legacy(LEGACY[0]));
            }
            ClientInitializeError::LegacyFallbackFailed { discover, fallback } => (refusal(fallback)?, is_silence(discover)),
            other => (refusal(other)?, false),
        };
        let asked = match self {
            Self::Either => LEGACY[0],
            Self::Legacy(revision) => revision,
            Self::Modern => return None,
        };
        let earlier = revision_after(asked, &refused.message, &supported(refused.data.as_ref()));
        earlier.map(Self::Legacy).or_else(|| was_silent.then_some(Self::Modern))
    }
}

fn was_closed(error: &ClientInitializeError) -> bool {
    matches!(error, ClientInitializeError::ConnectionClosed(_))
}

fn is_silence(error: &ClientInitializeError) -> bool {
    refusal(error).is_some_and(|error| error.message == SILENT)
}

fn refusal(error: &ClientInitializeError) -> Option<&ErrorData> {
    match error {
        ClientInitializeError::JsonRpcError(error) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::ErrorCode;
    use serde_json::json;

    use super::*;

    fn error(message: &str, data: Option<serde_json::Value>) -> Box<ClientInitializeError> {
        Box::new(ClientInitializeError::JsonRpcError(ErrorData::new(ErrorCode::INVALID_PARAMS, message.to_owned(), data)))
    }

    fn after_both(discover: &str, refused: &str) -> Option<Opening> {
        let failed =
            ClientInitializeError::LegacyFallbackFailed { discover: error(discover, None), fallback: error(refused, None) };
        Opening::Either.after(&failed)
    }

    #[test]
    fn a_revision_that_is_refused_is_followed_by_an_earlier_one() {
        let named = error("Unsupported protocol version", Some(json!({"supported": ["2025-03-26"]})));
        assert_eq!(Opening::Legacy(LEGACY[0]).after(&named), Some(Opening::Legacy("2025-03-26")));
        assert_eq!(Opening::Legacy("2025-03-26").after(&named), None);
        assert_eq!(after_both("no such method", "unsupported version"), Some(Opening::Legacy("2025-06-18")));
        for revision in LEGACY {
            assert_eq!(Opening::Legacy(revision).revision().as_str(), revision);
        }
    }

    #[test]
    fn who_ends_at_discover_is_initialized() {
        let closed = ClientInitializeError::ConnectionClosed("discover response".into());
        assert_eq!(Opening::Either.after(&closed), Some(Opening::Legacy(LEGACY[0])));
        assert_eq!(Opening::Legacy(LEGACY[0]).after(&closed), None);
        assert_eq!(Opening::Modern.after(&closed), None);
        let slow = |discover: &str| {
            let fallback = Box::new(ClientInitializeError::ConnectionClosed("initialize response".into()));
            let failed = ClientInitializeError::LegacyFallbackFailed { discover: error(discover, None), fallback };
            Opening::Either.after(&failed)
        };
        assert_eq!((slow(SILENT), slow("no such method")), (Some(Opening::Legacy(LEGACY[0])), None));
    }

    #[test]
    fn who_was_silent_and_refuses_to_be_initialized_may_have_been_slow() {
        assert_eq!(after_both(SILENT, "no such method"), Some(Opening::Modern));
        assert_eq!(after_both("no such method", "no such method"), None);
        assert_eq!(Opening::Modern.after(&error("unsupported version", None)), None);
    }
}
